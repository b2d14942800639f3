"""The diagrams in docstrings are those that the renderer draws.

A block begins with `Marbles::`; its rows are a label, a diagram, and the values of its keys. That
the operators do what they show, `tests/operators/test_diagrams.py` tests.
"""

import inspect
import re

import pytest

from rxflow import operators
from rxflow.testing.diagrams.notation import parse
from rxflow.testing.diagrams.rendering import Row, documented

FRAME = 1_000_000_000


class Name(str):
    """What an item is called."""

    __slots__ = ()

    def __repr__(self):
        return str(self)


def blocks():
    """The rows of each block, by the name of its operator."""
    for name, function in inspect.getmembers(operators, inspect.isfunction):
        lines = inspect.cleandoc(function.__doc__ or "").splitlines()
        for at, line in enumerate(lines):
            if line == "Marbles::":
                rest = lines[at + 2 :]
                yield name, [row.strip() for row in rest[: [*rest, ""].index("")]]


BLOCKS = list(blocks())


def drawn_from(row):
    """A row of the renderer's, from one of a docstring."""
    label, text, *told = re.split(r"\s{2,}", row)
    values = {key: Name(key) for key in parse(text).keys}
    values |= {key: Name(value) for key, _, value in (one.partition("=") for one in told)}
    return Row(label, parse(text, values=values).events)


def without_trailing_silence(row):
    """A row that does not end may be drawn as long as the others."""
    return re.sub(r"-+(?=\s|$)", "", row).rstrip()


def test_some_docstrings_have_diagrams():
    assert len(BLOCKS) >= 5


@pytest.mark.parametrize(("name", "rows"), BLOCKS)
def test_the_renderer_draws_what_a_docstring_shows(name, rows):
    drawn = documented([drawn_from(row) for row in rows], FRAME)
    assert [without_trailing_silence(row) for row in drawn] == [
        without_trailing_silence(row) for row in rows
    ]
