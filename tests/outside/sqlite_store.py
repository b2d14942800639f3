"""Rows in SQLite, exactly once at QoS 2: receipts stand in the transaction of their rows.

python sqlite_store.py URL PATH QOS
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rxflow import DurableSink, from_mqtt, run
from rxflow import operators as ops
from rxflow.abc import Receipt

TABLES = """
CREATE TABLE IF NOT EXISTS readings (n INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS receipts (
    session TEXT, packet_id INTEGER, digest INTEGER, PRIMARY KEY (session, packet_id)
);
"""


class SqliteStore:
    """A table of numbers."""

    def __init__(self, path: str) -> None:
        self._path = path

    def open(self) -> None:
        self._db = sqlite3.connect(self._path, check_same_thread=False)
        self._db.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; {TABLES}")

    def commit(self, rows: Sequence[Any], receipts: Sequence[Receipt] = ()) -> None:
        with self._db:
            self._db.executemany("INSERT INTO readings VALUES (?)", [(row["n"],) for row in rows])
            kept = [(r.session, r.packet_id, r.digest) for r in receipts]
            self._db.executemany("INSERT OR REPLACE INTO receipts VALUES (?, ?, ?)", kept)

    def receipts(self, session: str) -> Mapping[int, int]:
        found = "SELECT packet_id, digest FROM receipts WHERE session = ?"
        return dict(self._db.execute(found, [session]).fetchall())

    def release(self, session: str, packet_ids: Sequence[int]) -> None:
        with self._db:
            gone = "DELETE FROM receipts WHERE session = ? AND packet_id = ?"
            self._db.executemany(gone, [(session, packet_id) for packet_id in packet_ids])

    def forget(self, session: str) -> None:
        with self._db:
            self._db.execute("DELETE FROM receipts WHERE session = ?", [session])

    def close(self) -> None:
        self._db.close()


if __name__ == "__main__":
    url, path, qos = sys.argv[1:]
    source = from_mqtt(url, "numbers", qos=int(qos), client_id="outside").pipe(ops.decode_json())
    run(source, DurableSink(SqliteStore(path), name=path))
