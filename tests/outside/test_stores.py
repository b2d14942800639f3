"""Stores of a third party, with public names alone: in virtual time, and killed again and again."""

from __future__ import annotations

import csv
import json
import socket
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from battery.sizes import FULL, PATIENCE
from brokers import USERS
from outside.csv_sink import csv_sink
from outside.remote_sink import Database
from outside.sqlite_store import SqliteStore

from rxflow import DurableSink, SinkError, run_async
from rxflow import operators as ops
from rxflow.abc import ExactlyOnceStore
from rxflow.testing import assert_no_loss

HERE = Path(__file__).parent
KILLS = 20 if FULL else 4


def rows_of(path: Path) -> list[dict[str, int]]:
    if not path.exists():
        return []
    with closing(sqlite3.connect(path)) as db:
        try:
            return [{"n": n} for (n,) in db.execute("SELECT n FROM readings ORDER BY rowid")]
        except sqlite3.OperationalError:  # no such table: it was killed before it made it
            return []


def csv_rows_of(path: Path) -> list[dict[str, int]]:
    if not path.exists():
        return []
    whole = path.read_text().rpartition("\n")[0].splitlines()
    return [{"n": int(n)} for _, n in csv.reader(whole)]


class Server:
    """A database on loopback: keeps what it has answered with COMMIT; some it rolls back."""

    def __init__(self, *, rollback_every: int = 0) -> None:
        self.rows: list[Any] = []
        self.rolled_back = 0
        self._rollback_every = rollback_every
        self._commits = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._converse, args=[connection])
            self._threads.append(thread)
            thread.start()

    def _converse(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rwb") as file:
            try:
                while line := file.readline():
                    count = int(line.split()[1])
                    rows = [file.readline() for _ in range(count)]
                    if not all(row.endswith(b"\n") for row in rows):
                        return  # killed in the middle of a transaction
                    self._commits += 1
                    if self._rollback_every and self._commits % self._rollback_every == 0:
                        self.rolled_back += 1
                        return
                    self.rows.extend(map(json.loads, rows))
                    file.write(b"COMMIT %d\n" % count)
                    file.flush()
            except OSError:
                return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            with connection:
                pass
        for thread in self._threads:
            thread.join(PATIENCE)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(rollback_every=7)
    yield server
    server.close()


# -- in virtual time -------------------------------------------------------------------------------


def readings(broker, topic="a", **settings):
    return broker.from_mqtt(topic, **settings).pipe(ops.map(lambda m: m.with_payload({"n": 1})))


def test_sqlite_rows_are_acknowledged_after_their_commit(marbles, tmp_path):
    store = SqliteStore(str(tmp_path / "rows.db"))
    assert isinstance(store, ExactlyOnceStore)
    broker = marbles.mqtt("a q1 : -a--b---")
    marbles.run(run_async(readings(broker), DurableSink(store), seconds=7, log=False))
    assert broker.acknowledged("a") == "-^--^"
    assert len(rows_of(tmp_path / "rows.db")) == 2


def test_a_csv_row_is_acknowledged_when_the_function_has_returned(marbles, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("a,1\na,")  # torn by a crash
    broker = marbles.mqtt("a q1 : -a--b---")
    marbles.run(run_async(readings(broker), csv_sink(path), seconds=7, log=False))
    assert broker.acknowledged("a") == "-^--^"
    assert path.read_text().split() == ["a,1", "a,1", "a,1"]


def test_a_coroutine_that_fails_leaves_its_batch_to_the_broker(marbles, monkeypatch):
    async def refused(host, port):
        raise ConnectionRefusedError(111, "refused")

    monkeypatch.setattr("asyncio.open_connection", refused)
    broker = marbles.mqtt("a q1 : -a------")
    with pytest.raises(SinkError, match=r"a commit of 1 row failed: ConnectionRefusedError"):
        marbles.run(run_async(readings(broker), DurableSink(Database(1).insert), log=False))
    assert broker.acknowledged("a") == ""


@pytest.fixture
def url(mosquitto) -> str:
    (name, password), *_ = USERS.items()
    return mosquitto.url.replace("://", f"://{name}:{password}@")


# -- killed ----------------------------------------------------------------------------------------


def program(name: str, *arguments: object) -> list[str]:
    return [sys.executable, str(HERE / name), *map(str, arguments)]


@pytest.mark.parametrize("qos", [1, 2])
def test_sqlite_misses_nothing_after_kills_and_has_nothing_twice_at_qos_2(url, tmp_path, qos):
    path = tmp_path / "rows.db"
    outcome = assert_no_loss(
        program("sqlite_store.py", url, path, qos),
        path,
        url=url,
        topic="numbers",
        qos=qos,
        kills=KILLS,
        rate=300,
        exactly_once=qos == 2,
        in_order=True,
        read=lambda: rows_of(path),
        patience=PATIENCE,
    )
    assert outcome.kills == KILLS


def test_csv_misses_nothing_after_kills(url, tmp_path):
    path = tmp_path / "rows.csv"
    assert_no_loss(
        program("csv_sink.py", url, path),
        path,
        url=url,
        topic="numbers",
        kills=KILLS,
        rate=300,
        read=lambda: csv_rows_of(path),
        patience=PATIENCE,
    )


def test_a_server_that_rolls_back_misses_nothing_after_kills(url, tmp_path, server):
    assert_no_loss(
        program("remote_sink.py", url, server.port),
        tmp_path / "none",
        url=url,
        topic="numbers",
        kills=KILLS,
        rate=300,
        read=lambda: list(server.rows),
        patience=PATIENCE,
    )
    assert server.rolled_back
