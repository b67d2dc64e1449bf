"""`python -m dcde_demo.mirror`: keeps a copy of the registry that broker and keeper can read, within half a second.

The registry lies in a directory that only root may enter, and these services have accounts of their own. A copy is made
whole and then put in place, and a source that is gone for a moment (while it is being replaced) changes nothing.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from dcde_demo.places import REGISTRY_MIRROR, WORLD

INTERVAL = 0.5
"""Seconds between two looks. The standard library has no way to be told of a change."""


def copy_if_changed(source: Path, target: Path, seen: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """Copy `source` to `target` if it is not as it was at the last call, and return how it is now.

    Args:
        source: The file.
        target: The copy; readable by all.
        seen: What the last call returned; None at first.
    """
    try:
        status = source.stat()
        now = (status.st_mtime_ns, status.st_ino, status.st_size)
        if now == seen:
            return seen
        content = source.read_bytes()
    except FileNotFoundError:
        return seen
    draft = target.with_name(f".{target.name}.new")
    with open(draft, "wb") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(content)
    draft.rename(target)
    return now


def main() -> None:
    """Mirror until ended."""
    source, target = Path(json.loads(WORLD.read_text(encoding="utf-8"))["registry"]), REGISTRY_MIRROR
    seen = None
    while True:
        seen = copy_if_changed(source, target, seen)
        time.sleep(INTERVAL)


if __name__ == "__main__":
    main()
