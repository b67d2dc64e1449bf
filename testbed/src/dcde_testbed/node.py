"""One machine of a site: `node SITE MACHINE`, started by the world's process 1 and again when it ends.

`launch` makes the namespaces and stays outside as the parent; `_machine` is process 1 inside.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

from dcde_testbed import kernel, rooms
from dcde_testbed.applications import setup_of
from dcde_testbed.jsonlog import log
from dcde_testbed.layout import Site
from dcde_testbed.network import namespace
from dcde_testbed.sites import RUN, state_folder
from dcde_testbed.supervisor import Service, Supervisor, TimeUp

CONFIGURATION = RUN / "configuration.json"
SITE_ENVIRONMENT = RUN / "environment"
STATE = Path("/var/lib/dcde")


def launch(site_name: str, machine: str) -> int:
    """Put the machine into namespaces of its own and wait for its end; returns its exit status."""
    site = next(Site.from_json(each) for each in json.loads(CONFIGURATION.read_text()) if each["name"] == site_name)
    kernel.enter_network(namespace(site.name, machine))
    kernel.unshare(kernel.NEWNS | kernel.NEWUTS | kernel.NEWIPC | kernel.NEWPID)
    child = os.fork()
    if child == 0:
        kernel.die_with_parent(signal.SIGKILL)
        os._exit(_machine(site, machine))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda n, _: _pass_on(child, n))
    _, status = os.waitpid(child, 0)
    return abs(os.waitstatus_to_exitcode(status))


def _pass_on(child: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, number)


def _machine(site: Site, machine: str) -> int:
    program = f"{site.name}.{machine}"
    try:
        socket.sethostname(f"{machine}.{site.domain}")
        rooms.new_root(Path("/mnt"), _binds(site, machine), hide_processes=True)
        supervisor = Supervisor(program)
        _start(supervisor, machine)
        if machine == "login":
            _report_when_ready(supervisor, site)
        supervisor.run()
        supervisor.end(seconds=1.5)
    except Exception as error:
        log(program, "machine failed", level="error", error=repr(error))
        return 1
    return 0


def _binds(site: Site, machine: str) -> list[rooms.Bind]:
    run, here, setup = RUN / site.name, state_folder(STATE, site), setup_of(site)
    binds = [
        rooms.Bind(str(run / "etc"), "/etc", read_only=False),
        rooms.Bind(str(here / "home"), "/home", read_only=False),
        rooms.Bind(str(run / "storage"), site.storage_root, read_only=False),
        rooms.Bind(str(run / "software"), setup.root),
        rooms.Bind(str(STATE / "onboarding" / site.name), "/etc/dcde/onboarding"),
        rooms.Bind(str(STATE / "logs" / site.name), "/var/log/site", read_only=False),
    ]
    if SITE_ENVIRONMENT.is_dir():
        binds.append(rooms.Bind(str(SITE_ENVIRONMENT), "/opt/dcde/site"))
    if machine == "login":
        binds.append(rooms.Bind(str(here / "spool" / "slurmctld"), "/var/spool/slurmctld", read_only=False))
        binds.append(rooms.Bind(str(run / "status"), "/run/status", read_only=False))
    elif machine != "dtn":
        binds.append(rooms.Bind(str(here / "spool" / machine), "/var/spool/slurmd", read_only=False))
    return binds


def _start(supervisor: Supervisor, machine: str) -> None:
    if machine == "dtn":
        return
    for folder, owner in (
        ("run/munge", "munge"),
        ("var/lib/munge", "munge"),
        ("var/log/munge", "munge"),
        ("run/sshd", "root"),
    ):
        Path("/", folder).mkdir(parents=True)
        shutil.chown(Path("/", folder), owner, owner)

    def add(name: str, *argv: str, user: str | None = None) -> None:
        supervisor.add(Service(name, argv, Path(f"/var/log/site/{machine}.{name}.log"), user=user))

    force = () if kernel.real_root_is_mapped() else ("--force",)  # else it minds that `/` belongs to nobody it knows
    add("munged", "/usr/sbin/munged", "--foreground", *force, user="munge")
    if machine == "login":
        add("sshd", "/usr/sbin/sshd", "-D", "-e")
    supervisor.wait(Path("/run/munge/munge.socket.2").exists, 20, "munge")
    if machine == "login":
        add("slurmctld", "/usr/sbin/slurmctld", "-D", user="slurm")
    else:
        add("slurmd", "/usr/sbin/slurmd", "-D")


def _report_when_ready(supervisor: Supervisor, site: Site) -> None:
    """Leave a file once ssh answers and all compute nodes are idle; the world waits for it."""
    ready = Path("/run/status/ready")
    ready.unlink(missing_ok=True)
    try:
        supervisor.wait(lambda: _idle_nodes() >= site.nodes and _answers(site.ssh_port), 120, "Slurm")
    except TimeUp as error:
        log(f"{site.name}.login", "not ready", level="warning", error=error)
    else:
        ready.touch()


def _idle_nodes() -> int:
    shown = subprocess.run(
        ["sinfo", "-hN", "-p", "batch", "-t", "idle,mixed,allocated", "-o", "%N"], capture_output=True, text=True
    )
    return len(shown.stdout.split())


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
