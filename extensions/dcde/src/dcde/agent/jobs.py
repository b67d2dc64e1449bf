"""Durable jobs at the site: one record folder for each key, and at most one submission of it.

The order of things makes a submission happen once, whatever dies when:

1. the lock of the record is taken (also by the `sbatch` that is started, so that it outlives the agent);
2. a record with a job id is done: that job is the one;
3. a record in which somebody began to submit is looked up in the queue by the job's name, which is the key;
4. only then `submitting` is noted on disk, `sbatch` runs, and the job id is noted on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import re
from collections.abc import AsyncIterator
from typing import Any

from .files import remove, sync_folder
from .home import put_file
from .paths import Root, trouble
from .protocol import OpError
from .slurm import Job, Slurm, submit_arguments
from .work import Work

KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
MAX_KEYS = 2000
MAX_RECORD_JSON = 1024 * 1024
RESERVED = frozenset(("lock", "jobid", "submitting", "stdout", "stderr", "result.json", "progress.json", "claim"))
LOCK_WAIT_S = 55.0


class Jobs:
    """The records of one account.

    Args:
        records: The root that holds `jobs/`.
        slurm: The scheduler.
        work: Threads for the files.
    """

    def __init__(self, records: Root, slurm: Slurm, work: Work) -> None:
        self._records = records
        self._slurm = slurm
        self._work = work

    def folder(self, key: str) -> str:
        """Return the record folder of `key`; a key with unsafe characters is refused."""
        if not KEY.fullmatch(key):
            raise OpError("InvalidParameter", "A key has characters that are not allowed.", where=key)
        return os.path.join(self._records.path, "jobs", key)

    @contextlib.asynccontextmanager
    async def _locked(self, folder: str) -> AsyncIterator[int]:
        """Hold the lock of a record. Whoever inherits the open file keeps it held."""
        fd = await self._work.quick(_open_lock, folder)
        loop = asyncio.get_running_loop()
        until = loop.time() + LOCK_WAIT_S
        try:
            # Asked again and again rather than waited for in a thread: a hanging `sbatch` must not use threads up.
            while not await self._work.quick(_try_lock, fd):
                if loop.time() > until:
                    raise OpError(
                        "SchedulerError", "Another submission of this job does not end.", where=folder, retry=True
                    )
                await asyncio.sleep(0.05)
            yield fd
        finally:
            os.close(fd)

    async def submit(self, key: str, files: dict[str, str], options: dict[str, Any]) -> dict[str, Any]:
        """Submit the job of `key` unless that has been done, and say which job it is and how that is known."""
        folder = self.folder(key)
        arguments = submit_arguments(options)
        for name in files:
            if not FILE_NAME.fullmatch(name) or name in RESERVED:
                raise OpError("InvalidParameter", "A file of the job has a name that is not allowed.", where=name)
        if not isinstance(files.get("batch.sh"), str):
            raise OpError("InvalidParameter", "The job has no batch.sh.", where=key)
        # Not to be broken off between `sbatch` and the note of its id, even when nobody waits for the answer any more.
        return await asyncio.shield(asyncio.ensure_future(self._submit(key, folder, files, arguments)))

    async def _submit(self, key: str, folder: str, files: dict[str, str], arguments: list[str]) -> dict[str, Any]:
        async with self._locked(folder) as lock:
            record = await self._work.quick(_read_record, folder)
            if record["job_id"]:
                return {"job_id": record["job_id"], "how": "attached"}
            if record["submitting"]:
                job_id = record["claimed"] or await self._slurm.find(key)
                if job_id or record["started"]:
                    await self._work.quick(_put, folder, "jobid", job_id or "unknown")
                    return {"job_id": job_id or "unknown", "how": "recovered"}
            await self._work.quick(_write_files, folder, {**files, "submitting": key})
            places = [f"--job-name={key}", f"--chdir={folder}", f"--output={folder}/stdout", f"--error={folder}/stderr"]
            job_id = await self._slurm.submit([*arguments, *places, f"{folder}/batch.sh"], keep=(lock,))
            await self._work.quick(_put, folder, "jobid", job_id)
            return {"job_id": job_id, "how": "new"}

    async def poll(self, keys: list[str]) -> dict[str, Any]:
        """Return what is known of the jobs of `keys`, with one question to the scheduler for all of them.

        A scheduler that does not answer makes every job without a result `unknown`; its words stand in `reason`.
        """
        if len(keys) > MAX_KEYS:
            raise OpError("InvalidParameter", f"More than {MAX_KEYS} keys at once.")
        folders = {key: self.folder(key) for key in keys}
        # The scheduler is asked before the records are read: a job that ends in between is then seen to have a result.
        ids = await self._work.quick(lambda: {key: _read_text(folder, "jobid") for key, folder in folders.items()})
        problem = ""
        jobs: dict[str, Job] = {}
        asked = sorted({job_id for job_id in ids.values() if job_id.isdigit()})
        if asked:
            try:
                jobs = await self._slurm.jobs(asked)
            except OpError as error:
                problem = error.message
        found = await self._work.quick(lambda: {key: _read_outcome(folder) for key, folder in folders.items()})
        return {key: _status(ids[key], jobs.get(ids[key]), problem, *found[key]) for key in keys}

    async def cancel(self, key: str) -> dict[str, Any]:
        """Ask the scheduler to end the job of `key`; returns its id, or none when it was never submitted."""
        folder = self.folder(key)
        if not await self._work.quick(os.path.isdir, folder):
            return {"job_id": None}
        async with self._locked(folder):
            record = await self._work.quick(_read_record, folder)
            job_id = record["job_id"]
            if not job_id and record["submitting"]:
                job_id = await self._slurm.find(key) or ""
            if job_id.isdigit():
                await self._slurm.cancel(job_id)
            return {"job_id": job_id or None}

    async def forget(self, key: str) -> dict[str, Any]:
        """Remove the record of `key`, unless the scheduler still has its job in the queue or running."""
        folder = self.folder(key)
        if await self._work.quick(os.path.isdir, folder):
            status = (await self.poll([key]))[key]
            if status["state"] in ("pending", "running"):
                raise OpError("SchedulerError", "The job has not ended.", where=key, remedy="Cancel it first.")
            await self._work.bulk(remove, self._records, f"jobs/{key}", True)
        return {}


def _open_lock(folder: str) -> int:
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        return os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise trouble(error, folder) from error


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise trouble(error, "lock") from error
    return True


def _read_text(folder: str, name: str) -> str:
    try:
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            return file.read(4096).strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        raise trouble(error, os.path.join(folder, name)) from error


def _read_json(folder: str, name: str) -> Any:
    """Return the JSON value of a file of the record, or None when it is not there or is not whole."""
    try:
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            text = file.read(MAX_RECORD_JSON + 1)
        return json.loads(text) if len(text) <= MAX_RECORD_JSON else None
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None
    except OSError as error:
        raise trouble(error, os.path.join(folder, name)) from error


def _read_record(folder: str) -> dict[str, Any]:
    result = _read_json(folder, "result.json")
    claimed = str(result.get("slurm_job_id") or "") if isinstance(result, dict) else ""
    return {
        "job_id": _read_text(folder, "jobid"),
        "submitting": os.path.lexists(os.path.join(folder, "submitting")),
        # A claim or a result proves that a job has run, even when the scheduler has forgotten it.
        "started": result is not None or os.path.lexists(os.path.join(folder, "claim")),
        "claimed": claimed if claimed.isdigit() else "",
    }


def _read_outcome(folder: str) -> tuple[Any, Any]:
    return _read_json(folder, "result.json"), _read_json(folder, "progress.json")


def _put(folder: str, name: str, text: str) -> None:
    _write_files(folder, {name: text})


def _write_files(folder: str, files: dict[str, str]) -> None:
    """Write files of a record, `submitting` last, and bring them to disk."""
    try:
        for name, text in files.items():
            path = os.path.join(folder, name)
            put_file(path, text.encode("utf-8", "surrogateescape"))
            if name == "batch.sh":
                os.chmod(path, 0o700)
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            sync_folder(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise trouble(error, folder) from error


def _status(job_id: str, job: Job | None, problem: str, result: Any, progress: Any) -> dict[str, Any]:
    state, reason = "unknown", problem
    if job is not None:
        state, reason = job.state, job.reason
    elif not job_id:
        reason = "It was not submitted."
    elif not reason:
        reason = "The scheduler does not show it."
    return {
        "state": "ended" if result is not None else state,
        "slurm_state": job.slurm_state if job else None,
        "reason": reason,
        "job_id": job_id or None,
        "node": (job.node or None) if job else None,
        "exit_code": job.exit_code if job else None,
        "result": result,
        "progress": progress,
    }
