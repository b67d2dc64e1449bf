"""A bench for interactive functions without a world.

A site with a real sshd and a real agent, a stand-in for Slurm that runs batch scripts as processes, and the runner's
operations for functions on a real socket, all in a thread of their own. Interchange and workers are Parsl's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from dcde.client import SyncClient
from dcde.functions.pool import Pool, PoolTimes
from dcde.link import Link
from dcde.runner import arguments as a
from dcde.runner.events import Events
from dcde.runner.functions import FunctionsDesk, FunctionTimes
from dcde.runner.service import Operation, Service
from link_site import SiteInTest

SBATCH = """#!/bin/bash
# Runs the script as a process; the queue is a folder with one folder a job.
for a; do case $a in --job-name=*) name=${a#--job-name=};; --chdir=*) place=${a#--chdir=};; esac; script=$a; done
[ -e QUEUE/no ] && { echo "sbatch: error: invalid partition specified: nope" >&2; exit 1; }
id=$(( $(ls QUEUE/jobs | wc -l) + 1 ))
mkdir QUEUE/jobs/$id; echo "$name" >QUEUE/jobs/$id/name
cd $place
for n in $(ls /proc/$$/fd); do [ $n -gt 2 ] && [ $n -ne 255 ] && eval "exec $n>&-"; done 2>/dev/null
( setsid bash -c 'echo $$ >$0/pid; "$1"; touch $0/ended' QUEUE/jobs/$id $script ) >stdout 2>stderr </dev/null &
disown
echo $id
"""
SQUEUE = """#!/bin/bash
for job in QUEUE/jobs/*; do
    [ -e $job ] || continue
    state=RUNNING; [ -e $job/pid ] && ! kill -0 $(cat $job/pid) 2>/dev/null && state=FAILED
    [ -e $job/ended ] && state=COMPLETED; [ -e $job/cancelled ] && state=CANCELLED
    echo "$(basename $job)|$state|None|here|$(cat $job/name)"
done
"""
SCANCEL = """#!/bin/bash
touch QUEUE/jobs/$1/cancelled; kill -TERM -- -$(cat QUEUE/jobs/$1/pid) 2>/dev/null; exit 0
"""
SCONTROL = "#!/bin/sh\nexit 1\n"
SACCT = "#!/bin/sh\nexit 1\n"
SINFO = "#!/bin/sh\necho 127.0.0.1\n"
FAST = PoolTimes(look=0.1, idle=60, rest=600, pause=0.2)


class Sites:
    """Stands in for the runner's book of sites: one site at which everything is allowed."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def knowledge(self) -> Sites:
        return self

    def site(self, name: str) -> Any:
        return self._link.site

    def allocations(self, name: str) -> list[str]:
        return ["dcde"]

    def require(self, site: str, need: Any) -> None:
        assert need.action == "submit"

    async def link_up(self, name: str) -> Link:
        await self._link.up(5)
        return self._link


class Bench:
    """Everything between a kernel's pool and the workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.queue = folder / "q"
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.pools: list[Pool] = []

    def do(self, part: Coroutine[Any, Any, Any]) -> Any:
        """Carry out a coroutine in the runner's loop."""
        running: Future[Any] = asyncio.run_coroutine_threadsafe(part, self.loop)
        return running.result(60)

    async def _start(self, times: FunctionTimes, interpreter: str) -> None:
        self.site = SiteInTest(self.folder)
        self.site.program_path = f"{self.queue}:/usr/bin:/bin"
        await self.site.start()
        self.link = await self.site.link(worker_interpreter=interpreter, interpreter="/usr/bin/python3")
        self.desk = FunctionsDesk(Sites(self.link), times)  # type: ignore[arg-type]
        table = {
            "functions.start": Operation(a.FunctionsStart, self.desk.start),
            "functions.status": Operation(a.FunctionsStatus, self.desk.status),
            "functions.stop": Operation(a.FunctionsStop, self.desk.stop),
        }
        self.service = Service(self.folder / "runner.sock", table, Events(), lambda run: [])
        await self.service.start()

    def start(self, times: FunctionTimes | None = None, interpreter: str = sys.executable) -> None:
        """Bring up site and runner."""
        (self.queue / "jobs").mkdir(parents=True)
        programs = {
            "sbatch": SBATCH, "squeue": SQUEUE, "scancel": SCANCEL, "scontrol": SCONTROL, "sacct": SACCT, "sinfo": SINFO
        }  # fmt: skip
        for name, text in programs.items():
            (self.queue / name).write_text(text.replace("QUEUE", str(self.queue)))
            (self.queue / name).chmod(0o755)
        self.do(self._start(times or FunctionTimes(lease=5, heartbeat=8), interpreter))

    def pool(self, times: PoolTimes = FAST, **wish: Any) -> Pool:
        """Return a pool as a kernel has it."""
        made = Pool({"site": "test-site", **wish}, SyncClient(self.folder / "runner.sock"), times)
        self.pools.append(made)
        return made

    def interchanges(self) -> list[int]:
        """Return the process ids of the interchanges of this bench."""
        mark = f"{self.site.records}/functions/".encode()
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and mark in _open_files(entry):
                    command = (entry / "cmdline").read_bytes()
                    if b"high_throughput.interchange" in command:
                        found.append(int(entry.name))
        return found

    def jobs(self) -> list[str]:
        """Return the ids of the jobs that run."""
        over = ("ended", "cancelled")
        return [j.name for j in (self.queue / "jobs").iterdir() if not any((j / name).exists() for name in over)]

    def kill_job(self, job: str) -> None:
        """Kill everything of a job, as the loss of its node does."""
        os.killpg(int((self.queue / "jobs" / job / "pid").read_text()), signal.SIGKILL)

    def close(self) -> None:
        for pool in self.pools:
            pool.close()
        self.do(self.service.close())
        self.do(self.desk.close())
        self.do(self.site.close())
        for job in (self.queue / "jobs").iterdir():
            with contextlib.suppress(OSError, ValueError):
                os.killpg(int((job / "pid").read_text()), signal.SIGKILL)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


def _open_files(entry: Path) -> bytes:
    return b" ".join(os.fsencode(os.readlink(fd)) for fd in (entry / "fd").iterdir())


def until(there: Callable[[], bool], seconds: float = 20) -> bool:
    """Wait until something is so; tells whether it came to be."""
    end = time.monotonic() + seconds
    while not there() and time.monotonic() < end:
        time.sleep(0.05)
    return there()


@contextlib.contextmanager
def bench_in_test() -> Iterator[Bench]:
    """Make a bench that is not started yet, and clear all of it away at the end."""
    # A short path: that of a unix socket may have 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="dcde-f-"))
    made = Bench(folder)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(folder, ignore_errors=True)
