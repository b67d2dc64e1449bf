"""Log lines of the testbed's own programs: one JSON object a line, with the fields that the product's logs have too."""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def log(program: str, event: str, *, level: str = "info", **fields: Any) -> None:
    """Write one line to standard error. Values that JSON does not know are written as text."""
    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
    line = {"time": stamp, "level": level, "component": f"testbed.{program}", "event": event, **fields}
    print(json.dumps(line, default=str), file=sys.stderr, flush=True)
