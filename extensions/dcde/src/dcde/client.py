"""Speaks with the person's runner: `Client` in asyncio programs, `SyncClient` in notebooks and commands.

Neither starts a runner. Every call has a connection of its own, so that a slow one holds up no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import Any

from dcde_models.logs import new_request_id, request_id

from dcde import wire
from dcde.errors import RunnerError, RunnerUnreachable, error_from_json
from dcde.wire import LONGEST_ANSWER, LONGEST_REQUEST, line, peer_uid

TIME_LIMIT = 120.0
"""Seconds to wait for an answer; sites that are slow to answer are the longest."""


class Client:
    """The runner for asyncio programs.

    Args:
        socket_path: The runner's socket; by default where the person's own runner listens.
    """

    def __init__(self, socket_path: Path | str | None = None) -> None:
        self.path = Path(socket_path) if socket_path else wire.socket_path()

    async def call(self, op: str, /, *, timeout: float = TIME_LIMIT, **args: Any) -> Any:
        """Carry out one operation of the runner and return its result.

        Args:
            op: The operation, such as `runs.list`; docs/reference/runner-protocol.md has them all.
            timeout: Seconds to wait for the answer.
            args: The arguments of the operation.

        Raises:
            DcdeError: What the runner answered, as the class that it named.
            RunnerUnreachable: There is no runner, or it did not answer in time.
        """
        try:
            async with asyncio.timeout(timeout), self._connection() as (reader, writer):
                await _send(writer, op, args)
                return _result(_message(await _receive(reader)))
        except TimeoutError as error:
            raise _silent(timeout) from error

    async def watch(self, run: str | None = None) -> AsyncGenerator[dict[str, Any]]:
        """Yield the events of everything, or of one run: first how things are now, then each change.

        Raises:
            UnknownName: There is no such run.
            RunnerUnreachable: The runner went away.
        """
        async with self._connection() as (reader, writer):
            await _send(writer, "watch", {} if run is None else {"run": run})
            while True:
                yield _event(_message(await _receive(reader)))

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        try:
            reader, writer = await asyncio.open_unix_connection(str(self.path), limit=LONGEST_ANSWER)
        except OSError as error:
            raise _absent(self.path) from error
        try:
            _check_peer(writer.get_extra_info("socket"), self.path)
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


class SyncClient:
    """The runner for notebooks and commands; the same as `Client`, but each call blocks.

    Args:
        socket_path: The runner's socket; by default where the person's own runner listens.
    """

    def __init__(self, socket_path: Path | str | None = None) -> None:
        self.path = Path(socket_path) if socket_path else wire.socket_path()

    def call(self, op: str, /, *, timeout: float = TIME_LIMIT, **args: Any) -> Any:
        """Carry out one operation of the runner and return its result; see `Client.call`."""
        with self._connection(timeout) as connected:
            try:
                connected.sendall(_request(op, args))
                with connected.makefile("rb") as lines:
                    return _result(_message(lines.readline(LONGEST_ANSWER)))
            except TimeoutError as error:
                raise _silent(timeout) from error
            except OSError as error:
                raise _gone() from error

    def watch(self, run: str | None = None) -> Generator[dict[str, Any]]:
        """Yield events until the runner goes away, which raises RunnerUnreachable; see `Client.watch`."""
        with self._connection(None) as connected:
            try:
                connected.sendall(_request("watch", {} if run is None else {"run": run}))
                with connected.makefile("rb") as lines:
                    while True:
                        yield _event(_message(lines.readline(LONGEST_ANSWER)))
            except OSError as error:
                raise _gone() from error

    @contextlib.contextmanager
    def _connection(self, timeout: float | None) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connected:
            connected.settimeout(timeout)
            try:
                connected.connect(str(self.path))
            except OSError as error:
                raise _absent(self.path) from error
            _check_peer(connected, self.path)
            yield connected


def _request(op: str, args: dict[str, Any]) -> bytes:
    text = line({"id": 1, "op": op, "args": args, "request": request_id.get() or new_request_id()})
    if len(text) > LONGEST_REQUEST:
        raise RunnerError(f"the request is too long: {len(text)} bytes of at most {LONGEST_REQUEST}", where=op)
    return text


async def _send(writer: asyncio.StreamWriter, op: str, args: dict[str, Any]) -> None:
    try:
        writer.write(_request(op, args))
        await writer.drain()
    except OSError as error:
        raise _gone() from error


async def _receive(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readline()
    except OSError as error:
        raise _gone() from error
    except ValueError as error:  # the line is longer than the reader's limit
        raise RunnerError("the runner's answer is too long") from error


def _message(received: bytes) -> dict[str, Any]:
    if not received.endswith(b"\n"):
        raise _gone()
    try:
        message = json.loads(received)
    except ValueError as error:
        raise RunnerError("the runner's answer cannot be read") from error
    if not isinstance(message, dict):
        raise RunnerError("the runner's answer cannot be read")
    if "error" in message:
        raise error_from_json(message["error"])
    return message


def _result(message: dict[str, Any]) -> Any:
    return message.get("result")


def _event(message: dict[str, Any]) -> dict[str, Any]:
    event = message.get("event")
    if not isinstance(event, dict):
        raise RunnerError("the runner sent something that is no event")
    return event


def _check_peer(connected: socket.socket, path: Path) -> None:
    if peer_uid(connected) != os.getuid():
        raise RunnerError(
            "the runner's socket belongs to somebody else; nothing was sent",
            where=str(path),
            remedy="Tell the operators of the hub.",
        )


def _absent(path: Path) -> RunnerUnreachable:
    return RunnerUnreachable(
        "no runner answers",
        where=str(path),
        remedy="Your JupyterLab server starts it: open the server in the hub and try again.",
    )


def _gone() -> RunnerUnreachable:
    return RunnerUnreachable("the runner went away", remedy="It is started again by itself; try again in some seconds.")


def _silent(timeout: float) -> RunnerUnreachable:
    return RunnerUnreachable(f"the runner did not answer within {timeout:.0f} s")
