"""What every measurement shares: medians, CPU time, the machine, its load, and the result file."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks import ROOT

RESULTS = ROOT / "benchmarks/results"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass
class Figure:
    """One figure: ours, the peer's, both medians; `peer` is None where an absolute figure is all there is."""

    name: str
    title: str
    unit: str
    ours: float
    peer: float | None = None
    peer_name: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours over the peer's."""
        return self.ours / self.peer if self.peer else None

    def to_json(self) -> dict[str, Any]:
        """Return the figure with its ratio, rounded to what can be believed."""
        ratio = self.ratio
        return {**asdict(self), "ours": rounded(self.ours), "peer": rounded(self.peer), "ratio": rounded(ratio)}


@dataclass
class Result:
    """What one benchmark found."""

    name: str
    what: str
    peer: str
    figures: list[Figure]
    turns: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)


class Load(AbstractContextManager["Load"]):
    """The machine's load around a measurement, and how much of its processors was busy in between."""

    def __init__(self) -> None:
        self.before: list[float] = []
        self.after: list[float] = []
        self.busy_share = 0.0
        self._began = (0.0, 0.0)

    def __enter__(self) -> Self:
        self.before = loads()
        self._began = _processors()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.after = loads()
        busy, all_ = (now - then for now, then in zip(_processors(), self._began, strict=True))
        self.busy_share = busy / all_ if all_ else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return load averages over 1, 5 and 15 minutes, and the share of all processor time that was used."""
        return {"before": self.before, "after": self.after, "busy_share": rounded(self.busy_share)}


def loads() -> list[float]:
    """Return the load averages over 1, 5 and 15 minutes."""
    return [round(value, 2) for value in os.getloadavg()]


def busy_now(seconds: float = 2.0) -> float:
    """Return the share of all processor time used in the next seconds, before anything of ours runs."""
    began = _processors()
    time.sleep(seconds)
    busy, all_ = (now - then for now, then in zip(_processors(), began, strict=True))
    return rounded(busy / all_) if all_ else 0.0


def _processors() -> tuple[float, float]:
    """Return ticks of all processors in use and in all, since boot (proc(5), /proc/stat)."""
    values = [int(value) for value in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle = values[3] + values[4]
    return float(sum(values) - idle), float(sum(values))


def cpu_seconds(stat: str) -> float:
    """Return the CPU seconds of a process and the children it has waited for, from its /proc/PID/stat."""
    fields = stat.rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15]) / TICKS_PER_S


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return float(statistics.median(values))


def rounded(value: float | None) -> Any:
    """Return a number to four significant digits."""
    return None if value is None else float(f"{value:.4g}")


def machine() -> dict[str, Any]:
    """Return what the machine is."""
    facts = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":", 1)[1].strip() for line in facts if line.startswith("model name")), "")
    memory_kb = int(Path("/proc/meminfo").read_text().split(None, 2)[1])
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    return {
        "processor": cpu,
        "cores": os.cpu_count(),
        "memory_gb": round(memory_kb / 1e6, 1),
        "kernel": platform.release(),
        "system": system,
        "python": platform.python_version(),
    }


def commit() -> str:
    """Return the commit of the working tree, with a + when files differ from it."""

    def git(*argv: str) -> str:
        return subprocess.run(["git", *argv], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")


def write(result: Result, load: Load, others: float, seconds: float) -> Path:
    """Write the result file and return its path.

    Args:
        result: What was found.
        load: The load around it.
        others: The share of the processors that other work used just before.
        seconds: How long it all took.
    """
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    content = {
        "name": result.name,
        "what": result.what,
        "peer": result.peer,
        "date": now,
        "commit": commit(),
        "seconds": round(seconds),
        "machine": machine(),
        "load": {**load.to_json(), "busy_share_of_other_work_before": others},
        "figures": [figure.to_json() for figure in result.figures],
        "notes": result.notes,
        "turns": result.turns,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{result.name}.json"
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path
