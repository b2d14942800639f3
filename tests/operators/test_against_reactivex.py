"""On plain values ours do what reactivex's do, at the same times, save the documented two."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reactivex import operators as rx
from reactivex import timer
from streams import on_completed, on_error, on_next, seen

from rxflow import operators as ops

TIMES = st.integers(1, 60)
VALUES = st.one_of(st.integers(-3, 3), st.text(max_size=2), st.none(), st.booleans())
COUNTS = st.integers(1, 5)
SPANS = st.integers(1, 12)


@st.composite
def streams(draw: st.DrawFn) -> list:
    """Items at times that rise, several in one instant too, and an end of any kind or none."""
    times = sorted(draw(st.lists(TIMES, max_size=12)))
    events = [on_next(time, draw(VALUES)) for time in times]
    last = max(times, default=0) + draw(st.integers(0, 3)) or 1
    end = draw(st.sampled_from([on_completed(last), on_error(last, OSError("broken")), None]))
    return [*events, end] if end else events


def same(ours, theirs, events) -> None:
    def typed(operator):
        found = seen(lambda _, source: source.pipe(operator), *events, until=100)
        return [(*event, repr(event[2])) for event in found if event[1:] != ("next", [])]

    assert typed(ours) == typed(theirs)


@given(streams(), st.integers(-2, 2))
def test_map(events, zero):
    def mapper(value):
        return 1 // (value - zero) if type(value) is int else [value]

    same(ops.map(mapper), rx.map(mapper), events)


@given(streams(), TIMES)
def test_take_until_and_its_kin(events, time):
    same(ops.take_until(timer(time)), rx.take_until(timer(time)), events)
    same(ops.take_until_with_time(time), rx.take_until_with_time(time), events)
    same(ops.take_with_time(time), rx.take_with_time(time), events)


@given(streams(), COUNTS, st.one_of(st.none(), COUNTS))
def test_buffer_with_count(events, count, skip):
    same(ops.buffer_with_count(count, skip), rx.buffer_with_count(count, skip), events)


@given(streams(), SPANS, st.one_of(st.none(), SPANS))
def test_buffer_with_time(events, span, shift):
    same(ops.buffer_with_time(span, shift), rx.buffer_with_time(span, shift), events)


@given(streams(), SPANS, COUNTS)
def test_buffer_with_time_or_count(events, span, count):
    ours, theirs = ops.buffer_with_time_or_count, rx.buffer_with_time_or_count
    same(ours(span, count), theirs(span, count), events)


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
