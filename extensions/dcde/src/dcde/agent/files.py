"""What the agent does with files: list, look, make, remove, rename, link, checksum, read and write.

The functions here block and run in threads, apart from the two streams, which hand each part to a thread.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import heapq
import os
import secrets
import stat
from typing import Any, BinaryIO

from .channels import Channel
from .paths import Root, refused, split, trouble
from .protocol import CHUNK, OpError
from .work import Work

MAX_ENTRIES = 20_000
MAX_GLOB = 50_000
MAX_TAIL = 4 * 1024 * 1024
PART_SUFFIX = ".dcde-part"
"""How the temporary name of a file ends that is still being written."""


def kind_of(mode: int) -> str:
    """Return our word for the type of a file."""
    if stat.S_ISDIR(mode):
        return "folder"
    if stat.S_ISREG(mode):
        return "file"
    return "link" if stat.S_ISLNK(mode) else "other"


def _entry(name: str, found: os.stat_result) -> dict[str, Any]:
    return {"name": name, "type": kind_of(found.st_mode), "size": found.st_size, "mtime": found.st_mtime}


def list_folder(root: Root, path: str, limit: int) -> dict[str, Any]:
    """Return the first `limit` entries of a folder by name, hidden ones and half-written ones included as they are."""
    limit = max(0, min(limit, MAX_ENTRIES))
    fd = root.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with os.scandir(fd) as entries:
            names = heapq.nsmallest(limit + 1, (entry.name for entry in entries))
        found = []
        for name in names[:limit]:
            with contextlib.suppress(FileNotFoundError):  # It went away while we looked.
                found.append(_entry(name, os.stat(name, dir_fd=fd, follow_symlinks=False)))
        return {"entries": found, "truncated": len(names) > limit}
    except OSError as error:
        raise trouble(error, path) from error
    finally:
        os.close(fd)


def look(root: Root, path: str) -> dict[str, Any]:
    """Return what `path` is, links inside the root being followed; a link to nothing is NotFound."""
    with root.at(path) as (folder, name):
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        return {
            **_entry(os.path.basename(path.rstrip("/")), found),
            "mtime_ns": found.st_mtime_ns,
            "mode": stat.S_IMODE(found.st_mode),
        }


def make_folder(root: Root, path: str, parents: bool) -> dict[str, Any]:
    """Make a folder; with `parents` also those above it, and it is no error when it is there."""
    parts = split(path)
    for depth in range(1 if parents else len(parts), len(parts) + 1):
        with root.at("/".join(parts[:depth])) as (folder, name):
            try:
                os.mkdir(name, 0o700, dir_fd=folder)
            except FileExistsError:
                is_folder = stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
                if not parents or not is_folder:
                    raise
    return {}


def remove(root: Root, path: str, recursive: bool) -> dict[str, Any]:
    """Remove a file, a link itself, or a folder (an empty one unless `recursive`). The root itself stays."""
    with root.at(path, follow=False) as (folder, name):
        if name == ".":
            raise refused(path, "The folder itself cannot be removed.")
        if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=folder)
        elif recursive:
            _remove_tree(folder, name)
        else:
            os.rmdir(name, dir_fd=folder)
    return {}


def _remove_tree(folder: int, name: str) -> None:
    """Remove the folder `name` and all below it without ever following a link."""
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        with os.scandir(fd) as entries:
            found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for child, is_folder in found:
            if is_folder:
                _remove_tree(fd, child)
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(child, dir_fd=fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=folder)


def rename(root: Root, path: str, to: str) -> dict[str, Any]:
    """Rename a file or folder inside the root; a file that is at `to` is replaced."""
    with root.at(path, follow=False) as (source, old), root.at(to, follow=False) as (target, new):
        if "." in (old, new):
            raise refused(path, "The folder itself cannot be renamed.")
        os.rename(old, new, src_dir_fd=source, dst_dir_fd=target)
    return {}


def link(root: Root, path: str, target: str) -> dict[str, Any]:
    """Make `path` a relative symbolic link to `target`, both relative to the root. The same link there is no error."""
    with root.at(target):
        pass  # The target must be inside; it need not be there yet.
    with root.at(path, follow=False) as (folder, name):
        here = os.path.relpath(os.readlink(f"/proc/self/fd/{folder}"), root.path)
        text = os.path.relpath(target.strip("/") or ".", here)
        try:
            os.symlink(text, name, dir_fd=folder)
        except FileExistsError:
            is_link = stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
            if not is_link or os.readlink(name, dir_fd=folder) != text:
                raise
    return {}


def open_file(root: Root, path: str) -> BinaryIO:
    """Open a regular file for reading; anything else is refused, so that nothing can hang on a pipe or device."""
    fd = root.open(path, os.O_RDONLY)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OpError("FileTrouble", "This is no file that can be read.", where=path)
    return open(fd, "rb", buffering=0)


def checksum(root: Root, path: str) -> dict[str, Any]:
    """Return SHA-256, size and time of change of a file; a file that changes meanwhile is an error worth repeating."""
    digest = hashlib.sha256()
    with open_file(root, path) as file:
        before = os.fstat(file.fileno())
        try:
            while True:
                data = file.read(CHUNK * 4)
                if not data:
                    break
                digest.update(data)
        except OSError as error:
            raise trouble(error, path) from error
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise OpError("FileTrouble", "The file changed while it was read.", where=path, retry=True)
    return {"sha256": digest.hexdigest(), "size": after.st_size, "mtime_ns": after.st_mtime_ns}


def tail(root: Root, path: str, offset: int, limit: int) -> dict[str, Any]:
    """Return up to `limit` bytes from `offset` (a negative one counts from the end) in base64, and the file's size."""
    with open_file(root, path) as file:
        size = os.fstat(file.fileno()).st_size
        start = max(0, size + offset) if offset < 0 else offset
        file.seek(start)
        data = file.read(max(0, min(limit, MAX_TAIL))) or b""
    return {"data_base64": base64.b64encode(data).decode("ascii"), "offset": start, "size": size}


def free(root: Root) -> dict[str, Any]:
    """Return the size of the root's file system and what is left of it for the account, in bytes."""
    try:
        found = os.statvfs(root.path)
    except OSError as error:
        raise trouble(error, "") from error
    return {"total": found.f_blocks * found.f_frsize, "available": found.f_bavail * found.f_frsize}


async def read_stream(
    work: Work, channel: Channel, root: Root, path: str, offset: int, length: int | None
) -> dict[str, Any]:
    """Send a file from `offset` on as stream data, after one piece of news with its size and time of change."""
    file = await work.quick(open_file, root, path)
    sent = 0
    try:
        found = os.fstat(file.fileno())
        await channel.send_news({"size": found.st_size, "mtime_ns": found.st_mtime_ns})
        file.seek(offset)
        while length is None or sent < length:
            want = CHUNK if length is None else min(CHUNK, length - sent)
            data = await work.bulk(_read_part, file, want, path)
            if not data:
                break
            sent += len(data)
            await channel.send(data)
        await channel.send_end()
    finally:
        file.close()
    return {"sent": sent}


def _read_part(file: BinaryIO, want: int, path: str) -> bytes:
    try:
        return file.read(want) or b""
    except OSError as error:
        raise trouble(error, path) from error


class Writing:
    """A file that is being written under a temporary name beside its own.

    It takes its own name only when everything is on disk, so that nobody ever sees half a file.
    """

    def __init__(self, root: Root, path: str, mode: int) -> None:
        self._root = root
        self._path = path
        self._mode = mode & 0o777
        self._digest = hashlib.sha256()
        self._size = 0
        self._name = ""
        self._part = ""
        self._fd = -1
        self._folder = -1

    def open(self) -> None:
        """Make the temporary file."""
        with self._root.at(self._path) as (folder, name):
            if name == "." or _is_folder(folder, name):
                raise OpError("AlreadyExists", "There is a folder of that name.", where=self._path)
            self._name = name
            self._folder = os.dup(folder)
            part = f".{secrets.token_hex(8)}{PART_SUFFIX}"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fd = os.open(part, flags, 0o600, dir_fd=folder)
            self._part = part

    def add(self, data: bytes) -> None:
        """Append `data`."""
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise trouble(error, self._path) from error
        self._digest.update(data)
        self._size += len(data)

    def finish(self) -> dict[str, Any]:
        """Bring everything to disk and give the file its name."""
        try:
            os.fchmod(self._fd, self._mode)
            os.fsync(self._fd)
            os.rename(self._part, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            self._part = ""
            sync_folder(self._folder)
        except OSError as error:
            raise trouble(error, self._path) from error
        return {"size": self._size, "sha256": self._digest.hexdigest()}

    def close(self) -> None:
        """Let go of the file; one that was not finished is removed."""
        if self._fd >= 0:
            os.close(self._fd)
        if self._part:
            with contextlib.suppress(OSError):
                os.unlink(self._part, dir_fd=self._folder)
        if self._folder >= 0:
            os.close(self._folder)


def _is_folder(folder: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def sync_folder(folder: int) -> None:
    """Bring the names in an open folder to disk."""
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


async def write_stream(work: Work, channel: Channel, root: Root, path: str, mode: int) -> dict[str, Any]:
    """Write the stream data that comes to `path` and return size and SHA-256 of what is on disk."""
    writing = Writing(root, path, mode)
    try:
        await work.quick(writing.open)
        while True:
            data = await channel.receive()
            if data is None:
                return await work.bulk(writing.finish)
            await work.bulk(writing.add, data)
    finally:
        await work.bulk(writing.close)
