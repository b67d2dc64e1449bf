"""Reading and making secrets that lie in files only their owner can read."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from dcde_hub.errors import SecretRefused


def read_secret(path: Path) -> str:
    """Return the secret in the file at `path`, without white space around it.

    Raises:
        SecretRefused: The file is missing, empty, no plain file, or other accounts may read it.
    """
    try:
        with open(path, encoding="ascii") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(65536).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SecretRefused(f"The secret file cannot be read: {error}", where=str(path)) from error
    if not stat.S_ISREG(mode) or mode & 0o077:
        raise SecretRefused("Others may read this secret file.", where=str(path), remedy=f"chmod 600 {path}")
    if not text:
        raise SecretRefused("The secret file is empty.", where=str(path))
    return text


def ensure_secret(path: Path, size: int = 32) -> str:
    """Return the secret in the file at `path`; make one of `size` random bytes (in hexadecimal) if there is none.

    Raises:
        SecretRefused: There is a file, and `read_secret` refuses it.
    """
    if not path.exists():
        text = secrets.token_hex(size)
        write_secret(path, text)
        return text
    return read_secret(path)


def write_secret(path: Path, text: str, owner: tuple[int, int] | None = None) -> None:
    """Write `text` to a 0600 file at `path`, all or nothing.

    Args:
        path: The file.
        text: The secret.
        owner: The uid and gid that shall own it; by default the caller.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        if owner:
            os.fchown(file.fileno(), *owner)
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
