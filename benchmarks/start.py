"""How long it takes to start the testbed, the hub, and a person's server, beside starting JupyterLab alone."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dcde_testbed.world import World
from playwright.sync_api import Browser

from benchmarks.measure import Figure, Result, loads, median
from benchmarks.servers import lab
from benchmarks.worlds import PERSON, hub_url, login_page, temporary_folder, world_in
from tests.browser import chromium, log_in, open_lab, visitor

REPEAT = 3

FIGURES = {
    "testbed_s": "Testbed alone: three sites, three institutions",
    "hub_s": "Testbed with the hub, until the login page answers",
    "hub_again_s": "The same with what an earlier start left",
    "login_first_s": "From opening the hub to the launcher, server not running",
    "login_again_s": "The same, server running",
    "consent_first_s": "From the institution's consent to the launcher, server not running",
}


def run(repeat: int) -> Result:
    """Start everything in turn, each turn from nothing."""
    turns: list[dict[str, Any]] = []
    with chromium() as browser:
        for number in range(1, repeat + 1):
            with temporary_folder() as folder:
                turns.append({"load": loads()[0], "peer": peer(folder / "lab"), "ours": ours(folder, browser)})
            shown = ", ".join(f"{key} {turns[-1]['ours'][key]:.1f}" for key in (*FIGURES, "down_s"))
            print(f"  turn {number}: {shown}", file=sys.stderr, flush=True)

    def of(key: str) -> float:
        return median([turn["ours"][key] for turn in turns])

    lab_s = median([turn["peer"]["lab_s"] for turn in turns])
    name = "JupyterLab alone"
    return Result(
        name="start",
        what="Starts from nothing, with environments built, and a login by a browser through an institution, typed "
        "without pauses.",
        peer="JupyterLab alone from the same environment, from its start until /api answers. It is no equal of a world "
        "with three Slurm sites: it says how fast the machine was in the same minutes.",
        figures=[
            *(Figure(key, title, "s", of(key), lab_s, name) for key, title in FIGURES.items()),
            Figure("down_s", "Ending the world with hub and server", "s", of("down_s")),
        ],
        turns=turns,
    )


def peer(folder: Path) -> dict[str, float]:
    """Start JupyterLab alone."""
    began = time.monotonic()
    with lab(folder, panel=False):
        return {"lab_s": time.monotonic() - began}


def ours(folder: Path, browser: Browser) -> dict[str, Any]:
    """Start the testbed alone, then with the hub, log in twice, end it, and start it again on what was left."""
    found: dict[str, Any] = {}
    alone = world_in(folder / "alone", hub=False)
    found["testbed_s"] = timed(alone.up)
    alone.down()
    world = world_in(folder / "hub", hub=True)
    try:
        found["hub_s"] = timed(lambda: ready(world))
        found["stages"] = [stage for stage in world.stages if "stage" in stage]
        found["login_first_s"], found["consent_first_s"] = login(world, browser)
        found["login_again_s"], _ = login(world, browser)
        found["down_s"] = timed(world.down)
        found["hub_again_s"] = timed(lambda: ready(world))
    finally:
        world.down()
    return found


def ready(world: World) -> None:
    """Bring the world up and return when its login page answers."""
    world.up()
    login_page(world)


def login(world: World, browser: Browser) -> tuple[float, float]:
    """Log in as a fresh visitor; returns the seconds until the launcher, and those of them after the consent."""
    with visitor(browser) as page:
        began = time.monotonic()
        log_in(page, hub_url(world), PERSON)
        agreed = time.monotonic()
        open_lab(page)
        return time.monotonic() - began, time.monotonic() - agreed


def timed(action: Callable[[], object]) -> float:
    """Return how many seconds something takes."""
    began = time.monotonic()
    action()
    return time.monotonic() - began
