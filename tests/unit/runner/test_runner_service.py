"""The runner's socket: who may speak, what is refused and how, and that nobody can hold it up."""

import asyncio
import json
import os
import stat
import subprocess
import sys

import pytest
from dcde.client import Client, SyncClient
from dcde.errors import InvalidParameter, RunnerBusy, RunnerError, RunnerUnreachable, UnknownName
from dcde.runner.events import MOST_WAITING, Events
from dcde.runner.process import FirstLine, Runner
from dcde.runner.service import Service
from dcde.wire import LONGEST_REQUEST

NAMES = ("bnl-sdcc", "ornl-cades", "anl-lcrc")


async def exchange(path, *lines):
    """Send lines as they are; return the answers until the runner ends the connection."""
    reader, writer = await asyncio.open_unix_connection(str(path), limit=LONGEST_REQUEST)
    for line in lines:
        writer.write(line)
    writer.write_eof()
    answers = [json.loads(line) async for line in reader]
    writer.close()
    await writer.wait_closed()
    return answers


async def test_whoami_sites_and_templates_without_any_site(start_runner, client):
    runner = await start_runner()
    ask = client(runner)
    assert (await ask.call("whoami"))["dcde_id"] == "dcde1000001"
    assert await ask.call("sites.list") == []
    assert "first-look" in {t["name"] for t in await ask.call("templates.list")}
    shown = await ask.call("templates.show", name="first-look")
    assert shown["schema"]["properties"]
    assert shown["steps"][0]["id"]
    assert await ask.call("runs.list") == []
    assert await ask.call("projects.list") == []
    assert await ask.call("transfers.list") == []


async def test_the_sync_client_gives_the_same(start_runner):
    runner = await start_runner()
    ask = SyncClient(runner.socket)
    assert (await asyncio.to_thread(ask.call, "whoami"))["name"] == "David Rivers"
    with pytest.raises(UnknownName):
        await asyncio.to_thread(ask.call, "runs.show", run="r9")


async def test_socket_and_folders_are_private(start_runner, folders):
    runner = await start_runner()
    assert stat.S_IMODE(runner.socket.stat().st_mode) == 0o600
    for folder in folders:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    await Client(runner.socket).call("whoami")
    for file in ("ledger.sqlite", "sites.json", "runner.lock"):
        assert stat.S_IMODE((folders[0] / file).stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("op", "args", "named"),
    [
        ("files.list", {"site": "bnl-sdcc", "limit": "many"}, "limit"),
        ("files.list", {}, "site"),
        ("files.list", {"site": "bnl-sdcc", "colour": "red"}, "colour"),
        ("files.list", {"site": "bnl-sdcc", "path": "a\x00b"}, "path"),
        ("runs.show", {"run": "7; rm"}, "run"),
        ("runs.log", {"run": "r1", "step": "first", "stream": "stdin"}, "stream"),
        ("runs.launch", {"template": "letters", "parameters": []}, "parameters"),
        ("projects.create", {"name": "../up"}, "name"),
        ("runs.show", [], "args"),
        ("watch", {"run": "x"}, "run"),
    ],
)
async def test_wrong_arguments_are_named(start_runner, op, args, named):
    runner = await start_runner()
    line = json.dumps({"id": 5, "op": op, "args": args}).encode() + b"\n"
    (answer,) = await exchange(runner.socket, line)
    assert answer["id"] == 5
    assert answer["error"]["code"] == "InvalidParameter"
    assert named in answer["error"]["message"]
    assert answer["error"]["remedy"]


async def test_what_is_no_request_is_answered_too(start_runner):
    runner = await start_runner()
    answers = await exchange(
        runner.socket, b"hello\n", b"[]\n", b'{"id": 3, "op": 7}\n', b'{"id": 4, "op": "nothing"}\n'
    )
    codes = {answer["id"]: answer["error"]["code"] for answer in answers}
    assert codes[3] == "InvalidParameter"
    assert codes[4] == "UnknownName"
    assert [a["error"]["code"] for a in answers].count("InvalidParameter") == 3


async def test_a_request_without_end_is_cut_off(start_runner, client):
    runner = await start_runner()
    answers = await exchange(runner.socket, b"x" * (LONGEST_REQUEST + 10) + b"\n")
    assert answers[0]["error"]["code"] == "InvalidParameter"
    assert (await client(runner).call("whoami"))["dcde_id"]


async def test_unknown_site_template_and_run(start_runner, client, hub):
    hub.add_sites("bnl-sdcc")
    ask = client(await start_runner())
    for op, args in (
        ("files.list", {"site": "cern"}),
        ("templates.show", {"name": "cern"}),
        ("runs.launch", {"template": "cern"}),
        ("runs.show", {"run": "r1"}),
        ("runs.cancel", {"run": "r1"}),
        ("projects.show", {"name": "cern"}),
        ("transfers.cancel", {"id": "t1"}),
        ("files.copy", {"source": "cern:a", "target": "bnl-sdcc:b"}),
    ):
        with pytest.raises(UnknownName) as caught:
            await ask.call(op, **args)
        assert caught.value.message
    with pytest.raises(UnknownName):
        async for _ in ask.watch("r1"):
            pass
    with pytest.raises(InvalidParameter):
        await ask.call("files.copy", source="nowhere", target="bnl-sdcc:b")


async def test_many_requests_on_one_connection_are_answered_by_their_ids(start_runner):
    runner = await start_runner()
    lines = [json.dumps({"id": n, "op": "whoami"}).encode() + b"\n" for n in range(200)]
    answers = await exchange(runner.socket, *lines)
    assert sorted(a["id"] for a in answers) == list(range(200))
    assert all("result" in a for a in answers)


async def test_the_request_id_reaches_the_log(start_runner, caplog):
    import logging

    from dcde_models.logs import JsonFormatter

    lines = []

    class Keep(logging.Handler):
        def emit(self, record):
            lines.append(json.loads(JsonFormatter().format(record)))

    handler = Keep()
    logging.getLogger("dcde.runner").addHandler(handler)
    try:
        with caplog.at_level("INFO"):
            runner = await start_runner()
            await exchange(runner.socket, b'{"id": 1, "op": "whoami", "request": "q0123456789ab"}\n')
    finally:
        logging.getLogger("dcde.runner").removeHandler(handler)
    assert any(line.get("request") == "q0123456789ab" for line in lines)


async def test_a_second_runner_refuses_and_harms_nothing(start_runner, client, hub, folders):
    runner = await start_runner()
    with pytest.raises(RunnerBusy) as caught:
        await Runner(hub.first_line, *folders).start()
    assert caught.value.remedy
    with pytest.raises(RunnerBusy):
        await Runner(hub.first_line, folders[0].with_name("other"), folders[1]).start()
    assert (await client(runner).call("whoami"))["dcde_id"]


async def test_a_runner_takes_the_place_of_one_that_ended(start_runner, client, hub, folders):
    first = Runner(hub.first_line, *folders)
    await first.start()
    await first.close()
    assert not first.socket.exists()
    with pytest.raises(RunnerUnreachable):
        await client(first).call("whoami")
    assert (await client(await start_runner()).call("whoami"))["dcde_id"]


async def test_a_folder_that_others_may_enter_is_refused(hub, folders):
    state, runtime = folders
    runtime.mkdir(mode=0o755)
    runtime.chmod(0o755)
    with pytest.raises(RunnerError, match="others may enter"):
        await Runner(hub.first_line, state, runtime).start()
    runtime.rmdir()
    runtime.symlink_to(state)
    with pytest.raises(RunnerError, match="not yours"):
        await Runner(hub.first_line, state, runtime).start()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
async def test_another_user_cannot_connect(start_runner, folders):
    runner = await start_runner()
    code = (
        "import os, socket, sys\n"
        "os.setgroups([]); os.setgid(54321); os.setuid(54321)\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        "try:\n    s.connect(sys.argv[1])\n"
        "except PermissionError:\n    print('refused'); sys.exit()\n"
        'try:\n    s.sendall(b\'{"id":1,"op":"whoami"}\\n\'); print(s.recv(100))\n'
        "except OSError:\n    print('cut off')\n"
    )
    python = "/usr/bin/python3"

    async def attempt():
        child = await asyncio.create_subprocess_exec(python, "-c", code, str(runner.socket), stdout=subprocess.PIPE)
        return (await child.communicate())[0].decode().strip()

    assert await attempt() == "refused"
    # Even with the folders' modes gone wrong, the peer's uid is looked at.
    folders[1].parent.chmod(0o755)
    folders[1].chmod(0o755)
    runner.socket.chmod(0o666)
    assert await attempt() in ("b''", "cut off")


async def test_a_slow_watcher_holds_up_nobody_and_sees_the_newest(folders):
    folders[1].mkdir(mode=0o700)
    events = Events()
    begun = asyncio.Event()

    def snapshot(run):
        if events.watched:
            begun.set()
        return []

    service = Service(folders[1] / "runner.sock", {}, events, snapshot)
    await service.start()
    reader, writer = await asyncio.open_unix_connection(str(folders[1] / "runner.sock"), limit=2**20)
    writer.write(b'{"id": 1, "op": "watch"}\n')
    await begun.wait()
    for number in range(20000):
        for name in ("a", "b", "c"):
            events.tell("site", {"name": name, "number": number, "filling": "x" * 200})
        if number % 100 == 0:
            await asyncio.sleep(0)
    last = {}
    received = 0
    while set(last.values()) != {19999} or len(last) < 3:
        event = json.loads(await reader.readline())["event"]
        received += 1
        assert event["number"] >= last.get(event["name"], -1)
        last[event["name"]] = event["number"]
    assert received < 60000
    writer.close()
    await writer.wait_closed()
    await service.close()
    assert not events.watched


async def test_a_watcher_with_too_much_waiting_is_sent_away():
    subscription = Events().subscribe()
    for number in range(MOST_WAITING + 1):
        subscription.offer(("site", "", str(number)), {"type": "site"})
    assert await subscription.next() == []


async def test_the_client_says_how_when_there_is_no_runner(tmp_path):
    with pytest.raises(RunnerUnreachable) as caught:
        await Client(tmp_path / "runner.sock").call("whoami")
    assert "server" in caught.value.remedy
    with pytest.raises(RunnerUnreachable):
        SyncClient(tmp_path / "runner.sock").call("whoami")


async def test_the_client_bears_a_runner_that_dies_or_lies(tmp_path):
    answers = [b"", b"not json\n", b"[1]\n", b'{"id":1,"error":{"code":"UnknownName","message":"no"}}\n']

    async def serve(reader, writer):
        await reader.readline()
        writer.write(answers.pop(0))
        writer.close()

    path = tmp_path / "s"
    server = await asyncio.start_unix_server(serve, str(path))
    for error in (RunnerUnreachable, RunnerError, RunnerError, UnknownName):
        with pytest.raises(error):
            await Client(path).call("whoami")
    server.close()


def test_the_first_line_never_shows_the_token():
    with pytest.raises(InvalidParameter) as caught:
        FirstLine.read('{"broker_url": 5, "token": "topsecrettopsecret"}')
    assert "topsecret" not in str(caught.value)
    line = FirstLine.read('{"broker_url": "http://x", "token": "topsecrettopsecret"}')
    assert "topsecret" not in repr(line)


async def test_the_program_starts_answers_and_ends(hub, folders):
    state, runtime = folders
    env = {"DCDE_RUNTIME_DIR": str(runtime), "PYTHONPATH": os.pathsep.join(sys.path), "HOME": str(state.parent)}
    command = (sys.executable, "-m", "dcde.runner", "--state", str(state))
    child = await asyncio.create_subprocess_exec(
        *command, env=env, stdin=subprocess.PIPE, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    line = {
        "broker_url": hub.first_line.broker_url,
        "keeper_url": hub.first_line.keeper_url,
        "token": hub.first_line.token.get_secret_value(),
    }
    child.stdin.write(json.dumps(line).encode() + b"\n")
    log = []
    while not any("ready" in text for text in log):
        log.append((await child.stderr.readline()).decode())
    assert (await Client(runtime / "runner.sock").call("whoami"))["dcde_id"] == "dcde1000001"
    second = await asyncio.create_subprocess_exec(
        *command, env=env, stdin=subprocess.PIPE, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    _, said = await second.communicate(json.dumps(line).encode() + b"\n")
    assert second.returncode == 2
    assert "another runner" in said.decode()
    child.terminate()
    _, rest = await child.communicate()
    assert child.returncode == 0
    assert line["token"] not in "".join(log) + rest.decode()
    assert not (runtime / "runner.sock").exists()
