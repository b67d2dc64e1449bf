"""The front door: browsers outside reach the services inside. `door CONFIGURATION.json`

The listening socket was opened outside the world and inherited, so it still accepts outside, while every new
connection starts in this process's network. It speaks TLS, reads the head of a connection's first request and picks
the service by host name; after that bytes are only copied, so that WebSockets and uploads pass. A browser never uses
one connection for two names here: each name resolves by itself and HTTP/2 is not offered. An unknown name gets 421,
which is also the answer to DNS rebinding.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dcde_testbed.jsonlog import log

HEAD_LIMIT = 32 << 10
"""Bytes that the head of a first request may have."""
HEAD_SECONDS = 20.0
IDLE_SECONDS = 3600.0
"""A connection on which nothing moves in either direction for so long is closed."""
_HOST = re.compile(rb"(?im)^host:[ \t]*([a-z0-9.-]+)(?::\d{1,5})?[ \t]*\r$")


def host_of(head: bytes) -> str | None:
    """The host name that a request's head asks for, in lower case; None when it names none or more than one."""
    found = _HOST.findall(head)
    named = len(re.findall(rb"(?im)^host[ \t]*:", head))
    return found[0].decode().lower() if len(found) == named == 1 else None


def answer(status: str, text: str) -> bytes:
    """A small answer of the door's own, after which the connection ends."""
    body = f"{text}\n".encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n"
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


class Door:
    """Routes connections by host name to ports on 127.0.0.1."""

    def __init__(self, routes: Mapping[str, int]) -> None:
        self.routes = dict(routes)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection from its first request to its end."""
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, TimeoutError, ssl.SSLError):
            pass  # the other side went away; nobody is left to be told
        finally:
            writer.close()
            with contextlib.suppress(OSError, ssl.SSLError, TimeoutError):
                await asyncio.wait_for(writer.wait_closed(), 5)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HEAD_SECONDS)
        except asyncio.LimitOverrunError:
            return await _say(
                writer, answer("431 Request Header Fields Too Large", "The head of this request is too long.")
            )
        host = host_of(head)
        port = self.routes.get(host or "")
        if port is None:
            return await _say(writer, answer("421 Misdirected Request", "No service has this name here."))
        try:
            up_reader, up_writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), 10)
        except (OSError, TimeoutError):
            log("door", "service does not answer", level="warning", host=host, port=port)
            return await _say(
                writer,
                answer("503 Service Unavailable", "The service is starting or was stopped. Try again in a moment."),
            )
        try:
            up_writer.write(head)
            await asyncio.gather(_copy(reader, up_writer), _copy(up_reader, writer))
        finally:
            up_writer.close()


async def _say(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await asyncio.wait_for(reader.read(1 << 16), IDLE_SECONDS):
            writer.write(data)
            await writer.drain()
    except (OSError, ssl.SSLError, TimeoutError):
        pass
    finally:
        # TLS knows no half-closed connection: there the end of one direction is the end of both.
        with contextlib.suppress(OSError):
            if writer.can_write_eof():
                writer.write_eof()
            else:
                writer.close()


async def run(configuration: Mapping[str, Any]) -> None:
    """Serve the inherited socket and the same port on the inner loopback, until cancelled."""
    door = Door(configuration["routes"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(configuration["certificate"], configuration["key"])
    options: dict[str, Any] = {"ssl": context, "limit": HEAD_LIMIT, "ssl_handshake_timeout": 20}
    outside = await asyncio.start_server(door.serve, sock=socket.socket(fileno=configuration["fd"]), **options)
    inside = await asyncio.start_server(door.serve, "127.0.0.1", configuration["port"], **options)
    log("door", "open", port=configuration["port"], hosts=sorted(door.routes))
    await asyncio.gather(outside.serve_forever(), inside.serve_forever())


def main(path: str) -> int:
    """Serve by the configuration in the file `path`."""
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run(json.loads(Path(path).read_text())))
    return 0
