"""A real browser for journeys: Debian's Chromium, driven by Playwright, one at a time for each account of this machine."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    *(["--no-sandbox"] if os.geteuid() == 0 else []),
]
LOCK = Path(f"/tmp/dcde-browser-{os.geteuid()}.lock")  # another account's could not be opened
PASSWORD = "demo"


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Yield a headless browser; only one runs at a time, since all tests share the machine's cores."""
    with open(LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            try:
                yield browser
            finally:
                browser.close()


@contextlib.contextmanager
def visitor(browser: Browser, dark: bool = False) -> Iterator[Page]:
    """Yield a page of a fresh visitor. The local certificate authority is not known to the browser, so errors are ignored."""
    context = browser.new_context(
        ignore_https_errors=True, viewport={"width": 1440, "height": 900}, color_scheme="dark" if dark else "light"
    )
    try:
        yield context.new_page()
    finally:
        context.close()


def log_in(page: Page, hub: str, person: str) -> None:
    """Log a person in at the hub, through the discovery page and the institution of the person's address.

    Afterwards the page shows whatever the hub answers: a server, or a refusal.
    """
    scope = person.split("@")[1].removesuffix(".example")
    page.goto(hub)
    page.click("#dcde-login")
    page.wait_for_url("**/disco.localhost:*/**")
    page.click(f"a.choice[href*='{scope}.localhost']")
    page.fill("#user", person)
    page.fill("#password", PASSWORD)
    page.click("#sign-in")
    page.click("#allow")


def open_lab(page: Page) -> None:
    """Wait until JupyterLab is there after a login."""
    page.wait_for_url("**/user/*/lab**", timeout=120_000)
    expect(page.locator(".jp-Launcher").first).to_be_visible(timeout=120_000)
