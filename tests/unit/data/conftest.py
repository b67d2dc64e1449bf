"""Fixtures of the data tests.

sites: two or three sites that are folders, served by the agent's own file functions; `Sites` with `link(name)`,
    `path(name)` and ways to cut a link, to limit the room and to spoil what is written.
"""

import asyncio

import dcde.errors
import pytest
from dcde.agent import files, globs
from dcde.agent.paths import Root
from dcde.agent.protocol import OpError
from dcde.errors import DcdeError, DiskFull, LinkLost


def _raised(error):
    cls = getattr(dcde.errors, error.code, DcdeError)
    return cls(error.message, where=error.where, remedy=error.remedy, retry=error.retry)


class FolderLink:
    """A link to a folder, with the agent's own file functions at its end."""

    chunk = 1000

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        self.root = Root(str(folder))
        self.calls = []
        self.alive = asyncio.Event()
        self.alive.set()
        self.cut_after_bytes = None
        self.room = None
        self.spoil = 0
        self.writing = 0
        self.most_writing = 0

    def cut(self):
        self.alive.clear()
        asyncio.get_running_loop().call_later(0.05, self.alive.set)

    async def up(self, timeout=None):
        await self.alive.wait()

    def _ops(self, op, a):
        limit = a.get("limit", 2000)
        table = {
            "list": lambda: files.list_folder(self.root, a["path"], limit),
            "stat": lambda: files.look(self.root, a["path"]),
            "glob": lambda: globs.find(self.root, a["patterns"]),
            "mkdir": lambda: files.make_folder(self.root, a["path"], a.get("parents", False)),
            "remove": lambda: files.remove(self.root, a["path"], a.get("recursive", False)),
            "link": lambda: files.link(self.root, a["path"], a["target"]),
            "checksum": lambda: files.checksum(self.root, a["path"]),
            "free": lambda: {"total": 10**9, "available": 10**9 if self.room is None else self.room},
        }
        return table[op]()

    async def call(self, op, *, timeout=60, **args):
        await asyncio.sleep(0)
        if not self.alive.is_set():
            raise LinkLost("the link is down")
        self.calls.append(op)
        try:
            return self._ops(op, args)
        except OpError as error:
            raise _raised(error) from error

    async def read(self, path, *, root="storage", offset=0, length=None):
        try:
            file = files.open_file(self.root, path)
        except OpError as error:
            raise _raised(error) from error
        with file:
            file.seek(offset)
            while data := file.read(self.chunk):
                if self.cut_after_bytes is not None:
                    self.cut_after_bytes -= len(data)
                    if self.cut_after_bytes < 0:
                        self.cut_after_bytes = None
                        self.cut()
                if not self.alive.is_set():
                    raise LinkLost("the link is down")
                yield data
                await asyncio.sleep(0)

    async def write(self, path, chunks, *, root="storage", mode=0o600):
        writing = files.Writing(self.root, path, mode)
        size = 0
        self.writing += 1
        self.most_writing = max(self.most_writing, self.writing)
        try:
            writing.open()
            async for data in chunks:
                if not self.alive.is_set():
                    raise LinkLost("the link is down")
                size += len(data)
                if self.room is not None and size > self.room:
                    raise DiskFull("the storage at the site is full", where=path)
                if self.spoil > 0:
                    self.spoil -= 1
                    data = b"?" + data[1:]
                writing.add(data)
            return writing.finish()
        except OpError as error:
            raise _raised(error) from error
        finally:
            writing.close()
            self.writing -= 1


class Sites:
    """Sites by name."""

    def __init__(self, folder, names):
        self.links = {name: FolderLink(folder / name) for name in names}

    def link(self, name):
        return self.links[name]

    def path(self, name):
        return self.links[name].folder

    def put(self, name, path, data=b"x"):
        """Write a file below a site's folder and return its path."""
        place = self.path(name) / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        return place

    def files(self, name):
        """Return all files at a site, half-written ones included: path -> content."""
        top = self.path(name)
        return {str(p.relative_to(top)): p.read_bytes() for p in sorted(top.rglob("*")) if p.is_file()}


@pytest.fixture
async def sites(tmp_path):
    """Three sites: bnl, ornl and anl."""
    return Sites(tmp_path, ("bnl", "ornl", "anl"))
