"""Interactive functions in the runner: ties a notebook's executor to its interchange at a site, and keeps its workers.

The runner carries bytes between three ports of the kernel and the interchange. It knows neither functions nor results:
those are packed and unpacked in the kernel and in the workers, encrypted in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from dataclasses import dataclass
from typing import Any

from dcde_models import Need, SiteDescriptor
from dcde_models.sites import Partition

from dcde.agent.functions import carry
from dcde.errors import DcdeError, FunctionsError, InvalidParameter, UnknownName, VersionsDiffer
from dcde.link.link import Link
from dcde.runner import arguments as a
from dcde.runner.knowledge import Knowledge
from dcde.runner.sites import SiteBook
from dcde.runner.workers import Block, Interchange, Workers

log = logging.getLogger(__name__)

DEFAULT_MINUTES = 60


@dataclass(frozen=True)
class FunctionTimes:
    """How long things wait, in seconds.

    Attributes:
        lease: The site ends an interchange when no runner has been attached for so long.
        heartbeat: Workers and interchange give each other up after so long a silence.
        kernel: An executor ends when its kernel has not asked for so long.
        release: How long the end of an executor waits for its batch jobs to be cancelled.
    """

    lease: float = 300.0
    heartbeat: int = 30
    kernel: float = 300.0
    release: float = 20.0


class Executor:
    """One interchange at a site, and the streams between it and a kernel.

    Args:
        link: The link to the site.
        wish: What the kernel asked for.
        block: What one batch job with workers asks for.
        times: How long things wait.
    """

    def __init__(self, link: Link, wish: a.FunctionsStart, block: Block, times: FunctionTimes) -> None:
        self.id = secrets.token_hex(8)
        self.link = link
        self.block = block
        self.workers: Workers | None = None
        self.error: DcdeError | None = None
        self.asked = time.monotonic()
        self._wish = wish
        self._times = times
        self._begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the interchange; returns once it is there to be connected to."""
        self._task = asyncio.create_task(self._life(), name=f"functions at {self.link.site.name}")
        await asyncio.wait([self._begun, self._task], return_when=asyncio.FIRST_COMPLETED)
        if self.error:
            raise self.error

    async def close(self) -> None:
        """End the interchange and its workers."""
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _life(self) -> None:
        try:
            await self._hold()
            self.error = FunctionsError("the executor has ended", where=self.link.site.name, retry=True)
        except DcdeError as error:
            log.info("an executor ended: %s", error, extra={"site": self.link.site.name})
            self.error = error
        except asyncio.CancelledError:
            self.error = FunctionsError("the executor was ended", where=self.link.site.name, retry=True)
            raise
        except Exception:
            log.exception("an executor ended with an unforeseen error")
            self.error = FunctionsError("the runner met an unforeseen error", where=self.link.site.name, retry=True)

    async def _hold(self) -> None:
        """Keep the interchange, its streams and its workers until one of them ends."""
        site, times = self.link.site, self._times
        wish = {
            "key": self.id,
            "interpreter": site.worker_interpreter,
            "certificates": self._wish.certificates,
            "times": {"lease_s": times.lease, "heartbeat_s": times.heartbeat},
        }
        async with self.link.stream("functions.run", **wish) as run:
            news = await run.news()
            interchange = Interchange(
                str(news["address"]), str(news["folder"]), site.worker_interpreter, times.heartbeat
            )
            workers = self.workers = Workers(self.link, f"functions-{self.id}", self.block, interchange)
            self._begun.set_result(None)
            relays = [self._relay(number, port) for number, port in enumerate(self._wish.ports)]
            tasks = [asyncio.ensure_future(part) for part in (*relays, workers.keep(), self._kernel_there())]
            try:
                await asyncio.wait([run.result, *tasks], return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    if task.done():
                        task.result()
                if run.result.done():
                    said = str((await run.result).get("said", "")).strip().splitlines()
                    raise FunctionsError(
                        f"The interchange at {site.title} ended. {said[-1] if said else ''}".rstrip(),
                        where=site.name,
                        retry=True,
                    )
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await self._release(workers)

    async def _release(self, workers: Workers) -> None:
        with contextlib.suppress(DcdeError, TimeoutError):
            async with asyncio.timeout(self._times.release):
                await workers.release()

    async def _relay(self, number: int, port: int) -> None:
        """Carry one port's bytes; ends when either side closes it, which nothing but an end of the executor does."""
        async with self.link.stream("functions.stream", key=self.id, port=number) as channel:
            await channel.news()
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError as error:
                raise FunctionsError("the kernel has gone", where=self.link.site.name) from error
            try:
                await carry(channel, reader, writer)
            finally:
                writer.close()

    async def _kernel_there(self) -> None:
        """Wait until the kernel has not asked for too long."""
        # The time of the last question moves on while this sleeps.
        while (left := self.asked + self._times.kernel - time.monotonic()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(left)


class FunctionsDesk:
    """All executors of the person's notebooks.

    Args:
        sites: The sites and the links to them.
        times: How long things wait.
    """

    def __init__(self, sites: SiteBook, times: FunctionTimes | None = None) -> None:
        self._sites = sites
        self._times = times or FunctionTimes()
        self._executors: dict[str, Executor] = {}

    async def close(self) -> None:
        """End all executors."""
        await asyncio.gather(*(executor.close() for executor in self._executors.values()))

    async def start(self, wish: a.FunctionsStart) -> dict[str, Any]:
        """Start an executor at a site for a kernel that listens on the ports of the wish.

        Raises:
            NotAllowed: The person may not run jobs there.
            VersionsDiffer: The site's Python, parsl or dill does not fit.
            InvalidParameter, UnknownName: The wish does not fit the site.
            LinkLost, LinkRefused: The site cannot be reached.
        """
        knowledge = await self._sites.knowledge()
        site = knowledge.site(wish.site)
        block, blocks = fitted(wish, site, knowledge)
        need = Need("submit", block.partition, block.allocation, block.minutes, 1)
        knowledge.require(site.name, need)
        link = await self._sites.link_up(site.name)
        found = await link.call("functions.probe", timeout=90, interpreter=site.worker_interpreter)
        check_versions(site, wish.versions, found)
        executor = Executor(link, wish, block, self._times)
        await executor.start()
        self._executors[executor.id] = executor
        return {"id": executor.id, "site": site.name, "title": site.title, "workers": block.workers, "blocks": blocks}

    async def status(self, args: a.FunctionsStatus) -> dict[str, Any]:
        """Say how an executor is, and have as many blocks of workers as are wanted now."""
        executor = self._executors.get(args.id)
        if executor is None:
            raise UnknownName("there is no such executor", where=args.id)
        executor.asked = time.monotonic()
        if executor.error:
            del self._executors[args.id]
            return {"state": "ended", "error": executor.error.to_json(), "trouble": None, "blocks": []}
        assert executor.workers is not None  # noqa: S101  `start` waited for them
        executor.workers.want(args.blocks, args.worker_port)
        trouble = executor.workers.take_trouble()
        return {
            "state": "up",
            "error": None,
            "trouble": trouble.to_json() if trouble else None,
            "blocks": executor.workers.view(),
            "link": executor.link.state.name,
        }

    async def stop(self, args: a.FunctionsStop) -> None:
        """End an executor; one that has ended already is no error."""
        executor = self._executors.pop(args.id, None)
        if executor:
            await executor.close()


def fitted(wish: a.FunctionsStart, site: SiteDescriptor, knowledge: Knowledge) -> tuple[Block, int]:
    """Return what one block asks for, and how many blocks there may be at once.

    Raises:
        UnknownName: The site has no such partition.
        InvalidParameter: A worker wants more cores than a node has, or the time is longer than allowed.
    """
    partition = _partition(site, wish.partition)
    if wish.cores > partition.cores_per_node:
        raise InvalidParameter(
            f"a node of {site.title} has {partition.cores_per_node} cores, not {wish.cores}",
            where="cores",
            remedy="Ask for fewer cores, or choose another site.",
        )
    if wish.minutes and wish.minutes > partition.max_walltime_minutes:
        raise InvalidParameter(
            f"the partition {partition.name} of {site.title} gives {partition.max_walltime_minutes} minutes at most",
            where="minutes",
            remedy="Ask for less time.",
        )
    on_a_node = partition.cores_per_node // wish.cores
    workers = min(on_a_node, wish.workers or on_a_node)
    block = Block(
        workers=workers,
        cores=wish.cores,
        memory_mb=max(1, partition.memory_mb_per_node * workers * wish.cores // partition.cores_per_node),
        minutes=wish.minutes or min(DEFAULT_MINUTES, partition.max_walltime_minutes),
        partition=partition.name,
        allocation=wish.allocation or next(iter(knowledge.allocations(site.name)), None),
    )
    return block, -(-(wish.workers or workers) // workers)


def _partition(site: SiteDescriptor, name: str | None) -> Partition:
    if name is None:
        return site.scheduler.default_partition
    for partition in site.scheduler.partitions:
        if partition.name == name:
            return partition
    known = ", ".join(partition.name for partition in site.scheduler.partitions)
    raise UnknownName(f"{site.title} has no partition {name!r}", where="partition", remedy=f"It has: {known}.")


def check_versions(site: SiteDescriptor, ours: dict[str, str], theirs: dict[str, Any]) -> None:
    """Refuse when functions could not cross: they do between equal minor versions of Python, and equal parsl and dill.

    Raises:
        VersionsDiffer: With what is there and what is needed.
    """
    needed = {"Python": _minor(ours.get("python")), "parsl": ours.get("parsl"), "dill": ours.get("dill")}
    there = {"Python": _minor(theirs.get("python")), "parsl": theirs.get("parsl"), "dill": theirs.get("dill")}
    if needed != there:
        raise VersionsDiffer(
            f"Functions of this notebook cannot run at {site.title}: needed are {_words(needed)}; "
            f"{site.worker_interpreter} there has {_words(there)}.",
            where=site.name,
            remedy=f"Ask {site.contact or 'the site'} for an environment with these versions.",
        )


def _minor(version: object) -> str | None:
    return ".".join(version.split(".")[:2]) if isinstance(version, str) else None


def _words(versions: dict[str, str | None]) -> str:
    return ", ".join(f"{name} {version}" if version else f"no {name}" for name, version in versions.items())
