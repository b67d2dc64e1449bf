"""Walking through the testbed's federation without a screen, and running code in a person's kernel, over the front door."""

from __future__ import annotations

import json
import socket
import ssl
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import websocket
from bs4 import BeautifulSoup

PASSWORD = "demo"
INSTITUTIONS = {"pnnl.example": "Pacific Northwest", "bnl.example": "Brookhaven", "ornl.example": "Oak Ridge"}


class _Loopback(httpx.HTTPTransport):
    """Finds every name on this machine, as a browser does with `*.localhost`, and keeps it for TLS and routing."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        request.extensions["sni_hostname"] = host
        request.url = request.url.copy_with(host="127.0.0.1")
        try:
            return super().handle_request(request)
        finally:
            request.url = request.url.copy_with(host=host)


def _loopback(context: ssl.SSLContext) -> _Loopback:
    """One connection a request: the front door picks the host once for each connection."""
    return _Loopback(verify=context, limits=httpx.Limits(max_keepalive_connections=0))


@dataclass
class FederatedBrowser:
    """One visitor with cookies.

    Args:
        port: The front door's.
        ca: The front door's certificate authority.
    """

    port: int
    ca: Path
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.context = ssl.create_default_context(cafile=str(self.ca))
        self.client = httpx.Client(transport=_loopback(self.context), follow_redirects=True, timeout=60)

    def close(self) -> None:
        self.client.close()

    def url(self, path: str) -> str:
        return f"https://hub.localhost:{self.port}{path}"

    def get(self, path: str, **kwargs: Any) -> httpx.Response:
        return self.client.get(self.url(path), **kwargs)

    def log_in(self, person: str) -> httpx.Response:
        """Return the page of the hub on which the login ends."""
        page = self.get("/hub/oauth_login", params={"next": "/hub/token"})
        for _ in range(10):
            if page.url.host == "hub.localhost":
                return page
            page = self._step(page, person)
        raise AssertionError(f"the login does not end: {page.url}\n{page.text[:2000]}")

    def _step(self, page: httpx.Response, person: str) -> httpx.Response:
        soup = BeautifulSoup(page.text, "html.parser")
        here = str(page.url)
        if page.url.host == "disco.localhost":
            institution = INSTITUTIONS[person.split("@")[1]]
            (link,) = [a for a in soup.find_all("a") if institution in a.get_text()]
            return self.client.get(urljoin(here, str(link["href"])))
        form = soup.find("form")
        assert form, f"{here}: {page.status_code}\n{page.text[:2000]}"
        values = {i["name"]: i.get("value", "") for i in form.find_all("input") if i.get("name")}
        button = form.find("button", attrs={"name": True})
        values |= {button["name"]: button.get("value", "")} if button else {}
        values |= {name: person for name in values if name == "user"} | {n: PASSWORD for n in values if n == "password"}
        return self.client.post(urljoin(here, str(form.get("action") or "")), data=values)


@dataclass
class Lab:
    """A person's running server, through the front door, with the server's own token."""

    browser: FederatedBrowser
    person: str
    token: str = field(repr=False)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"token {self.token}"}

    def api(self, path: str) -> str:
        return self.browser.url(f"/user/{self.person}/api/{path}")

    def execute(self, code: str) -> Any:
        """Run code in a fresh kernel, and return the JSON that it prints."""
        client = httpx.Client(transport=_loopback(self.browser.context), timeout=60, headers=self.headers)
        with client:
            kernel = client.post(self.api("kernels"), json={"name": "python3"}).raise_for_status().json()["id"]
            try:
                return json.loads(self._run(kernel, code))
            finally:
                client.delete(self.api(f"kernels/{kernel}"))

    def _run(self, kernel: str, code: str) -> str:
        port, session = self.browser.port, uuid.uuid4().hex
        raw = self.browser.context.wrap_socket(
            socket.create_connection(("127.0.0.1", port), 60), server_hostname="hub.localhost"
        )
        url = f"wss://hub.localhost:{port}/user/{self.person}/api/kernels/{kernel}/channels?session_id={session}"
        channel = websocket.create_connection(url, socket=raw, header=self.headers, timeout=60)
        header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "username": "", "session": session}
        content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False}
        message = {"header": header | {"version": "5.3"}, "parent_header": {}, "metadata": {}, "content": content}
        channel.send(json.dumps(message | {"channel": "shell", "buffers": []}))
        printed = ""
        while True:
            answer = json.loads(channel.recv())
            if answer["parent_header"].get("msg_id") != header["msg_id"]:
                continue
            if answer["msg_type"] == "stream" and answer["content"]["name"] == "stdout":
                printed += answer["content"]["text"]
            elif answer["msg_type"] == "error":
                raise AssertionError("\n".join(answer["content"]["traceback"]))
            elif answer["msg_type"] == "status" and answer["content"]["execution_state"] == "idle":
                channel.close()
                raw.close()
                return printed
