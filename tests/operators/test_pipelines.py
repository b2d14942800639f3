"""Operators together, over a source of ours: what ends, what goes on, what is acknowledged."""

from __future__ import annotations

import gc
from concurrent.futures import Future

import pytest
import reactivex
from reactivex import never, timer
from reactivex.testing import TestScheduler
from streams import Source, envelope_of, store

from rxflow import operators as ops
from rxflow.message import Message
from rxflow.operators.scope import Scope, within


@pytest.fixture(autouse=True)
def only_references_count():
    gc.disable()
    yield
    gc.enable()


class Running:
    """A pipeline in the scope of a run, in virtual time, whose sink stores what it gets."""

    def __init__(self, pipeline, *, clock=None, root=None) -> None:
        self.clock, self.root = clock or TestScheduler(), root or Scope()
        self.got, self.ends = [], []
        self.subscription = pipeline.subscribe(
            self.take,
            lambda error: self.ends.append(type(error)),
            lambda: self.ends.append(self.clock.clock),
            scheduler=within(self.root, self.clock),
        )
        self.clock.advance_to(self.clock.clock + 0.01)

    def take(self, item) -> None:
        self.got.append(item.payloads if isinstance(item, list) else item.payload)
        store(item)


def test_take_until_ends_its_branch_of_a_shared_source_and_the_other_goes_on():
    source = Source()
    shared = source.pipe(ops.share())
    first = Running(shared.pipe(ops.buffer_with_count(9), ops.take_until(timer(3.0))))
    second = Running(shared, clock=first.clock, root=first.root)
    source.receive(1)
    first.clock.advance_to(4)
    source.receive(2)
    assert (first.got, first.ends) == ([[1]], [3.0])
    assert (second.got, second.ends) == ([1, 2], [])
    assert source.settled() == [1, 2]


def test_merge_with_what_never_ends_still_ends_on_time():
    source = Source()
    running = Running(
        source.pipe(ops.merge(never()), ops.buffer_with_count(9), ops.take_until(timer(3.0)))
    )
    source.receive(1)
    running.clock.advance_to(5)
    assert (running.got, running.ends) == ([[1]], [3.0])
    assert (source.completions, source.settled()) == (1, [1])


def test_merge_of_two_sources_acknowledges_each_by_itself():
    left, right = Source(), Source()
    Running(left.pipe(ops.merge(right), ops.buffer_with_count(2)))
    left.receive(1)
    right.receive(7)
    left.receive(2)
    assert (left.settled(), right.settled()) == ([1], [7])


def test_repeat_begins_again_after_completion_and_not_after_the_end_of_time():
    source = Source()
    running = Running(source.pipe(ops.repeat(), ops.take_until(timer(5.0))))
    for packet_id in (1, 2):
        source.receive(packet_id)
        source.complete()
        running.clock.advance_to(packet_id)
    running.clock.advance_to(9)
    assert (running.got, running.ends) == ([1, 2], [5.0])
    assert (source.subscriptions, source.settled()) == (3, [1, 2])


def test_retry_after_a_failed_map_leaves_the_message_to_the_broker_and_stores_it_the_next_time():
    source, attempts = Source(), []

    def fails_once(message):
        attempts.append(message.payload)
        if attempts == [1, 2]:
            raise OSError("not yet")
        return message.payload

    running = Running(source.pipe(ops.map(fails_once), ops.buffer_with_count(2), ops.retry()))
    source.receive(1)
    source.receive(2)
    assert (running.got, source.settled()) == ([], [])
    running.clock.advance_to(1)
    for packet_id in (1, 2):  # redelivered: neither was acknowledged
        source.receive(packet_id)
    assert (running.got, source.settled()) == ([[1, 2]], [1, 2])
    assert source.subscriptions == 2


def test_concat_subscribes_the_second_source_when_the_first_has_ended_and_ends_it_on_time():
    first, second = Source(), Source()
    running = Running(
        first.pipe(ops.concat(second), ops.buffer_with_count(9), ops.take_until(timer(5.0)))
    )
    first.receive(1)
    first.complete()
    running.clock.advance_to(1)
    second.receive(2)
    running.clock.advance_to(6)
    assert (running.got, running.ends) == ([[1, 2]], [5.0])
    assert (second.completions, second.settled()) == (1, [2])


def test_flat_map_acknowledges_a_message_with_the_last_of_its_rows():
    source, held = Source(), []
    rows = source.pipe(ops.flat_map(lambda m: reactivex.of(*m.payload)))
    rows.subscribe(held.append)
    source.receive(1, [10, 20, 30])
    assert [(m.topic, m.payload) for m in held] == [("t", 10), ("t", 20), ("t", 30)]
    while held:
        assert source.settled() == []
        store(held.pop())
    assert source.settled() == [1]


def test_flat_map_cut_off_in_the_middle_of_a_message_leaves_it_to_the_broker():
    source = Source()

    def rows(message):
        payload = message.payload  # a stream that held the message would hold its delivery
        return timer(1.0, 1.0).pipe(ops.take(3), ops.map(lambda _: payload))

    running = Running(source.pipe(ops.flat_map(rows)))
    source.receive(1)
    running.clock.advance_to(2.5)
    running.subscription.dispose()
    running.clock.advance_to(9)
    assert (running.got, source.settled()) == ([1, 1], [])
    assert source.ledger.unsettled == 0


def test_flat_map_flushes_its_groups_at_the_end_of_time():
    source = Source()
    running = Running(
        source.pipe(
            ops.group_by(lambda m: m.payload % 2),
            ops.flat_map(lambda group: group.pipe(ops.buffer_with_count(9))),
            ops.take_until(timer(5.0)),
        )
    )
    for packet_id in (1, 2, 3):
        source.receive(packet_id)
    running.clock.advance_to(6)
    assert (running.got, running.ends) == ([[1, 3], [2]], [5.0])
    assert source.settled() == [1, 2, 3]


@pytest.mark.parametrize("end", ["dispose", "error", "take"])
def test_what_groups_hold_is_not_acknowledged_when_they_are_cut_off(end):
    source = Source()

    def fail_at_3(message):
        return 1 // (message.payload - 3)

    running = Running(
        source.pipe(
            ops.do(fail_at_3) if end == "error" else ops.map(),
            ops.group_by(lambda m: m.payload % 2),
            ops.flat_map(lambda group: group.pipe(ops.buffer_with_count(2))),
            ops.take(1) if end == "take" else ops.as_observable(),
        )
    )
    for packet_id in (2, 1, 3) if end == "take" else (1, 2, 3):
        source.receive(packet_id)
        if end == "dispose" and packet_id == 2:
            running.subscription.dispose()
    running.clock.advance_to(9)
    assert running.got == ([[1, 3]] if end == "take" else [])
    assert source.settled() == ([1, 3] if end == "take" else [])


def test_what_a_future_brings_travels_in_the_envelope_of_its_message():
    source, future, held = Source(), Future(), []
    source.pipe(ops.flat_map(lambda _: future)).subscribe(held.append)
    source.receive(1)
    assert (held, source.settled()) == ([], [])
    future.set_result("late")
    assert [(m.payload, envelope_of(m)) for m in held] == [("late", source.envelopes[1])]
    store(held.pop())
    assert source.settled() == [1]


def test_of_a_message_without_a_delivery_the_results_travel_in_its_envelope():
    made = []
    reactivex.of(Message("t", b"ab")).pipe(ops.flat_map(lambda m: m.payload)).subscribe(made.append)
    assert made == [Message("t", 97), Message("t", 98)]


@pytest.mark.parametrize("end", ["complete", "fail"])
@pytest.mark.parametrize(
    "make",
    [ops.window_with_count(9), ops.window_with_time(9.0), ops.window_with_time_or_count(9.0, 9)],
)
def test_a_window_that_has_ended_tells_that_to_whoever_comes_later(make, end):
    source, windows, got = reactivex.Subject(), [], []
    source.pipe(make).subscribe(windows.append, lambda _: None, scheduler=TestScheduler())
    source.on_completed() if end == "complete" else source.on_error(OSError("x"))
    windows[0].subscribe(
        got.append, lambda error: got.append(type(error)), lambda: got.append("end")
    )
    assert got == ["end" if end == "complete" else OSError]


@pytest.mark.parametrize("wrong", [lambda _: reactivex.throw(OSError("x")), lambda _: None])
def test_the_error_of_a_stream_names_the_topic_of_its_message(wrong):
    source, errors = Source("home/x"), []
    source.pipe(ops.flat_map(wrong)).subscribe(on_error=errors.append)
    source.receive(1)
    assert errors[0].__notes__ == ["rxflow: while dealing with a message of topic home/x"]
    assert source.settled() == []


def test_a_stream_that_runs_within_a_group_when_that_is_cut_off_leaves_its_message_to_the_broker():
    source = Source()
    running = Running(
        source.pipe(
            ops.group_by_until(lambda m: m.payload, None, lambda _: timer(1.0)),
            ops.flat_map(lambda group: group.pipe(ops.flat_map(lambda _: never()))),
        )
    )
    source.receive(1)
    running.clock.advance_to(2)  # the first group has ended, its stream runs on
    source.receive(2)
    running.subscription.dispose()
    running.clock.advance_to(9)
    assert source.settled() == []


def test_what_two_sinks_took_of_a_running_stream_is_stored_when_both_have_stored_it():
    source, rows, held = Source(), reactivex.Subject(), []
    source.pipe(ops.flat_map(lambda _: rows)).subscribe(held.append)
    source.receive(1)
    rows.on_next("row")
    delivery = held.pop().delivery
    for sink in (1, 2):
        delivery.take(sink)
    rows.on_completed()
    delivery.store(set())
    source.ledger.abandon()
    del delivery
    assert (source.settled(), source.ledger.unsettled) == ([], 0)


def test_a_group_whose_key_is_the_message_itself_holds_up_no_acknowledgement():
    source = Source()
    running = Running(source.pipe(ops.group_by(lambda m: m), ops.flat_map(lambda group: group)))
    source.receive(1)
    assert (running.got, source.settled()) == ([1], [1])


def test_at_the_end_of_time_delay_and_sample_emit_what_they_hold():
    for holding in (ops.delay(9.0), ops.sample(9.0), ops.delay_with_mapper(lambda _: never())):
        source = Source()
        running = Running(source.pipe(holding, ops.take_until(timer(3.0))))
        source.receive(1)
        running.clock.advance_to(4)
        assert (running.got, running.ends) == ([1], [3.0])
        assert source.settled() == [1]


@pytest.mark.parametrize(
    "holding",
    [
        ops.debounce(1.0),
        ops.throttle_with_timeout(1.0),
        ops.throttle_with_mapper(lambda _: timer(1.0)),
        ops.sample(1.0),
        ops.delay(1.0),
        ops.delay_with_mapper(lambda _: timer(1.0)),
    ],
    ids=repr,
)
def test_what_has_emitted_the_message_that_it_held_holds_up_no_later_one(holding):
    source = Source()
    running = Running(source.pipe(ops.filter(lambda m: m.payload == 1), holding))
    source.receive(1)
    running.clock.advance_to(3)
    source.receive(2)
    assert (running.got, source.settled()) == ([1], [1, 2])


def test_a_tuple_of_messages_becomes_one_result_with_the_delivery_that_triggered_it():
    left, right, held = Source(), Source(), []
    left.pipe(
        ops.combine_latest(right), ops.starmap(lambda a, b: (a.payload, b.payload))
    ).subscribe(held.append)
    left.receive(1)
    right.receive(7)
    left.receive(2)
    assert [m.payload for m in held] == [(1, 7), (2, 7)]
    assert (left.settled(), right.settled()) == ([1], [])
    while held:
        store(held.pop(0))
    assert (left.settled(), right.settled()) == ([1, 2], [7])


def test_a_message_made_by_hand_in_map_carries_the_delivery_of_what_it_was_made_of():
    source, held = Source(), []
    source.pipe(ops.map(lambda m: type(m)("copy", m.payload))).subscribe(held.append)
    source.receive(1)
    assert (held[0].topic, source.settled()) == ("copy", [])
    store(held.pop())
    assert source.settled() == [1]
