from __future__ import annotations

import asyncio
from concurrent.futures import Future
from datetime import UTC, datetime

import pytest
from reactivex import never, timer
from reactivex.scheduler.eventloop import AsyncIOScheduler
from reactivex.subject import Subject
from reactivex.testing import TestScheduler
from streams import Source

from rxflow import operators as ops
from rxflow import run_async
from rxflow.errors import ConfigError
from rxflow.scope import Scope, within

ENDINGS = {
    "take_until": lambda time: ops.take_until(timer(time)),
    "take_until_with_time": ops.take_until_with_time,
    "take_with_time": ops.take_with_time,
}
each_ending = pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)


@each_ending
def test_never_ends_on_time(marbles, ending):
    source = marbles.hot("-")
    expected = "          -------|"
    used = "              ^------!"
    marbles.check(source.pipe(ending(7.0)), expected)
    assert source.subscriptions == used


@each_ending
def test_what_completes_before_completes_as_it_does(marbles, ending):
    source = marbles.hot("-a-|")
    expected = "          -a-|"
    used = "              ^--!"
    marbles.check(source.pipe(ending(7.0)), expected)
    assert source.subscriptions == used


@each_ending
def test_what_fails_before_fails_as_it_does(marbles, ending):
    source = marbles.hot("---#", error=OSError("x"))
    expected = "          ---#"
    used = "              ^--!"
    marbles.check(source.pipe(ending(7.0)), expected, error=OSError("x"))
    assert source.subscriptions == used


@each_ending
def test_an_endless_source_is_let_go_at_the_end(marbles, ending):
    source = marbles.hot("---a--b--c--d--e--f")
    expected = "          ---a--b|"
    used = "              ^------!"
    marbles.check(source.pipe(ending(7.0)), expected)
    assert source.subscriptions == used


@each_ending
def test_disposed_early_the_source_is_let_go(marbles, ending):
    source = marbles.hot("-")
    expected = "          ---"
    used = "              ^-!"
    marbles.check(source.pipe(ending(7.0)), expected, subs=used)
    assert source.subscriptions == used


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
def test_the_end_of_time_flushes_what_is_held(marbles, ending, holding):
    source = marbles.hot("-ab------c")
    expected = "          -------(x|)"
    used = "              ^------!"
    marbles.check(source.pipe(holding, ending(7.0)), expected, x=["a", "b"])
    assert source.subscriptions == used


def test_it_flushes_through_a_merge_that_never_ends(marbles):
    source = marbles.hot("-a")
    expected = "          -------(x|)"
    used = "              ^------!"
    merged = source.pipe(ops.merge(never()), ops.buffer_with_count(9), ops.merge(never()))
    marbles.check(merged.pipe(ops.take_until(timer(7.0))), expected, x=["a"])
    assert source.subscriptions == used


def test_it_flushes_one_buffer_into_the_next(marbles):
    source = marbles.hot("-abc")
    expected = "          -------(x|)"
    used = "              ^------!"
    inner = source.pipe(ops.buffer_with_count(2), ops.merge(never()))
    outer = inner.pipe(ops.buffer_with_count(2), ops.take_until(timer(7.0)))
    marbles.check(outer, expected, x=[["a", "b"], ["c"]])
    assert source.subscriptions == used


def test_it_flushes_the_second_source_of_a_concat(marbles):
    first = marbles.hot(" --|")
    second = marbles.hot("---a")
    expected = "          -------(x|)"
    used = "              --^----!"
    late = second.pipe(ops.buffer_with_count(9))
    both = first.pipe(ops.concat(late), ops.buffer_with_count(9), ops.take_until(timer(7.0)))
    marbles.check(both, expected, x=[["a"]])
    assert second.subscriptions == used


def test_it_flushes_what_a_flat_map_holds(marbles):
    source = marbles.hot("-abc", a=1, b=2, c=3)
    expected = "          -------(xy|)"
    used = "              ^------!"
    batches = source.pipe(
        ops.group_by(lambda n: n % 2),
        ops.flat_map(lambda group: group.pipe(ops.buffer_with_count(9))),
    )
    marbles.check(batches.pipe(ops.take_until(timer(7.0))), expected, x=[1, 3], y=[2])
    assert source.subscriptions == used


def test_an_error_of_what_ends_it_is_its_error(marbles):
    source = marbles.hot("-a--b")
    until = marbles.hot(" ---#", error=OSError("x"))
    expected = "          -a-#"
    used = "              ^--!"
    marbles.check(source.pipe(ops.take_until(until)), expected, error=OSError("x"))
    assert source.subscriptions == used


def test_an_error_while_flushing_is_an_error(marbles):
    source = marbles.hot("-a")
    expected = "          -------#"
    used = "              ^------!"
    failing = source.pipe(ops.buffer_with_count(9), ops.map(lambda _: 1 // 0))
    marbles.check(failing.pipe(ops.take_until(timer(7.0))), expected, error=ZeroDivisionError)
    assert source.subscriptions == used


@pytest.mark.parametrize(
    "operator", [ops.first(), ops.single(), ops.min(), ops.element_at(3)], ids=repr
)
def test_what_has_too_few_items_for_an_answer_is_no_error_at_the_end_of_time(marbles, operator):
    source = marbles.hot("-")
    expected = "          -------|"
    used = "              ^------!"
    completions = []
    watched = source.pipe(ops.do_action(on_completed=lambda: completions.append("source")))
    marbles.check(watched.pipe(operator, ops.take_until(timer(7.0))), expected)
    assert source.subscriptions == used
    assert completions == ["source"]


def test_the_last_of_nothing_is_no_error_at_the_end_of_time(marbles):
    source = marbles.hot("-")
    expected = "          -------|"
    used = "              ^------!"
    marbles.check(source.pipe(ops.last(), ops.take_until(timer(7.0))), expected)
    assert source.subscriptions == used


def test_a_source_of_ours_is_completed_not_disposed():
    source, stop, ended = Source(), Subject(), []
    source.pipe(ops.take_until(stop)).subscribe(on_completed=lambda: ended.append(True))
    stop.on_next("now")
    assert (source.completions, ended) == (1, [True])


def test_what_a_buffer_held_is_acknowledged_once_it_is_stored(marbles):
    broker = marbles.mqtt("""
        t q1             : -ab------""")
    sink = marbles.sink("  -----===-")
    stored = "             --------^"
    held = broker.from_mqtt("t").pipe(ops.buffer_with_count(9), ops.take_until(timer(5.0)))
    marbles.run(run_async(held, sink, log=False))
    assert sink.stored == ["a", "b"]
    assert sink.committed == stored
    assert broker.acknowledged("t") == stored
    assert [each.key for each in broker.acknowledgements] == ["a", "b"]


def test_what_is_merged_below_it_goes_on(marbles):
    inner = marbles.hot("-a---b")
    outer = marbles.hot("--x---y")
    until = marbles.hot("---s")
    expected = "         -ax---y"
    used = "             ^--!"
    marbles.check(inner.pipe(ops.take_until(until), ops.merge(outer)), expected)
    assert inner.subscriptions == used
    assert outer.subscriptions == "^"


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


def test_repeat_does_not_begin_again_when_time_is_over(marbles):
    source = marbles.cold("-a--")
    expected = "           ---(x|)"
    used = "               ^--!"
    again = source.pipe(ops.buffer_with_count(2), ops.repeat())
    marbles.check(again.pipe(ops.take_until(timer(3.0))), expected, x=["a"])
    assert source.subscriptions == [used]


def test_repeat_without_a_scheduler_ends_when_time_is_over():
    source, stop, ended = Source(), Subject(), []
    source.pipe(ops.buffer_with_count(2), ops.repeat(), ops.take_until(stop)).subscribe(
        on_completed=lambda: ended.append(True)
    )
    source.receive(1)
    stop.on_next("now")
    assert (source.subscriptions, ended) == (2, [True])  # in vain, once


def test_repeat_before_the_end_subscribes_again(marbles):
    source = marbles.cold("-a-|")
    expected = "           ---x-(x|)"
    used = "               ^--!", "---^-!"
    again = source.pipe(ops.buffer_with_count(2), ops.repeat())
    marbles.check(again.pipe(ops.take_until(timer(5.0))), expected, x=["a"])
    assert source.subscriptions == used


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


def test_a_date_ends_it_too(marbles):
    source = marbles.hot("-a------b")
    expected = "          -a-----|"
    used = "              ^------!"
    end = datetime.fromtimestamp(7, UTC)
    marbles.check(source.pipe(ops.take_until_with_time(end)), expected)
    assert source.subscriptions == used


@pytest.mark.parametrize("bad", [3, None, "soon"])
def test_what_is_no_observable_is_refused_at_call_time(bad):
    with pytest.raises(ConfigError, match="other must be"):
        ops.take_until(bad)


def test_a_negative_time_is_refused_at_call_time():
    with pytest.raises(ConfigError, match=r"end_time must be.*-1"):
        ops.take_until_with_time(-1)
    with pytest.raises(ConfigError, match=r"duration must be.*-1"):
        ops.take_with_time(-1)
