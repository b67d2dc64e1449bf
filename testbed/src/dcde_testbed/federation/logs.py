"""Log lines of the federation: one line a record, without what the libraries would reveal.

SATOSA writes a person's whole session state with every failed login, and pyop writes tokens and codes at its lower
levels. So the libraries are heard from WARNING on, the state and the cookies are cut off, and tracebacks name
places but no values.
"""

from __future__ import annotations

import logging
import logging.config
import re
from typing import Any

_STATE = re.compile(r"\s*STATE:.*", re.DOTALL)
_LONG = re.compile(r"[A-Za-z0-9+/_=-]{60,}")


class OneLine(logging.Formatter):
    """Formats a record as one line, without session state and without long opaque values."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; an exception adds its type and the place that raised it, never its traceback."""
        message = _LONG.sub("<...>", _STATE.sub("", record.getMessage()))
        if record.exc_info and record.exc_info[0] is not None:
            message += f" ({record.exc_info[0].__name__}{_place(record.exc_info[2])})"
        line = f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S%z')} {record.levelname} {record.name}: {message}"
        return line.replace("\n", " ").replace("\r", " ")


def _place(traceback: Any) -> str:
    if traceback is None:
        return ""
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return f" in {traceback.tb_frame.f_code.co_name}, line {traceback.tb_lineno}"


def configuration() -> dict[str, Any]:
    """Return the configuration for `logging.config.dictConfig`, which SATOSA also wants to be given."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": "dcde_testbed.federation.logs.OneLine"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"level": "WARNING", "handlers": ["stderr"]},
        "loggers": {
            "dcde_testbed": {"level": "INFO"},
            "saml2.mdstore": {
                "level": "CRITICAL"
            },  # calls it an error that institutions take requests by redirect only
            "gunicorn.error": {"level": "INFO", "handlers": ["stderr"], "propagate": False},
        },
    }


def configure() -> None:
    """Set up logging for a serving process."""
    logging.config.dictConfig(configuration())
