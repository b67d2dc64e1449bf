"""The agent's private folder on a login host, and its file there.

This module stands alone: its text is the first thing the link sends to a site, before the agent's file is there.

Login hosts are shared, so `/tmp` is a place where anybody may have put anything. The folder's name has a part that
only the account knows (kept in its home), it is made with mode 0700 or must already be ours with that mode, and
every file in it is made anew or checked before it is trusted.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat


class HomeRefused(Exception):
    """The private folder cannot be had. The text says why and what can be done."""


def private_folder(path: str) -> str:
    """Make the folder `path` with mode 0700, or check that what is there is ours alone. Returns the path."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise HomeRefused(path + " belongs to somebody else or is no folder")
    if stat.S_IMODE(found.st_mode) != 0o700:
        os.chmod(path, 0o700)
    return path


def records_folder(records: str) -> str:
    """Return the account's folder for records, made when it is not there. It may be a link made by its owner."""
    path = os.path.expanduser(records)
    os.makedirs(path, mode=0o700, exist_ok=True)
    if os.stat(path).st_uid != os.getuid():
        raise HomeRefused(path + " belongs to somebody else")
    return os.path.realpath(path)


def secret_name(records: str) -> str:
    """Return the random part of the folder's name, the same at each call of one account."""
    path = os.path.join(records, "agent-name")
    if not os.path.lexists(path):
        _write_name(path)
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW)) as file:
        name = file.read(64)
    if len(name) != 16 or not name.isalnum():
        raise HomeRefused(path + " is damaged. Remove it.")
    return name


def _write_name(path: str) -> None:
    fresh = path + "." + secrets.token_hex(8)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(8))
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(fresh, path)  # The first one wins; `link` never replaces.
    except FileExistsError:
        pass
    finally:
        os.unlink(fresh)


def agent_folder(parent: str, records: str) -> str:
    """Return the agent's private folder below `parent`; a name that others took is passed over."""
    if len(os.fsencode(parent)) > 48:
        raise HomeRefused(parent + " is too long a path for a unix socket below it")
    base = os.path.join(parent, f"dcde-{os.getuid()}-{secret_name(records)}")
    for number in range(10):
        try:
            return private_folder(base if number == 0 else f"{base}-{number}")
        except HomeRefused:
            continue
    raise HomeRefused("all names for the agent's folder below " + parent + " are taken by others")


def has_file(path: str, digest: str) -> bool:
    """Tell whether `path` is a file of ours whose SHA-256 is `digest`."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    with open(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid():
            return False
        return hashlib.sha256(file.read()).hexdigest() == digest


def put_file(path: str, content: bytes) -> None:
    """Write `content` to `path` under a new name first, so that nobody ever sees half of it."""
    fresh = path + "." + secrets.token_hex(8)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)
