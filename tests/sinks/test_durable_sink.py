"""`DurableSink` with stores, functions and coroutines of a user's."""

import asyncio
import functools
import threading
import time

import pytest
import reactivex

from rxflow import (
    ConfigError,
    DurableSink,
    JsonLinesSink,
    Message,
    SinkError,
    read_rows,
    run,
    run_async,
)
from rxflow import operators as ops
from rxflow.abc import ExactlyOnceStore, Store


class Rows:
    """A store in memory."""

    def __init__(self, *, fails=None):
        self.fails = fails or {}
        self.calls = []
        self.threads = set()

    def _call(self, name, *rows):
        self.threads.add(threading.get_ident())
        self.calls.append((name, *rows))
        if error := self.fails.get(name):
            raise error

    def open(self):
        self._call("open")

    def commit(self, rows):
        self._call("commit", *rows)

    def close(self):
        self._call("close")

    @property
    def rows(self):
        return [row for name, *rows in self.calls if name == "commit" for row in rows]


def test_a_store_gets_payloads_on_a_worker_thread():
    store = Rows()
    report = run(reactivex.of(Message("a", 1), 2, [3]), DurableSink(store), log=False)
    assert store.rows == [1, 2, [3]]
    assert [store.calls[0], store.calls[-1]] == [("open",), ("close",)]
    assert threading.get_ident() not in store.threads
    assert report.stored == 3


def test_without_a_loop_the_row_is_durable_when_on_next_returns():
    store = Rows()
    with DurableSink(store) as sink:
        sink.on_next(1)
        assert store.rows == [1]
    assert store.threads == {threading.get_ident()}


def test_encode_makes_rows_of_messages():
    store = Rows()
    sink = DurableSink(store, encode=lambda m: (m.topic, m.payload))
    run(reactivex.of(Message("a", 1), 2), sink, log=False)
    assert store.rows == [("a", 1), ("", 2)]


def test_a_function_gets_batches_of_messages_without_delivery(marbles):
    seen = []
    sink = DurableSink(seen.append)
    broker = marbles.mqtt("a q1 : -a-(bc)-")
    marbles.run(run_async(broker.from_mqtt("a"), sink, seconds=9, log=False))
    assert [[m.payload for m in batch] for batch in seen] == [[b'"a"'], [b'"b"', b'"c"']]
    assert all(m.topic == "a" and m.delivery is None for batch in seen for m in batch)
    assert broker.acknowledged("a") == "-^-^"


async def coroutine(batch):
    await asyncio.sleep(0)


class Called:
    async def __call__(self, batch):
        await coroutine(batch)


def test_a_coroutine_runs_on_the_loop_of_the_run_and_is_awaited(marbles):
    seen = []

    async def write(batch):
        loops.add(asyncio.get_running_loop())
        await asyncio.sleep(3)
        seen.extend(m.payload for m in batch)

    loops = set()
    broker = marbles.mqtt("a q1 : -abc------")
    sink = DurableSink(write)
    marbles.run(run_async(broker.from_mqtt("a"), sink, seconds=12, log=False))
    assert seen == [b'"a"', b'"b"', b'"c"']
    assert loops == {marbles.loop}
    assert broker.acknowledged("a") == "----^--^"
    assert sink.commits == 2


@pytest.mark.parametrize("write", [coroutine, functools.partial(coroutine), Called()])
def test_each_kind_of_coroutine_function_is_awaited(write):
    report = run(reactivex.of(1, 2), DurableSink(write), log=False)
    assert report.stored == 2


def test_without_a_loop_a_coroutine_runs_on_one_of_its_own():
    async def write(batch):
        loops.append(asyncio.get_running_loop())
        seen.extend(m.payload for m in batch)

    seen, loops = [], []
    with DurableSink(write) as sink:
        sink.on_next(1)
        assert seen == [1]
        sink.on_next(2)
    assert seen == [1, 2]
    assert loops[0] is loops[1]
    assert loops[0].is_closed()


def test_a_function_that_returns_an_awaitable_stores_nothing():
    with pytest.raises(SinkError, match="make it an `async def` function") as caught:
        run(reactivex.of(1), DurableSink(lambda batch: coroutine(batch), name="mine"), log=False)  # noqa: PLW0108
    assert str(caught.value).startswith("mine: ")


def generator(batch):
    yield batch


async def async_generator(batch):
    yield batch


@pytest.mark.parametrize("write", [generator, async_generator])
def test_a_generator_function_which_never_runs_stores_nothing(write):
    with pytest.raises(SinkError, match="generator, which has not run"):
        run(reactivex.of(1), DurableSink(write), log=False)


@pytest.mark.parametrize("is_async", [False, True])
def test_what_raises_acknowledges_nothing_of_its_batch_and_says_why(marbles, is_async):
    def write(batch):
        if any(m.payload == b'"c"' for m in batch):
            raise KeyError("c")

    async def write_later(batch):
        await asyncio.sleep(0)
        write(batch)

    broker = marbles.mqtt("a q1 : -a-(bc)-d")
    sink = DurableSink(write_later if is_async else write, name="mine")
    with pytest.raises(
        SinkError, match=r"mine: a commit of 2 rows failed: KeyError: 'c'"
    ) as caught:
        marbles.run(run_async(broker.from_mqtt("a"), sink, seconds=9, log=False))
    assert isinstance(caught.value.__cause__, KeyError)
    assert broker.acknowledged("a") == "-^"


def test_a_run_that_is_cancelled_twice_acknowledges_nothing_of_a_coroutine_under_way(marbles):
    async def write(batch):
        await asyncio.sleep(99)

    async def main():
        running = asyncio.ensure_future(run_async(source, DurableSink(write), log=False))
        await asyncio.sleep(2)
        running.cancel()
        await asyncio.sleep(1)
        running.cancel()
        await running

    broker = marbles.mqtt("a q1 : -a---------")
    source = broker.from_mqtt("a")
    with pytest.raises(asyncio.CancelledError):
        marbles.run(main())
    assert broker.acknowledged("a") == ""


def test_a_coroutine_that_hangs_is_named_and_given_up_after_five_minutes(marbles):
    cancelled = []

    async def write(batch):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(marbles.loop.time())
            raise

    with pytest.raises(SinkError, match=r"write: a commit of 1 row has lasted 300 s"):
        marbles.run(run_async(marbles.hot("-a"), DurableSink(write, name="write"), log=False))
    assert cancelled == [301]


def test_too_many_rows_for_a_coroutine_are_an_error_and_not_a_hang(monkeypatch):
    monkeypatch.setattr("rxflow.sinks.group_commit._MOST_WAITING", 50)

    async def write(batch):
        await asyncio.Event().wait()

    async def main():
        sink = DurableSink(write, name="mine")
        sink.max_queued = 10
        with pytest.raises(
            SinkError, match="mine: 50 rows queued; the disk accepts them too slowly"
        ):
            for n in range(100):
                sink.on_next(n)

    asyncio.run(main())


def test_close_on_the_loop_of_a_coroutine_says_what_to_do():
    async def main():
        sink = DurableSink(coroutine, name="mine")
        sink.on_next(1)
        with pytest.raises(SinkError, match=r"await sink.wait_closed\(\)"):
            sink.close()
        sink.on_completed()
        await sink.wait_closed()
        assert sink.rows == 1

    asyncio.run(main())


def test_what_encode_refuses_is_rejected(tmp_path):
    def encode(message):
        return {"n": int(message.payload)}

    store, bad = Rows(), JsonLinesSink(tmp_path / "bad.jsonl")
    sink = DurableSink(store, encode=encode, rejected=bad)
    report = run(reactivex.of(1, "x", 3), sink, log=False)
    assert store.rows == [{"n": 1}, {"n": 3}]
    (row,) = read_rows(bad.path)
    assert row["payload"] == "x"
    assert (report.stored, report.rejected) == (2, 1)


def test_without_rejected_it_fails_the_sink_with_what_to_do():
    sink = DurableSink(Rows(), name="mine", encode=lambda m: int(m.payload))
    with pytest.raises(
        SinkError, match=r"mine: a payload of type str of topic 'a' can't be stored: .*encode="
    ) as e:
        run(reactivex.of(Message("a", "x")), sink, log=False)
    assert isinstance(e.value.__cause__, ValueError)


@pytest.mark.parametrize("name", ["open", "commit", "close"])
def test_each_error_of_a_store_is_a_sink_error_with_its_cause(name):
    store = Rows(fails={name: ConnectionError("gone")})
    with pytest.raises(SinkError, match=r"^mine: .*gone") as caught:
        run(reactivex.of(1), DurableSink(store, name="mine"), log=False)
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert (store.calls[-1] == ("close",)) is (name != "open")


def test_a_batch_is_stored_as_its_messages():
    store = Rows()
    source = reactivex.of(*[Message("a", n) for n in range(4)]).pipe(ops.buffer_with_count(2))
    run(source, DurableSink(store), log=False)
    assert store.rows == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("store", "what"), [(None, "None"), (3, "3"), (Rows, "make one"), ("x", "'x'")]
)
def test_what_is_no_store_is_refused_while_composing(store, what):
    with pytest.raises(ConfigError, match=f"store must be a store, .*{what}"):
        DurableSink(store)


def test_a_sink_is_named_after_its_store_or_function():
    assert "Rows" in str(failure_of(DurableSink(Rows(fails={"commit": OSError("x")}))))

    def fails(batch):
        raise OSError("x")

    assert "fails" in str(failure_of(DurableSink(fails)))


def failure_of(sink):
    with pytest.raises(SinkError) as caught:
        run(reactivex.of(1), sink, log=False)
    return caught.value


def test_the_protocols_tell_stores_from_functions():
    assert isinstance(Rows(), Store)
    assert not isinstance(Rows(), ExactlyOnceStore)
    assert not isinstance(print, Store)


def test_a_slow_store_is_not_called_twice_at_once():
    inside = threading.Lock()

    def write(batch):
        assert inside.acquire(blocking=False)
        time.sleep(0.001)
        inside.release()

    async def main():
        sink = DurableSink(write)
        for n in range(50):
            sink.on_next(n)
            await asyncio.sleep(0)
        sink.on_completed()
        await sink.wait_closed()
        return sink.rows

    assert asyncio.run(main()) == 50
