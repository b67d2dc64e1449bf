"""Errors that come from a site's end, as errors of the library."""

from __future__ import annotations

from dcde import errors
from dcde.agent.protocol import OpError

# What a site's end may say. It cannot make us raise anything else, such as a decision it has no say in.
FROM_SITES: dict[str, type[errors.DcdeError]] = {
    cls.__name__: cls
    for cls in (
        errors.PathRefused,
        errors.InvalidParameter,
        errors.NotFound,
        errors.AlreadyExists,
        errors.DiskFull,
        errors.FileTrouble,
        errors.SchedulerError,
        errors.AgentError,
        errors.AgentRestarted,
    )
}


def as_link_error(error: OpError, site: str) -> errors.DcdeError:
    """Return the library's error for one that the agent at `site` answered with."""
    cls = FROM_SITES.get(error.code, errors.AgentError)
    where = f"{site}:{error.where}" if error.where else site
    return cls(error.message, where=where, remedy=error.remedy, retry=error.retry)
