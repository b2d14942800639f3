from __future__ import annotations

import gc

import pytest
from reactivex import never
from reactivex.subject import Subject
from streams import Source, envelope_of, on_completed, on_error, on_next, seen, seen_and_used, store

from rxflow import operators as ops
from rxflow.errors import ConfigError
from rxflow.message import Batch, Message
from rxflow.scope import Scope


def doubled(_, source):
    return source.pipe(ops.map(lambda x: x * 2))


def test_map_of_nothing_is_nothing():
    assert seen(lambda _, __: never().pipe(ops.map(lambda x: x))) == []
    assert seen(doubled, on_completed(5)) == [(5, "completed", None)]


def test_map_passes_each_result_on_when_it_comes():
    events = on_next(1, 10), on_next(2, 20), on_completed(3)
    assert seen(doubled, *events) == [(1, "next", 20), (2, "next", 40), (3, "completed", None)]


def test_map_passes_an_error_on():
    assert seen(doubled, on_next(1, 1), on_error(2, OSError("x"))) == [
        (1, "next", 2),
        (2, "OSError", "x"),
    ]


def test_map_disposed_early_lets_the_source_go():
    assert seen_and_used(doubled, on_next(1, 1), on_next(9, 2), disposed=5) == ([(1, "next", 2)], 5)


def test_map_without_a_function_passes_items_on():
    assert seen(lambda _, s: s.pipe(ops.map()), on_next(1, "a"))[0] == (1, "next", "a")


def test_a_function_that_raises_ends_the_stream_with_its_own_error():
    events, let_go = seen_and_used(
        lambda _, s: s.pipe(ops.map(lambda x: 1 // x)), on_next(1, 1), on_next(2, 0), on_next(3, 1)
    )
    assert [kind for _, kind, _ in events] == ["next", "ZeroDivisionError"]
    assert let_go == 2


def test_the_error_of_a_message_names_its_topic():
    errors, source = [], Subject()
    source.pipe(ops.map(lambda m: m.payload["n"])).subscribe(on_error=errors.append)
    source.on_next(Message("home/\x1b", {}))
    assert type(errors[0]) is KeyError
    assert errors[0].__notes__ == [r"rxflow: while dealing with a message of topic home/\x1b"]


def test_the_result_travels_in_the_envelope_of_its_message():
    message = Message("a/b", 3, 1, retain=True)
    [(_, _, got), *_] = seen(
        lambda _, s: s.pipe(ops.map(lambda m: m.payload + 1)), on_next(1, message)
    )
    assert got == Message("a/b", 4, 1, retain=True)


def test_a_message_that_is_returned_is_passed_on_as_it_is():
    other = Message("c", 1)
    [(_, _, got), *_] = seen(
        lambda _, s: s.pipe(ops.map(lambda _: other)), on_next(1, Message("a", 1))
    )
    assert got is other


def test_the_result_of_a_batch_travels_in_the_envelope_of_its_newest_with_all_deliveries():
    source, got = Source(), []
    source.pipe(ops.buffer_with_count(2), ops.map(lambda b: sum(b.payloads))).subscribe(got.append)
    source.receive(1)
    source.receive(2)
    assert [(m.payload, envelope_of(m)) for m in got] == [(3, source.envelopes[2])]
    assert source.settled() == []
    store(got.pop())
    assert source.settled() == [1, 2]


def test_a_batch_that_is_returned_is_passed_on_as_it_is():
    [(_, _, got), *_] = seen(
        lambda _, s: s.pipe(ops.map(lambda b: b)), on_next(1, Batch([Message("a", 1)]))
    )
    assert type(got) is Batch


@pytest.mark.parametrize("bad", [3, "name", []])
def test_what_cannot_be_called_is_refused_at_call_time(bad):
    with pytest.raises(ConfigError, match="mapper must be"):
        ops.map(bad)


def test_a_rejected_that_is_no_observer_is_refused_at_call_time():
    with pytest.raises(ConfigError, match="rejected must be"):
        ops.map(len, rejected=len)


def test_with_rejected_a_bad_message_is_set_aside_and_the_stream_goes_on():
    aside, got, source = Subject(), [], Source()
    records = []
    aside.subscribe(records.append)
    source.pipe(ops.map(lambda m: 1 // m.payload, rejected=aside)).subscribe(got.append)
    source.receive(1, 0)
    source.receive(2, 1)
    assert [m.payload for m in got] == [1]
    assert records[0].topic == "t"
    assert "ZeroDivisionError" in records[0].payload["error"]


def test_a_message_set_aside_is_acknowledged_when_its_record_is_stored_and_not_before():
    gc.disable()
    try:
        aside, records, source = Subject(), [], Source()
        aside.subscribe(records.append)

        def fail(message):
            try:
                {}["inner"]
            except KeyError as error:
                kept = error
                raise ValueError("outer") from kept

        source.pipe(ops.map(fail, rejected=aside)).subscribe()
        source.receive(1)
        assert source.settled() == []
        store(records.pop())
        assert source.settled() == [1]
    finally:
        gc.enable()


def test_each_message_of_a_bad_batch_is_set_aside():
    aside, records, source = Subject(), [], Subject()
    aside.subscribe(records.append)
    source.pipe(ops.map(lambda _: 1 // 0, rejected=aside)).subscribe()
    source.on_next(Batch([Message("a", 1), Message("b", 2)]))
    source.on_next("plain")
    assert [r.topic for r in records] == ["a", "b", ""]


def test_a_rejected_that_raises_fails_the_pipeline():
    source, aside = Subject(), Subject()
    aside.subscribe(lambda _: 1 // 0)
    source.pipe(ops.map(lambda m: m.payload[0], rejected=aside)).subscribe()
    with pytest.raises(ZeroDivisionError):
        source.on_next(Message("a", 1))


def test_several_operators_tell_the_run_of_one_rejected_once():
    aside, root = Subject(), Scope()
    seen(
        lambda _, s: s.pipe(ops.map(len, rejected=aside), ops.decode_json(rejected=aside)),
        on_completed(1),
        scope=Scope(root),
    )
    assert root.context.rejected == [aside]
