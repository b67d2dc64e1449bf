"""What broker and keeper have in common as HTTP services: errors as JSON, a request id, and who is asking."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from aiohttp import web
from dcde_models.logs import request_id, valid_request_id
from jupyterhub.services.auth import HubAuth
from tornado.web import HTTPError

from dcde_hub.errors import Forbidden, HubError, HubUnavailable, Invalid, Unauthenticated, Unknown

log = logging.getLogger("dcde.web")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

BODY = 64 * 1024
"""The largest body of a request, in bytes."""


@dataclass(frozen=True)
class Caller:
    """Whose server is asking, and what the hub noted at the last login."""

    dcde_id: str
    institution: str = ""
    acr: str = ""


class Callers(Protocol):
    """Says who sent a request; HubTokens does."""

    async def caller(self, request: web.Request) -> Caller:
        """Return who is asking."""


@dataclass
class HubTokens:
    """Asks the hub whose token a request carries.

    Args:
        service: The name of this service at the hub; a token needs the scope `access:services!service=<name>`.
        api_url: The hub's API.
        api_token: This service's own token.
        cache_seconds: How long an answer is believed; a revoked token works that long at most.
    """

    service: str
    api_url: str
    api_token: str = field(repr=False)
    cache_seconds: int = 5

    def __post_init__(self) -> None:
        self._auth = HubAuth(api_url=self.api_url, api_token=self.api_token, cache_max_age=self.cache_seconds)

    async def caller(self, request: web.Request) -> Caller:
        """Return who is asking.

        Raises:
            Unauthenticated: No token, or one that the hub does not know.
            Forbidden: The token is not a person's, or not meant for this service.
            HubUnavailable: The hub does not answer.
        """
        match = re.fullmatch(
            r"(?:token|bearer) ([A-Za-z0-9._~-]{8,256})", request.headers.get("Authorization", ""), re.I
        )
        if not match:
            raise Unauthenticated("The request carries no token.", remedy="Send “Authorization: token …”.")
        try:
            model = await self._auth.user_for_token(match[1], sync=False)
        except HTTPError as error:
            raise HubUnavailable("The hub does not answer.", remedy="Try again in a moment.") from error
        if model is None:
            raise Unauthenticated("The hub does not know this token.", remedy="Restart your server on the hub's page.")
        if not self._auth.check_scopes({f"access:services!service={self.service}"}, model):
            raise Forbidden(f"This token is not meant for the {self.service}.", remedy="Use your server's own token.")
        if model.get("kind") != "user" or not re.fullmatch(r"dcde[0-9]{7}", str(model.get("name"))):
            raise Forbidden("This token belongs to no person.")
        info: dict[str, Any] = model.get("user_info") or {}
        return Caller(model["name"], str(info.get("institution", "")), str(info.get("acr", "")))


@web.middleware
async def one_answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give each request an id, each failure the same shape, and each answer a line in the log."""
    request_id.set(valid_request_id(request.headers.get("X-Request-ID")))
    try:
        response = await handler(request)
    except HubError as error:
        response = _error(error)
    except web.HTTPException as error:
        kind = Unknown if error.status in (404, 405) else Invalid
        response = _error(kind(error.reason), error.status)
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        response = _error(HubError("This service failed.", remedy="Give the operators the request id of this answer."))
    response.headers["X-Request-ID"] = request_id.get()
    response.headers["Cache-Control"] = "no-store"
    person = request.get("person")
    log.info("%d %s %s", response.status, request.method, request.path, extra={"person": person} if person else None)
    return response


async def json_body(request: web.Request) -> dict[str, Any]:
    """Return the request's body, a JSON object.

    Raises:
        Invalid: It is not one.
    """
    try:
        body = await request.json()
    except (ValueError, UnicodeDecodeError) as error:
        raise Invalid("The body is no JSON.") from error
    if not isinstance(body, dict):
        raise Invalid("The body is no JSON object.")
    return body


def _error(error: HubError, status: int | None = None) -> web.Response:
    headers = {"WWW-Authenticate": "token"} if error.status == 401 else None
    return web.json_response({"error": error.to_json()}, status=status or error.status, headers=headers)


async def serve(
    application: web.Application, address: str, port: int, *alongside: Callable[[], Awaitable[None]]
) -> None:
    """Serve until told to end by SIGTERM or SIGINT, with further coroutines running alongside.

    A coroutine that ends, ends the service: whoever supervises the process starts it anew.
    """
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, address, port).start()
    tasks = [asyncio.ensure_future(work()) for work in alongside]
    waiting = asyncio.ensure_future(ended.wait())
    try:
        done, _ = await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in (waiting, *tasks):
            task.cancel()
        await asyncio.gather(waiting, *tasks, return_exceptions=True)
        await runner.cleanup()
