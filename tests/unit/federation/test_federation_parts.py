"""The parts of the federation that need neither its environment nor a network."""

from __future__ import annotations

import io
import logging
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml
from dcde_testbed.federation import FederationError, Runtime, prepare, web
from dcde_testbed.federation.discovery import Discovery
from dcde_testbed.federation.logs import OneLine
from dcde_testbed.federation.people import INSTITUTIONS
from dcde_testbed.federation.registry import Member, RegistryError, find_member
from dcde_testbed.federation.settings import LOOPBACK_PORTS, Settings
from dcde_testbed.federation.ticket import TicketError, Tickets

SAMPLE_REGISTRY = Path(web.__file__).with_name("registry.yaml")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(8765, dict(LOOPBACK_PORTS), tmp_path / "private", tmp_path / "registry.yaml")


def call(application: Any, path: str = "/", query: str = "", **environ: Any) -> tuple[str, dict[str, str], str]:
    answered: list[Any] = []
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "wsgi.input": io.BytesIO(),
    } | environ
    body: Iterable[bytes] = application(environ, lambda *given: answered.extend(given))
    return answered[0], dict(answered[1]), b"".join(body).decode()


# The sample people and the sample registry


def test_every_enrolled_identity_can_sign_in_somewhere() -> None:
    document = yaml.safe_load(SAMPLE_REGISTRY.read_text())
    identities = [identity for person in document["people"] for identity in person["identities"]]
    known = {
        institution.principal_name(account): account.name
        for institution in INSTITUTIONS
        for account in institution.accounts
    }
    assert len(set(identities)) == len(identities)
    assert {person["identities"][0]: person["name"] for person in document["people"]}.items() <= known.items()
    assert set(known) - set(identities) == {"visitor@pnnl.example"}


def test_the_sample_registry_has_no_two_of_anything_and_safe_uids() -> None:
    people = yaml.safe_load(SAMPLE_REGISTRY.read_text())["people"]
    for key in ("dcde_id", "uid_number", "email"):
        assert len({person[key] for person in people}) == len(people)
    assert all(51000 < person["uid_number"] < 60000 for person in people)
    assert [person["dcde_id"] for person in people if not person["policies"]] == ["dcde1000003"]


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("drivers", True),
        (" Drivers@PNNL.example ", True),
        ("drivers@bnl.example", False),
        ("drivers@pnnl.example@evil", False),
        ("", False),
        ("pnovak", False),
    ],
)
def test_a_login_is_accepted_with_or_without_the_own_scope(typed: str, found: bool) -> None:
    assert (INSTITUTIONS[0].account(typed) is not None) is found


# Looking a person up


def person(**changes: Any) -> dict[str, Any]:
    return {
        "dcde_id": "dcde1000001",
        "status": "active",
        "identities": ["a@x.example"],
        "groups": ["g"],
    } | changes


def write(path: Path, *people: Any) -> Path:
    path.write_text(yaml.safe_dump({"people": list(people)}))
    return path


def test_find_member(tmp_path: Path) -> None:
    path = write(
        tmp_path / "r.yaml", person(), person(dcde_id="dcde1000002", identities=["b@x.example"], status="expired")
    )
    assert find_member(path, "a@x.example") == Member("dcde1000001", ("g",))
    assert find_member(path, "b@x.example") == Member("dcde1000002", ())
    assert find_member(path, "c@x.example") is None
    assert find_member(path, "") is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read"),
        ("people: {", "no YAML"),
        ("", "no list `people`"),
        ("people: [x]", "no list `people`"),
        ("people: !!python/object/apply:os.getcwd []", "no YAML"),
        (yaml.safe_dump({"people": [person(), person(dcde_id="dcde1000002")]}), "belongs to 2 people"),
        (yaml.safe_dump({"people": [person(dcde_id="root")]}), "seven digits"),
        (yaml.safe_dump({"people": [person(dcde_id="dcde1000001\n")]}), "seven digits"),
        (yaml.safe_dump({"people": [person(groups="g")]}), "not a list of strings"),
    ],
)
def test_a_bad_registry_is_refused_with_its_reason(tmp_path: Path, content: str | None, reason: str) -> None:
    path = tmp_path / "registry.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RegistryError, match=reason) as caught:
        find_member(path, "a@x.example")
    assert str(path) in str(caught.value)


# Tickets


def test_a_ticket_opens_for_its_browser_in_its_time() -> None:
    now = 1000.0
    tickets = Tickets(60, clock=lambda: now)
    ticket = tickets.seal({"wanted": ["ä"]}, "browser")
    now = 1059.0
    assert tickets.open(ticket, "browser") == {"wanted": ["ä"]}
    now = 1061.0
    with pytest.raises(TicketError, match="too old"):
        tickets.open(ticket, "browser")


def test_every_other_ticket_is_refused() -> None:
    tickets = Tickets(60)
    ticket = tickets.seal({}, "browser")
    body, _, mark = ticket.partition(".")
    for wrong in (
        "",
        ".",
        body,
        f"{body}.",
        f"{body}.{mark[:-1]}",
        f"A{ticket}",
        "ä.b",
        f"{body}.ä",
        Tickets(60).seal({}, "browser"),
    ):
        with pytest.raises(TicketError):
            tickets.open(wrong, "browser")
    for browser in ("", "other", "browser "):
        with pytest.raises(TicketError):
            tickets.open(ticket, browser)
    with pytest.raises(TicketError):
        tickets.open(tickets.seal({}, ""), "")


# Pages and requests


def test_text_is_escaped_wherever_it_goes() -> None:
    evil = "\"><script>'&"
    for markup in (web.page(evil, web.Markup("")), web.problem(evil), web.hidden(evil, evil)):
        assert "<script>" not in markup
        assert "&quot;&gt;&lt;script&gt;&#x27;&amp;" in markup


def test_the_policy_names_the_style_and_the_script_of_the_page() -> None:
    policy = dict(web.headers(["https://a.example"], script=True))["Content-Security-Policy"]
    assert "form-action https://a.example;" in policy
    assert policy.count("'sha256-") == 2
    assert "script-src" not in dict(web.headers())["Content-Security-Policy"]
    assert "form-action 'none'" in dict(web.headers([]))["Content-Security-Policy"]


@pytest.mark.parametrize("length", ["262145", "-1", "x", "1e3"])
def test_bodies_without_a_sensible_length_are_refused(length: str) -> None:
    status, _, _ = call(web.bounded(None), CONTENT_LENGTH=length)  # type: ignore[arg-type]
    assert status.startswith("413")


def test_chunked_bodies_are_refused() -> None:
    status, _, _ = call(web.bounded(None), HTTP_TRANSFER_ENCODING="chunked")  # type: ignore[arg-type]
    assert status.startswith("413")


def test_cookies_and_forms_from_strangers_do_no_harm() -> None:
    assert web.cookie({"HTTP_COOKIE": "a=1; b=2"}, "b") == "2"
    assert web.cookie({"HTTP_COOKIE": 'a="; [=;;'}, "a") == ""
    assert web.cookie({}, "a") == ""
    form = {
        "CONTENT_TYPE": "application/x-www-form-urlencoded",
        "CONTENT_LENGTH": "7",
        "wsgi.input": io.BytesIO(b"a=%ff&b=2"),
    }
    assert web.form(form) == {"a": "\ufffd", "b": ""}
    assert web.form(form | {"CONTENT_TYPE": "text/plain"}) == {}


def test_discovery_links_only_to_the_proxy(settings: Settings) -> None:
    asked = urlencode({"entityID": settings.proxy_entity_id, "return": settings.proxy_discovery_url})
    status, headers, body = call(Discovery(settings), query=asked)
    assert status == "200 OK"
    assert body.count('href="') == body.count(f'href="{settings.proxy_discovery_url}?entityID=') == 3
    assert "Set-Cookie" not in headers
    assert call(Discovery(settings), query=asked, REQUEST_METHOD="POST")[0].startswith("405")
    assert call(Discovery(settings), path="/other")[0].startswith("404")


def test_log_lines_are_one_line_without_state_or_tokens() -> None:
    record = logging.LogRecord("x", logging.ERROR, "", 1, "id\nSTATE:\n{secret}", (), None)
    assert "secret" not in OneLine().format(record)
    token = "t" * 60
    try:
        raise ValueError(token)
    except ValueError as error:
        record = logging.LogRecord(
            "x", logging.ERROR, "", 1, "bad %s\rnext", (token,), (type(error), error, error.__traceback__)
        )
    line = OneLine().format(record)
    assert token not in line
    assert "\n" not in line
    assert "\r" not in line
    assert "ValueError in test_log_lines" in line


# Settings and preparing


def test_settings_survive_their_file(settings: Settings) -> None:
    assert Settings.from_json(settings.to_json()) == settings


def test_a_missing_environment_is_said(tmp_path: Path) -> None:
    with pytest.raises(FederationError, match="build the federation's environment"):
        prepare(tmp_path, 8765, Runtime(python=tmp_path / "python", account=None))


def test_what_the_one_shot_says_is_passed_on(tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\ncat >/dev/null\necho no such module >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(FederationError, match="no such module"):
        prepare(tmp_path, 8765, Runtime(python=broken, account=None))


def test_a_missing_account_is_said(tmp_path: Path) -> None:
    with pytest.raises(FederationError, match="dcde-nobody-here does not exist"):
        prepare(tmp_path, 8765, Runtime(account="dcde-nobody-here"))


def test_a_state_directory_that_the_account_cannot_pass_is_said(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(FederationError, match="cannot pass"):
        prepare(tmp_path, 8765, Runtime(account="nobody"))


def test_the_private_folder_is_never_a_link_or_open(tmp_path: Path) -> None:
    (tmp_path / "federation").mkdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "federation/private").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FederationError, match="must be a directory"):
        prepare(tmp_path, 8765, Runtime(python=tmp_path / "none", account=None))
    (tmp_path / "federation/private").unlink()
    (tmp_path / "federation/private").mkdir(mode=0o755)
    (tmp_path / "federation/private").chmod(0o710)
    with pytest.raises(FederationError, match="mode 0700"):
        prepare(tmp_path, 8765, Runtime(python=tmp_path / "none", account=None))


def test_facts_processes_and_routes_agree(tmp_path: Path) -> None:
    quiet = tmp_path / "python"
    quiet.write_text("#!/bin/sh\ncat >/dev/null\n")
    quiet.chmod(0o755)
    federation = prepare(tmp_path, 8766, Runtime(python=quiet, account=None))
    secret = tmp_path / "federation/client_secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert len(secret.read_text().strip()) >= 43
    facts = federation.facts()
    assert facts["authorize_url"] == "https://proxy.localhost:8766/authorize"
    assert facts["callback_url"] == "https://hub.localhost:8766/hub/oauth_callback"
    assert facts["client_secret_file"] == str(secret)
    assert federation.routes() == {f"{name}.localhost": port for name, port in LOOPBACK_PORTS.items()}
    for process in federation.processes():
        shown = " ".join([*process.argv, *process.environment.values()])
        assert secret.read_text().strip() not in shown
    registry = tmp_path / "registry.yaml"
    registry.write_text("people: []\n")
    kept = secret.read_text()
    prepare(tmp_path, 8766, Runtime(python=quiet, account=None))
    assert (registry.read_text(), secret.read_text()) == ("people: []\n", kept)
