"""Fixtures of the testbed's functional tests: real worlds with real Slurm, OpenSSH and firewalls.

Index
    free_port        a loopback port nobody listens on
    world            the session's world: three sites, a small guest, user CAs of our own; no federation needed
    certificate      makes a key with a certificate for a principal, for use by `ssh` in the hub's room
    login            runs a command at a site over ssh from the hub's room

A world needs root, or an ordinary user with subordinate ids. As root a world that does not come up is a failure; elsewhere
the preflight's sentence is the reason to skip.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dcde_testbed import preflight
from dcde_testbed.guest import parse
from dcde_testbed.outside import make_state
from dcde_testbed.world import World

ECHO = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{sys.argv[2]} {self.headers['Host']} {self.path}\\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer((sys.argv[1].rsplit(":", 1)[0], int(sys.argv[1].rsplit(":", 1)[1])), Handler).serve_forever()
"""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    reason = None if os.geteuid() == 0 else "; ".join(preflight.problems())
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.world)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def free_port() -> int:
    return unused_port()


def echo_service(name: str, address: str) -> dict[str, object]:
    """A guest's service that answers every request with its name, the Host it was asked for and the path."""
    return {"name": name, "argv": ["/usr/bin/python3", "-I", "-c", ECHO, address, name]}


def trust(state: Path, sites: tuple[str, ...] = ("bnl-sdcc", "ornl-cades", "anl-lcrc")) -> None:
    """Give every site a user CA of its own before it starts, as a guest's preparation would."""
    make_state(state)
    for site in sites:
        folder = state / "inside" / "onboarding" / site
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "user_ca")], check=True)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    state = tmp_path_factory.mktemp("world")
    trust(state)
    guest = parse(
        {
            "accounts": [{"name": "guest-echo", "uid": 985}],
            "prepare": [
                ["/usr/bin/python3", "-c", "import json; print(json.load(open('/var/lib/dcde/world.json'))['world'])"]
            ],
            "services": [
                {**echo_service("echo", "127.0.0.1:8000"), "user": "guest-echo"},
                echo_service("api", "10.79.0.1:8081"),
                echo_service("private", "10.79.0.1:8099"),
            ],
            "routes": {"hub.localhost": 8000},
            "people": {"api_ports": [8081]},
            "ready": ["http://127.0.0.1:8000/", "http://10.79.0.1:8081/"],
        }
    )
    options = ["anl-lcrc.storage_mb=16"]
    with World(
        state,
        unused_port(),
        environments=Path(__file__).parents[3] / "build" / "env",
        guest=guest,
        site_options=options,
    ) as running:
        yield running


@pytest.fixture(scope="session")
def certificate(world: World) -> Callable[..., str]:
    """`certificate(principal, site, *options)` -> the key's path in the hub's room, with its certificate beside it."""
    made = 0

    def make(principal: str, site: str, *options: str) -> str:
        nonlocal made
        made += 1
        folder = world.inside / "test-keys"
        folder.mkdir(mode=0o700, exist_ok=True)
        key = folder / f"k{made}"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        authority = world.inside / "onboarding" / site / "user_ca"
        sign = [
            "ssh-keygen",
            "-q",
            "-s",
            str(authority),
            "-I",
            "a test",
            "-n",
            principal,
            "-V",
            "-1m:+10m",
            *options,
            f"{key}.pub",
        ]
        subprocess.run(sign, check=True)
        return f"/var/lib/dcde/test-keys/{key.name}"

    return make


@pytest.fixture(scope="session")
def login(world: World, certificate: Callable[..., str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`login(site, account, key, command, *options)` -> the finished ssh, with the host key pinned from world.json."""

    def run(site: str, account: str, key: str, command: str, *options: str) -> subprocess.CompletedProcess[str]:
        facts = world.facts["sites"][site]
        known = world.inside / "test-keys" / f"known-{site}"
        known.write_text(f"pinned {facts['host_key']}\n")
        argv = ["ssh", "-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "HostKeyAlias=pinned",
                "-o", f"UserKnownHostsFile=/var/lib/dcde/test-keys/{known.name}", "-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=10",
                *options, "-i", key, "-p", str(facts["port"]), "-l", account, facts["hosts"][0], command]  # fmt: skip
        return world.run("hub", None, argv, check=False)

    return run
