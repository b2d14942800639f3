"""Every timed operator, reactivex's and rxflow's, goes by virtual time however it is subscribed."""

import threading

import pytest
import reactivex
from reactivex import operators as rx

from rxflow import operators as ops
from rxflow import run_async
from rxflow.testing.diagrams.notation import parse

SOURCE = "-a-b---c-d|"
AB, C, D = ["a", "b"], ["c"], ["d"]
BATCHES = {"x": AB, "y": C, "z": D}

# name: what it is given, what it does, and what the keys are
TIMED = {
    "buffer_with_time": ((4,), "----x---y-(z|)", BATCHES),
    "buffer_with_time_or_count": ((4, 2), "---x---y--(z|)", BATCHES),
    "debounce": ((2,), "-----b----(d|)", {}),
    "delay": ((2,), "---a-b---c-d|", {}),
    "delay_subscription": ((2,), "---b---c-d|", {}),
    "sample": ((3,), "---b-----d--|", {}),
    "skip_last_with_time": ((4,), "-------(ab)--|", {}),
    "skip_until_with_time": ((4,), "-------c-d|", {}),
    "skip_with_time": ((4,), "-------c-d|", {}),
    "take_last_with_time": ((4,), "----------(cd|)", {}),
    "take_until_with_time": ((4,), "-a-b|", {}),
    "take_with_time": ((4,), "-a-b|", {}),
    "throttle_first": ((3,), "-a-----c--|", {}),
    "throttle_with_timeout": ((2,), "-----b----(d|)", {}),
    "time_interval": ((), "-a-b---c-b|", {"a": 1.0, "b": 2.0, "c": 4.0}),
    "timeout": ((3,), "-a-b--#", {}),
    "timestamp": ((), "-a-b---c-d|", {"a": 1.0, "b": 3.0, "c": 7.0, "d": 9.0}),
    "window_with_time": ((4,), "----x---y-(z|)", BATCHES),
    "window_with_time_or_count": ((4, 2), "---x---y--(z|)", BATCHES),
}
READABLE = {
    "time_interval": rx.map(lambda item: item.interval.total_seconds()),
    "timestamp": rx.map(lambda item: item.timestamp.timestamp()),
    "window_with_time": rx.flat_map(rx.to_list()),
    "window_with_time_or_count": rx.flat_map(rx.to_list()),
}


def pipeline(marbles, room, name, **scheduler):
    arguments, _, _ = TIMED[name]
    operator = getattr(room, name)(*arguments, **scheduler)
    return marbles.hot(SOURCE).pipe(operator, READABLE.get(name, rx.filter(lambda _: True)))


@pytest.mark.parametrize("name", TIMED)
@pytest.mark.parametrize("room", [rx, ops], ids=["reactivex", "rxflow"])
@pytest.mark.parametrize("is_given", [True, False])
def test_a_timed_operator_is_virtual_with_a_scheduler_of_its_own_and_without(
    marbles, room, name, is_given
):
    _, expected, values = TIMED[name]
    scheduler = {"scheduler": marbles.scheduler} if is_given else {}
    error = Exception("Timeout") if "#" in expected else None
    marbles.check(pipeline(marbles, room, name, **scheduler), expected, error=error, **values)


@pytest.mark.parametrize("name", TIMED)
@pytest.mark.parametrize("room", [rx, ops], ids=["reactivex", "rxflow"])
def test_a_timed_operator_is_virtual_in_a_coroutine(marbles, room, name):
    _, text, values = TIMED[name]
    threads, loop, seen = threading.active_count(), marbles.loop, []
    error = Exception("Timeout") if "#" in text else None
    expected = parse(text, values=values, error=error).events
    sink = reactivex.Observer(lambda item: seen.append((round(loop.time() * 1e9), item)))
    running = run_async(pipeline(marbles, room, name), sink, log=False)
    if expected[-1].kind == "error":
        with pytest.raises(Exception, match="Timeout"):
            marbles.run(running)
    else:
        marbles.run(running)
    assert seen == [(event.time, event.value) for event in expected if event.kind == "next"]
    assert loop.time() * 1e9 == pytest.approx(expected[-1].time)
    assert threading.active_count() == threads
