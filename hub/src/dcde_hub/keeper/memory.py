"""What the keeper remembers across restarts: who has unfinished runs, in a SQLite file."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from pathlib import Path

_SCHEMA = "CREATE TABLE IF NOT EXISTS needed (person TEXT PRIMARY KEY, runs TEXT NOT NULL, since REAL NOT NULL) STRICT"


class Memory:
    """Persons and their unfinished runs.

    Args:
        path: The SQLite file; made with mode 0600 if there is none.
    """

    def __init__(self, path: Path) -> None:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute(_SCHEMA)

    def put(self, person: str, runs: list[str]) -> None:
        """Remember the unfinished runs of a person in place of what was known; an empty list forgets the person."""
        if runs:
            self._database.execute(
                "INSERT INTO needed VALUES (?, ?, ?) ON CONFLICT (person) DO UPDATE SET runs = excluded.runs",
                (person, json.dumps(runs), time.time()),
            )
        else:
            self._database.execute("DELETE FROM needed WHERE person = ?", (person,))

    def needed(self) -> dict[str, list[str]]:
        """Return the unfinished runs by person."""
        return {person: json.loads(runs) for person, runs in self._database.execute("SELECT person, runs FROM needed")}

    def close(self) -> None:
        """Close the file."""
        self._database.close()
