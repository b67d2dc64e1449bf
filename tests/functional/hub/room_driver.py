"""Runs inside throw-away namespaces as their root: makes accounts and rooms for real, and prints what was seen as JSON.

room_driver.py FOLDER      FOLDER is shared with the test; everything else that is changed here goes with the namespaces
"""

from __future__ import annotations

import asyncio
import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dcde_hub import room
from dcde_hub.accounts import Accounts
from dcde_hub.errors import AccountRefused
from dcde_hub.registry import Member, UidRange

FOLDER = Path(sys.argv[1])
ROOM = FOLDER / "room.py"
KEPT = "/opt/dcde/user"
PROBE = """
import json, os, resource, socket, sys
def names(path):
    try: return sorted(os.listdir(path))
    except OSError as e: return type(e).__name__
def can(action):
    try: return action() or True
    except OSError as e: return type(e).__name__
def memory():
    try: bytearray(700 << 20); return "all of it"
    except MemoryError: return "MemoryError"
status = dict(l.split(":", 1) for l in open("/proc/self/status") if ":" in l)
seen = {
    "uid": os.getresuid(), "gid": os.getresgid(), "groups": os.getgroups(), "cwd": os.getcwd(), "umask": os.umask(0o077),
    "no_new_privs": status["NoNewPrivs"].strip(), "capabilities": status["CapEff"].strip(),
    "processes": sorted(int(p) for p in os.listdir("/proc") if p.isdigit()),
    "folders": {p: names(p) for p in ("/home", "/run", "/opt", "/opt/dcde", "/root", "/srv", "/var", "/tmp", "/var/tmp", "/dev/shm", "/dev/pts", "/etc/dcde")},
    "interfaces": sorted(n for _, n in socket.if_nameindex()),
    "write": {p: can(lambda p=p: open(p + "/x", "w").close()) for p in (os.path.expanduser("~"), "/tmp", "/dev/shm", "/usr", "/opt/dcde/user", "/etc")},
    "kept": open("/opt/dcde/user/file").read(),
    "hub": can(lambda: socket.create_connection(("10.79.0.1", 8081), 3).close()),
    "elsewhere": can(lambda: socket.create_connection(("192.0.2.1", 80), 3).close()),
    "namespaces": {n: os.readlink("/proc/self/ns/" + n) for n in ("mnt", "pid", "net", "ipc")},
    "memory": memory(), "core": resource.getrlimit(resource.RLIMIT_CORE), "become_root": can(lambda: os.setuid(0)),
    "first_environ": can(lambda: open("/proc/1/environ").read()), "environment": dict(os.environ),
}
print(json.dumps(seen), flush=True)
"""


def main() -> None:
    shutil.copy(room.__file__, ROOM)  # the sources may lie below /home, which is about to be another one
    furnish_machine()
    threading.Thread(
        target=http.server.HTTPServer(("10.79.0.1", 8081), http.server.BaseHTTPRequestHandler).serve_forever,
        daemon=True,
    ).start()
    member = people(1, 2)
    report: dict[str, Any] = {"accounts": asyncio.run(make_accounts(member))}
    report["probe"] = json.loads(run(member[0], "/usr/bin/python3", "-I", "-c", PROBE).stdout)
    report["outside"] = {
        "namespaces": {n: os.readlink(f"/proc/self/ns/{n}") for n in ("mnt", "pid", "net", "ipc")},
        "home": oct(os.stat("/home/dcde1000001").st_mode & 0o7777),
        "link_left": not gone(lambda: link(member[0])),
    }
    report["status"] = run(member[0], "/bin/sh", "-c", "exit 7").returncode
    report["endings"] = {
        name: ending(member[0], number) for name, number in (("term", 15), ("interrupt", 2), ("kill", 9))
    }
    report["failures"] = failures(member[0])
    report["second"] = second_room(member[0])
    report["visited"] = visited_room(member[0])
    report["together"] = together(*member)
    (FOLDER / "report.json").write_text(json.dumps(report))


def furnish_machine() -> None:
    for argv in (
        ["mount", "--make-rprivate", "/"], ["mount", "-t", "tmpfs", "tmpfs", "/run"], ["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/home"],
        ["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/opt"], ["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/mnt"],
        ["cp", "-a", "--no-preserve=ownership", *(f"/etc/{n}" for n in ("passwd", "group", "login.defs", "skel", "pam.d", "nsswitch.conf", "ld.so.cache", "alternatives")), "/mnt"],
        ["mount", "--move", "/mnt", "/etc"], ["mount", "-t", "proc", "proc", "/proc"],
        ["ip", "link", "set", "lo", "up"], ["ip", "addr", "add", "10.79.0.1/32", "dev", "lo"],
    ):  # fmt: skip
        subprocess.run(argv, check=True)
    for file in ("shadow", "gshadow"):
        Path("/etc", file).touch(0o600)
    Path(KEPT).mkdir(parents=True)
    Path(KEPT, "file").write_text("kept")
    Path("/etc/dcde/hub").mkdir(parents=True)
    Path("/home/foreign").mkdir(mode=0o755)
    Path("/run/secret").touch()


def people(*numbers: int) -> list[Member]:
    return [
        Member(
            dcde_id=f"dcde100000{n}", uid_number=51000 + n, name="A", status="active", identities=[f"p{n}@pnnl.example"]
        )
        for n in numbers
    ]


async def make_accounts(members: list[Member]) -> dict[str, Any]:
    accounts = Accounts()
    made = await asyncio.gather(*(accounts.ensure(m) for m in members))
    again = await asyncio.gather(*(accounts.ensure(m) for m in members))
    found: dict[str, Any] = {"made": [list(m)[:1] + list(m)[2:] for m in made], "same_again": made == again}
    for name, wrong, uids in (
        ("uid_zero", members[0].model_copy(update={"uid_number": 0}), None),
        ("system_uid", members[0].model_copy(update={"uid_number": 33}), None),
        ("other_uid", members[0].model_copy(update={"uid_number": 51077}), None),
        ("taken_uid", members[0].model_copy(update={"dcde_id": "dcde1000077"}), None),
        ("range", members[0], UidRange(52000, 59999)),
    ):
        try:
            await Accounts(uids=uids).ensure(wrong)
            found[name] = "made"
        except AccountRefused as error:
            found[name] = error.message
    os.mkdir("/home/dcde1000008")
    os.symlink("/root", "/home/dcde1000009")
    for number, name in ((8, "foreign_home"), (9, "linked_home")):
        try:
            await accounts.ensure(people(number)[0])
            found[name] = "made"
        except AccountRefused as error:
            found[name] = error.message
    found["shadow_private"] = oct(os.stat("/etc/shadow").st_mode & 0o777)
    return found


def specification(member: Member, **change: Any) -> str:
    uid = member.uid_number
    values = {
        "name": member.dcde_id, "uid": uid, "home": f"/home/{member.dcde_id}", "address": f"10.79.1.{uid - 51000}", "hub_address": "10.79.0.1",
        "memory_mb": 500, "memory_group": None, "keep": [KEPT], "locks": "/run/dcde/rooms",
    }  # fmt: skip
    return json.dumps(values | change)


def start(member: Member, *command: str, **change: Any) -> subprocess.Popen[str]:
    argv = ["/usr/bin/python3", "-I", str(ROOM), specification(member, **change), *command]
    return subprocess.Popen(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PATH": "/usr/bin", "MARK": "1"},
        start_new_session=True,
        umask=0o077,
    )


def run(member: Member, *command: str, **change: Any) -> subprocess.CompletedProcess[str]:
    process = start(member, *command, **change)
    out, err = process.communicate(timeout=60)
    if err:
        print(err, file=sys.stderr)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def link(member: Member) -> bool:
    return subprocess.run(["ip", "link", "show", f"u{member.uid_number}"], capture_output=True).returncode == 0


def gone(there: Callable[[], bool], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while there():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def owned(member: Member) -> list[str]:
    """Command lines of the person's processes, wherever they are."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and folder.stat().st_uid == member.uid_number:
                found.append(folder.joinpath("cmdline").read_text().replace("\0", " "))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def busy(member: Member) -> subprocess.Popen[str]:
    """A room with a server that has a child of its own; returns when it runs."""
    process = start(member, "/bin/sh", "-c", "sleep 1000 & echo up; wait")
    assert process.stdout and process.stdout.readline() == "up\n", process.stderr and process.stderr.read()
    return process


def ending(member: Member, number: int) -> dict[str, Any]:
    process = busy(member)
    before = owned(member), link(member)
    process.send_signal(number)
    status = process.wait(15)
    return {
        "before": [len(before[0]), before[1]],
        "status": status,
        "processes_gone": gone(lambda: bool(owned(member))),
        "link_gone": gone(lambda: link(member)),
    }


def failures(member: Member) -> dict[str, Any]:
    cases: dict[str, tuple[list[str], dict[str, Any]]] = {
        "no_program": (["/nowhere/server"], {}),
        "bad_address": (["/bin/true"], {"address": "10.79.1.999"}),
        "no_home": (["/bin/true"], {"home": "/home/nobody-here"}),
    }
    found = {}
    for name, (command, change) in cases.items():
        done = run(member, *command, **change)
        found[name] = {
            "status": done.returncode,
            "said": done.stderr,
            "link_gone": gone(lambda: link(member)),
            "mounts": Path("/proc/mounts").read_text().count("room"),
        }
    return found


def second_room(member: Member) -> dict[str, Any]:
    """A hub that lost track of a server starts another one: the lost one must go first."""
    lost = busy(member)
    new = busy(member)
    found = {
        "lost_ended": lost.wait(10) is not None,
        "new_runs": new.poll() is None,
        "link": link(member),
        "processes": len(owned(member)),
    }
    new.send_signal(signal.SIGTERM)
    new.wait(15)
    return found


def visited_room(member: Member) -> dict[str, Any]:
    """A program from outside sits in the network of a room that ends, and so keeps that network: the next room starts."""
    lost = busy(member)
    (first,) = Path(f"/proc/{lost.pid}/task/{lost.pid}/children").read_text().split()
    visitor = subprocess.Popen(["nsenter", f"--net=/proc/{first}/ns/net", "sleep", "1000"])
    assert gone(lambda: os.readlink(f"/proc/{visitor.pid}/ns/net") != os.readlink(f"/proc/{first}/ns/net"))
    lost.kill()
    lost.wait(10)
    stays = link(member)
    new = busy(member)
    found = {"link_stayed": stays, "new_runs": new.poll() is None, "visitor_unharmed": visitor.poll() is None}
    new.send_signal(signal.SIGTERM)
    new.wait(15)
    visitor.kill()
    visitor.wait(10)
    return found


def together(one: Member, two: Member) -> dict[str, Any]:
    """Two people at once, one of whom listens on all addresses."""
    program = "import socket; s = socket.create_server(('0.0.0.0', 8888)); print('up', flush=True); s.accept()"
    listening = start(one, "/usr/bin/python3", "-I", "-c", program)
    assert listening.stdout and listening.stdout.readline() == "up\n"
    probe = "import os; print(sorted(os.listdir('/home')), [p for p in os.listdir('/proc') if p.isdigit()].__len__())"
    seen = run(two, "/usr/bin/python3", "-I", "-c", probe).stdout
    listening.send_signal(signal.SIGTERM)
    listening.wait(15)
    return {"seen": seen.strip()}


if __name__ == "__main__":
    main()
