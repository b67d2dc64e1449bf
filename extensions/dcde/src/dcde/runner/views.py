"""Runs, steps, projects and transfers in the form in which they leave the runner."""

from __future__ import annotations

from typing import Any

from dcde.data.ledger import Replica, RunRow, StepRow, TransferRow
from dcde.pipelines.model import RunPlan, StepPlan

STEP_DETAIL: dict[str, Any] = {
    "job_id": None,
    "slurm_state": None,
    "node": None,
    "fraction": None,
    "bytes_moved": 0,
    "metrics": {},
    "rows": {},
    "pictures": [],
    "problems": [],
    "error": None,
}
"""What a step shows beside its columns in the ledger, as long as nothing is known."""


def step_view(row: StepRow, plan: StepPlan) -> dict[str, Any]:
    """Return a step as panel and command show it."""
    return {
        "id": row.id,
        "title": plan.title,
        "job_type": plan.job_type,
        "site": row.site,
        "site_wish": row.wish,
        "after": list(plan.after),
        "state": row.state,
        "why": row.why,
        "attempt": row.attempt,
        "queued_at": row.queued_at,
        "started": row.started,
        "ended": row.ended,
        **{name: row.detail.get(name, empty) for name, empty in STEP_DETAIL.items()},
    }


def run_view(row: RunRow, plan: RunPlan) -> dict[str, Any]:
    """Return a run with its steps."""
    return {
        "id": run_id(row.id),
        "template": row.template,
        "title": row.title,
        "project": row.project,
        "parameters": row.parameters,
        "state": row.state,
        "reason": row.reason,
        "created": row.created,
        "ended": row.ended,
        "steps": [step_view(step, plan.step(step.id)) for step in row.steps],
    }


def run_id(number: int) -> str:
    """Return the name of a run, such as `r7`."""
    return f"r{number}"


def project_view(project: dict[str, Any], replicas: list[Replica]) -> dict[str, Any]:
    """Return a project with its files and where each of them is."""
    files: dict[str, dict[str, Any]] = {}
    for r in replicas:
        file = files.setdefault(r.path, {"path": r.path, "size": r.size, "origin": r.origin, "replicas": []})
        if r.born:
            file |= {"size": r.size, "origin": r.origin}
        file["replicas"].append(
            {"site": r.site, "state": r.state, "size": r.size, "sha256": r.sha256, "mtime": r.mtime_ns / 1e9}
        )
    return {**project, "replicas": list(files.values())}


def transfer_view(row: TransferRow) -> dict[str, Any]:
    """Return a transfer as panel and command show it; `rate` is in bytes a second."""
    detail = row.detail
    return {
        "id": f"t{row.id}",
        "source": row.source,
        "target": row.target,
        "state": row.state,
        "bytes_done": detail.get("bytes_done", 0),
        "bytes_total": detail.get("bytes_total"),
        "files_done": detail.get("files_done", 0),
        "files_total": detail.get("files_total"),
        "rate": detail.get("rate"),
        "started": row.created,
        "ended": row.ended,
        "error": detail.get("error"),
    }
