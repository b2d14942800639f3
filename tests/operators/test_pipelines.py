"""Operators together, over a source of ours: what ends, what goes on, what is acknowledged."""

from __future__ import annotations

import gc
from concurrent.futures import Future

import pytest
import reactivex
from reactivex import never, timer
from reactivex.testing import TestScheduler
from streams import Source, envelope_of, store, storing

from rxflow import operators as ops
from rxflow import run_async
from rxflow.message import Message


@pytest.fixture(autouse=True)
def only_references_count():
    gc.disable()
    yield
    gc.enable()


def read(broker, topic="t"):
    """Messages whose payloads are the values of the diagram."""
    return broker.from_mqtt(topic).pipe(ops.decode_json())


def keys(broker):
    """Of what was acknowledged, in that order."""
    return [each.key for each in broker.acknowledgements]


def test_take_until_ends_its_branch_of_a_shared_source_and_the_other_goes_on(marbles):
    broker = marbles.mqtt("""
        t q1          : -a---b-""")
    ended = "           ---(x|)"
    running = "         -a---b 1m ..."
    acknowledged = "    ---^-^"
    shared = read(broker).pipe(ops.share())
    held = shared.pipe(ops.buffer_with_count(9), ops.take_until(timer(3.0)), storing)
    first, second = marbles.observe(held), marbles.observe(shared.pipe(storing))
    marbles.check(first, ended, x=["a"])
    marbles.check(second, running)
    assert broker.acknowledged("t") == acknowledged


def test_merge_with_what_never_ends_still_ends_on_time(marbles):
    broker = marbles.mqtt("""
        t q1          : -a---""")
    expected = "        ---(x|)"
    acknowledged = "    ---^"
    completions = []
    source = read(broker).pipe(ops.do_action(on_completed=lambda: completions.append("source")))
    held = source.pipe(ops.merge(never()), ops.buffer_with_count(9), ops.take_until(timer(3.0)))
    marbles.check(held.pipe(storing), expected, x=["a"])
    assert broker.acknowledged("t") == acknowledged
    assert completions == ["source"]


def test_merge_of_two_sources_acknowledges_each_by_itself(marbles):
    broker = marbles.mqtt("""
        left q1       : -a---c-
        right q1      : ---b---""")
    expected = "        ---x 1m ..."
    acknowledged = "    ---^"
    merged = read(broker, "left").pipe(ops.merge(read(broker, "right")), ops.buffer_with_count(2))
    marbles.check(merged.pipe(storing), expected, x=["a", "b"])
    assert broker.acknowledged("left") == acknowledged
    assert broker.acknowledged("right") == acknowledged
    assert sorted(keys(broker)) == ["a", "b"]


def test_repeat_begins_again_after_completion_and_not_after_the_end_of_time(marbles):
    source = marbles.cold("-a|")
    expected = "           -a-a-|"
    used = "               ^-!", "--^-!", "----^!"
    marbles.check(source.pipe(ops.repeat(), ops.take_until(timer(5.0))), expected)
    assert source.subscriptions == used


def test_what_comes_behind_a_repeat_is_acknowledged_by_each_subscription(marbles):
    broker = marbles.mqtt("""
        t q1          : -a-b----""")
    expected = "        -a-b-|"
    acknowledged = "    -^-^"
    one_by_one = read(broker).pipe(ops.take(1), ops.repeat(), ops.take_until(timer(5.0)))
    marbles.check(one_by_one.pipe(storing), expected)
    assert broker.acknowledged("t") == acknowledged


def test_retry_after_a_failed_map_leaves_the_messages_to_the_broker_and_stores_them_next(marbles):
    broker = marbles.mqtt("""
        t q1          : -ab---""")
    stored = "          --^"
    attempts = []
    sink = marbles.sink()

    def fails_once(message):
        attempts.append((message.payload, message.duplicate))
        if len(attempts) == 2:
            raise OSError("not yet")
        return message.payload

    again = read(broker).pipe(ops.map(fails_once), ops.buffer_with_count(2), ops.retry())
    marbles.run(run_async(again, sink, seconds=6, log=False))
    assert sink.stored == ["a", "b"]
    assert sink.committed == stored
    assert broker.acknowledged("t") == stored
    assert keys(broker) == ["a", "b"]
    assert attempts == [("a", False), ("b", False), ("a", True), ("b", True)]


def test_concat_subscribes_the_second_source_when_the_first_has_ended_and_ends_it_on_time(marbles):
    broker = marbles.mqtt("""
        first q1      : -a-b-----
        second q1     : -c--d----""")
    expected = "        ------(x|)"
    acknowledged = "    ------^"
    first = read(broker, "first").pipe(ops.take_until(timer(2.0)))
    completions = []
    second = read(broker, "second").pipe(
        ops.do_action(on_completed=lambda: completions.append("second"))
    )
    held = first.pipe(ops.concat(second), ops.buffer_with_count(9))
    marbles.check(held.pipe(ops.take_until(timer(6.0)), storing), expected, x=["a", "d"])
    assert broker.acknowledged("first") == acknowledged
    assert broker.acknowledged("second") == acknowledged
    assert sorted(keys(broker)) == ["a", "d"]
    assert completions == ["second"]


def test_flat_map_acknowledges_a_message_with_the_last_of_its_rows(marbles):
    broker = marbles.mqtt(
        """
        t q1          : -a----""",
        a=[1, 3, 2],
    )
    expected = "        --xyz 1m ..."
    acknowledged = "    ----^"
    rows = read(broker).pipe(ops.flat_map(lambda m: reactivex.of(*m.payload)))
    apart = rows.pipe(ops.delay_with_mapper(lambda m: timer(m.payload)), storing)
    marbles.check(apart, expected, x=Message("t", 1, 1), y=Message("t", 2, 1), z=Message("t", 3, 1))
    assert broker.acknowledged("t") == acknowledged


def three_times(message):
    """Its payload, one second apart. A stream that held the message would hold its delivery."""
    payload = message.payload
    return timer(1.0, 1.0).pipe(ops.take(3), ops.map(lambda _: payload))


def test_flat_map_cut_off_in_the_middle_of_a_message_leaves_it_to_the_broker(marbles):
    broker = marbles.mqtt("""
        t q1     : -a------""")
    expected = "   --aa"
    used = "       ^---!"
    marbles.check(read(broker).pipe(ops.flat_map(three_times), storing), expected, subs=used)
    assert broker.acknowledged("t") == "-"


def test_flat_map_cut_off_in_the_middle_of_a_message_holds_none():
    source, clock = Source(), TestScheduler()
    subscription = source.pipe(ops.flat_map(three_times)).subscribe(store, scheduler=clock)
    source.receive(1)
    clock.advance_to(2.5)
    subscription.dispose()
    clock.advance_to(9)
    assert (source.settled(), source.ledger.unsettled) == ([], 0)


def test_flat_map_flushes_its_groups_at_the_end_of_time(marbles):
    broker = marbles.mqtt(
        """
        t q1          : -abc---""",
        a=1,
        b=2,
        c=3,
    )
    expected = "        -----(xy|)"
    acknowledged = "    -----^"
    batches = read(broker).pipe(
        ops.group_by(lambda m: m.payload % 2),
        ops.flat_map(lambda group: group.pipe(ops.buffer_with_count(9))),
        ops.take_until(timer(5.0)),
    )
    marbles.check(batches.pipe(storing), expected, x=[1, 3], y=[2])
    assert broker.acknowledged("t") == acknowledged
    assert keys(broker) == ["a", "b", "c"]


def pairs_of_groups(source):
    return source.pipe(
        ops.group_by(lambda m: m.payload % 2),
        ops.flat_map(lambda group: group.pipe(ops.buffer_with_count(2))),
    )


def test_what_groups_hold_is_not_acknowledged_when_they_are_disposed(marbles):
    broker = marbles.mqtt(
        """
        t q1     : -abc--""",
        a=1,
        b=2,
        c=3,
    )
    expected = "   ---"
    used = "       ^--!"
    marbles.check(pairs_of_groups(read(broker)).pipe(storing), expected, subs=used)
    assert broker.acknowledged("t") == "-"


def test_what_groups_hold_is_not_acknowledged_when_an_error_drops_it(marbles):
    broker = marbles.mqtt(
        """
        t q1     : -abc--""",
        a=1,
        b=2,
        c=3,
    )
    expected = "   ---#"
    failing = read(broker).pipe(ops.do_action(lambda m: 1 // (m.payload - 3)))
    marbles.check(pairs_of_groups(failing).pipe(storing), expected, error=ZeroDivisionError)
    assert broker.acknowledged("t") == "-"


def test_what_one_group_holds_is_not_acknowledged_with_the_last_batch_of_another(marbles):
    broker = marbles.mqtt(
        """
        t q1          : -abc--""",
        a=2,
        b=1,
        c=3,
    )
    expected = "        ---(x|)"
    acknowledged = "    ---^"
    marbles.check(pairs_of_groups(read(broker)).pipe(ops.take(1), storing), expected, x=[1, 3])
    assert broker.acknowledged("t") == acknowledged
    assert keys(broker) == ["b", "c"]


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


def test_a_stream_within_a_group_that_is_cut_off_leaves_its_message_to_the_broker(marbles):
    broker = marbles.mqtt("""
        t q1     : -a-b---""")
    expected = "   ----"
    used = "       ^---!"
    endless = read(broker).pipe(  # at 4 s the first group has ended, its stream runs on
        ops.group_by_until(lambda m: m.payload, None, lambda _: timer(1.5)),
        ops.flat_map(lambda group: group.pipe(ops.flat_map(lambda _: never()))),
    )
    marbles.check(endless.pipe(storing), expected, subs=used)
    assert broker.acknowledged("t") == "-"


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


def test_a_group_whose_key_is_the_message_itself_holds_up_no_acknowledgement(marbles):
    broker = marbles.mqtt("""
        t q1          : -a-b--""")
    expected = "        -a-b 1m ..."
    acknowledged = "    -^-^"
    groups = read(broker).pipe(ops.group_by(lambda m: m), ops.flat_map(lambda group: group))
    marbles.check(groups.pipe(storing), expected)
    assert broker.acknowledged("t") == acknowledged


@pytest.mark.parametrize(
    "holding", [ops.delay(9.0), ops.delay_with_mapper(lambda _: never())], ids=repr
)
def test_at_the_end_of_time_a_delay_emits_all_that_it_holds(marbles, holding):
    broker = marbles.mqtt("""
        t q1          : -ab---""")
    expected = "        ----(ab|)"
    acknowledged = "    ----^"
    marbles.check(read(broker).pipe(holding, ops.take_until(timer(4.0)), storing), expected)
    assert broker.acknowledged("t") == acknowledged
    assert keys(broker) == ["a", "b"]


@pytest.mark.parametrize("holding", [ops.debounce(9.0), ops.sample(9.0)], ids=repr)
def test_at_the_end_of_time_what_thins_emits_the_newest(marbles, holding):
    broker = marbles.mqtt("""
        t q1          : -ab---""")
    expected = "        ----(b|)"
    acknowledged = "    --^-^"
    marbles.check(read(broker).pipe(holding, ops.take_until(timer(4.0)), storing), expected)
    assert broker.acknowledged("t") == acknowledged
    assert keys(broker) == ["a", "b"]


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
def test_what_has_emitted_the_message_that_it_held_holds_up_no_later_one(marbles, holding):
    broker = marbles.mqtt("""
        t q1          : -a--b--""")
    expected = "        --a 1m ..."
    acknowledged = "    --^-^"
    first = read(broker).pipe(ops.filter(lambda m: m.payload == "a"), holding)
    marbles.check(first.pipe(storing), expected)
    assert broker.acknowledged("t") == acknowledged


def test_a_tuple_of_messages_becomes_one_result_with_the_delivery_that_triggered_it(marbles):
    broker = marbles.mqtt("""
        left q1       : -a-c---
        right q1      : --b----""")
    expected = "        ----xy 1m ..."
    of_left = "         -^---^"
    of_right = "        ----^"
    latest = read(broker, "left").pipe(
        ops.combine_latest(read(broker, "right")),
        ops.starmap(lambda left, right: (left.payload, right.payload)),
    )
    marbles.check(latest.pipe(ops.delay(2.0), storing), expected, x=("a", "b"), y=("c", "b"))
    assert broker.acknowledged("left") == of_left
    assert broker.acknowledged("right") == of_right


def test_a_message_made_by_hand_in_map_carries_the_delivery_of_what_it_was_made_of(marbles):
    broker = marbles.mqtt("""
        t q1          : -a----""")
    expected = "        ---a 1m ..."
    acknowledged = "    ---^"
    copies = read(broker).pipe(ops.map(lambda m: Message("copy", m.payload)), ops.delay(2.0))
    marbles.check(copies.pipe(storing), expected, a=Message("copy", "a"))
    assert broker.acknowledged("t") == acknowledged
