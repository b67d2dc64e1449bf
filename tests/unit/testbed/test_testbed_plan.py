"""What a world is made from, before any process starts: layout, guest, firewall text, Slurm's configuration, options."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dcde_testbed import applications, cli, firewall, outside, slurm
from dcde_testbed.guest import Guest, GuestError, load, parse
from dcde_testbed.layout import SITES, LayoutError, Site, sites_with


def test_addresses_names_and_numbers_are_unique() -> None:
    for of in (
        lambda s: s.login_address,
        lambda s: s.dtn_address,
        lambda s: s.storage_root,
        lambda s: s.number,
        lambda s: s.software,
    ):
        assert len({of(site) for site in SITES}) == len(SITES)
    for site in SITES:
        addresses = [site.lan_address(machine) for machine in site.machines]
        assert len(set(addresses)) == len(addresses)
        assert len({account.uid for account in site.accounts}) == len(site.accounts)
        assert [site.wan_address(m) for m in ("login", "n1", "dtn")] == [
            f"10.77.0.1{site.number}",
            None,
            f"10.77.0.2{site.number}",
        ]


def test_the_first_person_has_three_names_and_the_second_one_site() -> None:
    names = {a.dcde_id: set() for site in SITES for a in site.accounts}
    for site in SITES:
        for account in site.accounts:
            names[account.dcde_id].add((site.name, account.name))
    assert {name for _, name in names["dcde1000001"]} == {"u12345", "d7c", "drivers"}
    assert names["dcde1000002"] == {("ornl-cades", "mt9")}


def test_site_options() -> None:
    sites = {site.name: site for site in sites_with(["anl-lcrc.storage_mb=64", "bnl-sdcc.nodes=3"])}
    assert sites["anl-lcrc"].storage_mb == 64
    assert sites["bnl-sdcc"].machines == ("login", "n1", "n2", "n3", "dtn")
    assert sites["ornl-cades"].storage_mb == 0
    assert Site.from_json(json.loads(json.dumps(sites["anl-lcrc"].to_json()))) == sites["anl-lcrc"]


@pytest.mark.parametrize(
    "option",
    ["anl-lcrc.storage_mb", "anl.storage_mb=1", "anl-lcrc.colour=1", "anl-lcrc.nodes=0", "bnl-sdcc.nodes=²", "x"],
)
def test_impossible_site_options(option: str) -> None:
    with pytest.raises(LayoutError, match="site option"):
        sites_with([option])


def test_a_whole_guest_survives_the_way_to_process_1(tmp_path: Path) -> None:
    text = f"""
        binds: [{{source: {tmp_path}, target: /opt/dcde/demo}}]
        accounts: [{{name: dcde-broker, uid: 985}}]
        prepare: [[/usr/bin/true, "1"]]
        services: [{{name: hub, argv: [a, b], environment: {{K: V}}, umask: "077"}}]
        routes: {{hub.localhost: 8000}}
        people: {{api_ports: [8081, 8082]}}
        ready: [http://127.0.0.1:8000/hub/health]
    """
    (tmp_path / "guest.yaml").write_text(text)
    guest = load(tmp_path / "guest.yaml")
    assert guest.binds[0].read_only
    assert guest.services[0].umask == "077"
    assert Guest.from_json(json.loads(json.dumps(guest.to_json()))) == guest
    assert parse({}) == Guest()


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ([], "must be a mapping"),
        ({"colour": 1}, "unknown colour"),
        ({"binds": [{"source": "a", "target": "/b"}]}, r"binds\[0\].source"),
        ({"binds": [{"source": "/usr/../etc", "target": "/b"}]}, r"without \.\."),
        ({"binds": [{"source": "/nonexistent", "target": "/b"}]}, "does not exist"),
        ({"accounts": [{"name": "root", "uid": 0}]}, "900 to 999"),
        ({"accounts": [{"name": "Root:x", "uid": 985}]}, "lower case"),
        ({"prepare": [[]]}, r"prepare\[0\]"),
        ({"prepare": ["rm -r /"]}, "must be a list"),
        ({"services": [{"name": "../x", "argv": ["a"]}]}, r"services\[0\].name"),
        ({"services": [{"name": "x", "argv": ["a"], "environment": {"A": 1}}]}, "environment"),
        ({"services": [{"name": "x", "argv": ["a"], "umask": 77}]}, "umask"),
        ({"services": [{"name": "x", "argv": ["a"], "directory": "x"}]}, "directory"),
        ({"routes": {"example.org": 80}}, "below localhost"),
        ({"routes": {"hub.localhost": 0}}, "a port is"),
        ({"people": {"api_ports": ["8081"]}}, "a port is"),
        ({"ready": ["https://example.org/"]}, "no http address"),
        ({"ready": ["file:///etc/passwd"]}, "no http address"),
    ],
)
def test_a_wrong_guest_is_refused_with_the_place(wrong: object, where: str) -> None:
    with pytest.raises(GuestError, match=where):
        parse(wrong)


def test_guest_file_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(GuestError, match=r"missing\.yaml"):
        load(tmp_path / "missing.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(GuestError, match=r"bad.yaml: not YAML"):
        load(tmp_path / "bad.yaml")


def test_people_may_reach_the_named_ports_only() -> None:
    rules = firewall.people_rules(SITES, [8082, 8081])
    assert "tcp dport { 8081, 8082 } counter name people_api accept" in rules
    assert "10.77.0.13 . 2222" in rules
    assert rules.count("accept") == 5  # established twice, loopback, API, ssh
    assert "people_api accept" not in firewall.people_rules(SITES, [])


def test_a_transfer_node_names_the_others_only() -> None:
    rules = firewall.dtn_rules(SITES[0], SITES)
    assert "10.77.0.22, 10.77.0.23" in rules
    assert "10.77.0.21" not in rules
    assert "dport 22" not in rules


def test_slurm_configuration() -> None:
    text = slurm.slurm_conf(sites_with(["anl-lcrc.cores_per_node=4"])[2])
    assert "ClusterName=anl-lcrc\n" in text
    assert "SlurmctldHost=login(10.78.3.1)\n" in text
    assert "PrivateData=jobs,usage\n" in text
    assert "NodeName=n2 NodeAddr=10.78.3.12 CPUs=4 RealMemory=4000 State=UNKNOWN\n" in text
    assert text.count("Default=YES") == 1


def test_software_is_installed_under_each_sites_own_path(tmp_path: Path) -> None:
    program = tmp_path / "ctffind"
    program.write_text("#!/usr/bin/env python3\nprint('here')\n")
    paths = set()
    for site in SITES:
        root, etc = tmp_path / site.name / "root", tmp_path / site.name / "etc"
        etc.mkdir(parents=True)
        assert applications.install(site, root, etc, program) is None
        setup = applications.setup_of(site)
        installed = root / Path(setup.ctffind).relative_to(setup.root)
        assert installed.read_text() == "#!/opt/dcde/site/bin/python\nprint('here')\n"
        assert installed.stat().st_mode & 0o111 == 0o111
        paths.add(setup.ctffind)
        assert setup.facts()["applications"]["relion"]["version"] == "3.1.3"
    assert len(paths) == 3
    warning = applications.install(SITES[0], tmp_path / "again", tmp_path / "bnl-sdcc" / "etc", tmp_path / "missing")
    assert warning is not None
    assert "bnl-sdcc" in warning


def test_other_machines_are_shut_out_unless_meant() -> None:
    outside.check_listen("127.0.0.1", False)
    outside.check_listen("::1", False)
    outside.check_listen("0.0.0.0", True)
    for address in ("0.0.0.0", "192.0.2.1", "::"):
        with pytest.raises(outside.WorldError, match="--expose"):
            outside.check_listen(address, False)
    with pytest.raises(outside.WorldError, match="in numbers"):
        outside.check_listen("localhost", False)


def test_commands_without_a_world_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = ["--state", str(tmp_path / "none")]
    assert cli.main(["status", *state]) == 3
    assert cli.main(["down", *state]) == 0
    assert cli.main(["in", *state, "bnl-sdcc", "true"]) == 1
    assert cli.main(["node", *state, "bnl-sdcc/n1", "stop"]) == 1
    assert cli.main(["up", *state, "--site-option", "nonsense"]) == 1
    assert cli.main(["up", *state, "--sample-data", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert said.out == "down\nNo world was up.\n"
    assert said.err.count("no world is up") == 2
    assert "no folder movies" in said.err


def test_the_state_folder_is_private_with_links_into_it(tmp_path: Path) -> None:
    state = tmp_path / "deep" / "state"
    for _ in range(2):
        outside.make_state(state)
    assert state.stat().st_mode & 0o777 == 0o700
    assert (state / "inside").stat().st_mode & 0o777 == 0o711
    (state / "registry.yaml").write_text("people: []\n")
    assert (state / "inside" / "registry.yaml").read_text() == "people: []\n"
    assert (state / "logs").is_dir()
    assert not outside.is_up(state)


def test_a_folder_with_other_things_does_not_become_a_state_folder(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("important")
    mode = tmp_path.stat().st_mode
    with pytest.raises(outside.WorldError, match="other things"):
        outside.make_state(tmp_path)
    assert tmp_path.stat().st_mode == mode
