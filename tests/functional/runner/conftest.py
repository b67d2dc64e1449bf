"""Fixtures of the runner's functional tests: a world with three real sites, and a real runner in the hub's room.

runner_world   the module's world; the storage of anl-lcrc is small (16 MB)
room           a `Room`: starts, kills and asks a runner; each test has its own state folder
"""

from __future__ import annotations

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

TOP = Path(__file__).parents[3]
SOURCES = ("extensions/dcde/src", "extensions/models/src", "demo/src", "tests/functional/runner")
ACCOUNTS = {"bnl-sdcc": "u12345", "ornl-cades": "d7c", "anl-lcrc": "drivers"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.world)


def binds() -> list[dict[str, Any]]:
    """Return what a guest must bind so that the sources under test are seen in the hub's room."""
    return [
        {"source": str(TOP / source), "target": f"/opt/dcde/source{number}", "read_only": True}
        for number, source in enumerate(SOURCES)
    ]


@pytest.fixture(scope="module")
def runner_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if os.geteuid() != 0 and preflight.problems():
        pytest.skip("; ".join(preflight.problems()))
    state = tmp_path_factory.mktemp("runner-world")
    make_state(state)
    for site in ACCOUNTS:
        folder = state / "inside" / "onboarding" / site
        folder.mkdir(mode=0o711, parents=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "user_ca")], check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    guest = parse({"binds": binds()})
    options = ["anl-lcrc.storage_mb=16"]
    with World(state, port, environments=TOP / "build" / "env", guest=guest, site_options=options) as world:
        yield world


class Room:
    """A runner in the hub's room, and what a test does to it."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.state = f"/var/lib/dcde/{name}/state"
        self.runtime = f"/run/{name}"
        self.project = name.lower()
        self.process: subprocess.Popen[str] | None = None
        self.log: list[str] = []

    def _argv(self, script: str, *args: str) -> list[str]:
        path = ":".join(f"/opt/dcde/source{number}" for number in range(len(SOURCES)))
        program = f"/opt/dcde/source{SOURCES.index('tests/functional/runner')}/{script}"
        inner = ["/usr/bin/env", f"PYTHONPATH={path}", "/opt/dcde/user/bin/python", "-B", program, *args]
        return self.world.argv("hub", None, inner)

    def start(self) -> None:
        """Start a runner and wait until it listens."""
        self.process = subprocess.Popen(
            self._argv("room_runner.py", self.state, self.runtime),
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

    def kill(self) -> None:
        """Let the runner die as by kill -9, at once."""
        assert self.process is not None
        self.world.run("hub", None, ["/usr/bin/pkill", "-9", "-f", f"room_runner.py {self.state} "], check=False)
        self._gone()

    def end(self) -> None:
        """Let it end as by SIGTERM."""
        if self.process is not None and self.process.poll() is None:
            self.world.run("hub", None, ["/usr/bin/pkill", "-f", f"room_runner.py {self.state} "], check=False)
            self._gone()

    def _gone(self) -> None:
        assert self.process is not None and self.process.stdout is not None
        self.process.wait(timeout=20)
        self.process.stdout.close()

    def ask(self, op: str, **args: Any) -> Any:
        """Carry out one operation."""
        return self._said("room_ask.py", f"{self.runtime}/runner.sock", op, json.dumps(args))

    def launch(self, template: str, seconds: int, **wishes: Any) -> Any:
        """Launch a run in a project of this room's own: the sites keep the folders of all rooms."""
        return self.ask(
            "runs.launch", template=template, parameters={"seconds": seconds}, project=self.project, **wishes
        )

    def until(self, run: str, step: str, *states: str, seconds: float = 110) -> Any:
        """Wait until a step, or with `-` the run, has one of the states, or the run has ended; return the run."""
        path = f"{self.runtime}/runner.sock"
        return self._said("room_ask.py", path, "until", run, step, *states, seconds=seconds)

    def _said(self, script: str, *args: str, seconds: float = 110) -> Any:
        argv = self._argv(script, *args)
        done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds, env=environment(), check=False)
        assert done.returncode == 0, done.stderr + "".join(self.log[-20:])
        return json.loads(done.stdout)

    def starts(self) -> list[str]:
        """Return the keys of all jobs of the project as they began, from what the jobs themselves wrote at the sites."""
        keys = []
        for site, account in ACCOUNTS.items():
            root = self.world.facts["sites"][site]["storage_root"]
            path = f"{root}/{account}/projects/{self.project}/.dcde/starts.log"
            text = self.world.run(site, "login", ["cat", path], check=False).stdout
            keys += [line.split()[0] for line in text.splitlines()]
        return keys

    def slurm(self, site: str) -> list[str]:
        """Return `name user state` of every job that the site's own Slurm knows."""
        listed = self.world.run(site, "login", ["squeue", "-h", "-t", "all", "-o", "%j %u %T"]).stdout
        return listed.splitlines()


@pytest.fixture
def room(runner_world: World, request: pytest.FixtureRequest) -> Iterator[Room]:
    name = "".join(c for c in request.node.name if c.isalnum())[:40]
    made = Room(runner_world, name)
    made.start()
    yield made
    made.end()
