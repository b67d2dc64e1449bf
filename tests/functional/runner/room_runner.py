"""A real runner in the hub's room of a world, with a small broker of its own that signs with the sites' CAs.

room_runner.py STATE RUNTIME: prints `ready` and works until it is ended.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import sys
from pathlib import Path
from typing import Any

import asyncssh
import shell_steps
from aiohttp import web
from dcde.pipelines.renderer import RENDERERS
from dcde.runner.process import FirstLine, Runner
from dcde_demo.sites import AUP, capabilities, descriptor
from dcde_models.logs import set_up_logs

PERSON = {
    "dcde_id": "dcde1000001",
    "name": "David Rivers",
    "email": "drivers@pnnl.example",
    "groups": ["dcde-users", "cryoem"],
    "policies": {AUP: "2026-01-15"},
    "trainings": {"cyber-2026": "2099-12-31"},
}
ACCOUNTS = {"bnl-sdcc": "u12345", "ornl-cades": "d7c", "anl-lcrc": "drivers"}


class Broker:
    """Answers as the hub's broker does, for one person and one token."""

    def __init__(self) -> None:
        self.token = secrets.token_hex(16)
        self.facts: dict[str, Any] = json.loads(Path("/var/lib/dcde/world.json").read_text())["sites"]

    async def start(self) -> str:
        app = web.Application()
        app.add_routes(
            [web.get("/me", self.me), web.get("/sites", self.sites), web.post("/certificate", self.certificate)]
        )
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}/"

    async def me(self, request: web.Request) -> web.Response:
        return web.json_response({**PERSON, "institution": "PNNL", "acr": ""})

    async def sites(self, request: web.Request) -> web.Response:
        return web.json_response(
            {
                "sites": [descriptor(n, f).model_dump(mode="json") for n, f in self.facts.items()],
                "capabilities": [capabilities(n, f).model_dump(mode="json") for n, f in self.facts.items()],
                "accounts": ACCOUNTS,
                "person": PERSON,
            }
        )

    async def certificate(self, request: web.Request) -> web.Response:
        asked = await request.json()
        site = asked["site"]
        authority = asyncssh.read_private_key(f"/var/lib/dcde/onboarding/{site}/user_ca")
        principal = f"dcde1000001@{site}"
        key = asyncssh.import_public_key(asked["public_key"])
        signed = authority.generate_user_certificate(
            key, "test", principals=[principal], valid_after="-1m", valid_before="+10m"
        )
        text = signed.export_certificate("openssh").decode().strip()
        return web.json_response(
            {"certificate": text, "account": ACCOUNTS[site], "principal": principal, "valid_before": 0}
        )


def add_templates(state: Path) -> None:
    """Give the runner the templates of these tests."""
    RENDERERS["shell"] = "shell_steps"
    for name, text in shell_steps.TEMPLATES.items():
        folder = state / "templates" / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "template.yaml").write_text(text)
    state.chmod(0o700)


async def main(state: Path, runtime: Path) -> None:
    set_up_logs()
    add_templates(state)
    broker = Broker()
    url = await broker.start()
    runner = Runner(FirstLine.model_validate({"broker_url": url, "token": broker.token}), state, runtime)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await runner.start()
    print("ready", flush=True)
    await ended.wait()
    await runner.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
