"""What the ledger hands out: runs, steps, attempts, replicas and transfers as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class FileFacts:
    """A file at a site as it was seen: its path below the project folder, size in bytes, time of change, checksum."""

    path: str
    size: int
    mtime_ns: int
    sha256: str | None = None


@dataclass(frozen=True)
class Replica:
    """A project file at a site; `born` tells that it was made there, by the step `origin` or by the person."""

    path: str
    site: str
    size: int
    mtime_ns: int
    sha256: str | None
    origin: str
    born: bool
    state: str


@dataclass
class StepRow:
    """A step of a run as the ledger has it; times are seconds since 1970, `detail` what the views show besides."""

    run: int
    id: str
    wish: str
    site: str | None = None
    state: str = "waiting"
    why: str = ""
    attempt: int = 0
    first_attempt: int = 1
    queued_at: float | None = None
    started: float | None = None
    ended: float | None = None
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass
class RunRow:
    """A run as the ledger has it, with its steps in the order of the plan."""

    id: int
    template: str
    title: str
    project: str
    parameters: dict[str, Any]
    plan: dict[str, Any]
    allocation: str | None
    partition: str | None
    token: str | None
    state: str
    reason: str
    wanted: str
    created: float
    ended: float | None
    steps: list[StepRow] = field(default_factory=list)


@dataclass(frozen=True)
class Attempt:
    """One attempt of a step: one batch job at a site, known there by `key`; `spec` is what was or will be submitted."""

    key: str
    run: int
    step: str
    number: int
    site: str
    state: str
    spec: str
    job_id: str | None


@dataclass
class TransferRow:
    """A copy that a person asked for, from `site:path` to `site:path`."""

    id: int
    source: str
    target: str
    state: str
    created: float
    ended: float | None
    detail: dict[str, Any]
