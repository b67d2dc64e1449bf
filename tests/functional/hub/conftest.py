"""Fixtures of the hub's functional tests.

proxy_like_cilogon  a small OpenID provider on port 0 in a thread: logs in whoever `.claims` describes
workshop            a folder with the sample registry, site files and secrets, and free ports (Workshop)
hub                 a real JupyterHub with its proxy, the product's authenticator and pages, and a stub for people's servers
services            signer, broker and keeper as real processes beside `hub`
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from aiohttp import web
from dcde_demo.sites import write_sites
from dcde_hub.secretfile import ensure_secret
from dcde_hub.signer.__main__ import make_keys

AUP = "https://dcde.example/aup/2"
ROOT = Path(__file__).parents[3]
NODE = ROOT / "build/env/node"
PROXY = NODE / "lib/node_modules/configurable-http-proxy/bin/configurable-http-proxy"
SOURCES = [ROOT / part for part in ("hub/src", "extensions/models/src", "demo/src")]


def wait_for(happened: Callable[[], Any], what: str, seconds: float = 30) -> Any:
    """Return what `happened` returns as soon as that is true; fail after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        if result := happened():
            return result
        if time.monotonic() > end:
            pytest.fail(f"not within {seconds} s: {what}")
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def person(number: int, name: str, identity: str, **more: Any) -> dict[str, Any]:
    entry = {
        "dcde_id": f"dcde{number:07}",
        "uid_number": 50000 + number % 10000,
        "name": name,
        "email": identity,
        "status": "active",
        "identities": [identity],
        "groups": ["dcde-users", "cryoem"],
        "policies": {AUP: "2026-01-15"},
        "trainings": {"cyber-2026": "2099-12-31"},
    }
    return entry | more


class ProxyLikeCilogon:
    """Asks no password: the next login is that of `claims`."""

    def __init__(self) -> None:
        self.claims: dict[str, Any] = {}
        self.idp = "https://pnnl.example/idp"
        self._codes: dict[str, dict[str, Any]] = {}
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def log_in_as(self, eppn: str | None, uid: str | None = None, **more: Any) -> None:
        claims = {"sub": "http://cilogon.org/serverA/users/1", "idp": self.idp, "idp_name": "PNNL (sample)"}
        claims |= {"eppn": eppn, "uid": uid, "acr": "https://refeds.org/profile/sfa"} | more
        self.claims = {name: value for name, value in claims.items() if value is not None}

    def __enter__(self) -> ProxyLikeCilogon:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start())
        self._started.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._runner.cleanup())
        self._loop.close()

    async def _start(self) -> None:
        application = web.Application()
        application.router.add_get("/authorize", self._authorize)
        application.router.add_post("/oauth2/token", self._token)
        application.router.add_get("/oauth2/userinfo", self._userinfo)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _authorize(self, request: web.Request) -> web.Response:
        code = secrets.token_hex(8)
        self._codes[code] = self.claims
        raise web.HTTPFound(f"{request.query['redirect_uri']}?code={code}&state={request.query['state']}")

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        if form["client_secret"] != "client-secret-of-the-test":
            return web.json_response({"error": "invalid_client"}, status=401)
        return web.json_response({"access_token": f"upstream-{form['code']}", "token_type": "Bearer"})

    async def _userinfo(self, request: web.Request) -> web.Response:
        code = request.headers["Authorization"].removeprefix("Bearer upstream-")
        return web.json_response(self._codes[code])


@dataclass
class Workshop:
    """Where one hub keeps its things in a test."""

    folder: Path
    ports: dict[str, int] = field(
        default_factory=lambda: {n: free_port() for n in ("public", "proxy", "hub", "broker", "keeper")}
    )
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def registry(self) -> Path:
        return self.folder / "registry.yaml"

    def people(self, *people: dict[str, Any]) -> None:
        content = {"policies": {AUP: {"title": "Acceptable use, version 2", "url": AUP}}, "people": list(people)}
        draft = self.folder / "registry.new"
        draft.write_text(yaml.safe_dump(content))
        draft.rename(self.registry)

    def start(self, name: str, *argv: str, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        environment = {
            "PATH": f"{NODE}/bin:/usr/bin:/bin",
            "HOME": str(self.folder),
            "PYTHONPATH": ":".join(map(str, SOURCES)),
            **(env or {}),
        }
        with open(self.folder / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=self.folder,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def end(self) -> None:
        for process in reversed(self.processes):
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for file in self.folder.glob("stub-*.pid"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(file.read_text()), signal.SIGKILL)


PEOPLE = {
    "drivers": person(1000001, "David Rivers", "drivers@pnnl.example"),
    "mtanaka": person(1000002, "Mei Tanaka", "mtanaka@ornl.example", groups=["dcde-users", "cryoem-ornl"]),
    "pnovak": person(1000003, "Petra Novak", "pnovak@bnl.example", policies={}),
    "gone": person(1000004, "Gil Gone", "gone@bnl.example", status="suspended"),
    "leaver": person(1000005, "Lea Leaver", "leaver@bnl.example"),
    "admin": person(1000009, "Ada Operator", "admin@bnl.example", groups=["dcde-users", "dcde-admins"]),
}

HUB_CONFIGURATION = """
import json, sys
from pathlib import Path
from dcde_hub.configuration import apply
from dcde_hub.secretfile import read_secret
from jupyterhub.spawner import SimpleLocalProcessSpawner

p = json.loads({plan!r})
folder = Path(p["folder"])
c = get_config()

class Stub(SimpleLocalProcessSpawner):
    # Same as people's servers but for what they serve: starts in a blink and shows its environment to the test.
    cmd = [sys.executable, "-I", p["stub"]]
    home_dir_template = p["folder"]
    env_keep = []

    def get_env(self):
        return dict(super().get_env(), STUB_FOLDER=p["folder"], STUB_NAME=self.user.name, PATH="/usr/bin:/bin")

apply(c, broker_token=read_secret(folder / "secrets/broker"), keeper_token=read_secret(folder / "secrets/keeper"))
c.Spawner.args = []
c.JupyterHub.spawner_class = Stub
c.JupyterHub.bind_url = p["public"]
c.JupyterHub.hub_bind_url = p["hub"]
c.JupyterHub.db_url = "sqlite:///" + str(folder / "hub.sqlite")
c.JupyterHub.cookie_secret_file = str(folder / "cookie_secret")
c.CryptKeeper.keys = [read_secret(folder / "secrets/crypt")]
c.ConfigurableHTTPProxy.should_start = False
c.ConfigurableHTTPProxy.api_url = p["proxy"]
c.ConfigurableHTTPProxy.auth_token = read_secret(folder / "secrets/proxy")
a = c.DcdeAuthenticator
a.authorize_url, a.token_url, a.userdata_url = (p["op"] + x for x in ("/authorize", "/oauth2/token", "/oauth2/userinfo"))
a.client_id, a.client_secret = "dcde-test", "client-secret-of-the-test"
a.oauth_callback_url = p["public"] + "/hub/oauth_callback"
a.idps = {{"https://pnnl.example/idp": {{"username_derivation": {{"username_claim": "uid"}}}}}}
a.registry_file = p["registry"]
a.required_policies = ["https://dcde.example/aup/2"]
a.admin_groups = {{"dcde-admins"}}
a.auth_refresh_age = 1
a.places = {{"enrollment": "https://registry.example/enroll", "profile": "https://registry.example/me", "help": "mailto:help@dcde.example"}}
c.JupyterHub.template_vars = {{"dcde_institutions": ["PNNL (sample)"], "dcde_places": a.places}}
"""

STUB = """
import json, os, urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("X-JupyterHub-Version", "6.1.1")
        self.end_headers()
        self.wfile.write(b"stub")
    def log_message(self, *_):
        pass

folder, name = Path(os.environ["STUB_FOLDER"]), os.environ["STUB_NAME"]
for suffix, text in (("env", json.dumps(dict(os.environ))), ("pid", str(os.getpid()))):
    (folder / f"stub-{name}.{suffix}").write_text(text)
url = urllib.parse.urlparse(os.environ["JUPYTERHUB_SERVICE_URL"])
ThreadingHTTPServer((url.hostname, url.port), Answer).serve_forever()
"""


@pytest.fixture(scope="module")
def proxy_like_cilogon() -> Iterator[ProxyLikeCilogon]:
    with ProxyLikeCilogon() as op:
        yield op


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    shop = Workshop(tmp_path_factory.mktemp("hub"))
    shop.people(*PEOPLE.values())
    (shop.folder / "secrets").mkdir(mode=0o700)
    for name in ("broker", "keeper", "crypt", "proxy"):
        ensure_secret(shop.folder / "secrets" / name)
    facts = {
        "title": "A site", "hosts": ["localhost"], "port": 22, "host_key": "ssh-ed25519 AAAA", "storage_root": "/store",
        "dtn": {"host": "localhost"}, "nodes": 2, "cores_per_node": 2, "memory_mb_per_node": 1000, "allocations": ["dcde"],
        "partitions": [{"name": "batch", "max_walltime_minutes": 60}], "worker_interpreter": "/usr/bin/python3",
    }  # fmt: skip
    accounts = {
        "bnl-sdcc": {"dcde1000001": "u12345", "dcde1000005": "u5"},
        "ornl-cades": {"dcde1000001": "d7c", "dcde1000002": "mt9"},
    }
    write_sites(shop.folder / "sites", {site: facts | {"mapfile": mapfile} for site, mapfile in accounts.items()})
    yield shop
    shop.end()


@dataclass
class Hub:
    """A running hub, as a browser and as the tests see it."""

    url: str
    api: str
    workshop: Workshop
    op: ProxyLikeCilogon
    process: subprocess.Popen[bytes]
    start: Callable[[], subprocess.Popen[bytes]]

    def browser(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, follow_redirects=True, timeout=30)

    def log_in(self, browser: httpx.Client, eppn: str | None, uid: str | None = None, **claims: Any) -> httpx.Response:
        self.op.log_in_as(eppn, uid, **claims)
        return browser.get("/hub/oauth_login", params={"next": "/hub/token"})

    def restart(self, number: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(number)
        self.process.wait(30)
        self.process = self.start()
        self.wait_up()

    def wait_up(self) -> None:
        def answers() -> bool:
            assert self.process.poll() is None, self.workshop.log("hub")
            try:
                return httpx.get(f"{self.url}/hub/health").status_code == 200
            except httpx.TransportError:
                return False

        wait_for(answers, "the hub answers", 60)


@pytest.fixture(scope="module")
def hub(workshop: Workshop, proxy_like_cilogon: ProxyLikeCilogon) -> Iterator[Hub]:
    node = shutil.which("node", path=f"{NODE}/bin:/usr/bin")
    assert node and PROXY.exists(), "the node environment is not built"
    at = {name: f"http://127.0.0.1:{port}" for name, port in workshop.ports.items()}
    (workshop.folder / "stub.py").write_text(textwrap.dedent(STUB))
    plan = at | {
        "folder": str(workshop.folder),
        "op": proxy_like_cilogon.url,
        "registry": str(workshop.registry),
        "stub": str(workshop.folder / "stub.py"),
    }
    (workshop.folder / "jupyterhub_config.py").write_text(HUB_CONFIGURATION.format(plan=json.dumps(plan)))
    workshop.start(
        "proxy", node, str(PROXY), "--ip", "127.0.0.1", "--port", str(workshop.ports["public"]), "--api-ip", "127.0.0.1", "--api-port",
        str(workshop.ports["proxy"]), "--error-target", f"{at['hub']}/hub/error",
        env={"CONFIGPROXY_AUTH_TOKEN": (workshop.folder / "secrets/proxy").read_text().strip()},
    )  # fmt: skip

    def start() -> subprocess.Popen[bytes]:
        return workshop.start(
            "hub", sys.executable, "-m", "jupyterhub", "-f", str(workshop.folder / "jupyterhub_config.py")
        )

    running = Hub(at["public"], f"{at['hub']}/hub/api", workshop, proxy_like_cilogon, start(), start)
    running.wait_up()
    yield running


@dataclass
class Services:
    """Where broker and keeper answer."""

    broker: str
    keeper: str


@pytest.fixture(scope="module")
def services(hub: Hub) -> Services:
    shop = hub.workshop
    make_keys(shop.folder / "keys", shop.folder / "onboarding", ["bnl-sdcc", "ornl-cades"], None)
    me = pwd.getpwuid(os.geteuid()).pw_name
    socket_path = shop.folder / "signer.sock"
    common = {"address": "127.0.0.1", "hub_api_url": hub.api, "registry": str(shop.registry)}
    files = {
        "broker": common | {"port": shop.ports["broker"], "token_file": str(shop.folder / "secrets/broker"), "sites": str(shop.folder / "sites"), "signer_socket": str(socket_path)},
        "keeper": common | {"port": shop.ports["keeper"], "token_file": str(shop.folder / "secrets/keeper"), "database": str(shop.folder / "keeper.sqlite"), "interval_seconds": 0.3, "backoff_seconds": 0.5},
    }  # fmt: skip
    shop.start(
        "signer",
        sys.executable,
        "-m",
        "dcde_hub.signer",
        "run",
        "--keys",
        str(shop.folder / "keys"),
        "--socket",
        str(socket_path),
        "--broker",
        me,
    )
    for name, content in files.items():
        (shop.folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
        shop.start(name, sys.executable, "-m", f"dcde_hub.{name}", str(shop.folder / f"{name}.yaml"))
    at = Services(*(f"http://127.0.0.1:{shop.ports[name]}/services/{name}" for name in ("broker", "keeper")))

    def answer() -> bool:
        try:
            return (
                all(httpx.get(f"{url}/health").status_code == 200 for url in (at.broker, at.keeper))
                and socket_path.exists()
            )
        except httpx.TransportError:
            return False

    wait_for(answer, "broker and keeper answer", 30)
    return at
