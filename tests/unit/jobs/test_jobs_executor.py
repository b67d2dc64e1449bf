"""The executor and the memoizer with a real DataFlowKernel of Parsl: order, failure, what is done already, shutdown."""

import asyncio
import subprocess
import sys
import threading

import pytest
from dcde.jobs.executor import DurableExecutor, build_kernel, submit_step
from parsl.dataflow.errors import DependencyError


class Steps:
    """Performs steps by name and notes what began; `hold` keeps a step at work until it is released."""

    def __init__(self):
        self.began = []
        self.held = {}
        self.stopped = []
        self.done = {}
        self.some_began = asyncio.Event()
        self.some_stopped = asyncio.Event()

    def hold(self, key):
        self.held[key] = asyncio.Event()

    async def perform(self, key):
        self.began.append(key)
        self.some_began.set()
        try:
            if key in self.held:
                await self.held[key].wait()
        except asyncio.CancelledError:
            self.stopped.append(key)
            self.some_stopped.set()
            raise
        if key.endswith("bad"):
            raise ValueError(f"{key} went wrong")
        return {"step": key}


@pytest.fixture
async def kernel(tmp_path):
    """A kernel over fresh `Steps`, as a pair; the kernel is closed after the test."""
    steps = Steps()
    loop = asyncio.get_running_loop()
    made = await asyncio.to_thread(build_kernel, loop, steps.perform, tmp_path / "parsl", steps.done.get)
    yield made, steps
    if not made.cleanup_called:
        await asyncio.to_thread(made.cleanup)


async def test_order_is_kept(kernel):
    dfk, steps = kernel
    steps.hold("r1/a")
    first = submit_step(dfk, "r1/a")
    second = submit_step(dfk, "r1/b", [first])
    other = submit_step(dfk, "r1/c")
    assert await asyncio.wrap_future(other) == {"step": "r1/c"}
    assert "r1/b" not in steps.began
    steps.held["r1/a"].set()
    assert await asyncio.wrap_future(second) == {"step": "r1/b"}
    assert steps.began.index("r1/a") < steps.began.index("r1/b")


async def test_failure_stops_what_depends_on_it_and_nothing_else(kernel):
    dfk, steps = kernel
    bad = submit_step(dfk, "r1/bad")
    after = submit_step(dfk, "r1/after", [bad])
    other = submit_step(dfk, "r1/other")
    with pytest.raises(ValueError, match="went wrong"):
        await asyncio.wrap_future(bad)
    with pytest.raises(DependencyError):
        await asyncio.wrap_future(after)
    assert await asyncio.wrap_future(other) == {"step": "r1/other"}
    assert sorted(steps.began) == ["r1/bad", "r1/other"]


async def test_what_is_done_is_not_done_again(kernel):
    dfk, steps = kernel
    steps.done["r1/a"] = {"step": "from the ledger"}
    first = submit_step(dfk, "r1/a")
    second = submit_step(dfk, "r1/b", [first])
    assert await asyncio.wrap_future(first) == {"step": "from the ledger"}
    assert await asyncio.wrap_future(second) == {"step": "r1/b"}
    assert steps.began == ["r1/b"]


async def test_closing_ends_the_following_only(kernel):
    dfk, steps = kernel
    steps.hold("r1/long")
    future = submit_step(dfk, "r1/long")
    await steps.some_began.wait()
    await asyncio.to_thread(dfk.cleanup)
    await steps.some_stopped.wait()
    assert steps.stopped == ["r1/long"]
    assert future.done()
    assert not [t for t in threading.enumerate() if "Task-Launch" in t.name and t.is_alive()]


async def test_what_comes_after_the_end_is_not_begun():
    steps = Steps()
    executor = DurableExecutor(steps.perform, asyncio.get_running_loop())
    executor.shutdown()
    late = await asyncio.to_thread(executor.submit, None, {"key": "r1/late"})
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wrap_future(late)
    assert steps.began == []


def test_following_jobs_needs_no_parsl():
    text = "import sys, dcde.jobs.durable; sys.exit('parsl' in sys.modules)"
    subprocess.run([sys.executable, "-c", text], check=True, env={"PYTHONPATH": ":".join(sys.path)})
