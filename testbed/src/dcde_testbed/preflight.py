"""Says before anything is started what this machine lacks for a world, and how to get it."""

from __future__ import annotations

import contextlib
import os
import platform
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

PROGRAMS: Mapping[str, str] = {
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "ip": "iproute2",
    "nft": "nftables",
    "sysctl": "procps",
    "openssl": "openssl",
    "ssh-keygen": "openssh-client",
    "/usr/sbin/sshd": "openssh-server",
    "munged": "munge",
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sbatch": "slurm-client",
    "modulecmd": "environment-modules",
    "relion_refine": "relion",
}
SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SUBORDINATE_IDS = 65536
TRIAL_SECONDS = 20.0


def _find(program: str) -> bool:
    if program == "modulecmd":  # Debian keeps it out of PATH
        return Path("/usr/share/modules/init/bash").exists()
    return shutil.which(program, path=SEARCH) is not None


def missing_packages(find: Callable[[str], bool] = _find) -> list[str]:
    """Debian packages whose programs are not there, sorted."""
    return sorted({package for program, package in PROGRAMS.items() if not find(program)})


def subordinate_ids(text: str, user: str) -> int:
    """The number of subordinate ids that `unshare --map-auto` takes for a user of a file like /etc/subuid (its text).

    It takes the first line of the user's name only; it knows no lines with the number of an account.
    """
    for line in text.splitlines():
        parts = line.split(":")
        if len(parts) == 3 and parts[0] == user and parts[2].isdigit():
            return int(parts[2])
    return 0


def problems() -> list[str]:
    """What prevents a world here, each with its remedy; empty when nothing does."""
    if platform.system() != "Linux":
        return ["A world needs Linux; on other systems run it in a Debian virtual machine."]
    found = []
    packages = missing_packages()
    if packages:
        found.append(f"Programs are missing. Install the packages: {' '.join(packages)}")
    if os.geteuid() != 0:
        found += _user_problems()
    if not found:
        found += _trial()
    return found


def _user_problems() -> list[str]:
    found = []
    uid = os.geteuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    if any(shutil.which(program, path=SEARCH) is None for program in ("newuidmap", "newgidmap")):
        found.append("newuidmap or newgidmap is missing. Install the package uidmap, or run as root.")
    for name in ("subuid", "subgid"):
        try:
            size = subordinate_ids(Path("/etc", name).read_text(), user)
        except OSError:
            size = 0
        if size < SUBORDINATE_IDS:
            free = f"200000-{200000 + SUBORDINATE_IDS - 1} {user}` with a free range"
            remedy = f"run `usermod --add-{name}s {free}" if size == 0 else f"make its first line in /etc/{name} larger"
            found.append(
                f"{user} has {size} subordinate ids in /etc/{name} and needs {SUBORDINATE_IDS}: as root {remedy}, "
                "or run as root."
            )
    return found


def unshare_options() -> list[str]:
    """What `unshare` needs beforehand when this account is not root."""
    return ["--user", "--map-root-user", "--map-auto"] if os.geteuid() else []


def _trial() -> list[str]:
    """Make the namespaces for a moment, one kind after the other; only the kernel knows what it allows."""
    if os.geteuid():
        said = _attempt("unshare", "--user", "true")
        if said is not None:
            return [
                f"This machine does not let ordinary users make user namespaces ({said}). As root allow them, "
                "`sysctl user.max_user_namespaces=15000`, on older kernels of Debian `sysctl "
                "kernel.unprivileged_userns_clone=1`, or run as root. In a container its own settings decide."
            ]
        said = _attempt("unshare", *unshare_options(), "true")
        if said is not None:
            return [
                f"The subordinate ids cannot be mapped ({said}). newuidmap and newgidmap (package uidmap) must be "
                "set-user-id root and not be kept from it by `no new privileges` or a nosuid mount; on Ubuntu set "
                "kernel.apparmor_restrict_unprivileged_userns=0. Or run as root."
            ]
    namespaces = ["--net", "--mount", "--pid", "--ipc", "--uts", "--fork"]
    said = _attempt("unshare", *unshare_options(), *namespaces, "nft", "list", "ruleset")
    if said is None:
        return []
    return [
        f"This machine does not let us make namespaces with a firewall in them ({said}). "
        "In a container it needs the capabilities SYS_ADMIN and NET_ADMIN."
    ]


def _attempt(*argv: str) -> str | None:
    """Run a program that may hang; None when it ended well, otherwise the last line it said.

    When it fails, `unshare --map-auto` can leave a helper that waits for ever and holds the output open.
    """
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=output,
            env={"PATH": SEARCH},
            start_new_session=True,
        )
        try:
            status: int | None = process.wait(TRIAL_SECONDS)
        except subprocess.TimeoutExpired:
            status = None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        output.seek(0)
        said = output.read().strip().splitlines()
    if status == 0:
        return None
    return said[-1] if said else ("no answer" if status is None else f"exit code {status}")
