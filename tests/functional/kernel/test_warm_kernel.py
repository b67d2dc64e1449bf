"""Real kernels of jupyter_client from a warm process: they do what ordinary ones do, and leave nothing behind."""

# ruff: noqa: ASYNC220, ASYNC221, ASYNC240 - a test may wait for files and programs
import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from dcde.kernel import asking, provisioner
from dcde.kernel.asking import KernelRequest, NotWarm, ask, socket_path

from .conftest import KernelInTest, WarmInTest, exists, state

pytestmark = pytest.mark.filterwarnings("error")

FACTS = """
import os, sys, signal, resource, locale, stat, threading, time, warnings, gc
kinds = {name: stat.S_IFMT(os.fstat(int(name)).st_mode) for name in ("0", "1", "2")}
links = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.islink(f"/proc/self/fd/{fd}")]
facts = {
    "env": dict(os.environ),
    "cwd": os.getcwd(),
    "umask": next(row for row in open("/proc/self/status") if row.startswith("Umask")),
    "kernel's view": [row for row in open("/proc/self/status") if row.startswith(("Name", "Sig", "Shd", "NoNew", "Cpus_allowed:"))],
    "handlers": {int(n): getattr(signal.getsignal(n), "__name__", str(signal.getsignal(n))) for n in signal.valid_signals()},
    "limits": {n: resource.getrlimit(getattr(resource, n)) for n in dir(resource) if n.startswith("RLIMIT")},
    "priority": os.getpriority(os.PRIO_PROCESS, 0),
    "outputs": [os.readlink("/proc/self/fd/1"), os.readlink("/proc/self/fd/2")],
    "leads": [os.getsid(0) == os.getpid(), os.getpgrp() == os.getpid()],
    "argv": [sys.argv[:2], sys.argv[3:]],
    "command": [a for a in open("/proc/self/cmdline").read().replace("\\0", " ").split() if "k" + "ernel-" not in a and not a.endswith(".json")],
    "path": sys.path,
    "flags": str(sys.flags),
    "main": sys.modules["__main__"].__name__,
    "locale": [locale.getlocale(), sys.getfilesystemencoding(), sys.stdin.encoding],
    "threads": threading.active_count(),
    "zone": time.tzname,
    "collector": gc.isenabled(),
}
sockets = sum(link.startswith("socket:") for link in links)
pidfds = sum("pidfd" in link for link in links)
listening = any(".sock" in row for row in open("/proc/net/unix") if any(f"[{row.split()[6]}]" in link for link in links if len(row.split()) > 6))
"""


async def test_a_cell_runs_in_a_kernel_that_knows_the_library(warm, kernels):
    kernel = await kernels.start()
    assert kernel.warm
    assert await kernel.value("dcde.__name__, dcde.launch.__name__, 6 * 7") == ("dcde", "launch", 42)
    assert warm.children() == [kernel.pid]


async def test_it_is_like_an_ordinary_one(warm, kernels, place, monkeypatch):
    monkeypatch.setenv("LATER", "set after the warm process had started")
    monkeypatch.setenv("ODD", "no \udcff UTF-8\nbut two lines")
    before = os.umask(0o027)
    try:
        forked, plain = await kernels.start(), await kernels.start(plain=True)
    finally:
        os.umask(before)
    assert forked.warm and not plain.warm
    ours, theirs = await forked.value("facts", FACTS), await plain.value("facts", FACTS)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert ours[name] == theirs[name], name
    assert ours["env"]["LATER"] and ours["cwd"] == str(place) and "0027" in ours["umask"]


async def test_it_has_no_descriptor_of_the_warm_process_but_the_watch_over_the_server(warm, kernels):
    first, second = await kernels.start(), await kernels.start()
    for kernel in (first, second):
        assert await kernel.value("pidfds, listening", FACTS) == (1, False)
    # The watch is not for programs that a notebook starts.
    code = (
        "import subprocess; out = subprocess.run(['ls', '-l', '/proc/self/fd'], capture_output=True, text=True).stdout"
    )
    assert "pidfd" not in await second.value("out", code)


async def test_the_hub_token_is_nowhere(place, monkeypatch, kernels):
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "s3cret-of-the-hub")
    warm = WarmInTest()
    try:
        assert b"s3cret" not in Path(f"/proc/{warm.pid}/environ").read_bytes()
        monkeypatch.delenv("JUPYTERHUB_API_TOKEN")  # as the server extension does at its start
        kernel = await kernels.start()
        assert kernel.warm
        assert b"s3cret" not in Path(f"/proc/{kernel.pid}/environ").read_bytes()
        assert not await kernel.value("[v for v in os.environ.values() if 's3cret' in v]", "import os")
    finally:
        warm.kill()


async def test_interrupt_stops_a_running_loop(warm, kernels):
    kernel = await kernels.start()
    loop = "import time\nprint('at work', flush=True)\nwhile True: time.sleep(0.01)"
    at_work = asyncio.Event()
    running = asyncio.ensure_future(
        kernel.client.execute_interactive(
            loop, timeout=30, output_hook=lambda message: at_work.set() if "text" in message["content"] else None
        )
    )
    await asyncio.wait_for(at_work.wait(), 20)
    await kernel.manager.interrupt_kernel()
    content = (await asyncio.wait_for(running, 20))["content"]
    assert content["ename"] == "KeyboardInterrupt"
    assert await kernel.value("1 + 1") == 2, "it goes on after the interrupt"


async def test_interrupt_reaches_programs_that_a_cell_has_started(warm, kernels):
    kernel = await kernels.start()
    code = "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    pid = await kernel.value("child.pid", code)
    await kernel.manager.interrupt_kernel()
    assert await kernel.value("child.wait(20)") != 0
    assert not exists(pid)


async def test_interrupt_on_systems_that_cannot_signal_a_group_by_pidfd(warm, kernels, monkeypatch):
    monkeypatch.setattr(provisioner, "_PROCESS_GROUP", 1 << 30)
    await test_interrupt_stops_a_running_loop(warm, kernels)


async def test_restart_gives_a_fresh_namespace_and_other_random_numbers(warm, kernels):
    kernel = await kernels.start()
    numbers = "import random, numpy; drawn = random.random(), float(numpy.random.random())"
    first, pid = await kernel.value("drawn", numbers), kernel.pid
    await kernel.manager.restart_kernel()
    await kernel.connect()
    assert kernel.warm and kernel.pid != pid and not exists(pid)
    assert await kernel.value("'drawn' in dir()") is False
    assert not set(first) & set(await kernel.value("drawn", numbers))


async def test_kernels_draw_different_numbers_and_keys(warm, kernels):
    code = """import random, numpy, uuid, tempfile, multiprocessing
    drawn = (random.random(), float(numpy.random.random()), float(numpy.random.default_rng().random()), uuid.uuid4().hex,
             next(tempfile._get_candidate_names()), bytes(multiprocessing.current_process().authkey))""".replace(
        "    ", ""
    )
    seen = [await (await kernels.start()).value("drawn", code) for _ in range(3)]
    for numbers in zip(*seen, strict=True):
        assert len(set(numbers)) == 3


async def test_numpy_computes_with_threads_again(warm, kernels):
    kernel = await kernels.start()
    code = "import numpy; a = numpy.eye(700) * 2; b = a @ a"
    assert await kernel.value("float(b.trace())", code) == 2800.0


async def test_the_exit_status_is_known(warm, kernels):
    kernel = await kernels.start()
    process = kernel.manager.provisioner.process
    kernel.client.execute("import os; os._exit(7)")
    assert await asyncio.to_thread(process.wait, 20) == 7
    other = await kernels.start()
    process = other.manager.provisioner.process
    await other.manager.signal_kernel(signal.SIGKILL)
    assert await asyncio.to_thread(process.wait, 20) == -signal.SIGKILL
    assert not await other.manager.is_alive()
    assert warm.children() == []


async def test_shutdown_lets_a_kernel_end_by_itself(warm, kernels, place):
    kernel = await kernels.start()
    await kernel.execute(f"import atexit; atexit.register(lambda: open({str(place / 'left')!r}, 'w').close())")
    process, pid = kernel.manager.provisioner.process, kernel.pid
    await kernel.stop()
    assert process.returncode == 0 and not exists(pid)
    assert (place / "left").exists()


async def test_a_kernel_that_does_not_end_is_killed(warm, kernels):
    kernel = await kernels.start()
    kernel.manager.shutdown_wait_time = 0.5
    os.kill(kernel.pid, signal.SIGSTOP)  # it can no longer hear anything
    process, pid = kernel.manager.provisioner.process, kernel.pid
    await kernel.stop()
    assert process.returncode == -signal.SIGKILL and not exists(pid)


def descriptors(pid: int | str = "self") -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


async def test_thirty_kernels_leave_nothing(warm, kernels):
    for _ in range(2):  # so that everything is there that comes with first use
        await (await kernels.start()).stop()
    ours, its = descriptors(), descriptors(warm.pid)
    for _ in range(6):
        five = await asyncio.gather(*(kernels.start() for _ in range(5)))
        assert all(kernel.warm for kernel in five)
        assert len({kernel.pid for kernel in five}) == 5
        await asyncio.gather(*(kernel.stop() for kernel in five))
    assert warm.children() == []
    assert descriptors(warm.pid) == its
    assert descriptors() <= ours + 2
    assert len(os.listdir(f"/proc/{warm.pid}/task")) == 1


async def test_a_kernel_survives_the_warm_process_and_is_watched_further(warm, kernels):
    kernel = await kernels.start()
    warm.kill()
    assert await kernel.value("1 + 1") == 2
    await asyncio.sleep(1.5)  # ipykernel's own watch would have looked by now
    assert await kernel.value("2 + 2") == 4
    process, pid = kernel.manager.provisioner.process, kernel.pid
    await kernel.stop()
    assert process.returncode == provisioner.UNKNOWN_EXIT
    assert not exists(pid) or state(pid) == "Z", "what has lost its parent is collected by the first process"


async def test_without_a_warm_process_it_starts_in_the_ordinary_way(place, kernels):
    kernel = await kernels.start()
    assert not kernel.warm
    assert await kernel.value("dcde.__name__") == "dcde"
    await kernel.manager.interrupt_kernel()
    await kernel.manager.restart_kernel()
    await kernel.connect()
    assert await kernel.value("6 * 7") == 42


async def test_a_killed_warm_process_leaves_a_socket_that_does_no_harm(warm, kernels):
    first = await kernels.start()
    warm.kill()
    assert socket_path(os.getpid()).exists(), "killed, it could not remove it"
    second = await kernels.start()
    assert first.warm and not second.warm
    assert await second.value("6 * 7") == 42
    again = WarmInTest()
    try:
        assert (await kernels.start()).warm, "a new one takes the place"
        await first.manager.restart_kernel()
        assert first.warm
    finally:
        again.kill()


async def test_a_warm_process_that_hangs_costs_a_short_while(warm, kernels, monkeypatch):
    monkeypatch.setattr(asking, "PATIENCE", 0.3)
    os.kill(warm.pid, signal.SIGSTOP)
    kernel = await kernels.start()
    assert not kernel.warm
    assert await kernel.value("6 * 7") == 42
    os.kill(warm.pid, signal.SIGCONT)
    # The request that came too late makes no second kernel on the same connection file.
    later = await kernels.start()
    assert later.warm
    await wait_for(lambda: warm.children() == [later.pid])


async def wait_for(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


async def test_it_listens_when_the_start_is_over(warm, kernels, place, monkeypatch):
    kernel = await kernels.start()
    info = kernel.manager.provisioner.connection_info
    paths = [Path(f"{info['ip']}-{info[f'{name}_port']}") for name in ("shell", "stdin", "control", "iopub", "hb")]
    await kernel.manager.shutdown_kernel(restart=True)
    assert not any(path.exists() for path in paths)
    monkeypatch.setattr(provisioner, "LISTENING_WAIT", 20)  # a busy machine takes longer
    await kernel.manager.start_kernel(cwd=str(place))
    assert kernel.warm and all(path.is_socket() for path in paths)


async def test_the_tcp_transport_works_too(warm, kernels):
    kernel = await kernels.start(transport="tcp")
    assert kernel.warm
    assert await kernel.value("6 * 7") == 42


async def test_the_debugger_attaches(warm, kernels):
    kernel = await kernels.start()
    for seq, command in enumerate(("initialize", "attach"), 1):
        arguments = {
            "clientID": "t",
            "adapterID": "python",
            "pathFormat": "path",
            "linesStartAt1": True,
            "columnsStartAt1": True,
        }
        content = {"type": "request", "seq": seq, "command": command, "arguments": arguments if seq == 1 else {}}
        message = kernel.client.session.msg("debug_request", content)
        kernel.client.control_channel.send(message)
        reply = await kernel.client.get_control_msg(timeout=30)
        assert reply["content"]["success"], reply["content"]
    assert await kernel.value("6 * 7") == 42


def refused(place: Path, **changes: object) -> str:
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", str(place / "none.json")]
    request = KernelRequest.like_this_process(argv, dict(os.environ), str(place))
    with pytest.raises(NotWarm) as caught:
        ask(KernelRequest(**{**request.to_json(), **changes}), os.getpid())
    return str(caught.value)


async def test_what_it_could_not_do_alike_it_refuses(warm, place):
    assert "command" in refused(place, argv=["/usr/bin/python3", "-m", "ipykernel_launcher", "-f", "x"])
    for name in ("PYTHONPATH", "LD_PRELOAD", "OMP_NUM_THREADS", "LC_ALL"):
        assert "variables" in refused(place, env={**os.environ, name: "other"})
    assert "directory" in refused(place, cwd=str(place / "gone"))
    assert "limits" in refused(place, limits={})
    assert warm.children() == []


@pytest.mark.parametrize("request_", [b"no json\n", b"{}\n", b"[]\n", b'{"argv": 1}\n', b"\xff\n", b"half"])
async def test_nonsense_does_not_stop_it(warm, kernels, request_):
    import socket

    with socket.socket(socket.AF_UNIX) as connected:
        connected.connect(str(socket_path(os.getpid())))
        connected.sendall(request_)
        connected.shutdown(socket.SHUT_WR)
        connected.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            assert connected.recv(100) == b""
    assert (await kernels.start()).warm


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_another_account_is_refused(warm, place):
    program = """
import os, socket, sys
os.setgid(12345); os.setuid(12345)
with socket.socket(socket.AF_UNIX) as s:
    try:
        s.connect(sys.argv[1])
    except PermissionError:
        print("closed")
    else:
        s.settimeout(10)
        try:
            s.sendall(b"{}\\n")
            print(s.recv(100))
        except (BrokenPipeError, ConnectionResetError):
            print(b"")
"""
    path = socket_path(os.getpid())
    argv = [sys.executable, "-c", program, str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
    assert done.stdout == "closed\n", done
    for folder in (place, path.parent):  # even when somebody opens the door, the guard asks who is there
        folder.chmod(0o711)
    path.chmod(0o777)
    done = subprocess.run(argv, capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
    assert done.stdout == "b''\n", done
    assert warm.children() == []


async def test_the_socket_is_private(warm):
    path = socket_path(os.getpid())
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


async def test_a_kernel_ends_with_its_server(place):
    """A server that is killed: its kernels and its warm process end as well."""
    program = Path(__file__).with_name("play_server.py")
    with subprocess.Popen([sys.executable, str(program), str(place)], stdout=subprocess.PIPE, text=True) as server:
        try:
            warm, kernel = (int(word) for word in server.stdout.readline().split())
            assert exists(warm) and exists(kernel)
        finally:
            server.kill()
    for pid in (warm, kernel):
        await wait_for(lambda pid=pid: not exists(pid) or state(pid) == "Z")


async def private_kb(kernel: KernelInTest) -> int:
    await kernel.execute("import dcde, dcde.api, dcde.widgets, numpy")
    rows = Path(f"/proc/{kernel.pid}/smaps_rollup").read_text().splitlines()[1:]
    return sum(int(row.split()[1]) for row in rows if row.startswith(("Private_Dirty", "Private_Clean")))


async def test_it_takes_less_memory_of_its_own(warm, kernels):
    ours, theirs = await private_kb(await kernels.start()), await private_kb(await kernels.start(plain=True))
    assert ours < 0.7 * theirs, (ours, theirs)
