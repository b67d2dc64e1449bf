"""Logging in at a real hub: who gets in, who does not, and what the refusal pages say."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from bs4 import BeautifulSoup

from .conftest import AUP, PEOPLE, Hub, wait_for


@pytest.fixture(autouse=True)
def sample_people(hub: Hub) -> None:
    hub.workshop.people(*PEOPLE.values())


def refusal_of(response: Any) -> tuple[str, str]:
    main = BeautifulSoup(response.text, "html.parser").find("main")
    assert main is not None, response.text
    return str(main.get("data-refusal")), " ".join(main.get_text(" ").split())


def test_login_page_names_institutions_and_one_way_in(hub: Hub) -> None:
    with hub.browser() as browser:
        page = browser.get("/")
    soup = BeautifulSoup(page.text, "html.parser")
    assert page.status_code == 200
    link = soup.find("a", string="Log in with your institution")
    assert link is not None and "/hub/oauth_login" in str(link["href"])
    assert "PNNL (sample)" in soup.get_text()
    assert soup.find("input", {"type": "password"}) is None


def test_member_gets_in_under_the_dcde_id(hub: Hub) -> None:
    with hub.browser() as browser:
        page = hub.log_in(browser, "DRivers@PNNL.example", "dcde1000001")
        assert page.status_code == 200 and page.url.path == "/hub/token"
        assert "dcde1000001" in page.text


def test_auth_state_is_encrypted_and_the_database_private(hub: Hub) -> None:
    with hub.browser() as browser:
        hub.log_in(browser, "drivers@pnnl.example", "dcde1000001")
    with sqlite3.connect(hub.workshop.folder / "hub.sqlite") as database:
        state, info = database.execute(
            "SELECT encrypted_auth_state, user_info FROM users WHERE name='dcde1000001'"
        ).fetchone()
    assert state and b"upstream-" not in state and b"drivers@pnnl.example" not in state
    assert "PNNL (sample)" in info and "refeds.org/profile/sfa" in info and "upstream-" not in info


@pytest.mark.parametrize(
    ("eppn", "uid", "code", "words"),
    [
        ("visitor@pnnl.example", None, "not-enrolled", ["visitor@pnnl.example", "https://registry.example/enroll"]),
        ("pnovak@bnl.example", "dcde1000003", "policy-missing", ["Acceptable use, version 2", AUP, "https://registry.example/me"]),
        ("gone@bnl.example", "dcde1000004", "membership-suspended", ["suspended", "help@dcde.example"]),
        ("drivers@pnnl.example", "dcde1000009", "entry-unusable", ["different DCDE ids"]),
        ("drivers@pnnl.example", "root", "entry-unusable", ["no DCDE id of the right form"]),
        ("drivers@pnnl.example", "dcde1000001/../x", "entry-unusable", ["no DCDE id of the right form"]),
        (None, "dcde1000001", "no-identity", ["eduPersonPrincipalName"]),
    ],
)  # fmt: skip
def test_refusal_says_what_to_do(hub: Hub, eppn: str | None, uid: str | None, code: str, words: list[str]) -> None:
    with hub.browser() as browser:
        page = hub.log_in(browser, eppn, uid)
        assert page.status_code == 403
        shown, text = refusal_of(page)
        assert shown == code
        for word in words:
            assert word in text
        assert browser.get("/hub/home").url.path == "/hub/login", "a refused person has no session"
    others = [p["name"] for p in PEOPLE.values()] + ["dcde10000"]
    assert not any(name in text for name in others), "the page speaks of nobody else"


def test_unknown_institution_is_refused(hub: Hub) -> None:
    with hub.browser() as browser:
        page = hub.log_in(browser, "drivers@pnnl.example", "dcde1000001", idp="https://elsewhere.example/idp")
    assert page.status_code == 403 and "not accepted here" in page.text


@pytest.mark.parametrize("change", [{"status": "suspended"}, {"policies": {}}, {"uid_number": 0}, None])
def test_revocation_ends_the_session(hub: Hub, change: dict[str, Any] | None) -> None:
    with hub.browser() as browser:
        hub.log_in(browser, "drivers@pnnl.example", "dcde1000001")
        assert browser.get("/hub/token").url.path == "/hub/token"
        hub.workshop.people(*([PEOPLE["drivers"] | change] if change else []))
        wait_for(lambda: browser.get("/hub/token").url.path == "/hub/login", "the session ends", 10)
        assert hub.log_in(browser, "drivers@pnnl.example", "dcde1000001").status_code == 403


def test_groups_follow_the_registry_not_the_login(hub: Hub) -> None:
    with hub.browser() as browser:
        hub.log_in(browser, "drivers@pnnl.example", "dcde1000001", isMemberOf=["dcde-admins"])
        assert browser.get("/hub/admin").status_code == 403
        hub.workshop.people(PEOPLE["drivers"] | {"groups": ["dcde-admins"]})
        wait_for(lambda: browser.get("/hub/admin").status_code == 200, "the new group acts", 10)
        hub.workshop.people(PEOPLE["drivers"])
        wait_for(lambda: browser.get("/hub/admin").status_code == 403, "the lost group acts", 10)


def test_broken_registry_keeps_the_last_good_one(hub: Hub) -> None:
    with hub.browser() as browser:
        hub.log_in(browser, "drivers@pnnl.example", "dcde1000001")
        hub.workshop.registry.write_text("people: [{dcde_id: dcde10000")
        wait_for(
            lambda: (
                browser.get("/hub/token").url.path == "/hub/token"
                and "the last good one stays" in hub.workshop.log("hub")
            ),
            "said so",
            10,
        )
        assert hub.log_in(browser, "drivers@pnnl.example", "dcde1000001").status_code == 200


def test_unknown_pages_have_a_heading(hub: Hub) -> None:
    with hub.browser() as browser:
        page = browser.get("/hub/no-such-page")
    soup = BeautifulSoup(page.text, "html.parser")
    assert page.status_code == 404 and soup.find("h1", string="There is no such page")
    assert soup.title and "None" not in soup.title.get_text()


def test_request_id_reaches_the_hubs_log(hub: Hub) -> None:
    with hub.browser() as browser:
        browser.get("/hub/api/user", headers={"X-Request-ID": "qabcdef012345"})
        browser.get("/hub/api/user", headers={"X-Request-ID": "<script>"})
    assert '"request": "qabcdef012345"' in hub.workshop.log("hub") and "<script>" not in hub.workshop.log("hub")


def test_logs_are_json_without_secrets(hub: Hub) -> None:
    text = hub.workshop.log("hub")
    lines = text.splitlines()
    assert sum(line.startswith('{"time"') for line in lines) > 0.9 * len(lines)
    assert "upstream-" not in text and "client-secret-of-the-test" not in text
    for secret in (hub.workshop.folder / "secrets").iterdir():
        assert secret.read_text().strip() not in text
