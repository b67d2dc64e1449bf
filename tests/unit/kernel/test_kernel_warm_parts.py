"""Parts of the warm kernel by themselves; real kernels are in tests/functional/kernel."""

import asyncio
import json
import os
import select
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from dcde.kernel import asking, keeping, provisioner, warm
from dcde.kernel.asking import GO, KernelRequest, NotWarm
from dcde.kernel.provisioner import ForkedKernel
from dcde.wire import line

ROOT = Path(__file__).parents[3]


def in_a_process(code: str) -> str:
    paths = [str(ROOT / "extensions" / folder) for folder in ("dcde/src", "models/src")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_after_the_imports_it_can_be_forked_and_the_heavy_parts_are_not_there():
    code = """
import gc, sys
from dcde.kernel import warm
warm.preload()
warm.check_ready_to_fork()
print(gc.isenabled(), gc.get_freeze_count() > 10000, sorted({"parsl", "asyncssh", "globus_sdk"} & set(sys.modules)))
print(all(name in sys.modules for name in warm.LIBRARIES))
"""
    assert in_a_process(code) == "False True []\nTrue\n"


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()", "2 threads"),
        ("import asyncio; loop = asyncio.new_event_loop()", "EventLoop"),
        ("import zmq; context = zmq.Context()", "Context"),
    ],
)
def test_what_a_fork_would_break_is_noticed(code, what):
    check = f"""
from dcde.kernel import warm
{code}
try:
    warm.check_ready_to_fork()
except warm.NotReadyToFork as error:
    print(error)
"""
    assert what in in_a_process(check)


def test_a_changed_file_is_noticed(tmp_path, monkeypatch):
    (tmp_path / "module_that_changes.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    import module_that_changes  # noqa: F401

    file = str(tmp_path / "module_that_changes.py")
    before = warm.imported_files()[file]
    Path(file).write_text("x = 22\n")
    assert warm.imported_files()[file] != before


def test_a_request_says_what_a_child_would_inherit(tmp_path):
    before = os.umask(0o027)
    try:
        request = KernelRequest.like_this_process(["python"], {"A": "\udcff"}, str(tmp_path))
    finally:
        os.umask(before)
    assert request.umask == 0o027
    assert request.limits["RLIMIT_NOFILE"]
    assert KernelRequest(**json.loads(line(request.to_json()))) == request


def test_the_environment_of_the_warm_process_has_nothing_of_the_hub():
    server = {"HOME": "/h", "JUPYTERHUB_API_TOKEN": "t", "JPY_API_TOKEN": "t", "JPY_PARENT_PID": "1", "JUPYTER_X": "y"}
    assert keeping.environment(server) == {"HOME": "/h", "JUPYTER_X": "y"}


def test_a_runtime_folder_that_others_enter_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("DCDE_RUNTIME_DIR", str(tmp_path / "run"))
    assert asking.make_runtime_folder().stat().st_mode & 0o777 == 0o700
    (tmp_path / "run").chmod(0o750)
    with pytest.raises(NotWarm):
        asking.make_runtime_folder()
    (tmp_path / "run").rmdir()
    (tmp_path / "run").symlink_to(tmp_path)
    with pytest.raises(NotWarm):
        asking.make_runtime_folder()


@pytest.fixture
def answers(tmp_path, monkeypatch):
    """Play the warm process: `answers(function)` calls the function with the connection of the next request."""
    monkeypatch.setenv("DCDE_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(asking, "PATIENCE", 0.3)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(asking.socket_path(os.getpid())))
    listener.listen()
    threads = []

    def play(function):
        def answer():
            connected, _ = listener.accept()
            with connected:
                asking.read_line(connected)
                function(connected)

        threads.append(threading.Thread(target=answer))
        threads[-1].start()

    yield play
    for thread in threads:
        thread.join(10)
    listener.close()


def ask():
    return asking.ask(KernelRequest([], {}, "/", 0, {}), os.getpid())


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (b'{"refused": "because"}\n', "because"),
        (b"", "closed"),
        (b"nonsense\n", "JSON"),
        (b"[1]\n", "object"),
        (b'{"pid": 1}\n', "unpack"),
    ],
)
def test_every_other_answer_is_no_kernel(answers, reply, why):
    answers(lambda connected: connected.sendall(reply))
    with pytest.raises(NotWarm, match=why):
        ask()


def test_no_answer_in_time_is_no_kernel_and_gives_no_go(answers):
    seen = []
    answers(lambda connected: seen.append(connected.recv(1)))
    with pytest.raises(NotWarm, match="timed out"):
        ask()
    answers(lambda connected: None)
    with pytest.raises(NotWarm):
        ask()
    assert seen == [b""], "the other side sees the end, not a go"


@pytest.fixture
def kernel(answers):
    """A ForkedKernel over a process that sleeps, and the other end of its connection."""
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    here, there = socket.socketpair()

    def answer(connected):
        pidfd = os.pidfd_open(child.pid)
        socket.send_fds(connected, [line({"pid": child.pid})], [pidfd])
        os.close(pidfd)
        assert connected.recv(1) == GO

    answers(answer)
    pid, pidfd, connected = ask()
    connected.close()
    yield ForkedKernel(pid, pidfd, here), there, child
    child.kill()
    child.wait()
    there.close()


def test_the_status_is_what_the_warm_process_says(kernel):
    forked, there, child = kernel
    assert forked.poll() is None
    forked.terminate()
    child.wait()
    assert forked.poll() is None, "ended, but the status is not known yet"
    there.sendall(line({"exit": -15}))
    assert forked.wait(10) == forked.poll() == -15


def test_without_the_warm_process_the_status_is_unknown(kernel):
    forked, there, child = kernel
    there.close()
    forked.kill()
    assert forked.wait(10) == provisioner.UNKNOWN_EXIT
    assert child.wait() == -9


def test_a_status_that_does_not_come_is_not_waited_for_long(kernel, monkeypatch):
    monkeypatch.setattr(provisioner, "STATUS_WAIT", 0.2)
    forked, _, _ = kernel
    forked.kill()
    assert forked.wait(10) == provisioner.UNKNOWN_EXIT


def test_waiting_has_a_limit(kernel):
    forked, _, _ = kernel
    with pytest.raises(TimeoutError):
        forked.wait(0.1)


@pytest.mark.parametrize("older", [False, True])
def test_a_process_that_got_the_same_id_is_not_signalled(kernel, monkeypatch, older):
    """The kernel has ended and its id belongs to somebody else: signals go by the pidfd and reach nobody."""
    forked, _, child = kernel
    child.kill()
    child.wait()
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as other:
        forked.pid = other.pid  # as if the id had been given anew
        if older:
            monkeypatch.setattr(provisioner, "_PROCESS_GROUP", 1 << 30)  # unknown, as it is to Linux before 6.9
        forked.send_signal(15)
        watch = select.poll()
        pidfd = os.pidfd_open(other.pid)
        watch.register(pidfd, select.POLLIN)
        assert not watch.poll(200)
        os.close(pidfd)
        other.kill()


def test_a_launch_with_special_wishes_is_ordinary(tmp_path, monkeypatch):
    monkeypatch.setenv("DCDE_RUNTIME_DIR", str(tmp_path))
    asking.socket_path(os.getpid()).touch()
    made = provisioner.WarmProvisioner()
    with pytest.raises(NotWarm, match="preexec_fn"):
        made._from_warm(["python"], {"env": {}, "preexec_fn": print})


def test_no_socket_costs_no_time_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("DCDE_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(NotWarm, match="no warm process"):
        provisioner.WarmProvisioner()._from_warm(["python"], {"env": {}})


def test_the_kernelspec_names_the_provisioner_that_the_distribution_registers():
    import tomllib

    spec = json.loads((ROOT / "extensions/dcde/kernelspec/kernel.json").read_text())
    project = tomllib.loads((ROOT / "extensions/dcde/pyproject.toml").read_text())["project"]
    name = spec["metadata"]["kernel_provisioner"]["provisioner_name"]
    assert project["entry-points"]["jupyter_client.kernel_provisioners"][name] == (
        f"{provisioner.__name__}:{provisioner.WarmProvisioner.__name__}"
    )
    assert spec["argv"][1:3] == ["-m", "ipykernel_launcher"]


async def test_asking_does_not_hold_up_the_server(answers):
    answers(lambda connected: connected.recv(1))
    asking_ = asyncio.create_task(asyncio.to_thread(ask))
    ticks = 0
    while not asking_.done():
        ticks += 1
        await asyncio.sleep(0.01)
    with pytest.raises(NotWarm):
        await asking_
    assert ticks > 5
