"""What is known of a job: its state while it is followed, its result, and what its end means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dcde.errors import JobCancelled, JobError, JobFailed, JobLost
from dcde.jobs.slurm import Rule, rule

SECOND_START = 76
"""Exit code of a start that found the attempt claimed by an earlier one; the same number as in `job.py`."""

DISK_FULL = 28
"""Exit code of a job that could not even note its own end for want of space; the same number as in `job.py`."""

_REMEDIES = {
    "TIMEOUT": "Give the step more time, or choose a partition that allows more.",
    "OUT_OF_MEMORY": "Give the step more memory.",
}
_NOT_SHOWN = ("The scheduler does not show it.", "It was not submitted.")
"""What the agent gives as reason when the scheduler answered and the job was not in the answer."""

_LOG = "Look at the log of the step."


@dataclass(frozen=True)
class JobStatus:
    """What is known of a job at the moment; `unknown` means that the site cannot be asked, and nothing else."""

    key: str
    state: Literal["submitting", "pending", "running", "unknown"]
    slurm_state: str | None = None
    reason: str = ""
    job_id: str | None = None
    node: str | None = None
    progress: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class JobResult:
    """The result of a job that delivered what it promised; `result` is its result.json."""

    key: str
    job_id: str | None
    node: str | None
    result: Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """One key's part of the agent's answer to `poll`, with our rule for the scheduler's word."""

    state: str
    slurm_state: str | None
    reason: str
    job_id: str | None
    node: str | None
    exit_code: int | None
    result: Mapping[str, Any] | None
    progress: Mapping[str, Any] | None

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Answer:
        """Return the answer; fields that are missing or of a wrong type count as not known."""
        result, progress = data.get("result"), data.get("progress")
        return cls(
            state=str(data.get("state") or "unknown"),
            slurm_state=_text(data.get("slurm_state")),
            reason=_text(data.get("reason")) or "",
            job_id=_text(data.get("job_id")),
            node=_text(data.get("node")),
            exit_code=_exit_code(data.get("exit_code")),
            result=result if isinstance(result, Mapping) else None,
            progress=progress if isinstance(progress, Mapping) else None,
        )

    @property
    def rule(self) -> Rule | None:
        """Our rule for the scheduler's word, when it is a known one."""
        return rule(self.slurm_state)

    @property
    def gone(self) -> bool:
        """Whether the scheduler has answered and knows nothing of the job (any more). That is no proof of its end."""
        return self.state == "unknown" and self.reason in _NOT_SHOWN

    @property
    def ended(self) -> bool:
        """Whether the job has ended: there is a result, or the scheduler says so."""
        if self.result is not None:
            return True
        return self.rule.state == "ended" if self.rule else self.state == "ended"

    def status(self, key: str) -> JobStatus:
        """Return the state in which a job that has not ended is."""
        known = self.rule
        state: Literal["pending", "running", "unknown"] = "unknown"
        if known is not None:
            state = "running" if known.state != "pending" else "pending"
        elif self.state in ("pending", "running"):
            state = "pending" if self.state == "pending" else "running"
        reason = self.reason
        if known is not None and self.slurm_state in ("SUSPENDED", "STOPPED", "REQUEUED", "REQUEUE_HOLD"):
            reason = f"The job {known.meaning}. {reason}".strip()
        return JobStatus(key, state, self.slurm_state, reason, self.job_id, self.node, self.progress)


def end_with_result(key: str, answer: Answer, *, asked_to_cancel: bool) -> JobResult | JobError:
    """Return what the end of a job with a result.json means."""
    result = answer.result or {}
    if result.get("ok") is True:
        return JobResult(key, answer.job_id, answer.node, result)
    known = answer.rule
    problems = [str(problem) for problem in result.get("problems") or ["The job failed without saying why."]]
    text = " ".join(problems)
    if result.get("ended_by"):
        if asked_to_cancel or (known and known.outcome == "cancelled"):
            return _carrying(JobCancelled(_cancelled(asked_to_cancel), where=key), result)
        if known and known.outcome == "lost":
            return _carrying(JobLost(f"The job {known.meaning}.", where=key), result)
        word = "TIMEOUT" if "time limit" in text else (answer.slurm_state or "")
        return _carrying(JobFailed(text, where=key, remedy=_REMEDIES.get(word, _LOG)), result)
    remedy = _LOG
    if any("full" in problem for problem in problems):
        remedy = "Make room at the site, then resume the run."
    return _carrying(JobFailed(text, where=key, remedy=remedy), result)


def end_without_result(key: str, answer: Answer, *, last_words: str, asked_to_cancel: bool) -> JobError:
    """Return what the end of a job means that left no result.json; `last_words` is the tail of its error output."""
    known = answer.rule or Rule("ended", "ended")
    if known.outcome == "cancelled" or asked_to_cancel:
        return JobCancelled(_cancelled(asked_to_cancel), where=key)
    if known.outcome == "lost":
        return JobLost(f"The job {known.meaning}.", where=key, remedy="A new attempt can be made.")
    if answer.exit_code == DISK_FULL:
        remedy = "Make room at the site, then resume the run."
        return JobFailed("The disk at the site is full: the job could not note its result.", where=key, remedy=remedy)
    said = f" Its last words: {last_words}" if last_words else ""
    code = f" (exit code {answer.exit_code})" if answer.exit_code else ""
    remedy = _REMEDIES.get(answer.slurm_state or "", _LOG)
    return JobFailed(f"The job {known.meaning}{code} and left no result.{said}", where=key, remedy=remedy)


def _cancelled(asked: bool) -> str:
    return "The job was cancelled." if asked else "The job was cancelled at the site."


def _carrying(error: JobError, result: Mapping[str, Any]) -> JobError:
    """Return the error with the job's result.json, so that rows and pictures made until then can still be shown."""
    error.result = dict(result)
    return error


def _text(value: object) -> str | None:
    return str(value) if isinstance(value, str | int) and value != "" else None


def _exit_code(value: object) -> int | None:
    """Return the exit code from a number or from Slurm's "code:signal"."""
    if isinstance(value, int):
        return value
    head = str(value).split(":", 1)[0]
    return int(head) if head.isdigit() else None
