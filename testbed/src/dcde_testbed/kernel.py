"""The few calls of the Linux kernel that Python 3.11 has no function for: namespaces and mounts, through libc."""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path

NEWNS, NEWUTS, NEWIPC, NEWPID, NEWNET = 0x00020000, 0x04000000, 0x08000000, 0x20000000, 0x40000000
RDONLY, NOSUID, NODEV, NOEXEC = 0x1, 0x2, 0x4, 0x8
REMOUNT, BIND, REC, PRIVATE = 0x20, 0x1000, 0x4000, 0x40000
DETACH = 2
_PR_SET_PDEATHSIG = 1
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "ppc64le": 203, "s390x": 217, "riscv64": 41}
# statvfs and mount(2) have the same flags with other numbers. In a user namespace the locked ones must be kept.
_KEEP = {
    os.ST_NOSUID: NOSUID,
    os.ST_NODEV: NODEV,
    os.ST_NOEXEC: NOEXEC,
    os.ST_NOATIME: 0x400,
    os.ST_NODIRATIME: 0x800,
    os.ST_RELATIME: 0x200000,
}

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str | Path, target: str | Path, kind: str | None, flags: int = 0, data: str | None = None) -> None:
    """mount(2). Raises OSError that names both paths."""
    arguments = [None if x is None else os.fsencode(x) for x in (source, target, kind)]
    result = _libc.mount(*arguments, ctypes.c_ulong(flags), None if data is None else data.encode())
    _check(result, f"mount {source} on {target}")


def bind(source: str | Path, target: str | Path, *, read_only: bool = False) -> None:
    """Make `source`, with what is mounted below it, visible at `target`; the topmost one read-only if wanted."""
    mount(source, target, None, BIND | REC)
    if read_only:
        now = os.statvfs(target).f_flag
        keep = sum(number for name, number in _KEEP.items() if now & name)
        mount("none", target, None, REMOUNT | BIND | RDONLY | keep)


def make_private(target: str = "/") -> None:
    """Keep later mounts below `target` from leaving this mount namespace."""
    mount("none", target, None, REC | PRIVATE)


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2): `new` becomes the root, the former root appears at `old`."""
    machine = platform.machine()
    if machine not in _PIVOT_ROOT:
        raise OSError(f"pivot_root: no system call number is known for {machine}")
    _check(_libc.syscall(_PIVOT_ROOT[machine], new.encode(), old.encode()), f"pivot_root to {new}")


def unmount(target: str, flags: int = 0) -> None:
    _check(_libc.umount2(target.encode(), flags), f"unmount {target}")


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare")


def enter_network(name: str) -> None:
    """Move this process into the network namespace that `ip netns` calls `name`."""
    fd = os.open(f"/run/netns/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(fd, NEWNET), f"setns to network {name}")
    finally:
        os.close(fd)


def die_with_parent(signal: int) -> None:
    """Have the kernel send `signal` to this process when its parent ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal, 0, 0, 0), "prctl")


def real_root_is_mapped() -> bool:
    """Whether this user namespace knows the machine's true root; without it `/` seems to belong to nobody."""
    return Path("/proc/self/uid_map").read_text().split()[2] == "4294967295"
