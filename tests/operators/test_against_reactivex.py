"""On plain values ours do what reactivex's do, at the same times, save the documented two."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from operators.cases import CASES, OURS_ALONE, Given, each
from reactivex import Notification, Observable, timer
from reactivex import operators as rx
from reactivex.testing import TestScheduler
from streams import on_completed, on_error, on_next, seen

from rxflow import operators as ops
from rxflow.flow import Flow

TIMES = st.integers(1, 12)
VALUES = st.one_of(st.integers(-3, 5), st.text("ab", max_size=2), st.none(), st.booleans())


@st.composite
def streams(draw: st.DrawFn) -> list[Any]:
    """Items at times that rise, several in one instant too, and an end of any kind or none."""
    times = sorted(draw(st.lists(TIMES, max_size=8)))
    values = draw(st.sampled_from([VALUES, st.integers(0, 6)]))
    events = [on_next(time, draw(values)) for time in times]
    last = max(times, default=0) + draw(st.integers(0, 3)) or 1
    end = draw(st.sampled_from([on_completed(last), on_error(last, OSError("broken")), None]))
    return [*events, end] if end else events


def shown(value: Any) -> str:
    if isinstance(value, set):  # in no order
        return repr(sorted(value, key=repr))
    return str(value) if isinstance(value, Notification) else repr(value)


def log_of(module: Any, case: Any, main: list[Any], other: list[Any], number: int) -> list[Any]:
    """All that an operator does with a stream: each notification with its time, inner ones too."""
    clock = TestScheduler()
    source = clock.create_cold_observable(list(main))
    given = Given(clock.create_cold_observable(list(other)), clock, number)
    log: list[Any] = []
    inner = 0

    def watch(observable: Observable[Any], name: int) -> Any:
        def on_next(value: Any) -> None:
            nonlocal inner
            if isinstance(value, tuple) and value and isinstance(value[-1], Observable):
                log.append((clock.clock, name, "left", repr(value[0])))
                value = value[-1]
            if isinstance(value, Observable):
                inner += 1
                log.append((clock.clock, name, "inner", getattr(value, "key", None)))
                watch(value, inner)
            elif value != [] or not is_batching:
                log.append((clock.clock, name, "next", type(value).__name__, shown(value)))

        return observable.subscribe(
            on_next,
            lambda error: log.append((clock.clock, name, type(error).__name__, str(error))),
            lambda: log.append((clock.clock, name, "completed")),
            scheduler=clock,
        )

    operators = case(module, given)
    is_batching = "buffer" in repr(case.__code__.co_names)
    subscription = watch(source.pipe(*operators), 0)
    clock.advance_to(40)
    subscription.dispose()
    clock.advance_to(41)  # reactivex's `subscribe_on` lets go of its source through the scheduler
    log.extend((use.subscribe, use.unsubscribe) for use in source.subscriptions)
    return log


@pytest.mark.parametrize(("name", "case"), each(), ids=[name for name, _ in each()])
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(main=streams(), other=streams(), number=st.integers(1, 4))
def test_each_operator_does_what_reactivex_does_when_it_does(name, case, main, other, number):
    if name == "delay_subscription":  # an error overtakes the items of its instant in reactivex's
        main = [event for event in main if event.value.kind != "E"]
    ours = log_of(ops, case, main, other, number)
    assert ours == log_of(rx, case, main, other, number)


class Fluent:
    """The operators as methods of a `Flow`, called as if they were functions."""

    def __getattr__(self, name: str) -> Any:
        def make(*args: Any, **kwargs: Any) -> Any:
            def apply(source: Observable[Any]) -> Any:
                flow = source if isinstance(source, Flow) else Flow(source, label="")
                return getattr(flow, name)(*args, **kwargs)

            return apply

        return make


AS_METHODS = [(name, case) for name, case in each() if name != "to_future"]  # on another thread


@pytest.mark.parametrize(("name", "case"), AS_METHODS, ids=[name for name, _ in AS_METHODS])
@pytest.mark.parametrize("end", [on_completed(7), on_error(7, OSError("broken"))])
def test_each_operator_does_the_same_as_a_method(name, case, end):
    main, other = [on_next(n, value) for n, value in enumerate((1, 2, 2, 0), 1)], [on_next(2, 9)]
    ours = log_of(Fluent(), case, [*main, end], other, 2)
    assert ours == log_of(rx, case, [*main, end], other, 2)


def test_every_operator_has_a_case():
    assert set(CASES) | set(OURS_ALONE) == set(ops.OPERATORS)


@pytest.mark.parametrize(("name", "case"), each(), ids=[name for name, _ in each()])
def test_each_case_uses_the_operator_that_it_is_named_for(name, case):
    assert name.split("-")[0] in case.__code__.co_names


@pytest.mark.parametrize("name", ["buffer_with_time", "buffer_with_time_or_count"])
def test_the_first_difference_is_that_no_batch_is_empty(name):
    arguments = (5.0,) if name == "buffer_with_time" else (5.0, 9)
    events = [on_completed(12)]
    theirs = seen(lambda _, s: s.pipe(getattr(rx, name)(*arguments)), *events)
    ours = seen(lambda _, s: s.pipe(getattr(ops, name)(*arguments)), *events)
    assert [event[2] for event in theirs] == [[], [], [], None]
    assert [event[2] for event in ours] == [None]


def test_the_second_difference_is_that_the_end_of_time_does_not_discard():
    events = [on_next(1, "a")]
    theirs = seen(lambda _, s: s.pipe(rx.to_list(), rx.take_until(timer(5.0))), *events)
    ours = seen(lambda _, s: s.pipe(ops.to_list(), ops.take_until(timer(5.0))), *events)
    assert theirs == [(5, "completed", None)]
    assert ours == [(5, "next", ["a"]), (5, "completed", None)]
