"""Why a person is not let in, as a page can show it: what is missing, what to do, and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tornado import web

from dcde_hub.registry import Policy


@dataclass(frozen=True)
class Places:
    """Where people are sent; set by the operators of a hub.

    Args:
        enrollment: The URL of the page on which people ask for membership.
        profile: The URL of the page of the registry on which members accept policies.
        help: The URL or `mailto:` address of the operators.
    """

    enrollment: str = ""
    profile: str = ""
    help: str = ""


@dataclass(frozen=True)
class Step:
    """One thing to do; `url` leads there."""

    text: str
    url: str = ""


@dataclass(frozen=True)
class Refusal:
    """What the refusal page shows. It names nobody but the person who is looking at it."""

    code: str
    title: str
    reason: str
    steps: tuple[Step, ...]
    identity: str = ""
    institution: str = ""


@dataclass(frozen=True)
class Visitor:
    """Who the institution says is at the door."""

    identity: str
    institution: str

    @classmethod
    def from_claims(cls, claims: dict[str, Any]) -> Visitor:
        """Return the visitor described by the claims of CILogon; what is absent there is empty here."""
        return cls(
            identity=_text(claims.get("eppn")), institution=_text(claims.get("idp_name")) or _text(claims["idp"])
        )


class RefusedLogin(web.HTTPError):
    """The person is not let in. JupyterHub shows it with the template of its status, 403.html or 503.html.

    Args:
        refusal: What the page shows.
        status: The HTTP status.
        headers: Headers of the answer.
    """

    def __init__(self, refusal: Refusal, status: int = 403, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, "%s: %s", refusal.code, refusal.identity)
        self.refusal = refusal
        self.headers = headers or {}
        self.jupyterhub_message = " ".join([refusal.reason, *(step.text for step in refusal.steps)])


def not_enrolled(visitor: Visitor, places: Places) -> RefusedLogin:
    """Refuse a person whom the registry does not know."""
    steps = (
        Step("Ask for membership of DCDE with this identity.", places.enrollment),
        Step("If you are a member through another institution, log out there and log in with that one.", ""),
        _help(places),
    )
    return _refuse(
        "not-enrolled",
        "You are not a member yet",
        "Your login worked, but this identity is not enrolled in the DCDE registry.",
        steps,
        visitor,
    )


def policies_missing(visitor: Visitor, missing: list[Policy], places: Places) -> RefusedLogin:
    """Refuse a member who has not accepted what everybody must accept."""
    steps = (
        *(Step(f"Read “{policy.title}”.", policy.url) for policy in missing),
        Step("Accept it on your page in the registry.", places.profile),
        Step("Then come back and log in again."),
        _help(places),
    )
    titles = " and ".join(f"“{policy.title}”" for policy in missing)
    return _refuse(
        "policy-missing",
        "A policy waits for you",
        f"You are a member, but you have not accepted {titles}.",
        steps,
        visitor,
    )


def not_active(visitor: Visitor, status: str, places: Places) -> RefusedLogin:
    """Refuse a member whose membership is suspended or has expired."""
    steps = (
        Step("Ask the operators why, and how to have it renewed.", places.help),
        Step("Your files and results at the sites stay where they are."),
    )
    return _refuse(
        f"membership-{status}",
        f"Your membership is {status}",
        f"The DCDE registry says that your membership is {status}.",
        steps,
        visitor,
    )


def entry_unusable(visitor: Visitor, reason: str, places: Places) -> RefusedLogin:
    """Refuse a person whose entry in the registry an operator must correct first."""
    steps = (Step("Send the operators this page's text; nothing you can do yourself will help.", places.help),)
    return _refuse("entry-unusable", "Your registry entry needs a correction", reason, steps, visitor)


def login_failed(reason: str, places: Places) -> RefusedLogin:
    """Tell a person that the institution or the proxy ended the login (status 400).

    Args:
        reason: What the proxy said about it; shown as text.
        places: Where people are sent.
    """
    steps = (
        Step("Go back to the login page and try again; look that you choose your own institution."),
        Step("If your institution itself refuses you, ask its help desk."),
        _help(places),
    )
    refusal = Refusal(
        "login-failed", "The login was not completed", f"Your institution answered: {_text(reason)}", steps
    )
    return RefusedLogin(refusal, status=400)


def no_identity(visitor: Visitor, places: Places) -> RefusedLogin:
    """Refuse a login in which the institution did not say who the person is."""
    steps = (
        Step(
            "Ask your institution to release eduPersonPrincipalName (the Research & Scholarship attributes) to CILogon."
        ),
        _help(places),
    )
    return _refuse(
        "no-identity",
        "Your institution did not say who you are",
        "The login carried no name of yours (eduPersonPrincipalName).",
        steps,
        visitor,
    )


def registry_unavailable(visitor: Visitor, places: Places) -> RefusedLogin:
    """Refuse everybody while the registry gives no answer (status 503)."""
    steps = (Step("Try again in some minutes."), _help(places))
    refused = _refuse(
        "registry-unavailable",
        "The registry does not answer",
        "Nobody can log in while the DCDE registry gives no answer.",
        steps,
        visitor,
    )
    return RefusedLogin(refused.refusal, status=503, headers={"Retry-After": "60"})


def _help(places: Places) -> Step:
    return Step("If this seems wrong, write to the operators.", places.help)


def _refuse(code: str, title: str, reason: str, steps: tuple[Step, ...], visitor: Visitor) -> RefusedLogin:
    return RefusedLogin(Refusal(code, title, reason, steps, visitor.identity, visitor.institution))


def _text(value: object) -> str:
    return value[:254] if isinstance(value, str) else ""
