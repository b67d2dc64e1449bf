"""Refusal pages as a browser gets them: what is foreign stays text."""

from __future__ import annotations

import jinja2
import pytest
from bs4 import BeautifulSoup
from dcde_hub import pages, refusals
from dcde_hub.refusals import Places, RefusedLogin, Visitor
from dcde_hub.registry import Policy

PLACES = Places("https://registry.example/enroll", "https://registry.example/me", "mailto:help@dcde.example")
VISITOR = Visitor("<img src=x onerror=alert(1)>@pnnl.example", "Lab & <b>Sons</b>")
POLICY = Policy(title="Use <i>well</i>", url="https://dcde.example/aup/2")


def render(refused: RefusedLogin) -> BeautifulSoup:
    loader = jinja2.ChoiceLoader(
        [jinja2.DictLoader({"page.html": "{% block main %}{% endblock %}"}), jinja2.FileSystemLoader(pages.TEMPLATES)]
    )
    environment = jinja2.Environment(loader=loader, autoescape=True)
    text = environment.get_template("error.html").render(
        exception=refused, base_url="/hub/", status_code=refused.status_code
    )
    return BeautifulSoup(text, "html.parser")


@pytest.mark.parametrize(
    "refused",
    [
        refusals.not_enrolled(VISITOR, PLACES),
        refusals.policies_missing(VISITOR, [POLICY], PLACES),
        refusals.not_active(VISITOR, "suspended", PLACES),
        refusals.entry_unusable(VISITOR, "because", PLACES),
        refusals.no_identity(VISITOR, PLACES),
        refusals.registry_unavailable(VISITOR, PLACES),
        refusals.login_failed("<script>alert(1)</script>", PLACES),
    ],
    ids=lambda refused: refused.refusal.code,
)
def test_foreign_text_stays_text(refused: RefusedLogin) -> None:
    page = render(refused)
    assert not page.find(["img", "script", "b", "i"])
    assert page.find("h1") and page.find(attrs={"role": "alert"}) and page.find_all("li")
    links = [str(a["href"]) for a in page.find_all("a")]
    assert links and all(link.startswith(("https://", "mailto:", "/hub/")) for link in links)


def test_the_status_says_whether_to_come_back() -> None:
    assert refusals.not_enrolled(VISITOR, PLACES).status_code == 403
    away = refusals.registry_unavailable(VISITOR, PLACES)
    assert away.status_code == 503 and away.headers == {"Retry-After": "60"}
    assert refusals.login_failed("no", PLACES).status_code == 400


def test_a_policy_url_must_be_https() -> None:
    with pytest.raises(ValueError, match="url"):
        Policy(title="x", url="javascript:alert(1)")
