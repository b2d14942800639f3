"""The diagrams in docstrings: the renderer has drawn them, and the operators do what they show.

A block begins with `Marbles::`. Its rows are a label, a diagram, and the values of its keys. The
last label is what the operator is given: numbers, durations (`4 s`), functions (`f`). The first row
is the source, those between are further sources, given before the rest.
"""

import inspect
import re

import pytest

from rxflow import operators
from rxflow.testing.notation import parse
from rxflow.testing.rendering import Row, documented

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


def split(row):
    """The label, the diagram and the values of a row."""
    label, text, *told = re.split(r"\s{2,}", row)
    return label, text, {key: named(value) for key, _, value in (v.partition("=") for v in told)}


def named(text):
    """`[a, b]` as a list of names, everything else as a name."""
    if text.startswith("["):
        return [Name(part) for part in text[1:-1].split(", ")]
    return Name(text)


def given(label):
    """`(4 s, 2, f)` as what the operator is given."""
    for text in filter(None, label.strip("()").split(", ")):
        if duration := re.fullmatch(r"([\d.]+) s", text):
            yield float(duration[1])
        elif text.isdigit():
            yield int(text)
        else:
            assert re.fullmatch(r"[a-z]+", text), f"{label}: say here what {text!r} is"
            yield lambda value, text=text: Name(f"{text}({value})")


def test_some_docstrings_have_diagrams():
    assert len(BLOCKS) >= 5


@pytest.mark.parametrize(("name", "rows"), BLOCKS)
def test_the_operator_does_what_its_docstring_shows(marbles, name, rows):
    *sources, (label, text, values) = map(split, rows)
    first, *others = [
        marbles.hot(source, **{key: Name(key) for key in parse(source).keys})
        for _, source, _ in sources
    ]
    operator = getattr(operators, name)(*others, *given(label))
    items = {key: Name(key) for key in parse(text).keys}
    marbles.check(first.pipe(operator), text, **(items | values))


@pytest.mark.parametrize(("name", "rows"), BLOCKS)
def test_the_renderer_draws_what_a_docstring_shows(name, rows):
    parts = [split(row) for row in rows]
    drawn = documented([drawn_from(*part) for part in parts], FRAME)
    assert [without_trailing_silence(row) for row in drawn] == [
        without_trailing_silence(row) for row in rows
    ]


def drawn_from(label, text, values):
    keys = {key: Name(key) for key in parse(text).keys} | values
    return Row(label, parse(text, values=keys).events)


def without_trailing_silence(row):
    """A row that does not end may be drawn as long as the others."""
    return re.sub(r"-+(?=\s|$)", "", row).rstrip()
