"""What the keeper asks of the hub's API, with the few scopes of its role."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

import aiohttp

from dcde_hub.errors import HubUnavailable

SCOPES = ["list:users", "read:users:name", "read:users:activity", "read:servers", "start:servers", "delete:servers"]
"""The scopes of the keeper's role at the hub, and no more."""

DEADLINE = aiohttp.ClientTimeout(total=30)


class StartRefused(Exception):
    """The hub does not start the server; the message says what it answered."""


@dataclass(frozen=True)
class Server:
    """A person's server as the hub sees it."""

    ready: bool
    pending: bool
    last_activity: float


class HubApi:
    """Looks at servers, starts and stops them.

    Args:
        session: Carries the requests.
        url: The hub's API.
        token: The keeper's token.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str, token: str) -> None:
        self._session = session
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"token {token}", "Accept": "application/jupyterhub-pagination+json"}

    async def servers(self) -> dict[str, Server]:
        """Return the servers that run, start or stop now, by person.

        Raises:
            HubUnavailable: The hub does not answer.
        """
        found: dict[str, Server] = {}
        url: str | None = f"{self._url}/users?state=active"
        while url:
            page = await self._get(url)
            for user in page["items"]:
                if "" in (user.get("servers") or {}):
                    found[user["name"]] = _server(user["servers"][""])
            following = page["_pagination"]["next"]
            url = f"{self._url}/users?state=active&offset={following['offset']}" if following else None
        return found

    async def start(self, person: str) -> None:
        """Ask the hub to start a person's server; returns when the start is under way.

        Raises:
            StartRefused: The hub does not.
            HubUnavailable: The hub does not answer.
        """
        await self._change("POST", person)

    async def stop(self, person: str) -> None:
        """Ask the hub to stop a person's server; raises as `start`."""
        await self._change("DELETE", person)

    async def _get(self, url: str) -> dict[str, Any]:
        try:
            async with self._session.get(url, headers=self._headers, timeout=DEADLINE) as answer:
                if answer.status != 200:
                    raise HubUnavailable(f"The hub answered {answer.status} when asked for its servers.")
                return dict(await answer.json())
        except (aiohttp.ClientError, TimeoutError) as error:
            raise HubUnavailable("The hub does not answer.") from error

    async def _change(self, method: str, person: str) -> None:
        url = f"{self._url}/users/{person}/server"
        try:
            async with self._session.request(method, url, headers=self._headers, timeout=DEADLINE) as answer:
                if answer.status not in (201, 202, 204):
                    raise StartRefused(f"{method} server: {answer.status} {(await answer.text())[:300]}")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise HubUnavailable("The hub does not answer.") from error


def _server(model: dict[str, Any]) -> Server:
    last = model.get("last_activity") or model.get("started")
    stamp = datetime.datetime.fromisoformat(last).timestamp() if last else 0.0
    return Server(ready=bool(model.get("ready")), pending=bool(model.get("pending")), last_activity=stamp)
