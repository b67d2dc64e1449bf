"""The way from the browser to the person's runner: the library's client, and what a server needs beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from dcde.client import Client
from dcde.errors import DcdeError, InvalidParameter
from dcde_models.logs import request_id


class Relay(Client):
    """Hands on what the browser asks, with the id of its request."""

    async def ask(self, op: str, args: Mapping[str, Any], *, request: str) -> Any:
        """Carry out one operation of the runner and return its result; raises what the runner answers."""
        if "timeout" in args:  # the client's own argument, of no operation
            raise InvalidParameter("there is no argument 'timeout'", where=op)
        request_id.set(request)
        return await self.call(op, **args)

    async def answers(self) -> bool:
        """Return whether a runner of this person listens."""
        try:
            async with self._connection():
                return True
        except DcdeError as error:
            if not error.retry:
                raise
            return False

    async def until_gone(self) -> None:
        """Wait as long as the runner that listens now is there."""
        async with self._connection() as (reader, _writer):
            with contextlib.suppress(OSError):
                await reader.read()
