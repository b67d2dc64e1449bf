"""Find files by patterns below a root, without following links out of it and without a limitless answer."""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from typing import Any

from .files import MAX_GLOB, PART_SUFFIX
from .paths import Root, split, trouble
from .protocol import OpError

MAX_DEPTH = 64


def find(root: Root, patterns: list[str]) -> dict[str, Any]:
    """Return every file that one of `patterns` names: path, size and time of change, sorted by path.

    `*`, `?` and `[...]` stay inside one part of the path, `**` is any number of folders. A part that starts with a dot
    is only found by a pattern part that does. Folders that are links are not entered; a file that is a link inside
    the root is found with the size of what it points to.
    """
    found: dict[str, dict[str, Any]] = {}
    for pattern in patterns:
        parts = split(pattern)
        plain = 0
        while plain < len(parts) - 1 and not _is_magic(parts[plain]):
            plain += 1
        start = "/".join(parts[:plain])
        try:
            fd = root.open(start, os.O_RDONLY | os.O_DIRECTORY)
        except OpError as error:
            cause = error.__cause__
            if error.code == "NotFound" or isinstance(cause, NotADirectoryError):
                continue  # A pattern below what is not there, or is a file, finds nothing.
            raise
        _search(root, fd, start, parts[plain:], found, 0)
    return {"files": [found[path] for path in sorted(found)]}


def _is_magic(part: str) -> bool:
    return any(c in part for c in "*?[")


def _search(root: Root, fd: int, folder: str, parts: list[str], found: dict[str, dict[str, Any]], depth: int) -> None:
    """Look in the open folder `fd` (closed here) for what `parts` name."""
    try:
        if not parts or depth > MAX_DEPTH:
            return
        first, rest = parts[0], parts[1:]
        if first == "**":
            # No folder at all, then any folder further down.
            _search(root, os.dup(fd), folder, rest or ["*"], found, depth)
        match = re.compile(fnmatch.translate("*" if first == "**" else first)).match
        with os.scandir(fd) as entries:
            listed = [(e.name, e.is_dir(follow_symlinks=False)) for e in entries]
        for name, is_folder in listed:
            if not match(name) or (name.startswith(".") and not first.startswith(".")) or name.endswith(PART_SUFFIX):
                continue
            path = f"{folder}/{name}" if folder else name
            if is_folder and (rest or first == "**"):
                child = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
                _search(root, child, path, parts if first == "**" else rest, found, depth + 1)
            elif not is_folder and not rest and first != "**":
                _add(root, path, found)
    except OSError as error:
        raise trouble(error, folder) from error
    finally:
        os.close(fd)


def _add(root: Root, path: str, found: dict[str, dict[str, Any]]) -> None:
    try:
        with root.at(path) as (folder, name):
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OpError as error:
        if error.code in ("NotFound", "PathRefused"):
            return  # A link to nothing, or one that leads out: no file of this root.
        raise
    if stat.S_ISREG(status.st_mode):
        if len(found) >= MAX_GLOB:
            raise OpError(
                "InvalidParameter", f"More than {MAX_GLOB} files were found.", remedy="Use a narrower pattern."
            )
        found[path] = {"path": path, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
