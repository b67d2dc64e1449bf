"""Speak with Slurm through its programs, as they are from version 20 on.

`scontrol` and `squeue` know a job until `MinJobAge` (five minutes by default) after its end; `sacct` knows it longer,
where a site has accounting at all. A job that none of them shows is not known to have failed: it is just not seen.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any

from .programs import Programs
from .protocol import OpError

PENDING = frozenset(
    (
        "PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT",
        "POWER_UP_NODE",
    )
)  # fmt: skip
RUNNING = frozenset(
    ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING", "UPDATE_DB")
)
ENDED = frozenset(
    (
        "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE",
        "PREEMPTED", "REVOKED", "LAUNCH_FAILED",
    )
)  # fmt: skip

SQUEUE_FIELDS = "%i|%T|%r|%N|%j"
QUEUE_AGE_S = 10.0
SACCT_AGE_S = 600.0
# What the programs say when the controller could not be asked; any other refusal stands.
UNREACHABLE = re.compile(
    r"unable to contact|timed out|connection refused|communication connection|try again|backup controller|zero bytes"
    r"|authentication|munge",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Job:
    """What the scheduler says of one job."""

    job_id: str
    slurm_state: str
    reason: str = ""
    node: str = ""
    exit_code: int | None = None

    @property
    def state(self) -> str:
        """Our word for the job's state: pending, running, ended or unknown."""
        if self.slurm_state in PENDING:
            return "pending"
        if self.slurm_state in RUNNING:
            return "running"
        return "ended" if self.slurm_state in ENDED else "unknown"


def parse_squeue(text: str) -> list[tuple[Job, str]]:
    """Return jobs and their names from `squeue -h -o SQUEUE_FIELDS`; lines of another form are passed over."""
    found = []
    for line in text.splitlines():
        # The name is last, so that a bar in it does no harm; the reason has none.
        fields = line.strip().split("|", 4)
        if len(fields) == 5 and re.fullmatch(r"[0-9]+", fields[0]):
            reason = "" if fields[2] == "None" else fields[2]
            found.append((Job(fields[0], fields[1], reason, fields[3]), fields[4]))
    return found


def parse_exit(text: str) -> int | None:
    """Return the exit code of `code:signal` as Slurm prints it; a signal counts as 128 plus its number."""
    found = re.fullmatch(r"([0-9]+):([0-9]+)", text.strip())
    if not found:
        return None
    code, signal = int(found[1]), int(found[2])
    return 128 + signal if signal else code


def parse_scontrol(text: str) -> list[tuple[Job, str]]:
    """Return jobs and their names from `scontrol -o show job`."""
    found = []
    for line in text.splitlines():
        fields = dict(re.findall(r"(?:^|\s)([A-Za-z_/:]+)=(\S*)", line))
        if re.fullmatch(r"[0-9]+", fields.get("JobId", "")):
            reason = fields.get("Reason", "")
            node = fields.get("NodeList", "")
            found.append(
                (
                    Job(
                        fields["JobId"],
                        fields.get("JobState", ""),
                        "" if reason == "None" else reason,
                        "" if node == "(null)" else node,
                        parse_exit(fields.get("ExitCode", "")),
                    ),
                    fields.get("JobName", ""),
                )
            )
    return found


def parse_sacct(text: str) -> list[tuple[Job, str]]:
    """Return jobs and their names from `sacct -X -n -P -o JobID,State,ExitCode,NodeList,JobName`."""
    found = []
    for line in text.splitlines():
        fields = line.strip().split("|", 4)
        if len(fields) == 5 and re.fullmatch(r"[0-9]+", fields[0]):
            state = fields[1].split(" ")[0]  # "CANCELLED by 1000"
            node = "" if fields[3] == "None assigned" else fields[3]
            found.append((Job(fields[0], state, "", node, parse_exit(fields[2])), fields[4]))
    return found


class Slurm:
    """Slurm at this site.

    Args:
        programs: How its programs are started.
        user: The account.
    """

    def __init__(self, programs: Programs, user: str) -> None:
        self._programs = programs
        self._user = user
        self._sacct: tuple[float, bool] | None = None
        self._queue: tuple[float, dict[str, int]] | None = None
        self._queue_lock = asyncio.Lock()

    async def _ask(self, *argv: str) -> str:
        ended = await self._programs.run(*argv)
        if ended.code != 0:
            raise refusal(argv[0], ended.err or ended.out)
        return ended.out

    async def submit(self, arguments: list[str], *, keep: tuple[int, ...]) -> str:
        """Submit with `sbatch` and return the job's id. Raises OpError SchedulerError, with `retry` when unclear."""
        ended = await self._programs.run("sbatch", "--parsable", *arguments, keep=keep)
        if ended.code != 0:
            raise refusal("sbatch", ended.err or ended.out)
        job_id = ended.out.strip().split(";")[0]
        if not re.fullmatch(r"[0-9]+", job_id):
            raise OpError("SchedulerError", f"sbatch gave no job id but: {ended.out.strip()[:200]}", retry=True)
        return job_id

    async def mine(self) -> list[tuple[Job, str]]:
        """Return all jobs of the account that the controller still knows, ended ones included, with their names."""
        return parse_squeue(await self._ask("squeue", "-h", "-t", "all", "-u", self._user, "-o", SQUEUE_FIELDS))

    async def jobs(self, job_ids: list[str]) -> dict[str, Job]:
        """Return what is known of these jobs; one that is not seen is left out. One question for all of them."""
        found = {job.job_id: job for job, _ in await self.mine()}
        missing = [job_id for job_id in job_ids if job_id not in found]
        if missing and await self._has_sacct():
            fields = "JobID,State,ExitCode,NodeList,JobName"
            ended = await self._programs.run("sacct", "-X", "-n", "-P", "-j", ",".join(missing), "-o", fields)
            if ended.code == 0:
                found.update((job.job_id, job) for job, _ in parse_sacct(ended.out))
        wanted = {job_id: found[job_id] for job_id in job_ids if job_id in found}
        return await self._with_exit_codes(wanted)

    async def _with_exit_codes(self, jobs: dict[str, Job]) -> dict[str, Job]:
        """Fill in the exit codes of ended jobs, which `squeue` does not tell, from the controller."""
        for job_id, job in jobs.items():
            if job.state == "ended" and job.exit_code is None:
                ended = await self._programs.run("scontrol", "-o", "show", "job", job_id)
                if ended.code == 0:
                    jobs.update({seen.job_id: seen for seen, _ in parse_scontrol(ended.out) if seen.job_id == job_id})
        return jobs

    async def find(self, name: str) -> str | None:
        """Return the id of the account's newest job of that name, or None when the scheduler knows none."""
        ids = [job.job_id for job, found in await self.mine() if found == name]
        if not ids and await self._has_sacct():
            out = await self._ask(
                "sacct",
                "-X",
                "-n",
                "-P",
                "--name",
                name,
                "-S",
                "now-30days",
                "-o",
                "JobID,State,ExitCode,NodeList,JobName",
            )
            ids = [job.job_id for job, found in parse_sacct(out) if found == name]
        return max(ids, key=int) if ids else None

    async def cancel(self, job_id: str) -> None:
        """Ask the scheduler to end a job; one that has ended already is no error."""
        ended = await self._programs.run("scancel", job_id)
        if ended.code != 0 and "already" not in ended.err and "Invalid job id" not in ended.err:
            raise refusal("scancel", ended.err)

    async def _has_sacct(self) -> bool:
        """Tell whether the site keeps accounts; where it does not, `sacct` fails at once."""
        now = asyncio.get_running_loop().time()
        if self._sacct is None or now - self._sacct[0] > SACCT_AGE_S:
            try:
                works = (await self._programs.run("sacct", "-X", "-n", "-P", "-o", "JobID", "-S", "now")).code == 0
            except OpError:
                works = False
            self._sacct = (now, works)
        return self._sacct[1]

    async def queue(self) -> dict[str, int]:
        """Return a summary of the queue and the nodes, at most ten seconds old."""
        async with self._queue_lock:
            now = asyncio.get_running_loop().time()
            if self._queue is None or now - self._queue[0] > QUEUE_AGE_S:
                jobs = await self._ask("squeue", "-h", "-t", "PENDING,RUNNING", "-o", "%u|%T")
                nodes = await self._ask("sinfo", "-h", "-N", "-o", "%N|%T")
                self._queue = (now, summary(jobs, nodes, self._user))
            return self._queue[1]


def summary(jobs: str, nodes: str, user: str) -> dict[str, int]:
    """Count jobs from `squeue -o "%u|%T"` and nodes from `sinfo -N -o "%N|%T"`."""
    counts = dict.fromkeys(
        ("running", "pending", "mine_running", "mine_pending", "nodes_idle", "nodes_total", "nodes_down"), 0
    )
    for line in jobs.splitlines():
        owner, _, state = line.strip().rpartition("|")
        word = state.lower()
        if word in ("running", "pending"):
            counts[word] += 1
            if owner == user:
                counts["mine_" + word] += 1
    # A node stands once for each of its partitions.
    states: dict[str, str] = {}
    for line in nodes.splitlines():
        node, _, state = line.strip().rpartition("|")
        states[node] = state
    counts["nodes_total"] = len(states)
    for state in states.values():
        # A star means that the node does not answer.
        if state.endswith("*") or re.match(r"down|drain|fail|maint|unk|no_respond|power", state):
            counts["nodes_down"] += 1
        elif state.startswith("idle"):
            counts["nodes_idle"] += 1
    return counts


def refusal(program: str, said: str) -> OpError:
    """Return the error for what a program of the scheduler said; `retry` when the controller could not be asked."""
    text = " ".join(said.split())[:1000] or "no reason was given"
    remedy = "" if UNREACHABLE.search(text) else _remedy(text)
    return OpError("SchedulerError", f"{program}: {text}", remedy=remedy, retry=bool(UNREACHABLE.search(text)))


def _remedy(text: str) -> str:
    for pattern, remedy in (
        (r"invalid partition|partition", "Choose another partition of this site."),
        (r"account", "Choose an allocation that you may use at this site."),
        (r"time limit", "Ask for less time, or choose a partition with a longer limit."),
        (r"node configuration|memory|cpu count|resources", "Ask for fewer cores or less memory per node."),
    ):
        if re.search(pattern, text, re.IGNORECASE):
            return remedy
    return ""


def submit_arguments(options: dict[str, Any]) -> list[str]:
    """Return the arguments of `sbatch` for our options.

    Every core is a task of its own, so that MPI programs find their slots; threads may use the same cores.
    """
    arguments = ["--no-requeue", f"--nodes={_number(options, 'nodes', 1)}"]
    arguments.append(f"--ntasks-per-node={_number(options, 'cores', 1)}")
    for name, flag in (("memory_mb", "--mem={}M"), ("walltime_minutes", "--time={}"), ("gpus", "--gres=gpu:{}")):
        amount = _number(options, name, 0)
        if amount:
            arguments.append(flag.format(amount))
    for name, flag in (("partition", "--partition"), ("account", "--account"), ("name", "--comment")):
        value = options.get(name)
        if value:
            if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}", value):
                raise OpError("InvalidParameter", f"The {name} has characters that are not allowed.", where=name)
            arguments.append(f"{flag}={value}")
    return arguments


def _number(options: dict[str, Any], name: str, default: int) -> int:
    value = options.get(name, default)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 10**8:
        raise OpError("InvalidParameter", f"{name} must be a whole number.", where=name)
    return value
