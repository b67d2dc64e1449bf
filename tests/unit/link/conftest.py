"""Fixtures for tests of the agent and the link without a network.

- `root`: an empty `dcde.agent.paths.Root`; `outside`: a folder beside it that must never be reached.
- `pair`: both ends of a session, tied by carriers in memory that can be cut anywhere (see `Pair`).
- `queue`: a folder of programs that stand in for Slurm, with a queue in a file (see `FakeQueue`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from dcde.agent.channels import Channels, Handler
from dcde.agent.jobs import Jobs
from dcde.agent.paths import Root
from dcde.agent.programs import Programs
from dcde.agent.protocol import Frames
from dcde.agent.slurm import Slurm
from dcde.agent.work import Work


@pytest.fixture
def root(tmp_path: Path) -> Root:
    (tmp_path / "root").mkdir()
    return Root(str(tmp_path / "root"))


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_text("not for you")
    return folder


class Pipe:
    """One direction of a carrier in memory. After `limit` bytes it is cut, in the middle of whatever goes through."""

    def __init__(self, limit: int | None) -> None:
        self.reader = asyncio.StreamReader()
        self.left = limit
        self.closed = False

    def write(self, data: bytes) -> None:
        if self.closed:
            return
        if self.left is not None:
            data, self.left = data[: self.left], self.left - len(data)
        self.reader.feed_data(data)
        if self.left is not None and self.left <= 0:
            self.close()

    async def drain(self) -> None:
        await asyncio.sleep(0)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.reader.feed_eof()


class Pair:
    """Both ends of a session: `near` asks, `far` answers with `handler`."""

    def __init__(self) -> None:
        self.near = Channels("s")
        self.far = Channels("s", self._answer)
        self.handler: Handler | None = None

    async def _answer(self, channel, op, args):
        assert self.handler is not None
        return await self.handler(channel, op, args)

    async def attach(self, limit: int | None = None) -> None:
        """Tie the ends by a carrier and carry until it ends; it is cut after `limit` bytes in either direction."""
        there, back = Pipe(limit), Pipe(limit)
        received = self.near.session.received, self.far.session.received
        await asyncio.gather(
            self.near.session.run(Frames(back.reader), there, peer_received=received[1], beat_s=5, silent_s=20),
            self.far.session.run(Frames(there.reader), back, peer_received=received[0], beat_s=5, silent_s=20),
        )


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    both = Pair()
    yield both
    both.near.end(ConnectionError("over"))
    both.far.end(ConnectionError("over"))


SBATCH = """#!/bin/sh
# Takes --job-name=NAME; the queue is a file of "id|state|reason|node|name" lines.
for a; do case $a in --job-name=*) name=${a#--job-name=};; esac; done
[ -e QUEUE/down ] && { echo "sbatch: error: Unable to contact slurm controller (connect failure)" >&2; exit 1; }
[ -e QUEUE/no ] && { echo "sbatch: error: invalid partition specified: nope" >&2; exit 1; }
[ -e QUEUE/late ] && { touch QUEUE/begun; sleep 1; }
exec 8>QUEUE/lock; flock 8
id=$(( $(wc -l <QUEUE/jobs) + 1 ))
echo "$@" >>QUEUE/arguments
echo "$id|PENDING|Priority||$name" >>QUEUE/jobs
exec 8>&-
echo "$id"
"""
SQUEUE = """#!/bin/sh
[ -e QUEUE/down ] && { echo "slurm_load_jobs error: Unable to contact slurm controller" >&2; exit 1; }
echo called >>QUEUE/squeue-calls
cat QUEUE/jobs
"""
SCONTROL = """#!/bin/sh
echo "JobId=$4 JobName=x UserId=me(1) JobState=FAILED Reason=NonZeroExitCode Dependency=(null) ExitCode=3:0 NodeList=n2"
"""
SCANCEL = """#!/bin/sh
echo "$1" >>QUEUE/cancelled
"""
SACCT = """#!/bin/sh
[ -e QUEUE/accounts ] && { cat QUEUE/accounts; exit 0; }
echo "Slurm accounting storage is disabled" >&2; exit 1
"""


class FakeQueue:
    """Programs with the names of Slurm's. Parsing and order are tested with them; Slurm itself is met in the world."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "jobs").write_text("")
        programs = {"sbatch": SBATCH, "squeue": SQUEUE, "scontrol": SCONTROL, "scancel": SCANCEL, "sacct": SACCT}
        for name, text in programs.items():
            path = folder / name
            path.write_text(text.replace("QUEUE", str(folder)))
            path.chmod(0o755)
        self.path = f"{folder}:/usr/bin:/bin"

    def say(self, name: str) -> None:
        """Turn a way of failing on."""
        (self.folder / name).touch()

    def lines(self, name: str) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / name).read_text().splitlines()
        return []

    def set(self, *lines: str) -> None:
        """Replace the queue."""
        (self.folder / "jobs").write_text("".join(f"{line}\n" for line in lines))

    def jobs(self, records: Path, work: Work) -> Jobs:
        """Return what an agent would have."""
        return Jobs(Root(str(records)), Slurm(Programs(self.path), "me"), work)


@pytest.fixture
def queue(tmp_path: Path) -> FakeQueue:
    return FakeQueue(tmp_path / "queue")


@pytest.fixture
def work() -> Iterator[Work]:
    threads = Work()
    yield threads
    threads.close()
