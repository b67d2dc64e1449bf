"""The graph of steps on Parsl's DataFlowKernel: one kernel per runner, one task per step, nothing that a site sent.

Parsl orders the steps and hands each one over when those before it have succeeded. What a step does, and every state
that survives the process, is ours: the kernel is made anew from the ledger whenever the runner starts.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from dcde.runner.state import private_folder


class Flow:
    """The DataFlowKernel with our executor. Parsl takes a second to load, so that is done when the first run is there.

    Args:
        perform: Carries out the step of a key, in the event loop; an exception means that it did not succeed.
        lookup: Returns something when the step of a key has succeeded already, None otherwise. Called in any thread.
        folder: Where Parsl may write; what is in it is thrown away.
    """

    def __init__(
        self, perform: Callable[[str], Awaitable[Any]], lookup: Callable[[str], Any | None], folder: Path
    ) -> None:
        self._perform = perform
        self._lookup = lookup
        self._folder = folder
        self._kernel: Any = None
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """Load Parsl and start the kernel, unless that was done; the loop stays free meanwhile."""
        async with self._opening:
            if self._kernel is None:
                self._kernel = await asyncio.to_thread(self._start, asyncio.get_running_loop())

    def _start(self, loop: asyncio.AbstractEventLoop) -> Any:
        from dcde.jobs.executor import build_kernel

        # Parsl begins a new folder each time, and nothing in the old ones is needed again.
        shutil.rmtree(self._folder, ignore_errors=True)
        kernel = build_kernel(loop, self._perform, private_folder(self._folder), self._lookup)
        # Parsl reports the failure of a task as an error with a traceback; a failed step is no error of the runner.
        logging.getLogger("parsl").setLevel(logging.CRITICAL)
        return kernel

    def enlist(self, key: str, before: Sequence[Future[Any]]) -> Future[Any]:
        """Add the step of a key, to be performed when all of `before` have succeeded; the kernel must be open."""
        from dcde.jobs.executor import submit_step

        return submit_step(self._kernel, key, list(before))

    async def close(self) -> None:
        """End the kernel. Nothing at any site is touched by it."""
        if self._kernel is not None:
            await asyncio.to_thread(self._kernel.cleanup)
            self._kernel = None
