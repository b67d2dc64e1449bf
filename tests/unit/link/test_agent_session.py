"""The session layer: order, no loss and no doubling over carriers that break anywhere, and bounds on what comes in."""

# ruff: noqa: S311, RUF006
from __future__ import annotations

import asyncio
import random

import pytest
from dcde.agent import protocol
from dcde.agent.channels import Channel, Channels
from dcde.agent.protocol import Frames, Messages, OpError, ProtocolError, frame, message
from dcde.agent.session import Session


async def keep_attaching(pair, limits) -> None:
    for limit in limits:
        await pair.attach(limit)


async def test_calls_and_streams_survive_carriers_cut_at_any_byte(pair) -> None:
    chance = random.Random(7)
    data = chance.randbytes(3_000_000)
    seen: list[int] = []

    async def handler(channel: Channel, op: str, args: dict) -> object:
        if op == "count":
            seen.append(args["n"])
            return args["n"]
        got = bytearray()
        while (part := await channel.receive()) is not None:
            got += part
            await channel.send(part)
        await channel.send_end()
        return len(got)

    pair.handler = handler
    carrying = asyncio.create_task(keep_attaching(pair, [chance.randrange(1, 400_000) for _ in range(60)] + [None]))

    async def call(n: int) -> int:
        return await (await pair.near.request("count", {"n": n})).result

    async def stream() -> bytes:
        channel = await pair.near.request("echo", {})
        back = bytearray()

        async def feed() -> None:
            await channel.send(data)
            await channel.send_end()

        feeding = asyncio.create_task(feed())
        while (part := await channel.receive()) is not None:
            back += part
        await feeding
        assert await channel.result == len(data)
        return bytes(back)

    back, *answers = await asyncio.wait_for(asyncio.gather(stream(), *(call(n) for n in range(500))), 30)
    assert back == data
    assert answers == list(range(500))
    assert sorted(seen) == list(range(500)), "each request arrived exactly once"
    assert pair.near.session.resent > 0
    carrying.cancel()


async def test_what_is_not_acknowledged_is_bounded(pair) -> None:
    session = pair.near.session

    async def flood() -> None:
        for _ in range(1000):
            await session.send(bytes(64 * 1024))

    task = asyncio.create_task(flood())
    await asyncio.sleep(0.05)
    assert not task.done()
    assert session.pending <= protocol.SEND_LIMIT + 64 * 1024
    task.cancel()


async def test_a_stream_without_a_reader_is_bounded(pair) -> None:
    async def handler(channel: Channel, op: str, args: dict) -> None:
        for _ in range(100):
            await channel.send(bytes(protocol.CHUNK))

    pair.handler = handler
    carrying = asyncio.create_task(pair.attach())
    channel = await pair.near.request("pour", {})
    await asyncio.sleep(0.1)
    assert pair.near.session.received < protocol.STREAM_WINDOW + 1000
    pair.near.cancel(channel)
    carrying.cancel()


async def test_a_cancelled_request_stops_the_other_end(pair) -> None:
    stopped = asyncio.Event()

    async def handler(channel: Channel, op: str, args: dict) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    pair.handler = handler
    carrying = asyncio.create_task(pair.attach())
    channel = await pair.near.request("wait", {})
    await asyncio.sleep(0.02)
    pair.near.cancel(channel)
    await asyncio.wait_for(stopped.wait(), 5)
    carrying.cancel()


async def test_errors_keep_their_fields(pair) -> None:
    async def handler(channel: Channel, op: str, args: dict) -> None:
        raise OpError("DiskFull", "full", where="a/b", remedy="make room", retry=True)

    pair.handler = handler
    carrying = asyncio.create_task(pair.attach())
    with pytest.raises(OpError) as caught:
        await (await pair.near.request("x", {})).result
    assert caught.value.to_json() == {
        "code": "DiskFull", "message": "full", "where": "a/b", "remedy": "make room", "retry": True,
    }  # fmt: skip
    carrying.cancel()


async def test_a_fault_of_the_far_end_is_answered(pair) -> None:
    async def handler(channel: Channel, op: str, args: dict) -> None:
        raise TypeError("a fault")

    pair.handler = handler
    carrying = asyncio.create_task(pair.attach())
    with pytest.raises(OpError, match="a fault") as caught:
        await (await pair.near.request("x", {})).result
    assert caught.value.code == "AgentError"
    carrying.cancel()


async def test_the_near_end_answers_no_requests(pair) -> None:
    carrying = asyncio.create_task(pair.attach())
    with pytest.raises(OpError, match="answers no such request"):
        await (await pair.far.request("connect", {"port": 22})).result
    carrying.cancel()


async def run_against(bytes_in: bytes) -> None:
    """Let a session read what a hostile end sends."""
    reader = asyncio.StreamReader()
    reader.feed_data(bytes_in)
    reader.feed_eof()

    class Sink:
        def write(self, data: bytes) -> None: ...
        async def drain(self) -> None: ...
        def close(self) -> None: ...

    channels = Channels("s")
    await channels.session.run(Frames(reader), Sink(), peer_received=0, beat_s=5, silent_s=20)


def data_frame(content: bytes, offset: int = 0, ack: int = 0) -> bytes:
    return frame(protocol.DATA_FRAME, protocol.DATA.pack(offset, ack) + content)


@pytest.mark.parametrize(
    "hostile",
    [
        protocol.FRAME.pack(protocol.DATA_FRAME, 0xFFFFFFFF),
        frame(protocol.DATA_FRAME, b"short"),
        data_frame(b"x", offset=5),
        data_frame(b"", ack=99),
        frame(protocol.ACK, protocol.OFFSET.pack(1)),
        frame(protocol.ACK, b"1"),
        frame(ord("?"), b""),
        data_frame(protocol.MESSAGE.pack(protocol.RESULT, 1, 0x7FFFFFFF)),
        data_frame(protocol.MESSAGE.pack(protocol.BYTES, 1, protocol.CHUNK + 1)),
        data_frame(message(protocol.REQUEST, 1, b"[" * 100_000)),
        data_frame(message(protocol.REQUEST, 1, b"[1]")),
        data_frame(message(protocol.REQUEST, 1, b"\xff")),
    ],
)
async def test_what_breaks_the_protocol_ends_the_carrier(hostile: bytes) -> None:
    with pytest.raises(ProtocolError):
        await run_against(hostile)


async def test_messages_for_channels_that_are_not_open_are_dropped() -> None:
    await run_against(data_frame(message(protocol.RESULT, 77, b"1") + message(protocol.BYTES, 78, b"x")))


async def test_more_data_than_credit_is_refused(pair) -> None:
    channel = await pair.near.request("x", {})
    for _ in range(protocol.STREAM_WINDOW // protocol.CHUNK):
        channel.take(protocol.BYTES, bytes(protocol.CHUNK))
    with pytest.raises(ProtocolError, match="credit"):
        channel.take(protocol.BYTES, b"x")


async def test_a_peer_that_unreceives_is_refused() -> None:
    session = Session("s", lambda data: None)
    session._acked = 100
    with pytest.raises(ProtocolError, match="again"):
        session._rewind(50)


def test_messages_come_out_whole_however_they_are_cut() -> None:
    stream = b"".join(message(protocol.RESULT, n, bytes(n)) for n in range(50))
    for size in (1, 3, 7, len(stream)):
        cutter = Messages()
        found = [m for start in range(0, len(stream), size) for m in cutter.feed(stream[start : start + size])]
        assert [(channel, len(content)) for _, channel, content in found] == [(n, n) for n in range(50)]


def test_names_that_are_no_utf8_survive_json() -> None:
    name = b"bad\xff\nname<img onerror=x>".decode("utf-8", "surrogateescape")
    assert protocol.load(protocol.dump({"name": name})) == {"name": name}
