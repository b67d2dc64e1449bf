"""The runner's own folders: private, checked before use, and locked so that only one runner is at work."""

from __future__ import annotations

import fcntl
import json
import os
import stat
from pathlib import Path
from typing import Any

from dcde.errors import DiskFull, RunnerBusy, RunnerError


def default_state_folder() -> Path:
    """Return where the runner keeps the ledger and what else must last."""
    return Path.home() / ".local" / "share" / "dcde"


def private_folder(path: Path) -> Path:
    """Make the folder with mode 0700 when it is not there, and return it.

    Raises:
        RunnerError: It is a link, or belongs to somebody else, or others may enter it: somebody may have put it there.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise RunnerError(f"the folder cannot be made: {error.strerror}", where=str(path)) from error
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise RunnerError(
            "the folder is not yours",
            where=str(path),
            remedy="Remove it, or name another one.",
        )
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise RunnerError("others may enter the folder", where=str(path), remedy=f"Run: chmod 700 {path}")
    return path


class Lock:
    """The lock that one runner holds as long as it lives; the kernel lets it go however the process ends."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._descriptor)
            raise RunnerBusy(
                "another runner of yours is at work", where=str(path), remedy="Use that one; there is one per person."
            ) from error

    def release(self) -> None:
        """Let the lock go."""
        os.close(self._descriptor)


def write_private(path: Path, data: bytes) -> None:
    """Replace a file by `data`, mode 0600; a reader sees the old or the new, never a part.

    Raises:
        DiskFull: The home folder is full; the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DiskFull(f"the file cannot be written: {error.strerror}", where=str(path)) from error


def read_json(path: Path) -> Any:
    """Return what a JSON file holds; None when it is not there or cannot be read as JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
