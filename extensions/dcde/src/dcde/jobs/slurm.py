"""What Slurm's words for the state of a job mean to us, and the `batch.sh` we hand to it.

The states are those of `squeue` and `scontrol` in Slurm 22.05 (man squeue, JOB STATE CODES) and later ones.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

State = Literal["pending", "running", "ended"]
Outcome = Literal["failed", "lost", "cancelled"]

KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}\Z")
"""The alphabet of keys: a key is a folder at the site and the job's name in the scheduler."""


@dataclass(frozen=True)
class Rule:
    """Our rule for one state of Slurm.

    Attributes:
        state: What the job does.
        meaning: The state in a person's words.
        outcome: What a job without a result was: `failed` (the same again would not help), `lost` (proven dead through
            no fault of its own: a new attempt may be made), `cancelled` (somebody wanted it).
    """

    state: State
    meaning: str
    outcome: Outcome = "failed"


RULES: dict[str, Rule] = {
    "PENDING": Rule("pending", "waits in the queue"),
    "CONFIGURING": Rule("pending", "its nodes are being prepared"),
    "REQUEUED": Rule("pending", "was put back into the queue by the site"),
    "REQUEUE_FED": Rule("pending", "was put back into the queue by the site"),
    "REQUEUE_HOLD": Rule("pending", "was put back into the queue and is held by the site"),
    "RESV_DEL_HOLD": Rule("pending", "is held because its reservation was removed"),
    "SPECIAL_EXIT": Rule("pending", "was put back into the queue and is held by the site"),
    "RUNNING": Rule("running", "is running"),
    "COMPLETING": Rule("running", "is coming to its end"),
    "STAGE_OUT": Rule("running", "is coming to its end"),
    "SIGNALING": Rule("running", "is running"),
    "RESIZING": Rule("running", "is running"),
    "SUSPENDED": Rule("running", "is suspended by the site and will go on"),
    "STOPPED": Rule("running", "is stopped by the site and will go on"),
    "COMPLETED": Rule("ended", "ended"),
    "FAILED": Rule("ended", "ended with an error"),
    "OUT_OF_MEMORY": Rule("ended", "was ended because it needed more memory than it had asked for"),
    "TIMEOUT": Rule("ended", "reached its time limit"),
    "DEADLINE": Rule("ended", "could not end before its deadline"),
    "CANCELLED": Rule("ended", "was cancelled", "cancelled"),
    "NODE_FAIL": Rule("ended", "died with its node", "lost"),
    "BOOT_FAIL": Rule("ended", "never began, as its node did not start", "lost"),
    "LAUNCH_FAILED": Rule("ended", "never began, as its node could not start it", "lost"),
    "PREEMPTED": Rule("ended", "had to make room for a more urgent job", "lost"),
    "REVOKED": Rule("ended", "was taken away by another cluster", "lost"),
}


def rule(slurm_state: str | None) -> Rule | None:
    """Return the rule for a state as Slurm writes it (`CANCELLED by 51001`, `CANCELLED+`); None for an unknown word."""
    word = (slurm_state or "").split(" ", 1)[0].rstrip("+").upper()
    return RULES.get(word)


class BatchOptions(BaseModel):
    """What a job asks of Slurm; only values of a safe alphabet and sane range exist."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,120}$")
    partition: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,62}$")
    account: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,62}$")
    walltime_minutes: int = Field(ge=1, le=60 * 24 * 30)
    cores: int = Field(ge=1, le=4096)
    memory_mb: int = Field(ge=1, le=16_000_000)
    nodes: int = Field(default=1, ge=1, le=4096)
    gpus: int = Field(default=0, ge=0, le=4096)


def batch_script(options: BatchOptions, interpreter: str) -> str:
    """Return the text of `batch.sh`: it is submitted from the job's record and starts `job.py` there.

    `--no-requeue`: a job that was started once is never started again behind our back. The log is appended to, so that
    the note of a second start does not wipe the log of the first. Every core is a task of its own, so that MPI programs
    find their slots; the threads of one program may use them all the same.
    """
    asked = [
        f"--job-name={options.name}",
        "--no-requeue",
        "--output=batch.log",
        "--open-mode=append",
        f"--time={options.walltime_minutes}",
        f"--nodes={options.nodes}",
        f"--ntasks-per-node={options.cores}",
        f"--mem={options.memory_mb}",
    ]
    if options.partition:
        asked.append(f"--partition={options.partition}")
    if options.account:
        asked.append(f"--account={options.account}")
    if options.gpus:
        asked.append(f"--gpus-per-node={options.gpus}")
    lines = ["#!/bin/bash", *(f"#SBATCH {option}" for option in asked)]
    return "\n".join([*lines, f"exec {shlex.quote(interpreter)} job.py", ""])
