"""What a person finds at the three sites: accounts, Slurm, ssh with the site's own CA, software, and nobody else's things."""

from __future__ import annotations

import pytest
from dcde_testbed.world import World

FIRST = {"bnl-sdcc": "u12345", "ornl-cades": "d7c", "anl-lcrc": "drivers"}
SECOND = {"bnl-sdcc": "u12399", "ornl-cades": "mt9", "anl-lcrc": "pnovak"}
SITES = tuple(FIRST)


@pytest.mark.parametrize("site", SITES)
def test_all_nodes_are_idle(world: World, site: str) -> None:
    shown = world.run(site, "login", ["sinfo", "-h", "-o", "%P %D %t"]).stdout.split("\n")
    assert "batch* 2 idle" in shown
    assert "debug 2 idle" in shown


@pytest.mark.parametrize("site", SITES)
def test_a_job_runs_as_the_own_account_and_only_its_owner_sees_it(world: World, site: str) -> None:
    command = [
        "sbatch",
        "--wait",
        "--parsable",
        "--account=dcde",
        "--output=out",
        "--wrap",
        "id -un; hostname; touch $HOME/was-here",
    ]
    job = world.run(site, "login", command, user=FIRST[site]).stdout.split()[0]
    said = world.run(site, "login", ["cat", "out"], user=FIRST[site]).stdout.split()
    assert said[0] == FIRST[site]
    assert said[1].startswith("n")
    seen = world.run(site, "login", ["squeue", "-h", "-t", "all", "-o", "%i %u %a"], user=FIRST[site]).stdout
    assert f"{job} {FIRST[site]} dcde" in seen
    assert world.run(site, "login", ["squeue", "-h", "-t", "all"], user=SECOND[site]).stdout == ""
    root = world.run(site, "login", ["scontrol", "-o", "show", "job", job]).stdout
    assert f"UserId={FIRST[site]}(" in root
    assert "JobState=COMPLETED" in root
    assert "Requeue=0" in root


@pytest.mark.parametrize("site", SITES)
def test_homes_and_storage_are_closed_to_others(world: World, site: str) -> None:
    root = world.facts["sites"][site]["storage_root"]
    for folder in (f"/home/{FIRST[site]}", f"{root}/{FIRST[site]}"):
        shown = world.run(site, "login", ["stat", "-c", "%a %U", folder]).stdout.split()
        assert shown == ["700", FIRST[site]]
        refused = world.run(site, "n1", ["ls", folder], user=SECOND[site], check=False)
        assert refused.returncode != 0
        assert "Permission denied" in refused.stderr


def test_storage_is_the_same_on_all_machines_of_a_site_and_on_no_other(world: World) -> None:
    root = world.facts["sites"]["bnl-sdcc"]["storage_root"]
    world.run("bnl-sdcc", "dtn", ["touch", f"{root}/u12345/seen"], user="u12345")
    for machine in ("login", "n1", "n2"):
        world.run("bnl-sdcc", machine, ["test", "-f", f"{root}/u12345/seen"], user="u12345")
    assert world.run("ornl-cades", "login", ["ls", root], check=False).returncode != 0


def test_a_site_sees_only_its_own_environment_and_processes(world: World) -> None:
    shown = world.run("bnl-sdcc", "n1", ["ls", "/opt/dcde"]).stdout.split()
    assert shown == ["site"]
    assert world.run("bnl-sdcc", "n1", ["ls", "/var/lib/dcde"], check=False).returncode != 0
    assert world.run("bnl-sdcc", "login", ["ps", "-e", "-o", "user="], user="u12345").stdout.split() == ["u12345"]
    assert "munged" not in world.run("bnl-sdcc", "dtn", ["ps", "-e", "-o", "comm="]).stdout


@pytest.mark.parametrize("site", SITES)
def test_ssh_with_a_certificate_for_the_mapped_account(world: World, certificate, login, site: str) -> None:
    key = certificate(f"dcde1000001@{site}", site)
    done = login(site, FIRST[site], key, "id -un; sinfo -h | wc -l")
    assert done.stdout.split() == [FIRST[site], "2"], done.stderr
    refused = login(site, SECOND[site], key, "id -un")
    assert refused.returncode == 255
    assert "Permission denied" in refused.stderr


def test_ssh_refuses_what_is_meant_for_elsewhere(world: World, certificate, login) -> None:
    other_principal = certificate("dcde1000001@ornl-cades", "bnl-sdcc")
    other_authority = certificate("dcde1000001@bnl-sdcc", "ornl-cades")
    bare = certificate("dcde1000001", "bnl-sdcc")
    for key in (other_principal, other_authority, bare):
        assert login("bnl-sdcc", "u12345", key, "true").returncode == 255
    assert login("bnl-sdcc", "root", certificate("dcde1000001@bnl-sdcc", "bnl-sdcc"), "true").returncode == 255


def test_ssh_carries_no_forwards(world: World, certificate, login) -> None:
    key = certificate("dcde1000001@bnl-sdcc", "bnl-sdcc")
    for option in (["-R", "0:127.0.0.1:9"], ["-R", "/tmp/forwarded.sock:127.0.0.1:9"]):
        done = login("bnl-sdcc", "u12345", key, "true", "-o", "ExitOnForwardFailure=yes", *option)
        assert done.returncode == 255
        assert "forwarding failed" in done.stderr
    # -L is opened on our side; using it is what the site refuses.
    done = login("bnl-sdcc", "u12345", key, "true", "-W", "10.78.1.1:6817")
    assert done.returncode == 255
    assert "administratively prohibited" in done.stderr


def test_the_mapfile_decides_at_once(world: World, certificate, login) -> None:
    key = certificate("dcde1000003@bnl-sdcc", "bnl-sdcc")
    assert login("bnl-sdcc", "u12399", key, "true").returncode == 0
    before = world.run("bnl-sdcc", "login", ["cat", "/etc/dcde/mapfile"]).stdout
    try:
        world.run("bnl-sdcc", "login", ["sed", "-i", "/dcde1000003/d", "/etc/dcde/mapfile"])
        assert login("bnl-sdcc", "u12399", key, "true").returncode == 255
    finally:
        world.run("bnl-sdcc", "login", ["tee", "/etc/dcde/mapfile"], text=before)


def test_software_is_set_up_in_three_ways(world: World) -> None:
    found = {}
    for site, account in FIRST.items():
        facts = world.facts["sites"][site]
        lines = [*facts["environment"]["init"], *facts["applications"]["relion"]["setup"]]
        program = facts["applications"]["relion"]["programs"]["ctffind"]
        script = "\n".join(
            [
                "set -eu",
                *(f"set +u\n{line}\nset -u" for line in lines),
                f"command -v {program}",
                "command -v relion_refine",
            ]
        )
        done = world.run(site, "n1", ["bash", "-c", script], user=account)
        found[site] = done.stdout.split()[0]
        plain = world.run(site, "n1", ["bash", "-c", "command -v ctffind"], user=account, check=False)
        assert plain.returncode != 0, "the program must need the set-up"
    assert len(set(found.values())) == 3
    assert all(path.startswith("/s") for path in found.values())


def test_storage_of_a_chosen_size_is_full_when_it_is_full(world: World) -> None:
    root = world.facts["sites"]["anl-lcrc"]["storage_root"]
    done = world.run(
        "anl-lcrc",
        "n2",
        ["dd", "if=/dev/zero", f"of={root}/drivers/big", "bs=1M", "count=32"],
        user="drivers",
        check=False,
    )
    assert done.returncode != 0
    assert "No space left on device" in done.stderr
    world.run("anl-lcrc", "login", ["rm", f"{root}/drivers/big"], user="drivers")
