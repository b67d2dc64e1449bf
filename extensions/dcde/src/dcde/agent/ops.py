"""The operations of the agent by name, with their arguments checked. The table stands in the protocol's page."""

from __future__ import annotations

import os
import platform
import pwd
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from . import files, globs
from .channels import Channel
from .functions import Functions
from .jobs import Jobs
from .paths import Root
from .programs import Programs
from .protocol import VERSION, OpError
from .slurm import Slurm
from .work import Work


class Ops:
    """Answers the requests of one session.

    Args:
        roots: The folders the session works in, by name: `storage` and `records`.
        work: The agent's threads.
        slurm: The scheduler.
        programs: How other programs are started.
        digest: The content hash of the agent's file.
    """

    def __init__(self, roots: dict[str, Root], work: Work, slurm: Slurm, programs: Programs, digest: str) -> None:
        self._roots = roots
        self._work = work
        self._slurm = slurm
        self._digest = digest
        self._jobs = Jobs(roots["records"], slurm, work)
        self._functions = Functions(roots["records"], programs, work)
        self._table: dict[str, Callable[[Channel, _Args], Awaitable[Any]]] = {
            "hello": self._hello,
            "list": self._list,
            "stat": self._stat,
            "glob": self._glob,
            "mkdir": self._mkdir,
            "remove": self._remove,
            "rename": self._rename,
            "link": self._link,
            "checksum": self._checksum,
            "free": self._free,
            "read": self._read,
            "write": self._write,
            "tail": self._tail,
            "submit": self._submit,
            "poll": self._poll,
            "cancel": self._cancel,
            "forget": self._forget,
            "queue": self._queue,
            "functions.probe": self._functions_probe,
            "functions.run": self._functions_run,
            "functions.stream": self._functions_stream,
        }

    async def answer(self, channel: Channel, op: str, args: dict[str, Any]) -> Any:
        """Carry out one request and return its result. Raises OpError."""
        handler = self._table.get(op)
        if handler is None:
            raise OpError("AgentError", f"This agent does not know the operation {op[:80]!r}.")
        taken = _Args(op, args)
        try:
            return await handler(channel, taken)
        except OSError as error:
            raise OpError("FileTrouble", f"The site's system refused: {error}.", where=op) from error

    def _root(self, args: _Args) -> Root:
        name = args.text("root", "storage")
        if name not in self._roots:
            raise OpError("InvalidParameter", "There is no such root.", where=name)
        return self._roots[name]

    async def _hello(self, channel: Channel, args: _Args) -> Any:
        return {
            "python": platform.python_version(),
            "host": socket.gethostname(),
            "uid": os.getuid(),
            "user": pwd.getpwuid(os.getuid()).pw_name,
            "pid": os.getpid(),
            "version": VERSION,
            "digest": self._digest,
            "roots": {name: root.path for name, root in self._roots.items()},
        }

    async def _list(self, channel: Channel, args: _Args) -> Any:
        limit = args.number("limit", 2000)
        return await self._work.quick(files.list_folder, self._root(args), args.text("path", ""), limit)

    async def _stat(self, channel: Channel, args: _Args) -> Any:
        return await self._work.quick(files.look, self._root(args), args.text("path"))

    async def _glob(self, channel: Channel, args: _Args) -> Any:
        return await self._work.bulk(globs.find, self._root(args), args.texts("patterns"))

    async def _mkdir(self, channel: Channel, args: _Args) -> Any:
        parents = args.flag("parents")
        return await self._work.quick(files.make_folder, self._root(args), args.text("path"), parents)

    async def _remove(self, channel: Channel, args: _Args) -> Any:
        recursive = args.flag("recursive")
        return await self._work.bulk(files.remove, self._root(args), args.text("path"), recursive)

    async def _rename(self, channel: Channel, args: _Args) -> Any:
        return await self._work.quick(files.rename, self._root(args), args.text("path"), args.text("to"))

    async def _link(self, channel: Channel, args: _Args) -> Any:
        return await self._work.quick(files.link, self._root(args), args.text("path"), args.text("target"))

    async def _checksum(self, channel: Channel, args: _Args) -> Any:
        return await self._work.bulk(files.checksum, self._root(args), args.text("path"))

    async def _free(self, channel: Channel, args: _Args) -> Any:
        return await self._work.quick(files.free, self._root(args))

    async def _read(self, channel: Channel, args: _Args) -> Any:
        offset, length = args.number("offset", 0), args.number("length", -1)
        return await files.read_stream(
            self._work, channel, self._root(args), args.text("path"), max(0, offset), None if length < 0 else length
        )

    async def _write(self, channel: Channel, args: _Args) -> Any:
        mode = args.number("mode", 0o600)
        return await files.write_stream(self._work, channel, self._root(args), args.text("path"), mode)

    async def _tail(self, channel: Channel, args: _Args) -> Any:
        offset, limit = args.number("offset", 0), args.number("limit", 65536)
        return await self._work.quick(files.tail, self._root(args), args.text("path"), offset, limit)

    async def _submit(self, channel: Channel, args: _Args) -> Any:
        return await self._jobs.submit(args.text("key"), args.table("files"), args.table("options"))

    async def _poll(self, channel: Channel, args: _Args) -> Any:
        return await self._jobs.poll(args.texts("keys"))

    async def _cancel(self, channel: Channel, args: _Args) -> Any:
        return await self._jobs.cancel(args.text("key"))

    async def _forget(self, channel: Channel, args: _Args) -> Any:
        return await self._jobs.forget(args.text("key"))

    async def _queue(self, channel: Channel, args: _Args) -> Any:
        return await self._slurm.queue()

    async def _functions_probe(self, channel: Channel, args: _Args) -> Any:
        return await self._functions.probe(args.text("interpreter"))

    async def _functions_run(self, channel: Channel, args: _Args) -> Any:
        certificates, times = args.table("certificates"), args.table("times")
        return await self._functions.run(channel, args.text("key"), args.text("interpreter"), certificates, times)

    async def _functions_stream(self, channel: Channel, args: _Args) -> Any:
        return await self._functions.stream(channel, args.text("key"), args.number("port", -1))


def scheduler(programs: Programs) -> Slurm:
    """Return the site's scheduler."""
    return Slurm(programs, pwd.getpwuid(os.getuid()).pw_name)


_MISSING = object()


class _Args:
    """The arguments of a request, taken with their types; one of a wrong type is an error for the asker."""

    def __init__(self, op: str, values: dict[str, Any]) -> None:
        self._op = op
        self._values = values

    def _take(self, name: str, kind: type, default: Any) -> Any:
        value = self._values.get(name, default)
        if value is None and default is not _MISSING:
            value = default
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise OpError("InvalidParameter", f"The argument {name!r} is missing or has a wrong type.", where=self._op)
        return value

    def text(self, name: str, default: Any = _MISSING) -> str:
        """Return a text."""
        value: str = self._take(name, str, default)
        return value

    def number(self, name: str, default: int) -> int:
        """Return a whole number."""
        value: int = self._take(name, int, default)
        return value

    def flag(self, name: str) -> bool:
        """Return yes or no; no when it is not given."""
        value: bool = self._take(name, bool, False)
        return value

    def texts(self, name: str) -> list[str]:
        """Return a list of texts."""
        value: list[str] = self._take(name, list, _MISSING)
        if not all(isinstance(item, str) for item in value):
            raise OpError("InvalidParameter", f"The argument {name!r} must be a list of texts.", where=self._op)
        return value

    def table(self, name: str) -> dict[str, Any]:
        """Return a JSON object."""
        value: dict[str, Any] = self._take(name, dict, _MISSING)
        return value
