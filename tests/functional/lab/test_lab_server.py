"""The server extension in a real Jupyter server, with a runner that plays a script."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from functional.lab.conftest import HUB_TOKEN, LabServer, wait_until

Start = Callable[..., LabServer]


def test_operations_and_errors(lab_server: Start):
    server = lab_server()
    server.wait_for_runner()

    me = server.request("POST", "dcde/api/whoami", b"", {**server.headers, "X-Request-ID": "q0123456789ab"})
    assert (me.status, me.json["dcde_id"]) == (200, "dcde1000001")
    assert me.headers["x-request-id"] == "q0123456789ab"
    asked = [json.loads(line) for line in (server.runtime / "requests.jsonl").read_text().splitlines()]
    assert asked[-1] == {"id": 1, "op": "whoami", "args": {}, "request": "q0123456789ab"}

    listed = server.call("files.list", site="bnl-sdcc", path="movies").json
    assert len(listed["entries"]) == 13

    for args, status, code in [
        ({"site": "nowhere", "path": ""}, 404, "UnknownName"),
        ({"site": "bnl-sdcc", "path": "no/such"}, 404, "NotFound"),
        ({"site": "bnl-sdcc", "path": "../other"}, 403, "PathRefused"),
    ]:
        answer = server.call("files.list", **args)
        assert (answer.status, answer.json["error"]["code"]) == (status, code)
        assert answer.json["error"]["message"]
    wrong = server.call("runs.launch", template="first-look", parameters={"diameter": 666}, sites={})
    assert (wrong.status, wrong.json["error"]["where"]) == (400, "diameter")
    server.call("files.mkdir", site="bnl-sdcc", path="new")
    assert server.call("files.mkdir", site="bnl-sdcc", path="new").status == 409


def test_only_the_operations_of_the_panel_and_only_sound_requests_pass(lab_server: Start):
    server = lab_server()
    server.wait_for_runner()
    for op in ("watch", "runs.picture", "shutdown", "files.read"):
        assert server.call(op).status == 404, op
    assert server.request("POST", "dcde/api/whoami", b"{").json["error"]["code"] == "InvalidParameter"
    assert server.request("POST", "dcde/api/whoami", b"[1]").status == 400
    assert server.request("POST", "dcde/api/whoami", b'{"x": "' + b"y" * 300_000 + b'"}').status == 413
    assert server.request("GET", "dcde/api/whoami").status == 405
    odd = server.request("POST", "dcde/api/whoami", b"{}", {**server.headers, "X-Request-ID": "evil\tid"})
    assert odd.headers["x-request-id"].startswith("q") and "evil" not in odd.headers["x-request-id"]


def test_strangers_and_forged_requests_are_refused(lab_server: Start):
    server = lab_server()
    server.wait_for_runner()
    before = (server.runtime / "requests.jsonl").read_text() if (server.runtime / "requests.jsonl").exists() else ""
    for method, path in [
        ("POST", "dcde/api/whoami"),
        ("GET", "dcde/status"),
        ("GET", "dcde/picture?run=r1&step=ctffind&name=x"),
        ("GET", "dcde/events"),
    ]:
        assert server.request(method, path, b"{}" if method == "POST" else None, {}).status == 403, path

    session, xsrf = server.log_in()
    assert server.request("POST", "dcde/api/whoami", b"{}", {"Cookie": session}).status == 403
    good = server.request("POST", "dcde/api/whoami", b"{}", {"Cookie": session, "X-XSRFToken": xsrf})
    assert good.status == 200
    after = (server.runtime / "requests.jsonl").read_text()
    assert len(after.splitlines()) == len(before.splitlines()) + 1


def test_pictures_are_pictures_and_nothing_else(lab_server: Start):
    server = lab_server()
    server.wait_for_runner()
    done = server.picture(run="r1", step="ctffind", name="power_spectrum")
    assert done.status == 200 and done.body.startswith(b"\x89PNG\r\n\x1a\n")
    assert done.headers["content-type"] == "image/png"
    assert done.headers["x-content-type-options"] == "nosniff"
    assert done.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert "immutable" in done.headers["cache-control"]
    failed = server.picture(run="r2", step="motioncorr", name="micrograph")
    assert "no-cache" in failed.headers["cache-control"]
    again = server.request(
        "GET",
        "dcde/picture?run=r2&step=motioncorr&name=micrograph",
        headers={**server.headers, "If-None-Match": failed.headers["etag"]},
    )
    assert (again.status, again.body) == (304, b"")
    nasty = server.picture(run="r1", step="ctffind", name="nasty")
    assert (nasty.status, nasty.json["error"]["code"]) == (502, "SiteError")
    assert b"svg" not in nasty.body
    assert server.picture(run="r9", step="ctffind", name="x").status == 404
    assert server.picture(run="r1").status == 400


def test_the_hub_token_goes_to_the_runner_and_nowhere_else(lab_server: Start):
    server = lab_server()
    server.wait_for_runner()
    assert json.loads((server.runtime / "first_line.json").read_text()) == {
        "broker_url": "http://broker.example/",
        "keeper_url": "http://keeper.example/",
        "token": HUB_TOKEN,
    }
    assert HUB_TOKEN not in (server.runtime / "environment.json").read_text()
    runner = server.starts()[0]
    assert HUB_TOKEN.encode() not in Path(f"/proc/{runner}/cmdline").read_bytes()
    assert HUB_TOKEN not in server.log.read_text()
    # A file in /proc of a process that cannot be dumped belongs to root, and nobody else may read it.
    assert Path(f"/proc/{server.process.pid}/environ").stat().st_uid == 0

    out = server.runtime / "seen-by-a-terminal"
    terminal = server.request("POST", "api/terminals", b"{}").json["name"]
    asyncio.run(_type(server, f"terminals/websocket/{terminal}", ["stdin", f"env > {out}.part; mv {out}.part {out}\r"]))
    seen = wait_until(lambda: out.exists() and out.read_text())
    assert "HOME=" in seen and HUB_TOKEN not in seen


async def _type(server: LabServer, path: str, message: Any) -> None:
    url = f"ws://127.0.0.1:{server.port}{server.base}{path}"
    async with aiohttp.ClientSession(headers=server.headers) as session, session.ws_connect(url) as socket:
        await socket.receive()
        await socket.send_json(message)
        await socket.receive()


def test_a_kernel_does_not_see_the_token(lab_server: Start):
    server = lab_server()
    server.wait_for_runner()
    started = server.request("POST", "api/kernels", b"{}")
    assert started.status == 201, started.body
    kernel = started.json["id"]
    environments = wait_until(lambda: _environments_of_children(server.process.pid, "ipykernel"))
    assert all(b"HOME=" in text and HUB_TOKEN.encode() not in text for text in environments)
    assert server.request("DELETE", f"api/kernels/{kernel}").status == 204


def _environments_of_children(parent: int, word: str) -> list[bytes]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            if int(stat[1]) == parent and word.encode() in (folder / "cmdline").read_bytes():
                found.append((folder / "environ").read_bytes())
        except OSError:
            continue
    return found


def test_the_runner_is_started_again_and_ends_with_the_server(lab_server: Start):
    server = lab_server()
    server.wait_for_runner()
    (first,) = server.starts()
    crash = server.call("files.list", site="anl-lcrc", path="crash")
    assert (crash.status, crash.headers["retry-after"]) == (503, "2")
    assert crash.json["error"]["retry"] is True
    wait_until(lambda: len(server.starts()) == 2)
    server.wait_for_runner()
    assert server.call("whoami").status == 200
    second = server.starts()[1]
    assert second != first

    server.process.send_signal(signal.SIGTERM)
    server.process.wait(20)
    assert (server.runtime / "ended").read_text() == "SIGTERM"
    assert not Path(f"/proc/{second}").exists()


def test_a_second_server_uses_the_runner_that_is_there_and_takes_over_when_it_goes(lab_server: Start):
    first = lab_server()
    first.wait_for_runner()
    second = lab_server()
    second.wait_for_runner()
    assert second.call("whoami").status == 200
    assert len(first.starts()) == 1
    first.process.terminate()
    first.process.wait(20)
    wait_until(lambda: len(second.starts()) == 2)
    second.wait_for_runner()
    assert second.call("whoami").status == 200


def test_a_server_that_is_part_of_no_hub_says_so(lab_server: Start):
    server = lab_server(connected=False)
    assert server.request("GET", "dcde/status").json["connected"] is False
    answer = server.call("whoami")
    assert (answer.status, answer.json["error"]["code"]) == (503, "NotConnected")
    assert "not part of a DCDE hub" in answer.json["error"]["message"]
    assert server.starts() == []


async def test_events_reach_every_window_and_come_back_after_the_runner_was_away(lab_server: Start):
    server = await asyncio.to_thread(lab_server, DCDE_SCRIPT_STEP_S="0.05")
    await asyncio.to_thread(server.wait_for_runner)
    url = f"ws://127.0.0.1:{server.port}{server.base}dcde/events"
    async with (
        aiohttp.ClientSession(headers=server.headers) as session,
        session.ws_connect(url) as one,
        session.ws_connect(url) as two,
    ):
        launch = {"template": "first-look", "parameters": {}, "sites": {}}
        for socket in (one, two):
            assert await _until(socket, "runner", state="up")
        await asyncio.to_thread(lambda: server.call("runs.launch", **launch))
        for socket in (one, two):
            step = await _until(socket, "step", state="succeeded")
            assert step["run"] == "r3"
            assert await _until(socket, "run", state="succeeded")
        os.kill(server.starts()[0], signal.SIGKILL)
        assert await _until(one, "runner", state="away")
        assert await _until(one, "runner", state="up")
        assert await _until(one, "site", name="anl-lcrc")


async def _until(socket: aiohttp.ClientWebSocketResponse, kind: str, **fields: Any) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while True:
            event = await socket.receive_json()
            if event["type"] == kind and all(event.get(key) == value for key, value in fields.items()):
                return event


async def test_events_of_another_origin_are_refused(lab_server: Start):
    server = await asyncio.to_thread(lab_server)
    url = f"ws://127.0.0.1:{server.port}{server.base}dcde/events"
    cookies, _ = await asyncio.to_thread(server.log_in)
    async with aiohttp.ClientSession() as session:
        for headers in ({"Origin": "http://evil.example", "Cookie": cookies}, {}):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(url, headers=headers)
            assert refused.value.status == 403
        own = {"Origin": f"http://127.0.0.1:{server.port}", "Cookie": cookies}
        async with session.ws_connect(url, headers=own) as socket:
            assert (await socket.receive_json())["type"] == "runner"


def test_the_runner_does_not_outlive_a_server_that_was_killed(lab_server: Start):
    server = lab_server()
    server.wait_for_runner()
    server.process.kill()
    server.process.wait(20)
    assert (
        wait_until(lambda: (server.runtime / "ended").exists() and (server.runtime / "ended").read_text()) == "SIGTERM"
    )
