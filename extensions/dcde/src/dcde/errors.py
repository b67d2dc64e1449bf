"""Every error of the library, as one tree.

    DcdeError
    ├── UsageError                 the request cannot be carried out as it stands
    │   ├── UnknownName            no such site, template, run, project, step
    │   ├── InvalidParameter       a value out of range, of a wrong type or with unsafe characters
    │   ├── PathRefused            a path that leaves the person's folder, also through a link
    │   └── TemplateError          a template that cannot be used: a cycle, an unknown step, a bad field
    ├── NotAllowed                 a decision was "no"; the remedy names what is missing
    ├── CredentialsError           no certificate or token could be had
    │   └── BrokerUnreachable      the broker does not answer (retry)
    ├── LinkError
    │   ├── LinkLost               the connection to a site is gone for now (retry)
    │   ├── LinkRefused            the site or the broker refuses the connection
    │   └── AgentError             the site's end answered with an error
    │       └── AgentRestarted     the site's end was started anew while it answered (retry)
    ├── SiteError
    │   ├── NotFound               no such file or folder at the site
    │   ├── AlreadyExists          a file or folder of that name is already there
    │   ├── DiskFull               the storage of a site or the home folder is full
    │   ├── FileTrouble            the site's file system refused (permissions, type)
    │   └── SchedulerError         the scheduler refused or did not answer
    ├── JobError
    │   ├── JobFailed              the application ran and did not deliver what it promised
    │   ├── JobLost                proven dead without a result: a new attempt may be made (retry)
    │   └── JobCancelled           ended because somebody asked for it
    ├── FunctionsError             interactive functions cannot run at a site
    │   ├── VersionsDiffer         the site's Python, parsl or dill is not that of the notebook
    │   ├── WorkersFailed          the batch jobs with the workers do not start, or end at once (retry)
    │   └── FunctionLost           a call was lost with what ran it, twice (retry)
    ├── MovementError              bytes could not be brought where they are needed
    │   └── ChecksumMismatch       what arrived is not what was sent; it was thrown away (retry)
    └── RunnerError
        ├── RunnerUnreachable      no runner answers on the socket (retry)
        └── RunnerBusy             another runner of the same person is at work

Each error says what failed (the message), where, what the user can do (the remedy), and whether trying again can help.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class DcdeError(Exception):
    """The root of the library's errors.

    Args:
        message: What failed, as a sentence.
        where: The site, file, step or field it concerns; empty when there is none.
        remedy: What the user can do, as a sentence; empty when nothing helps.
        retry: Whether doing the same again later can help; by default the class decides.
    """

    retry_by_default: ClassVar[bool] = False

    def __init__(self, message: str, *, where: str = "", remedy: str = "", retry: bool | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.remedy = remedy
        self.retry = self.retry_by_default if retry is None else retry

    @property
    def code(self) -> str:
        """The name of the error's class, as it stands in messages between processes."""
        return type(self).__name__

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        if not self.remedy:
            return text
        return f"{text} {self.remedy}" if text.endswith((".", "!", "?", "…", ":")) else f"{text}. {self.remedy}"

    def to_json(self) -> dict[str, Any]:
        """Return the error in the form in which it crosses the runner's socket."""
        return {
            "code": self.code,
            "message": self.message,
            "where": self.where,
            "remedy": self.remedy,
            "retry": self.retry,
        }


class UsageError(DcdeError):
    """The request cannot be carried out as it stands."""


class UnknownName(UsageError):
    """There is no site, template, run, project or step of that name."""


class InvalidParameter(UsageError):
    """A value is out of range, of a wrong type, or has unsafe characters."""


class PathRefused(UsageError):
    """A path leaves the person's folder, also through a link."""


class TemplateError(UsageError):
    """A template cannot be used."""


class NotAllowed(DcdeError):
    """A decision was "no"; the remedy names what is missing and where to get it."""


class CredentialsError(DcdeError):
    """No certificate or token could be had."""


class BrokerUnreachable(CredentialsError):
    """The broker does not answer."""

    retry_by_default = True


class LinkError(DcdeError):
    """Something is wrong with the connection to a site."""


class LinkLost(LinkError):
    """The connection to a site is gone for now. It says nothing about the jobs there."""

    retry_by_default = True


class LinkRefused(LinkError):
    """The site or the broker refuses the connection."""


class AgentError(LinkError):
    """The site's end answered with an error of its own."""


class AgentRestarted(AgentError):
    """The site's end was started anew while it was answering."""

    retry_by_default = True


class SiteError(DcdeError):
    """A site could not do what it was asked."""


class NotFound(SiteError):
    """There is no such file or folder at the site."""


class AlreadyExists(SiteError):
    """A file or folder of that name is already there."""


class DiskFull(SiteError):
    """The storage of a site, or the home folder there, is full."""

    retry_by_default = True


class FileTrouble(SiteError):
    """The site's file system refused, for want of a right or because of the file's type."""


class SchedulerError(SiteError):
    """The scheduler of a site refused, or did not answer."""


class JobError(DcdeError):
    """A batch job did not end as it should.

    `result` is the result.json of the job, when it left one.
    """

    result: dict[str, Any] | None = None


class JobFailed(JobError):
    """The application ran and did not deliver what it promised."""


class JobLost(JobError):
    """The job is proven dead and left no result, so that a new attempt may be made."""

    retry_by_default = True


class JobCancelled(JobError):
    """The job ended because somebody asked for it."""


class FunctionsError(DcdeError):
    """Interactive functions cannot run at a site."""


class VersionsDiffer(FunctionsError):
    """The site's Python, parsl or dill is not that of the notebook, so that functions could not cross."""


class WorkersFailed(FunctionsError):
    """The batch jobs with the workers do not start, or end at once."""

    retry_by_default = True


class FunctionLost(FunctionsError):
    """A call was lost with the worker or the interchange that had it, also the second time."""

    retry_by_default = True


class MovementError(DcdeError):
    """Bytes could not be brought where they are needed."""


class ChecksumMismatch(MovementError):
    """What arrived is not what was sent; it was thrown away."""

    retry_by_default = True


class RunnerError(DcdeError):
    """Something is wrong with the person's runner."""


class RunnerUnreachable(RunnerError):
    """No runner answers on the socket."""

    retry_by_default = True


class RunnerBusy(RunnerError):
    """Another runner of the same person is at work."""


def _tree(cls: type[DcdeError]) -> dict[str, type[DcdeError]]:
    found = {cls.__name__: cls}
    for child in cls.__subclasses__():
        found |= _tree(child)
    return found


def error_from_json(data: Mapping[str, Any]) -> DcdeError:
    """Return the error that `DcdeError.to_json` described; an unknown code becomes a plain `DcdeError`."""
    cls = _tree(DcdeError).get(str(data.get("code", "")), DcdeError)
    return cls(
        str(data.get("message", "unknown error")),
        where=str(data.get("where", "")),
        remedy=str(data.get("remedy", "")),
        retry=bool(data.get("retry", False)),
    )
