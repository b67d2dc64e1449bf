"""Log lines as JSON, with one request id from browser to job, and without secrets."""

from __future__ import annotations

import contextvars
import datetime
import json
import logging
import re
import secrets
import sys
from typing import IO

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")
"""The id of the request that is being worked on; it goes along in `X-Request-ID` and on the runner's socket."""

FIELDS = ("person", "run", "step", "site", "job")
"""What a log record may carry in `extra`, beside its message."""

_SECRETS = re.compile(
    r"""(?ix)
    (?P<keep>
      (?:authorization|bearer|token|secret|password|passwd|cookie|api[_-]?key) ["']? \s* [:=]? \s*
        (?:token|bearer)? \s+ ["']?
      | (?: (?:token|secret|password|api_key|code_verifier) ["']? \s* [=:] | [?&]code= ) \s* ["']?
    )
    (?P<hide> [A-Za-z0-9._~+/-]{8,}=* )
    | -----BEGIN[ A-Z]*PRIVATE[ ]KEY-----.*?(?:-----END[ A-Z]*PRIVATE[ ]KEY-----|$)
    | \b eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*
    """,
    re.DOTALL,
)


def new_request_id() -> str:
    """Return a fresh request id: `q` and twelve hexadecimal digits."""
    return "q" + secrets.token_hex(6)


def valid_request_id(text: str | None) -> str:
    """Return `text` when it has the shape of a request id, and otherwise a fresh one."""
    return text if text and re.fullmatch(r"q[0-9a-f]{12}", text) else new_request_id()


def redact(text: str) -> str:
    """Return `text` with everything that looks like a token, password or private key replaced by `[hidden]`."""
    return _SECRETS.sub(lambda m: (m["keep"] or "") + "[hidden]", text)


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON: time, level, logger, message, request and the fields of `FIELDS`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for a record."""
        line: dict[str, object] = {
            "time": datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        if request := getattr(record, "request", "") or request_id.get():
            line["request"] = request
        line |= {name: value for name in FIELDS if (value := getattr(record, name, None)) is not None}
        if record.exc_info:
            line["error"] = redact(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


def set_up_logs(level: int | str = logging.INFO, stream: IO[str] | None = None) -> None:
    """Send all log records of this process to `stream` (standard error by default) as JSON lines."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
