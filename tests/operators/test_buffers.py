from __future__ import annotations

from datetime import timedelta
from threading import Event

import pytest
import reactivex
from reactivex.subject import Subject
from streams import Source, on_completed, on_error, on_next, seen, seen_and_used, store

from rxflow import operators as ops
from rxflow.errors import ConfigError
from rxflow.message import Batch, Message

BUFFERS = {
    "count": lambda _, s: s.pipe(ops.buffer_with_count(2)),
    "skip": lambda _, s: s.pipe(ops.buffer_with_count(2, 3)),
    "time": lambda _, s: s.pipe(ops.buffer_with_time(10.0)),
    "either": lambda _, s: s.pipe(ops.buffer_with_time_or_count(10.0, 2)),
}
each_buffer = pytest.mark.parametrize("buffer", BUFFERS.values(), ids=BUFFERS)


@each_buffer
def test_of_a_source_that_never_emits_no_batch_comes(buffer):
    assert seen(buffer) == []


@each_buffer
def test_an_empty_source_gives_no_empty_batch(buffer):
    assert seen(buffer, on_completed(35)) == [(35, "completed", None)]


@each_buffer
def test_the_short_batch_is_emitted_on_completion(buffer):
    assert seen(buffer, on_next(1, "a"), on_completed(5)) == [
        (5, "next", ["a"]),
        (5, "completed", None),
    ]


@each_buffer
def test_an_error_drops_the_half_full_batch(buffer):
    events, let_go = seen_and_used(buffer, on_next(1, "a"), on_error(5, OSError("x")))
    assert events == [(5, "OSError", "x")]
    assert let_go == 5


@each_buffer
def test_disposed_early_the_source_is_let_go_and_nothing_comes(buffer):
    assert seen_and_used(buffer, on_next(1, "a"), on_next(9, "b"), disposed=5) == ([], 5)


def test_by_count_batches_are_full():
    events = [on_next(t, t) for t in (1, 2, 3, 4, 5)]
    assert seen(BUFFERS["count"], *events, on_completed(6)) == [
        (2, "next", [1, 2]),
        (4, "next", [3, 4]),
        (6, "next", [5]),
        (6, "completed", None),
    ]


def test_by_time_a_span_without_items_emits_nothing():
    assert seen(BUFFERS["time"], on_next(1, "a"), on_next(35, "b")) == [
        (10, "next", ["a"]),
        (40, "next", ["b"]),
    ]


def test_by_either_the_span_begins_again_with_each_batch():
    events = on_next(8, "a"), on_next(9, "b"), on_next(10, "c")
    assert seen(BUFFERS["either"], *events) == [(9, "next", ["a", "b"]), (19, "next", ["c"])]


def test_messages_come_as_a_batch_and_plain_values_as_a_list():
    message = Message("a", 1)
    [(_, _, of_messages)] = seen(BUFFERS["count"], on_next(1, message), on_next(2, message))
    [(_, _, mixed)] = seen(BUFFERS["count"], on_next(1, message), on_next(2, "plain"))
    assert (type(of_messages), type(mixed)) == (Batch, list)


def test_an_item_that_comes_while_a_batch_is_emitted_goes_into_the_next():
    source, got = Subject(), []

    def take(batch):
        got.append(batch)
        if len(got) == 1:
            source.on_next("again")

    source.pipe(ops.buffer_with_count(2)).subscribe(take)
    for item in "abc":
        source.on_next(item)
    assert got == [["a", "b"], ["again", "c"]]


def test_a_held_message_is_not_acknowledged_when_the_buffer_is_disposed():
    source = Source()
    subscription = source.pipe(ops.buffer_with_count(3)).subscribe(store)
    source.receive(1)
    subscription.dispose()
    assert source.settled() == []
    assert source.ledger.unsettled == 0


def test_a_held_message_is_not_acknowledged_when_an_error_drops_the_batch():
    source = Source()

    def fail_at_2(message):
        return 1 // (message.payload - 2)

    source.pipe(ops.map(fail_at_2), ops.buffer_with_count(3)).subscribe(store, lambda _: None)
    source.receive(1)
    source.receive(2)
    assert source.settled() == []


def test_a_batch_taken_from_the_middle_leaves_the_rest_unacknowledged():
    source = Source()
    source.pipe(ops.buffer_with_count(2), ops.take(1)).subscribe(store)
    for packet_id in (1, 2):
        source.receive(packet_id)
    assert source.settled() == [1, 2]
    assert source.disposals == 1


def test_without_a_scheduler_the_timer_ticks_on_a_thread_of_its_own():
    got, done = [], Event()
    source = Subject()
    subscription = source.pipe(ops.buffer_with_time_or_count(0.01, 100)).subscribe(
        lambda batch: (got.append(batch), done.set())
    )
    source.on_next("a")
    assert done.wait(5)
    subscription.dispose()
    assert got == [["a"]]


def test_a_synchronous_source_comes_through_whole():
    got = []
    reactivex.range(0, 5).pipe(ops.buffer_with_time_or_count(10.0, 2)).subscribe(got.append)
    assert got == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize("count", [0, -1, 1.5, None, True])
def test_a_count_below_one_is_refused_at_call_time(count):
    with pytest.raises(ConfigError, match="count="):
        ops.buffer_with_count(count)
    with pytest.raises(ConfigError, match="count="):
        ops.buffer_with_time_or_count(1.0, count)


@pytest.mark.parametrize("span", [0, -1, float("nan"), float("inf"), "1", None, 1e300])
def test_a_timespan_that_is_no_time_is_refused_at_call_time(span):
    with pytest.raises(ConfigError, match="timespan="):
        ops.buffer_with_time(span)
    with pytest.raises(ConfigError, match="timespan="):
        ops.buffer_with_time_or_count(span, 1)


def test_a_negative_timeshift_or_skip_is_refused_at_call_time():
    with pytest.raises(ConfigError, match="timeshift="):
        ops.buffer_with_time(1.0, -1.0)
    with pytest.raises(ConfigError, match="skip="):
        ops.buffer_with_count(1, 0)


def test_a_timedelta_is_a_time_too():
    assert seen(
        lambda _, s: s.pipe(ops.buffer_with_time(timedelta(seconds=10))), on_next(1, "a")
    ) == [(10, "next", ["a"])]
