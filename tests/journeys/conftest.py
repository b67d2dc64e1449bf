"""Fixtures of the journeys: whole ways through the hub, with a real browser, real sites and real RELION.

- `hub`: the session's world with the hub in it, three sites and the sample movies in David Rivers' folder at BNL.
- `browser`: a real Chromium; only one runs at a time on this machine.
- `rivers`: a page of David Rivers, logged in, with JupyterLab open; all tests of a module share his server.
- `room`: what runs in a person's own server, as that person: `room.run("dcde", "runs")`.

A world needs root, or an ordinary user with subordinate ids. As root a world that does not come up is a failure.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from dcde_testbed import outside, preflight
from dcde_testbed.world import World
from playwright.sync_api import Browser, Page

from tests.browser import chromium, log_in, open_lab, visitor

ROOT = Path(__file__).parents[2]
MOVIES = ROOT / "build/test-data/movies-4"
SITES = ("bnl-sdcc", "ornl-cades", "anl-lcrc")
ACCOUNTS = {"bnl-sdcc": "u12345", "ornl-cades": "d7c", "anl-lcrc": "drivers"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    reason = "; ".join(preflight.problems()) if os.geteuid() else ""
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.world)
            item.add_marker(pytest.mark.browser)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


def until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Return what `condition` gives as soon as it is something; fail when it is nothing for so many seconds."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"{what} did not happen within {seconds:g} s"
        time.sleep(0.2)
    return found


@dataclass
class Hub:
    """The running hub, seen by those who test it."""

    world: World

    @property
    def url(self) -> str:
        """The address of the hub at the front door."""
        return f"https://hub.localhost:{self.world.port}/"

    def project_file(self, site: str, path: str) -> Path:
        """Return where a file of David Rivers' lies, as the site's storage has it."""
        return self.world.inside / "sites" / site / "storage" / ACCOUNTS[site] / path

    def starts(self, project: str) -> dict[str, list[str]]:
        """Return for each step of a project the attempts that its jobs noted when they began to run, at whichever site."""
        found: dict[str, list[str]] = {}
        for site in SITES:
            log = f"{self.storage(site)}/projects/{project}/.dcde/starts.log"
            done = self.world.run(site, "login", ["cat", log], check=False)
            for line in done.stdout.splitlines():
                key = line.split()[0]
                step = re.sub(r"-a\d+-[0-9a-f]+$", "", key)
                found.setdefault(step.rsplit("-", 1)[1], []).append(f"{key} {line.split()[1]}")
        return found

    def storage(self, site: str) -> str:
        """Return David Rivers' folder at a site, as the site sees it."""
        return f"{self.world.facts['sites'][site]['storage_root']}/{ACCOUNTS[site]}"


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    if not (MOVIES / "truth.json").exists():
        make_movies()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    state = tmp_path_factory.mktemp("journeys") / "state"
    guest = ROOT / "demo/guest.yaml"
    with World(state, port, environments=ROOT / "build/env", guest=guest, sample_data=MOVIES) as world:
        yield Hub(world)
    outside.remove(state)


def make_movies() -> None:
    """Make four sample movies, once for this clone."""
    python = ROOT / "build/env/site/bin/python"
    draft = MOVIES.with_name("draft")
    shutil.rmtree(draft, ignore_errors=True)
    argv = [python, "-m", "dcde_testbed.microscope", "--out", draft / "movies", "--truth", draft, "--movies", "4"]
    subprocess.run(argv, check=True, env={**os.environ, "PYTHONPATH": str(ROOT / "testbed/src")}, cwd=ROOT)
    shutil.rmtree(MOVIES, ignore_errors=True)
    draft.rename(MOVIES)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def rivers(hub: Hub, browser: Browser) -> Iterator[Page]:
    with visitor(browser) as page:
        log_in(page, hub.url, "drivers@pnnl.example")
        open_lab(page)
        yield page


@dataclass(frozen=True)
class Room:
    """A person's server, entered as that person."""

    world: World
    uid: int

    @property
    def name(self) -> str:
        """The DCDE id of the person."""
        return f"dcde{self.uid - 51000 + 1000000:07d}"

    def pids(self, pattern: str) -> list[int]:
        """Return the person's processes in the world, as the hub's room sees them, whose command line has the pattern."""
        done = self.world.run("hub", None, ["pgrep", "-u", str(self.uid), "-f", pattern], check=False)
        return [int(pid) for pid in done.stdout.split()]

    def kill(self, pattern: str) -> None:
        """Kill the person's processes whose command line has the pattern, as the kernel does when memory is short."""
        pids = self.pids(pattern)
        assert pids, f"{self.name} has no process {pattern}"
        self.world.run("hub", None, ["kill", "-9", *map(str, pids)])

    def run(self, *argv: str, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a program in the server's own namespaces as the person; output is captured."""
        (pid, *_) = self.pids("jupyterhub.singleuser") or [None]
        assert pid, f"{self.name} has no server"
        enter = ["nsenter", "-t", str(pid), "-n", "-m", "-u", "-i", "-p", "-r", "-w", "--"]
        home = f"/home/{self.name}"
        environment = [f"HOME={home}", "PATH=/opt/dcde/user/bin:/usr/bin:/bin", "LANG=C.UTF-8"]
        person = ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups", "--no-new-privs", "--"]
        command = [*enter, "env", "-i", f"--chdir={home}", *environment, *person, *argv]
        return self.world.run("hub", None, command, check=check, timeout=timeout)

    def dcde(self, *argv: str) -> Any:
        """Run the `dcde` command and return what it printed as JSON."""
        return json.loads(self.run("dcde", *argv, "--json").stdout)

    def wait_for_run(self, run: str, seconds: float, states: Sequence[str] = ("succeeded",)) -> dict[str, Any]:
        """Return a run when it has come into one of the states; a server or runner that is away now is waited for."""

        def there() -> dict[str, Any] | None:
            if not self.pids("jupyterhub.singleuser"):
                return None
            done = self.run("dcde", "show", run, "--json", check=False)
            data: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {}
            assert data.get("state") not in {"failed", "cancelled"} or data["state"] in states, data["reason"]
            return data if data.get("state") in states else None

        found: dict[str, Any] = until(there, seconds, f"{states} of run {run}")
        return found


@pytest.fixture
def room(hub: Hub) -> Room:
    return Room(hub.world, 51001)


@pytest.fixture(scope="session")
def truth_map() -> Path:
    return MOVIES / "truth_map.mrc"
