"""A root file system and an /etc of one's own, made from nothing but /usr and what is named.

What is not named does not exist inside: the clone, people's homes, the machine's /run and /tmp need no list of what
to hide.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dcde_testbed import kernel

COPIED = (
    "alternatives",
    "bash.bashrc",
    "environment-modules",
    "fonts",
    "gai.conf",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "login.defs",
    "mime.types",
    "openmpi",
    "openmpi-mca-params.conf",
    "pam.d",
    "profile",
    "profile.d",
    "protocols",
    "services",
    "skel",
    "ssh/moduli",
    "ssh/ssh_config",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
)
"""What a program expects below /etc. Never all of it: there is much that is unreadable, private or no business here."""

_FOLDERS = "usr etc proc sys dev run tmp var/tmp var/log var/lib var/spool home root opt srv mnt"
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")


@dataclass(frozen=True)
class Bind:
    """A folder from outside and where it appears in the new root."""

    source: str
    target: str
    read_only: bool = True

    def to_json(self) -> dict[str, Any]:
        return {"source": self.source, "target": self.target, "read_only": self.read_only}


def make_etc(etc: Path, source: Path = Path("/etc")) -> None:
    """Write an /etc with the machine's system accounts, no people and no passwords; names come from files only."""
    etc.mkdir(parents=True, exist_ok=True)
    present = [f"./{name}" for name in COPIED if (source / name).exists()]
    subprocess.run(["cp", "-a", "--parents", "--no-preserve=ownership", *present, str(etc)], check=True, cwd=source)
    for name in ("passwd", "group"):
        lines = [line for line in (source / name).read_text().splitlines() if line.count(":") > 2]
        # Debian gives 60000 and above to packages (Slurm is 64030); in between are people.
        kept = [line for line in lines if not 1000 <= int(line.split(":")[2]) < 60000]
        (etc / name).write_text("".join(f"{line}\n" for line in kept))
    for name, of, tail in (("shadow", "passwd", ":*:19000::::::"), ("gshadow", "group", ":*::")):
        names = [line.split(":")[0] for line in (etc / of).read_text().splitlines()]
        (etc / name).write_text("".join(f"{each}{tail}\n" for each in names))
        (etc / name).chmod(0o640)
    (etc / "nsswitch.conf").write_text("passwd: files\ngroup: files\nshadow: files\nhosts: files\nservices: files\n")


def add_account(
    etc: Path,
    name: str,
    uid: int,
    *,
    home: str = "/nonexistent",
    shell: str = "/usr/sbin/nologin",
    groups: Iterable[str] = (),
) -> None:
    """Add an account without password, with a group of its own that has the same name and number.

    A name or number that is taken raises ValueError: an account must never become another one by accident.
    """
    passwd = (etc / "passwd").read_text().splitlines()
    if any(line.split(":")[0] == name or line.split(":")[2] == str(uid) for line in passwd):
        raise ValueError(f"account {name} ({uid}): the name or the number is taken already")
    add_group(etc, name, uid)
    with (etc / "passwd").open("a") as file:
        file.write(f"{name}:x:{uid}:{uid}::{home}:{shell}\n")
    with (etc / "shadow").open("a") as file:
        file.write(f"{name}:*:19000::::::\n")  # `*` and not `!`: sshd takes `!` for a locked account
    for group in groups:
        _join(etc / "group", group, name)


def add_group(etc: Path, name: str, gid: int) -> None:
    with (etc / "group").open("a") as file:
        file.write(f"{name}:x:{gid}:\n")
    with (etc / "gshadow").open("a") as file:
        file.write(f"{name}:*::\n")


def _join(file: Path, group: str, name: str) -> None:
    lines = file.read_text().splitlines()
    for k, line in enumerate(lines):
        if line.startswith(f"{group}:"):
            lines[k] = line + ("" if line.endswith(":") else ",") + name
    file.write_text("".join(f"{line}\n" for line in lines))


def new_root(
    at: Path, binds: Iterable[Bind], *, hide_processes: bool, furnish: Callable[[Path], None] | None = None
) -> None:
    """Leave the old file system for good: afterwards only /usr, `binds` and what `furnish` makes exist.

    The caller is alone in a mount namespace and in a PID namespace. `at` is any empty folder; `furnish(at)` is called
    while the old file system is still there.
    """
    kernel.make_private()
    kernel.mount("tmpfs", at, "tmpfs", data="mode=755")
    for name in _FOLDERS.split():
        (at / name).mkdir(parents=True, exist_ok=True)
    for name in ("tmp", "var/tmp"):
        (at / name).chmod(0o1777)
    (at / "root").chmod(0o700)
    (at / "var/run").symlink_to("/run")
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        if Path("/", name).is_symlink():
            (at / name).symlink_to(os.readlink(f"/{name}"))
    if furnish is not None:
        furnish(at)
    quiet = kernel.NOSUID | kernel.NODEV | kernel.NOEXEC
    kernel.mount("proc", at / "proc", "proc", quiet, "hidepid=2" if hide_processes else None)
    kernel.mount("sysfs", at / "sys", "sysfs", quiet | kernel.RDONLY)
    _new_dev(at / "dev")
    for each in (Bind("/usr", "/usr"), *binds):
        target = at / each.target.lstrip("/")
        if Path(each.source).is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
        kernel.bind(each.source, target, read_only=each.read_only)
    os.chdir(at)
    kernel.pivot_root(".", "mnt")
    os.chdir("/")
    kernel.unmount("/mnt", kernel.DETACH)


def _new_dev(dev: Path) -> None:
    kernel.mount("tmpfs", dev, "tmpfs", kernel.NOSUID, "mode=755")
    for name in _DEVICES:
        (dev / name).touch()
        kernel.bind(f"/dev/{name}", dev / name)
    links = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx"}
    for name, target in links.items():
        (dev / name).symlink_to(target)
    (dev / "pts").mkdir()
    (dev / "shm").mkdir()
    kernel.mount("devpts", dev / "pts", "devpts", kernel.NOSUID | kernel.NOEXEC, "newinstance,ptmxmode=0666,mode=0620")
    kernel.mount("tmpfs", dev / "shm", "tmpfs", kernel.NOSUID | kernel.NODEV, "mode=1777")


def private_copy(source: Path, target: Path, owner: str | None = None, mode: int = 0o600) -> None:
    """Copy a file that nobody else may read meanwhile."""
    with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(source.read_bytes())
    if owner:
        shutil.chown(target, owner, owner)
    target.chmod(mode)
