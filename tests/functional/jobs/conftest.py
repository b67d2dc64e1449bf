"""Fixtures of the functional tests of durable jobs: a world with real Slurm, and followers inside it.

Index
    jobs_world   the session's world, with the sources under test in its hub's room; the storage of anl-lcrc is small
    follow       starts a `Follower` of a job inside the world; what is left of them is ended after the test
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dcde_testbed import preflight
from dcde_testbed.guest import parse
from dcde_testbed.outside import make_state
from dcde_testbed.world import World

ROOT = Path(__file__).parents[3]
SOURCES = ("extensions/dcde/src", "extensions/models/src", "demo/src", "tests/functional/jobs")
ACCOUNT = {"bnl-sdcc": "u12345", "ornl-cades": "d7c", "anl-lcrc": "drivers"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    reason = None if os.geteuid() == 0 else "; ".join(preflight.problems())
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.world)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


def wait_for(happened: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """Return what `happened` returns as soon as that is true; fail after `seconds`."""
    end = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.05)
    return found


@pytest.fixture(scope="session")
def jobs_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    state = tmp_path_factory.mktemp("jobs-world")
    make_state(state)
    for site in ACCOUNT:
        folder = state / "inside" / "onboarding" / site
        folder.mkdir(mode=0o711, parents=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "user_ca")], check=True)
    binds = [
        {"source": str(ROOT / source), "target": f"/opt/dcde/source{number}"} for number, source in enumerate(SOURCES)
    ]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    options = ["anl-lcrc.storage_mb=16"]
    guest = parse({"binds": binds})
    with World(state, port, environments=ROOT / "build" / "env", guest=guest, site_options=options) as world:
        yield world


class Follower:
    """One `job_driver.py` inside the world and the lines it has said."""

    def __init__(self, world: World, site: str, key: str, wish: dict[str, Any], *flags: str) -> None:
        path = ":".join(f"/opt/dcde/source{number}" for number in range(len(SOURCES)))
        driver = f"/opt/dcde/source{SOURCES.index('tests/functional/jobs')}/job_driver.py"
        inner = ["env", f"PYTHONPATH={path}", "PYTHONDONTWRITEBYTECODE=1", "/opt/dcde/user/bin/python", "-u", driver]
        argv = world.argv("hub", None, [*inner, site, key, json.dumps(wish), *flags])
        self.world, self.site, self.key = world, site, key
        self.lines: list[dict[str, Any]] = []
        self.said = ""
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout:
            for line in self.process.stdout:
                if line.startswith("{"):
                    self.lines.append(json.loads(line))
                else:
                    self.said += line

    def wait_state(self, state: str, seconds: float = 60) -> dict[str, Any]:
        """Wait until the job's last known state is `state` and return that status."""

        def there() -> dict[str, Any] | None:
            statuses = [line["status"] for line in self.lines if "status" in line]
            assert self.process.poll() is None or (statuses and statuses[-1]["state"] == state), self.said + str(
                self.lines
            )
            found: dict[str, Any] | None = statuses[-1] if statuses and statuses[-1]["state"] == state else None
            return found

        status: dict[str, Any] = wait_for(there, f"{self.key} is {state}; {self.lines[-3:]} {self.said}", seconds)
        return status

    def end(self, seconds: float = 90) -> dict[str, Any]:
        """Wait for the end and return its line."""
        wait_for(
            lambda: self.process.poll() is not None, f"the end of {self.key}: {self.lines[-3:]} {self.said}", seconds
        )
        self.reader.join()
        assert self.lines and "status" not in self.lines[-1], self.said
        return self.lines[-1]

    def kill(self) -> None:
        """Let the follower die as when its machine is lost."""
        self.world.run("hub", None, ["pkill", "-9", "-f", f"job_driver.py {self.site} {self.key} "], check=False)
        self.process.kill()
        self.process.wait()
        self.reader.join()

    def at_site(self, *argv: str, node: str = "login", user: str | None = None, check: bool = True) -> str:
        """Run something at the site and return what it printed."""
        return self.world.run(self.site, node, list(argv), user=user, check=check).stdout

    @property
    def account(self) -> str:
        return ACCOUNT[self.site]

    @property
    def project(self) -> str:
        root = self.world.facts["sites"][self.site]["storage_root"]
        return f"{root}/{self.account}/projects/demo"

    def starts(self) -> list[str]:
        """Return the lines that starts of this job have left in the project."""
        text = self.at_site("cat", f"{self.project}/.dcde/starts.log", check=False)
        return [line for line in text.splitlines() if line.startswith(f"{self.key} ")]

    def record(self, name: str) -> str:
        """Return a file of the job's record; nothing when it is not there."""
        show = 'cat ~/.dcde/jobs/"$1"/"$2"'
        return self.at_site("sh", "-c", show, "sh", self.key, name, user=self.account, check=False)


@pytest.fixture
def follow(jobs_world: World) -> Iterator[Callable[..., Follower]]:
    """`follow(site, key, wish, *flags)` starts following a job."""
    followers: list[Follower] = []

    def start(site: str, key: str, wish: dict[str, Any], *flags: str) -> Follower:
        followers.append(Follower(jobs_world, site, key, wish, *flags))
        return followers[-1]

    yield start
    for follower in followers:
        if follower.process.poll() is None:
            follower.kill()
