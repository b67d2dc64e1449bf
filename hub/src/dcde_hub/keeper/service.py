"""The keeper's one question to answer: which runs are unfinished."""

from __future__ import annotations

from aiohttp import web

from dcde_hub.errors import Invalid
from dcde_hub.keeper.memory import Memory
from dcde_hub.web import BODY, Callers, json_body, one_answer

RUNS = 1000
"""The most runs that one person can have unfinished."""


class Keeper:
    """The keeper's handlers.

    Args:
        callers: Says who is asking.
        memory: Where the answer is kept.
    """

    def __init__(self, callers: Callers, memory: Memory) -> None:
        self._callers = callers
        self._memory = memory

    def application(self, prefix: str = "/services/keeper") -> web.Application:
        """Return the web application with everything below `prefix`."""
        application = web.Application(middlewares=[one_answer], client_max_size=BODY)
        application.router.add_get(f"{prefix}/health", self._health)
        application.router.add_put(f"{prefix}/needed", self._needed)
        return application

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"ok": True})

    async def _needed(self, request: web.Request) -> web.Response:
        caller = await self._callers.caller(request)
        request["person"] = caller.dcde_id
        runs = (await json_body(request)).get("runs")
        if not isinstance(runs, list) or len(runs) > RUNS or not all(isinstance(r, str) and len(r) <= 64 for r in runs):
            raise Invalid("The body must be {“runs”: [names of runs]}.")
        self._memory.put(caller.dcde_id, runs)
        return web.Response(status=204)
