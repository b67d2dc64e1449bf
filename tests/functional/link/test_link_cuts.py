"""Nothing is lost and nothing is doubled, whatever happens to the network and to the processes at both ends."""

# ruff: noqa: S311
from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import signal
import time
from collections.abc import AsyncIterator

import pytest
from dcde.errors import AgentRestarted, LinkLost
from dcde.link import Link
from link_site import FAST, SiteInTest, until

MB = 1 << 20


async def parts(data: bytes, size: int = 300_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@contextlib.asynccontextmanager
async def trouble(site: SiteInTest, link: Link, kinds: str) -> AsyncIterator[list[str]]:
    """Cut the wire again and again in random ways while the body runs; yields what was done."""
    done: list[str] = []

    async def run() -> None:
        while True:
            await link.up()
            await asyncio.sleep(random.uniform(0.02, 0.3))
            kind = random.choice(kinds)
            done.append(kind)
            if kind == "c":
                site.wire.cut()
                await until(lambda: link.state.name != "up")
                site.wire.mend()
            elif kind == "r":
                site.wire.reset()
            elif kind == "k":
                site.wire.kill()
            else:
                for pid in site.agents():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(0.05)

    task = asyncio.create_task(run())
    try:
        yield done
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        site.wire.mend()


async def test_calls_and_streams_through_repeated_cuts(site: SiteInTest) -> None:
    link = await site.link()
    data = random.randbytes(50 * MB)
    (site.storage / "down").write_bytes(data)
    # Bytes take time, so that many cuts fall into the streams.
    site.wire.rate = 40 * MB

    async def down() -> str:
        digest = hashlib.sha256()
        async for part in link.read("down"):
            digest.update(part)
        return digest.hexdigest()

    async def call(number: int) -> None:
        await asyncio.sleep(random.uniform(0, 6))
        # Making a folder twice would be an error: each call must be carried out exactly once.
        await link.call("mkdir", path=f"f{number}", timeout=None)

    async with trouble(site, link, "crk") as done:
        written, read, *_ = await asyncio.gather(
            link.write("up", parts(data)), down(), *(call(number) for number in range(500))
        )
    expected = hashlib.sha256(data).hexdigest()
    assert (written["sha256"], written["size"], read) == (expected, len(data), expected)
    assert hashlib.sha256((site.storage / "up").read_bytes()).hexdigest() == expected
    assert sorted(p.name for p in site.storage.iterdir()) == sorted(["up", "down", *(f"f{n}" for n in range(500))])
    assert len(done) >= 5, done


async def test_reads_and_calls_through_a_dying_agent(site: SiteInTest) -> None:
    link = await site.link()
    data = random.randbytes(20 * MB)
    (site.storage / "down").write_bytes(data)
    site.wire.rate = 30 * MB
    got = bytearray()
    async with trouble(site, link, "ac") as done:
        async for part in link.read("down"):
            got += part
        for _ in range(200):
            assert (await link.call("stat", path="down", timeout=None))["size"] == len(data)
        await until(lambda: "a" in done)
    assert bytes(got) == data


async def test_a_silent_cut_is_noticed_in_time_and_healed(site: SiteInTest) -> None:
    link = await site.link()
    site.wire.cut()
    began = time.monotonic()
    call = asyncio.create_task(link.call("free", timeout=None))
    await until(lambda: link.state.name == "lost")
    # The times of a test are those of real life divided by 15: 12 s of silence, noticed in 15 s at most.
    assert time.monotonic() - began <= FAST.silent + 3 / 15
    assert "nothing was heard" in link.state.reason
    assert not call.done()
    site.wire.mend()
    assert (await asyncio.wait_for(call, 20))["total"] > 0
    assert link.state.name == "up"
    assert len(site.agents()) == 1


async def test_a_write_that_meets_the_agents_end_leaves_nothing(site: SiteInTest) -> None:
    link = await site.link()
    going = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield bytes(MB)
        going.set()
        while True:
            await asyncio.sleep(0.02)
            yield b"more"

    task = asyncio.create_task(link.write("half", slow()))
    await going.wait()
    os.kill(site.agents()[0], signal.SIGKILL)
    with pytest.raises(AgentRestarted) as caught:
        await task
    assert caught.value.retry
    assert not (site.storage / "half").exists()


async def test_the_agent_takes_back_a_write_that_is_given_up(site: SiteInTest) -> None:
    link = await site.link()

    async def broken() -> AsyncIterator[bytes]:
        yield bytes(MB)
        raise ValueError("the source broke")

    with pytest.raises(ValueError, match="source broke"):
        await link.write("half", broken())
    await until(lambda: not list(site.storage.iterdir()))


async def test_a_killed_agent_ends_what_cannot_be_repeated(site: SiteInTest) -> None:
    link = await site.link()
    os.mkfifo(site.storage / "never")
    pid = site.agents()[0]
    os.kill(pid, signal.SIGSTOP)  # It takes the request and never answers.
    calls = [asyncio.create_task(link.call(op, path="a", to="b", timeout=None)) for op in ("rename",)]
    looking = asyncio.create_task(link.call("list", path="", timeout=None))
    await asyncio.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    for call in calls:
        with pytest.raises(AgentRestarted):
            await call
    assert [entry["name"] for entry in (await looking)["entries"]] == ["never"]


async def test_a_new_runner_ends_the_session_of_the_old_one(site: SiteInTest) -> None:
    first = await site.link()
    await first.call("mkdir", path="kept")
    second = await site.link()
    assert (await second.call("list", path=""))["entries"][0]["name"] == "kept"
    assert len(site.agents()) == 1


async def test_no_answer_in_time_is_a_loss_worth_repeating(site: SiteInTest) -> None:
    link = await site.link()
    site.wire.cut()
    with pytest.raises(LinkLost) as caught:
        await link.call("free", timeout=0.2)
    assert caught.value.retry
    site.wire.mend()
    await link.call("free")


async def test_closing_fails_what_is_under_way(site: SiteInTest) -> None:
    link = await site.link()
    site.wire.cut()
    call = asyncio.create_task(link.call("free", timeout=None))
    await asyncio.sleep(0.05)
    await link.close()
    with pytest.raises(LinkLost):
        await call


async def test_a_slow_wire_is_not_taken_for_a_dead_one(site: SiteInTest) -> None:
    link = await site.link()
    site.wire.rate = 300_000
    data = random.randbytes(900_000)
    written = await link.write("slow", parts(data))
    assert written["sha256"] == hashlib.sha256(data).hexdigest()
    assert b"".join([part async for part in link.read("slow")]) == data
    assert site.wire.connections == 1


async def test_a_stream_nobody_reads_does_not_hold_up_calls(site: SiteInTest) -> None:
    link = await site.link()
    (site.storage / "big").write_bytes(bytes(30 * MB))
    stream = link.read("big")
    await anext(stream)
    began = time.monotonic()
    for _ in range(20):
        await link.call("free")
    assert time.monotonic() - began < 5
    await stream.aclose()
    assert len([part async for part in link.read("big", offset=30 * MB - 10)]) == 1
