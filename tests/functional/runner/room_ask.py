"""Asks the runner of a room: `room_ask.py SOCKET OP ARGS_JSON`, or `room_ask.py SOCKET until RUN STEP_OR_- STATE...`.

Prints one JSON text: the result, the error as {"error": ...}, or for `until` the run once it or its step has a state.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from dcde.client import SyncClient
from dcde.errors import DcdeError


def until(ask: SyncClient, run: str, step: str, states: list[str]) -> Any:
    for event in ask.watch(run):
        steps = event["steps"] if event["type"] == "run" else [event]
        seen = [s["state"] for s in steps if s["id"] == step]
        if step == "-" and event["type"] == "run":
            seen = [event["state"]]
        ended = event["type"] == "run" and event["state"] in ("succeeded", "failed", "cancelled")
        if ended or any(state in states for state in seen):
            return ask.call("runs.show", run=run)
    return None


def main() -> None:
    path, op, *rest = sys.argv[1:]
    ask = SyncClient(path)
    try:
        result = until(ask, rest[0], rest[1], rest[2:]) if op == "until" else ask.call(op, **json.loads(rest[0]))
    except DcdeError as error:
        result = {"error": error.to_json()}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
