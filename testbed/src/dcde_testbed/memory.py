"""A memory control group for the world's people, where this account may make one: version 1 or version 2."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from pathlib import Path

NOTE = "memory_group"
"""The file in STATE that remembers the group, so that a later `up` or `down` removes what a killed world left."""


def candidates(cgroup: str, mountinfo: str) -> list[Path]:
    """Folders in which a memory group could be made, the likeliest first.

    `cgroup` is the text of /proc/self/cgroup, `mountinfo` that of /proc/self/mountinfo (formats: cgroups(7), proc(5)).
    """
    found: list[Path] = []
    mounts = [_mount(line) for line in mountinfo.splitlines()]
    for line in cgroup.splitlines():
        _, controllers, path = line.split(":", 2)
        for root, point, kind, options in mounts:
            version_1 = kind == "cgroup" and "memory" in options and "memory" in controllers.split(",")
            version_2 = kind == "cgroup2" and controllers == ""
            if version_1 or version_2:
                inner = path.removeprefix(root) if root != "/" else path
                here = Path(point) / inner.strip("/")
                # A version 2 group with processes in it gives its children no controllers, so its ancestors come next.
                found += [here] if version_1 else [here, *(p for p in here.parents if p.is_relative_to(point))]
    return found


def _mount(line: str) -> tuple[str, str, str, list[str]]:
    before, _, after = line.partition(" - ")
    fields, kind = before.split(), after.split()
    return fields[3], fields[4], kind[0], kind[2].split(",")


def make(name: str) -> Path | None:
    """Make and return a group in which processes of this account can be limited, or None where that is not possible."""
    for parent in candidates(Path("/proc/self/cgroup").read_text(), Path("/proc/self/mountinfo").read_text()):
        group = parent / name
        try:
            group.mkdir(exist_ok=True)
        except OSError:
            continue
        if _usable(group):
            return group
        with contextlib.suppress(OSError):
            group.rmdir()
    return None


def _usable(group: Path) -> bool:
    """Whether a child of the group has a limit of its own and takes a process of ours."""
    probe = group / "probe"
    try:
        if (group / "cgroup.subtree_control").exists():
            (group / "cgroup.subtree_control").write_text("+memory")
        probe.mkdir()
    except OSError:
        return False
    try:
        limit = next((probe / n for n in ("memory.limit_in_bytes", "memory.max") if (probe / n).exists()), None)
        if limit is None:
            return False
        limit.write_text(str(1 << 30))
        with subprocess.Popen(["sleep", "60"]) as process:
            try:
                (probe / "cgroup.procs").write_text(str(process.pid))
            finally:
                process.kill()
        return True
    except OSError:
        return False
    finally:
        remove(probe)


def remove(group: Path, seconds: float = 2.0) -> bool:
    """Remove a group and its children; a group stays busy until its last process is really gone. False if it stays."""
    end = time.monotonic() + seconds
    while group.exists():
        with contextlib.suppress(OSError):
            for folder, _, _ in os.walk(group, topdown=False):
                os.rmdir(folder)
            return True
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def forget(state: Path) -> None:
    """Remove the group that STATE remembers, if there is one."""
    note = state / NOTE
    if note.exists() and remove(Path(note.read_text())):
        note.unlink()
