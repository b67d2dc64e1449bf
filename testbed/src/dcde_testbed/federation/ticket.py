"""Tickets: what a form carries so that its answer can be believed.

A ticket holds the facts of a verified sign-in request in the page itself, authenticated with a key that lives as
long as the process, valid for some minutes, and bound to one browser through a cookie. So a form that this page did
not make, or made for another browser, or long ago, is refused, and nothing has to be remembered between page and
answer.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable
from typing import Any


class TicketError(Exception):
    """The ticket is missing, forged, of another browser, or too old."""


class Tickets:
    """Seals and opens tickets; `seconds` is how long one is good, `clock` gives the time in seconds."""

    def __init__(self, seconds: int, clock: Callable[[], float] = time.time):
        self._key = secrets.token_bytes(32)
        self._seconds = seconds
        self._clock = clock

    def seal(self, facts: dict[str, Any], browser: str) -> str:
        """Return the ticket for facts that JSON can hold."""
        body = json.dumps({"facts": facts, "until": self._clock() + self._seconds}).encode()
        return f"{base64.urlsafe_b64encode(body).decode()}.{self._mark(body, browser)}"

    def open(self, ticket: str, browser: str) -> dict[str, Any]:
        """Return the facts of a ticket sealed for the same browser; raises TicketError."""
        text, _, mark = ticket.partition(".")
        try:
            body = base64.urlsafe_b64decode(text.encode("ascii"))
        except ValueError as error:
            raise TicketError("not a ticket") from error
        if not browser or not hmac.compare_digest(mark.encode(), self._mark(body, browser).encode()):
            raise TicketError("not sealed here for this browser")
        document = json.loads(body)
        if document["until"] < self._clock():
            raise TicketError("too old")
        facts: dict[str, Any] = document["facts"]
        return facts

    def _mark(self, body: bytes, browser: str) -> str:
        binding = hashlib.sha256(browser.encode()).digest()  # of fixed length, so body and browser cannot be shifted
        return hmac.new(self._key, binding + body, hashlib.sha256).hexdigest()
