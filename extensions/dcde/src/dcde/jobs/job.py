"""The program that is the batch job: it runs the commands of one attempt of a step and leaves `result.json`.

It is pushed into the job's record together with `job.json` and runs there with the standard library only (Python >=
3.9). Its first act is an exclusive create (the folder `claim`): whoever comes second ends at once and touches nothing,
so that an attempt never runs twice, however often the scheduler starts it. What it is to do stands in `job.json`:

    key, title          the attempt's key; the step in a person's words
    storage_root        where the site keeps people's files
    project             the project's name; its folder is <storage_root>/<user>/projects/<project>
    setup               shell lines of the site's administrator that make the programs callable
    commands            argument lists, run in order in the project folder; {record} is the record's path
    environment         further environment variables
    interpreter         the Python for report.py; walltime_minutes: what the scheduler was asked for

The shell sees the administrator's lines and nothing else: our arguments reach it as positional parameters.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

SECOND_START = 76
"""Exit code of a start that found the attempt already claimed."""

DISK_FULL = 28
"""Exit code when not even the claim or the result could be written for want of space."""

FULL = (errno.ENOSPC, errno.EDQUOT)
RESERVE_BYTES = 64 * 1024
LOW_SPACE_BYTES = 1024 * 1024
MOST_PROBLEMS = 50
MOST_CHARACTERS = 1000
"""What of the problems goes into the result, so that it stays small enough to travel with every poll."""

KILL_AFTER_S = 15.0
"""How long the application may take to end after SIGTERM; Slurm waits 30 s by default before it kills everything."""

PROGRESS_EVERY_S = 3.0
PROGRESS_SHARE = 10.0
"""After a look at the progress that took t seconds the next one waits at least this many times t."""

PROGRESS_LIMIT_S = 30.0
REPORT_LIMIT_S = 600.0
PR_SET_PDEATHSIG = 1


def note(text: str) -> None:
    """Write a line to the job's own log; a full disk must not end the job."""
    with contextlib.suppress(OSError, ValueError):
        print(f"dcde job: {text}", flush=True)


def write_whole(path: str, text: str) -> None:
    """Write a file so that it is seen whole or not at all, also after a crash."""
    temporary = f"{path}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def read_json(path: str) -> Any:
    """Return the content of a JSON file, or None when there is none that can be read."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def tail_of(path: str, size: int = 2000) -> str:
    """Return the last bytes of a file as text, or nothing."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            return file.read().decode("utf-8", "replace").strip()
    except OSError:
        return ""


def claim(record: str, job_id: str) -> bool:
    """Take this attempt for this start; False when an earlier start has it."""
    folder = os.path.join(record, "claim")
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        return False
    owner = {"job_id": job_id, "host": socket.gethostname(), "pid": os.getpid(), "epoch": time.time()}
    write_whole(os.path.join(folder, "owner.json"), json.dumps(owner))
    # Space put aside now, so that the result can still be written when the application has filled the disk.
    with open(os.path.join(folder, "reserve"), "wb") as file:
        file.write(os.urandom(RESERVE_BYTES))
        file.flush()
        os.fsync(file.fileno())
    return True


def die_with_parent() -> None:
    """In the child: be killed when the job's program is killed, so that nothing goes on unwatched."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class Job:
    """One start of one attempt that holds the claim."""

    def __init__(self, record: str, spec: dict[str, Any], job_id: str) -> None:
        self.record = record
        self.spec = spec
        self.job_id = job_id
        user = pwd.getpwuid(os.getuid()).pw_name
        self.project_folder = os.path.join(spec["storage_root"], user, "projects", spec["project"])
        self.started = time.time()
        self.exit_codes: list[int] = []
        self.problems: list[str] = []
        self.outputs: dict[str, Any] | None = None
        self.ok = False
        self.ended_by: str | None = None
        self.application: subprocess.Popen[bytes] | None = None
        self.kill_at: float | None = None
        self.progress: subprocess.Popen[bytes] | None = None
        self.progress_began = 0.0
        self.progress_next = time.monotonic() + PROGRESS_EVERY_S

    def path(self, name: str) -> str:
        """Return the path of a file of the record."""
        return os.path.join(self.record, name)

    # -- signals ---------------------------------------------------------------------------------------------------

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        """Note that the scheduler wants the end, and tell the whole application."""
        if self.ended_by is None:
            self.ended_by = signal.Signals(number).name
            self.kill_at = time.monotonic() + KILL_AFTER_S
        self.signal_application(signal.SIGTERM)

    def signal_application(self, number: int) -> None:
        """Send a signal to every process of the application."""
        if self.application is not None and self.application.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.application.pid, number)

    # -- the commands ----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run the commands in order; the first that does not end with 0 is the last."""
        if not os.path.isdir(self.project_folder):
            self.problems.append(f"The project folder {self.project_folder} is not there.")
            return
        self.append_start()
        with open(self.path("stdout"), "ab", 0) as out, open(self.path("stderr"), "ab", 0) as err:
            for number, command in enumerate(self.spec["commands"], start=1):
                if self.ended_by:
                    return
                argv = [part.replace("{record}", self.record) for part in command]
                # What runs is told to the reader of the log; when the disk is full the application will say so itself.
                with contextlib.suppress(OSError):
                    out.write(("+ " + " ".join(argv) + "\n").encode("utf-8", "surrogateescape"))
                code = self.run_one(argv, out, err)
                self.exit_codes.append(code)
                if code != 0:
                    if not self.ended_by:
                        self.problems.append(self.failed_command(number, argv[0], code))
                    return

    def append_start(self) -> None:
        """Leave the one line that proves how often this attempt was started."""
        folder = os.path.join(self.project_folder, ".dcde")
        os.makedirs(folder, 0o700, exist_ok=True)
        descriptor = os.open(os.path.join(folder, "starts.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            line = f"{self.spec['key']} {self.job_id or '-'} {socket.gethostname()} {self.started:.3f}\n"
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    def run_one(self, argv: list[str], out: Any, err: Any) -> int:
        """Run one command to its end and return its exit code (negative: the signal that killed it)."""
        script = "\n".join([*self.spec.get("setup", []), 'exec "$@"'])
        self.application = subprocess.Popen(
            ["bash", "--noprofile", "--norc", "-c", script, "dcde", *argv],
            cwd=self.project_folder,
            env={**os.environ, **self.spec.get("environment", {})},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        if self.ended_by:
            # The signal came between the last look and the start.
            self.signal_application(signal.SIGTERM)
        while True:
            try:
                code = self.application.wait(timeout=0.5)
                break
            except subprocess.TimeoutExpired:
                self.look_at_progress()
                if self.kill_at is not None and time.monotonic() > self.kill_at:
                    self.signal_application(signal.SIGKILL)
        # Whatever the application left behind in its group ends with it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.application.pid, signal.SIGKILL)
        self.application = None
        return code

    def failed_command(self, number: int, program: str, code: int) -> str:
        """Return the sentence about a command that did not end with 0."""
        name = f"Command {number} ({os.path.basename(program)})"
        if code == 127:
            return f"{name} was not found at this site."
        if code in (-signal.SIGKILL, 128 + signal.SIGKILL):
            return f"{name} was killed (SIGKILL), as happens when the memory asked for is used up."
        if code < 0:
            return f"{name} was ended by {signal.Signals(-code).name}."
        return f"{name} ended with exit code {code}."

    # -- progress and report ---------------------------------------------------------------------------------------

    def report_command(self) -> list[str]:
        """Return the command of report.py, without --progress."""
        return [self.spec["interpreter"], self.path("report.py"), self.path("spec.json"), self.record]

    def look_at_progress(self) -> None:
        """Start, reap or stop the program that looks at the progress; it never holds up the application."""
        now = time.monotonic()
        if self.progress is not None:
            if self.progress.poll() is None:
                if now - self.progress_began > PROGRESS_LIMIT_S:
                    self.stop_progress()
                return
            self.progress = None
            self.progress_next = now + max(PROGRESS_EVERY_S, PROGRESS_SHARE * (now - self.progress_began))
            # What it found is no report of the outputs yet.
            with contextlib.suppress(OSError):
                os.replace(self.path("report.json"), self.path("progress.json"))
        elif now >= self.progress_next and os.path.exists(self.path("report.py")) and not self.ended_by:
            self.progress_began = now
            try:
                self.progress = self.start_report(["--progress"], subprocess.DEVNULL)
            except OSError:
                self.progress_next = now + PROGRESS_LIMIT_S

    def start_report(self, more: list[str], err: Any) -> subprocess.Popen[bytes]:
        """Start report.py in the project folder, alone in its process group."""
        return subprocess.Popen(
            [*self.report_command(), *more],
            cwd=self.project_folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=err,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )

    def stop_progress(self) -> None:
        """End a look at the progress that is still at work."""
        if self.progress is not None and self.progress.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.progress.pid, signal.SIGKILL)
            self.progress.wait()
            self.progress_next = time.monotonic() + PROGRESS_SHARE * PROGRESS_LIMIT_S
        self.progress = None

    def report(self) -> dict[str, Any] | None:
        """Check what was promised; return the content of report.json, or None when there is none.

        report.py ends with 0 when all is well and with 1 when it is not; it has fallen over when it left no report.
        """
        if not os.path.exists(self.path("report.py")):
            return None
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path("report.json"))
        errors = self.path("report.stderr")
        code: int | None = None
        with open(errors, "wb") as err:
            process = self.start_report([], err)
            try:
                code = process.wait(timeout=REPORT_LIMIT_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        found = read_json(self.path("report.json"))
        if code not in (0, 1) or not isinstance(found, dict):
            how = "took too long" if code is None else f"ended with exit code {code}"
            self.problems.append(f"The check of the outputs {how}: {tail_of(errors, 600) or 'no message'}")
            return None
        return found

    # -- the end ---------------------------------------------------------------------------------------------------

    def note_end_by_signal(self) -> None:
        """Say why the scheduler ended the job, as far as it can be known from here."""
        minutes = float(self.spec.get("walltime_minutes", 0))
        if minutes and time.time() - self.started >= minutes * 60 - 10:
            self.problems.append(f"The job reached its time limit of {minutes:g} minutes.")
        else:
            self.problems.append(f"The job was ended from outside ({self.ended_by}).")

    def note_full_disks(self) -> None:
        """When something went wrong, say whether a full disk is behind it."""
        for what, folder in (("project storage", self.project_folder), ("home folder", self.record)):
            with contextlib.suppress(OSError):
                free = shutil.disk_usage(folder).free
                if free < LOW_SPACE_BYTES:
                    self.problems.append(f"The {what} at this site is full ({free // 1024} KB free).")
        if "No space left on device" in tail_of(self.path("stderr"), 20_000):
            self.problems.append("The application reported: No space left on device.")

    def judge(self) -> None:
        """Decide whether the attempt delivered what was promised, and say what went wrong if not."""
        complete = len(self.exit_codes) == len(self.spec["commands"]) and not any(self.exit_codes)
        if self.exit_codes and not self.ended_by:
            self.outputs = self.report()
        if self.outputs is not None:
            self.problems += [str(problem) for problem in self.outputs.get("problems", [])]
        promised = self.outputs is None or self.outputs.get("ok") is True
        self.ok = complete and promised and not self.problems and not self.ended_by
        if self.ended_by:
            self.note_end_by_signal()
        if not self.ok:
            self.note_full_disks()
        if not self.ok and not self.problems:
            self.problems.append("The outputs are not what was promised.")

    def result(self) -> dict[str, Any]:
        """Return what goes into result.json."""
        return {
            "exit_codes": self.exit_codes,
            "ok": self.ok,
            "problems": [problem[:MOST_CHARACTERS] for problem in dict.fromkeys(self.problems)][:MOST_PROBLEMS],
            "started": self.started,
            "ended": time.time(),
            "host": socket.gethostname(),
            "slurm_job_id": self.job_id,
            "ended_by": self.ended_by,
            "report": self.outputs,
        }

    def leave(self) -> None:
        """Write result.json; on a full disk the space put aside makes room for a shorter one."""
        result = self.result()
        try:
            write_whole(self.path("result.json"), json.dumps(result))
        except OSError as error:
            if error.errno not in FULL:
                raise
            for name in ("claim/reserve", "result.json.tmp", "progress.json"):
                with contextlib.suppress(OSError):
                    os.unlink(self.path(name))
            problem = "The disk at this site is full: the report could not be stored."
            short = {**result, "ok": False, "report": None, "problems": [problem, *result["problems"][:20]]}
            write_whole(self.path("result.json"), json.dumps(short))


def guarded(job: Job, action: Callable[[], None]) -> None:
    """Run one part of the job; an error of the file system or of our own becomes a problem in the result."""
    try:
        action()
    except OSError as error:
        job.ok = False
        what = "The disk at this site is full" if error.errno in FULL else "The site's file system refused"
        job.problems.append(f"{what}: {error}")
    except Exception as error:  # the result must be written whatever happens
        job.ok = False
        job.problems.append(f"The job's own program failed: {type(error).__name__}: {error}")


def work(record: str, job_id: str) -> int:
    """Do the whole attempt and return the exit code of the job."""
    spec = read_json(os.path.join(record, "job.json"))
    if spec is None:
        note(f"{record} holds no job.json")
        return 2
    if not claim(record, job_id):
        owner = read_json(os.path.join(record, "claim", "owner.json")) or {}
        note(f"{spec['key']} was already started by job {owner.get('job_id')} on {owner.get('host')}; this start ends")
        return SECOND_START
    job = Job(record, spec, job_id)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, job.on_signal)
    guarded(job, job.run)
    guarded(job, job.stop_progress)
    guarded(job, job.judge)
    job.leave()
    note(f"{spec['key']} ended, {'ok' if job.ok else 'with problems'}")
    return 0 if job.ok else 1


def main() -> int:
    """Run the attempt whose record this file lies in."""
    os.umask(0o077)
    record = os.path.dirname(os.path.abspath(__file__))
    try:
        return work(record, os.environ.get("SLURM_JOB_ID", ""))
    except OSError as error:
        note(f"failed: {error}")
        return DISK_FULL if error.errno in FULL else 1


if __name__ == "__main__":
    sys.exit(main())
