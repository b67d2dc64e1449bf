"""A runner that dies at any moment: the next one goes on from the ledger, and nothing runs or counts twice."""

import asyncio
import sqlite3

import pytest
from runner_cluster import Power

STEPS = {"first", "left", "right", "last"}


async def finished(ask, run="r1", seconds=20):
    async with asyncio.timeout(seconds):
        async for event in ask.watch(run):
            if event["type"] == "run" and event["state"] in ("succeeded", "failed", "cancelled"):
                return event
    raise AssertionError("the events ended")


async def dies(runner, ask, power):
    """Launch with a token until the runner dies at its point, or the run is through; return whether it died."""

    async def launch():
        await ask.call("runs.launch", template="letters", token="once")
        await finished(ask)

    work = asyncio.ensure_future(launch())
    death = asyncio.ensure_future(power.off.wait())
    await asyncio.wait({work, death}, return_when=asyncio.FIRST_COMPLETED)
    died = not work.done()
    for task in (work, death):
        task.cancel()
    await asyncio.gather(work, death, return_exceptions=True)
    await runner.close()
    return died


def check(laboratories, folders, died_at):
    """The invariants, from what the laboratories saw and from the ledger."""
    starts = [key for lab in laboratories.values() for key in lab.starts]
    assert len(starts) == len(set(starts)), f"a job began twice (died at {died_at})"
    live = {owner: most for lab in laboratories.values() for owner, most in lab.most_live.items()}
    assert set(live.values()) <= {1}, f"two live attempts (died at {died_at})"
    with sqlite3.connect(folders[0] / "ledger.sqlite") as db:
        rows = db.execute("SELECT step, count(*) FROM attempts WHERE state = 'succeeded' GROUP BY step").fetchall()
        attempts = db.execute("SELECT count(*) FROM attempts").fetchone()[0]
        (runs,) = db.execute("SELECT count(*) FROM runs").fetchone()
    db.close()
    assert dict(rows) == dict.fromkeys(STEPS, 1), f"died at {died_at}"
    return attempts, runs, starts


async def live_through(point, start_engine, client, laboratories, folders):
    power = Power(point)
    runner = await start_engine(power)
    died = await dies(runner, client(runner), power)
    ask = client(await start_engine(Power()))
    await ask.call("runs.launch", template="letters", token="once")
    run = await finished(ask)
    assert run["state"] == "succeeded", f"died at {point}: {run['reason']}"
    attempts, runs, starts = check(laboratories, folders, point)
    assert runs == 1
    assert attempts == 4, f"no job was lost, so that no second attempt was needed (died at {point})"
    assert len(starts) == 4
    return died


@pytest.mark.parametrize("point", range(6, 110, 4))
async def test_dying_at_a_point(point, start_engine, client, laboratories, folders):
    await live_through(point, start_engine, client, laboratories, folders)


@pytest.mark.long
@pytest.mark.parametrize("point", range(5, 170))
async def test_dying_at_every_point(point, start_engine, client, laboratories, folders):
    await live_through(point, start_engine, client, laboratories, folders)


@pytest.mark.parametrize("point", [20, 33, 46, 59, 72, 85])
async def test_dying_while_jobs_are_lost(point, start_engine, client, laboratories, folders):
    for lab in laboratories.values():
        lab.fates = {step: ["lost"] for step in STEPS}
    power = Power(point)
    runner = await start_engine(power)
    await dies(runner, client(runner), power)
    ask = client(await start_engine(Power()))
    await ask.call("runs.launch", template="letters", token="once")
    assert (await finished(ask))["state"] == "succeeded"
    attempts, _, _ = check(laboratories, folders, point)
    assert attempts == 8


async def test_dying_again_and_again(start_engine, client, laboratories, folders):
    for point in (25, 18, 31, 22, 27, 35):
        power = Power(point)
        runner = await start_engine(power)
        await dies(runner, client(runner), power)
    ask = client(await start_engine(Power()))
    await ask.call("runs.launch", template="letters", token="once")
    assert (await finished(ask))["state"] == "succeeded"
    check(laboratories, folders, "six times")
