"""Pictures of diagrams: what they look like, and that they can be read again."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rxflow import Batch, Message
from rxflow.testing import Diagram
from rxflow.testing.diagrams.equality import is_same
from rxflow.testing.diagrams.events import Event
from rxflow.testing.diagrams.notation import parse
from rxflow.testing.diagrams.rendering import Row
from rxflow.testing.strategies import marble_diagrams

S = 1_000_000_000

_TIMES = st.sampled_from([" 1us ", " 30s ", " 0s ", " 1.5s ", " 2h ", " 250ms "])
_FRAMES = st.sampled_from(["-", "a", "b", "3 ", "s", "(ab)", "(3)", "?", "^", "!", " "]) | _TIMES
_TEXTS = st.tuples(
    st.lists(_FRAMES, max_size=25).map("".join), st.sampled_from(["", "|", "#", "(a|)", "..."])
).map("".join)


def again(diagram):
    """The same, written and read."""
    return parse(str(diagram), frame=diagram.frame, values=diagram.values)


def seen(*events, frame=S):
    return Diagram([Event(round(time * S), *rest) for time, *rest in events], frame=frame)


@given(_TEXTS, st.sampled_from(["1s", "10ms", "7us"]))
@example("3s", "1s")
@example("-(3)s- 3 (s)", "1s")
def test_what_is_rendered_parses_to_the_same_diagram(text, frame):
    diagram = parse(text, frame=frame)
    assert again(diagram) == diagram
    assert again(diagram).until == diagram.until
    assert str(again(diagram)) == str(diagram)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 40),
            st.integers() | st.booleans() | st.floats() | st.text(max_size=2) | st.lists(st.none()),
        )
    )
)
def test_what_was_observed_parses_to_the_same_diagram(items):
    events = [(time / 4, "next", value) for time, value in sorted(items, key=lambda item: item[0])]
    diagram = seen(*events)
    assert again(diagram) == diagram


@given(marble_diagrams("abs12", groups=True), marble_diagrams("xyz"), _TEXTS)
def test_every_row_of_a_failure_parses_to_its_diagram(source, expected, actual):
    rows = [parse(source), parse(expected), parse(actual)]
    text = rows[2].explain(rows[1], sources=[Row("source", rows[0].events)])
    if not text:
        assert rows[1] == rows[2]
        return
    lines = [line[12:] for line in text.splitlines()[1:4]]
    assert [parse(line) for line in lines][:2] == rows[:2]
    until = rows[1].until
    assert until is None or parse(lines[2]) == rows[2]


def test_a_failure_looks_like_this():
    source = parse("-a-b-c-d--|")
    expected = parse("---x--(y|)", values={"x": ["a", "b"], "y": ["c"]})
    actual = seen((3, "next", ["a", "b"]), (6, "completed"))
    sensor = [Row("sensor", source.events)]
    assert actual.explain(expected, sources=sensor, place="test_demo.py:9") == (
        "marbles differ at notification 2 [test_demo.py:9] (1 column = 1s)\n"
        "    sensor  -a-b-c-   d--|\n"
        "  expected  ---x--(y|)\n"
        "    actual  ---x--|\n"
        "                  ^ at 6s: expected ['c'], got completion\n"
        "  values    x=['a', 'b']  y=['c']"
    )


def test_a_long_gap_becomes_a_duration_in_every_row():
    expected, actual = parse("-a 1h b-|"), parse("-a @30s c 3571s (bd)|")
    assert actual.explain(expected).splitlines()[1:4] == [
        "  expected  -a 29s - 3571s b   -|",
        "    actual  -a 29s c 3571s (bd)|",
        "                   ^ at 30s: expected nothing, got 'c'",
    ]


def test_an_instant_between_the_frames_has_a_column_of_its_own():
    expected, actual = parse("-a-b|"), parse("-a 1.5s b 1.5s |")
    assert actual.explain(expected).splitlines()[1:4] == [
        "  expected  -a 1.5s - 500ms b|",
        "    actual  -a 1.5s b 500ms -|",
        "                    ^ at 2.5s: expected nothing, got 'b'; it was expected at 3s",
    ]


@pytest.mark.parametrize(
    ("expected", "actual", "what"),
    [
        ("-a", "-b", "1 at 1s: expected 'a', got 'b'"),
        ("-a-|", "-a--|", "2 at 3s: expected completion, got nothing; it came at 4s"),
        ("-a--|", "-a-|", "2 at 3s: expected nothing, got completion; it was expected at 4s"),
        ("-a-b", "-a", "2 at 3s: expected 'b', got nothing"),
        ("-a", "-a-b", "2 at 3s: expected nothing, got 'b'"),
        ("-ab", "-a-c", "2 at 2s: expected 'b', got nothing"),
        ("-?", "-|", "1 at 1s: expected any value, got completion"),
        ("-?", "--a", "1 at 1s: expected any value, got nothing; it came at 2s"),
        ("-(ab)", "-(ba)", "1 at 1s: expected 'a', got 'b'"),
        ("-#", "-|", "1 at 1s: expected error Exception('#'), got completion"),
        ("^-!", "^--!", "2 at 2s: expected its end, got nothing; it came at 3s"),
        ("^", "-^", "1 at 0s: expected a subscription, got nothing; it came at 1s"),
    ],
)
def test_a_failure_says_what_was_expected_and_what_came(expected, actual, what):
    expected, actual = parse(expected), parse(actual)
    assert actual != expected
    difference = actual.difference(expected)
    assert f"{difference.number} {difference.text}" == what
    assert f"differ at {'subscriptions' if '^' in str(expected) else 'notification'}" in (
        actual.explain(expected)
    )


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ("-a-", "-a-----"),
        ("-a 5s b", "-a----b"),
        ("(ab)", "a 0s b"),
        ("-?-?", "-a-b"),
        ("-a...", "-a-b-c"),
        ("-a-...", "-a-b"),
        ("...", "abc"),
    ],
)
def test_the_same_written_in_another_way_is_equal(expected, actual):
    assert parse(actual) == parse(expected)
    assert parse(actual).explain(parse(expected)) == ""


def test_an_open_end_still_compares_what_is_before():
    assert parse("-a-b") != parse("-a--...")
    assert parse("-a") != parse("-a-b...")
    assert parse("-a...") != parse("-a-...")


def test_a_diagram_is_equal_to_diagrams_only():
    assert parse("a") != "a"
    assert repr(parse("-a|")) == "<Diagram -a|>"


@pytest.mark.parametrize(
    ("expected", "actual", "is_equal"),
    [
        (math.nan, float("nan"), True),
        ([1, {"a": math.nan}], [1, {"a": float("nan")}], True),
        (1, True, False),
        (0, False, False),
        ([1], [True], False),
        ((1,), (True,), False),
        ({"a": 1}, {"a": True}, False),
        ({1}, {True}, False),
        ({1, 2}, {2, 1}, True),
        (frozenset({1}), {1}, True),
        (1, 1.0, True),
        ([1], (1,), False),
        ([1], [1, 2], False),
        ({"a": 1}, {"b": 1}, False),
        ({"a": 1}, {"a": 1, "b": 1}, False),
        ("a", b"a", False),
        (Message("t", math.nan), Message("t", float("nan")), True),
        (Message("t", 1), Message("u", 1), False),
        (Message("t", 1), Message("t", payload=True), False),
        (21, Message("t", 21), True),
        ([21], Batch([Message("t", 21)]), True),
        (True, Message("t", 1), False),
    ],
)
def test_values_are_compared_all_the_way_down(expected, actual, is_equal):
    assert is_same(expected, actual) is is_equal
    assert is_same(actual, expected) is is_equal


def test_arrays_are_compared_element_by_element():
    class Array:  # noqa: PLW1641
        def __init__(self, *items):
            self.items = items

        def __eq__(self, other):
            return Array(*(a == b for a, b in zip(self.items, other.items, strict=True)))

        def __bool__(self):
            raise ValueError("ambiguous")

        def all(self):
            return all(self.items)

    assert is_same(Array(1, 2), Array(1, 2))
    assert not is_same(Array(1, 2), Array(1, 3))


def test_values_that_print_alike_are_told_apart_by_type():
    class Odd:
        def __repr__(self):
            return "1"

    text = seen((0, "next", Odd())).explain(seen((0, "next", 1, "a")))
    assert "expected 1 of int, got 1 of test_values_that_print_alike" in text


def test_a_value_without_a_key_gets_a_free_one():
    expected = parse("a-b", values={"a": 10, "b": 20})
    actual = seen((0, "next", 10), (1, "next", "c"), (2, "next", 99), (3, "next", 99.5))
    assert actual.explain(expected).splitlines()[1:] == [
        "  expected  a-b-",
        "    actual  acde",
        "             ^ at 1s: expected nothing, got 'c'",
        "  values    a=10  b=20  d=99  e=99.5",
    ]


def test_a_key_that_means_something_else_in_a_source_is_told_apart():
    source = parse("-a-b", values={"a": 1, "b": 2})
    expected = parse("-a-a", values={"a": 10})
    text = seen((1, "next", 10)).explain(expected, sources=[Row("sensor", source.events)])
    assert text.splitlines()[1:] == [
        "    sensor  -a-b",
        "  expected  -a-a",
        "    actual  -a--",
        "               ^ at 3s: expected 10, got nothing",
        "    sensor  a=1  b=2",
        "  values    a=10",
    ]


def test_values_that_do_not_fit_in_a_line_stand_below_each_other():
    expected = parse("ab", values={"a": "x" * 60, "b": "y" * 60})
    assert seen().explain(expected).splitlines()[-2:] == [
        f"  values    a='{'x' * 60}'",
        f"            b='{'y' * 60}'",
    ]


def test_there_are_keys_for_any_number_of_values():
    diagram = seen(*((n, "next", [n]) for n in range(200)))
    assert len(set(str(diagram))) == 200
    assert again(diagram) == diagram


def test_errors_are_compared_by_type_and_text():
    def error(value):
        return seen((0, "error", value))

    assert error(ValueError("a")) == error(ValueError("a"))
    assert error(ValueError("a")) != error(ValueError("b"))
    assert error(ValueError("a")) != error(TypeError("a"))
    assert error(UnicodeError("a")) != error(ValueError("a"))
    assert error(ValueError("a")) == error(ValueError)
    assert error(TypeError("a")) != error(ValueError)
    assert "expected error ValueError, got error TypeError('a')" in error(TypeError("a")).explain(
        error(ValueError)
    )
