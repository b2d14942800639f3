"""For every operator, how it is used: one table, for both differential tests.

A case is a function of the module that the operators are taken from, reactivex's or ours, and of
what the test provides; it returns the operators of one pipeline, of which the named one matters.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import reactivex
from reactivex import Observable
from reactivex.disposable import Disposable
from reactivex.testing import TestScheduler

from rxflow.operators.envelope import payload_of as v


@dataclass(frozen=True)
class Given:
    """What a case may use besides its operators."""

    other: Observable[Any]
    clock: TestScheduler
    number: int = 2


Case = Callable[[Any, Given], tuple[Callable[[Any], Any], ...]]


def number(item: Any) -> int:
    value = v(item)
    return value if type(value) is int else len(repr(value))


def even(item: Any) -> bool:
    return number(item) % 2 == 0


def pair(item: Any) -> tuple[Any, int]:
    return (v(item), 7)


def both(operator: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda source: reactivex.merge(*operator(source))


def awaited(to_future: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def subscribe(source, observer, _):
        future = source.pipe(to_future(Future))

        def done(future):
            if error := future.exception():
                observer.on_error(error)
            else:
                observer.on_next(future.result())
                observer.on_completed()

        future.add_done_callback(done)
        return Disposable(future.cancel)

    return lambda source: Observable(lambda observer, s=None: subscribe(source, observer, s))


def looped(times: int) -> Callable[[Any], bool]:
    left = [times]

    def condition(_: Any) -> bool:
        left[0] -= 1
        return left[0] >= 0

    return condition


def soon(_: Any = None) -> Observable[Any]:
    return reactivex.timer(1.5)


def twice(item: Any) -> Observable[Any]:
    return reactivex.of(number(item), -1)


def grown(item: Any) -> Observable[Any]:
    n = number(item)
    return reactivex.of(n + 10) if n < 15 else reactivex.empty()


def streams(ops: Any) -> Callable[[Any], Any]:
    return ops.map(lambda item: reactivex.of(v(item), "end"))


CASES: dict[str, Case | tuple[Case, ...]] = {
    "all": lambda o, g: (o.all(lambda x: number(x) < g.number + 2),),
    "amb": lambda o, g: (o.amb(g.other),),
    "as_observable": lambda o, g: (o.as_observable(),),
    "average": (
        lambda o, g: (o.average(number),),
        lambda o, g: (o.average(),),
    ),
    "buffer": lambda o, g: (o.buffer(g.other),),
    "buffer_toggle": lambda o, g: (o.buffer_toggle(g.other, soon),),
    "buffer_when": lambda o, g: (o.buffer_when(soon),),
    "buffer_with_count": (
        lambda o, g: (o.buffer_with_count(g.number),),
        lambda o, g: (o.buffer_with_count(2, g.number),),
        lambda o, g: (o.buffer_with_count(g.number, 1),),
    ),
    "buffer_with_time": (
        lambda o, g: (o.buffer_with_time(g.number + 0.25),),
        lambda o, g: (o.buffer_with_time(g.number + 0.25, 1.25),),
        lambda o, g: (o.buffer_with_time(1.25, g.number + 0.5),),
    ),
    "buffer_with_time_or_count": lambda o, g: (o.buffer_with_time_or_count(2.25, g.number),),
    "catch": (
        lambda o, g: (o.catch(g.other),),
        lambda o, g: (o.catch(lambda _, source: source.pipe(o.take(1))),),
    ),
    "combine_latest": lambda o, g: (o.combine_latest(g.other),),
    "concat": lambda o, g: (o.concat(g.other),),
    "concat_all": lambda o, g: (streams(o), o.concat_all()),
    "concat_map": (
        lambda o, g: (o.concat_map(twice),),
        lambda o, g: (o.concat_map(lambda x: soon()),),
    ),
    "contains": (
        lambda o, g: (o.contains(g.number),),
        lambda o, g: (o.contains(g.number, lambda a, b: a is b),),
    ),
    "count": (
        lambda o, g: (o.count(),),
        lambda o, g: (o.count(even),),
    ),
    "debounce": lambda o, g: (o.debounce(g.number - 0.25),),
    "default_if_empty": lambda o, g: (o.default_if_empty("none"),),
    "delay": lambda o, g: (o.delay(g.number + 0.25),),
    "delay_subscription": lambda o, g: (o.delay_subscription(0.25),),
    "delay_with_mapper": (
        lambda o, g: (o.delay_with_mapper(soon),),
        lambda o, g: (o.delay_with_mapper(reactivex.timer(0.5), soon),),
    ),
    "dematerialize": lambda o, g: (o.materialize(), o.dematerialize()),
    "distinct": (
        lambda o, g: (o.distinct(),),
        lambda o, g: (o.distinct(even),),
        lambda o, g: (o.distinct(lambda x: x, lambda a, b: a == b),),
    ),
    "distinct_until_changed": (
        lambda o, g: (o.distinct_until_changed(),),
        lambda o, g: (o.distinct_until_changed(lambda x: number(x) // 2),),
    ),
    "do": lambda o, g: (o.do(reactivex.subject.Subject()),),
    "do_action": lambda o, g: (o.do_action(lambda _: None),),
    "do_while": lambda o, g: (o.do_while(looped(1)),),
    "element_at": lambda o, g: (o.element_at(g.number),),
    "element_at_or_default": lambda o, g: (o.element_at_or_default(g.number + 9, "none"),),
    "exclusive": lambda o, g: (streams(o), o.exclusive()),
    "expand": lambda o, g: (o.expand(grown),),
    "filter": lambda o, g: (o.filter(even),),
    "filter_indexed": lambda o, g: (o.filter_indexed(lambda x, i: i % g.number == 0),),
    "finally_action": lambda o, g: (o.finally_action(lambda: None),),
    "find": lambda o, g: (o.find(lambda x, i, _: i == g.number),),
    "find_index": (
        lambda o, g: (o.find_index(lambda x, i, _: number(x) == g.number),),
        lambda o, g: (o.find_index(lambda x, i, _: False),),
    ),
    "first": (
        lambda o, g: (o.first(),),
        lambda o, g: (o.first(even),),
    ),
    "first_or_default": lambda o, g: (o.first_or_default(lambda x: number(x) > 99, "none"),),
    "flat_map": (
        lambda o, g: (o.flat_map(twice),),
        lambda o, g: (o.flat_map(lambda x: [v(x), v(x)]),),
        lambda o, g: (o.flat_map(lambda x: reactivex.timer(1.5)),),
    ),
    "flat_map_indexed": lambda o, g: (o.flat_map_indexed(lambda x, i: [v(x), i]),),
    "flat_map_latest": lambda o, g: (o.flat_map_latest(soon),),
    "fork_join": lambda o, g: (o.fork_join(g.other),),
    "group_by": (
        lambda o, g: (o.group_by(even),),
        lambda o, g: (o.group_by(even, lambda x: [v(x)]),),
        lambda o, g: (o.group_by(even), o.flat_map(lambda s: s.pipe(o.to_list()))),
        lambda o, g: (o.group_by(even), o.flat_map(lambda s: s.pipe(o.buffer_with_count(2)))),
    ),
    "group_by_until": lambda o, g: (o.group_by_until(even, None, soon),),
    "group_join": lambda o, g: (o.group_join(g.other, soon, soon),),
    "ignore_elements": lambda o, g: (o.ignore_elements(),),
    "is_empty": lambda o, g: (o.is_empty(),),
    "join": lambda o, g: (o.join(g.other, soon, soon),),
    "last": (
        lambda o, g: (o.last(),),
        lambda o, g: (o.last(even),),
    ),
    "last_or_default": lambda o, g: (o.last_or_default("none", lambda x: number(x) > 3),),
    "map": lambda o, g: (o.map(lambda x: [v(x)]),),
    "map_indexed": (
        lambda o, g: (o.map_indexed(lambda x, i: (v(x), i)),),
        lambda o, g: (o.map_indexed(),),
    ),
    "materialize": lambda o, g: (o.materialize(),),
    "max": (
        lambda o, g: (o.max(),),
        lambda o, g: (o.max(lambda a, b: number(b) - number(a)),),
    ),
    "max_by": (
        lambda o, g: (o.max_by(lambda x: number(x) // 2),),
        lambda o, g: (o.max_by(lambda x: x),),
    ),
    "merge": (
        lambda o, g: (o.merge(g.other),),
        lambda o, g: (o.map(lambda x: soon()), o.merge(max_concurrent=1)),
    ),
    "merge_all": lambda o, g: (streams(o), o.merge_all()),
    "min": lambda o, g: (o.min(),),
    "min_by": (
        lambda o, g: (o.min_by(lambda x: number(x) // 2),),
        lambda o, g: (o.min_by(lambda x: x, lambda a, b: b - a),),
    ),
    "multicast": lambda o, g: (o.multicast(reactivex.subject.Subject()), o.ref_count()),
    "observe_on": lambda o, g: (o.observe_on(g.clock),),
    "on_error_resume_next": lambda o, g: (o.on_error_resume_next(g.other),),
    "pairwise": lambda o, g: (o.pairwise(),),
    "partition": lambda o, g: (both(o.partition(even)),),
    "partition_indexed": lambda o, g: (both(o.partition_indexed(lambda x, i: i % 2 == 0)),),
    "pluck": lambda o, g: (o.map(lambda x: {"k": v(x)}), o.pluck("k")),
    "pluck_attr": lambda o, g: (o.map(number), o.pluck_attr("real")),
    "publish": (
        lambda o, g: (o.publish(), o.ref_count()),
        lambda o, g: (o.publish(lambda s: s.pipe(o.take(g.number))),),
    ),
    "publish_value": lambda o, g: (o.publish_value("none"), o.ref_count()),
    "reduce": (
        lambda o, g: (o.reduce(lambda total, x: total + number(x), 0),),
        lambda o, g: (o.reduce(lambda kept, x: max(kept, x, key=number)),),
    ),
    "ref_count": lambda o, g: (o.publish(), o.ref_count()),
    "repeat": lambda o, g: (o.take(g.number), o.repeat(2)),
    "replay": (
        lambda o, g: (o.replay(1), o.ref_count()),
        lambda o, g: (o.replay(mapper=lambda s: s.pipe(o.concat(s))),),
    ),
    "retry": lambda o, g: (o.retry(2),),
    "sample": (
        lambda o, g: (o.sample(g.number + 0.25),),
        lambda o, g: (o.sample(g.other),),
    ),
    "scan": (
        lambda o, g: (o.scan(lambda total, x: total + number(x), 0),),
        lambda o, g: (o.scan(lambda kept, x: max(kept, x, key=number)),),
        lambda o, g: (o.scan(lambda seen, x: [*seen, x], []),),
    ),
    "sequence_equal": (
        lambda o, g: (o.sequence_equal(g.other),),
        lambda o, g: (o.sequence_equal([1, 2, 3]),),
    ),
    "share": lambda o, g: (o.share(),),
    "single": (
        lambda o, g: (o.single(),),
        lambda o, g: (o.single(lambda x: number(x) == g.number),),
    ),
    "single_or_default": lambda o, g: (o.single_or_default(lambda x: number(x) > 99, "none"),),
    "single_or_default_async": lambda o, g: (o.take(1), o.single_or_default_async()),
    "skip": lambda o, g: (o.skip(g.number),),
    "skip_last": lambda o, g: (o.skip_last(g.number),),
    "skip_last_with_time": lambda o, g: (o.skip_last_with_time(g.number),),
    "skip_until": lambda o, g: (o.skip_until(g.other),),
    "skip_until_with_time": lambda o, g: (o.skip_until_with_time(g.number + 0.25),),
    "skip_while": lambda o, g: (o.skip_while(lambda x: number(x) < 3),),
    "skip_while_indexed": lambda o, g: (o.skip_while_indexed(lambda x, i: i < g.number),),
    "skip_with_time": lambda o, g: (o.skip_with_time(g.number + 0.25),),
    "slice": (
        lambda o, g: (o.slice(1, 5, g.number),),
        lambda o, g: (o.slice(-g.number, None),),
        lambda o, g: (o.slice(0, -g.number),),
        lambda o, g: (o.slice(-3, 4),),
    ),
    "some": (
        lambda o, g: (o.some(),),
        lambda o, g: (o.some(lambda x: number(x) > 3),),
    ),
    "starmap": (
        lambda o, g: (o.map(pair), o.starmap(lambda a, b: [a, b])),
        lambda o, g: (o.zip(g.other), o.starmap(lambda a, b: [v(a), v(b)])),
        lambda o, g: (o.pairwise(), o.starmap(lambda a, b: number(a) - number(b))),
    ),
    "starmap_indexed": lambda o, g: (o.map(pair), o.starmap_indexed(lambda a, i: [a, i])),
    "start_with": lambda o, g: (o.start_with("a", "b"),),
    "subscribe_on": lambda o, g: (o.subscribe_on(g.clock),),
    "sum": (
        lambda o, g: (o.sum(),),
        lambda o, g: (o.sum(number),),
    ),
    "switch_latest": lambda o, g: (streams(o), o.switch_latest()),
    "switch_map": lambda o, g: (o.switch_map(soon),),
    "switch_map_indexed": lambda o, g: (o.switch_map_indexed(lambda x, i: reactivex.of(i)),),
    "take": lambda o, g: (o.take(g.number),),
    "take_last": lambda o, g: (o.take_last(g.number),),
    "take_last_buffer": lambda o, g: (o.take_last_buffer(g.number),),
    "take_last_with_time": lambda o, g: (o.take_last_with_time(g.number + 0.25),),
    "take_until": lambda o, g: (o.take_until(reactivex.timer(g.number + 0.25)),),
    "take_until_with_time": lambda o, g: (o.take_until_with_time(g.number + 0.25),),
    "take_while": lambda o, g: (o.take_while(lambda x: number(x) < 3, inclusive=True),),
    "take_while_indexed": lambda o, g: (o.take_while_indexed(lambda x, i: i < g.number),),
    "take_with_time": lambda o, g: (o.take_with_time(g.number + 0.25),),
    "tap": lambda o, g: (o.tap(lambda _: None),),
    "throttle_first": lambda o, g: (o.throttle_first(g.number - 0.25),),
    "throttle_with_mapper": lambda o, g: (o.throttle_with_mapper(soon),),
    "throttle_with_timeout": lambda o, g: (o.throttle_with_timeout(g.number - 0.25),),
    "time_interval": lambda o, g: (o.time_interval(),),
    "timeout": lambda o, g: (o.timeout(g.number + 0.25, g.other),),
    "timeout_with_mapper": lambda o, g: (
        o.timeout_with_mapper(reactivex.timer(g.number), soon, g.other),
    ),
    "timestamp": lambda o, g: (o.timestamp(),),
    "to_dict": (
        lambda o, g: (o.to_dict(number),),
        lambda o, g: (o.to_dict(even, number),),
    ),
    "to_future": lambda o, g: (awaited(o.to_future),),
    "to_iterable": lambda o, g: (o.to_iterable(),),
    "to_list": lambda o, g: (o.to_list(),),
    "to_marbles": lambda o, g: (o.map(number), o.to_marbles(1.0)),
    "to_set": lambda o, g: (o.to_set(),),
    "while_do": lambda o, g: (o.while_do(looped(2)),),
    "window": lambda o, g: (o.window(g.other),),
    "window_toggle": lambda o, g: (o.window_toggle(g.other, soon),),
    "window_when": lambda o, g: (o.window_when(soon),),
    "window_with_count": (
        lambda o, g: (o.window_with_count(g.number),),
        lambda o, g: (o.window_with_count(2, g.number),),
        lambda o, g: (o.window_with_count(3, 1), o.flat_map(lambda s: s.pipe(o.to_list()))),
        lambda o, g: (o.window_with_count(3), o.flat_map(lambda s: s.pipe(o.delay(1.25)))),
        lambda o, g: (o.window_with_count(g.number, 1),),
    ),
    "window_with_time": (
        lambda o, g: (o.window_with_time(g.number + 0.25),),
        lambda o, g: (o.window_with_time(g.number + 0.25, 1.25),),
        lambda o, g: (o.window_with_time(1.25, g.number + 0.5),),
    ),
    "window_with_time_or_count": lambda o, g: (o.window_with_time_or_count(2.25, g.number),),
    "with_latest_from": lambda o, g: (o.with_latest_from(g.other),),
    "zip": lambda o, g: (o.zip(g.other),),
    "zip_latest": lambda o, g: (o.zip_latest(g.other),),
    "zip_with_iterable": lambda o, g: (o.zip_with_iterable("abc"),),
    "zip_with_list": lambda o, g: (o.zip_with_list(["x", "y"]),),
}

OURS_ALONE = {"decode_json": lambda o, g: (o.map(lambda x: str(v(x))), o.decode_json())}
"""What reactivex has no original of."""


def each() -> list[tuple[str, Case]]:
    """Every case, named."""
    found: list[tuple[str, Case]] = []
    for name, made in CASES.items():
        cases = made if isinstance(made, tuple) else (made,)
        found += [(f"{name}-{n}" if len(cases) > 1 else name, c) for n, c in enumerate(cases)]
    return found
