"""The front door against real sockets: routing by name, refusals, limits and long-lived connections."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from dcde_testbed import certificates, door


@pytest.mark.parametrize(
    ("head", "host"),
    [
        (b"GET / HTTP/1.1\r\nHost: hub.localhost:8765\r\n\r\n", "hub.localhost"),
        (b"GET / HTTP/1.1\r\nhost:HUB.localhost\r\n\r\n", "hub.localhost"),
        (b"GET / HTTP/1.1\r\nAccept: x\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nHost: a.localhost\r\nHost: b.localhost\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nHost: a.localhost\r\nHost : b.localhost\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nHost: hub.localhost/x\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nX-Host: hub.localhost\r\n\r\n", None),
    ],
)
def test_host_of(head: bytes, host: str | None) -> None:
    assert door.host_of(head) == host


Ask = Callable[[bytes], Awaitable[bytes]]


@pytest.fixture
async def ask(tmp_path: Path) -> AsyncIterator[Ask]:
    """Sends bytes through a door with TLS whose `hub.localhost` is an echo and `gone.localhost` nobody; returns all it got."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching\r\n\r\n" + head.split(b"\r\n")[0])
        while data := await reader.read(100):
            writer.write(b"<" + data + b">")
            if data == b"bye":
                break
        writer.close()

    service = await asyncio.start_server(echo, "127.0.0.1", 0)
    idle = await asyncio.start_server(echo, "127.0.0.1", 0)
    nobody = idle.sockets[0].getsockname()[1]
    idle.close()
    await idle.wait_closed()
    certificates.ensure(tmp_path, ["hub.localhost"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "door.crt", tmp_path / "door.key")
    serve = door.Door({"hub.localhost": service.sockets[0].getsockname()[1], "gone.localhost": nobody}).serve
    front = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context, limit=door.HEAD_LIMIT)
    trusting = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))

    async def send(data: bytes, *more: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(
            *front.sockets[0].getsockname(), ssl=trusting, server_hostname="hub.localhost"
        )
        writer.write(data)
        got = b""
        for each in more:
            got += await asyncio.wait_for(reader.read(1000), 5)
            writer.write(each)
        with contextlib.suppress(ConnectionResetError):  # the door may have said everything before we had
            got += await asyncio.wait_for(reader.read(-1), 5)
        writer.close()
        return got

    yield send
    for server in (front, service):
        server.close()
        await server.wait_closed()


async def test_bytes_pass_both_ways_after_the_first_head(ask: Ask) -> None:
    got = await ask(b"GET /ws HTTP/1.1\r\nHost: hub.localhost\r\n\r\n", b"hello", b"bye")
    assert got == b"HTTP/1.1 101 Switching\r\n\r\nGET /ws HTTP/1.1<hello><bye>"


async def test_an_unknown_name_is_misdirected(ask: Ask) -> None:
    for host in (b"evil.example", b"127.0.0.1:8765", b"localhost"):
        got = await ask(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
        assert got.startswith(b"HTTP/1.1 421 ")
        assert b"nosniff" in got


async def test_a_service_that_is_not_there_is_unavailable(ask: Ask) -> None:
    assert (await ask(b"GET / HTTP/1.1\r\nHost: gone.localhost\r\n\r\n")).startswith(b"HTTP/1.1 503 ")


async def test_a_head_without_end_is_refused(ask: Ask) -> None:
    got = await ask(b"GET / HTTP/1.1\r\nX: " + b"x" * (door.HEAD_LIMIT + 10))
    assert got.startswith(b"HTTP/1.1 431 ") or got == b""


async def test_who_says_nothing_is_shown_out(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "HEAD_SECONDS", 0.1)
    assert await ask(b"GET / HTTP/1.1\r\n") == b""
