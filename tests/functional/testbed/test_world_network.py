"""What passes between hub, people, sites and transfer nodes, and what the firewalls' own counters say about it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

import pytest
from dcde_testbed.world import World

PROBE = """
import errno, socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=float(sys.argv[3])).close()
except TimeoutError:
    print("silence")
except OSError as error:
    print(errno.errorcode.get(error.errno, str(error)))
else:
    print("open")
"""
PYTHON = "/usr/bin/python3"


def probe(world: World, site: str, node: str | None, address: str, port: int, seconds: float = 3) -> str:
    return world.run(site, node, [PYTHON, "-I", "-c", PROBE, address, str(port), str(seconds)]).stdout.strip()


def grew(world: World, site: str, node: str, name: str, before: dict[str, int]) -> bool:
    return world.counters(site, node)[name] > before[name]


def test_login_lets_in_ssh_and_nothing_else(world: World) -> None:
    before = world.counters("bnl-sdcc")
    assert probe(world, "hub", None, "10.77.0.11", 22) == "open"
    assert world.counters("bnl-sdcc")["in_ssh"] == before["in_ssh"] + 1
    for port in (6817, 6818, 2222, 80):
        assert probe(world, "hub", None, "10.77.0.11", port) == "EHOSTUNREACH"
    assert world.counters("bnl-sdcc")["in_rejected"] >= before["in_rejected"] + 4


def test_compute_nodes_are_out_of_reach_even_with_a_route(world: World) -> None:
    world.run("hub", None, ["ip", "route", "add", "10.78.2.0/24", "via", "10.77.0.12"])
    try:
        before = world.counters("ornl-cades")
        assert probe(world, "hub", None, "10.78.2.11", 6818) == "EHOSTUNREACH"
        assert grew(world, "ornl-cades", "login", "forward_rejected", before)
    finally:
        world.run("hub", None, ["ip", "route", "del", "10.78.2.0/24"])


def test_nothing_goes_out_of_a_site(world: World) -> None:
    before = world.counters("bnl-sdcc")
    assert probe(world, "bnl-sdcc", "login", "10.77.0.1", 8000) == "EHOSTUNREACH"
    assert probe(world, "bnl-sdcc", "login", "10.77.0.12", 22) == "EHOSTUNREACH"
    assert grew(world, "bnl-sdcc", "login", "out_rejected", before)
    for address, port in (("10.77.0.1", 8000), ("10.77.0.12", 22), ("10.77.0.21", 50000)):
        assert probe(world, "bnl-sdcc", "n1", address, port) == "EHOSTUNREACH"
    assert grew(world, "bnl-sdcc", "login", "forward_rejected", before)


def test_inside_a_site_the_machines_reach_each_other(world: World) -> None:
    assert probe(world, "bnl-sdcc", "n1", "10.78.1.1", 6817) == "open"
    assert probe(world, "bnl-sdcc", "n1", "10.78.1.12", 6818) == "open"


def test_the_counters_are_still_when_nothing_happens(world: World) -> None:
    before = [world.counters(site, node) for site in ("bnl-sdcc", "ornl-cades") for node in ("login", "dtn")]
    time.sleep(1)
    assert before == [world.counters(site, node) for site in ("bnl-sdcc", "ornl-cades") for node in ("login", "dtn")]


@pytest.fixture
def listener(world: World) -> Iterator[None]:
    """Somebody who accepts on a data port and on port 22 of ORNL's transfer node."""
    code = "import socket, time; a = socket.create_server(('', 50003)); b = socket.create_server(('', 22)); print('ready', flush=True); time.sleep(600)"
    argv = world.argv("ornl-cades", "dtn", [PYTHON, "-I", "-c", code])
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield
        process.terminate()


def test_transfer_nodes_speak_to_each_other_on_data_ports_only(world: World, listener: None) -> None:
    before = world.counters("ornl-cades", "dtn")
    sender = world.counters("bnl-sdcc", "dtn")
    assert probe(world, "bnl-sdcc", "dtn", "10.77.0.22", 50003) == "open"
    assert world.counters("ornl-cades", "dtn")["in_dtn_data"] == before["in_dtn_data"] + 1
    assert world.counters("bnl-sdcc", "dtn")["out_dtn_data"] == sender["out_dtn_data"] + 1
    assert probe(world, "bnl-sdcc", "dtn", "10.77.0.22", 22) == "EHOSTUNREACH"
    assert probe(world, "bnl-sdcc", "dtn", "10.77.0.12", 22) == "EHOSTUNREACH"
    assert probe(world, "bnl-sdcc", "dtn", "10.77.0.1", 50003) == "EHOSTUNREACH"
    assert grew(world, "bnl-sdcc", "dtn", "out_rejected", sender)
    for node in ("hub", "login"):
        site, machine = ("hub", None) if node == "hub" else ("bnl-sdcc", node)
        for port in (22, 50003):
            assert probe(world, site, machine, "10.77.0.22", port) == "EHOSTUNREACH"
    assert world.counters("ornl-cades", "dtn")["in_dtn_data"] == before["in_dtn_data"] + 1


@pytest.fixture
def person(world: World) -> Iterator[str]:
    """A network namespace plugged in as a person's server is; yields its name."""
    for argv in (
        "ip netns add person", "ip link add u51001 type veth peer name eth0 netns person",
        "ip addr add 10.79.0.1 peer 10.79.1.1 dev u51001", "ip link set u51001 up",
        "nsenter --net=/run/netns/person ip link set lo up", "nsenter --net=/run/netns/person ip addr add 10.79.1.1 peer 10.79.0.1 dev eth0",
        "nsenter --net=/run/netns/person ip link set eth0 up", "nsenter --net=/run/netns/person ip route add default via 10.79.0.1",
    ):  # fmt: skip
        world.run("hub", None, argv.split())
    yield "person"
    world.run("hub", None, ["ip", "netns", "del", "person"])


def test_a_person_reaches_the_api_and_the_sites_ssh_only(world: World, person: str) -> None:
    def reach(address: str, port: int) -> str:
        argv = ["nsenter", f"--net=/run/netns/{person}", PYTHON, "-I", "-c", PROBE, address, str(port), "3"]
        return world.run("hub", None, argv).stdout.strip()

    before = world.counters("hub")
    assert reach("10.79.0.1", 8081) == "open"
    assert reach("10.77.0.11", 22) == "open"
    assert reach("10.77.0.13", 2222) == "open"
    after = world.counters("hub")
    assert after["people_api"] == before["people_api"] + 1
    assert after["people_ssh"] == before["people_ssh"] + 2
    for address, port in (
        ("10.79.0.1", 8099),
        ("10.77.0.1", 8081),
        ("10.77.0.1", 22),
        ("10.77.0.13", 22),
        ("10.77.0.11", 6817),
        ("10.77.0.21", 50000),
    ):
        assert reach(address, port) == "EHOSTUNREACH"
    assert world.counters("hub")["people_rejected"] == after["people_rejected"] + 6
    assert reach("127.0.0.1", 8000) == "ECONNREFUSED"


def test_a_cut_link_is_silent_and_an_open_connection_outlives_it(world: World, certificate, login) -> None:
    key = certificate("dcde1000001@anl-lcrc", "anl-lcrc")
    assert login("anl-lcrc", "drivers", key, "true").returncode == 0  # also pins the host key
    argv = world.argv("hub", None, ["ssh", "-F", "none", "-o", "BatchMode=yes", "-o", "HostKeyAlias=pinned", "-o", "IdentitiesOnly=yes", "-o",
            "UserKnownHostsFile=/var/lib/dcde/test-keys/known-anl-lcrc", "-i", key, "-p", "2222", "-l", "drivers", "10.77.0.13", "cat"])  # fmt: skip
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as held:
        assert held.stdin is not None
        assert held.stdout is not None
        print("before", file=held.stdin)
        assert held.stdout.readline() == "before\n"
        world.cut("anl-lcrc")
        try:
            assert world.status()["links"]["anl-lcrc"] == "cut"
            assert probe(world, "hub", None, "10.77.0.13", 2222, seconds=1.5) == "silence"
            assert probe(world, "hub", None, "10.77.0.11", 22) == "open"
            assert world.run("anl-lcrc", "login", ["sinfo", "-h"]).stdout  # inside, all is well
            print("meanwhile", file=held.stdin)
        finally:
            world.mend("anl-lcrc")
        assert held.stdout.readline() == "meanwhile\n"
        held.stdin.close()
        assert held.wait(20) == 0
    assert probe(world, "hub", None, "10.77.0.13", 2222) == "open"


def test_the_front_door_routes_by_name(world: World) -> None:
    def fetch(host: str, room: bool) -> str:
        target = f"https://{host}:{world.port}/x"
        ca = "/run/door/ca.crt" if room else str(world.ca)
        argv = [
            "curl",
            "-sS",
            "-o",
            "-",
            "-w",
            " %{http_code}",
            "--resolve",
            f"{host}:{world.port}:127.0.0.1",
            "--cacert",
            ca,
            target,
        ]
        return (
            world.run("hub", None, argv) if room else subprocess.run(argv, capture_output=True, text=True, check=True)
        ).stdout

    for room in (False, True):
        said = fetch("hub.localhost", room)
        assert said.split() == ["echo", f"hub.localhost:{world.port}", "/x", "200"]
    argv = [
        "curl",
        "-sSk",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "-H",
        "Host: evil.example",
        f"https://127.0.0.1:{world.port}/",
    ]
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == "421"


def test_the_inner_network_knows_no_other(world: World) -> None:
    code = "import socket\ntry: socket.getaddrinfo('example.org', 80)\nexcept socket.gaierror: print('unknown')"
    assert world.run("hub", None, [PYTHON, "-I", "-c", code]).stdout == "unknown\n"
    assert probe(world, "hub", None, "192.0.2.1", 80) == "ENETUNREACH"
