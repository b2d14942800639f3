from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from pkgutil import iter_modules

import pytest
import reactivex
from operators.cases import OURS_ALONE
from reactivex import operators as rx
from reactivex.subject import Subject
from streams import on_completed, on_error, on_next, seen

from rxflow import operators as ops
from rxflow.flow import Flow
from rxflow.operators.operator import Operator
from rxflow.scope import Scope, ScopedScheduler


def test_the_names_are_those_of_reactivex_and_ours():
    assert set(ops.__all__) == {*rx.__all__, *OURS_ALONE} == set(ops.OPERATORS)


@pytest.mark.parametrize("name", ops.OPERATORS)
def test_every_operator_is_exported_and_a_method(name):
    assert getattr(ops, name) is ops.OPERATORS[name]
    assert vars(Flow)[name].__wrapped__ is ops.OPERATORS[name]


@pytest.mark.parametrize("name", sorted({*rx.__all__} - {"do"}))
def test_every_operator_takes_what_reactivex_takes(name):
    theirs = inspect.signature(getattr(rx, name)).parameters
    ours = list(inspect.signature(getattr(ops, name)).parameters)
    assert ours[: len(theirs)] == list(theirs)


def test_each_operator_is_declared_once_and_is_the_one_that_is_exported():
    modules = [
        importlib.import_module(f"{ops.__name__}.{one.name}") for one in iter_modules(ops.__path__)
    ]
    declared = [
        (name, vars(module)[name]) for module in modules for name in getattr(module, "__all__", ())
    ]
    assert sorted(name for name, _ in declared) == sorted(ops.OPERATORS)
    assert "map" in ops.OPERATORS
    for name, made in declared:
        assert made.__name__ == name
        assert ops.OPERATORS[name] is made


def test_a_method_has_the_arguments_of_its_function():
    flow = Flow(reactivex.never(), label="x")
    for name, make in ops.OPERATORS.items():
        assert inspect.signature(getattr(flow, name)) == inspect.signature(make)


def test_an_operator_says_what_it_is():
    assert repr(ops.buffer_with_time_or_count(1.0, count=3)) == (
        "buffer_with_time_or_count(1.0, count=3)"
    )
    assert ops.map(len).label == "map(len)"
    assert ops.take_until(reactivex.never()).label == "take_until(Observable)"
    assert len(ops.start_with("x" * 99).label) == len("start_with()") + 40
    assert isinstance(ops.share(), Operator)


def test_do_takes_an_observer_or_functions():
    values, subject = [], Subject()
    subject.subscribe(values.append)
    reactivex.of(1).pipe(ops.do(subject)).subscribe()
    reactivex.of(2).pipe(
        ops.do(values.append, on_completed=lambda: values.append("end"))
    ).subscribe()
    assert values == [1, 2, "end"]


def test_without_a_scheduler_each_operator_keeps_its_own():
    got = []
    scoped = ScopedScheduler(None, Scope())
    source = reactivex.of(1, 2).pipe(ops.repeat(2), ops.to_list())
    source.subscribe(got.append, scheduler=scoped)
    assert not scoped
    assert got == [[1, 2, 1, 2]]
    with pytest.raises(RuntimeError):
        scoped.schedule(lambda *_: None)


HELD = {
    "to_list": (ops.to_list(), [1, 2]),
    "to_set": (ops.to_set(), {1, 2}),
    "to_dict": (ops.to_dict(lambda n: n), {1: 1, 2: 2}),
    "to_iterable": (ops.to_iterable(), [1, 2]),
    "reduce": (ops.reduce(lambda a, b: a + b), 3),
    "count": (ops.count(), 2),
    "sum": (ops.sum(), 3),
    "average": (ops.average(), 1.5),
    "min": (ops.min(), 1),
    "max": (ops.max(), 2),
    "last": (ops.last(), 2),
    "last_or_default": (ops.last_or_default(), 2),
    "take_last_buffer": (ops.take_last_buffer(2), [1, 2]),
    "debounce": (ops.debounce(50), 2),
    "slice": (ops.slice(-1, None), 2),
    "single": (ops.single(lambda n: n == 2), 2),
    "single_or_default": (ops.single_or_default(lambda n: n == 2), 2),
    "first_or_default": (ops.first_or_default(lambda n: n > 9, 7), 7),
    "element_at_or_default": (ops.element_at_or_default(9, 7), 7),
    "all": (ops.all(lambda n: n > 0), True),
    "some": (ops.some(lambda n: n > 9), False),
    "contains": (ops.contains(9), False),
    "find": (ops.find(lambda n, i, _: n > 9), None),
    "find_index": (ops.find_index(lambda n, i, _: n > 9), -1),
    "sequence_equal": (ops.sequence_equal([1, 2]), True),
    "buffer": (ops.buffer(reactivex.never()), [1, 2]),
    "buffer_when": (ops.buffer_when(reactivex.never), [1, 2]),
    "buffer_toggle": (ops.buffer_toggle(reactivex.of(0), lambda _: reactivex.never()), [1, 2]),
}


@pytest.mark.parametrize(("operator", "expected"), HELD.values(), ids=HELD)
def test_what_holds_until_completion_emits_at_the_end_of_time(operator, expected):
    make = lambda _, s: s.pipe(operator, ops.take_until(reactivex.timer(7.0)))  # noqa: E731
    assert seen(make, on_next(1, 1), on_next(2, 2)) == [
        (7, "next", expected),
        (7, "completed", None),
    ]


STREAMS = {
    "group_by": ops.group_by(lambda n: n > 0),
    "group_by_until": ops.group_by_until(lambda n: n > 0, None, lambda _: reactivex.never()),
    "window": ops.window(reactivex.never()),
    "window_toggle": ops.window_toggle(reactivex.of(0), lambda _: reactivex.never()),
    "window_when": ops.window_when(reactivex.never),
    "window_with_count": ops.window_with_count(9),
    "window_with_time": ops.window_with_time(50.0),
    "window_with_time_or_count": ops.window_with_time_or_count(50.0, 9),
}


@pytest.mark.parametrize("operator", STREAMS.values(), ids=STREAMS)
def test_windows_and_groups_complete_at_the_end_of_time(operator):
    def make(_, source):
        lists = rx.flat_map(lambda stream: stream.pipe(rx.to_list()))
        return source.pipe(operator, lists, ops.take_until(reactivex.timer(7.0)))

    assert seen(make, on_next(1, 1), on_next(2, 2)) == [(7, "next", [1, 2]), (7, "completed", None)]


@pytest.mark.parametrize("end", [on_completed(5), on_error(5, OSError("x"))])
def test_the_gate_changes_nothing_otherwise(end):
    events = on_next(1, 1), end
    plain = seen(lambda _, s: s.pipe(rx.to_list()), *events)
    assert seen(lambda _, s: s.pipe(ops.to_list()), *events) == plain
    until = ops.take_until(reactivex.never())
    assert seen(lambda _, s: s.pipe(ops.to_list(), until), *events) == plain


def test_the_page_about_operators_names_each_of_them_once():
    page = (Path(__file__).parents[2] / "docs" / "operators.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    names = [name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(names) == sorted(ops.OPERATORS)
