"""Threads for what blocks, so that the agent's loop never does.

There are two sets: short looks at the file system are not to wait behind long reading and writing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class Work:
    """The agent's threads."""

    def __init__(self) -> None:
        self._quick = ThreadPoolExecutor(8, "quick")
        self._bulk = ThreadPoolExecutor(4, "bulk")

    async def quick(self, function: Callable[..., T], *args: Any) -> T:
        """Run a short call in a thread."""
        return await _run(self._quick, function, *args)

    async def bulk(self, function: Callable[..., T], *args: Any) -> T:
        """Run a call that moves data, or may take long, in a thread."""
        return await _run(self._bulk, function, *args)

    def close(self) -> None:
        """Let the threads end; calls that hang in the file system are not waited for."""
        self._quick.shutdown(wait=False)
        self._bulk.shutdown(wait=False)


async def _run(pool: ThreadPoolExecutor, function: Callable[..., T], *args: Any) -> T:
    """Run a call in a thread. A task that is cancelled waits for it, so that no file is closed under its hands."""
    future = asyncio.get_running_loop().run_in_executor(pool, lambda: function(*args))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise
