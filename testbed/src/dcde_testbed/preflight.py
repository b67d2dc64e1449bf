"""Says before anything is started what this machine lacks for a world, and how to get it."""

from __future__ import annotations

import os
import platform
import pwd
import shutil
import subprocess
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


def _find(program: str) -> bool:
    if program == "modulecmd":  # Debian keeps it out of PATH
        return Path("/usr/share/modules/init/bash").exists()
    return shutil.which(program, path=SEARCH) is not None


def missing_packages(find: Callable[[str], bool] = _find) -> list[str]:
    """Debian packages whose programs are not there, sorted."""
    return sorted({package for program, package in PROGRAMS.items() if not find(program)})


def subordinate_ids(text: str, user: str, uid: int) -> int:
    """The largest number of subordinate ids in one range that /etc/subuid or /etc/subgid (its text) gives to a user."""
    sizes = [0]
    for line in text.splitlines():
        parts = line.split(":")
        if len(parts) == 3 and parts[0] in (user, str(uid)) and parts[2].isdigit():
            sizes.append(int(parts[2]))
    return max(sizes)


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
    if shutil.which("newuidmap", path=SEARCH) is None:
        found.append("newuidmap is missing. Install the package uidmap, or run as root.")
    for name in ("subuid", "subgid"):
        try:
            size = subordinate_ids(Path("/etc", name).read_text(), user, uid)
        except OSError:
            size = 0
        if size < SUBORDINATE_IDS:
            found.append(
                f"{user} has {size} subordinate ids in /etc/{name} and needs {SUBORDINATE_IDS}: as root run "
                f"`usermod --add-{name}s 200000-{200000 + SUBORDINATE_IDS - 1} {user}` with a free range, "
                "or run the world as root."
            )
    return found


def unshare_options() -> list[str]:
    """What `unshare` needs beforehand when this account is not root."""
    return ["--user", "--map-root-user", "--map-auto"] if os.geteuid() else []


def _trial() -> list[str]:
    """Make the namespaces for a moment; only the kernel knows what it allows."""
    argv = [
        "unshare",
        *unshare_options(),
        "--net",
        "--mount",
        "--pid",
        "--ipc",
        "--uts",
        "--fork",
        "nft",
        "list",
        "ruleset",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, env={"PATH": SEARCH})
    if done.returncode == 0:
        return []
    said = done.stderr.strip().splitlines()[-1:] or ["no message"]
    return [
        f"This machine does not let us make namespaces with a firewall in them ({said[0]}). "
        "In a container it needs the capabilities SYS_ADMIN and NET_ADMIN; on Ubuntu run as root or set "
        "kernel.apparmor_restrict_unprivileged_userns=0."
    ]
