"""Which operations of the runner the panel may ask for, and how its errors appear in HTTP."""

from __future__ import annotations

from dcde.errors import (
    AlreadyExists,
    CredentialsError,
    DcdeError,
    DiskFull,
    LinkError,
    NotAllowed,
    NotFound,
    PathRefused,
    RunnerBusy,
    RunnerError,
    SiteError,
    UnknownName,
    UsageError,
)

READING = frozenset(
    {
        "whoami",
        "sites.list",
        "files.list",
        "transfers.list",
        "projects.list",
        "projects.show",
        "templates.list",
        "templates.show",
        "runs.list",
        "runs.show",
        "runs.log",
    }
)
"""These change nothing, so that a window which is only left open does not count as activity."""

CHANGING = frozenset(
    {
        "files.mkdir",
        "files.remove",
        "files.copy",
        "transfers.cancel",
        "projects.create",
        "runs.launch",
        "runs.cancel",
        "runs.resume",
    }
)

OPERATIONS = READING | CHANGING

RETRY_AFTER = "2"
"""Seconds after which a request that met a runner on its way may be tried again."""

# The first class that fits decides, so the narrower ones stand first.
_STATUS: tuple[tuple[type[DcdeError], int], ...] = (
    (UnknownName, 404),
    (NotFound, 404),
    (PathRefused, 403),
    (NotAllowed, 403),
    (UsageError, 400),
    (AlreadyExists, 409),
    (RunnerBusy, 409),
    (DiskFull, 507),
    (CredentialsError, 502),
    (LinkError, 502),
    (SiteError, 502),
    (RunnerError, 502),
)


class NotConnected(DcdeError):
    """This Jupyter server was not started by a DCDE hub."""


def not_connected() -> NotConnected:
    """Return the error for a server that is no part of a hub."""
    return NotConnected(
        "This Jupyter server is not part of a DCDE hub.",
        remedy="Log in at the address of your DCDE hub and start your server there.",
    )


def status_of(error: DcdeError) -> int:
    """Return the HTTP status for an error of the runner; what trying again may cure is 503."""
    status = next((number for cls, number in _STATUS if isinstance(error, cls)), 500)
    if isinstance(error, NotConnected) or (status in (500, 502) and error.retry):
        return 503
    return status
