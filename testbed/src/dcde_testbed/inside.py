"""Process 1 of the world: makes its root, networks and sites, starts everything and answers the control socket.

Standard library only, under /usr/bin/python3. Its plan comes as JSON on standard input; its progress goes as JSON
lines to an inherited pipe, on which `up` waits.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dcde_testbed
from dcde_testbed import certificates, network, rooms, sites
from dcde_testbed.control import ControlServer
from dcde_testbed.guest import Guest
from dcde_testbed.jsonlog import log
from dcde_testbed.layout import Site
from dcde_testbed.node import CONFIGURATION, SITE_ENVIRONMENT, STATE
from dcde_testbed.rooms import Bind
from dcde_testbed.supervisor import PATH, Service, Supervisor, TimeUp, open_log

PYTHON = "/usr/bin/python3"
TESTBED = Path("/opt/dcde/testbed")
PACKAGE = TESTBED / "dcde_testbed"
ENVIRONMENTS = ("hub", "user", "federation", "node")
BASE_ETC = sites.RUN / "etc"
DOOR_ACCOUNT, FEDERATION_ACCOUNT = ("dcde-door", 980), ("dcde-fed", 981)
PREPARE_SECONDS, READY_SECONDS = 300.0, 180.0
END_SECONDS = 2.4
_LAST_LINES = 15


class Failed(Exception):
    """The world cannot come up; the message is for the person who started it."""


class World:
    """Everything process 1 knows. The methods are in the order in which `start` calls them."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.sites = tuple(Site.from_json(each) for each in plan["sites"])
        self.guest = Guest.from_json(plan["guest"])
        self.port: int = plan["port"]
        self.identity = secrets.token_hex(8)
        self.routes: dict[str, int] = {}
        self.ready: list[str] = []
        self.federation: Any = None
        self.came_up = False
        self._report = os.fdopen(plan["report_fd"], "w")
        self._began = time.monotonic()

    def report(self, **message: Any) -> None:
        """Tell `up`; afterwards nobody may be listening."""
        with contextlib.suppress(OSError, ValueError):
            print(json.dumps(message), file=self._report, flush=True)

    def warn(self, text: str) -> None:
        log("world", "warning", level="warning", text=text)
        self.report(warning=text)

    @contextlib.contextmanager
    def stage(self, title: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        seconds = round(time.monotonic() - began, 2)
        log("world", "stage done", stage=title, seconds=seconds)
        self.report(stage=title, seconds=seconds)

    def start(self) -> None:
        with self.stage("root file system"):
            self._root()
        self.supervisor = Supervisor("world")
        ControlServer(STATE / "control", self.supervisor, self._handle)
        with self.stage("networks and firewalls"):
            network.build(self.sites, self.guest.api_ports)
        with self.stage("federation keys and metadata"):
            self._federation()
        with self.stage("sites' accounts and configuration"):
            self._sites()
        if self.guest.prepare:
            with self.stage("guest's preparation"):
                self._prepare_guest()
        with self.stage("services started"):
            self._services()
        with self.stage("sites ready (ssh answers, all nodes idle)"):
            self._wait(lambda: all((sites.RUN / s.name / "status" / "ready").exists() for s in self.sites), "the sites")
        if self.ready:
            with self.stage("services answer"):
                self._wait_for_addresses()
        self.came_up = True
        self.report(ready=True, seconds=round(time.monotonic() - self._began, 2), hosts=sorted(self.routes))

    # -- building

    def _root(self) -> None:
        os.umask(0o022)
        socket.sethostname("hub")
        state = Path(self.plan["state"])
        for name in ("home", "sites", "logs", "onboarding"):
            (state / name).mkdir(mode=0o711, exist_ok=True)
        (state / "home").chmod(0o755)
        for site in self.sites:
            (state / "logs" / site.name).mkdir(mode=0o700, exist_ok=True)
        binds = [
            Bind(str(state), str(STATE), read_only=False),
            Bind(str(state / "home"), "/home", read_only=False),
            Bind(str(Path(__file__).resolve().parent), str(PACKAGE)),
        ]
        environments = Path(self.plan["environments"])
        binds += [
            Bind(str(environments / name), f"/opt/dcde/{name}")
            for name in ENVIRONMENTS
            if (environments / name).is_dir()
        ]
        if (environments / "site").is_dir():
            binds.append(Bind(str(environments / "site"), str(SITE_ENVIRONMENT)))
        if self.plan["memory_group"]:
            binds.append(Bind(self.plan["memory_group"], "/run/memory", read_only=False))
        if self.plan["sample_data"]:
            binds.append(Bind(self.plan["sample_data"], "/run/sample-data"))
        binds += self.guest.binds
        rooms.new_root(Path(self.plan["mount_point"]), binds, hide_processes=False, furnish=self._furnish)
        # The folder this package was started from is gone: what is imported from now on comes from its place in here.
        dcde_testbed.__path__ = [str(PACKAGE)]

    def _furnish(self, root: Path) -> None:
        (root / sites.RUN.relative_to("/")).mkdir(mode=0o700)
        base = root / BASE_ETC.relative_to("/")
        rooms.make_etc(base)
        shutil.copytree(base, root / "etc", symlinks=True, dirs_exist_ok=True)
        self._hub_etc(root / "etc")

    def _hub_etc(self, etc: Path) -> None:
        for name, uid in (DOOR_ACCOUNT, FEDERATION_ACCOUNT, *((a.name, a.uid) for a in self.guest.accounts)):
            try:
                rooms.add_account(etc, name, uid)
            except ValueError as error:
                raise Failed(str(error)) from error
        hosts = ["127.0.0.1 localhost", f"127.0.0.1 {' '.join(sorted(self._host_names()))}"]
        for site in self.sites:
            hosts += [f"{site.login_address} {site.login_host}", f"{site.dtn_address} {site.dtn_host}"]
        (etc / "hosts").write_text("".join(f"{line}\n" for line in hosts))
        # Login shells in people's terminals forget the PATH that their server had.
        (etc / "profile.d").mkdir(exist_ok=True)
        (etc / "profile.d" / "dcde.sh").write_text('PATH="/opt/dcde/user/bin:$PATH"\n')

    def _host_names(self) -> set[str]:
        ours = {"hub", "proxy", "disco", "pnnl", "bnl", "ornl"}
        return {f"{name}.localhost" for name in ours} | set(self.guest.routes)

    def _federation(self) -> None:
        if not Path("/opt/dcde/federation/bin/python").exists():
            self.warn("no federation: its environment is not built (--env)")
            return
        try:
            from dcde_testbed import federation
        except ImportError:
            self.warn("no federation: this testbed has none")
            return
        runtime = federation.Runtime(package_path=TESTBED, account=FEDERATION_ACCOUNT[0])
        try:
            self.federation = federation.prepare(STATE, self.port, runtime)
        except federation.FederationError as error:
            raise Failed(str(error)) from error

    def _sites(self) -> None:
        for site in self.sites:
            sites.prepare(site, STATE, BASE_ETC, PACKAGE / "software" / "ctffind", self.warn)
        CONFIGURATION.write_text(json.dumps([site.to_json() for site in self.sites]))
        self._sample_data()
        self._describe()
        self._front_door_files()

    def _sample_data(self) -> None:
        """Lay the movies into the first person's storage, once; what the person does with them afterwards stays."""
        site = self.sites[0]
        account = site.accounts[0]
        target = sites.RUN / site.name / "storage" / account.name / "movies"
        source = Path("/run/sample-data/movies")
        if not source.is_dir() or target.exists():
            return
        draft = target.with_name(".movies.new")
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(source, draft)
        for path in (draft, *draft.iterdir()):
            os.chown(path, account.uid, account.uid)
            path.chmod(0o700 if path.is_dir() else 0o600)
        draft.rename(target)

    def _describe(self) -> None:
        description = {
            "world": self.identity,
            "port": self.port,
            "memory_group": "/run/memory" if self.plan["memory_group"] else None,
            "rootless": self.plan["rootless"],
            "federation": self.federation.facts() if self.federation else None,
            "registry": str(STATE / "registry.yaml"),
            "sites": {site.name: sites.facts(site, STATE) for site in self.sites},
        }
        draft = STATE / ".world.json.new"
        draft.write_text(json.dumps(description, indent=1) + "\n")
        draft.rename(STATE / "world.json")

    def _front_door_files(self) -> None:
        self.routes = {**(self.federation.routes() if self.federation else {}), **self.guest.routes}
        lasting, run = STATE / "door", Path("/run/door")
        certificates.ensure(lasting, self._host_names() | set(self.routes))
        run.mkdir(mode=0o755)
        for name in ("door.crt", "door.key"):
            rooms.private_copy(lasting / name, run / name, owner=DOOR_ACCOUNT[0])
        rooms.private_copy(lasting / "ca.crt", run / "ca.crt", mode=0o644)
        configuration = {
            "port": self.port,
            "fd": self.plan["door_fd"],
            "routes": self.routes,
            "certificate": "/run/door/door.crt",
            "key": "/run/door/door.key",
        }
        (run / "configuration.json").write_text(json.dumps(configuration))

    def _prepare_guest(self) -> None:
        for number, argv in enumerate(self.guest.prepare):
            path = STATE / "logs" / "prepare.log"
            with open_log(path) as output:
                began = output.tell()
                try:
                    process = self.supervisor.task(
                        argv, output, stderr=output, cwd="/", env={"PATH": PATH, "LANG": "C.UTF-8", "HOME": "/root"}
                    )
                except OSError as error:
                    raise Failed(f"guest's preparation {number + 1} ({argv[0]}) did not start: {error}") from error
                ended = partial(_has_ended, process)
                self._wait(ended, f"guest's preparation {number + 1}", PREPARE_SECONDS)
            if process.returncode:
                said = path.read_bytes()[began:].decode(errors="replace").splitlines()[-_LAST_LINES:]
                raise Failed(
                    f"guest's preparation {number + 1} ({' '.join(argv)}) ended with {process.returncode}:\n"
                    + "\n".join(said)
                )

    # -- starting

    def _services(self) -> None:
        boot = [PYTHON, "-I", "-S", str(PACKAGE / "boot.py")]
        logs = STATE / "logs"
        for site in self.sites:
            for machine in site.machines:
                name = f"{site.name}/{machine}"
                argv = [*boot, "node", site.name, machine]
                self.supervisor.add(Service(name, argv, logs / site.name / f"{machine}.log", behind=True))
        if self.federation:
            for process in self.federation.processes():
                self._service(process.name, process.argv, process.user, process.environment, process.umask)
            self.ready += self.federation.ready()
        for service in self.guest.services:
            self._service(
                service.name, service.argv, service.user, service.environment, service.umask, service.directory
            )
        self.ready += self.guest.ready
        door = Service(
            "door",
            [*boot, "door", "/run/door/configuration.json"],
            logs / "door.log",
            user=DOOR_ACCOUNT[0],
            pass_fds=(self.plan["door_fd"],),
        )
        shutil.chown("/run/door/configuration.json", DOOR_ACCOUNT[0])
        self.supervisor.add(door)

    def _service(
        self, name: str, argv: Any, user: str | None, environment: Any, umask: str, directory: str = "/"
    ) -> None:
        if name in self.supervisor.services:
            raise Failed(f"two services have the name {name}")
        log_file = STATE / "logs" / f"{name}.log"
        self.supervisor.add(
            Service(name, argv, log_file, user=user, environment=environment, umask=int(umask, 8), directory=directory)
        )

    def _wait(self, happened: Callable[[], bool], what: str, seconds: float = READY_SECONDS) -> None:
        try:
            self.supervisor.wait(happened, seconds, what)
        except TimeUp as error:
            raise Failed(f"{error}\n{self._unhealthy()}".strip()) from error

    def _wait_for_addresses(self) -> None:
        missing = list(self.ready)

        def answered() -> bool:
            missing[:] = [address for address in missing if not _answers(address)]
            return not missing

        try:
            self.supervisor.wait(answered, READY_SECONDS, "services")
        except TimeUp as error:
            raise Failed(f"no answer from {', '.join(missing)} ({error})\n{self._unhealthy()}".strip()) from error

    def _unhealthy(self) -> str:
        names = [
            f"{s.name} ({s.state}, started {s.starts} times)"
            for s in self.supervisor.services.values()
            if s.state != "running" or s.starts > 1
        ]
        return f"in trouble: {', '.join(names)}; see the logs of that name" if names else ""

    # -- the control socket

    def _handle(self, request: dict[str, Any]) -> dict[str, Any]:
        operation = request.get("op")
        if operation == "status":
            return self._status()
        if operation == "where":
            return {"pid": self._machine(request).working_pid()}
        if operation == "service":
            return self._act(request["name"], request["do"])
        if operation == "node":
            return self._act(self._machine(request).name, {"stop": "kill", "start": "start"}[request["do"]])
        if operation == "link":
            return self._link(request)
        raise ValueError(f"unknown operation {operation!r}")

    def _status(self) -> dict[str, Any]:
        services = [{"name": s.name, "state": s.state, "starts": s.starts} for s in self.supervisor.services.values()]
        links = {site.name: "cut" if network.is_cut(site) else "up" for site in self.sites} if self.came_up else {}
        return {"world": self.identity, "ready": self.came_up, "port": self.port, "services": services, "links": links}

    def _machine(self, request: dict[str, Any]) -> Service:
        name = f"{request['site']}/{request.get('machine') or 'login'}"
        if name not in self.supervisor.services:
            raise ValueError(f"there is no machine {name}")
        return self.supervisor.services[name]

    def _act(self, name: str, what: str) -> dict[str, Any]:
        service = self.supervisor.services.get(name)
        if service is None:
            raise ValueError(f"there is no service {name}; there are {', '.join(self.supervisor.services)}")
        if what == "start":
            self.supervisor.start(name)
        elif what == "stop":
            self.supervisor.stop(name, seconds=5)
        elif what == "kill":  # as when the power goes: no program of it has a chance to say anything
            self.supervisor.stop(name, signal.SIGKILL, seconds=5)
        elif what == "crash":  # it ends by itself and is started again
            service.signal(signal.SIGKILL)
        else:
            raise ValueError(f"unknown action {what!r}")
        return {"name": name, "state": service.state}

    def _link(self, request: dict[str, Any]) -> dict[str, Any]:
        site = next((each for each in self.sites if each.name == request["site"]), None)
        if site is None:
            raise ValueError(f"there is no site {request['site']}")
        now = network.is_cut(site)
        if request["do"] == "cut" and not now:
            network.cut(site)
        elif request["do"] == "mend" and now:
            network.mend(site)
        return {"site": site.name, "link": request["do"]}


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    return process.returncode is not None


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=1) as answer:  # noqa: S310 - checked: http on an inner address
            return bool(answer.status == 200)
    except (OSError, ValueError, urllib.error.URLError):
        return False


def main() -> int:
    """Be process 1 until told to end. Everything inside ends with it."""
    os.environ.clear()
    os.environ.update(PATH=PATH, LANG="C.UTF-8")
    plan = json.loads(sys.stdin.read())
    os.set_inheritable(plan["door_fd"], False)
    os.set_inheritable(plan["report_fd"], False)
    os.set_inheritable(plan["lock_fd"], False)
    world = World(plan)
    try:
        world.start()
        world._report.close()
        world.supervisor.run()
    except Exception as error:
        if isinstance(error, TimeUp | Failed):
            text = str(error)
        else:
            text = f"{type(error).__name__}: {error}"
            log("world", "unexpected failure", level="error", error=text, trace=_trace(error))
        log("world", "failed", level="error", error=text)
        world.report(failed=text)
        status = 1
    else:
        status = 0
    if hasattr(world, "supervisor"):
        world.supervisor.end(END_SECONDS)
    log("world", "ended", status=status)
    return status


def _trace(error: BaseException) -> str:
    import traceback

    return "".join(traceback.format_exception(error))
