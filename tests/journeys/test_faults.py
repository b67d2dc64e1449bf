"""Whatever dies during a run, the run ends by itself, without anybody logging in, and no step is run twice.

What was run is counted from the lines that the jobs themselves write when they begin, and from Slurm's own list.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser import log_in, open_lab, visitor
from tests.journeys.conftest import ACCOUNTS, Hub, Room, until

STEPS = ("import", "motioncorr", "ctffind", "autopick", "extract", "class2d")
CUT_SECONDS = 30

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def left(hub: Hub, browser: Browser) -> None:
    """David Rivers has logged in, so that his server runs, and has closed his browser."""
    with visitor(browser) as page:
        log_in(page, hub.url, "drivers@pnnl.example")
        open_lab(page)


@contextlib.contextmanager
def launched_in_a_notebook(hub: Hub, room: Room) -> Iterator[str]:
    """Yield the id of a run that a notebook's kernel has launched and is waiting for."""
    before = {r["id"] for r in room.dcde("runs")}
    source = 'run = dcde.launch("first-look"); run.wait()'
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "execution_count": None, "outputs": [], "source": source}
    spec = {"name": "dcde", "display_name": "DCDE", "language": "python"}
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": spec}, "cells": [cell]}
    room.run("sh", "-c", 'printf %s "$1" > faults.ipynb', "sh", json.dumps(notebook))
    argv = ["python", "-m", "nbconvert", "--to", "notebook", "--execute", "--stdout", "faults.ipynb"]
    thread = threading.Thread(target=lambda: room.run(*argv, check=False, timeout=800))
    thread.start()

    def new() -> str | None:
        return next((r["id"] for r in room.dcde("runs") if r["id"] not in before), None)

    yield until(new, 60, "the launch from a notebook")
    thread.join()


def state_of(room: Room, run: str, step: str) -> str:
    """Return the state of a step; empty while there is nobody to ask."""
    if not room.pids("jupyterhub.singleuser"):
        return ""
    done = room.run("dcde", "show", run, "--json", check=False)
    if done.returncode:
        return ""
    return next(str(s["state"]) for s in json.loads(done.stdout)["steps"] if s["id"] == step)


def wait_for_step(room: Room, run: str, step: str, *states: str) -> None:
    until(lambda: state_of(room, run, step) in states, 240, f"{step} being {' or '.join(states)}")


def hub_answers(hub: Hub) -> bool:
    try:
        with urllib.request.urlopen(_health(hub), timeout=2, context=_trusting(hub)) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def _health(hub: Hub) -> urllib.request.Request:
    return urllib.request.Request(
        f"https://127.0.0.1:{hub.world.port}/hub/health", headers={"Host": f"hub.localhost:{hub.world.port}"}
    )


def _trusting(hub: Hub) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(hub.world.ca))


def kill_kernel(hub: Hub, room: Room) -> None:
    room.kill("ipykernel_launcher")


def kill_runner(hub: Hub, room: Room) -> None:
    before = room.pids("dcde.runner")
    room.kill("dcde.runner")
    until(lambda: set(room.pids("dcde.runner")) - set(before), 60, "a new runner")


def kill_hub(hub: Hub, room: Room) -> None:
    servers = room.pids("jupyterhub.singleuser")
    hub.world.service("hub", "crash")
    until(lambda: not hub_answers(hub), 10, "the end of the hub")
    until(lambda: hub_answers(hub), 60, "a new hub")
    assert room.pids("jupyterhub.singleuser") == servers, "the hub's end took a person's server along"


def kill_server(hub: Hub, room: Room) -> None:
    before = room.pids("jupyterhub.singleuser")
    room.kill("jupyterhub.singleuser")
    until(lambda: set(room.pids("jupyterhub.singleuser")) - set(before), 120, "a new server, which nobody asked for")


def cut_site(hub: Hub, room: Room) -> None:
    """Cut the site of the last steps off for half a minute, without a word to either side."""
    gone = threading.Event()
    hub.world.cut("anl-lcrc")
    gone.wait(CUT_SECONDS)
    hub.world.mend("anl-lcrc")


def each_step_ran_once(hub: Hub, room: Room, run: str) -> None:
    data = room.wait_for_run(run, 420)
    assert {s["id"]: s["attempt"] for s in data["steps"]} == dict.fromkeys(STEPS, 1)
    starts = hub.starts(data["project"])
    assert {step: len(lines) for step, lines in starts.items()} == dict.fromkeys(STEPS, 1), starts
    keys = [line.split()[0] for lines in starts.values() for line in lines]
    listed = "".join(
        hub.world.run(site, "login", ["squeue", "--states=all", "--noheader", "--format=%j"]).stdout
        for site in ACCOUNTS
    )
    assert [listed.split().count(key) for key in keys] == [1] * len(STEPS)


def test_one_run_survives_them_all(left: None, hub: Hub, room: Room) -> None:
    with launched_in_a_notebook(hub, room) as run:
        kill_kernel(hub, room)
        wait_for_step(room, run, "ctffind", "queued", "running", "succeeded")
        kill_runner(hub, room)
        wait_for_step(room, run, "class2d", "queued", "running")
        cutting = threading.Thread(target=cut_site, args=(hub, room))
        cutting.start()
        kill_hub(hub, room)
        kill_server(hub, room)
        cutting.join()
    each_step_ran_once(hub, room, run)


FAULTS: dict[str, tuple[str, Callable[[Hub, Room], None]]] = {
    "kernel": ("motioncorr", kill_kernel),
    "runner": ("class2d", kill_runner),
    "server": ("class2d", kill_server),
    "hub": ("class2d", kill_hub),
    "site cut": ("class2d", cut_site),
}


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_survives_each(left: None, hub: Hub, room: Room, fault: str) -> None:
    step, strike = FAULTS[fault]
    with launched_in_a_notebook(hub, room) as run:
        wait_for_step(room, run, step, "queued", "running")
        strike(hub, room)
        if room.pids("ipykernel_launcher"):
            room.kill("ipykernel_launcher")  # nobody waits for the run any more
    each_step_ran_once(hub, room, run)
