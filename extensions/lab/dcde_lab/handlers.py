"""What the panel asks of the server: operations of the runner, its events, its pictures."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from typing import TYPE_CHECKING, Any

import tornado.web
from dcde.errors import DcdeError, InvalidParameter, SiteError, UnknownName
from dcde_models.logs import valid_request_id
from jupyter_server.auth.decorator import ws_authenticated
from jupyter_server.base.handlers import APIHandler, JupyterHandler
from jupyter_server.base.websocket import WebSocketMixin
from jupyter_server.extension.handler import ExtensionHandlerMixin
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from .answers import CHANGING, OPERATIONS, RETRY_AFTER, not_connected, status_of
from .fan import TooSlow
from .png import NotAPicture, clean_png

if TYPE_CHECKING:
    from .extension import DcdeExtension

LARGEST_REQUEST = 256 * 1024
"""Bytes of arguments; the largest are the parameters of a template."""

# Jupyter Server has no types for its handlers.
# mypy: disable-error-code="misc,no-untyped-call"


class _Handler(ExtensionHandlerMixin, APIHandler):
    """What the handlers have in common: the request id, and errors in one shape."""

    extensionapp: DcdeExtension

    async def prepare(self) -> None:  # type: ignore[override]
        """Settle the request id before anything else."""
        self.request_id = valid_request_id(self.request.headers.get("X-Request-ID"))
        self.set_header("X-Request-ID", self.request_id)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cache-Control", "no-store")
        await super().prepare()

    async def ask(self, op: str, args: dict[str, Any]) -> Any:
        """Carry out an operation of the runner."""
        if self.extensionapp.relay is None:
            raise not_connected()
        return await self.extensionapp.relay.ask(op, args, request=self.request_id)

    def refuse(self, error: DcdeError) -> None:
        """Answer with an error of the runner."""
        status = status_of(error)
        self.set_status(status)
        if status == 503:
            self.set_header("Retry-After", RETRY_AFTER)
        self.finish(json.dumps({"error": error.to_json()}))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer with an error of the server itself, in the same shape."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(error, DcdeError):
            self.refuse(error)
            return
        message = error.log_message if isinstance(error, tornado.web.HTTPError) and error.log_message else ""
        problem = DcdeError(message or f"The server answered {status_code}.", retry=False).to_json()
        self.finish(json.dumps({"error": {**problem, "code": f"Http{status_code}"}}))


class ApiHandler(_Handler):
    """POST <base>/dcde/api/<op>, with the operation's arguments as a JSON object; answers with its result."""

    @property
    def _track_activity(self) -> bool:  # type: ignore[override]
        return self.path_kwargs.get("op") in CHANGING

    @tornado.web.authenticated
    async def post(self, op: str) -> None:
        """Carry out one operation."""
        try:
            if op not in OPERATIONS:
                raise UnknownName(f"There is no operation {op!r}.")
            result = await self.ask(op, self._arguments())
        except DcdeError as error:
            self.refuse(error)
        else:
            self.finish(json.dumps(result))

    def _arguments(self) -> dict[str, Any]:
        body = self.request.body
        if len(body) > LARGEST_REQUEST:
            raise tornado.web.HTTPError(413, f"The request is larger than {LARGEST_REQUEST // 1024} KiB.")
        try:
            args = json.loads(body) if body.strip() else {}
        except ValueError as error:
            raise InvalidParameter("The arguments are not JSON.") from error
        if not isinstance(args, dict):
            raise InvalidParameter("The arguments must be a JSON object.")
        return args


class StatusHandler(_Handler):
    """GET <base>/dcde/status: whether this server belongs to a hub, and how its runner is."""

    _track_activity = False

    @tornado.web.authenticated
    async def get(self) -> None:
        """Answer with `{"connected": bool, "runner": {"state", "reason"}}`."""
        self.finish(json.dumps(self.extensionapp.status()))


class PictureHandler(_Handler):
    """GET <base>/dcde/picture?run=&step=&name=: a picture of a step, as PNG and nothing else.

    A picture of a run that has succeeded never changes and may be kept by the browser; all others are asked for
    again, which costs nothing when they are the same (ETag).
    """

    _track_activity = False

    @property
    def content_security_policy(self) -> str:
        """Nothing in the answer may be executed, even when it is opened on its own."""
        return "default-src 'none'; sandbox"

    @tornado.web.authenticated
    async def get(self) -> None:
        """Answer with the picture."""
        run, step, name = (self.get_query_argument(key) for key in ("run", "step", "name"))
        try:
            found = await self.ask("runs.picture", {"run": run, "step": step, "name": name})
            picture = await asyncio.to_thread(_decode, found)
            finished = (await self.ask("runs.show", {"run": run})).get("state") == "succeeded"
        except DcdeError as error:
            self.refuse(error)
            return
        self.set_header("Cache-Control", "private, max-age=31536000, immutable" if finished else "private, no-cache")
        self.set_header("Content-Disposition", "inline; filename=picture.png")
        self.finish(picture, set_content_type="image/png")


def _decode(found: Any) -> bytes:
    try:
        return clean_png(base64.b64decode(found["png_base64"], validate=True))
    except (NotAPicture, binascii.Error, KeyError, TypeError) as error:
        raise SiteError(
            "What the site sent is not a picture that can be shown.", remedy="See the step's log."
        ) from error


class EventsHandler(ExtensionHandlerMixin, WebSocketMixin, WebSocketHandler, JupyterHandler):
    """WebSocket <base>/dcde/events: everything the runner tells, one JSON object a message, in this direction only."""

    extensionapp: DcdeExtension
    _task: asyncio.Task[None] | None = None

    @ws_authenticated
    async def get(self) -> None:
        """Open the socket for a person who is logged in."""
        await super().get()

    def get_compression_options(self) -> dict[str, Any]:
        """Compress messages: runs repeat themselves."""
        return {}

    def open(self) -> None:
        """Begin to hand on events."""
        super().open()
        if self.extensionapp.fan is None:
            self.close(4404, "not part of a DCDE hub")
        else:
            self._task = asyncio.create_task(self._hand_on())

    async def _hand_on(self) -> None:
        assert self.extensionapp.fan is not None  # noqa: S101  checked in open()
        try:
            async for event in self.extensionapp.fan.events():
                await self.write_message(json.dumps(event))
            self.close(1001, "the server stops")
        except WebSocketClosedError:
            pass
        except TooSlow:
            self.close(4408, "too slow")

    def on_message(self, message: str | bytes) -> None:
        """Ignore what the browser says."""

    def on_close(self) -> None:
        """End the subscription."""
        if self._task is not None:
            self._task.cancel()
