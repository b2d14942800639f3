"""A feed and an operator of a third party, with public names alone: in virtual time, and killed."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from battery.sizes import PATIENCE
from outside.changed import changed_by
from outside.spool_feed import SpoolFeed, from_spool

from rxflow import SinkError, from_feed, read_rows, run_async
from rxflow import operators as ops
from rxflow.abc import Feed

HERE = Path(__file__).parent
KILLS = 5


def put(folder, name, value):
    """As whoever writes into a spool folder should: a file is there whole, or not at all."""
    path = folder / f"{name}.part"
    path.write_text(json.dumps(value))
    path.rename(folder / f"{name}.json")


def names(folder):
    return sorted(path.stem for path in folder.glob("*.json"))


# -- the feed --------------------------------------------------------------------------------------


def test_it_is_a_feed_to_pyright_and_to_whoever_reads_it(tmp_path):
    feed: Feed[bytes] = SpoolFeed(tmp_path, None)
    assert callable(feed.read)


def test_a_file_is_deleted_when_its_row_is_durable_and_not_before(marbles, tmp_path):
    sink = marbles.sink(disk="====")
    found = []
    put(tmp_path, "1", {"n": 1})
    for time in (1, 3.9, 4.1):
        marbles.at(f"{time}s", lambda: found.append(names(tmp_path)))
    marbles.at("2s", lambda: put(tmp_path, "2", {"n": 2}))
    marbles.run(run_async(from_spool(tmp_path), sink, seconds=6, log=False))
    assert sink.stored == [{"n": 1}, {"n": 2}]
    assert found == [["1"], ["1", "2"], []]


def test_a_spool_folder_is_emptied_and_completes(marbles, tmp_path):
    for n in range(3):
        put(tmp_path, n, n)
    flow = from_spool(tmp_path, None).pipe(ops.map(lambda m: m.payload.decode()))
    marbles.check(flow, "(abc|)", a="0", b="1", c="2")
    assert names(tmp_path) == []


def test_no_file_is_deleted_after_a_failure(marbles, tmp_path):
    put(tmp_path, "1", 1)
    with pytest.raises(SinkError):
        marbles.run(run_async(from_spool(tmp_path), marbles.sink(disk="xxx"), log=False))
    assert names(tmp_path) == ["1"]


def test_files_that_are_not_stored_come_again_after_a_retry(marbles, tmp_path):
    class Broken(SpoolFeed):
        async def read(self, emit):
            await super().read(emit)
            raise OSError("the folder is gone")

    feeds = [Broken(tmp_path, None), SpoolFeed(tmp_path, None)]
    put(tmp_path, "1", 1)
    sink = marbles.sink(disk="==")
    flow = from_feed(lambda: feeds.pop(0), label="spool").pipe(ops.retry(2))
    marbles.run(run_async(flow, sink, log=False))
    assert sink.stored == [1, 1]  # at least once
    assert names(tmp_path) == []


def stored(path):
    with contextlib.suppress(FileNotFoundError, ValueError, SinkError):  # while it is written
        return len(list(read_rows(path)))
    return 0


def until(condition):
    """Look again and again, as long as a loaded machine may take."""
    waiting = threading.Event()
    for _ in range(round(PATIENCE / 0.02)):
        if condition():
            return
        waiting.wait(0.02)
    raise AssertionError("it did not come")


@contextlib.contextmanager
def program(spool, rows):
    with subprocess.Popen([sys.executable, HERE / "spool_feed.py", spool, rows]) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def writing(folder):
    """Meanwhile somebody writes numbers, each into a file of its own."""
    stopped, written = threading.Event(), []

    def write():
        while not stopped.wait(0.002):
            put(folder, f"{len(written):06}", len(written))
            written.append(len(written))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield written
    finally:
        stopped.set()
        writer.join()


def test_killed_again_and_again_it_loses_no_file(tmp_path):
    spool, rows = tmp_path / "spool", tmp_path / "rows.json"
    spool.mkdir()
    with writing(spool) as written:
        for _ in range(KILLS):
            enough = stored(rows) + 20
            with program(spool, rows):
                until(lambda enough=enough: stored(rows) >= enough)
    with program(spool, rows) as process:
        until(lambda: not names(spool))
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    assert sorted(set(read_rows(rows))) == written


# -- the operator ----------------------------------------------------------------------------------


def test_changed_by_passes_on_what_has_changed_enough(marbles):
    broker = marbles.mqtt("t q1 : -abcd-", a=20, b=20.4, c=21, d=20.5)
    marbles.check(
        broker.from_mqtt("t").pipe(
            ops.decode_json(), changed_by(0.5), ops.map(lambda m: m.payload)
        ),
        "-a-cd-...",
        a=20,
        c=21,
        d=20.5,
    )
    assert broker.acknowledged("t") == "-^^^^"


def test_changed_by_knows_topics_apart_and_hands_on_the_end(marbles):
    broker, sink = marbles.mqtt("t q1 : -a-a-\nu q1 : --b--", a=1, b=1), marbles.sink()
    flow = broker.from_mqtt("t", "u").pipe(
        ops.decode_json(), changed_by(0.5), ops.buffer_with_count(9)
    )
    report = marbles.run(run_async(flow, sink, seconds=5, log=False))
    assert sink.stored == [1, 1]
    assert (report.stored, report.filtered, report.unacknowledged) == (2, 1, 0)


def test_changed_by_hands_on_an_error(marbles):
    source = marbles.cold("-#", error=ValueError("gone"))
    marbles.check(source.pipe(changed_by(1)), "-#", error=ValueError("gone"))
