"""The logic of an alarm, tested in virtual time: a spike is ignored, what lasts is told once."""

from reactivex import Observable

from rxflow import operators as ops
from rxflow.testing import Marbles


def is_hot(celsius: float) -> bool:
    return celsius > 90


def alarm(celsius: Observable[float]) -> Observable[bool]:
    """True when it has stayed above 90 for four seconds, False when it has stayed below."""
    return celsius.pipe(
        ops.map(is_hot),
        ops.distinct_until_changed(),
        ops.debounce(4),
        ops.distinct_until_changed(),
    )


def test_a_spike_is_ignored(marbles: Marbles) -> None:
    boiler = marbles.hot("c-----h-c-----", c=60, h=95)
    marbles.check(alarm(boiler), "----f", f=False)


def test_what_lasts_is_told_once(marbles: Marbles) -> None:
    boiler = marbles.hot("c-----h--h-h-h------c-----", c=60, h=95)
    marbles.check(alarm(boiler), "----f-----t-------------f", t=True, f=False)


def test_the_last_state_is_told_when_the_boiler_is_switched_off(marbles: Marbles) -> None:
    boiler = marbles.hot("c-----h-|", c=60, h=95)
    marbles.check(alarm(boiler), "----f---(t|)", t=True, f=False)
    assert boiler.subscriptions == "^-------!"
