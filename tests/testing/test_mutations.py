"""Wrong versions of operators, sinks and the ledger: for each, a marble test fails.

A test here is right twice: it passes with rxflow as it is, and fails with the wrong version.
"""

import warnings
from collections.abc import Callable
from functools import partial

import pytest
import reactivex
from reactivex import operators as rx

from rxflow import RxflowWarning, SinkError, run_async
from rxflow import operators as ops
from rxflow.delivery import QOS2, Delivery, Ledger
from rxflow.message import Message
from rxflow.mqtt.client import Client
from rxflow.mqtt.output import Output
from rxflow.mqtt.source import Source
from rxflow.mqtt.subscribing import Subscribing
from rxflow.sinks.group_commit import Commit, GroupCommit
from rxflow.testing.marbles import Marbles

# -- operators -------------------------------------------------------------------------------------

SOURCE = "-a-b-c-d-e|"
PAIRS = {"x": ["a", "b"], "y": ["c", "d"], "z": ["e"]}


def upper(marbles: Marbles, operator) -> None:
    values = {key: key.upper() for key in "abcde"}
    source = marbles.hot(SOURCE)
    marbles.check(source.pipe(operator), SOURCE, **values)
    assert source.subscriptions == "^---------!"


def failing(marbles: Marbles, operator) -> None:
    source = marbles.cold("-a-#", error=LookupError("gone"))
    marbles.check(source.pipe(operator), "-a-#", error=LookupError("gone"), a="A")


def pairs(marbles: Marbles, operator) -> None:
    marbles.check(marbles.cold(SOURCE).pipe(operator), "---x---y--(z|)", **PAIRS)


def no_empty_pair(marbles: Marbles, operator) -> None:
    marbles.check(marbles.cold("-a-b|").pipe(operator), "---x|", x=["a", "b"])


def until_six(marbles: Marbles, until) -> None:
    source = marbles.hot("-a-b-c-d--|")
    expected = {"x": ["a", "b"], "y": ["c"]}
    batches = source.pipe(ops.buffer_with_count(2), until(reactivex.timer(6)))
    marbles.check(batches, "---x--(y|)", **expected)


def disposed(marbles: Marbles, operator) -> None:
    source = marbles.hot("-a-b-c")
    marbles.check(source.pipe(operator), "-a-b", subs="^---!", a="A", b="B")
    assert source.subscriptions == "^---!"


def debounced(marbles: Marbles, operator) -> None:
    marbles.check(marbles.cold("-ab----c|").pipe(operator), "----b---(c|)")


def early(operator, seconds):
    """The same, subscribed to a clock that is ahead."""
    return lambda source: source.pipe(ops.delay(seconds), operator)


def never_letting_go(source):
    def subscribe(observer, scheduler=None):
        source.pipe(right_upper).subscribe(observer, scheduler=scheduler)

    return reactivex.create(subscribe)


def twice(source):
    return reactivex.merge(source.pipe(right_upper), source.pipe(rx.ignore_elements()))


def both(*operators):
    return lambda source: source.pipe(*operators)


right_upper = ops.map(str.upper)

OPERATORS = {
    "one frame late": (upper, right_upper, both(right_upper, rx.delay(1))),
    "a microsecond late": (upper, right_upper, both(right_upper, rx.delay(0.000_001))),
    "the first item lost": (upper, right_upper, both(right_upper, rx.skip(1))),
    "the last item lost": (upper, right_upper, both(right_upper, rx.skip_last(1))),
    "an item twice": (
        upper,
        right_upper,
        rx.flat_map(lambda x: reactivex.of(x.upper(), x.upper())),
    ),
    "not applied": (upper, right_upper, both()),
    "never completed": (upper, right_upper, both(right_upper, rx.concat(reactivex.never()))),
    "completed early": (upper, right_upper, both(right_upper, rx.take(5))),
    "an error instead of the end": (
        upper,
        right_upper,
        both(right_upper, rx.concat(reactivex.throw(ValueError("end")))),
    ),
    "subscribed twice": (upper, right_upper, twice),
    "another error": (
        failing,
        right_upper,
        both(right_upper, rx.catch(lambda *_: reactivex.throw(ValueError("gone")))),
    ),
    "another text": (
        failing,
        right_upper,
        both(right_upper, rx.catch(lambda *_: reactivex.throw(LookupError("lost")))),
    ),
    "the error swallowed": (
        failing,
        right_upper,
        both(right_upper, rx.catch(lambda *_: reactivex.empty())),
    ),
    "the short batch lost": (
        pairs,
        ops.buffer_with_count(2),
        both(rx.buffer_with_count(2), rx.filter(lambda batch: len(batch) == 2)),
    ),
    "a batch in reverse": (
        pairs,
        ops.buffer_with_count(2),
        both(rx.buffer_with_count(2), rx.map(lambda batch: batch[::-1])),
    ),
    "an empty batch at the end": (
        no_empty_pair,
        ops.buffer_with_count(2),
        both(rx.buffer_with_count(2), rx.concat(reactivex.of([]))),
    ),
    "what is held discarded at a time limit": (until_six, ops.take_until, rx.take_until),
    "the source not let go": (disposed, right_upper, never_letting_go),
    "the first of a burst instead of the last": (debounced, ops.debounce(2), rx.throttle_first(2)),
    "too short a silence": (debounced, ops.debounce(2), rx.debounce(1)),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_a_wrong_operator_fails_its_marble_test(name):
    check, right, wrong = OPERATORS[name]
    with Marbles() as marbles:
        check(marbles, right)
    with pytest.raises(AssertionError), Marbles() as marbles:
        check(marbles, wrong)


# -- sinks, ledger and client ----------------------------------------------------------------------


def stored_then_acknowledged(marbles: Marbles) -> None:
    broker = marbles.mqtt("a q1 : -a-bc-------")
    sink = marbles.sink(disk="-====-")
    marbles.run(run_async(broker.from_mqtt("a"), sink, seconds=9, log=False))
    assert sink.stored == list("abc")
    assert sink.committed == "-----^"
    assert broker.acknowledged("a") == "-----^"
    assert [each.key for each in broker.acknowledgements] == list("abc")


def drained(marbles: Marbles) -> None:
    sink = marbles.sink(disk="-====-")
    marbles.run(run_async(marbles.hot("-a-b|"), sink, log=False))
    assert sink.stored == list("ab")


def lost_and_regained(marbles: Marbles) -> None:
    broker = marbles.mqtt("""
        a q1        : --ab--------
        $connection : ^---!---^---
    """)
    sink = marbles.sink(disk="--=====----")
    source = broker.from_mqtt("a").pipe(ops.map(lambda m: [m.payload.decode(), m.duplicate]))
    marbles.run(run_async(source, sink, seconds=12, log=False))
    assert sink.stored == [['"a"', False], ['"b"', False], ['"a"', True], ['"b"', True]]
    assert broker.acknowledged("a") == "--------^"


def let_go_while_away(marbles: Marbles) -> None:
    broker = marbles.mqtt("""
        a q1        : -b------
        $connection : ^-!^----
    """)
    source = broker.from_mqtt("a").pipe(ops.delay(1.5))
    marbles.run(run_async(source, reactivex.Observer(), seconds=12, log=False))
    assert broker.acknowledged("a") == "----^"


def full(marbles: Marbles) -> None:
    broker = marbles.mqtt("a q1 : -a-b-c")
    sink = marbles.sink(disk="---x")
    failed = pytest.raises(Exception, match="No space")
    try:
        with failed:
            marbles.run(run_async(broker.from_mqtt("a"), sink, seconds=9, log=False))
    except pytest.fail.Exception as error:
        raise AssertionError("the sink did not fail") from error
    assert sink.stored == ["a"]
    assert broker.acknowledged("a") == "-^"


def qos_2(marbles: Marbles) -> None:
    broker = marbles.mqtt("""
        a q2        : --a--b----
        $connection : ^--!-^----
    """)
    sink = marbles.sink(disk="-")
    source = broker.from_mqtt("a", qos=2).pipe(ops.delay(4))
    marbles.run(run_async(source, sink, seconds=12, log=False))
    assert sink.stored == ["a", "b"]
    assert broker.acknowledged("a") == "------^--^"


def clean(marbles: Marbles) -> None:
    broker = marbles.mqtt("""
        a           : -a---b-
        $connection : ^-!-^--
    """)
    sink = marbles.sink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RxflowWarning)  # of the gap
        source = broker.from_mqtt("a", clean_start=True)
        marbles.run(run_async(source, sink, seconds=9, log=False))
    assert sink.stored == ["a", "b"]


def retained(marbles: Marbles) -> None:
    broker = marbles.mqtt("a r : x---")
    source = broker.from_mqtt("a").pipe(ops.map(lambda m: m.retain))
    marbles.check(source, "t ...", t=Message("a", payload=True, retain=True))


acknowledge, connected_subscribing = Output.acknowledge, Subscribing.connected
write_commit, taken = Commit.write, GroupCommit._taken


def without_delivery(self, row, _):
    self._rows.append(row)
    self._tokens.append(None)
    self._see_to_it()


def in_reverse(self):
    commit = taken(self)
    commit.rows.reverse()
    return commit


def as_if_stored(self, write):
    write_commit(self, write)
    self.error = None


def on_any_connection(self, *, session_present):
    del session_present


def not_written(self, write):
    write_commit(self, lambda *_: None)


def subscribing_once(self, at, **given):
    is_first = not self._session.last_connected
    asks = connected_subscribing(self, at, **given)
    return asks if is_first else []


def open_anyway(self, packet_id, *_, **__):
    return Delivery(self, packet_id + QOS2)


def without(**flags):
    """Messages that come from the wire without such a flag, whatever the broker says."""

    def unmarked(emit, message):
        marks = {"retain": message.retain, "duplicate": message.duplicate} | flags
        emit(
            Message(message.topic, message.payload, message.qos, delivery=message.delivery, **marks)
        )

    def on_next(source, emit) -> None:
        vars(source)["emit"] = partial(unmarked, emit)

    return property(lambda source: source.emit, on_next)


SINKS: dict[str, tuple[Callable[[Marbles], None], object, str, object]] = {
    "acknowledged before stored": (
        stored_then_acknowledged,
        GroupCommit,
        "add_one",
        without_delivery,
    ),
    "acknowledged twice": (
        stored_then_acknowledged,
        Output,
        "acknowledge",
        lambda self, ready, _: acknowledge(self, ready + ready, []),
    ),
    "never acknowledged": (stored_then_acknowledged, Output, "acknowledge", lambda *_: None),
    "acknowledged out of order": (
        stored_then_acknowledged,
        Output,
        "acknowledge",
        lambda self, ready, _: acknowledge(self, ready[::-1], []),
    ),
    "one not acknowledged": (
        stored_then_acknowledged,
        Output,
        "acknowledge",
        lambda self, ready, _: acknowledge(self, ready[:1], []),
    ),
    "acknowledged and not written": (stored_then_acknowledged, Commit, "write", not_written),
    "rows in reverse": (stored_then_acknowledged, GroupCommit, "_taken", in_reverse),
    "closed before the last commit": (drained, GroupCommit, "is_idle", property(lambda _: True)),
    "acknowledged though the disk was full": (full, Commit, "write", as_if_stored),
    "acknowledged on the next connection": (
        let_go_while_away,
        Ledger,
        "connected",
        on_any_connection,
    ),
    "not marked as a duplicate": (
        lost_and_regained,
        Source,
        "on_next",
        without(duplicate=False),
    ),
    "not marked as retained": (retained, Source, "on_next", without(retain=False)),
    "too slow to come back": (lost_and_regained, Client, "_wait", lambda *_: 9.0),
    "QoS 2 delivered again": (qos_2, Ledger, "open2", open_anyway),
    "not subscribed to a new session": (clean, Subscribing, "connected", subscribing_once),
}


@pytest.mark.parametrize("name", SINKS)
def test_a_wrong_sink_ledger_or_client_fails_its_marble_test(monkeypatch, name):
    check, owner, attribute, wrong = SINKS[name]
    with Marbles() as marbles:
        check(marbles)
    monkeypatch.setattr(owner, attribute, wrong, raising=False)
    with pytest.raises((AssertionError, SinkError)), Marbles() as marbles:
        check(marbles)


def test_there_are_twenty_of_them_at_least():
    assert len(OPERATORS) + len(SINKS) >= 20
