"""One site on disk: its /etc with accounts, Slurm, sshd and mapfile, its lasting folders, and its public facts.

Runs in process 1 of the world, before any machine of the site starts.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dcde_testbed import applications, kernel, rooms, slurm
from dcde_testbed.layout import Site

RUN = Path("/run/sites")
"""Where process 1 keeps what a site needs while it runs."""
PRINCIPALS = "/etc/dcde/principals"
MAPFILE = "/etc/dcde/mapfile"
USER_CA = "/etc/dcde/onboarding/user_ca.pub"

_SSHD = """Port {port}
HostKey /etc/ssh/host_key
PidFile none
# The site trusts its own user CA; the mapfile says which DCDE id may use which account. Nothing else opens an account.
TrustedUserCAKeys {user_ca}
AuthorizedPrincipalsCommand {principals} %u
AuthorizedPrincipalsCommandUser nobody
AuthorizedKeysFile none
StrictModes {strict}
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin no
UsePAM no
UseDNS no
MaxSessions 64
MaxStartups 50
ClientAliveInterval 15
ClientAliveCountMax 4
GatewayPorts no
AllowTcpForwarding no
AllowStreamLocalForwarding no
AllowAgentForwarding no
X11Forwarding no
PermitTunnel no
Subsystem sftp internal-sftp
LogLevel VERBOSE
"""

# Lines of the mapfile: DCDE id, blank, account. A principal names the site too: a certificate is good at one site only.
_PRINCIPALS = """#!/usr/bin/awk -f
BEGIN {{ account = ARGV[1]; ARGV[1] = "{mapfile}" }}
$2 == account {{ print $1 "@{site}" }}
"""


def state_folder(state: Path, site: Site) -> Path:
    """Where a site's lasting things are: homes, storage, Slurm's spool, keys."""
    return state / "sites" / site.name


def prepare(site: Site, state: Path, base_etc: Path, ctffind: Path, warn: Callable[[str], None]) -> None:
    """Write everything of a site that its machines need to start. `warn` is told what is missing but not fatal."""
    run, here, etc = RUN / site.name, state_folder(state, site), RUN / site.name / "etc"
    run.mkdir(parents=True)
    (run / "status").mkdir(mode=0o755)
    shutil.copytree(base_etc, etc, symlinks=True)
    _keys(here)
    _hosts(site, etc)
    _accounts(site, here, etc)
    _storage(site, here)
    _services(site, here, etc)
    (state / "onboarding" / site.name).mkdir(mode=0o700, parents=True, exist_ok=True)
    warning = applications.install(site, run / "software", etc, ctffind)
    if warning:
        warn(warning)


def _keys(here: Path) -> None:
    here.mkdir(mode=0o711, parents=True, exist_ok=True)
    if not (here / "host_key").exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", here / "host_key"], check=True)
    if not (here / "munge.key").exists():
        with open(os.open(here / "munge.key", os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(os.urandom(1024))


def _hosts(site: Site, etc: Path) -> None:
    lines = ["127.0.0.1 localhost"]
    lines += [f"{site.lan_address(machine)} {machine} {machine}.{site.domain}" for machine in site.machines]
    (etc / "hosts").write_text("".join(f"{line}\n" for line in lines))


def _accounts(site: Site, here: Path, etc: Path) -> None:
    for account in site.accounts:
        rooms.add_account(etc, account.name, account.uid, home=f"/home/{account.name}", shell="/bin/bash")  # noqa: S604 - a login shell
        home = here / "home" / account.name
        home.mkdir(parents=True, exist_ok=True)
        os.chown(home, account.uid, account.uid)
        home.chmod(0o700)
    dcde = etc / "dcde"
    dcde.mkdir()
    (dcde / "onboarding").mkdir()
    (dcde / "mapfile").write_text("".join(f"{a.dcde_id} {a.name}\n" for a in site.accounts))
    script = dcde / "principals"
    script.write_text(_PRINCIPALS.format(mapfile=MAPFILE, site=site.name))
    script.chmod(0o755)


def _storage(site: Site, here: Path) -> None:
    lasting, now = here / "storage", RUN / site.name / "storage"
    lasting.mkdir(exist_ok=True)
    now.mkdir()
    if site.storage_mb:
        kernel.mount("tmpfs", now, "tmpfs", kernel.NOSUID | kernel.NODEV, f"mode=755,size={site.storage_mb}m")
    else:
        kernel.bind(lasting, now)
    now.chmod(0o755)
    for account in site.accounts:
        folder = now / account.name
        folder.mkdir(exist_ok=True)
        os.chown(folder, account.uid, account.uid)
        folder.chmod(0o700)


def _services(site: Site, here: Path, etc: Path) -> None:
    spool = here / "spool"
    for name in ("slurmctld", *site.compute_nodes):
        (spool / name).mkdir(parents=True, exist_ok=True)
    shutil.chown(spool / "slurmctld", "slurm", "slurm")
    (etc / "slurm").mkdir()
    (etc / "slurm" / "slurm.conf").write_text(slurm.slurm_conf(site))
    (etc / "slurm" / "cgroup.conf").write_text(slurm.CGROUP_CONF)
    # Without the true root in the user namespace `/` seems to belong to nobody: StrictModes would refuse every login.
    strict = "yes" if kernel.real_root_is_mapped() else "no"
    (etc / "ssh" / "sshd_config").write_text(
        _SSHD.format(port=site.ssh_port, user_ca=USER_CA, principals=PRINCIPALS, strict=strict)
    )
    rooms.private_copy(here / "host_key", etc / "ssh" / "host_key")
    (etc / "munge").mkdir(mode=0o700)
    shutil.chown(etc / "munge", "munge", "munge")
    rooms.private_copy(here / "munge.key", etc / "munge" / "munge.key", owner="munge")


def facts(site: Site, state: Path) -> dict[str, Any]:
    """The public description of a site for `world.json`."""
    key = (state_folder(state, site) / "host_key.pub").read_text().split()
    return {
        "title": site.title,
        "hosts": [site.login_host],
        "port": site.ssh_port,
        "host_key": " ".join(key[:2]),
        "storage_root": site.storage_root,
        "dtn": {"host": site.dtn_host},
        "nodes": site.nodes,
        "cores_per_node": site.cores_per_node,
        "memory_mb_per_node": site.memory_mb_per_node,
        "partitions": [dict(each) for each in slurm.PARTITIONS],
        "allocations": ["dcde"],
        "worker_interpreter": applications.INTERPRETER,
        **applications.setup_of(site).facts(),
        "mapfile": {account.dcde_id: account.name for account in site.accounts},
    }
