"""Puts one person's server into a room of its own and then becomes that person. Started by the spawner as root.

    python3 -I room.py SPECIFICATION COMMAND...

Standard library only and one file: it runs with the system's Python, outside every environment. The room has its own
mount, process, IPC and network namespace. It shows the person's own home and the folders in `keep`, and nothing else of
what the hub's machine has in /home, /opt, /run, /srv, /tmp and /var; /proc shows only the room's own processes. A veth
pair joins it to the hub's address; what may be reached over that is the firewall's matter.

Three processes: this one stays outside, so that the hub can signal it (it is no child of the hub's fate: it lives on
when the hub dies); process 1 of the room, which dies with this one and takes everything in the room along; the server.
A short-lived fourth, forked first, plugs the cable in: after unshare(NEWPID) the ids of outer processes are not known.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

NEWNS, NEWIPC, NEWPID, NEWNET = 0x0002_0000, 0x0800_0000, 0x2000_0000, 0x4000_0000  # linux/sched.h
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8  # linux/mount.h; the same numbers as in statvfs
MS_REMOUNT, MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE = 32, 4096, 8192, 16384, 1 << 18
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38  # linux/prctl.h
EMPTIED = ("/home", "/mnt", "/media", "/opt", "/root", "/run", "/srv", "/var", "/etc/dcde")
WRITABLE = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108  # made private here
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
PATIENCE = 10.0
"""Seconds for an earlier room of the same person to end when asked, and for its cable to go."""

SYSTEM = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
"""The environment of the system's tools; what the person's server gets is not for them."""

_libc = ctypes.CDLL(None, use_errno=True)


class RoomError(Exception):
    """The room cannot be made; the message says what failed."""


@dataclass(frozen=True)
class Specification:
    """What the spawner says about the room.

    Args:
        name: The person's DCDE id.
        uid: The uid and gid of the account.
        home: The home directory.
        address: The room's IPv4 address.
        hub_address: The hub's address, the other end of the cable.
        memory_mb: The memory limit.
        memory_group: A cgroup directory with one child for each person, None when there is none.
        keep: Folders that stay visible, read-only as they are outside.
        locks: A root-only folder for one lock file a person.
    """

    name: str
    uid: int
    home: str
    address: str
    hub_address: str
    memory_mb: int
    memory_group: str | None
    keep: list[str]
    locks: str

    @property
    def cable(self) -> str:
        """The name of the cable's outer end."""
        return f"u{self.uid}"


def main(text: str, *command: str) -> int:
    """Make the room, run the command in it, and return its exit status."""
    specification = Specification(**json.loads(text))
    os.umask(0o022)
    lock = _only_one(specification)
    _unplug(specification)
    group = _memory_group(specification)
    told_pid, tell_pid = os.pipe()
    plugged, tell_plugged = os.pipe()
    entered, tell_entered = os.pipe()
    plumber = os.fork()
    if plumber == 0:
        for descriptor in (lock, tell_pid, plugged, entered, tell_entered):
            os.close(descriptor)
        _plumber(specification, told_pid, tell_plugged)
    os.close(told_pid)
    os.close(tell_plugged)
    _unshare(NEWPID)
    first = os.fork()
    if first == 0:
        for descriptor in (lock, tell_pid, entered):
            os.close(descriptor)
        _inside(specification, list(command), group is not None, tell_entered, plugged)
    os.close(plugged)
    os.close(tell_entered)
    return _outside(group, first, plumber, entered, tell_pid)


# ---- outside: the process that the hub knows ----------------------------------------------------------------------


def _only_one(specification: Specification) -> int:
    """Take the person's lock, ending an earlier room that the hub has lost track of; return its descriptor."""
    folder = Path(specification.locks)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder / specification.name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    for number in (signal.SIGTERM, signal.SIGKILL):
        if _lock_within(descriptor, 0.2 if number == signal.SIGTERM else PATIENCE):
            break
        holder = os.pread(descriptor, 20, 0).decode().strip()
        if holder.isdigit():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(holder), number)
    if not _lock_within(descriptor, PATIENCE):
        raise RoomError(f"an earlier room of {specification.name} does not end")
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


def _lock_within(descriptor: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(0.05)


def _unplug(specification: Specification) -> None:
    """Take away the cable of an earlier room, which has ended, since we hold the lock.

    The kernel would do so after the last process in that room's network, but one that was brought in from outside can
    stay as long as it likes, and the kernel takes its time. Removing our end removes both.
    """
    removed = subprocess.run(["ip", "link", "del", "dev", specification.cable], capture_output=True, env=SYSTEM)
    if removed.returncode and _link_exists(specification.cable):
        raise RoomError(f"the network interface {specification.cable} of an earlier room stays")


def _link_exists(name: str) -> bool:
    """Ask the kernel itself: /sys may show another network namespace than ours."""
    return subprocess.run(["ip", "link", "show", "dev", name], capture_output=True, env=SYSTEM).returncode == 0


def _plumber(specification: Specification, told_pid: int, tell_plugged: int) -> NoReturn:
    """Wait for the room's process id, join its network to ours, and end. Does nothing when the room failed."""
    status = 1
    try:
        pid = os.read(told_pid, 20).decode()
        if pid:
            _ip("link", "add", specification.cable, "type", "veth", "peer", "name", "eth0", "netns", pid)
            _ip("addr", "add", specification.hub_address, "peer", specification.address, "dev", specification.cable)
            _ip("link", "set", specification.cable, "up")
            os.write(tell_plugged, b".")
            status = 0
    except Exception as error:
        _complain(error)
    os._exit(status)


def _outside(group: Path | None, first: int, plumber: int, entered: int, tell_pid: int) -> int:
    """Limit and plug in the room, then pass signals on until it ends; return its exit status."""
    _forward_signals(first)
    try:
        if group:
            (group / "cgroup.procs").write_text(str(first))
        if os.read(entered, 1):
            os.write(tell_pid, str(first).encode())
        os.close(tell_pid)
        os.waitpid(plumber, 0)
        return _status(os.waitpid(first, 0)[1])
    finally:
        if group:
            with contextlib.suppress(OSError):
                group.rmdir()


def _memory_group(specification: Specification) -> Path | None:
    """Make the person's memory cgroup (version 1 or 2); None where that is not possible."""
    if not specification.memory_group:
        return None
    group = Path(specification.memory_group, specification.name)
    limit = str(specification.memory_mb << 20)
    try:
        group.mkdir(exist_ok=True)
        version_1 = group / "memory.limit_in_bytes"
        (version_1 if version_1.exists() else group / "memory.max").write_text(limit)
        swap = group / "memory.swap.max"
        if swap.exists():
            swap.write_text("0")
    except OSError as error:
        _complain(f"no memory group, each process is limited instead: {error}")
        return None
    return group


# ---- inside: process 1 of the room --------------------------------------------------------------------------------


def _inside(
    specification: Specification, command: list[str], grouped: bool, tell_entered: int, plugged: int
) -> NoReturn:
    status = 70  # EX_SOFTWARE
    try:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        _unshare(NEWNS | NEWIPC | NEWNET)
        os.write(tell_entered, b".")
        os.close(tell_entered)
        if not os.read(plugged, 1):
            raise RoomError("the room could not be joined to the network")
        os.close(plugged)
        _network(specification)
        _furnish(specification)
        server = os.fork()
        if server == 0:
            _become(specification, grouped)
            os.execvp(command[0], command)  # noqa: S606
        _forward_signals(server)
        status = _reap_until(server)
    except Exception as error:
        _complain(error)
    finally:
        os._exit(status)


def _network(specification: Specification) -> None:
    _ip("link", "set", "lo", "up")
    _ip("addr", "add", specification.address, "peer", specification.hub_address, "dev", "eth0")
    _ip("link", "set", "eth0", "up")
    _ip("route", "add", "default", "via", specification.hub_address)


def _furnish(specification: Specification) -> None:
    """Empty what the person shall not see, and put back what they shall."""
    _mount("none", "/", flags=MS_REC | MS_PRIVATE)
    kept = [specification.home, *(folder for folder in specification.keep if os.path.isdir(folder))]
    store = "/mnt"
    _mount("room", store, "tmpfs", data="mode=0700")
    for number, folder in enumerate(kept):
        os.mkdir(f"{store}/{number}")
        _mount(folder, f"{store}/{number}", flags=MS_BIND)
    for folder in EMPTIED:
        if folder != store and os.path.isdir(folder):
            _mount("room", folder, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=1m")
    for folder in WRITABLE:
        os.makedirs(folder, exist_ok=True)
        _mount("room", folder, "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    for number, folder in enumerate(kept):
        os.makedirs(folder, exist_ok=True)
        _mount(f"{store}/{number}", folder, flags=MS_MOVE)
        _restrict(folder, 0 if folder == specification.home else MS_RDONLY)
    if _libc.umount2(store.encode(), 0):
        raise RoomError(f"umount {store}: {os.strerror(ctypes.get_errno())}")
    _mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620")
    _mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "hidepid=2")


def _restrict(folder: str, flags: int) -> None:
    """Take rights from a bind mount. What it has already must be said again, or a user namespace may not do it."""
    present = os.statvfs(folder).f_flag & (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
    _mount("none", folder, flags=MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV | present | flags)


def _become(specification: Specification, grouped: bool) -> None:
    """Give up everything but the person's own rights; nothing that is started later gets more."""
    if not grouped:
        limit = specification.memory_mb << 20
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in FORWARDED:
        signal.signal(number, signal.SIG_DFL)
    os.setgroups([])
    os.setresgid(specification.uid, specification.uid, specification.uid)
    os.setresuid(specification.uid, specification.uid, specification.uid)
    os.umask(0o077)
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    resource.setrlimit(resource.RLIMIT_NPROC, (2048, 2048))
    os.chdir(specification.home)


def _reap_until(server: int) -> int:
    """Collect every process that ends in the room, until the server does; return its exit status."""
    while True:
        pid, status = os.wait()
        if pid == server:
            return _status(status)


# ---- both ---------------------------------------------------------------------------------------------------------


def _forward_signals(pid: int) -> None:
    """Pass signals on to `pid`. An interrupt becomes a request to end: a server would ask a terminal first."""

    def forward(number: int, _frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM if number == signal.SIGINT else number)

    for number in FORWARDED:
        signal.signal(number, forward)


def _status(wait_status: int) -> int:
    """Return an exit status as a shell would say it."""
    code = os.waitstatus_to_exitcode(wait_status)
    return code if code >= 0 else 128 - code


def _unshare(namespaces: int) -> None:
    if _libc.unshare(namespaces):
        number = ctypes.get_errno()
        raise RoomError(f"unshare: {errno.errorcode.get(number, number)}")


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0):
        raise RoomError(f"prctl({option}): {os.strerror(ctypes.get_errno())}")


def _mount(source: str, target: str, kind: str = "none", flags: int = 0, data: str = "") -> None:
    if _libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode()):
        raise RoomError(f"mount {source} at {target}: {os.strerror(ctypes.get_errno())}")


def _ip(*argv: str) -> None:
    _call("ip", *argv)


def _call(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, env=SYSTEM)
    if done.returncode:
        raise RoomError(f"{' '.join(argv)}: {done.stderr.strip()}")


def _complain(what: object) -> None:
    line = {"level": "error", "logger": "dcde.room", "message": str(what)}
    print(json.dumps(line), file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except Exception as problem:
        _complain(problem)
        sys.exit(70)
