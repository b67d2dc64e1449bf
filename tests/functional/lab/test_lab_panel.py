"""The panel in a real JupyterLab and a real browser, with a runner that plays a script."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from functional.lab.conftest import TOKEN, LabServer, wait_until
from playwright.sync_api import Page, expect, sync_playwright

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
NASTY = "<img src=x onerror=\"document.title='broken in'\">.mrc"
LIMIT_BYTES = 60_000
"""What the panel may add to the start of JupyterLab, uncompressed."""


@pytest.fixture
def page() -> Iterator[Page]:
    """Return a page of a fresh browser; one browser at a time for each account."""
    with (
        Path(f"/tmp/dcde-browser-{os.geteuid()}.lock").open("w") as lock,
        sync_playwright() as playwright,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        page.set_default_timeout(30_000)
        yield page
        browser.close()


class Watch:
    """What the browser complained about, and what it fetched of the panel."""

    def __init__(self, page: Page) -> None:
        self.complaints: list[str] = []
        self.fetched: dict[str, int] = {}
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda m: self.complaints.append(m.text) if m.type == "error" else None)
        page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        page.on("response", self._note)

    def _note(self, response: object) -> None:
        url, headers = response.url, response.headers  # type: ignore[attr-defined]
        if "/extensions/@dcde/lab/" in url:
            self.fetched[url.rsplit("/", 1)[1].split("?")[0]] = int(headers.get("content-length", 0))


def open_lab(page: Page, server: LabServer) -> None:
    server.wait_for_runner()
    page.goto(f"http://127.0.0.1:{server.port}{server.base}lab?token={TOKEN}")
    page.locator(".jp-Launcher").wait_for(timeout=120_000)


def test_from_the_launcher_to_the_class_averages(page: Page, lab_server: Callable[..., LabServer]):
    server = lab_server(lab=True, DCDE_SCRIPT_STEP_S="0.4")
    watch = Watch(page)
    open_lab(page, server)
    before = dict(watch.fetched)
    assert 0 < sum(before.values()) < LIMIT_BYTES, before

    clicks = 0
    page.locator(".jp-LauncherCard", has_text="First look").click()
    clicks += 1
    expect(page.get_by_label("Pixel size (Å) (needed)")).to_have_value("3.54")
    assert set(watch.fetched) > set(before), "the views are loaded only when they are needed"
    page.get_by_test_id("dcde-launch").click()
    clicks += 1

    run = page.get_by_test_id("dcde-run-open")
    expect(run).to_have_attribute("data-run", "r3")
    expect(run).to_have_attribute("data-state", "succeeded", timeout=30_000)
    steps = page.get_by_test_id("dcde-step")
    expect(steps).to_have_count(6)
    assert {steps.nth(n).get_attribute("data-state") for n in range(6)} == {"succeeded"}
    assert {steps.nth(n).get_attribute("data-site") for n in range(6)} == {"bnl-sdcc", "ornl-cades", "anl-lcrc"}

    first = page.get_by_test_id("dcde-picture").first
    expect(first).to_have_attribute("data-step", "class2d")
    assert grey_levels(page, "[data-testid=dcde-picture][data-step=class2d] img") > 20
    first.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("dcde-picture-large")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("dcde-picture-large")).to_have_count(0)
    expect(first).to_be_focused()

    launch = [r for r in requests(server) if r["op"] == "runs.launch"]
    assert len(launch) == 1 and launch[0]["args"]["sites"]["class2d"] == "anl-lcrc"
    assert clicks <= 6
    assert watch.complaints == []


def requests(server: LabServer) -> list[dict[str, object]]:
    return [json.loads(line) for line in (server.runtime / "requests.jsonl").read_text().splitlines()]


def grey_levels(page: Page, selector: str) -> int:
    """Return how many different greys the picture really shows, so that a blank one is noticed."""
    page.wait_for_function("s => document.querySelector(s)?.naturalWidth > 0", arg=selector)
    return page.evaluate(
        """selector => {
            const image = document.querySelector(selector);
            const canvas = Object.assign(document.createElement('canvas'), {width: 64, height: 64});
            const context = canvas.getContext('2d');
            context.drawImage(image, 0, 0, 64, 64);
            const data = context.getImageData(0, 0, 64, 64).data;
            return new Set(Array.from({length: 4096}, (_, n) => data[4 * n])).size;
        }""",
        selector,
    )


def test_data_by_keyboard_with_thousands_of_files_and_a_hostile_name(page: Page, lab_server: Callable[..., LabServer]):
    server = lab_server(lab=True, DCDE_SCRIPT_STEP_S="0.4")
    watch = Watch(page)
    open_lab(page, server)
    page.locator(".jp-LauncherCard", has_text="DCDE panel").click()
    page.get_by_test_id("dcde-tab-runs").focus()
    page.keyboard.press("End")
    expect(page.get_by_test_id("dcde-tab-data")).to_be_focused()
    hostile = page.locator(f"[data-testid=dcde-entry][data-name={json.dumps(NASTY)}]")
    expect(hostile).to_contain_text(NASTY)

    entries = page.get_by_test_id("dcde-entries")
    entries.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(page.get_by_test_id("dcde-selected")).to_have_text("Selected: many")
    page.keyboard.press("Enter")
    expect(entries).to_have_attribute("data-count", "2500")
    assert page.get_by_test_id("dcde-entry").count() < 80
    entries.focus()
    page.keyboard.press("End")
    expect(page.get_by_text("frame_02499.tiff", exact=True)).to_be_in_viewport()

    page.get_by_test_id("dcde-copy").click()
    page.get_by_test_id("dcde-copy-start").click()
    transfer = page.get_by_test_id("dcde-transfer")
    expect(transfer).to_have_attribute("data-state", "moving")
    expect(transfer).to_contain_text("MB/s")
    expect(transfer).to_have_attribute("data-state", "done", timeout=20_000)

    page.get_by_role("button", name="My folder").click()
    page.locator("[data-name=empty] .dcde-Entry-name").click()
    expect(page.get_by_test_id("dcde-browser-empty")).to_have_text("This folder is empty.")
    assert page.title() != "broken in"
    assert watch.complaints == []


def test_what_is_shown_stays_while_the_runner_is_away(page: Page, lab_server: Callable[..., LabServer]):
    server = lab_server(lab=True)
    open_lab(page, server)
    page.locator(".jp-LauncherCard", has_text="DCDE panel").click()
    expect(page.get_by_test_id("dcde-run")).to_have_count(2)
    server.call("files.list", site="anl-lcrc", path="crash")
    expect(page.get_by_test_id("dcde-away")).to_contain_text("being started again")
    expect(page.get_by_test_id("dcde-run")).to_have_count(2)
    wait_until(lambda: len(server.starts()) == 2)
    expect(page.get_by_test_id("dcde-content")).to_have_attribute("data-connection", "up")
    expect(page.get_by_test_id("dcde-away")).to_have_count(0)


def test_a_server_that_is_part_of_no_hub_says_so_politely(page: Page, lab_server: Callable[..., LabServer]):
    server = lab_server(lab=True, connected=False)
    page.goto(f"http://127.0.0.1:{server.port}{server.base}lab?token={TOKEN}")
    page.locator(".jp-LauncherCard", has_text="DCDE panel").click(timeout=120_000)
    expect(page.get_by_test_id("dcde-unconnected")).to_contain_text(re.compile("not part of a DCDE hub"))
