import asyncio
import errno
import json
import os
import threading

import pytest
import reactivex
from ledgers import Linked
from memory import grown_by
from reactivex import operators as rx

from rxflow.delivery import Delivery, Ledger
from rxflow.errors import ConfigError, RxflowWarning, SinkError
from rxflow.log import logger
from rxflow.message import Batch, Message
from rxflow.sinks import JsonLinesSink, JsonSink, read_rows


class Source:
    """A ledger, and what a connection would see of it."""

    def __init__(self):
        self.acked = []
        self.failed = []
        self.woken = 0
        self.ledger = Linked(self.acked.extend, self.wake, self.failed.append)
        self.next_id = 0

    def wake(self):
        self.woken += 1
        self.ledger.settle()

    def message(self, payload, topic="a/b"):
        self.next_id += 1
        return Message(topic, payload, 1, delivery=Delivery(self.ledger, self.next_id))


@pytest.fixture
def source():
    return Source()


@pytest.fixture
def no_sync(monkeypatch):
    """From now on every sync fails; call it to begin."""

    def sync(fd):
        raise OSError(errno.EIO, "Input/output error")

    return lambda: monkeypatch.setattr(os, "fdatasync", sync)


def rows_of(path):
    return json.loads(path.read_bytes())


def in_the_last_pass_of_a_loop(act):
    """Call it on a loop that then ends, without another pass."""
    loop = asyncio.new_event_loop()
    loop.call_soon(lambda: (act(), loop.stop()))
    loop.run_forever()
    loop.close()


# -- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize("sink", [JsonSink, JsonLinesSink])
@pytest.mark.parametrize(
    ("path", "settings", "named"),
    [
        ("", {}, "path must be"),
        (".", {}, "path must be"),
        ("..", {}, "path must be"),
        ("/", {}, "path must be"),
        ("a\0b", {}, "path must be"),
        (b"a", {}, "path must be"),
        (7, {}, "path must be.*7"),
        ("a", {"existing": "overwrite"}, "existing must be.*'overwrite'"),
        ("a", {"mode": 0o1777}, "mode must be.*1023"),
        ("a", {"mode": "600"}, "mode must be.*'600'"),
        ("a", {"mode": True}, "mode must be.*True"),
        ("a", {"rejected": "b"}, "rejected must be.*'b'"),
    ],
)
def test_a_wrong_setting_is_a_config_error_that_names_it(sink, path, settings, named):
    with pytest.raises(ConfigError, match=named):
        sink(path, **settings)


def test_windows_is_a_config_error_that_names_wsl(monkeypatch):
    monkeypatch.setattr("sys.platform", "win32")
    with pytest.raises(ConfigError, match="WSL"):
        JsonSink("a")


def test_making_a_sink_does_no_io(tmp_path):
    JsonSink(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())


# -- without a loop --------------------------------------------------------------------------------


def test_plain_values_are_rows_and_on_completed_returns_when_they_are_durable(path):
    sink = JsonSink(path)
    reactivex.of({"a": 1}, [1, 2], "x", None, b'{"raw": 1.10}', []).subscribe(sink)
    assert path.read_text() == '[\n{"a":1}\n,[1,2]\n,"x"\n,null\n,{"raw": 1.10}\n,[]\n]\n'
    assert sink.is_closed
    assert (sink.rows, sink.commits, sink.path) == (6, 6, path)
    assert sink.bytes == path.stat().st_size - len("[\n]\n")


def test_json_lines_are_lines(path):
    reactivex.of({"a": 1}, b'{"b":\n2}').subscribe(JsonLinesSink(path))
    assert path.read_text() == '{"a":1}\n{"b": 2}\n'


@pytest.mark.parametrize(("sink", "content"), [(JsonSink, b"[\n]\n"), (JsonLinesSink, b"")])
def test_an_empty_stream_makes_a_file_without_rows(path, sink, content):
    reactivex.empty().subscribe(sink(path))
    assert path.read_bytes() == content


def test_on_next_returns_when_its_row_is_durable_and_marked(path, source):
    sink = JsonSink(path)
    for n in range(3):
        sink.on_next(source.message({"n": n}))
        assert rows_of(path)[-1] == {"n": n}
        source.ledger.settle()
        assert source.acked == list(range(1, n + 2))
    sink.close()
    assert source.ledger.stored == 3


def test_undecoded_json_is_stored_digit_for_digit(path, source):
    sink = JsonSink(path)
    sink.on_next(source.message(b'{"n": 123456789012345678901234567890, "f": 1.10}'))
    sink.close()
    assert b'{"n": 123456789012345678901234567890, "f": 1.10}' in path.read_bytes()


def test_a_batch_is_stored_as_its_messages_in_one_commit(path, source):
    sink = JsonSink(path)
    sink.on_next(Batch([source.message(1), source.message(b"2")]))
    sink.on_next([source.message(3), Message("b", 4)])
    sink.on_next(Batch())
    sink.close()
    assert rows_of(path) == [1, 2, 3, 4]
    assert sink.commits == 2
    source.ledger.settle()
    assert source.acked == [1, 2, 3]


def test_a_message_whose_payload_is_a_list_is_one_row(path, source):
    sink = JsonSink(path)
    sink.on_next(source.message([1, 2]))
    sink.close()
    assert rows_of(path) == [[1, 2]]


def test_a_bad_path_is_a_sink_error_when_opened(tmp_path):
    sink = JsonSink(tmp_path)
    with pytest.raises(SinkError, match="folder"):
        sink.open()
    sink.close()


def test_a_bad_path_at_the_first_item_fails_its_delivery(tmp_path, source):
    sink = JsonSink(tmp_path)
    with pytest.raises(SinkError, match="folder") as caught:
        sink.on_next(source.message(1))
    source.ledger.settle()
    assert source.acked == []
    assert source.failed == [caught.value] == [sink.failure]


def test_a_with_block_opens_and_closes(path):
    with JsonSink(path) as sink:
        assert path.exists()
        sink.on_next(1)
        sink.open()
    sink.close()
    assert rows_of(path) == [1]


def test_after_closing_an_item_is_refused_and_not_acknowledged(path, source):
    sink = JsonSink(path)
    sink.close()
    assert not path.exists()
    with pytest.raises(SinkError, match="closed"):
        sink.on_next(source.message(1))
    with pytest.raises(SinkError, match="closed"):
        sink.open()
    sink.on_completed()
    source.ledger.settle()
    assert source.acked == []


def test_what_a_crash_tore_is_kept_and_the_sink_goes_on(path):
    path.write_bytes(b'[\n1\n,{"a')
    sink = JsonSink(path)
    reactivex.of(2).subscribe(sink)
    assert rows_of(path) == [1, 2]
    assert len(list(path.parent.glob("*.torn-*"))) == 1


# -- what JSON can't hold --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (1j, "of type complex of topic 'a/b'"),
        (b"{oops", "of type bytes of topic 'a/b'"),
        (b"NaN", "not JSON"),
    ],
)
def test_what_json_cannot_hold_fails_naming_type_and_topic(path, source, payload, said):
    sink = JsonSink(path)
    with pytest.raises(SinkError, match=said) as caught:
        sink.on_next(source.message(payload))
    assert caught.value.__cause__ is not None
    assert str(path) in str(caught.value)
    assert source.failed == [sink.failure]


def test_a_plain_value_that_json_cannot_hold_fails_naming_its_type(path):
    with pytest.raises(SinkError, match="of type complex can't be stored"):
        reactivex.of(1j).subscribe(JsonSink(path))


def test_after_a_failure_nothing_is_accepted_and_nothing_acknowledged(path, source):
    sink = JsonSink(path)
    told = []
    sink.on_failure = told.append
    sink.on_next(source.message(1))
    with pytest.raises(SinkError, match="can't be stored"):
        sink.on_next(source.message(2j))
    with pytest.raises(SinkError, match="can't be stored"):
        sink.on_next(source.message(3))
    sink.on_completed()
    sink.close()
    source.ledger.settle()
    assert source.acked == [1]
    assert rows_of(path) == [1]
    assert told == [sink.failure]


def test_one_bad_message_fails_its_whole_batch(path, source):
    sink = JsonSink(path)
    with pytest.raises(SinkError):
        sink.on_next(Batch([source.message(1), source.message(2j)]))
    source.ledger.settle()
    assert source.acked == []
    assert len(source.failed) == 1


def test_with_rejected_a_bad_message_is_set_aside_and_the_stream_goes_on(tmp_path, source):
    aside = JsonLinesSink(tmp_path / "rejected")
    sink = JsonSink(tmp_path / "rows", rejected=aside)
    for payload in (1, 2j, b"{oops", 3):
        sink.on_next(source.message(payload))
    sink.on_next(Batch([source.message(4), source.message(5j), source.message(6)]))
    sink.on_next(7j)
    sink.close()
    aside.close()
    source.ledger.settle()
    assert rows_of(sink.path) == [1, 3, 4, 6]
    records = [json.loads(line) for line in aside.path.read_bytes().splitlines()]
    assert [r["payload"] for r in records] == ["2j", "{oops", "5j", "7j"]
    assert [r["topic"] for r in records] == ["a/b"] * 3 + [""]
    assert all("complex" in r["error"] or "JSON" in r["error"] for r in records)
    assert source.acked == list(range(1, 8))


@pytest.mark.parametrize("sink", [JsonSink, JsonLinesSink])
def test_default_says_what_is_stored_of_what_json_has_no_form_for(path, sink, source):
    def default(value):
        return [value.real, value.imag]

    with sink(path, default=default) as made:
        made.on_next(source.message({"z": 1j}))
        made.on_next(source.message(2j))
        made.on_next(Batch([source.message(3j)]))
        made.on_next(4j)
    assert list(read_rows(path)) == [{"z": [0, 1]}, [0, 2], [0, 3], [0, 4]]


def test_whatever_default_raises_the_item_is_set_aside(tmp_path, source):
    aside = JsonLinesSink(tmp_path / "rejected")
    with aside, JsonSink(tmp_path / "rows", rejected=aside, default=lambda z: z.no_such) as sink:
        sink.on_next(source.message(1j))
    (record,) = read_rows(aside.path)
    assert "no_such" in record["error"]


def test_when_setting_aside_fails_the_sink_fails(tmp_path, source):
    sink = JsonSink(tmp_path / "rows", rejected=JsonLinesSink(tmp_path))
    with pytest.raises(SinkError, match="rejected= failed too") as caught:
        sink.on_next(source.message(1j))
    assert isinstance(caught.value.__cause__, SinkError)
    source.ledger.settle()
    assert source.acked == []
    assert source.failed


# -- the stream fails ------------------------------------------------------------------------------


def test_an_error_is_told_after_what_came_before_is_committed(path):
    sink = JsonSink(path)
    stream = reactivex.of(1, 2, 0, 4).pipe(rx.map(lambda n: 4 // n))
    with pytest.warns(RxflowWarning, match="rows.json: the stream failed: ZeroDivisionError"):
        stream.subscribe(sink)  # reactivex swallows what is raised below `map`
    assert rows_of(path) == [4, 2]
    assert sink.is_closed
    assert isinstance(sink.error, ZeroDivisionError)


def test_an_error_is_raised_where_reactivex_lets_it_through(path):
    with pytest.raises(ValueError, match="boom"), pytest.warns(RxflowWarning, match="boom"):
        reactivex.throw(ValueError("boom")).subscribe(JsonSink(path))


def test_a_failing_sink_raises_through_operators(path):
    with pytest.raises(SinkError, match="of type complex can't be stored"):
        reactivex.of(1).pipe(rx.map(lambda n: n * 1j)).subscribe(JsonSink(path))


def test_an_error_before_the_first_item_makes_no_file(path):
    with pytest.raises(ValueError, match="first"), pytest.warns(RxflowWarning, match="first"):
        JsonSink(path).on_error(ValueError("first"))
    assert not path.exists()


def test_of_a_program_an_error_is_only_kept(path):
    sink = JsonSink(path)
    sink.is_program = True
    error = ValueError("no")
    sink.on_next(1)
    sink.on_error(error)
    sink.on_error(ValueError("later"))
    assert sink.error is error
    assert rows_of(path) == [1]


def test_a_failing_last_commit_is_raised_with_a_note_of_the_streams_error(path, no_sync):
    def last():
        sink.on_next(1)
        no_sync()

    sink = JsonSink(path)
    in_the_last_pass_of_a_loop(last)
    with pytest.raises(SinkError, match="sync") as caught:
        sink.on_error(ValueError("boom"))
    assert "boom" in caught.value.__notes__[0]


def test_a_ledger_that_answers_with_the_failure_is_not_answered_again(path, no_sync):
    sink = JsonSink(path)
    ledger = Linked(print, failed=sink.on_error)
    sink.open()
    no_sync()
    with pytest.raises(SinkError, match="sync"):
        sink.on_next(Message("a", 1, 1, delivery=Delivery(ledger, 1)))
    assert sink.is_closed


# -- on a loop -------------------------------------------------------------------------------------


def test_what_arrives_in_one_pass_is_one_commit(path, source):
    async def main():
        for n in range(100):
            sink.on_next(source.message(n))
        assert sink.commits == 0
        sink.on_completed()
        await sink.wait_closed()

    sink = JsonSink(path)
    asyncio.run(main())
    assert rows_of(path) == list(range(100))
    assert (sink.commits, source.woken) == (1, 1)
    assert source.acked == list(range(1, 101))


def test_a_delivery_is_stored_only_after_the_sync(path, source, monkeypatch):
    real, gate, entered = os.fdatasync, threading.Event(), threading.Event()

    def sync(fd):
        entered.set()
        gate.wait()
        real(fd)

    async def main():
        sink.open()
        monkeypatch.setattr(os, "fdatasync", sync)
        sink.on_next(source.message(1))
        await asyncio.to_thread(entered.wait)
        source.ledger.settle()
        assert (source.acked, sink.rows) == ([], 0)
        for n in (2, 3, 4):
            sink.on_next(source.message(n))
        gate.set()
        sink.on_completed()
        await sink.wait_closed()

    sink = JsonSink(path)
    asyncio.run(main())
    assert source.acked == [1, 2, 3, 4]
    assert (sink.commits, source.woken) == (2, 2)


def test_tokens_are_let_go_of_before_their_ledger_is_woken(path):
    left = []

    def wake():
        left.append(list(ledger.newly_stored))

    async def main():
        sink.on_next(Message("a", 1, 1, delivery=Delivery(ledger, 1)))
        sink.on_next(Message("a", 2, 1, delivery=Delivery(ledger, 2)))
        sink.on_completed()
        await sink.wait_closed()

    sink = JsonSink(path)
    ledger = Ledger(wake)
    asyncio.run(main())
    assert [sorted(numbers) for numbers in left] == [[0, 1]]


def test_with_too_many_rows_waiting_on_next_commits_in_place(path, source):
    async def main():
        sink.max_queued = 10
        for n in range(25):
            sink.on_next(source.message(n))
        source.ledger.settle()
        assert (sink.rows, len(source.acked)) == (22, 22)
        sink.on_completed()
        await sink.wait_closed()

    sink = JsonSink(path)
    asyncio.run(main())
    assert rows_of(path) == list(range(25))
    assert source.acked == list(range(1, 26))


def test_committing_in_place_waits_for_the_commit_that_is_under_way(path, source, monkeypatch):
    real, entered = os.fdatasync, threading.Event()

    def sync(fd):
        entered.set()
        real(fd)

    async def main():
        sink.max_queued = 3
        sink.open()
        monkeypatch.setattr(os, "fdatasync", sync)
        sink.on_next(source.message(0))
        await asyncio.sleep(0)
        entered.wait()
        for n in range(1, 6):
            sink.on_next(source.message(n))
        assert sink.rows == 5
        await asyncio.sleep(0)
        sink.on_completed()
        await sink.wait_closed()

    sink = JsonSink(path)
    asyncio.run(main())
    assert rows_of(path) == [0, 1, 2, 3, 4, 5]
    assert source.acked == [1, 2, 3, 4, 5, 6]


def test_close_on_a_loop_commits_what_is_queued_before_it_returns(path, source):
    async def main():
        sink.on_next(source.message(1))
        await asyncio.sleep(0)
        sink.on_next(source.message(2))
        sink.close()
        sink.close()
        assert rows_of(path) == [1, 2]
        await sink.wait_closed()
        await asyncio.sleep(0)

    sink = JsonSink(path)
    asyncio.run(main())
    source.ledger.settle()
    assert source.acked == [1, 2]


def test_an_empty_stream_on_a_loop_makes_an_empty_array(path):
    async def main():
        sink.on_completed()
        await sink.wait_closed()

    sink = JsonSink(path)
    asyncio.run(main())
    assert rows_of(path) == []


def test_several_may_wait_and_one_may_give_up(path):
    async def main():
        waiting = [asyncio.ensure_future(sink.wait_closed()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        sink.on_completed()
        assert await asyncio.gather(*waiting[1:]) == [None, None]

    sink = JsonSink(path)
    asyncio.run(main())


def test_a_failed_commit_fails_every_delivery_held_and_closes(path, source, no_sync):
    async def main():
        told = []
        sink.on_failure = told.append
        sink.on_next(source.message(1))
        no_sync()
        sink.on_completed()
        with pytest.raises(SinkError, match="sync"):
            await sink.wait_closed()
        with pytest.raises(SinkError, match="sync"):
            sink.on_next(source.message(2))
        assert told == [sink.failure]

    sink = JsonSink(path)
    asyncio.run(main())
    source.ledger.settle()
    assert (source.acked, len(source.failed)) == ([], 1)
    assert (sink.rows, sink.is_closed) == (0, True)


def test_without_a_run_and_with_nobody_waiting_a_failed_commit_is_a_warning(path, no_sync):
    async def main():
        failed = asyncio.Event()
        sink.on_failure = lambda error: failed.set()
        sink.on_next(1)
        no_sync()
        await failed.wait()
        sink.on_error(sink.failure)

    sink = JsonSink(path)
    with pytest.warns(RxflowWarning, match="rows.json: cannot sync it"):
        asyncio.run(main())


def test_a_program_is_not_warned_of_a_failed_commit(path, no_sync):
    async def main():
        failed = asyncio.Event()
        sink.is_program = True
        sink.on_failure = lambda error: failed.set()
        sink.on_next(1)
        no_sync()
        await failed.wait()

    sink = JsonSink(path)
    asyncio.run(main())
    assert sink.failure is not None


def test_rows_that_wait_behind_a_failed_commit_are_given_up(path, source, no_sync):
    async def main():
        sink.is_program = True
        sink.open()
        no_sync()
        sink.on_next(source.message(1))
        await asyncio.sleep(0)
        sink.on_next(source.message(2))
        with pytest.raises(SinkError):
            sink.close()

    sink = JsonSink(path)
    asyncio.run(main())
    source.ledger.settle()
    assert source.acked == []


def test_an_error_on_a_loop_is_a_warning_after_the_last_commit_began(path):
    async def main():
        sink.on_next(1)
        with pytest.warns(RxflowWarning, match="rows.json: the stream failed: ValueError"):
            sink.on_error(ValueError("boom"))
        await sink.wait_closed()

    sink = JsonSink(path)
    asyncio.run(main())
    assert rows_of(path) == [1]


def test_an_unexpected_error_of_a_commit_is_a_sink_error(path, monkeypatch):
    async def main():
        sink.on_next(1)
        monkeypatch.setattr(os, "fdatasync", None)
        sink.on_completed()
        await sink.wait_closed()

    sink = JsonSink(path)
    with pytest.raises(SinkError, match="a commit of 1 row failed") as caught:
        asyncio.run(main())
    assert isinstance(caught.value.__cause__, TypeError)


def test_a_loop_that_ended_too_early_loses_nothing(path, source):
    async def second():
        sink.on_next(source.message(2))
        sink.on_next(source.message(3))
        sink.on_completed()
        await sink.wait_closed()

    sink = JsonSink(path)
    in_the_last_pass_of_a_loop(lambda: sink.on_next(source.message(1)))
    assert sink.rows == 0
    asyncio.run(second())
    assert rows_of(path) == [1, 2, 3]
    assert source.acked == [1, 2, 3]


def test_when_the_loop_closes_during_a_commit_the_worker_settles_it(path, source, monkeypatch):
    real, gate = os.fdatasync, threading.Event()

    def sync(fd):
        gate.wait()
        real(fd)

    async def main():
        sink.on_next(source.message(1))
        await asyncio.sleep(0)
        sink.on_next(source.message(2))
        sink.on_completed()

    sink = JsonSink(path)
    sink.open()
    monkeypatch.setattr(os, "fdatasync", sync)
    asyncio.run(main())
    (worker,) = [t for t in threading.enumerate() if t.name.startswith("rxflow-commit")]
    gate.set()
    worker.join()
    assert sink.is_closed
    assert rows_of(path) == [1, 2]
    assert source.acked == [1, 2]


def test_when_the_interpreter_shuts_down_rows_are_committed_in_place(path, source, monkeypatch):
    def submit(*arguments):
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    async def main():
        sink.on_next(source.message(1))
        sink.on_completed()
        await sink.wait_closed()

    sink = JsonSink(path)
    monkeypatch.setattr("concurrent.futures.ThreadPoolExecutor.submit", submit)
    asyncio.run(main())
    assert rows_of(path) == [1]
    assert source.acked == [1]


def test_a_failing_item_does_not_take_back_a_commit_under_way(path, source, monkeypatch):
    real, entered = os.fdatasync, threading.Event()

    async def main():
        sink.open()
        monkeypatch.setattr(os, "fdatasync", lambda fd: (entered.set(), real(fd)))
        sink.on_next(source.message(1))
        await asyncio.sleep(0)
        entered.wait()
        sink.on_next(source.message(2))
        with pytest.raises(SinkError, match="can't be stored"):
            sink.on_next(source.message(3j))
        with pytest.raises(SinkError, match="can't be stored"):
            await sink.wait_closed()
        await asyncio.sleep(0)

    sink = JsonSink(path)
    asyncio.run(main())
    source.ledger.settle()
    assert rows_of(path) == [1]
    assert source.acked == []


def test_an_interrupted_commit_in_place_is_a_failure(path, source, monkeypatch):
    def interrupt(fd):
        raise KeyboardInterrupt

    sink = JsonSink(path)
    sink.open()
    monkeypatch.setattr(os, "fdatasync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        sink.on_next(source.message(1))
    source.ledger.settle()
    assert source.acked == []
    assert "interrupted" in str(sink.failure)
    assert sink.is_closed


def test_each_commit_is_logged_with_rows_and_path(path):
    lines = []
    logger.enable("rxflow")
    sink = JsonSink(path.with_name("{rows}.json"))
    number = logger.add(lines.append, format="{message}")
    try:
        for n in range(12):
            sink.on_next(n)
        sink.close()
    finally:
        logger.remove(number)
        logger.disable("rxflow")
    shown = str(sink.path)
    assert lines[0] == f"committed 1 row to {shown}\n"
    assert len(lines) == 11
    assert lines[-1].startswith(f"committed 2 rows to {shown} in 2 commits")


def test_large_rows_that_wait_are_bounded_in_bytes(path):
    async def main():
        for n in range(70):
            sink.on_next(b'"%s"' % (b"%d" % (n % 10) * 1024 * 1024))
        assert sink.rows >= 31
        sink.on_completed()
        await sink.wait_closed()

    sink = JsonSink(path)
    asyncio.run(main())
    assert sink.rows == 70


def one_by_one(sink, rows):
    for row in rows:
        sink.on_next(row)


def as_a_batch(sink, rows):
    sink.on_next(Batch(Message("a", row) for row in rows))


@pytest.mark.parametrize("put", [one_by_one, as_a_batch])
def test_a_row_that_waits_takes_no_more_memory_than_it_needs(path, put):
    async def main():
        return grown_by(lambda: put(sink, rows))

    rows = [{"n": n} for n in range(20_000)]
    sink = JsonSink(path)
    sink.max_queued = 10**6
    grown = asyncio.run(main())
    sink.close()
    assert grown < 20_000 * 1024  # orjson's own take 4,112 bytes each


# -- QoS 2 -----------------------------------------------------------------------------------------


class Book:
    """A ledger whose only delivery is row 0 of each commit."""

    def __init__(self, packet_id=1):
        self.dropped = []
        self.packet_id = packet_id

    def receipts(self, tokens):
        return [(0, self.packet_id, 7)]

    def released(self, packet_ids):
        self.dropped.extend(packet_ids)


def test_what_is_stored_is_known_to_the_next_sink_until_it_is_released(path):
    async def store():
        with JsonSink(path) as sink:
            assert sink.journal.attach("s", Book()) == {}
            sink.on_next(1)

    async def release():
        book, is_free = Book(), threading.Event()
        with JsonSink(path) as sink:
            assert sink.journal.attach("s", book) == {1: 7}
            sink._group.behind(is_free.wait)
            sink.journal.release("s", [1])
            assert book.dropped == []
            is_free.set()
        assert book.dropped == [1]
        sink.journal.release("s", [1])

    asyncio.run(store())
    asyncio.run(release())
    with JsonSink(path) as sink:
        assert sink.journal.attach("s", Book()) == {}


def test_a_session_that_is_lost_leaves_nothing_in_the_journal(path):
    with JsonSink(path) as sink:
        sink.journal.attach("s", Book())
        sink.on_next(1)
        sink.journal.forget("s")
    with JsonSink(path) as sink:
        assert sink.journal.attach("s", Book()) == {}


def test_a_release_that_cannot_be_made_durable_fails_the_sink(path, no_sync):
    async def main():
        book = Book()
        sink.open()
        sink.journal.attach("s", book)
        sink.on_next(1)
        sink._group.flush()
        failed = asyncio.Event()
        sink.on_failure = lambda error: failed.set()
        no_sync()
        sink.journal.release("s", [1])
        sink.journal.release("s", [1])
        await failed.wait()
        assert book.dropped == []

    sink = JsonSink(path)
    asyncio.run(main())
    assert "inflight" in str(sink.failure)
    assert sink.is_closed


def test_that_rows_may_be_twice_in_a_moved_file_and_a_new_one_is_said_when_it_is_made(path):
    lines = []
    logger.enable("rxflow")
    number = logger.add(lines.append, level="WARNING", format="{message}")
    try:
        with JsonSink(path) as sink:
            sink.journal.attach("s", Book())
            sink.on_next(1)
        path.unlink()
        with JsonSink(path):
            pass
    finally:
        logger.remove(number)
        logger.disable("rxflow")
    (line,) = lines
    assert "1 QoS 2 message may stand in one that was here" in line
    assert "existing='rotate'" in line
