"""A real runner in the hub's room, with short times for functions, and a site whose Python has no parsl.

functions_runner.py STATE RUNTIME: prints `ready` and works until it is ended.
"""

from __future__ import annotations

import asyncio
import functools
import json
import sys
from pathlib import Path

import room_runner
from aiohttp import web
from dcde.runner import process
from dcde.runner.functions import FunctionsDesk, FunctionTimes


class Broker(room_runner.Broker):
    async def sites(self, request: web.Request) -> web.Response:
        answer = json.loads((await super().sites(request)).text or "")
        for site in answer["sites"]:
            if site["name"] == "ornl-cades":
                site["worker_interpreter"] = "/usr/bin/python3"
        return web.json_response(answer)


if __name__ == "__main__":
    room_runner.Broker = Broker  # type: ignore[misc]
    times = FunctionTimes(lease=20, heartbeat=8, kernel=60)
    process.FunctionsDesk = functools.partial(FunctionsDesk, times=times)  # type: ignore[misc,assignment]
    asyncio.run(room_runner.main(Path(sys.argv[1]), Path(sys.argv[2])))
