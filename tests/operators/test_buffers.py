from __future__ import annotations

from datetime import timedelta
from threading import Event

import pytest
import reactivex
from reactivex import operators as rx
from reactivex.subject import Subject
from streams import Source, store, storing

from rxflow import operators as ops
from rxflow.errors import ConfigError
from rxflow.message import Batch, Message

BUFFERS = {
    "count": ops.buffer_with_count(2),
    "skip": ops.buffer_with_count(2, 3),
    "time": ops.buffer_with_time(4.0),
    "either": ops.buffer_with_time_or_count(4.0, 2),
}
each_buffer = pytest.mark.parametrize("buffer", BUFFERS.values(), ids=BUFFERS)


@each_buffer
def test_of_a_source_that_never_emits_no_batch_comes(marbles, buffer):
    source = marbles.hot("-")
    batches = "           - 1h ..."
    used = "              ^"
    marbles.check(source.pipe(buffer), batches)
    assert source.subscriptions == used


@each_buffer
def test_an_empty_source_gives_no_empty_batch(marbles, buffer):
    source = marbles.hot("---------|")
    batches = "           ---------|"
    used = "              ^--------!"
    marbles.check(source.pipe(buffer), batches)
    assert source.subscriptions == used


@each_buffer
def test_the_short_batch_is_emitted_on_completion(marbles, buffer):
    source = marbles.hot("-a-|")
    batches = "           ---(x|)"
    used = "              ^--!"
    marbles.check(source.pipe(buffer), batches, x=["a"])
    assert source.subscriptions == used


@each_buffer
def test_an_error_drops_the_half_full_batch(marbles, buffer):
    source = marbles.hot("-a-#", error=OSError("x"))
    batches = "           ---#"
    used = "              ^--!"
    marbles.check(source.pipe(buffer), batches, error=OSError("x"))
    assert source.subscriptions == used


@each_buffer
def test_disposed_early_the_source_is_let_go_and_nothing_comes(marbles, buffer):
    source = marbles.hot("-a---b---|")
    batches = "           ---"
    used = "              ^--!"
    marbles.check(source.pipe(buffer), batches, subs=used)
    assert source.subscriptions == used


def test_by_count_batches_are_full(marbles):
    source = marbles.hot("-abcde|")
    batches = "           --x-y-(z|)"
    used = "              ^-----!"
    marbles.check(source.pipe(BUFFERS["count"]), batches, x=["a", "b"], y=["c", "d"], z=["e"])
    assert source.subscriptions == used


def test_by_time_a_span_without_items_emits_nothing(marbles):
    source = marbles.hot("-a-------b---")
    batches = "           ----x-------y 1h ..."
    used = "              ^"
    marbles.check(source.pipe(BUFFERS["time"]), batches, x=["a"], y=["b"])
    assert source.subscriptions == used


def test_by_either_the_span_begins_again_with_each_batch(marbles):
    source = marbles.hot("--abc---")
    batches = "           ---x---y 1h ..."
    used = "              ^"
    marbles.check(source.pipe(BUFFERS["either"]), batches, x=["a", "b"], y=["c"])
    assert source.subscriptions == used


def test_messages_come_as_a_batch(marbles):
    source = marbles.hot("-ab", a=Message("t", 1), b=Message("t", 2))
    batches = "           --x"
    kinds = source.pipe(BUFFERS["count"], rx.map(type))
    marbles.check(kinds, batches, x=Batch)


def test_messages_and_plain_values_come_as_a_list(marbles):
    source = marbles.hot("-ab", a=Message("t", 1), b="plain")
    batches = "           --x"
    kinds = source.pipe(BUFFERS["count"], rx.map(type))
    marbles.check(kinds, batches, x=list)


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


def test_a_held_message_is_not_acknowledged_when_the_buffer_is_disposed(marbles):
    broker = marbles.mqtt("""
        t q1      : -a-b""")
    batches = "     ---"
    used = "        ^--!"
    marbles.check(broker.from_mqtt("t").pipe(ops.buffer_with_count(2)), batches, subs=used)
    assert broker.acknowledged("t") == "-"


def test_a_buffer_that_is_disposed_holds_no_message():
    source = Source()
    subscription = source.pipe(ops.buffer_with_count(3)).subscribe(store)
    source.receive(1)
    subscription.dispose()
    assert source.settled() == []
    assert source.ledger.unsettled == 0


def test_a_held_message_is_not_acknowledged_when_an_error_drops_the_batch(marbles):
    broker = marbles.mqtt(
        """
        t q1       : -ab""",
        a=1,
        b=2,
    )
    batches = "      --#"
    failing = ops.map(lambda m: 1 // (m.payload - 2))
    held = broker.from_mqtt("t").pipe(ops.decode_json(), failing, ops.buffer_with_count(3))
    marbles.check(held, batches, error=ZeroDivisionError)
    assert broker.acknowledged("t") == "-"


def test_a_batch_taken_from_the_middle_leaves_the_rest_unacknowledged(marbles):
    broker = marbles.mqtt("""
        t q1          : -a(bc)-""")
    batches = "         --(x|)"
    acknowledged = "    --^"
    first = broker.from_mqtt("t").pipe(ops.decode_json(), ops.buffer_with_count(2), ops.take(1))
    marbles.check(first.pipe(storing), batches, x=["a", "b"])
    assert broker.acknowledged("t") == acknowledged
    assert [each.key for each in broker.acknowledgements] == ["a", "b"]


def test_without_a_scheduler_the_timer_ticks_on_a_thread_of_its_own():
    got, done = [], Event()
    source = Subject()
    subscription = source.pipe(ops.buffer_with_time_or_count(0.01, 100)).subscribe(
        lambda batch: (got.append(batch), done.set())
    )
    source.on_next("a")
    assert done.wait(60)
    subscription.dispose()
    assert got == [["a"]]


def test_a_synchronous_source_comes_through_whole():
    got = []
    reactivex.range(0, 5).pipe(ops.buffer_with_time_or_count(10.0, 2)).subscribe(got.append)
    assert got == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize("count", [0, -1, 1.5, None, True])
def test_a_count_below_one_is_refused_at_call_time(count):
    with pytest.raises(ConfigError, match="count must be"):
        ops.buffer_with_count(count)
    with pytest.raises(ConfigError, match="count must be"):
        ops.buffer_with_time_or_count(1.0, count)


@pytest.mark.parametrize("span", [0, -1, float("nan"), float("inf"), "1", None, 1e300])
def test_a_timespan_that_is_no_time_is_refused_at_call_time(span):
    with pytest.raises(ConfigError, match="timespan must be"):
        ops.buffer_with_time(span)
    with pytest.raises(ConfigError, match="timespan must be"):
        ops.buffer_with_time_or_count(span, 1)


def test_a_negative_timeshift_or_skip_is_refused_at_call_time():
    with pytest.raises(ConfigError, match="timeshift must be"):
        ops.buffer_with_time(1.0, -1.0)
    with pytest.raises(ConfigError, match="skip must be"):
        ops.buffer_with_count(1, 0)


def test_a_timedelta_is_a_time_too(marbles):
    source = marbles.hot("-a------")
    batches = "           ----x 1h ..."
    marbles.check(source.pipe(ops.buffer_with_time(timedelta(seconds=4))), batches, x=["a"])
