"""The supervisor and the control socket with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from dcde_testbed import control
from dcde_testbed.supervisor import Service, Supervisor, TimeUp, command, trim


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
    handlers = {number: signal.getsignal(number) for number in numbers}
    made = Supervisor("test")
    yield made
    made.end(5)
    signal.set_wakeup_fd(-1)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    made.close()


def service(tmp_path: Path, name: str, code: str) -> Service:
    return Service(name, [sys.executable, "-I", "-c", code], tmp_path / "logs" / f"{name}.log")


def test_a_service_that_ends_is_started_again_and_its_log_goes_on(supervisor: Supervisor, tmp_path: Path) -> None:
    each = service(tmp_path, "short", "print('hello')")
    supervisor.add(each)
    supervisor.wait(lambda: each.starts >= 2 and each.log.read_text().count("hello") >= 2, 10, "a second start")
    assert each.log.stat().st_mode & 0o777 == 0o600
    assert each.log.parent.stat().st_mode & 0o777 == 0o700


def test_a_stopped_service_stays_stopped_until_started(supervisor: Supervisor, tmp_path: Path) -> None:
    each = service(tmp_path, "long", "import time; print('up', flush=True); time.sleep(600)")
    supervisor.add(each)
    supervisor.stop("long")
    assert each.state == "stopped"
    with pytest.raises(TimeUp):
        supervisor.wait(lambda: each.state == "running", 0.8, "nothing")
    supervisor.start("long")
    assert each.state == "running"
    assert each.starts == 2


def test_who_ignores_the_polite_signal_is_killed(supervisor: Supervisor, tmp_path: Path) -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    each = service(tmp_path, "deaf", code)
    supervisor.add(each)
    supervisor.wait(lambda: "deaf" in each.log.read_text(), 5, "it runs")
    supervisor.stop("deaf", seconds=0.3)
    assert each.state == "stopped"


def test_a_program_that_does_not_exist_is_tried_again_later(supervisor: Supervisor, tmp_path: Path) -> None:
    each = Service("missing", ["/nonexistent/program"], tmp_path / "missing.log")
    supervisor.add(each)
    assert each.state == "restarting"


def test_a_task_reports_its_status(supervisor: Supervisor) -> None:
    task = supervisor.task([sys.executable, "-I", "-c", "raise SystemExit(7)"], subprocess.DEVNULL)
    supervisor.wait(lambda: task.returncode is not None, 10, "the task")
    assert task.returncode == 7


def test_the_environment_and_umask_are_the_services_own(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "leaks")
    each = service(
        tmp_path, "env", "import os, time; print(sorted(os.environ), oct(os.umask(0)), flush=True); time.sleep(60)"
    )
    each.environment, each.umask = {"OWN": "1"}, 0o077
    supervisor.add(each)
    supervisor.wait(lambda: "]" in each.log.read_text(), 5, "it says its environment")
    assert (
        each.log.read_text().startswith("['LANG', 'LC_CTYPE', 'OWN', 'PATH'] 0o77")
        or "'LANG', 'OWN', 'PATH'" in each.log.read_text()
    )
    assert "SECRET" not in each.log.read_text()


def test_a_log_is_bounded(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    with log.open("ab") as writer:
        writer.write(b"x" * 100)
        writer.flush()
        trim(log, limit=50)
        writer.write(b"y")
    assert log.read_bytes() == b"y"
    assert (tmp_path / "a.log.1").stat().st_size == 100
    trim(tmp_path / "missing.log")


def test_another_account_gets_no_way_back() -> None:
    assert command(["a"], None) == ["a"]
    assert command(["a", "b"], "nobody")[:4] == ["setpriv", "--reuid=nobody", "--regid=nobody", "--init-groups"]
    assert "--no-new-privs" in command(["a"], "nobody")


def test_control_answers_and_passes_errors_on(supervisor: Supervisor, tmp_path: Path) -> None:
    def handle(request: dict[str, object]) -> dict[str, object]:
        if request["op"] != "double":
            raise ValueError("unknown operation")
        return {"value": 2 * int(str(request["value"]))}

    path = tmp_path / "control"
    server = control.ControlServer(path, supervisor, handle, owner=os.getuid())
    assert path.stat().st_mode & 0o777 == 0o600
    answers: list[object] = []

    def client() -> None:
        answers.append(control.ask(path, {"op": "double", "value": 21}))
        try:
            control.ask(path, {"op": "other"})
        except control.ControlError as error:
            answers.append(str(error))

    thread = threading.Thread(target=client)
    thread.start()
    supervisor.wait(lambda: len(answers) == 2, 10, "two answers")
    thread.join()
    assert answers == [{"value": 42}, "unknown operation"]
    server.close()
    with pytest.raises(control.ControlError, match="does not answer"):
        control.ask(path, {"op": "double", "value": 1})


def test_control_turns_others_away(supervisor: Supervisor, tmp_path: Path) -> None:
    path = tmp_path / "control"
    server = control.ControlServer(path, supervisor, lambda request: {"ok": True}, owner=os.getuid() + 1)
    said: list[str] = []

    def client() -> None:
        try:
            control.ask(path, {"op": "x"})
        except control.ControlError as error:
            said.append(str(error))

    thread = threading.Thread(target=client)
    thread.start()
    supervisor.wait(lambda: bool(said), 10, "a refusal")
    thread.join()
    assert "without an answer" in said[0] or "does not answer" in said[0]
    server.close()
