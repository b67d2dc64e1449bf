"""People who are not let in: each sees a page that says what to do, and nothing is made for them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from playwright.sync_api import Browser, Page, expect

from tests.browser import PASSWORD, log_in, visitor
from tests.journeys.conftest import Hub, until

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with visitor(browser) as opened:
        yield opened


@pytest.fixture
def registry(hub: Hub) -> Iterator[Callable[..., None]]:
    """`registry(dcde_id, **changes)` changes a person's entry; afterwards the file is as it was."""
    path = hub.world.inside / "registry.yaml"
    before = path.read_text()

    def put(text: str) -> None:
        draft = path.with_name("registry.draft")
        draft.write_text(text)
        draft.chmod(0o644)
        draft.replace(path)

    def change(dcde_id: str, /, **changes: Any) -> None:
        content = yaml.safe_load(path.read_text())
        (entry,) = [person for person in content["people"] if person["dcde_id"] == dcde_id]
        entry |= changes
        put(yaml.safe_dump(content))

    yield change
    put(before)


def known(hub: Hub) -> dict[str, Any]:
    """Return everything that would show that something was made for somebody."""
    run = hub.world.run
    database = sqlite3.connect(f"file:{hub.world.inside}/hub/hub.sqlite?mode=ro", uri=True)
    try:
        users = {name for (name,) in database.execute("select name from users")}
        servers = database.execute("select count(*) from servers").fetchone()
    finally:
        database.close()
    return {
        "accounts": run("hub", None, ["cat", "/etc/passwd", "/etc/group"]).stdout,
        "homes": run("hub", None, ["ls", "-A", "/home"]).stdout,
        "cables": [line for line in run("hub", None, ["ip", "-br", "link"]).stdout.splitlines() if line[:2] == "u5"],
        "users": users,
        "servers": servers,
    }


def refusal(page: Page, hub: Hub, person: str) -> str:
    """Log somebody in, expect the hub's page with status 403, and return its text."""
    with page.expect_response(lambda answer: "/hub/oauth_callback" in answer.url) as answer:
        log_in(page, hub.url, person)
    assert answer.value.status == 403
    expect(page.locator("h1")).to_be_visible()
    return page.locator("body").inner_text()


@pytest.mark.parametrize(
    ("person", "words", "leads_to"),
    [
        ("visitor@pnnl.example", ["not a member yet", "not enrolled"], "https://registry.dcde.example/enroll"),
        ("pnovak@bnl.example", ["policy waits", "have not accepted", "Then come back"], "https://dcde.example/aup/2"),
    ],
)
def test_who_may_not_come_in_is_told_what_to_do(
    hub: Hub, page: Page, person: str, words: list[str], leads_to: str
) -> None:
    before = known(hub)
    text = refusal(page, hub, person)
    for word in [person, "(sample)", *words]:
        assert word in text
    assert page.locator(f"a[href='{leads_to}']").is_visible()
    assert "Traceback" not in text
    for path in ("hub/home", "hub/spawn", "hub/api/user"):
        page.goto(f"{hub.url}{path}")
        assert "/hub/login" in page.url or "403" in page.locator("body").inner_text()
    assert known(hub) == before


@pytest.mark.parametrize("uid", [0, 985], ids=["root's uid", "a service's uid"])
def test_a_registry_entry_with_a_system_uid_makes_no_account(
    hub: Hub, page: Page, registry: Callable[..., None], uid: int
) -> None:
    before = known(hub)
    registry("dcde1000009", uid_number=uid)
    text = refusal(page, hub, "admin@bnl.example")
    assert f"uid_number {uid}" in text
    assert "Send the operators this page's text" in text
    assert page.locator("a[href^='mailto:']").is_visible()
    after = known(hub)
    assert after == before
    assert after["accounts"].count(":x:0:") == 2, "root's account and root's group, and no other"


@pytest.mark.parametrize("name", ["root", "dcde-broker", "../../root"])
def test_a_registry_entry_with_a_system_name_makes_no_account(
    hub: Hub, page: Page, registry: Callable[..., None], name: str
) -> None:
    """The proxy, which tells the hub who somebody is, refuses such a name before the hub could."""
    before = known(hub)
    registry("dcde1000009", dcde_id=name)
    with page.expect_response(lambda answer: "/hub/oauth_callback" in answer.url) as answer:
        sign_in(page, hub, "admin@bnl.example")
    assert answer.value.status == 400
    expect(page.locator("body")).to_contain_text("tell its administrator")
    assert known(hub) == before


def sign_in(page: Page, hub: Hub, person: str, password: str = PASSWORD) -> None:
    """Sign somebody in at the own institution, up to what comes after the password."""
    scope = person.split("@")[1].removesuffix(".example")
    page.goto(hub.url)
    page.click("#dcde-login")
    page.click(f"a.choice[href*='{scope}.localhost']")
    page.fill("#user", person)
    page.fill("#password", password)
    page.click("#sign-in")


def test_a_wrong_password_can_be_corrected(hub: Hub, page: Page) -> None:
    with page.expect_response(lambda answer: answer.request.method == "POST") as answer:
        sign_in(page, hub, "visitor@pnnl.example", "wrong")
    assert answer.value.status == 403
    expect(page.get_by_role("alert")).to_be_visible()
    expect(page.locator("#user")).to_have_value("visitor@pnnl.example")
    expect(page.locator("#password")).to_have_value("")
    page.fill("#password", PASSWORD)
    page.click("#sign-in")
    page.click("#allow")
    until(lambda: "not a member yet" in page.locator("body").inner_text(), 20, "the page of the hub")


def test_who_gives_up_on_the_way_is_brought_back_to_the_hub(hub: Hub, browser: Browser) -> None:
    for stop in ("#cancel", "#refuse"):
        with visitor(browser) as page:
            if stop == "#refuse":
                sign_in(page, hub, "visitor@pnnl.example")
            else:
                page.goto(hub.url)
                page.click("#dcde-login")
                page.click("a.choice[href*='pnnl.localhost']")
            page.click(stop)
            expect(page.locator("h1")).to_have_text("The login was not completed")
            assert page.url.startswith(hub.url)
            expect(page.locator("body")).to_contain_text("try again")
