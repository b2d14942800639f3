"""A time limit, and threads: what is acknowledged is stored, and what can be flushed is flushed.

Behind a broker in a diagram, with the client and the sinks of production. Each test ends a pipeline
while operators hold messages: everything comes through to the sinks, in that same instant.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
import reactivex
from reactivex import Observable, never, timer
from reactivex import operators as rx
from reactivex.scheduler import NewThreadScheduler, TimeoutScheduler
from reactivex.subject import Subject
from reactivex.testing import TestScheduler

from rxflow import operators as ops
from rxflow import run_async

PATIENCE = 30.0
"""Seconds that what comes from another thread may take. Nothing passes by being quick."""

Operator = Callable[[Observable[Any]], Observable[Any]]


def read(broker, topic="t", **settings):
    """Messages whose payloads are the values of the diagram."""
    return broker.from_mqtt(topic, **settings).pipe(ops.decode_json())


def keys(broker):
    """What was acknowledged, sorted: sources of their own are acknowledged each by itself."""
    return sorted(each.key for each in broker.acknowledgements)


def flat(rows):
    """All values in the rows, in their order."""
    found = []
    for row in rows:
        found += flat(row) if isinstance(row, list) else [row]
    return found


def boom(_: object) -> None:
    raise OSError("boom")


# -- what is flushed into what is subscribed during the flush --------------------------------------

ALL_ABOVE = {
    "take_last": ops.take_last(9),
    "take_last_with_time": ops.take_last_with_time(90.0),
    "delay": ops.delay(90.0),
    "delay_with_mapper": ops.delay_with_mapper(lambda _: never()),
    "buffer_with_count": lambda source: source.pipe(
        ops.buffer_with_count(9), ops.flat_map(reactivex.from_iterable)
    ),
    "to_list": lambda source: source.pipe(ops.to_list(), ops.flat_map(lambda batch: batch)),
}
"""What holds all until the end, and emits all of it then."""

ONE_ABOVE = {
    "debounce": ops.debounce(90.0),
    "sample": ops.sample(90.0),
    "last": ops.last(),
}
"""What emits the newest at the end; the others are let go by the user's choice."""

BELOW = {
    "group_by": lambda: ops.group_by(lambda _: 0),
    "group_by_until": lambda: ops.group_by_until(lambda _: 0, None, lambda _: never()),
    "window_with_count": lambda: ops.window_with_count(9),
    "window_with_time": lambda: ops.window_with_time(90.0),
    "window_toggle": lambda: ops.window_toggle(timer(0.5, 90.0), lambda _: never()),
    "window": lambda: ops.window(never()),
}
"""What makes streams of what comes."""

INNER = {
    "buffer_with_count": ops.buffer_with_count(5),
    "buffer_with_time": ops.buffer_with_time(90.0),
    "to_list": ops.to_list(),
    "delay": ops.delay(90.0),
    "take_last": ops.take_last(9),
    "take_until": ops.take_until(never()),
    "take_until_and_buffer": lambda source: source.pipe(
        ops.take_until(never()), ops.buffer_with_count(5)
    ),
}
"""What holds within them."""


def in_flat_map(inner: Operator) -> Operator:
    return ops.flat_map(lambda group: group.pipe(inner))


def ends(operator: Operator) -> dict[str, tuple[Operator, float | None]]:
    return {"seconds": (operator, 8.0), "take_until": (operator, None)}


def run_to_its_end(marbles, flow, sink, end, *, at=8.0):
    """End it by `seconds`, or by `take_until` at the bottom."""
    if end == "seconds":
        return marbles.run(run_async(flow, sink, seconds=at, log=False))
    return marbles.run(run_async(flow.pipe(ops.take_until(timer(at))), sink, log=False))


each_end = pytest.mark.parametrize("end", ["seconds", "take_until"])
SOURCE = """
    t q1 : -a-b-c---"""


@each_end
@pytest.mark.parametrize("inner", INNER.values(), ids=INNER)
@pytest.mark.parametrize("below", BELOW.values(), ids=BELOW)
def test_what_is_flushed_into_streams_that_begin_in_the_flush_is_flushed_out(
    marbles, below, inner, end
):
    broker, sink = marbles.mqtt(SOURCE), marbles.sink()
    flow = read(broker).pipe(ops.take_last(9), below(), in_flat_map(inner))
    report = run_to_its_end(marbles, flow, sink, end)
    assert sorted(flat(sink.stored)) == ["a", "b", "c"]
    assert keys(broker) == ["a", "b", "c"]
    assert (report.received, report.stored, report.unacknowledged) == (3, 3, 0)


@each_end
@pytest.mark.parametrize("above", ALL_ABOVE.values(), ids=ALL_ABOVE)
def test_whatever_holds_above_what_it_flushes_into_a_group_comes_out(marbles, above, end):
    broker, sink = marbles.mqtt(SOURCE), marbles.sink()
    groups = ops.group_by(lambda _: 0), in_flat_map(ops.buffer_with_count(5))
    report = run_to_its_end(marbles, read(broker).pipe(above, *groups), sink, end)
    assert flat(sink.stored) == ["a", "b", "c"]
    assert keys(broker) == ["a", "b", "c"]
    assert (report.received, report.stored, report.unacknowledged) == (3, 3, 0)


@each_end
@pytest.mark.parametrize("above", ONE_ABOVE.values(), ids=ONE_ABOVE)
def test_the_newest_that_is_flushed_into_a_group_comes_out(marbles, above, end):
    broker, sink = marbles.mqtt(SOURCE), marbles.sink()
    groups = ops.group_by(lambda _: 0), in_flat_map(ops.buffer_with_count(5))
    report = run_to_its_end(marbles, read(broker).pipe(above, *groups), sink, end)
    assert flat(sink.stored) == ["c"]
    assert (report.received, report.unacknowledged) == (3, 0)


@each_end
@pytest.mark.parametrize(
    "within",
    [ops.to_list(), ops.buffer_with_count(5), ops.take_until(never()), ops.delay(9.0)],
    ids=repr,
)
def test_the_stream_of_an_item_that_begins_in_the_flush_is_flushed_out(marbles, within, end):
    broker, sink = marbles.mqtt(SOURCE), marbles.sink()
    endless = lambda m: reactivex.of(m.payload).pipe(ops.merge(never()), within)  # noqa: E731
    flow = read(broker).pipe(ops.take_last(9), ops.flat_map(endless))
    report = run_to_its_end(marbles, flow, sink, end)
    assert sorted(flat(sink.stored)) == ["a", "b", "c"]
    assert keys(broker) == ["a", "b", "c"]
    assert (report.received, report.stored, report.unacknowledged) == (3, 3, 0)


@each_end
@pytest.mark.parametrize("below", BELOW.values(), ids=BELOW)
def test_the_sum_of_a_group_that_begins_in_the_flush_is_stored(marbles, below, end):
    broker, sink = marbles.mqtt(SOURCE, a=1, b=2, c=4), marbles.sink()
    flow = read(broker).pipe(ops.take_last(9), below(), in_flat_map(ops.sum()))
    run_to_its_end(marbles, flow, sink, end)
    assert [row for row in sink.stored if row] == [7]


# -- a flush through what is asynchronous on the loop ----------------------------------------------

MANY = "t q1 : (abcdefghijklmnopqrstuvwxy)---"
LETTERS = list("abcdefghijklmnopqrstuvwxy")


def unpacked(batch):
    return reactivex.from_iterable(batch)


def parts_merged(source):
    """Both parts of a `partition`, each half full, merged into another that holds."""
    first, second = source.pipe(ops.partition(lambda m: ord(m.payload) % 2))
    held = first.pipe(ops.buffer_with_count(10), ops.flat_map(unpacked))
    return held.pipe(ops.merge(second.pipe(ops.buffer_with_count(10), ops.flat_map(unpacked))))


def shared_merged(source):
    """Two buffers of one shared source, merged into another that holds."""
    shared = source.pipe(ops.share())
    one, other = (
        shared.pipe(
            ops.filter(lambda m, rest=rest: ord(m.payload) % 2 == rest),
            ops.buffer_with_count(10),
            ops.flat_map(unpacked),
        )
        for rest in (0, 1)
    )
    return one.pipe(ops.merge(other))


THROUGH = {
    "flat_map": lambda s: s.pipe(ops.buffer_with_count(10), ops.flat_map(unpacked)),
    "concat_map": lambda s: s.pipe(ops.buffer_with_count(10), ops.concat_map(unpacked)),
    "flat_map of each": lambda s: s.pipe(ops.take_last(99), ops.flat_map(reactivex.of)),
    "partition": parts_merged,
    "share": shared_merged,
}


@each_end
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("through", THROUGH.values(), ids=THROUGH)
def test_completion_reaches_a_buffer_after_all_that_was_on_its_way_to_it(
    marbles, through, qos, end
):
    broker, sink = marbles.mqtt(MANY.replace("q1", f"q{qos}")), marbles.sink()
    flow = through(read(broker, qos=qos)).pipe(ops.buffer_with_count(4))
    report = run_to_its_end(marbles, flow, sink, end)
    assert sorted(flat(sink.stored)) == LETTERS
    assert keys(broker) == (LETTERS if qos else [])
    assert (report.received, report.stored, report.unacknowledged) == (25, 25, 0)


@each_end
def test_the_last_batch_behind_a_share_is_stored_and_acknowledged(marbles, end):
    broker, sink = marbles.mqtt("t q1 : -abcd---"), marbles.sink()
    flow = read(broker).pipe(ops.share(), ops.buffer_with_count(3), ops.flat_map(unpacked))
    report = run_to_its_end(marbles, flow, sink, end)
    assert sink.stored == ["a", "b", "c", "d"]
    assert keys(broker) == ["a", "b", "c", "d"]
    assert (report.received, report.stored, report.unacknowledged) == (4, 4, 0)


# -- two sinks on what is shared -------------------------------------------------------------------

HOLDING_ABOVE = {
    **ALL_ABOVE,
    "take_last_and_group_by": lambda source: source.pipe(
        ops.take_last(9),
        ops.group_by(lambda _: 0),
        in_flat_map(ops.buffer_with_count(5)),
        ops.flat_map(unpacked),
    ),
}
SHARING = {
    "share": ops.share,
    "publish": lambda: lambda source: source.pipe(ops.publish(), ops.ref_count()),
    "replay": lambda: lambda source: source.pipe(ops.replay(), ops.ref_count()),
}


@pytest.mark.parametrize("is_held_first", [True, False])
@pytest.mark.parametrize("share", SHARING.values(), ids=SHARING)
@pytest.mark.parametrize("above", HOLDING_ABOVE.values(), ids=HOLDING_ABOVE)
def test_what_a_shared_source_flushes_reaches_both_sinks(marbles, above, share, is_held_first):
    broker, one, two = marbles.mqtt(SOURCE), marbles.sink(), marbles.sink()
    shared = read(broker).pipe(above, share())
    pairs = (shared.pipe(ops.buffer_with_count(2)), two), (shared, one)
    pairs = pairs if is_held_first else pairs[::-1]
    report = marbles.run(run_async(*pairs, seconds=8, log=False))
    assert (one.stored, flat(two.stored)) == (["a", "b", "c"], ["a", "b", "c"])
    assert keys(broker) == ["a", "b", "c"]
    assert (report.received, report.stored, report.unacknowledged) == (3, 3, 0)


# -- from an end, an error or a dispose on, only what is stored is acknowledged --------------------


def dropping_at_the_end(source):
    """An operator of the user's own that holds, and forgets to flush."""

    def subscribe(observer, scheduler=None):
        held = []

        def on_completed():
            held.clear()
            observer.on_completed()

        return source.subscribe(held.append, observer.on_error, on_completed, scheduler=scheduler)

    return Observable(subscribe)


DROPPING = {
    "own": dropping_at_the_end,
    "rx.buffer_with_count and rx.skip": lambda source: source.pipe(
        rx.buffer_with_count(9), rx.skip_while(lambda batch: len(batch) < 9)
    ),
}


@each_end
@pytest.mark.parametrize("dropping", DROPPING.values(), ids=DROPPING)
def test_what_an_operator_drops_at_the_end_is_not_acknowledged(marbles, dropping, end):
    broker, sink = marbles.mqtt(SOURCE), marbles.sink()
    report = run_to_its_end(marbles, read(broker).pipe(dropping), sink, end)
    assert (sink.stored, keys(broker)) == ([], [])
    assert (report.received, report.unacknowledged) == (3, 3)


def timed(operator: Operator) -> Operator:
    return lambda source: source.pipe(operator, ops.map(lambda m: m.payload.value))


def own_schedulers(clock) -> dict[str, Operator]:
    return {
        "delay": ops.delay(0.5, clock),
        "throttle_first": ops.throttle_first(0.5, clock),
        "skip_last_with_time": ops.skip_last_with_time(0.5, clock),
        "time_interval": timed(ops.time_interval(clock)),
        "subscribe_on": ops.subscribe_on(clock),
        "observe_on": ops.observe_on(clock),
        "delay_subscription": ops.delay_subscription(0.5, clock),
        "timeout": ops.timeout(90.0, None, clock),
        "take_last_with_time": ops.take_last_with_time(90.0, clock),
        "timestamp": timed(ops.timestamp(clock)),
        "skip_with_time": ops.skip_with_time(0.1, clock),
        "buffer_with_time": ops.buffer_with_time(0.5, None, clock),
        "retry": ops.catch(lambda _, source: timer(1).pipe(ops.concat(source))),
    }


each_own = pytest.mark.parametrize("name", list(own_schedulers(TestScheduler())))


@each_own
def test_after_an_error_nothing_is_acknowledged_whatever_scheduler_an_operator_has(marbles, name):
    broker, sink = marbles.mqtt("t q1 : -a-b-(cde)---"), marbles.sink()
    own = own_schedulers(marbles.scheduler)[name]
    failing = read(broker).pipe(own, ops.buffer_with_count(3), ops.map(boom))
    with pytest.raises(OSError, match="boom"):
        marbles.run(run_async(failing, sink, seconds=8, log=False))
    assert (sink.stored, keys(broker)) == ([], [])


@each_own
def test_the_end_of_a_run_reaches_a_source_whatever_scheduler_an_operator_has(marbles, name):
    broker, sink = marbles.mqtt("t q1 : -a-b-c---"), marbles.sink()
    completions = []
    source = read(broker).pipe(ops.do_action(on_completed=lambda: completions.append("source")))
    own = own_schedulers(marbles.scheduler)[name]
    report = marbles.run(run_async(source.pipe(own), sink, seconds=8, log=False))
    assert completions == ["source"]
    assert report.received == 3
    assert report.stored + report.filtered + report.unacknowledged == 3
    assert len(keys(broker)) == report.stored + report.filtered


def test_what_is_subscribed_again_behind_a_timer_belongs_to_the_run(marbles):
    broker, sink, attempts = marbles.mqtt("t q1 : -(abc)------"), marbles.sink(), []

    def fails_once(message):
        attempts.append(message.payload)
        return message.payload if len(attempts) > 1 else boom(message)

    again = ops.catch(lambda _, source: timer(1).pipe(ops.ignore_elements(), ops.concat(source)))
    flow = read(broker).pipe(ops.map(fails_once), again, ops.buffer_with_count(2), ops.map(boom))
    with pytest.raises(OSError, match="boom"):
        marbles.run(run_async(flow, sink, seconds=8, log=False))
    assert attempts == ["a", "a", "b"]
    assert (sink.stored, keys(broker)) == ([], [])


# -- shared things begin again ---------------------------------------------------------------------


def test_what_is_shared_is_subscribed_again_after_an_error(marbles):
    source = marbles.cold("-a-#", error=OSError("cable"))
    expected = "           -a--a-#"
    used = ["^--!", "---^--!"]
    marbles.check(source.pipe(ops.share(), ops.retry(2)), expected, error=OSError("cable"))
    assert source.subscriptions == used


def test_what_is_shared_is_subscribed_again_after_its_end(marbles):
    source = marbles.cold("-a|")
    expected = "           -a-a|"
    used = ["^-!", "--^-!"]
    marbles.check(source.pipe(ops.share(), ops.repeat(2)), expected)
    assert source.subscriptions == used


def test_a_shared_pipeline_runs_twice(marbles):
    source = marbles.cold("-a-b|")
    shared = source.pipe(ops.share())
    sinks = marbles.sink(), marbles.sink()
    for sink in sinks:
        marbles.run(run_async(shared, sink, seconds=9, log=False))
    assert [sink.stored for sink in sinks] == [["a", "b"], ["a", "b"]]


# -- threads ---------------------------------------------------------------------------------------


def on_a_thread(act: Callable[[Any], None]) -> Observable[Any]:
    def subscribe(observer, _=None):
        threading.Thread(target=act, args=(observer,)).start()

    return reactivex.create(subscribe)


def in_a_future(act: Callable[[Future], None]) -> Observable[Any]:
    def subscribe(observer, scheduler=None):
        future = Future()
        threading.Thread(target=act, args=(future,)).start()
        return reactivex.from_future(future).subscribe(observer, scheduler=scheduler)

    return reactivex.create(subscribe)


ELSEWHERE = {
    "create": on_a_thread,
    "observe_on": lambda end: on_a_thread(end).pipe(ops.observe_on(NewThreadScheduler())),
    "subscribe_on": lambda end: reactivex.create(lambda o, _=None: end(o)).pipe(
        ops.subscribe_on(NewThreadScheduler())
    ),
    "delay": lambda end: on_a_thread(end).pipe(ops.delay(0.001, TimeoutScheduler())),
}


def run_alone(flow):
    """Run it with a sink that keeps nothing; what hangs is an error."""

    async def main():
        return await asyncio.wait_for(run_async(flow, reactivex.Observer(), log=False), PATIENCE)

    return asyncio.run(main())


@pytest.mark.parametrize("make", ELSEWHERE.values(), ids=ELSEWHERE)
def test_an_error_on_another_thread_ends_the_run(make):
    with pytest.raises(OSError, match="gone"):
        run_alone(make(lambda observer: observer.on_error(OSError("gone"))))


@pytest.mark.parametrize("make", ELSEWHERE.values(), ids=ELSEWHERE)
def test_an_end_on_another_thread_ends_the_run(make):
    run_alone(make(lambda observer: observer.on_completed()))


def test_a_future_that_fails_on_another_thread_ends_the_run():
    with pytest.raises(OSError, match="gone"):
        run_alone(in_a_future(lambda future: future.set_exception(OSError("gone"))))


def test_a_future_that_is_done_on_another_thread_ends_the_run():
    run_alone(in_a_future(lambda future: future.set_result(1)))


CUTTING = {
    "buffer_with_time": (ops.buffer_with_time(0.001),),
    "buffer_with_time_or_count": (ops.buffer_with_time_or_count(0.001, 3),),
    "window_with_time": (ops.window_with_time(0.001), ops.flat_map(ops.to_list())),
    "window_with_time_or_count": (
        ops.window_with_time_or_count(0.001, 3),
        ops.flat_map(ops.to_list()),
    ),
}


@pytest.fixture
def hasty_switches():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty_switches")
@pytest.mark.parametrize("operators", CUTTING.values(), ids=CUTTING)
def test_a_thread_scheduler_and_items_from_another_thread_lose_nothing(operators, monkeypatch):
    source, got, raised, ended = Subject(), [], [], threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda args: raised.append(args.exc_value))
    source.pipe(*operators).subscribe(
        got.extend, raised.append, ended.set, scheduler=NewThreadScheduler()
    )
    for number in range(5_000):
        source.on_next(number)
    source.on_completed()
    assert ended.wait(PATIENCE)
    assert raised == []
    assert got == [*range(5_000)]


# -- what the user is told -------------------------------------------------------------------------


def test_a_cancelled_future_is_an_error_of_the_stream():
    async def main():
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        future.cancel()
        flow = reactivex.of(1).pipe(ops.flat_map(lambda _: future))
        try:
            await run_async(flow, reactivex.Observer(on_error=lambda _: None), log=False)
        except asyncio.CancelledError:
            return "cancelled itself"
        except Exception as error:  # noqa: BLE001
            return type(error)
        return "ended"

    found = asyncio.run(main())
    assert isinstance(found, type)


def test_who_gives_flat_map_a_coroutine_function_is_told_what_to_use(marbles):
    broker, sink, made = marbles.mqtt("t q1 : -a---"), marbles.sink(), []

    async def look_up(message):
        return message.payload

    def looking_up(message):
        made.append(look_up(message))
        return made[-1]

    try:
        flow = read(broker).pipe(ops.flat_map(looking_up))
        with pytest.raises(Exception, match="ensure_future"):
            marbles.run(run_async(flow, sink, seconds=3, log=False))
    finally:
        for coroutine in made:
            coroutine.close()


def test_the_scheduler_that_a_function_gets_has_the_attributes_of_the_one_given():
    clock, found = TestScheduler(), []
    made = reactivex.create(lambda observer, scheduler: found.append(scheduler.clock))
    made.pipe(ops.take_until(never())).subscribe(scheduler=clock)
    assert found == [0.0]
