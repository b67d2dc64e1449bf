"""Speaks with the person's runner over its unix socket, one JSON text a line.

A request is `{"id", "op", "args", "request"}`; the answer `{"id", "result"}` or `{"id", "error"}`; the operation
`watch` answers with any number of `{"id", "event"}` until the connection ends. Answers are handed on as they are, so
that what the runner learns to say needs no change here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from dcde.errors import RunnerError, RunnerUnreachable, error_from_json

LARGEST_ANSWER = 48 * 1024 * 1024
"""Bytes in one line of the runner; the largest are pictures."""


def socket_path() -> Path:
    """Return where the person's runner listens."""
    # The folder may be in a public place: the owner of what listens there is checked at every connection.
    folder = os.environ.get("DCDE_RUNTIME_DIR") or f"/tmp/.dcde-{os.getuid()}"  # noqa: S108
    return Path(folder) / "runner.sock"


class Relay:
    """The way to the runner. Every call has its own connection, so that a slow one holds up no other."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or socket_path()

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Connect to the runner, and make sure that it belongs to the same person as this process.

        Raises:
            RunnerUnreachable: nobody listens there.
            RunnerError: somebody else listens there.
        """
        try:
            reader, writer = await asyncio.open_unix_connection(str(self.path), limit=LARGEST_ANSWER)
        except OSError as error:
            raise _unreachable("The runner does not answer.") from error
        try:
            self._check_peer(writer)
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _check_peer(self, writer: asyncio.StreamWriter) -> None:
        raw = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        if struct.unpack("3i", raw)[1] != os.getuid():
            raise RunnerError(
                "The runner's socket belongs to somebody else.",
                where=str(self.path),
                remedy="Ask the hub's operators to look at this machine; nothing was sent.",
            )

    async def call(self, op: str, args: Mapping[str, Any], *, request: str, timeout: float = 90.0) -> Any:
        """Carry out one operation of the runner and return its result.

        Raises:
            DcdeError: what the runner answered, as the class that it named.
            RunnerUnreachable: there is no runner, or it did not answer within `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout), self.connection() as (reader, writer):
                await _send(writer, op, args, request)
                answer = await _receive(reader)
        except TimeoutError as error:
            raise _unreachable(f"The runner did not answer within {timeout:.0f} s.") from error
        if "error" in answer:
            raise error_from_json(answer["error"])
        return answer.get("result")

    async def watch(self, *, request: str) -> AsyncGenerator[dict[str, Any]]:
        """Yield the runner's events until it goes away, which raises RunnerUnreachable."""
        async with self.connection() as (reader, writer):
            await _send(writer, "watch", {}, request)
            while True:
                answer = await _receive(reader)
                if "error" in answer:
                    raise error_from_json(answer["error"])
                if isinstance(answer.get("event"), dict):
                    yield answer["event"]

    async def until_gone(self) -> None:
        """Wait as long as there is a runner; raises RunnerUnreachable at once when there is none."""
        async with self.connection() as (reader, _writer):
            with contextlib.suppress(OSError):
                await reader.read()


async def _send(writer: asyncio.StreamWriter, op: str, args: Mapping[str, Any], request: str) -> None:
    line = json.dumps({"id": 1, "op": op, "args": dict(args), "request": request}, separators=(",", ":"))
    try:
        writer.write(line.encode() + b"\n")
        await writer.drain()
    except OSError as error:
        raise _unreachable("The runner went away.") from error


async def _receive(reader: asyncio.StreamReader) -> dict[str, Any]:
    try:
        line = await reader.readline()
        answer = json.loads(line) if line.endswith(b"\n") else None
    except OSError as error:
        raise _unreachable("The runner went away.") from error
    except ValueError as error:  # too long a line, or no JSON
        raise RunnerError("The runner answered with something that cannot be read.") from error
    if answer is None:
        raise _unreachable("The runner went away before it had answered.")
    if not isinstance(answer, dict):
        raise RunnerError("The runner answered with something that cannot be read.")
    return answer


def _unreachable(message: str) -> RunnerUnreachable:
    return RunnerUnreachable(message, remedy="It is started again by itself; try again in a few seconds.")
