"""The ledger: what it promises, also when the process is killed, the disk is full or two ask at once."""

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys

import pytest
from dcde.data import database
from dcde.data.database import Database, DatabaseTrouble
from dcde.data.ledger import FileFacts, Ledger
from dcde.errors import AlreadyExists, DiskFull, UnknownName


@pytest.fixture
async def ledger(tmp_path):
    opened = Ledger(tmp_path / "ledger.sqlite")
    await opened.open()
    yield opened
    opened.close()


async def add_run(ledger, steps=("a", "b"), **changes):
    values = {
        "template": "letters",
        "title": "Letters",
        "project": None,
        "parameters": {"x": 1},
        "plan": {},
        "wishes": [(step, "auto") for step in steps],
        "allocation": None,
        "partition": None,
        "token": None,
    }
    return await ledger.add_run(**(values | changes))


async def test_a_run_is_read_back_as_it_was_entered(ledger):
    row = await add_run(ledger, token="t")
    await ledger.update_step(row.id, "a", state="running", detail={"fraction": 0.5}, started=12.5)
    await ledger.update_run(row.id, state="running", reason="because")
    (again,) = await ledger.runs()
    assert (again.state, again.reason, again.project, again.parameters) == ("running", "because", "letters-1", {"x": 1})
    assert [s.id for s in again.steps] == ["a", "b"]
    assert (again.steps[0].state, again.steps[0].detail, again.steps[0].started) == ("running", {"fraction": 0.5}, 12.5)
    assert await ledger.run_of_token("t") == row.id
    assert await ledger.run_of_token("u") is None
    assert await ledger.jobs_in_project("letters-1") == 2


async def test_projects_get_names_of_their_own(ledger):
    await ledger.create_project("letters-2")
    assert [(await add_run(ledger)).project for _ in range(2)] == ["letters-1", "letters-3"]
    assert (await add_run(ledger, project="mine")).project == "mine"
    assert (await add_run(ledger, project="mine")).project == "mine"
    with pytest.raises(AlreadyExists):
        await ledger.create_project("mine")


async def test_the_same_token_cannot_make_two_runs(ledger):
    await add_run(ledger, token="t")
    with pytest.raises(sqlite3.IntegrityError):
        await add_run(ledger, token="t")
    assert len(await ledger.runs()) == 1
    assert [p["name"] for p in await ledger.projects()] == ["letters-1"]


async def test_a_step_has_one_live_attempt_and_one_accepted_result(ledger):
    run = await add_run(ledger)
    first = await ledger.begin_attempt(run.id, "a", "bnl", run.project, "{}")
    assert first.key.startswith(f"letters-1-r{run.id}-a-a1-")
    with pytest.raises(sqlite3.IntegrityError):
        await ledger.begin_attempt(run.id, "a", "ornl", run.project, "{}")
    await ledger.end_attempt(first, "lost", {"state": "waiting"})
    second = await ledger.begin_attempt(run.id, "a", "ornl", run.project, "{}")
    assert second.number == 2
    await ledger.accept(second, run.project, [FileFacts("x", 1, 2)], {"state": "succeeded"})
    third = await ledger.begin_attempt(run.id, "a", "ornl", run.project, "{}")
    with pytest.raises(sqlite3.IntegrityError):
        await ledger.accept(third, run.project, [FileFacts("y", 1, 2)], {"state": "succeeded"})
    assert {r.path for r in await ledger.replicas(run.project)} == {"x"}, "a refused result must leave nothing behind"
    with pytest.raises(UnknownName):
        await ledger.end_attempt(second, "failed", {})
    assert (await ledger.last_attempt(run.id, "a")).number == 3
    assert (await ledger.live_attempt(run.id, "a")).key == third.key
    assert await ledger.live_attempt(run.id, "b") is None


async def test_replicas_elsewhere_become_stale_when_a_file_changes(ledger):
    await ledger.create_project("p")
    await ledger.enter_born("p", "bnl", [FileFacts("f", 10, 1)], "a")
    await ledger.enter_copies("p", "ornl", [FileFacts("f", 10, 5, "abc")])
    state = {r.site: (r.state, r.sha256, r.born, r.origin) for r in await ledger.replicas("p")}
    assert state == {"bnl": ("authoritative", "abc", True, "a"), "ornl": ("authoritative", "abc", False, "a")}
    await ledger.enter_born("p", "bnl", [FileFacts("f", 10, 1)], "a")
    assert {r.state for r in await ledger.replicas("p")} == {"authoritative"}, "nothing changed"
    await ledger.enter_born("p", "bnl", [FileFacts("f", 11, 9)], "a")
    state = {r.site: (r.state, r.size, r.sha256) for r in await ledger.replicas("p")}
    assert state == {"bnl": ("authoritative", 11, None), "ornl": ("stale", 10, "abc")}
    await ledger.enter_born("p", "anl", [FileFacts("f", 12, 3)], "a")
    state = {r.site: (r.state, r.born) for r in await ledger.replicas("p")}
    assert state == {"anl": ("authoritative", True), "bnl": ("stale", False), "ornl": ("stale", False)}
    (project,) = await ledger.projects()
    assert (project["files"], project["bytes"], project["sites"]) == (1, 12, ["anl", "bnl", "ornl"])
    await ledger.mark_stale("p", "anl", ["f"])
    assert {r.state for r in await ledger.replicas("p")} == {"stale"}


async def test_reopen_begins_a_new_series_of_attempts(ledger):
    run = await add_run(ledger)
    attempt = await ledger.begin_attempt(run.id, "a", "bnl", run.project, "{}")
    await ledger.end_attempt(attempt, "failed", {"state": "failed", "detail": {"error": {}}, "ended": 5.0})
    await ledger.update_run(run.id, state="failed", wanted="cancel", ended=6.0)
    await ledger.reopen(run.id, ["a"])
    (again,) = await ledger.runs()
    assert (again.state, again.wanted, again.ended) == ("running", "run", None)
    step = again.steps[0]
    assert (step.state, step.first_attempt, step.detail, step.ended, step.site) == ("waiting", 2, {}, None, None)


async def test_transfers_and_history(ledger):
    row = await ledger.add_transfer("bnl:a", "ornl:b")
    await ledger.update_transfer(row.id, state="done", ended=3.0, detail={"bytes_done": 7})
    (again,) = await ledger.transfers()
    assert (again.state, again.ended, again.detail) == ("done", 3.0, {"bytes_done": 7})
    run = await add_run(ledger)
    await ledger.note(run.id, "a", "something")
    assert [line["text"] for line in await ledger.history(run.id)] == ["launched", "something"]


async def test_operations_that_come_together_share_a_commit_and_one_that_fails_fails_alone(tmp_path):
    base = Database(tmp_path / "x.sqlite", ["CREATE TABLE t (n INTEGER PRIMARY KEY)"])
    base.open()
    commits = []
    await base.do(lambda db: db.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None))

    def insert(number):
        return lambda db: db.execute("INSERT INTO t VALUES (?)", (number,)).rowcount

    wanted = [base.do(insert(number)) for number in (*range(50), 7, *range(50, 100))]
    results = await asyncio.gather(*wanted, return_exceptions=True)
    assert sum(isinstance(r, sqlite3.IntegrityError) for r in results) == 1
    assert await base.do(lambda db: db.execute("SELECT count(*) FROM t").fetchone()[0]) == 100
    assert len(commits) < 60
    base.close()
    with pytest.raises(DatabaseTrouble):
        await base.do(lambda db: None)


async def test_a_full_disk_is_said_and_nothing_is_half_written(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    await ledger.open()
    await add_run(ledger)
    await ledger._database.do(lambda db: db.execute("PRAGMA max_page_count = 40").fetchone())
    with pytest.raises(DiskFull):
        for _ in range(200):
            await add_run(ledger, parameters={"long": "x" * 4000}, steps=("a",))
    await ledger._database.do(lambda db: db.execute("PRAGMA max_page_count = 100000").fetchone())
    runs = await ledger.runs()
    assert all(run.steps for run in runs)
    await add_run(ledger)
    ledger.close()


async def test_the_file_is_private_and_a_newer_or_damaged_one_is_refused(tmp_path):
    path = tmp_path / "deep" / "ledger.sqlite"
    ledger = Ledger(path)
    await ledger.open()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    ledger.close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(DatabaseTrouble, match="newer version"):
        await Ledger(path).open()
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(DatabaseTrouble):
        await Ledger(path).open()


async def test_the_ledger_keeps_its_id_and_another_one_has_another(tmp_path):
    ids = []
    for name in ("a", "a", "b"):
        ledger = Ledger(tmp_path / name)
        await ledger.open()
        ids.append(ledger.id)
        ledger.close()
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize(("kind", "mode"), [("ext4", "wal"), ("nfs4", "delete"), ("fuse.sshfs", "delete")])
async def test_network_file_systems_get_a_rollback_journal(tmp_path, monkeypatch, kind, mode):
    monkeypatch.setattr(database, "_file_system", lambda path: kind)
    ledger = Ledger(tmp_path / "ledger.sqlite")
    await ledger.open()
    found = await ledger._database.do(lambda db: db.execute("PRAGMA journal_mode").fetchone()[0])
    assert found == mode
    ledger.close()


def test_the_type_of_a_file_system_is_found(tmp_path):
    assert database._file_system(tmp_path)


KILLED = """
import asyncio, os, sys
from pathlib import Path
from dcde.data.ledger import Ledger

async def main():
    ledger = Ledger(Path(sys.argv[1]))
    await ledger.open()
    number = 0
    while True:
        await ledger.create_project(f"p{number}")
        os.write(1, b"%d\\n" % number)
        number += 1

asyncio.run(main())
"""


def test_what_was_told_survives_kill_9(tmp_path):
    path = tmp_path / "ledger.sqlite"
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, env=env)
    told = [child.stdout.readline() for _ in range(50)]
    child.send_signal(signal.SIGKILL)
    told += child.stdout.read().splitlines(keepends=True)
    child.wait()
    child.stdout.close()
    last = max(int(line) for line in told if line.endswith(b"\n"))

    async def names():
        ledger = Ledger(path)
        await ledger.open()
        found = {p["name"] for p in await ledger.projects()}
        ledger.close()
        return found

    assert {f"p{n}" for n in range(last + 1)} <= asyncio.run(names())
