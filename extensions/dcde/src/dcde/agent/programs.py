"""Start the scheduler's programs: from argument lists, with a known environment, with a time limit."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
from dataclasses import dataclass

from .protocol import OpError

PATH = "/usr/bin:/bin:/usr/local/bin"
TIME_LIMIT_S = 60.0
MAX_OUTPUT = 32 * 1024 * 1024


@dataclass(frozen=True)
class Ended:
    """How a program ended."""

    code: int
    out: str
    err: str


def environment(path: str = PATH) -> dict[str, str]:
    """Return the environment in which programs run: nothing of it comes from whoever started the agent."""
    person = pwd.getpwuid(os.getuid())
    return {
        "PATH": path,
        "HOME": person.pw_dir,
        "USER": person.pw_name,
        "LOGNAME": person.pw_name,
        "SHELL": person.pw_shell or "/bin/sh",
        "LANG": "C.UTF-8",
    }


class Programs:
    """Runs programs found on a fixed path.

    Args:
        path: The folders in which programs are looked for.
    """

    def __init__(self, path: str = PATH) -> None:
        self.path = path
        self._environment = environment(path)

    async def run(self, *argv: str, time_limit_s: float = TIME_LIMIT_S, keep: tuple[int, ...] = ()) -> Ended:
        """Run a program and return how it ended.

        Args:
            argv: The program and its arguments.
            time_limit_s: After so many seconds it is killed.
            keep: Open files it inherits; a lock on one is held until the program is gone, even if the agent dies.

        Raises:
            OpError: It is not there, took too long or said too much.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=self._environment,
                cwd="/",
                pass_fds=keep,
            )
        except OSError as error:
            raise OpError(
                "SchedulerError", f"{argv[0]} cannot be started: {error.strerror}.", remedy="Tell the site's support."
            ) from error
        try:
            out, err = await asyncio.wait_for(process.communicate(), time_limit_s)
        except asyncio.TimeoutError as error:
            raise OpError("SchedulerError", f"{argv[0]} did not answer in {time_limit_s:g} s.", retry=True) from error
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if len(out) > MAX_OUTPUT:
            raise OpError("SchedulerError", f"{argv[0]} gave too long an answer.")
        return Ended(process.returncode or 0, _text(out), _text(err))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
