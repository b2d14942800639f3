from __future__ import annotations

import asyncio
import gc
from concurrent.futures import Future
from datetime import UTC, datetime

import pytest
import reactivex
from reactivex import never, timer
from reactivex.scheduler.eventloop import AsyncIOScheduler
from reactivex.subject import Subject
from reactivex.testing import TestScheduler
from streams import Source, on_completed, on_error, on_next, seen, seen_and_used, store

from rxflow import operators as ops
from rxflow.errors import ConfigError
from rxflow.operators.scope import Scope, within

ENDINGS = {
    "take_until": lambda time: ops.take_until(timer(time)),
    "take_until_with_time": ops.take_until_with_time,
    "take_with_time": ops.take_with_time,
}
each_ending = pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)


@each_ending
def test_never_ends_on_time(ending):
    assert seen(lambda _, __: never().pipe(ending(7.0))) == [(7, "completed", None)]


@each_ending
def test_what_ends_before_ends_as_it_does(ending):
    make = lambda _, s: s.pipe(ending(7.0))  # noqa: E731
    assert seen(make, on_next(1, "a"), on_completed(3)) == [
        (1, "next", "a"),
        (3, "completed", None),
    ]
    assert seen(make, on_error(3, OSError("x"))) == [(3, "OSError", "x")]


@each_ending
def test_an_endless_source_is_let_go_at_the_end(ending):
    events = [on_next(t, t) for t in range(3, 60, 3)]
    got, let_go = seen_and_used(lambda _, s: s.pipe(ending(7.0)), *events)
    assert got == [(3, "next", 3), (6, "next", 6), (7, "completed", None)]
    assert let_go == 7


@each_ending
def test_disposed_early_the_source_is_let_go(ending):
    assert seen_and_used(lambda _, s: s.pipe(ending(7.0)), disposed=2) == ([], 2)


@each_ending
@pytest.mark.parametrize(
    "holding",
    [
        ops.buffer_with_count(9),
        ops.buffer_with_count(9, 10),
        ops.buffer_with_time(100.0),
        ops.buffer_with_time_or_count(100.0, 9),
        ops.to_list(),
        ops.buffer(never()),
        ops.buffer_when(never),
        ops.take_last_buffer(9),
    ],
    ids=repr,
)
def test_the_end_of_time_flushes_what_is_held(ending, holding):
    events = on_next(1, "a"), on_next(2, "b"), on_next(9, "c")
    assert seen(lambda _, s: s.pipe(holding, ending(7.0)), *events) == [
        (7, "next", ["a", "b"]),
        (7, "completed", None),
    ]


def test_it_flushes_through_a_merge_that_never_ends():
    make = lambda _, s: s.pipe(  # noqa: E731
        ops.merge(never()), ops.buffer_with_count(9), ops.merge(never()), ops.take_until(timer(7.0))
    )
    assert seen(make, on_next(1, "a")) == [(7, "next", ["a"]), (7, "completed", None)]


def test_it_flushes_one_buffer_into_the_next():
    make = lambda _, s: s.pipe(  # noqa: E731
        ops.buffer_with_count(2),
        ops.merge(never()),
        ops.buffer_with_count(2),
        ops.take_until(timer(7.0)),
    )
    events = [on_next(t, t) for t in (1, 2, 3)]
    assert seen(make, *events)[0] == (7, "next", [[1, 2], [3]])


def test_it_flushes_the_second_source_of_a_concat():
    def make(_, source):
        late = source.pipe(ops.buffer_with_count(9))
        return reactivex.empty().pipe(
            ops.concat(late), ops.buffer_with_count(9), ops.take_until(timer(7.0))
        )

    assert seen(make, on_next(1, "a"))[0] == (7, "next", [["a"]])


def test_it_flushes_what_a_flat_map_holds():
    make = lambda _, s: s.pipe(  # noqa: E731
        ops.group_by(lambda n: n % 2),
        ops.flat_map(lambda group: group.pipe(ops.buffer_with_count(9))),
        ops.take_until(timer(7.0)),
    )
    events = [on_next(t, t) for t in (1, 2, 3)]
    assert [value for _, kind, value in seen(make, *events) if kind == "next"] == [[1, 3], [2]]


def test_an_error_of_what_ends_it_is_its_error():
    make = lambda _, s: s.pipe(ops.take_until(reactivex.throw(OSError("x"))))  # noqa: E731
    assert [event[1] for event in seen(make, on_next(1, 1))] == ["OSError"]


def test_an_error_while_flushing_is_an_error():
    make = lambda _, s: s.pipe(  # noqa: E731
        ops.buffer_with_count(9), ops.map(lambda _: 1 // 0), ops.take_until(timer(7.0))
    )
    assert [event[:2] for event in seen(make, on_next(1, 1))] == [(7, "ZeroDivisionError")]


@pytest.mark.parametrize(
    "operator", [ops.first(), ops.single(), ops.min(), ops.element_at(3)], ids=repr
)
def test_what_has_too_few_items_for_an_answer_is_no_error_at_the_end_of_time(operator):
    source, got = Source(), []
    clock = TestScheduler()
    source.pipe(operator, ops.take_until(timer(7.0))).subscribe(
        on_error=got.append, on_completed=lambda: got.append(clock.clock), scheduler=clock
    )
    clock.advance_to(9)
    assert (got, source.completions) == ([7], 1)


def test_the_last_of_nothing_is_no_error_at_the_end_of_time():
    make = lambda _, s: s.pipe(ops.last(), ops.take_until(timer(7.0)))  # noqa: E731
    assert seen(make) == [(7, "completed", None)]


def test_a_source_of_ours_is_completed_not_disposed():
    source, stop, ended = Source(), Subject(), []
    source.pipe(ops.take_until(stop)).subscribe(on_completed=lambda: ended.append(True))
    stop.on_next("now")
    assert (source.completions, ended) == (1, [True])


def test_what_a_buffer_held_is_acknowledged_once_it_is_stored():
    gc.disable()
    try:
        source, stop = Source(), Subject()
        source.pipe(ops.buffer_with_count(9), ops.take_until(stop)).subscribe(store)
        source.receive(1)
        source.receive(2)
        assert source.settled() == []
        stop.on_next("now")
        assert source.settled() == [1, 2]
    finally:
        gc.enable()


def test_only_its_own_upstream_ends():
    inner, outer = Source(), Source()
    stop, root = Subject(), Scope()
    clock = TestScheduler()
    ended = inner.pipe(ops.take_until(stop), ops.merge(outer))
    ended.subscribe(scheduler=within(root, clock))
    clock.advance_to(1)
    stop.on_next("now")
    assert (inner.completions, outer.completions) == (1, 0)
    root.complete()
    assert outer.completions == 1


def test_repeat_does_not_begin_again_when_time_is_over():
    source, stop, ended = Source(), Subject(), []
    source.pipe(ops.buffer_with_count(2), ops.repeat(), ops.take_until(stop)).subscribe(
        on_completed=lambda: ended.append(True)
    )
    source.receive(1)
    stop.on_next("now")
    assert (source.subscriptions, ended) == (1, [True])


def test_repeat_before_the_end_subscribes_again():
    source, stop, got = Source(), Subject(), []
    source.pipe(ops.repeat(), ops.take_until(stop)).subscribe(got.append)
    source.complete()
    source.receive(1)
    assert (source.subscriptions, len(got)) == (2, 1)
    stop.on_next("now")
    assert source.completions == 2


@pytest.mark.parametrize("kind", [Future, asyncio.Future])
def test_a_future_ends_it_too(kind):
    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        future = kind() if kind is Future else loop.create_future()
        events, ended = [], asyncio.Event()
        never().pipe(ops.take_until(future)).subscribe(
            on_completed=lambda: (events.append("end"), ended.set()),
            scheduler=AsyncIOScheduler(loop),
        )
        future.set_result(1)
        await asyncio.wait_for(ended.wait(), 5)
        return events

    assert asyncio.run(main()) == ["end"]


def test_a_date_ends_it_too():
    end = datetime.fromtimestamp(7, UTC)
    assert seen(lambda _, s: s.pipe(ops.take_until_with_time(end)))[-1] == (7, "completed", None)


@pytest.mark.parametrize("bad", [3, None, "soon"])
def test_what_is_no_observable_is_refused_at_call_time(bad):
    with pytest.raises(ConfigError, match="other="):
        ops.take_until(bad)


def test_a_negative_time_is_refused_at_call_time():
    with pytest.raises(ConfigError, match="end_time=-1"):
        ops.take_until_with_time(-1)
    with pytest.raises(ConfigError, match="duration=-1"):
        ops.take_with_time(-1)
