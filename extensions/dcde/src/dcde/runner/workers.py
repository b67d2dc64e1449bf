"""The workers of interactive functions: batch jobs at a site, as many as are wanted now, replaced when they end."""

from __future__ import annotations

import asyncio
import base64
import logging
import shlex
import time
from dataclasses import dataclass, field
from typing import Any

from dcde.errors import DcdeError, WorkersFailed
from dcde.link.link import Link

log = logging.getLogger(__name__)

POOL = "parsl.executors.high_throughput.process_worker_pool"
LOOK_S = 2.0
"""Seconds between two looks at the scheduler while there are blocks."""
SHORT_LIFE_S = 60.0
MOST_FAILURES = 3
"""So many blocks in a row that end soon after their start are no accident."""


@dataclass(frozen=True)
class Block:
    """What one batch job with workers asks for.

    Attributes:
        workers: Workers in it.
        cores: Cores of each worker.
    """

    workers: int
    cores: int
    memory_mb: int
    minutes: int
    partition: str
    allocation: str | None

    def options(self) -> dict[str, Any]:
        """Return the options of the agent's `submit`."""
        options: dict[str, Any] = {
            "cores": self.workers * self.cores,
            "memory_mb": self.memory_mb,
            "walltime_minutes": self.minutes,
            "partition": self.partition,
            "name": "dcde-functions",
        }
        return options | ({"account": self.allocation} if self.allocation else {})


@dataclass(frozen=True)
class Interchange:
    """Where the workers find their interchange.

    Attributes:
        address: Its address inside the site.
        folder: The folder at the site with its certificates.
        interpreter: The site's Python for workers.
        heartbeat_s: After so long a silence workers and interchange give each other up.
    """

    address: str
    folder: str
    interpreter: str
    heartbeat_s: int


def batch_script(block: Block, interchange: Interchange, port: int, name: str) -> str:
    """Return the batch script of a block; nothing in it comes from a notebook but whole numbers."""
    words = [
        interchange.interpreter, "-m", POOL, f"--max_workers_per_node={block.workers}", "-a", interchange.address,
        "-p", "0", "-c", str(block.cores), "-m", "None", "--poll", "10", f"--port={port}",
        "--cert_dir", f"{interchange.folder}/certificates", f"--logdir={interchange.folder}/workers", "--logconf=None",
        f"--block_id={name}", f"--hb_period={max(1, interchange.heartbeat_s // 4)}",
        f"--hb_threshold={interchange.heartbeat_s}", "--drain_period=None", "--cpu-affinity", "none",
        "--mpi-launcher=mpiexec",
    ]  # fmt: skip
    return (
        "#!/bin/bash\n"
        f"export PARSL_CORES={block.workers * block.cores} OMP_NUM_THREADS={block.cores}\n"
        f"exec {shlex.join(words)}\n"
    )


@dataclass
class _Job:
    """One block at the site."""

    key: str
    status: dict[str, Any] = field(default_factory=dict)
    running_since: float | None = None


class Workers:
    """The blocks of one executor.

    Args:
        link: The link to the site.
        key: The beginning of the keys of its jobs.
        block: What one block asks for.
        interchange: Where the workers connect.
    """

    def __init__(self, link: Link, key: str, block: Block, interchange: Interchange) -> None:
        self._link = link
        self._key = key
        self._block = block
        self._interchange = interchange
        self._wanted = 0
        self._port: int | None = None
        self._jobs: list[_Job] = []
        self._count = 0
        self._failures = 0
        self._changed = asyncio.Event()
        self._trouble: DcdeError | None = None

    def want(self, blocks: int, port: int | None) -> None:
        """Have so many blocks, which connect to that port of the interchange."""
        if (blocks, port) != (self._wanted, self._port):
            self._wanted, self._port = blocks, port
            self._changed.set()

    def take_trouble(self) -> DcdeError | None:
        """Return why there can be no workers, once. None are wanted then until somebody wishes for them again."""
        trouble, self._trouble = self._trouble, None
        if trouble:
            self._wanted = self._failures = 0
        return trouble

    def view(self) -> list[dict[str, Any]]:
        """Return the blocks as clients see them."""
        names = ("job_id", "state", "reason", "node")
        return [{name: job.status.get(name) for name in names} for job in self._jobs]

    async def keep(self) -> None:
        """Submit, follow and cancel blocks until it is cancelled itself."""
        while True:
            self._changed.clear()
            try:
                await self._adjust()
            except DcdeError as error:
                log.info("workers: %s", error)
                if not error.retry:
                    self._trouble = error
            try:
                async with asyncio.timeout(LOOK_S if self._jobs or self._open_wish() else None):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _open_wish(self) -> bool:
        return self._wanted > 0 and self._trouble is None and self._port is not None

    async def _adjust(self) -> None:
        if self._jobs:
            await self._look()
        while len(self._jobs) > self._wanted:
            await self._drop(self._jobs[-1])
        while self._open_wish() and len(self._jobs) < self._wanted:
            await self._submit()

    async def _submit(self) -> None:
        assert self._port is not None  # noqa: S101  `_open_wish` has looked
        self._count += 1
        job = _Job(f"{self._key}-b{self._count}")
        text = batch_script(self._block, self._interchange, self._port, f"b{self._count}")
        answer = await self._link.call(
            "submit", timeout=None, key=job.key, files={"batch.sh": text}, options=self._block.options()
        )
        job.status = {"state": "pending", "job_id": answer["job_id"]}
        self._jobs.append(job)

    async def _look(self) -> None:
        found = await self._link.call("poll", timeout=None, keys=[job.key for job in self._jobs])
        for job in tuple(self._jobs):
            job.status = found[job.key]
            if job.status["state"] == "running" and job.running_since is None:
                job.running_since = time.monotonic()
            if job.status["state"] == "ended":
                await self._ended(job)

    async def _ended(self, job: _Job) -> None:
        """Note the end of a block that nobody asked to end; too many of them in a row are trouble."""
        long = job.running_since is not None and time.monotonic() - job.running_since >= SHORT_LIFE_S
        self._failures = 0 if long else self._failures + 1
        if self._failures >= MOST_FAILURES:
            said = await self._said(job)
            state = job.status.get("slurm_state") or "ended"
            self._trouble = WorkersFailed(
                f"{MOST_FAILURES} batch jobs with workers ended soon after their start ({state}). {said}".rstrip(),
                where=self._link.site.name,
                remedy="Call again to try once more; if it stays so, tell the site's support.",
            )
        self._jobs.remove(job)
        await self._link.call("forget", timeout=None, key=job.key)

    async def _said(self, job: _Job) -> str:
        try:
            answer = await self._link.call(
                "tail", root="records", path=f"jobs/{job.key}/stderr", offset=-2000, limit=2000
            )
        except DcdeError:
            return ""
        lines = base64.b64decode(answer["data_base64"]).decode("utf-8", "replace").strip().splitlines()
        return f"It said: {lines[-1][:500]}" if lines else ""

    async def _drop(self, job: _Job) -> None:
        await self._link.call("cancel", timeout=None, key=job.key)
        self._jobs.remove(job)

    async def release(self) -> None:
        """Cancel all blocks. What cannot be reached now ends by itself when it misses its interchange."""
        for job in tuple(self._jobs):
            await self._drop(job)
