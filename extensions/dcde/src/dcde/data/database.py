"""One SQLite file behind one thread: nothing that is asked of it blocks the event loop, and commits come in groups.

Every operation runs in its own savepoint of the transaction that is open, so that one that fails leaves the others
alone; all operations that were waiting are committed together, and only then are their callers told. What a caller was
told survives `kill -9` and the loss of power (`synchronous=FULL`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from dcde.errors import DcdeError, DiskFull

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]

_GROUP = 200
"""At most this many operations share one commit."""

_SHARED_MEMORY_FAILS = ("nfs", "cifs", "smb", "fuse", "lustre", "gpfs", "beegfs", "afs", "ceph", "9p", "glusterfs")


class DatabaseTrouble(DcdeError):
    """The ledger's file cannot be used."""


class Database:
    """An SQLite file that is read and written by one thread of its own.

    Args:
        path: The file; it is made with mode 0600 when it is not there.
        schema: The statements that make the tables, as one script per version; script N brings version N to N + 1.
    """

    def __init__(self, path: Path, schema: list[str]) -> None:
        self.path = path
        self._schema = schema
        self._queue: queue.SimpleQueue[tuple[Operation[Any], Future[Any]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    def open(self) -> None:
        """Open the file, bring its tables to the newest version, and start the thread.

        Raises:
            DatabaseTrouble: The file is damaged, or a newer version of the program wrote it.
        """
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._work, args=(ready,), name="ledger", daemon=True)
        self._thread.start()
        ready.result()

    async def do(self, operation: Operation[T]) -> T:
        """Run `operation` with the connection in the thread and return its result once it is committed.

        Raises:
            DiskFull: There is no room for the ledger; nothing of the operation was kept.
        """
        return await asyncio.wrap_future(self.submit(operation))

    def submit(self, operation: Operation[T]) -> Future[T]:
        """Hand over `operation` and return at once; the future is done when its result is committed."""
        if self._closed:
            raise DatabaseTrouble("the ledger is closed", where=str(self.path))
        future: Future[T] = Future()
        self._queue.put((operation, future))
        return future

    def close(self) -> None:
        """Commit what was handed over, and end the thread."""
        if self._thread and not self._closed:
            self._closed = True
            self._queue.put(None)
            self._thread.join()

    def _work(self, ready: Future[None]) -> None:
        try:
            connection = _connect(self.path)
        except BaseException as error:
            ready.set_exception(_understood(error, self.path))
            return
        try:
            _migrate(connection, self._schema, self.path)
        except BaseException as error:
            connection.close()
            ready.set_exception(_understood(error, self.path))
            return
        ready.set_result(None)
        while group := self._next_group():
            self._run_group(connection, group)
        with contextlib.suppress(sqlite3.Error):
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()

    def _next_group(self) -> list[tuple[Operation[Any], Future[Any]]]:
        """Return the operations that are waiting; an empty list when the database is to be closed."""
        first = self._queue.get()
        if first is None:
            return []
        group = [first]
        while len(group) < _GROUP:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            if item is None:
                self._queue.put(None)
                break
            group.append(item)
        return group

    def _run_group(self, connection: sqlite3.Connection, group: list[tuple[Operation[Any], Future[Any]]]) -> None:
        done: list[tuple[Future[Any], Any]] = []
        try:
            connection.execute("BEGIN IMMEDIATE")
            for operation, future in group:
                if not future.set_running_or_notify_cancel():
                    continue
                connection.execute("SAVEPOINT one")
                try:
                    value = operation(connection)
                except Exception as error:
                    if not connection.in_transaction:
                        # SQLite gave up the whole transaction, as it does when the disk is full.
                        raise
                    connection.execute("ROLLBACK TO one")
                    connection.execute("RELEASE one")
                    future.set_exception(_understood(error, self.path))
                else:
                    connection.execute("RELEASE one")
                    done.append((future, value))
            connection.execute("COMMIT")
        except BaseException as error:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            for _, future in group:
                if not future.done():
                    future.set_exception(_understood(error, self.path))
            return
        for future, value in done:
            future.set_result(value)


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    path.chmod(0o600)
    connection = sqlite3.connect(path, isolation_level=None, timeout=10, cached_statements=256)
    connection.row_factory = sqlite3.Row
    # Write-ahead logging needs memory shared between processes, which network file systems do not give.
    mode = "DELETE" if _file_system(path).startswith(_SHARED_MEMORY_FAILS) else "WAL"
    connection.execute(f"PRAGMA journal_mode={mode}")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    return connection


def _file_system(path: Path) -> str:
    """Return the type of the file system that holds `path` (proc(5), mountinfo); empty when it cannot be told."""
    best, kind = -1, ""
    target = str(path.resolve())
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        left, _, right = line.partition(" - ")
        point = left.split(" ")[4].replace("\\040", " ")
        if (target + "/").startswith(point.rstrip("/") + "/") and len(point) >= best:
            best, kind = len(point), right.split(" ")[0]
    return kind


def _migrate(connection: sqlite3.Connection, schema: list[str], path: Path) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(schema):
        raise DatabaseTrouble(
            "the ledger was written by a newer version of this program",
            where=str(path),
            remedy="Start the newer version, or move the file away to begin a new ledger.",
        )
    for number in range(version, len(schema)):
        # executescript would commit by itself, so the version is part of the same script.
        connection.executescript(f"BEGIN; {schema[number]}; PRAGMA user_version={number + 1}; COMMIT;")


def _understood(error: BaseException, path: Path) -> BaseException:
    """Return the error as one of ours where the person can do something about it."""
    if isinstance(error, sqlite3.OperationalError) and "full" in str(error):
        return DiskFull("the ledger cannot be written: the home folder is full", where=str(path))
    if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.IntegrityError):
        return DatabaseTrouble(f"the ledger cannot be used: {error}", where=str(path))
    return error
