"""What our panel adds to the load of JupyterLab: bytes, requests, and time until the launcher is there."""

from __future__ import annotations

import time
from typing import Any

from playwright.sync_api import Browser, Response, expect

from benchmarks.measure import Figure, Result, loads, median
from benchmarks.servers import lab
from benchmarks.worlds import temporary_folder
from tests.browser import chromium, visitor

REPEAT = 5


def run(repeat: int) -> Result:
    """Load both pages in turn, each time as a fresh visitor; the first pair only warms the servers."""
    turns: list[dict[str, Any]] = []
    with (
        temporary_folder() as folder,
        lab(folder / "with", panel=True) as with_panel,
        lab(folder / "without", panel=False) as without,
        chromium() as browser,
    ):
        for number in range(repeat + 1):
            turn: dict[str, Any] = {
                "load": loads()[0],
                "ours": load(browser, with_panel),
                "peer": load(browser, without),
            }
            assert turn["ours"].pop("panel") and not turn["peer"].pop("panel"), "the panel is where it should not be"
            if number:
                turns.append(turn)

    def of(who: str, key: str) -> float:
        return median([turn[who][key] for turn in turns])

    titles = {"launcher_s": ("Launcher visible", "s"), "bytes": ("Bytes", ""), "requests": ("Requests", "")}
    figures = [
        Figure(key, title, unit, of("ours", key), of("peer", key), "Lab alone") for key, (title, unit) in titles.items()
    ]
    for key in ("bytes", "requests"):
        added = median([turn["ours"][key] - turn["peer"][key] for turn in turns])
        figures.append(Figure(f"added_{key}", f"{titles[key][0]} added by the panel", "", added))
    return Result(
        name="panel",
        what="JupyterLab opened by a fresh visitor of a server that is warm, with our panel and without; a runner that "
        "plays a script stands behind the panel. Bytes are the content lengths of all answers until "
        "the network is quiet.",
        peer="JupyterLab from the same environment without panel and server extension.",
        figures=figures,
        turns=turns,
    )


def load(browser: Browser, url: str) -> dict[str, Any]:
    """Open the page in a fresh context; returns seconds until the launcher is visible, bytes, requests."""
    lengths: list[int] = []

    def count(response: Response) -> None:
        lengths.append(int(response.headers.get("content-length", 0)))

    with visitor(browser) as page:
        page.on("response", count)
        began = time.monotonic()
        page.goto(url, wait_until="commit")
        expect(page.locator(".jp-Launcher").first).to_be_visible(timeout=120_000)
        launcher_s = time.monotonic() - began
        page.wait_for_load_state("networkidle")
        panel = page.locator(".jp-SideBar [data-id^=dcde]").count() > 0
    return {"launcher_s": launcher_s, "bytes": sum(lengths), "requests": len(lengths), "panel": panel}
