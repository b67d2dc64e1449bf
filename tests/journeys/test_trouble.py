"""Trouble on the way: each is told where a person sees it, with what to do; nothing is lost, hangs or is executed."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterator

import pytest
from dcde_testbed.world import World
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser import log_in, open_lab, visitor
from tests.journeys.conftest import MOVIES, ROOT, SITES, Hub, Room, until

NASTY = "<img src=x onerror=window.pwned=1>"
TITLE_OF_TERMINAL = "\x1b]0;pwned\x07.mrc"
CIRCLE = """\
format: 1
name: circle
title: Circle
version: "1"
renderer: relion
steps:
  - {id: first, title: First, type: relion.motioncorr.import, after: [third]}
  - {id: second, title: Second, type: relion.motioncorr.import, after: [first]}
  - {id: third, title: Third, type: relion.motioncorr.import, after: [second]}
"""
THREE = {"import": "bnl-sdcc", "autopick": "ornl-cades", "extract": "anl-lcrc"}

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def tanaka(hub: Hub, browser: Browser) -> Iterator[Page]:
    """A page of Mei Tanaka, who may compute at one site only."""
    with visitor(browser) as page:
        log_in(page, hub.url, "mtanaka@ornl.example")
        open_lab(page)
        yield page


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A world of its own in which the storage at ANL is small."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    state = tmp_path_factory.mktemp("narrow") / "state"
    options = {"guest": ROOT / "demo/guest.yaml", "sample_data": MOVIES, "site_options": ["anl-lcrc.storage_mb=64"]}
    with World(state, port, environments=ROOT / "build/env", **options) as world:
        yield Hub(world)
    if os.geteuid() == 0:
        shutil.rmtree(state)


def panel(page: Page, tab: str) -> Locator:
    """Open the panel at a tab and return what is in it."""
    if not page.get_by_test_id("dcde-content").is_visible():
        page.locator(".jp-LauncherCard", has_text="DCDE panel").first.click()
    page.get_by_test_id(f"dcde-tab-{tab}").click()
    return page.get_by_test_id(f"dcde-panel-{tab}")


def form(page: Page, template: str) -> Locator:
    """Open the form of a template anew."""
    templates = panel(page, "templates")
    back, listed = templates.get_by_test_id("dcde-template-back"), templates.get_by_test_id("dcde-templates")
    expect(back.or_(listed)).to_be_visible()
    if back.is_visible():
        back.click()
    templates.locator(f"[data-testid=dcde-template][data-template={template}]").click()
    opened = templates.locator(f"[data-testid=dcde-form][data-template={template}]")
    expect(opened).to_be_visible()
    return opened


def refused(room: Room, *argv: str, code: int, words: tuple[str, ...]) -> None:
    """Expect a command to end with that exit code and to say all the words, in its text and as JSON, with a remedy."""
    told = room.run("dcde", *argv, check=False)
    assert told.returncode == code, told
    assert "Traceback" not in told.stderr
    for word in words:
        assert word in told.stderr, told.stderr
    said = json.loads(room.run("dcde", *argv, "--json", check=False).stdout)
    assert said["error"]["remedy"], said


def entries(room: Room, place: str) -> set[str]:
    return {entry["name"] for entry in room.dcde("ls", place)["entries"]}


# ---- what a person asks for is not possible -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv",
    [
        ["ls", "nowhere:movies"],
        ["sites", "nowhere"],
        ["cp", "nowhere:movies", "bnl:copy"],
        ["cp", "bnl:movies", "nowhere:copy"],
        ["launch", "three-steps", "--site", "import=nowhere"],
        ["launch", "three-steps", "--set", "movies=nowhere:movies/*.mrcs"],
    ],
)
def test_an_unknown_site_is_told_with_those_there_are(rivers: Page, room: Room, argv: list[str]) -> None:
    before = room.dcde("runs")
    refused(room, *argv, code=2, words=("nowhere", *SITES))
    assert room.dcde("runs") == before


def test_what_the_form_cannot_take_is_told_at_the_field_and_nothing_typed_is_lost(rivers: Page, room: Room) -> None:
    before = room.dcde("runs")
    opened = form(rivers, "three-steps")
    pixel, movies = opened.get_by_test_id("dcde-field-pixel_size"), opened.get_by_test_id("dcde-field-movies")
    opened.get_by_test_id("dcde-field-diameter").fill("140")
    pixel.fill("99")
    opened.get_by_test_id("dcde-launch").click()
    trouble = opened.get_by_test_id("dcde-trouble-pixel_size")
    expect(trouble).to_contain_text("0.1 to 20 Å")
    expect(pixel).to_be_focused()
    expect(pixel).to_have_attribute("aria-invalid", "true")
    pixel.fill("3")
    expect(trouble).to_have_count(0)

    movies.fill("bnl-sdcc:../../secret/*.mrcs")  # the form does not mind, the runner does
    opened.get_by_test_id("dcde-launch").click()
    expect(opened.get_by_test_id("dcde-trouble-movies")).to_contain_text("below your own folder")
    for value, words in (
        ("nowhere:movies/*.mrcs", "Sites: anl-lcrc, bnl-sdcc, ornl-cades."),
        ("bnl-sdcc:none/*.mrcs", "Look at the path"),
    ):
        movies.fill(value)
        opened.get_by_test_id("dcde-launch").click()
        expect(opened.get_by_test_id("dcde-notice")).to_contain_text(words)
        expect(movies).to_have_value(value)
    expect(opened.get_by_test_id("dcde-field-diameter")).to_have_value("140")

    refused(room, "launch", "three-steps", "--set", "pixel_size=99", code=2, words=("Pixel size", "0.1 to 20 Å"))
    refused(room, "launch", "three-steps", "--set", "pixel=3", code=2, words=("'pixel'", "pixel_size"))
    assert room.dcde("runs") == before


def test_no_path_leads_out_of_the_folder_not_even_through_a_link(rivers: Page, hub: Hub, room: Room) -> None:
    mine = hub.storage("bnl-sdcc")
    links = {"to-etc": "/etc", "up": "../..", "around": "movies/../../..", "passwd": "/etc/passwd", "self": "self"}
    make = "\n".join(f"ln -sfn {target} {mine}/{name}" for name, target in links.items())
    hub.world.run("bnl-sdcc", "login", ["sh", "-ec", make], user="u12345")
    before = {site: entries(room, f"{site}:") for site in SITES}
    inside = ("your own folder",)
    for path in ("..", "../..", "/etc", "movies/../..", "to-etc", "to-etc/ssh", "up", "around", "passwd/x"):
        refused(room, "ls", f"bnl:{path}", code=2, words=inside)
    refused(room, "ls", "bnl:self", code=2, words=("link",))
    for path in ("to-etc", "passwd", "to-etc/passwd", "/etc/passwd", "../../../../etc/passwd"):
        refused(room, "cp", f"bnl:{path}", "ornl:stolen", code=2, words=inside)
    for path in ("../mt9/gift", "/tmp/gift", "/", "../"):
        refused(room, "cp", "bnl:movies/gain.mrc", f"ornl:{path}", code=2, words=inside)
    for path in ("to-etc/", "up/x", "around/x"):
        refused(room, "cp", "bnl:movies/gain.mrc", f"bnl:{path}", code=2, words=inside)
    around = "movies=bnl-sdcc:up/*/movies/*.mrcs"
    refused(room, "launch", "three-steps", "--set", around, code=2, words=inside)
    assert {site: entries(room, f"{site}:") for site in SITES} == before

    data = panel(rivers, "data")
    data.get_by_test_id("dcde-browser-site").select_option("bnl-sdcc")
    link = data.locator("[data-testid=dcde-entry][data-name=passwd]")
    expect(link).to_have_attribute("data-type", "link")
    link.click()
    data.get_by_test_id("dcde-copy").click()
    rivers.get_by_test_id("dcde-copy-start").click()
    transfer = rivers.get_by_test_id("dcde-transfer").filter(has_text="passwd → ANL LCRC")
    expect(transfer).to_have_attribute("data-state", "failed", timeout=30_000)
    expect(transfer).to_contain_text("out of your folder")
    expect(transfer).to_contain_text("Use a path inside your own folder")
    hub.world.run("bnl-sdcc", "login", ["rm", *(f"{mine}/{name}" for name in links)], user="u12345")


def test_a_hostile_name_is_a_name_and_nothing_else(rivers: Page, hub: Hub, room: Room) -> None:
    folder = f"{hub.storage('bnl-sdcc')}/odd"
    script = 'mkdir -p "$1/$2" && printf inside > "$1/$2/$2" && printf x > "$1/$3"'
    hub.world.run("bnl-sdcc", "login", ["sh", "-ec", script, "sh", folder, NASTY, TITLE_OF_TERMINAL], user="u12345")
    troubles: list[str] = []
    rivers.on("pageerror", lambda error: troubles.append(str(error)))
    rivers.on("dialog", lambda dialog: troubles.append(dialog.message))

    data = panel(rivers, "data")
    data.get_by_test_id("dcde-browser-site").select_option("ornl-cades")
    data.get_by_test_id("dcde-browser-site").select_option("bnl-sdcc")
    data.locator("[data-name=odd] .dcde-Entry-name").click()
    shown = data.get_by_test_id("dcde-entry").filter(has_text=NASTY)
    expect(shown).to_have_attribute("data-type", "folder")
    expect(shown.locator(".dcde-Entry-name")).to_have_text(NASTY)
    shown.locator(".dcde-Entry-name").click()
    expect(data.get_by_test_id("dcde-browser")).to_have_attribute("data-path", f"odd/{NASTY}")
    file = data.get_by_test_id("dcde-entry").filter(has_text=NASTY)
    expect(file).to_have_attribute("data-type", "file")
    file.click()
    expect(data.get_by_test_id("dcde-selected")).to_have_text(f"Selected: {NASTY}")
    data.get_by_role("button", name="odd", exact=True).click()
    folder_again = data.locator("[data-testid=dcde-entry][data-type=folder]").filter(has_text=NASTY)
    folder_again.locator(".dcde-Entry-icon").click()
    data.get_by_test_id("dcde-copy").click()
    dialog = rivers.get_by_test_id("dcde-copy-dialog")
    expect(dialog).to_contain_text(f"Copy {NASTY}")
    dialog.get_by_test_id("dcde-browser-site").select_option("ornl-cades")
    expect(dialog.get_by_test_id("dcde-browser")).to_have_attribute("aria-busy", "false")
    expect(dialog.get_by_test_id("dcde-browser")).to_have_attribute("data-site", "ornl-cades")
    dialog.get_by_test_id("dcde-copy-start").click()
    transfer = rivers.get_by_test_id("dcde-transfer").filter(has_text=NASTY)
    expect(transfer).to_have_attribute("data-state", "done", timeout=30_000)

    assert rivers.evaluate("window.pwned") is None
    assert rivers.evaluate("document.querySelectorAll('img[src=x]').length") == 0
    assert troubles == []
    copied = hub.world.run("ornl-cades", "login", ["cat", f"{hub.storage('ornl-cades')}/{NASTY}/{NASTY}"])
    assert copied.stdout == "inside"
    listed = room.run("dcde", "ls", "bnl:odd").stdout
    assert NASTY in listed
    assert "\x1b" not in listed and "\x07" not in listed
    html = "import dcde; print(dcde.ls('bnl:odd')._repr_html_())"
    assert "<img" not in room.run("python", "-c", html).stdout


def test_a_template_with_a_circle_is_refused_by_name_and_hides_no_other(rivers: Page, room: Room) -> None:
    folder = ".local/share/dcde/templates/circle"
    room.run("sh", "-ec", 'mkdir -p "$1" && printf %s "$2" > "$1/template.yaml"', "sh", folder, CIRCLE)
    try:
        circle = ("first -> third -> second -> first", "template.yaml")
        refused(room, "templates", "circle", code=2, words=circle)
        refused(room, "launch", "circle", code=2, words=circle)
        names = {template["name"] for template in room.dcde("templates")}
        assert names >= {"first-look", "three-steps"}
        assert form(rivers, "three-steps").get_by_test_id("dcde-launch").is_enabled()
    finally:
        room.run("rm", "-r", folder)


# ---- what a person may not do -------------------------------------------------------------------------------------


def test_a_site_without_permission_is_barred_with_the_reason_and_the_remedy(tanaka: Page, hub: Hub) -> None:
    hers = Room(hub.world, 51002)
    where = "https://registry.dcde.example/groups"
    site = panel(tanaka, "sites").locator("[data-testid=dcde-site][data-site=bnl-sdcc]")
    expect(site).to_have_attribute("data-state", "refused")
    expect(site).to_contain_text(where)
    opened = form(tanaka, "three-steps")
    for step in THREE:
        choice = opened.get_by_test_id(f"dcde-step-site-{step}")
        for name in SITES:
            option = choice.locator(f"option[value={name}]")
            assert option.is_disabled() == (name != "ornl-cades"), name
    expect(opened.get_by_test_id("dcde-step-site-extract").locator("option[value=anl-lcrc]")).to_contain_text("groups")
    expect(opened.get_by_test_id("dcde-barred")).to_contain_text(where)
    opened.get_by_test_id("dcde-launch").click()  # its movies lie at a site that she may not read
    expect(opened.get_by_test_id("dcde-notice")).to_contain_text(where)

    words = ("You may not", "groups", where)
    refused(hers, "launch", "three-steps", code=3, words=words)
    refused(hers, "ls", "bnl:", code=3, words=words)
    refused(hers, "cp", "ornl:x", "anl:x", code=3, words=words)
    mine = "movies=ornl-cades:movies/*.mrcs"
    refused(
        hers, "launch", "three-steps", "--set", mine, "--set", "gain=", "--site", "extract=anl", code=3, words=words
    )
    assert hers.dcde("runs") == []
    for barred in ("bnl-sdcc", "anl-lcrc"):
        listed = hub.world.run(barred, "login", ["ls", hub.world.facts["sites"][barred]["storage_root"]])
        assert "mt9" not in listed.stdout


# ---- a site has trouble -------------------------------------------------------------------------------------------


def test_steps_wait_for_sites_that_are_away_and_go_on_after_the_mend(rivers: Page, hub: Hub, room: Room) -> None:
    world = hub.world
    world.cut("ornl-cades")  # silently
    world.stop_node("anl-lcrc", "login")  # as when its power goes
    try:
        sites = panel(rivers, "sites")
        for name in ("ornl-cades", "anl-lcrc"):
            card = sites.locator(f"[data-testid=dcde-site][data-site={name}]")
            expect(card).to_have_attribute("data-state", "lost", timeout=45_000)
            expect(card.locator(".dcde-Card-trouble")).not_to_be_empty()
        states = {site["name"]: site["state"] for site in room.dcde("sites")}
        assert states == {"bnl-sdcc": "up", "ornl-cades": "lost", "anl-lcrc": "lost"}
        away = room.run("dcde", "ls", "ornl:", check=False)
        assert away.returncode == 4 and "Trying again can help" in away.stderr, away

        opened = form(rivers, "three-steps")
        opened.get_by_test_id("dcde-launch").click()
        shown = rivers.get_by_test_id("dcde-run-open")
        expect(shown).to_be_visible(timeout=30_000)
        run = str(shown.get_attribute("data-run"))
        expect(shown.locator("[data-testid=dcde-step][data-step=import]")).to_have_attribute(
            "data-state", "succeeded", timeout=60_000
        )
        waiting = shown.locator("[data-testid=dcde-step][data-step=autopick]")
        expect(waiting).to_have_attribute("data-state", "waiting")
        waiting.click()
        expect(shown.get_by_test_id("dcde-step-why")).to_contain_text("ORNL CADES")
        expect(shown.get_by_test_id("dcde-step-why")).to_contain_text("lost since")
        assert room.dcde("show", run)["state"] == "running"
    finally:
        world.mend("ornl-cades")
        world.start_node("anl-lcrc", "login")
    done = room.wait_for_run(run, 90)
    assert {step["id"]: step["site"] for step in done["steps"]} == THREE
    assert {step: len(starts) for step, starts in hub.starts(done["project"]).items()} == dict.fromkeys(THREE, 1)
    expect(shown).to_have_attribute("data-state", "succeeded")
    books = room.run("dcde", "projects", done["project"]).stdout
    assert all(site in books for site in SITES), books


def test_a_full_disk_is_told_nothing_is_lost_and_resume_ends_well(narrow: Hub, browser: Browser) -> None:
    room = Room(narrow.world, 51001)
    ballast = f"{narrow.storage('anl-lcrc')}/ballast"
    fill = 'head -c $(($(df -B1 --output=avail . | tail -1) - 200000)) /dev/zero > "$1"'
    with visitor(browser) as page:
        log_in(page, narrow.url, "drivers@pnnl.example")
        open_lab(page)
        until(lambda: all(site["state"] == "up" for site in room.dcde("sites")), 30, "all sites")
        where = narrow.storage("anl-lcrc")
        narrow.world.run("anl-lcrc", "login", ["sh", "-ec", f"cd {where}; {fill}", "sh", ballast], user="drivers")
        held = int(narrow.world.run("anl-lcrc", "login", ["stat", "-c", "%s", ballast]).stdout)

        refused(room, "cp", "bnl:movies", "anl:", code=4, words=("anl-lcrc", "there is room for", "Remove files"))
        form(page, "three-steps").get_by_test_id("dcde-launch").click()
        shown = page.get_by_test_id("dcde-run-open")
        expect(shown).to_have_attribute("data-state", "failed", timeout=60_000)
        run = str(shown.get_attribute("data-run"))
        failed = shown.get_by_test_id("dcde-step-open")
        expect(failed).to_have_attribute("data-step", "extract")
        expect(failed.get_by_test_id("dcde-notice")).to_contain_text("room for")
        expect(failed.get_by_test_id("dcde-notice")).to_contain_text("Remove files you no longer need there")
        steps = {step["id"]: step for step in room.dcde("show", run)["steps"]}
        assert steps["extract"]["error"]["code"] == "DiskFull"
        assert [steps[name]["state"] for name in ("import", "autopick")] == ["succeeded", "succeeded"]
        assert "Remove files" in room.run("dcde", "show", run).stdout
        assert int(narrow.world.run("anl-lcrc", "login", ["stat", "-c", "%s", ballast]).stdout) == held

        narrow.world.run("anl-lcrc", "login", ["rm", ballast], user="drivers")
        shown.get_by_test_id("dcde-run-resume").click()
        page.get_by_test_id("dcde-confirm-yes").click()
        expect(shown).to_have_attribute("data-state", "succeeded", timeout=60_000)
    project = room.dcde("show", run)["project"]
    assert {step: len(starts) for step, starts in narrow.starts(project).items()} == dict.fromkeys(THREE, 1)
