"""Fixtures of the functional tests of interactive functions: real sites, a real runner, and a process as a kernel.

bench             a `Bench` (tests/functions_bench.py): real sshd, agent, interchange and workers, but no Slurm and no world
functions_world   the module's world: three real sites with Slurm and firewalls
functions_room    a `Room` with a runner: short times, and at ornl-cades a Python without parsl
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dcde_testbed import preflight
from dcde_testbed.guest import parse
from dcde_testbed.outside import environment, make_state
from dcde_testbed.world import World
from functions_bench import Bench, bench_in_test

TOP = Path(__file__).parents[3]
HERE = "tests/functional/functions"
SOURCES = ("extensions/dcde/src", "extensions/models/src", "demo/src", "tests/functional/runner", HERE)
ACCOUNTS = {"bnl-sdcc": "u12345", "ornl-cades": "d7c", "anl-lcrc": "drivers"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here) and "functions_world" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.world)


@pytest.fixture
def bench() -> Iterator[Bench]:
    with bench_in_test() as made:
        yield made


@pytest.fixture(scope="module")
def functions_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if os.geteuid() != 0 and preflight.problems():
        pytest.skip("; ".join(preflight.problems()))
    state = tmp_path_factory.mktemp("functions-world")
    make_state(state)
    for site in ACCOUNTS:
        folder = state / "inside" / "onboarding" / site
        folder.mkdir(mode=0o711, parents=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "user_ca")], check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    binds = [
        {"source": str(TOP / source), "target": f"/opt/dcde/source{number}", "read_only": True}
        for number, source in enumerate(SOURCES)
    ]
    guest = parse({"binds": binds})
    with World(state, port, environments=TOP / "build" / "env", guest=guest) as world:
        yield world


class Kernel:
    """A process that calls functions, as a notebook's kernel does; it says JSON lines and goes on when told."""

    def __init__(self, argv: list[str]) -> None:
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
        )
        self.log: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr:
            self.log.extend(self.process.stderr)

    def said(self) -> Any:
        """Return the next thing it says."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "".join(self.log[-40:])
        return json.loads(line)

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def close(self) -> None:
        """Let it end in its own way, if it has not ended."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()


class Room:
    """A runner in the hub's room with the kernels that ask it."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.state = f"/var/lib/dcde/{name}/state"
        self.runtime = f"/run/{name}"
        self.process: subprocess.Popen[str] | None = None
        self.log: list[str] = []
        self.kernels: list[Kernel] = []

    def _argv(self, script: str, *args: str) -> list[str]:
        path = ":".join(f"/opt/dcde/source{number}" for number in range(len(SOURCES)))
        program = f"/opt/dcde/source{SOURCES.index(HERE)}/{script}"
        variables = [f"PYTHONPATH={path}", f"DCDE_RUNTIME_DIR={self.runtime}"]
        inner = ["/usr/bin/env", *variables, "/opt/dcde/user/bin/python", "-B", program, *args]
        return self.world.argv("hub", None, inner)

    def start(self) -> None:
        """Start a runner and wait until it listens."""
        self.process = subprocess.Popen(
            self._argv("functions_runner.py", self.state, self.runtime),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        assert self.process.stdout is not None and self.process.stderr is not None
        threading.Thread(target=self._read, args=(self.process.stderr,), daemon=True).start()
        assert self.process.stdout.readline() == "ready\n", self.log

    def _read(self, stream: Any) -> None:
        with stream:
            self.log.extend(stream)

    def kernel(self, scenario: str, *args: str) -> Kernel:
        """Start a kernel that plays a scenario of kernel_calls.py."""
        kernel = Kernel(self._argv("kernel_calls.py", scenario, *args))
        self.kernels.append(kernel)
        return kernel

    def kill(self, signal: str, what: str) -> None:
        """Send a signal to a process of the hub's room, by a part of its command line that is this room's alone."""
        self.world.run("hub", None, ["/usr/bin/pkill", signal, "-f", what], check=False)

    def kill_runner(self) -> None:
        """Let the runner die as by kill -9."""
        assert self.process is not None and self.process.stdout is not None
        self.kill("-9", f"functions_runner.py {self.state} ")
        self.process.wait(timeout=20)
        self.process.stdout.close()

    def interchanges(self, site: str) -> list[int]:
        """Return the process ids of the interchanges on a login host."""
        account = ACCOUNTS[site]
        found = self.world.run(
            site, "login", ["/usr/bin/pgrep", "-u", account, "-f", "high_throughput.interchange"], check=False
        )
        return [int(pid) for pid in found.stdout.split()]

    def jobs(self, site: str) -> list[str]:
        """Return the states of the batch jobs with workers that a site's own Slurm has in its queue."""
        listed = self.world.run(site, "login", ["squeue", "-h", "-o", "%j %T"]).stdout
        return [line.split()[1] for line in listed.splitlines() if line.startswith("functions-")]

    def close(self) -> None:
        for kernel in self.kernels:
            kernel.close()
        if self.process is not None and self.process.poll() is None:
            self.kill("-TERM", f"functions_runner.py {self.state} ")
            self.process.wait(timeout=40)
        if self.process is not None and self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture
def functions_room(functions_world: World, request: pytest.FixtureRequest) -> Iterator[Room]:
    name = "f" + "".join(c for c in request.node.name if c.isalnum())[-30:]
    made = Room(functions_world, name)
    made.start()
    try:
        yield made
    finally:
        made.close()
