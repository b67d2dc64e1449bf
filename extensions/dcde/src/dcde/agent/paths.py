"""Paths below a root that cannot be left, not even by a link that changes while one looks.

A path is walked one part at a time, each folder opened below the one before without following links. A link met on the
way is read and walked by the same rules. So what is opened in the end was reached through folders that are held open,
and no link that is put in place meanwhile can lead elsewhere.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections import deque
from collections.abc import Iterator

from .protocol import OpError

MAX_LINKS = 40
FOLDER_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def refused(path: str, why: str) -> OpError:
    """Return the error for a path that is not allowed."""
    return OpError("PathRefused", why, where=path, remedy="Use a path inside your own folder at the site.")


def trouble(error: OSError, path: str) -> OpError:
    """Return what an error of the file system means for the person."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno == errno.ENOENT:
        return OpError("NotFound", "There is no such file or folder.", where=path)
    if error.errno == errno.EEXIST:
        return OpError("AlreadyExists", "There already is a file or folder of that name.", where=path)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OpError(
            "DiskFull",
            f"The storage at the site is full ({reason}).",
            where=path,
            remedy="Remove files you no longer need there, or ask the site for a larger quota.",
            retry=True,
        )
    if error.errno in (errno.ELOOP, errno.EXDEV):
        return refused(path, "The path leads through a link that cannot be followed.")
    retry = error.errno in (errno.EIO, errno.ESTALE, errno.EINTR, errno.EAGAIN, errno.ETIMEDOUT)
    return OpError("FileTrouble", f"The site's file system refused: {reason}.", where=path, retry=retry)


def split(path: str) -> list[str]:
    """Return the parts of a relative path as a person gives it; one that is absolute or has `..` is refused."""
    if "\x00" in path:
        raise refused(path, "The path has a NUL character.")
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise refused(path, "The path has characters that no file name can have.") from None
    if path.startswith("/"):
        raise refused(path, "The path is absolute.")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise refused(path, "The path has '..' in it.")
    return parts


class Root:
    """A folder that holds everything the agent may touch under one name.

    Args:
        path: Where it is, as an absolute path. Links in this path itself are followed.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.realpath(path)
        self._given = os.path.normpath(path)

    @contextlib.contextmanager
    def at(self, path: str, *, follow: bool = True) -> Iterator[tuple[int, str]]:
        """Yield the open folder that holds `path`, and the name in it; `.` stands for the root itself.

        The name is that of no link at the time of looking when `follow` is true; use it with O_NOFOLLOW. The caller's
        own errors of the file system become errors for the person.
        """
        try:
            folders, name = self._walk(path, follow)
            try:
                yield folders[-1], name
            finally:
                for fd in folders:
                    os.close(fd)
        except OSError as error:
            raise trouble(error, path) from error

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        """Open the file or folder `path`, links inside the root being followed."""
        with self.at(path) as (folder, name):
            return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, mode, dir_fd=folder)

    def _walk(self, path: str, follow: bool) -> tuple[list[int], str]:
        parts = deque(split(path))
        folders = [os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)]
        links = 0
        try:
            while parts:
                part = parts.popleft()
                if part == "..":
                    if len(folders) == 1:
                        raise refused(path, "A link on the path leads out of your folder.")
                    os.close(folders.pop())
                    continue
                if not parts and not follow:
                    return folders, part
                target = _link_target(folders[-1], part)
                if target is not None:
                    links += 1
                    if links > MAX_LINKS:
                        raise refused(path, "The path has too many links.")
                    if target.startswith("/"):
                        target = self._inside(path, target)
                        while len(folders) > 1:
                            os.close(folders.pop())
                    parts.extendleft(reversed([p for p in target.split("/") if p not in ("", ".")]))
                elif parts:
                    folders.append(os.open(part, FOLDER_FLAGS, dir_fd=folders[-1]))
                else:
                    return folders, part
            return folders, "."
        except BaseException:
            for fd in folders:
                os.close(fd)
            raise

    def _inside(self, path: str, target: str) -> str:
        """Return the absolute link `target` relative to the root."""
        for root in (self.path, self._given):
            if target == root or target.startswith(root.rstrip("/") + "/"):
                return target[len(root) :]
        raise refused(path, "A link on the path leads out of your folder.")


def _link_target(folder: int, name: str) -> str | None:
    try:
        return os.readlink(name, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise
