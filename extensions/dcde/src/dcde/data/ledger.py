"""The ledger: what the runner knows of projects, replicas, runs, steps, attempts and transfers. It is the truth.

After `kill -9` at any moment the runner rebuilds everything from here. Two promises are kept by the tables themselves:
a step has at most one live attempt, and at most one accepted result.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dcde.data.database import Database
from dcde.data.rows import Attempt, FileFacts, Replica, RunRow, StepRow, TransferRow
from dcde.errors import AlreadyExists, UnknownName

__all__ = ["Attempt", "FileFacts", "Ledger", "Replica", "RunRow", "StepRow", "TransferRow"]

_SCHEMA = [
    """
    CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE projects (name TEXT PRIMARY KEY, created REAL NOT NULL) WITHOUT ROWID;
    CREATE TABLE replicas (
        project TEXT NOT NULL REFERENCES projects(name), path TEXT NOT NULL, site TEXT NOT NULL,
        size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, sha256 TEXT, origin TEXT NOT NULL DEFAULT '',
        born INTEGER NOT NULL DEFAULT 0, state TEXT NOT NULL CHECK (state IN ('authoritative', 'stale')),
        PRIMARY KEY (project, path, site)) WITHOUT ROWID;
    CREATE TABLE runs (
        id INTEGER PRIMARY KEY AUTOINCREMENT, template TEXT NOT NULL, title TEXT NOT NULL,
        project TEXT NOT NULL REFERENCES projects(name), parameters TEXT NOT NULL, plan TEXT NOT NULL,
        allocation TEXT, partition TEXT, token TEXT UNIQUE, state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '',
        wanted TEXT NOT NULL DEFAULT 'run' CHECK (wanted IN ('run', 'cancel')), created REAL NOT NULL, ended REAL);
    CREATE TABLE steps (
        run INTEGER NOT NULL REFERENCES runs(id), id TEXT NOT NULL, position INTEGER NOT NULL, wish TEXT NOT NULL,
        site TEXT, state TEXT NOT NULL, why TEXT NOT NULL DEFAULT '', attempt INTEGER NOT NULL DEFAULT 0,
        first_attempt INTEGER NOT NULL DEFAULT 1, queued_at REAL, started REAL, ended REAL,
        detail TEXT NOT NULL DEFAULT '{}', PRIMARY KEY (run, id)) WITHOUT ROWID;
    CREATE TABLE attempts (
        key TEXT PRIMARY KEY, run INTEGER NOT NULL, step TEXT NOT NULL, number INTEGER NOT NULL, site TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('live', 'succeeded', 'failed', 'lost', 'cancelled')),
        spec TEXT NOT NULL, job_id TEXT, created REAL NOT NULL, ended REAL, UNIQUE (run, step, number),
        FOREIGN KEY (run, step) REFERENCES steps(run, id)) WITHOUT ROWID;
    CREATE UNIQUE INDEX one_live_attempt ON attempts (run, step) WHERE state = 'live';
    CREATE UNIQUE INDEX one_accepted_result ON attempts (run, step) WHERE state = 'succeeded';
    CREATE TABLE transfers (
        id INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT NOT NULL, target TEXT NOT NULL, state TEXT NOT NULL,
        created REAL NOT NULL, ended REAL, detail TEXT NOT NULL DEFAULT '{}');
    CREATE TABLE events (
        id INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, run INTEGER, step TEXT, text TEXT NOT NULL);
    CREATE INDEX events_of_run ON events (run);
    """
]

_ATTEMPT = "SELECT key, run, step, number, site, state, spec, job_id FROM attempts WHERE run = ? AND step = ?"

_RUN_FIELDS = {"state", "reason", "wanted", "ended"}
_STEP_FIELDS = {"site", "state", "why", "attempt", "first_attempt", "queued_at", "started", "ended", "detail"}
_TRANSFER_FIELDS = {"state", "ended", "detail"}


class Ledger:
    """The runner's book. Every method is one transaction; when it returns, what it did survives the process.

    Args:
        path: The SQLite file.
    """

    def __init__(self, path: Path) -> None:
        self._database = Database(path, _SCHEMA)
        self.id = ""

    async def open(self) -> None:
        """Open the file; makes it when it is not there. Raises `DatabaseTrouble` when it cannot be used."""
        self._database.open()
        self.id = await self._database.do(_ledger_id)

    def close(self) -> None:
        """Commit what is under way and close the file."""
        self._database.close()

    # projects and replicas

    async def create_project(self, name: str, *, exist_ok: bool = False) -> None:
        """Enter a project. Raises AlreadyExists when there is one of that name, unless `exist_ok`."""

        def work(db: sqlite3.Connection) -> None:
            made = _create_project(db, name)
            if not made and not exist_ok:
                raise AlreadyExists(f"there is already a project {name}", where=name)

        await self._database.do(work)

    async def projects(self) -> list[dict[str, Any]]:
        """Return name, time of creation, sites, number of files and bytes (each file counted once) of every project."""

        def work(db: sqlite3.Connection) -> list[dict[str, Any]]:
            rows = db.execute(
                "SELECT name, created,"
                " (SELECT group_concat(DISTINCT site) FROM replicas r WHERE r.project = p.name) AS sites,"
                " (SELECT count(*) FROM (SELECT DISTINCT path FROM replicas r WHERE r.project = p.name)) AS files,"
                " (SELECT total(size) FROM (SELECT max(size) AS size FROM replicas r WHERE r.project = p.name"
                "  AND state = 'authoritative' GROUP BY path)) AS bytes FROM projects p ORDER BY created"
            )
            return [
                {
                    "name": row["name"],
                    "created": row["created"],
                    "sites": sorted((row["sites"] or "").split(",")) if row["sites"] else [],
                    "files": row["files"],
                    "bytes": int(row["bytes"]),
                }
                for row in rows
            ]

        return await self._database.do(work)

    async def replicas(self, project: str, site: str | None = None) -> list[Replica]:
        """Return every replica of a project's files, or those at one site, ordered by path and site."""

        def work(db: sqlite3.Connection) -> list[Replica]:
            rows = db.execute(
                "SELECT path, site, size, mtime_ns, sha256, origin, born, state FROM replicas"
                " WHERE project = ? AND (?2 IS NULL OR site = ?2) ORDER BY path, site",
                (project, site),
            )
            return [Replica(**{**dict(row), "born": bool(row["born"])}) for row in rows]

        return await self._database.do(work)

    async def enter_born(self, project: str, site: str, files: Iterable[FileFacts], origin: str) -> None:
        """Enter files that were made or changed at `site`; replicas elsewhere that differ become stale."""
        known = list(files)
        await self._database.do(lambda db: _enter_born(db, project, site, known, origin))

    async def enter_copies(self, project: str, site: str, files: Iterable[FileFacts]) -> None:
        """Enter files that were brought to `site` and checked against their source."""
        known = list(files)

        def work(db: sqlite3.Connection) -> None:
            for f in known:
                origin = db.execute(
                    "SELECT origin FROM replicas WHERE project = ? AND path = ? AND born", (project, f.path)
                ).fetchone()
                _put_replica(db, project, site, f, origin["origin"] if origin else "", born=False)
                db.execute(
                    "UPDATE replicas SET sha256 = ?"
                    " WHERE project = ? AND path = ? AND state = 'authoritative' AND sha256 IS NULL",
                    (f.sha256, project, f.path),
                )

        await self._database.do(work)

    async def mark_stale(self, project: str, site: str, paths: Iterable[str]) -> None:
        """Note that the replicas of these paths at `site` are not there any more as they were entered."""
        rows = [(project, site, path) for path in paths]
        sql = "UPDATE replicas SET state = 'stale' WHERE project = ? AND site = ? AND path = ?"
        await self._database.do(lambda db: db.executemany(sql, rows) and None)

    # runs and steps

    async def add_run(
        self,
        *,
        template: str,
        title: str,
        project: str | None,
        parameters: dict[str, Any],
        plan: dict[str, Any],
        wishes: list[tuple[str, str]],
        allocation: str | None,
        partition: str | None,
        token: str | None,
    ) -> RunRow:
        """Enter a run with its steps, and its project when that is new.

        Args:
            project: None makes one named after the template.
            wishes: Step id and wished site of each step, in order.
            token: By which the same launch is known again.

        Raises:
            sqlite3.IntegrityError: There is a run with that token.
        """

        def work(db: sqlite3.Connection) -> RunRow:
            name = project or _free_project_name(db, template)
            _create_project(db, name)
            cursor = db.execute(
                "INSERT INTO runs"
                " (template, title, project, parameters, plan, allocation, partition, token, state, created)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'waiting', ?)",
                (template, title, name, _text(parameters), _text(plan), allocation, partition, token, time.time()),
            )
            run = int(cursor.lastrowid or 0)
            db.executemany(
                "INSERT INTO steps (run, id, position, wish, state) VALUES (?, ?, ?, ?, 'waiting')",
                [(run, step, position, wish) for position, (step, wish) in enumerate(wishes)],
            )
            _note(db, run, None, "launched")
            return _run(db, run)

        return await self._database.do(work)

    async def run_of_token(self, token: str) -> int | None:
        """Return the number of the run that was launched with this token, if there is one."""

        def work(db: sqlite3.Connection) -> int | None:
            row = db.execute("SELECT id FROM runs WHERE token = ?", (token,)).fetchone()
            return int(row["id"]) if row else None

        return await self._database.do(work)

    async def runs(self) -> list[RunRow]:
        """Return all runs with their steps, the oldest first."""
        return await self._database.do(
            lambda db: [_run(db, row["id"]) for row in db.execute("SELECT id FROM runs ORDER BY id").fetchall()]
        )

    async def jobs_in_project(self, project: str | None) -> int:
        """Return how many steps the runs of a project have had; the next application job has the number after it."""
        sql = "SELECT count(*) FROM steps JOIN runs ON runs.id = steps.run WHERE project = ?"
        return await self._database.do(lambda db: int(db.execute(sql, (project,)).fetchone()[0]))

    async def update_run(self, run: int, **fields: Any) -> None:
        """Write fields of a run: state, reason, wanted, ended."""
        await self._database.do(lambda db: _update_run(db, run, fields))

    async def update_step(self, run: int, step: str, **fields: Any) -> None:
        """Write fields of a step: site, state, why, attempt, first_attempt, queued_at, started, ended, detail."""
        await self._database.do(lambda db: _update_step(db, run, step, fields))

    def post_run(self, run: int, **fields: Any) -> None:
        """Write fields of a run without waiting for it."""
        self._database.submit(lambda db: _update_run(db, run, fields))

    def post_step(self, run: int, step: str, **fields: Any) -> None:
        """Write fields of a step without waiting for it: for what may be lost, as it is learned again from the site."""
        self._database.submit(lambda db: _update_step(db, run, step, fields))

    async def reopen(self, run: int, steps: Iterable[str]) -> None:
        """Make a run wanted again, and these steps of it waiting with attempts of a new series."""
        names = list(steps)

        def work(db: sqlite3.Connection) -> None:
            _update_run(db, run, {"state": "running", "reason": "", "wanted": "run", "ended": None})
            for step in names:
                row = db.execute(
                    "SELECT coalesce(max(number), 0) FROM attempts WHERE run = ? AND step = ?", (run, step)
                ).fetchone()
                fresh = {"state": "waiting", "why": "", "site": None, "detail": {}, "first_attempt": row[0] + 1}
                _update_step(db, run, step, fresh | {"queued_at": None, "started": None, "ended": None})
            _note(db, run, None, "resumed")

        await self._database.do(work)

    async def note(self, run: int | None, step: str | None, text: str) -> None:
        """Write one line into the history."""
        await self._database.do(lambda db: _note(db, run, step, text))

    async def history(self, run: int) -> list[dict[str, Any]]:
        """Return the history of a run: time, step and text of each line, the oldest first."""
        sql = "SELECT time, step, text FROM events WHERE run = ? ORDER BY id"
        return await self._database.do(lambda db: [dict(row) for row in db.execute(sql, (run,))])

    # attempts

    async def live_attempt(self, run: int, step: str) -> Attempt | None:
        """Return the attempt of a step that may have a job at a site, if there is one."""
        sql = _ATTEMPT + " AND state = 'live'"

        def work(db: sqlite3.Connection) -> Attempt | None:
            row = db.execute(sql, (run, step)).fetchone()
            return Attempt(**dict(row)) if row else None

        return await self._database.do(work)

    async def last_attempt(self, run: int, step: str) -> Attempt | None:
        """Return the newest attempt of a step, whatever became of it."""
        sql = _ATTEMPT + " ORDER BY number DESC LIMIT 1"

        def work(db: sqlite3.Connection) -> Attempt | None:
            row = db.execute(sql, (run, step)).fetchone()
            return Attempt(**dict(row)) if row else None

        return await self._database.do(work)

    async def begin_attempt(self, run: int, step: str, site: str, project: str, spec: str) -> Attempt:
        """Enter a new live attempt before anything of it is sent to a site.

        Raises:
            sqlite3.IntegrityError: There is a live attempt; a second one is never made.
        """

        def work(db: sqlite3.Connection) -> Attempt:
            last = db.execute(
                "SELECT coalesce(max(number), 0) FROM attempts WHERE run = ? AND step = ?", (run, step)
            ).fetchone()[0]
            number = int(last) + 1
            # The ledger's own id keeps a new ledger from taking over the jobs of one that was thrown away.
            key = f"{project}-r{run}-{step}-a{number}-{_ledger_id(db)}"
            db.execute(
                "INSERT INTO attempts (key, run, step, number, site, state, spec, created)"
                " VALUES (?, ?, ?, ?, ?, 'live', ?, ?)",
                (key, run, step, number, site, spec, time.time()),
            )
            _update_step(db, run, step, {"attempt": number, "site": site})
            _note(db, run, step, f"attempt {number} at {site}")
            return Attempt(key, run, step, number, site, "live", spec, None)

        return await self._database.do(work)

    def post_job(self, key: str, job_id: str) -> None:
        """Note the scheduler's id of an attempt's job, without waiting for it: the site knows it too."""
        self._database.submit(
            lambda db: db.execute("UPDATE attempts SET job_id = ? WHERE key = ?", (job_id, key)).rowcount
        )

    async def end_attempt(self, attempt: Attempt, state: str, step_fields: dict[str, Any]) -> None:
        """Write how an attempt ended (failed, lost or cancelled) together with its step's fields."""

        def work(db: sqlite3.Connection) -> None:
            _end_attempt(db, attempt.key, state)
            _update_step(db, attempt.run, attempt.step, step_fields)
            _note(db, attempt.run, attempt.step, f"attempt {attempt.number} {state}")

        await self._database.do(work)

    async def accept(
        self, attempt: Attempt, project: str, files: Iterable[FileFacts], step_fields: dict[str, Any]
    ) -> None:
        """Accept an attempt's result: its outputs, its step's fields and its end are written together or not at all.

        Raises:
            sqlite3.IntegrityError: Another attempt of the step was accepted before.
        """
        known = list(files)

        def work(db: sqlite3.Connection) -> None:
            _end_attempt(db, attempt.key, "succeeded")
            _enter_born(db, project, attempt.site, known, attempt.step)
            _update_step(db, attempt.run, attempt.step, step_fields)
            _note(db, attempt.run, attempt.step, f"attempt {attempt.number} succeeded")

        await self._database.do(work)

    # transfers

    async def add_transfer(self, source: str, target: str) -> TransferRow:
        """Enter a copy that a person asked for."""

        def work(db: sqlite3.Connection) -> TransferRow:
            now = time.time()
            cursor = db.execute(
                "INSERT INTO transfers (source, target, state, created) VALUES (?, ?, 'waiting', ?)",
                (source, target, now),
            )
            return TransferRow(int(cursor.lastrowid or 0), source, target, "waiting", now, None, {})

        return await self._database.do(work)

    async def update_transfer(self, transfer: int, **fields: Any) -> None:
        """Write fields of a transfer: state, ended, detail."""
        await self._database.do(lambda db: _update(db, "transfers", _TRANSFER_FIELDS, fields, "id = ?", (transfer,)))

    async def transfers(self) -> list[TransferRow]:
        """Return all transfers, the oldest first."""

        def work(db: sqlite3.Connection) -> list[TransferRow]:
            rows = db.execute("SELECT id, source, target, state, created, ended, detail FROM transfers ORDER BY id")
            return [TransferRow(**{**dict(row), "detail": json.loads(row["detail"])}) for row in rows]

        return await self._database.do(work)


def _ledger_id(db: sqlite3.Connection) -> str:
    db.execute("INSERT OR IGNORE INTO facts VALUES ('ledger', ?)", (secrets.token_hex(3),))
    return str(db.execute("SELECT value FROM facts WHERE name = 'ledger'").fetchone()["value"])


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _create_project(db: sqlite3.Connection, name: str) -> bool:
    return db.execute("INSERT OR IGNORE INTO projects VALUES (?, ?)", (name, time.time())).rowcount == 1


def _free_project_name(db: sqlite3.Connection, template: str) -> str:
    taken = {row["name"] for row in db.execute("SELECT name FROM projects")}
    number = 1
    while f"{template}-{number}" in taken:
        number += 1
    return f"{template}-{number}"


def _put_replica(db: sqlite3.Connection, project: str, site: str, f: FileFacts, origin: str, *, born: bool) -> None:
    db.execute(
        "INSERT INTO replicas VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'authoritative')"
        " ON CONFLICT (project, path, site) DO UPDATE SET"
        " size = excluded.size, mtime_ns = excluded.mtime_ns, sha256 = excluded.sha256, origin = excluded.origin,"
        " born = excluded.born, state = 'authoritative'",
        (project, f.path, site, f.size, f.mtime_ns, f.sha256, origin, int(born)),
    )


def _enter_born(db: sqlite3.Connection, project: str, site: str, files: list[FileFacts], origin: str) -> None:
    for f in files:
        old = db.execute(
            "SELECT size, mtime_ns, sha256, born, state FROM replicas WHERE project = ? AND path = ? AND site = ?",
            (project, f.path, site),
        ).fetchone()
        same = (
            old is not None
            and old["state"] == "authoritative"
            and (old["size"], old["mtime_ns"]) == (f.size, f.mtime_ns)
        )
        if same:
            continue
        _put_replica(db, project, site, f, origin, born=True)
        db.execute(
            "UPDATE replicas SET state = 'stale', born = 0 WHERE project = ? AND path = ? AND site <> ?",
            (project, f.path, site),
        )


def _end_attempt(db: sqlite3.Connection, key: str, state: str) -> None:
    changed = db.execute(
        "UPDATE attempts SET state = ?, ended = ? WHERE key = ? AND state = 'live'", (state, time.time(), key)
    ).rowcount
    if changed != 1:
        raise UnknownName(f"there is no live attempt {key}", where=key)


def _update_run(db: sqlite3.Connection, run: int, fields: dict[str, Any]) -> None:
    _update(db, "runs", _RUN_FIELDS, fields, "id = ?", (run,))


def _update_step(db: sqlite3.Connection, run: int, step: str, fields: dict[str, Any]) -> None:
    _update(db, "steps", _STEP_FIELDS, fields, "run = ? AND id = ?", (run, step))


def _update(
    db: sqlite3.Connection, table: str, allowed: set[str], fields: dict[str, Any], where: str, key: tuple[Any, ...]
) -> None:
    if unknown := set(fields) - allowed:
        raise ValueError(f"{table} has no field {sorted(unknown)}")
    if not fields:
        return
    names = ", ".join(f"{name} = ?" for name in fields)
    values = [_text(value) if name == "detail" else value for name, value in fields.items()]
    # Table and column names come from the sets above, never from outside.
    db.execute(f"UPDATE {table} SET {names} WHERE {where}", (*values, *key))  # noqa: S608


def _note(db: sqlite3.Connection, run: int | None, step: str | None, text: str) -> None:
    db.execute("INSERT INTO events (time, run, step, text) VALUES (?, ?, ?, ?)", (time.time(), run, step, text))


def _run(db: sqlite3.Connection, run: int) -> RunRow:
    row = db.execute(
        "SELECT id, template, title, project, parameters, plan, allocation, partition, token, state, reason, wanted,"
        " created, ended FROM runs WHERE id = ?",
        (run,),
    ).fetchone()
    if row is None:
        raise UnknownName(f"there is no run r{run}", where=f"r{run}")
    steps = db.execute(
        "SELECT run, id, wish, site, state, why, attempt, first_attempt, queued_at, started, ended, detail"
        " FROM steps WHERE run = ? ORDER BY position",
        (run,),
    )
    return RunRow(
        **{**dict(row), "parameters": json.loads(row["parameters"]), "plan": json.loads(row["plan"])},
        steps=[StepRow(**{**dict(s), "detail": json.loads(s["detail"])}) for s in steps],
    )
