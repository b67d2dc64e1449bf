"""The runner's socket: lines of JSON in, lines of JSON out, for processes of the same person only."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dcde_models.logs import request_id, valid_request_id

from dcde.errors import DcdeError, InvalidParameter, RunnerBusy, RunnerError, UnknownName
from dcde.runner.arguments import Arguments, Watch, checked
from dcde.runner.events import Event, Events
from dcde.wire import LONGEST_REQUEST, line, peer_uid

log = logging.getLogger(__name__)

AT_ONCE = 32
"""Requests of one connection that are worked on at the same time; further ones wait in the socket."""

OFTEN = frozenset({"functions.status"})
"""Operations that clients repeat all the time; they are not worth a line in the log."""

_SEND_BUFFER = 64 * 1024


@dataclass(frozen=True)
class Operation:
    """One operation: the model of its arguments and what carries it out."""

    arguments: type[Arguments]
    handler: Callable[[Any], Awaitable[Any]]


class Service:
    """Listens on the runner's socket.

    Args:
        path: The socket; its folder must be private already.
        operations: The operations by name; `watch` comes on top of them.
        events: Where watchers subscribe.
        snapshot: Returns the events that describe how things are now, for a watcher that begins.
    """

    def __init__(
        self,
        path: Path,
        operations: Mapping[str, Operation],
        events: Events,
        snapshot: Callable[[str | None], list[Event]],
    ) -> None:
        self._path = path
        self._operations = operations
        self.events = events
        self.snapshot = snapshot
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Begin to listen. A socket that an earlier runner left is replaced: the caller holds the lock."""
        self._path.unlink(missing_ok=True)
        old = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._accept, str(self._path), limit=LONGEST_REQUEST)
        finally:
            os.umask(old)

    async def close(self) -> None:
        """Stop listening and end every connection."""
        if self._server:
            self._server.close()
        for task in tuple(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  a coroutine runs in a task
        self._connections.add(task)
        try:
            if peer_uid(writer.get_extra_info("socket")) != os.getuid():
                log.warning("a process of another user was turned away")
                return
            await _Connection(self, reader, writer).serve()
        except asyncio.CancelledError:
            # The service is closing; asyncio's own callback would report a cancelled task as an error.
            pass
        except OSError:
            log.debug("a client went away")
        except Exception:
            log.exception("a connection ended with an unforeseen error")
        finally:
            self._connections.discard(task)
            writer.close()

    async def carry_out(self, op: str, args: Any) -> Any:
        """Check the arguments of an operation, carry it out and return its result."""
        operation = self._operations.get(op)
        if operation is None:
            known = ", ".join(sorted([*self._operations, "watch"]))
            raise UnknownName(f"there is no operation {op!r}", where=op, remedy=f"There are: {known}.")
        return await operation.handler(checked(operation.arguments, args, op))

    def begin_watch(self, args: Any) -> Watch:
        """Check the arguments of `watch`; raises UnknownName when there is no such run."""
        watch = checked(Watch, args, "watch")
        self.snapshot(watch.run)
        return watch


class _Connection:
    """One client: its requests run side by side, its answers leave one after the other."""

    def __init__(self, service: Service, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._service = service
        self._reader = reader
        self._writer = writer
        self._sending = asyncio.Lock()
        self._room = asyncio.Semaphore(AT_ONCE)
        self._working: set[asyncio.Task[None]] = set()
        self._watching: set[asyncio.Task[None]] = set()
        writer.transport.set_write_buffer_limits(high=_SEND_BUFFER)

    async def serve(self) -> None:
        """Read requests until the client leaves. What it asked for is still carried out, except watching."""
        try:
            while True:
                try:
                    received = await self._reader.readline()
                except ValueError:  # the line is longer than the reader's limit
                    error = InvalidParameter(f"a request may have at most {LONGEST_REQUEST} bytes")
                    await self._send({"id": None, "error": error.to_json()})
                    return
                if not received:
                    await asyncio.gather(*self._working, return_exceptions=True)
                    return
                await self._room.acquire()
                task = asyncio.create_task(self._request(received))
                self._working.add(task)
                task.add_done_callback(self._worked)
        finally:
            for task in self._watching:
                task.cancel()

    def _worked(self, task: asyncio.Task[None]) -> None:
        self._working.discard(task)
        self._room.release()
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, OSError):
            log.error("a request ended with an unforeseen error", exc_info=error)

    async def _request(self, received: bytes) -> None:
        number: Any = None
        try:
            message = _parsed(received)
            number = message.get("id")
            request_id.set(valid_request_id(_text(message.get("request"))))
            op = message.get("op")
            if not isinstance(op, str):
                raise InvalidParameter("`op` must be the name of an operation")
            log.log(logging.DEBUG if op in OFTEN else logging.INFO, "request %s", op)
            if op == "watch":
                await self._watch(number, message.get("args", {}))
                return
            answer = {"id": number, "result": await self._service.carry_out(op, message.get("args", {}))}
        except DcdeError as error:
            log.info("refused: %s", error)
            answer = {"id": number, "error": error.to_json()}
        except Exception:
            log.exception("an operation ended with an unforeseen error")
            unforeseen = RunnerError("the runner met an unforeseen error", remedy="Its log has more, by request id.")
            answer = {"id": number, "error": unforeseen.to_json() | {"request": request_id.get()}}
        await self._send(answer)

    async def _watch(self, number: Any, args: Any) -> None:
        watch = self._service.begin_watch(args)
        task = asyncio.create_task(self._pump(number, watch))
        self._watching.add(task)
        task.add_done_callback(self._watched)

    def _watched(self, task: asyncio.Task[None]) -> None:
        self._watching.discard(task)
        if not task.cancelled():
            task.exception()

    async def _pump(self, number: Any, watch: Watch) -> None:
        events = self._service.events
        subscription = events.subscribe(watch.run)
        try:
            for event in self._service.snapshot(watch.run):
                await self._send({"id": number, "event": event})
            while batch := await subscription.next():
                for event in batch:
                    await self._send({"id": number, "event": event})
            error = RunnerBusy("you read the events too slowly", remedy="Begin to watch again.", retry=True)
            await self._send({"id": number, "error": error.to_json()})
        finally:
            events.unsubscribe(subscription)

    async def _send(self, message: dict[str, Any]) -> None:
        async with self._sending:
            with contextlib.suppress(ConnectionError):
                self._writer.write(line(message))
                await self._writer.drain()


def _parsed(received: bytes) -> dict[str, Any]:
    try:
        message = json.loads(received)
    except (ValueError, RecursionError) as error:
        raise InvalidParameter(f"the request is no JSON: {error}") from error
    if not isinstance(message, dict):
        raise InvalidParameter("the request must be an object with id, op and args")
    return message


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
