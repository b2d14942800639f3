"""A disk that hangs: it is named, nothing is acknowledged, and the process ends when it is told."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import reactivex
from battery.power import call, mounted
from ledgers import Linked
from scripted import DISCONNECT, Conversation, ScriptedBroker, publish

from rxflow import JsonSink, Message, RxflowWarning, SinkError, run_async
from rxflow.delivery import Delivery, Ledger
from rxflow.log import logger
from rxflow.sinks import group_commit, sink
from rxflow.testing.marbles import Marbles


@pytest.fixture
def marbles():
    with Marbles() as marbles:
        yield marbles


@pytest.fixture
def warned():
    """What the log warns of."""
    lines = []
    number = logger.add(lines.append, level="WARNING", format="{message}")
    yield lines
    logger.remove(number)
    logger.disable("rxflow")


# -- in virtual time -------------------------------------------------------------------------------


def test_a_commit_that_lasts_is_said_with_its_file_and_no_buffer_is_blamed(marbles, warned):
    broker = marbles.mqtt("a q1 : -ab")
    sink = marbles.sink(disk="-========")
    marbles.run(run_async(broker.from_mqtt("a"), sink, seconds=12))
    (line,) = warned
    assert line.startswith(f"{sink.path}: a commit of 1 row has lasted 3 s: the disk does not")
    assert sink.stored == ["a", "b"]


def test_while_it_lasts_it_is_said_every_half_minute(marbles, warned):
    sink = marbles.sink(disk="-" + "=" * 100)
    marbles.run(run_async(marbles.hot("-a"), sink, seconds=110))
    assert [line.split(" has lasted ")[1][:4] for line in warned] == [
        "3 s:",
        "30 s",
        "60 s",
        "90 s",
    ]


def test_a_dead_disk_fails_its_sink_after_five_minutes_and_nothing_is_acknowledged(marbles):
    broker = marbles.mqtt("a q1 : -a--b")
    sink = marbles.sink(disk="--#")
    with pytest.raises(SinkError, match=r"sink.json: a commit of 1 row has lasted 300 s"):
        marbles.run(run_async(broker.from_mqtt("a"), sink))
    assert int(marbles.scheduler.clock) == 304
    assert broker.acknowledged("a") == "-^"


def test_told_to_end_a_run_waits_half_a_minute_for_a_dead_disk(marbles):
    broker = marbles.mqtt("a q1 : -a--b")
    sink = marbles.sink(disk="--#")
    with pytest.raises(SinkError, match=r"sink.json: a commit of 1 row has lasted 30 s"):
        marbles.run(run_async(broker.from_mqtt("a"), sink, seconds=6))
    assert int(marbles.scheduler.clock) == 34
    assert broker.acknowledged("a") == "-^"


def test_at_its_end_a_sink_waits_half_a_minute_for_a_dead_disk(marbles):
    sink = marbles.sink(disk="-#")
    with pytest.raises(SinkError, match="has lasted 30 s"):
        marbles.run(run_async(marbles.hot("--a|"), sink, log=False))
    assert sink.is_closed


def test_a_sink_without_room_waits_half_a_minute_for_a_dead_disk(marbles):
    sink = marbles.sink(disk="-#")
    sink.max_queued = 1
    with pytest.raises(SinkError, match=r"has lasted 30 s.*check the disk"):
        marbles.run(run_async(marbles.hot("--abcdef"), sink, log=False))


def test_a_file_that_cannot_be_opened_for_half_a_minute_is_a_sink_error(marbles):
    sink = marbles.sink(disk="#")
    with pytest.raises(SinkError, match=r"sink.json: opening it has lasted 30 s"):
        marbles.run(run_async(reactivex.of(1), sink, log=False))


def test_without_a_run_a_dead_disk_is_warned_of(marbles):
    sink = marbles.sink(disk="-#")

    async def main():
        sink.open()
        await asyncio.sleep(1)
        sink.on_next(1)
        await asyncio.sleep(301)

    with pytest.warns(RxflowWarning) as told:
        marbles.run(main())
    texts = [str(each.message).split(" has lasted ")[1] for each in told]
    assert [text.split(" s")[0] for text in texts] == ["3", *map(str, range(30, 301, 30))]
    assert sink.failure is not None


def test_a_disk_that_comes_back_is_as_good_as_new(marbles):
    broker = marbles.mqtt("a q1 : -a" + "-" * 200 + "b")
    sink = marbles.sink(disk="-" + "=" * 150)
    marbles.run(run_async(broker.from_mqtt("a"), sink, seconds=210, log=False))
    assert sink.stored == ["a", "b"]


# -- in earnest ------------------------------------------------------------------------------------


class HangingDisk:
    """Holds each `fdatasync` in a system call, from `hang` to `go_on`."""

    def __init__(self, monkeypatch):
        self.is_in = threading.Event()
        self._real = os.fdatasync
        self._out, self._in = os.pipe()
        self._monkeypatch = monkeypatch

    def hang(self):
        self._monkeypatch.setattr(os, "fdatasync", self._hold)

    def _hold(self, fd):
        self.is_in.set()
        os.read(self._out, 1)
        self._real(fd)

    def go_on(self):
        os.write(self._in, b"-" * 100)

    def close(self):
        os.close(self._out)
        os.close(self._in)


@pytest.fixture
def disk(monkeypatch):
    disk = HangingDisk(monkeypatch)
    yield disk
    disk.go_on()
    disk.close()


@pytest.fixture
def impatient(monkeypatch):
    """Seconds are hundredths."""
    for name, seconds in (("LASTS", 0.03), ("PATIENCE", 0.3), ("HANGS", 3.0)):
        for module in (group_commit, sink):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, seconds)


async def has_let_go(sink):
    while sink._store.is_open:  # noqa: ASYNC110 (nobody is told of it)
        await asyncio.sleep(0)


def test_the_loop_goes_on_while_a_commit_of_one_row_hangs(tmp_path, disk):
    async def main():
        sink.on_next(1)
        await asyncio.sleep(0.01)
        sink._group._took = 0.0  # as on a quick disk, where the loop waits for it
        disk.hang()
        sink.on_next(2)
        await asyncio.to_thread(disk.is_in.wait)
        turns.append("turned")
        disk.go_on()
        sink.on_completed()
        await sink.wait_closed()

    turns = []
    sink = JsonSink(tmp_path / "rows.json")
    asyncio.run(main())
    assert turns == ["turned"]
    assert json.loads(sink.path.read_bytes()) == [1, 2]


def test_a_sink_that_has_given_up_lets_go_of_its_file_when_the_disk_answers(
    tmp_path, disk, impatient
):
    async def main():
        sink.open()
        disk.hang()
        sink.on_next(1)
        await asyncio.to_thread(disk.is_in.wait)
        with pytest.raises(SinkError, match="has lasted"):
            sink.close()
        assert sink.is_closed
        with pytest.raises(SinkError, match="locked"):  # its rows may yet be written
            JsonSink(sink.path).open()
        disk.go_on()
        await has_let_go(sink)

    sink = JsonSink(tmp_path / "rows.json")
    asyncio.run(main())
    with JsonSink(sink.path) as again:
        assert again.rows == 0
    assert json.loads(sink.path.read_bytes()) == [1]


def test_nothing_that_a_sink_gave_up_is_acknowledged_when_the_disk_answers(
    tmp_path, disk, impatient
):
    async def main():
        sink.open()
        disk.hang()
        sink.on_next(Message("a", 1, 1, delivery=Delivery(ledger, 1)))
        await asyncio.to_thread(disk.is_in.wait)
        with pytest.raises(SinkError, match="has lasted"):
            sink.close()
        disk.go_on()
        await has_let_go(sink)
        ledger.settle()

    acknowledged, failed = [], []
    ledger = Linked(acknowledged.extend, failed=failed.append)
    sink = JsonSink(tmp_path / "rows.json")
    asyncio.run(main())
    assert acknowledged == []
    assert failed == [sink.failure]


def test_an_item_that_fails_does_not_wait_for_a_commit_that_hangs(tmp_path, disk):
    async def main():
        sink.open()
        disk.hang()
        sink.on_next(1)
        await asyncio.to_thread(disk.is_in.wait)
        with pytest.raises(SinkError, match="can't be stored"):
            sink.on_next(2j)
        assert not sink.is_closed
        disk.go_on()
        with pytest.raises(SinkError, match="can't be stored"):
            await sink.wait_closed()

    sink = JsonSink(tmp_path / "rows.json")
    asyncio.run(main())
    assert sink.is_closed
    assert json.loads(sink.path.read_bytes()) == [1]


def test_a_journal_that_cannot_be_written_is_not_waited_for_without_a_bound(
    tmp_path, disk, impatient
):
    async def main():
        with JsonSink(tmp_path / "rows.json") as sink:
            disk.hang()
            with pytest.raises(SinkError, match="writing its receipts has lasted"):
                sink.journal.attach("session", Ledger())
            disk.go_on()

    asyncio.run(main())


# -- a process of its own --------------------------------------------------------------------------

PIPELINE = """
import os, sys
from rxflow import JsonSink, from_mqtt, run
from rxflow.process import disk
from rxflow.sinks import group_commit
from rxflow.sinks import sink
from rxflow.log import log_to_terminal
for module in (group_commit, sink):
    module.PATIENCE = 1.0
group_commit.LASTS = 0.2
url, path, pipe = sys.argv[1:]
real, seen = os.fdatasync, 0
def sync(fd):
    global seen
    seen += 1
    if pipe and seen > 3:
        print("hanging", flush=True)
        with open(pipe) as never:
            never.read()
    real(fd)
os.fdatasync = sync
log_to_terminal()
source = from_mqtt(url, ("a", 1), client_id="one", keep_alive=2, drain_timeout=0.5)
run(source, JsonSink(path), drain_timeout=0.5)
"""


@contextmanager
def pipeline(url, path, pipe=""):
    code = [sys.executable, "-c", textwrap.dedent(PIPELINE), url, str(path), str(pipe)]
    process = subprocess.Popen(code, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=60)


def feeding(hangs, told):
    """Send messages one by one until the disk hangs; then see the connection kept, and closed."""

    def script(conversation: Conversation) -> None:
        conversation.accept()
        conversation.accept_subscription()
        for number in range(1, 9):
            conversation.send(publish("a", b"%d" % number, 1, number))
            if hangs.wait(0.2):
                break
        told.extend(conversation.read_to_end())

    return script


def test_a_process_whose_disk_hangs_ends_when_it_is_told(tmp_path):
    never, hangs, kinds = tmp_path / "never", threading.Event(), []
    os.mkfifo(never)
    with (
        ScriptedBroker(feeding(hangs, kinds)) as broker,
        pipeline(broker.url, tmp_path / "rows.json", never) as process,
    ):
        assert process.stdout.readline() == "hanging\n"
        hangs.set()
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert kinds[-1] == DISCONNECT
    assert "rows.json: a commit of 1 row has lasted" in said
    assert "Buffers" not in said
    assert "a function" not in said


def until(process, text):
    """Read what it says up to this."""
    assert any(text in line for line in process.stderr)


def state_of(process):
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]


@contextmanager
def frozen(folder):
    """Nothing can be written there meanwhile."""
    call("fsfreeze", "-f", str(folder))
    # Whatever becomes of this process, the file system does not stay frozen.
    thaw = ["sh", "-c", f"sleep 100; fsfreeze -u {folder}"]
    with subprocess.Popen(thaw, start_new_session=True, stdout=subprocess.DEVNULL) as later:
        try:
            yield
        finally:
            os.killpg(later.pid, signal.SIGKILL)
            call("fsfreeze", "-u", str(folder))


def test_on_a_frozen_file_system_a_run_ends_when_it_is_told_and_its_process_with_the_frost(
    tmp_path,
):
    kinds, hangs = [], threading.Event()
    with mounted("ext4") as disk:
        path = disk.there / "rows.json"
        with (
            ScriptedBroker(feeding(hangs, kinds)) as broker,
            pipeline(broker.url, path) as process,
        ):
            while not path.exists() or path.stat().st_size < 6:
                time.sleep(0.01)
            with frozen(disk.there):
                until(process, "has lasted")
                hangs.set()
                process.send_signal(signal.SIGTERM)
                until(process, "failed pipeline: ")
                broker.join()
                assert kinds[-1] == DISCONNECT
                while state_of(process) != "Z":  # the main thread, and all others but one
                    time.sleep(0.01)
            # A thread in the middle of a write lives as long as the file system is frozen, whoever
            # kills it, and so does its process.
            assert process.wait(60) == 1
