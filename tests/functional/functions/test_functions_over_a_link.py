"""Interactive functions over a real ssh connection and a real agent: results, cuts, deaths, ends and refusals."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import wait
from pathlib import Path

import pytest
from dcde.errors import DcdeError, FunctionLost, InvalidParameter, SchedulerError, VersionsDiffer
from dcde.functions.pool import Pool, PoolTimes
from dcde.runner.functions import FunctionTimes
from functions_bench import Bench, until

FACTOR = 3


def make_functions():
    """Return functions as a notebook has them: of `__main__`, so that they go to the site by value."""
    space: dict = {"__name__": "__main__"}
    text = """
import json
FACTOR = 3
def helper(x): return FACTOR * x
def tripled(x): return helper(x), json.dumps(x)
def slow(x):
    import time
    time.sleep(0.3)
    return x * x
def echo(x): return x
def divide(x):
    def inner(y): return 1 / y
    return inner(x)
def dies():
    import os
    os._exit(3)
"""
    exec(text, space)  # noqa: S102  the test's own text
    return space


F = make_functions()


def call(pool: Pool, name: str, *args):
    return pool.call(F[name], args, {})


def test_calls_are_right_and_a_kernel_that_ends_leaves_nothing(bench: Bench) -> None:
    bench.start()
    pool = bench.pool()
    futures = [call(pool, "tripled", x) for x in range(200)]
    assert [f.result(60) for f in futures] == [(3 * x, str(x)) for x in range(200)]
    first = call(pool, "echo", 20)
    assert call(pool, "divide", first).result(30) == 1 / 20, "a future may be an argument"
    block = os.urandom(5_000_000)
    assert call(pool, "echo", block).result(60) == block
    (interchange,) = bench.interchanges()
    environment = Path(f"/proc/{interchange}/environ").read_bytes()
    assert b"TOKEN" not in environment
    keys = list(bench.site.records.glob("functions/*/certificates/*.key_secret"))
    assert keys and all(key.stat().st_mode & 0o777 == 0o600 for key in keys)
    assert all(key.parent.stat().st_mode & 0o777 == 0o700 for key in keys)
    pool.close()
    assert until(lambda: not bench.interchanges() and not bench.jobs())
    assert until(lambda: not list(bench.site.records.glob("functions/*"))), "no certificate stays"


def test_what_goes_wrong_in_a_function_is_told(bench: Bench) -> None:
    bench.start()
    pool = bench.pool()
    error = call(pool, "divide", 0).exception(60)
    assert type(error) is ZeroDivisionError
    names = []
    trace = error.__traceback__
    while trace:
        names.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert names[-2:] == ["divide", "inner"], "the traceback is the one from the site"
    assert any("Test site" in note for note in error.__notes__)
    lost = call(pool, "dies").exception(60)
    assert isinstance(lost, FunctionLost)
    assert lost.retry
    after = call(pool, "divide", call(pool, "divide", 0))
    assert type(after.exception(60)) is ZeroDivisionError, "what a call waits for fails, so it does"
    with pytest.raises(InvalidParameter, match="cannot be packed"):
        call(pool, "echo", (x for x in ()))
    assert call(pool, "divide", 2).result(30) == 0.5


def test_cuts_and_resets_lose_nothing(bench: Bench) -> None:
    bench.start(FunctionTimes(lease=60, heartbeat=8))
    pool = bench.pool()
    assert call(pool, "echo", 0).result(60) == 0
    data = bytes(20_000)
    futures = []
    for step in ("cut", "mend", "reset", "kill", "none"):
        if step != "none":
            getattr(bench.site.wire, step)()
        for _ in range(40):
            futures.append(call(pool, "echo", (len(futures), data)))
            time.sleep(0.05)
    _, left = wait(futures, 60)
    assert not left
    assert [f.result() for f in futures] == [(n, data) for n in range(200)]
    assert bench.link.state.name == "up"


@pytest.mark.long
@pytest.mark.parametrize("what", ["interchange", "agent", "workers"])
def test_what_dies_is_replaced_and_its_calls_are_run_again(bench: Bench, what: str) -> None:
    bench.start()
    pool = bench.pool()
    assert call(pool, "slow", 2).result(60) == 4
    futures = [call(pool, "slow", x) for x in range(12)]
    futures[0].result(30)
    if what == "interchange":
        (pid,) = bench.interchanges()
        os.kill(pid, signal.SIGKILL)
    elif what == "agent":
        (pid,) = bench.site.agents()
        os.kill(pid, signal.SIGKILL)
    else:
        (job,) = bench.jobs()
        bench.kill_job(job)
    assert [f.result(60) for f in futures] == [x * x for x in range(12)]
    assert len(bench.interchanges()) == 1, "one that lost its agent is dead too"


@pytest.mark.long
def test_what_is_lost_twice_is_an_error_that_can_be_tried_again(bench: Bench) -> None:
    bench.start()
    pool = bench.pool()
    assert call(pool, "echo", 2).result(60) == 2
    future = pool.call(time.sleep, (60,), {})
    dead: list[int] = []
    while len(dead) < 2:
        assert until(lambda: bool(set(bench.interchanges()) - set(dead)))
        (pid,) = set(bench.interchanges()) - set(dead)
        assert until(lambda: pool._calls and next(iter(pool._calls.values())).tries == len(dead) + 1)
        os.kill(pid, signal.SIGKILL)
        dead.append(pid)
    error = future.exception(30)
    assert isinstance(error, FunctionLost)
    assert error.retry
    assert call(pool, "echo", 5).result(60) == 5, "the pool itself goes on"


def test_a_site_without_parsl_is_refused_with_what_is_needed(bench: Bench) -> None:
    bench.start(interpreter="/usr/bin/python3")
    pool = bench.pool()
    error = call(pool, "echo", 1).exception(60)
    assert isinstance(error, VersionsDiffer)
    assert "no parsl" in str(error)
    assert not bench.interchanges()


def test_a_scheduler_that_refuses_is_told_and_is_no_end(bench: Bench) -> None:
    bench.start()
    (bench.queue / "no").touch()
    pool = bench.pool()
    error = call(pool, "echo", 1).exception(60)
    assert isinstance(error, SchedulerError)
    assert "invalid partition" in str(error)
    (bench.queue / "no").unlink()
    assert call(pool, "echo", 2).result(60) == 2


@pytest.mark.long
def test_idle_workers_are_released_and_come_back(bench: Bench) -> None:
    bench.start()
    pool = bench.pool(PoolTimes(look=0.1, idle=1, rest=600, pause=0.2))
    assert call(pool, "echo", 1).result(60) == 1
    assert until(lambda: not bench.jobs())
    assert bench.interchanges()
    assert call(pool, "echo", 2).result(60) == 2


@pytest.mark.long
def test_nobody_attached_ends_the_interchange_after_the_lease(bench: Bench) -> None:
    bench.start(FunctionTimes(lease=2, heartbeat=8))
    pool = bench.pool()
    assert call(pool, "echo", 1).result(60) == 1
    bench.site.wire.cut()
    assert until(lambda: not bench.interchanges())
    bench.site.wire.mend()
    assert call(pool, "echo", 2).result(60) == 2


@pytest.mark.long
def test_a_kernel_that_does_not_ask_any_more_loses_its_executor(bench: Bench) -> None:
    bench.start(FunctionTimes(lease=60, heartbeat=8, kernel=1.0))
    pool = bench.pool(PoolTimes(look=0.1))
    assert call(pool, "echo", 1).result(60) == 1
    (pid,) = bench.interchanges()
    pool._client.path = Path("/nowhere")
    assert until(lambda: pid not in bench.interchanges())
    pool._client.path = bench.folder / "runner.sock"


def test_only_the_own_user_and_only_the_own_ports_are_carried(bench: Bench) -> None:
    bench.start()
    pool = bench.pool()
    assert call(pool, "echo", 1).result(60) == 1
    (executor,) = bench.desk._executors.values()
    with pytest.raises(DcdeError, match="no such executor"):
        bench.do(_stream(bench, executor.id, 3))
    with pytest.raises(DcdeError, match="no such executor"):
        bench.do(_stream(bench, "another", 0))


async def _stream(bench: Bench, key: str, port: int) -> None:
    async with bench.link.stream("functions.stream", key=key, port=port) as channel:
        await channel.news()
