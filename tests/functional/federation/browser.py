"""A browser without a screen: cookies, redirects and forms, for walking through a federated login."""

from __future__ import annotations

import base64
import hashlib
import secrets
import socket
import ssl
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from dcde_testbed.federation import Federation
from dcde_testbed.federation.people import SAMPLE_PASSWORD


class Loopback(AbstractResolver):
    """Finds every name on this machine, as a browser does with `*.localhost`."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=socket.AI_NUMERICHOST
            )
        ]

    async def close(self) -> None:
        return None


@dataclass
class Form:
    method: str
    action: str
    fields: dict[str, str] = field(default_factory=dict)


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.links: dict[str, str] = {}
        self._link = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append(Form(values.get("method", "get"), values.get("action", "")))
        elif tag == "input" and self.forms:
            self.forms[-1].fields[values["name"]] = values.get("value", "")
        elif tag == "a":
            self._link = values["href"]

    def handle_endtag(self, tag: str) -> None:
        if tag == "a":
            self._link = ""

    def handle_data(self, data: str) -> None:
        if self._link:
            self.links[data] = self._link


@dataclass
class Page:
    """Where a walk has arrived: a page, or the hub's callback (then `callback` holds its query)."""

    url: str
    status: int
    text: str
    headers: dict[str, str]
    callback: dict[str, str] | None = None

    @property
    def form(self) -> Form:
        page = _Page()
        page.feed(self.text)
        (form,) = page.forms
        return form

    @property
    def links(self) -> dict[str, str]:
        page = _Page()
        page.feed(self.text)
        return page.links


class Browser:
    """One person's browser; `facts` are what the hub would be configured with."""

    def __init__(self, federation: Federation, authority: Path):
        self.facts: dict[str, Any] = federation.facts()
        self.settings = federation.settings
        self.secret = federation.client_secret_file.read_text().strip()
        self._authority = authority
        self.verifier = secrets.token_urlsafe(48)
        self.state = secrets.token_urlsafe(16)

    async def __aenter__(self) -> Self:
        context = ssl.create_default_context(cafile=str(self._authority))
        connector = aiohttp.TCPConnector(ssl=context, resolver=Loopback())
        self._session = aiohttp.ClientSession(connector=connector, trust_env=False)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def open(
        self, url: str, *, data: dict[str, str] | None = None, headers: dict[str, str] | None = None, method: str = ""
    ) -> Page:
        """Ask for an address and follow redirects up to a page or to the hub's callback, which is not there to answer."""
        method = method or ("GET" if data is None else "POST")
        for _ in range(10):
            async with self._session.request(method, url, data=data, headers=headers, allow_redirects=False) as answer:
                text = await answer.text()
                page = Page(url, answer.status, text, dict(answer.headers))
                if answer.status not in (302, 303):
                    return page
                url = urljoin(url, answer.headers["Location"])
            if url.partition("?")[0] == self.facts["callback_url"]:
                query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
                return Page(url, page.status, "", page.headers, query)
            method, data = "GET", None
        raise AssertionError(f"too many redirects, last to {url}")

    async def submit(self, page: Page, **values: str) -> Page:
        """Fill a page's form and send it, with the Origin that a browser would give."""
        form = page.form
        target = urljoin(page.url, form.action)
        origin = "{0.scheme}://{0.netloc}".format(urlsplit(page.url))
        return await self.open(target, data=form.fields | values, headers={"Origin": origin})

    def authorize_url(self, **changes: str) -> str:
        """Return the address at which the hub would send a browser to begin."""
        digest = hashlib.sha256(self.verifier.encode()).digest()
        asked = {
            "response_type": "code",
            "client_id": self.facts["client_id"],
            "redirect_uri": self.facts["callback_url"],
            "scope": "openid email profile org.cilogon.userinfo",
            "state": self.state,
            "code_challenge": base64.urlsafe_b64encode(digest).decode().rstrip("="),
            "code_challenge_method": "S256",
            "selected_idp": ",".join(one["entity_id"] for one in self.facts["institutions"]),
        } | changes
        return f"{self.facts['authorize_url']}?{urlencode(asked)}"

    async def to_sign_in(self, institution: str, **changes: str) -> Page:
        """Walk from the hub over discovery to the sign-in page of an institution (by the beginning of its name)."""
        discovery = await self.open(self.authorize_url(**changes))
        assert discovery.status == 200, discovery.text
        (link,) = (link for name, link in discovery.links.items() if name.startswith(institution))
        return await self.open(link)

    async def sign_in(
        self, page: Page, user: str, password: str = SAMPLE_PASSWORD, code: str = "", action: str = "sign-in"
    ) -> Page:
        """Fill the sign-in form; a page that posts a SAML answer by itself is followed, as its script would."""
        shown = await self.submit(page, user=user, password=password, code=code, action=action)
        return await self.submit(shown) if "SAMLResponse" in shown.text else shown

    async def claims(self, consent: Page) -> tuple[dict[str, Any], dict[str, Any]]:
        """Agree, exchange the code as the hub does, and return the token answer and the userinfo."""
        back = await self.submit(consent, decision="allow")
        assert back.callback is not None, back.text
        assert back.callback["state"] == self.state
        status, tokens = await self.exchange(back.callback["code"])
        assert status == 200, tokens
        async with self._session.get(
            self.facts["userinfo_url"], headers={"Authorization": f"Bearer {tokens['access_token']}"}
        ) as answer:
            assert answer.status == 200
            return tokens, await answer.json()

    async def exchange(self, code: str, /, **changes: str) -> tuple[int, dict[str, Any]]:
        """Exchange a code at the token endpoint."""
        body = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.facts["callback_url"],
            "client_id": self.facts["client_id"],
            "client_secret": self.secret,
            "code_verifier": self.verifier,
        } | changes
        async with self._session.post(self.facts["token_url"], data=body) as answer:
            return answer.status, await answer.json()
