"""The diagrams in the docstrings of the operators are what the operators do."""

from __future__ import annotations

import re
from operator import add

import pytest
import reactivex
from reactivex import operators as rx

from rxflow import operators as ops

DRAWN = {
    "buffer": lambda other: ops.buffer(other),  # noqa: PLW0108 (it makes one)
    "buffer_toggle": lambda other: ops.buffer_toggle(other, lambda _: reactivex.timer(4.0)),
    "buffer_with_count": lambda _: ops.buffer_with_count(2),
    "buffer_with_time": lambda _: ops.buffer_with_time(4.0),
    "buffer_with_time_or_count": lambda _: ops.buffer_with_time_or_count(4.0, 2),
    "concat_map": lambda other: ops.concat_map(lambda _: other),
    "count": lambda _: ops.count(),
    "filter": lambda _: ops.filter(lambda item: item != "b"),
    "flat_map": lambda other: ops.flat_map(lambda _: other),
    "map": lambda _: ops.map(lambda item: f"f({item})"),
    "merge": lambda other: ops.merge(other),  # noqa: PLW0108 (its arguments are several)
    "reduce": lambda _: ops.reduce(add),
    "scan": lambda _: ops.scan(add),
    "start_with": lambda _: ops.start_with("x"),
    "switch_map": lambda other: ops.switch_map(lambda _: other),
    "take_until": lambda other: ops.take_until(other),  # noqa: PLW0108 (it makes one)
    "take_until_with_time": lambda _: ops.take_until_with_time(4.0),
    "take_with_time": lambda _: ops.take_with_time(4.0),
}


def rows_of(name):
    """The rows of the diagram of an operator: label -> diagram, its values."""
    _, _, after = (ops.OPERATORS[name].__doc__ or "").partition("Marbles::\n\n")
    lines = after.partition("\n\n")[0].splitlines()
    rows = [re.split(r" {2,}", line.strip()) for line in lines]
    return {
        label: (diagram, dict(one.split("=") for one in more)) for label, diagram, *more in rows
    }


def text_of(item):
    return f"[{', '.join(item)}]" if isinstance(item, list) else str(item)


def test_each_diagram_is_tried():
    assert {name for name in ops.OPERATORS if rows_of(name)} == {*DRAWN}


@pytest.mark.parametrize("name", DRAWN)
def test_an_operator_does_what_its_diagram_says(marbles, name):
    rows = rows_of(name)
    source, _ = rows.pop("source")
    other = marbles.cold(rows.pop("other")[0]) if "other" in rows else None
    [(expected, values)] = rows.values()
    pipeline = marbles.cold(source).pipe(DRAWN[name](other), rx.map(text_of))
    marbles.check(pipeline, expected, **values)
