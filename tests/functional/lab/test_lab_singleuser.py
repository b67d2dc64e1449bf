"""The extension in JupyterHub's own single-user server: its parts go on working after the token has left the environment."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, web
from functional.lab.conftest import HERE, HUB_TOKEN, environment_for

PERSON = {"kind": "user", "name": "ada", "admin": False, "groups": [], "scopes": ["access:servers!user=ada"]}


class Hub:
    """As much of a hub as a single-user server asks for at its start."""

    def __init__(self) -> None:
        self.reports: asyncio.Queue[str] = asyncio.Queue()
        self.asked_with: set[str] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_get("/hub/api", self._version)
        app.router.add_get("/hub/api/user", self._user)
        app.router.add_post("/hub/api/users/ada/activity", self._activity)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            await runner.cleanup()

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": "6.1.1"}, headers={"X-JupyterHub-Version": "6.1.1"})

    async def _user(self, request: web.Request) -> web.Response:
        return web.json_response(PERSON if request.headers["Authorization"] == "token of-a-browser" else None)

    async def _activity(self, request: web.Request) -> web.Response:
        self.reports.put_nowait(request.headers["Authorization"])
        return web.json_response({})


def hub_environment(hub: str, port: int) -> dict[str, str]:
    return {
        "JUPYTERHUB_API_URL": f"{hub}/hub/api",
        "JUPYTERHUB_ACTIVITY_URL": f"{hub}/hub/api/users/ada/activity",
        "JUPYTERHUB_ACTIVITY_INTERVAL": "1",
        "JUPYTERHUB_BASE_URL": "/",
        "JUPYTERHUB_CLIENT_ID": "jupyterhub-user-ada",
        "JUPYTERHUB_HOST": "",
        "JUPYTERHUB_OAUTH_CALLBACK_URL": "/user/ada/oauth_callback",
        "JUPYTERHUB_OAUTH_SCOPES": '["access:servers!user=ada"]',
        "JUPYTERHUB_OAUTH_ACCESS_SCOPES": '["access:servers!user=ada"]',
        "JUPYTERHUB_SERVER_NAME": "",
        "JUPYTERHUB_SERVICE_PREFIX": "/user/ada/",
        "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{port}/user/ada/",
        "JUPYTERHUB_USER": "ada",
    }


def free_port() -> int:
    """Return a port that is free now; JupyterHub's server takes no 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_activity_is_reported_and_people_are_known_although_the_token_is_gone(tmp_path: Path):
    hub, port, log = Hub(), free_port(), tmp_path / "server.log"
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    argv = [
        *(sys.executable, "-m", "jupyterhub.singleuser", "--allow-root"),
        "--ServerApp.jpserver_extensions={'dcde_lab': True}",
        f"--DcdeExtension.runner_command={sys.executable}",
        f"--DcdeExtension.runner_command={HERE / 'scripted_runner.py'}",
    ]
    async with hub.running() as address, ClientSession() as session:
        environment = environment_for(tmp_path, runtime, connected=True) | hub_environment(address, port)
        environment.pop("JUPYTER_TOKEN")
        with log.open("wb") as out:
            server = await asyncio.create_subprocess_exec(*argv, stdout=out, stderr=out, env=environment, cwd=tmp_path)
        try:
            async with asyncio.timeout(60):
                assert await hub.reports.get() == f"token {HUB_TOKEN}", log.read_text()
                base = f"http://127.0.0.1:{port}/user/ada/dcde"
                person = {"Authorization": "token of-a-browser"}
                assert (await _status(session, f"{base}/status", person))["connected"] is True
                while (await _status(session, f"{base}/status", person))["runner"]["state"] != "up":  # noqa: ASYNC110  it is another process
                    await asyncio.sleep(0.05)
                async with session.post(f"{base}/api/whoami", json={}, headers=person) as answer:
                    assert (await answer.json())["dcde_id"] == "dcde1000001"
                async with session.post(f"{base}/api/whoami", json={}, headers={"Authorization": "token x"}) as answer:
                    assert answer.status == 403
            assert HUB_TOKEN not in (runtime / "environment.json").read_text()
            assert HUB_TOKEN not in log.read_text()
        finally:
            server.terminate()
            await server.wait()


async def _status(session: ClientSession, url: str, headers: dict[str, str]) -> Any:
    async with session.get(url, headers=headers) as answer:
        return await answer.json()
