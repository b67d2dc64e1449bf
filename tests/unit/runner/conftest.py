"""Fixtures of the runner's tests.

hub: a real HTTP server with the broker's and the keeper's answers for one person; `Hub` with `sites`, `capabilities`,
    `accounts`, `person`, `needed` (what the keeper was told), `down` (answers 503) and the URLs.
folders: a private state folder and a private runtime folder of a runner, as (state, runtime).
start_runner: starts a `Runner` with that hub, in this process, and ends it after the test; returns it.
client: a function that returns a `Client` of a runner.
laboratories: three sites of `runner_cluster` by name, known to the hub, with the template `letters`.
start_engine: starts a runner whose links lead to the laboratories; takes a `Power`.
"""

import asyncio
import functools
import tempfile
from pathlib import Path

import pytest
import runner_cluster
from aiohttp import web
from dcde.client import Client
from dcde.data.database import Database
from dcde.jobs.durable import DurableJobs
from dcde.pipelines.renderer import RENDERERS
from dcde.runner import desk
from dcde.runner.process import FirstLine, Runner
from runner_cluster import Laboratory, LaboratoryLink, Power

TOKEN = "0123456789abcdef0123456789abcdef"
NAMES = ("bnl-sdcc", "ornl-cades", "anl-lcrc")


def descriptor(name, **changes):
    return {
        "name": name,
        "title": name.upper(),
        "aliases": [name.partition("-")[0]],
        "ssh": {"hosts": ["127.0.0.1"], "port": 1, "host_keys": ["ssh-ed25519 AAAA"]},
        "scheduler": {
            "nodes": 2,
            "partitions": [
                {
                    "name": "batch",
                    "default": True,
                    "max_walltime_minutes": 120,
                    "cores_per_node": 2,
                    "memory_mb_per_node": 4000,
                }
            ],
        },
        "storage": {"root": "/storage"},
        "applications": {
            "relion": {"version": "3.1.3", "programs": {"ctffind": "ctffind"}},
            "writing": {"version": "1"},
        },
    } | changes


def document(name, **changes):
    group = {"actions": ["submit", "transfer.read", "transfer.write"], "allocations": ["dcde"]}
    return {"site": name, "version": 1, "issued": "2026-01-01", "groups": {"cryoem": group}} | changes


class Hub:
    """What the broker and the keeper answer."""

    def __init__(self):
        self.down = False
        self.sites = []
        self.capabilities = []
        self.accounts = {}
        self.person = {
            "dcde_id": "dcde1000001",
            "name": "David Rivers",
            "email": "drivers@pnnl.example",
            "groups": ["dcde-users", "cryoem"],
        }
        self.needed = []
        self.asked = 0
        self.news = asyncio.Event()
        self.url = ""

    def add_sites(self, *names):
        for name in names:
            self.sites.append(descriptor(name))
            self.capabilities.append(document(name))
            self.accounts[name] = "u12345"

    def application(self):
        app = web.Application()
        app.add_routes(
            [
                web.get("/services/broker/me", self.me),
                web.get("/services/broker/sites", self.list_sites),
                web.put("/services/keeper/needed", self.keep),
            ]
        )
        return app

    def refusal(self, request):
        self.asked += 1
        self.news.set()
        if self.down:
            return web.json_response({"error": {"code": "Busy", "message": "try later"}}, status=503)
        if request.headers.get("Authorization") != f"token {TOKEN}":
            return web.json_response({"error": {"code": "NotAllowed", "message": "who?"}}, status=401)
        return None

    async def me(self, request):
        return self.refusal(request) or web.json_response(
            {**self.person, "institution": "PNNL", "policies": {}, "trainings": {}, "acr": ""}
        )

    async def list_sites(self, request):
        return self.refusal(request) or web.json_response(
            {
                "sites": self.sites,
                "capabilities": self.capabilities,
                "accounts": self.accounts,
                "person": self.person,
            }
        )

    async def keep(self, request):
        refusal = self.refusal(request)
        if refusal is None:
            self.needed.append((await request.json())["runs"])
            self.news.set()
        return refusal or web.Response(status=204)

    async def until(self, happened, seconds=10):
        """Wait until `happened()` after some question to this server."""
        async with asyncio.timeout(seconds):
            while not happened():
                await self.news.wait()
                self.news.clear()

    @property
    def first_line(self):
        return FirstLine(
            broker_url=f"{self.url}/services/broker/", keeper_url=f"{self.url}/services/keeper/", token=TOKEN
        )


@pytest.fixture
async def hub():
    made = Hub()
    runner = web.AppRunner(made.application())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


@pytest.fixture
def folders():
    # The path of a unix socket is short (108 bytes), so this does not lie below pytest's own folder.
    with tempfile.TemporaryDirectory(prefix="dcde-") as folder:
        yield Path(folder) / "state", Path(folder) / "run"


@pytest.fixture
async def start_runner(hub, folders):
    started = []

    async def start(**changes):
        runner = Runner(hub.first_line, *folders, **changes)
        await runner.start()
        started.append(runner)
        return runner

    yield start
    for runner in started:
        await runner.close()


@pytest.fixture
def client():
    return lambda runner: Client(runner.socket)


@pytest.fixture
def laboratories(hub, folders, tmp_path, monkeypatch):
    monkeypatch.setitem(RENDERERS, "letters", runner_cluster.__name__)
    monkeypatch.setattr(desk, "LOOK_AGAIN", 0.05)
    template = folders[0] / "templates" / "letters" / "template.yaml"
    template.parent.mkdir(parents=True)
    folders[0].chmod(0o700)
    template.write_text(runner_cluster.TEMPLATE)
    hub.add_sites(*NAMES)
    return {name: Laboratory(tmp_path / name) for name in NAMES}


@pytest.fixture
def start_engine(start_runner, laboratories, monkeypatch):
    submit = Database.submit

    async def start(power=None):
        power = power or Power()
        links = {}

        def link(site):
            links[site.name] = LaboratoryLink(site, laboratories[site.name], power)
            return links[site.name]

        def guarded(database, operation):
            if getattr(database, "power", None) is None:
                database.power = power
            return submit(database, operation) if database.power.passed() else runner_cluster.Future()

        monkeypatch.setattr(Database, "submit", guarded)
        jobs = functools.partial(DurableJobs, shortest=0.01, longest=0.02, grace=0.05)
        runner = await start_runner(make_link=link, make_jobs=jobs)
        runner.links = links
        return runner

    return start
