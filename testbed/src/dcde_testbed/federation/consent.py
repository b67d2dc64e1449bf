"""The consent page: the person sees what the proxy is about to tell the hub, and agrees or not.

The claims wait in this process, under a name that only this browser's encrypted state cookie knows; nobody else's
answer, and no old one, finds them.
"""

from __future__ import annotations

# mypy: allow-subclassing-any
import hmac
import secrets
import threading
import time
from typing import Any

from satosa.exception import SATOSAAuthenticationError  # type: ignore[import-not-found,unused-ignore]
from satosa.internal import InternalData  # type: ignore[import-not-found,unused-ignore]
from satosa.micro_services.base import ResponseMicroService  # type: ignore[import-not-found,unused-ignore]
from satosa.response import Response  # type: ignore[import-not-found,unused-ignore]

from dcde_testbed.federation import saml, web
from dcde_testbed.federation.web import Markup

STATE_KEY = "consent"
WAIT_SECONDS = 600
MOST_WAITING = 1000

LABELS = (
    ("displayname", "Name"),
    ("mail", "E-mail address"),
    ("idp_name", "Institution"),
    ("edupersonprincipalname", "Identifier at your institution"),
    ("affiliation", "Affiliation"),
    ("acr", "How you signed in"),
    ("uid", "DCDE id"),
    ("ismemberof", "DCDE groups"),
)
WAYS = {saml.PASSWORD: "with a password", saml.MFA: "with a second factor"}


class ConsentPage(ResponseMicroService):
    """Stops between the institution's answer and the hub until the person has said yes.

    Configuration: `hub` and `proxy`, the origins that the form may lead to.
    """

    def __init__(self, config: dict[str, Any], **names: Any):
        super().__init__(**names)
        self._hub = config["hub"]
        self._proxy = config["proxy"]
        self._waiting: dict[str, tuple[float, dict[str, Any]]] = {}
        self._lock = threading.Lock()

    def register_endpoints(self) -> list[tuple[str, Any]]:
        """Receive the form."""
        return [("^consent$", self.decide)]

    def process(self, context: Any, data: Any) -> Any:
        """Show the page."""
        ticket = secrets.token_urlsafe(32)
        now = time.monotonic()
        with self._lock:
            fresh = {name: kept for name, kept in self._waiting.items() if kept[0] > now}
            self._waiting = dict(list(fresh.items())[-MOST_WAITING + 1 :])
            self._waiting[ticket] = (now + WAIT_SECONDS, data.to_dict())
        context.state[STATE_KEY] = ticket
        return _respond("200 OK", _page(ticket, data.attributes), (web.SELF, self._hub))

    def decide(self, context: Any) -> Any:
        """Go on with the claims, or tell the hub that the person refused."""
        expected = context.state.get(STATE_KEY, "")
        posted = str((context.request or {}).get("ticket", ""))
        headers = context.http_headers or {}
        own = context.request_method == "POST" and headers.get("HTTP_ORIGIN", self._proxy) == self._proxy
        if not own or not expected or not hmac.compare_digest(expected.encode(), posted.encode()):
            return _respond("400 Bad Request", _stale())
        context.state.pop(STATE_KEY)
        with self._lock:
            until, kept = self._waiting.pop(posted, (0.0, {}))
        if until < time.monotonic():
            return _respond("400 Bad Request", _stale())
        if context.request.get("decision") != "allow":
            raise SATOSAAuthenticationError(context.state, "You did not agree to tell the hub who you are")
        return super().process(context, InternalData.from_dict(kept))


def _respond(status: str, document: Markup, reach: tuple[str, ...] = (web.SELF,)) -> Any:
    return Response(document, status=status, headers=web.headers(reach))


def _stale() -> Markup:
    return web.page(
        "This page is no longer valid", web.problem("It was answered already or is too old. Start again at the hub.")
    )


def _page(ticket: str, claims: dict[str, Any]) -> Markup:
    rows = web.join(
        Markup(f"<dt>{web.text(label)}</dt><dd>{web.text(_shown(claims[name]))}</dd>")
        for name, label in LABELS
        if claims.get(name)
    )
    stranger = Markup("")
    if not claims.get("uid"):
        stranger = Markup(
            '<p class="note">The DCDE registry does not know you. The hub will tell you how to enroll.</p>'
        )
    return web.page(
        "Share who you are with DCDE Hub?",
        Markup(
            f"<p>The sample proxy is about to tell the hub:</p><dl>{rows}</dl>{stranger}"
            f'<form method="post" action="/consent">{web.hidden("ticket", ticket)}'
            '<div class="actions">'
            '<button class="main" id="allow" name="decision" value="allow">Share and go on</button>'
            '<button id="refuse" name="decision" value="refuse">Do not share</button></div></form>'
        ),
    )


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return WAYS.get(value, value.replace(";", ", "))
    return ", ".join(str(part) for part in value)
