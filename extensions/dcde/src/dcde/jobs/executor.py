"""Parsl's DataFlowKernel over durable steps: it keeps the order of steps, and nothing else.

Each durable step is one task of the kernel. What a step does, its attempts included, is a coroutine of the runner's
event loop; what is finished stands in the ledger and not in Parsl's own memory. Parsl takes its time to load: import
this module when a kernel is first wanted.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from parsl.config import Config
from parsl.dataflow.dflow import DataFlowKernel
from parsl.dataflow.memoization import Memoizer
from parsl.dataflow.taskrecord import TaskRecord
from parsl.executors.base import ParslExecutor

LABEL = "durable"
Perform = Callable[[str], Awaitable[Any]]
"""The whole life of a step: it is given the step's key and returns the step's result, or raises."""

Lookup = Callable[[str], Any | None]
"""Returns the result of a step that has succeeded already, else None. It is called in threads of Parsl."""


class DurableExecutor(ParslExecutor):
    """Runs each task as `perform(key)` in an event loop; the key comes with the task's resource specification."""

    def __init__(self, perform: Perform, loop: asyncio.AbstractEventLoop, *, label: str = LABEL) -> None:
        super().__init__()
        self.label = label
        self._perform = perform
        self._loop = loop
        self._futures: set[Future[Any]] = set()
        self._lock = threading.Lock()
        self._closed = False

    def submit(
        self,
        func: Callable[..., Any],
        resource_specification: dict[str, Any],
        *args: Any,
        **kwargs: Any,
    ) -> Future[Any]:
        """Start the step of `resource_specification["key"]`; its arguments carry only the order."""
        key = resource_specification["key"]
        future: Future[Any] = Future()
        with self._lock:  # a shutdown sees each step that has begun
            if self._closed:
                future.cancel()
            else:
                future = asyncio.run_coroutine_threadsafe(_awaited(self._perform, key), self._loop)
                self._futures.add(future)
        future.parsl_executor_task_id = key  # type: ignore[attr-defined]  # Parsl writes it to its log
        future.add_done_callback(self._forget)
        return future

    def shutdown(self) -> None:
        """End the following of steps in this process. Jobs at the sites go on, and a later process adopts them."""
        with self._lock:
            self._closed = True
            futures = list(self._futures)
        for future in futures:
            future.cancel()
        super().shutdown()

    def monitor_resources(self) -> bool:
        """Tell Parsl that there is no process here whose use of resources it could watch."""
        return False

    def _forget(self, future: Future[Any]) -> None:
        with self._lock:
            self._futures.discard(future)


class StepMemoizer(Memoizer):
    """Knows from the ledger which steps have succeeded, so that they are not started again."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup

    def check_memo(self, task: TaskRecord) -> Future[Any] | None:
        """Return the result of a step that has succeeded, as a finished future."""
        found = self._lookup(task["resource_specification"]["key"])
        if found is None:
            return None
        future: Future[Any] = Future()
        future.set_result(found)
        return future

    def start(self, *, run_dir: str, config_run_dir: str) -> None:
        """Do nothing: the ledger is there already."""

    def update_memo_result(self, task: TaskRecord, r: Any) -> None:
        """Do nothing: whoever performs a step enters its result in the ledger."""

    def update_memo_exception(self, task: TaskRecord, e: BaseException) -> None:
        """Do nothing: a failed step is performed again when somebody asks for it."""

    def close(self) -> None:
        """Do nothing: the ledger stays open."""


async def _awaited(perform: Perform, key: str) -> Any:
    return await perform(key)


def build_kernel(
    loop: asyncio.AbstractEventLoop, perform: Perform, run_dir: Path, lookup: Lookup = lambda key: None
) -> DataFlowKernel:
    """Return a kernel that performs steps in the loop; it takes a moment, so call it outside the loop's thread.

    Args:
        loop: The running event loop in which `perform` is awaited.
        perform: The whole life of a step.
        run_dir: A folder for Parsl's own files (none of which is needed again).
        lookup: Gives the result of a step that has succeeded already.
    """
    run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Parsl tells everything at level DEBUG and INFO; what matters is in our own log.
    logging.getLogger("parsl").setLevel(logging.WARNING)
    config = Config(
        executors=[DurableExecutor(perform, loop)],
        memoizer=StepMemoizer(lookup),
        run_dir=str(run_dir),
        strategy="none",
        retries=0,
        usage_tracking=0,
        initialize_logging=False,
    )
    return DataFlowKernel(config)


def submit_step(kernel: DataFlowKernel, key: str, after: Sequence[Future[Any]] = ()) -> Future[Any]:
    """Enter a step into the kernel; it is performed when all of `after` have succeeded, and fails when one fails.

    It does not block; call it from one thread at a time. `after` are futures that this function returned.
    """
    future: Future[Any] = kernel.submit(
        _step,
        app_args=tuple(after),
        executors=[LABEL],
        cache=True,
        ignore_for_cache=(),
        app_kwargs={"parsl_resource_specification": {"key": key}},
    )
    return future


def _step(*after: Any) -> None:
    """Stand for a step in Parsl's books; it is never called."""
