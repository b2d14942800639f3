"""The grammar of marble diagrams, and that nothing else is taken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxflow import ConfigError
from rxflow.testing import DiagramError
from rxflow.testing.diagrams.durations import nanoseconds, written
from rxflow.testing.diagrams.notation import parse

S = 1_000_000_000
MS = 1_000_000


def said(text, **settings):
    """What happens when, in seconds: `1 a` or, without a key of its own, `2 completed`."""
    return [
        f"{event.time / S:g} {event.key if event.kind == 'next' else event.kind}"
        for event in parse(text, **settings).events
    ]


@pytest.mark.parametrize(
    ("text", "events"),
    [
        ("", []),
        ("---", []),
        ("a", ["0 a"]),
        ("-a-b-|", ["1 a", "3 b", "5 completed"]),
        ("--#", ["2 error"]),
        ("-(abc)-d", ["1 a", "1 b", "1 c", "3 d"]),
        ("(a|)", ["0 a", "0 completed"]),
        ("-(ab#)", ["1 a", "1 b", "1 error"]),
        ("-?-", ["1 any"]),
        ("-^--!", ["1 subscribed", "4 unsubscribed"]),
        ("a 5s b", ["0 a", "5 b"]),
        ("5s a", ["5 a"]),
        ("a 1m 500ms b", ["0 a", "60.5 b"]),
        ("a 1.5s b", ["0 a", "1.5 b"]),
        ("-a @3s b-c", ["1 a", "3 b", "5 c"]),
        ("@1h |", ["3600 completed"]),
        ("--a @2s b", ["2 a", "2 b"]),
        ("a 5s @5s b", ["0 a", "5 b"]),
        ("@3s 2s a", ["5 a"]),
        ("a 3s", ["0 a"]),
        ("  -a\n  -b\t|  ", ["1 a", "3 b", "4 completed"]),
        ("( a b | )", ["0 a", "0 b", "0 completed"]),
        ("1-2", ["0 1", "2 2"]),
        ("-(3)s(3s)", ["1 3", "2 s", "3 3", "3 s"]),
        ("é=ß", ["0 é", "1 =", "2 ß"]),
    ],
)
def test_a_diagram_says(text, events):
    assert said(text) == events


def test_replacing_an_item_by_silence_moves_nothing_else():
    assert said("-(ab)-c 7s d-|")[2:] == said("---c 7s d-|") == said("--- c 7s d - |")


def test_frames_are_whole_nanoseconds():
    assert [event.time for event in parse("-a--b", frame="10ms").events] == [10 * MS, 40 * MS]
    assert parse("-a", frame="0.1s").events[0].time == parse("-a", frame=S // 10).events[0].time
    tenths = parse("-" * 999 + "a", frame="0.1s").events[0].time
    assert tenths == 99_900 * MS


def test_values_stand_for_keys_and_a_key_without_any_is_itself():
    assert [event.value for event in parse("ab", values={"a": None, "b": [1]}).events] == [
        None,
        [1],
    ]
    assert [event.value for event in parse("ab").events] == ["a", "b"]


def test_with_values_a_digit_before_a_unit_is_a_key_like_any_other():
    assert said("-3s", values={"3": 1, "s": 2}) == ["1 3", "2 s"]


def test_a_diagram_knows_its_keys_and_its_length():
    diagram = parse("-a(bca) 3s |")
    assert diagram.keys == {"a", "b", "c"}
    assert diagram.length == 5 * S
    assert parse("").length == 0


def test_an_open_end_stands_at_the_next_instant():
    assert parse("-a-...").until == 3 * S
    assert parse("-a 5s ...").until == 6 * S
    assert parse("...").until == 0
    assert parse("-a-").until is None


def test_an_error_is_what_it_is_said_to_be():
    mine = ValueError("mine")
    assert parse("#", error=mine).events[0].value is mine
    assert repr(parse("#").events[0].value) == "Exception('#')"


@pytest.mark.parametrize(
    ("text", "what", "at"),
    [
        ("-a|b", "nothing may follow | or #", 3),
        ("-#-", "nothing may follow | or #", 2),
        ("-| 3s", "nothing may follow | or #", 3),
        ("(a|b)", "nothing may follow | or #", 3),
        ("|...", "nothing may follow | or #", 1),
        ("-...-", "nothing may follow ...", 4),
        ("-a)", "unmatched )", 2),
        ("-(ab", "unmatched (", 1),
        ("-(a(b))", "a group can't stand in a group", 3),
        ("()", "a group begins with a key", 1),
        ("(|)", "a group begins with a key", 1),
        ("(a-)", "only keys, then | or #, stand in a group", 2),
        ("(a?)", "only keys, then | or #, stand in a group", 2),
        ("(a...", "only keys, then | or #, stand in a group", 2),
        ("(a 3s b)", "a group is one instant: no time may stand in it", 3),
        ("------a @3s b", "@3s lies before 6s", 8),
        ("9s @3s b", "@3s lies before 9s", 3),
        ("-- 0.5us a", "0.5us is finer than 1us", 3),
        ("1.0000001s a", "1.0000001s is finer than 1us", 0),
        ("a 999999999h b", "999999999h is longer than a century", 2),
        ("-@-", "'@' is no key; it begins a time between spaces, as in @3s", 1),
        ("@3s-", "'@' is no key; it begins a time between spaces, as in @3s", 0),
        ("-10ms a", "a duration stands between spaces; as keys write (0)m", 1),
        ("-a 3s|", "a duration stands between spaces; as keys write (3)s", 3),
        ("a.b", "'.' is no key; three of them end an expected diagram", 1),
        ("a\x07", "'\\x07' is no key; it can not be seen", 1),
    ],
)
def test_a_broken_rule_is_pointed_at(text, what, at):
    with pytest.raises(DiagramError) as raised:
        parse(text)
    assert str(raised.value) == f"{what}\n    {text.rstrip()}\n    {' ' * at}^"


def test_the_line_that_is_wrong_is_shown():
    with pytest.raises(DiagramError) as raised:
        parse("""
            -a--b--|
            -a
        """)
    assert str(raised.value).splitlines() == [
        "nothing may follow | or #",
        "                -a",
        "                ^",
    ]


@pytest.mark.parametrize(
    ("text", "role", "what"),
    [
        ("-?", "cold", "? stands only in an expected diagram"),
        ("-...", "hot", "... stands only in an expected diagram"),
        ("-^", "cold", "^ stands only in a hot or a subscription diagram"),
        ("-!", "expected", "! stands only in a hot or a subscription diagram"),
        ("-a", "marks", "only -, ^ and ! stand in a diagram of subscriptions"),
        ("-|", "marks", "only -, ^ and ! stand in a diagram of subscriptions"),
    ],
)
def test_a_sign_stands_only_where_it_means_something(text, role, what):
    with pytest.raises(DiagramError) as raised:
        parse(text, role=role)
    assert str(raised.value).splitlines()[0] == what
    assert parse(text).frame == S


def test_unknown_and_unused_keys_are_errors():
    with pytest.raises(DiagramError, match="no value named 'a'; the values are x, y\n    -a"):
        parse("-a", values={"x": 1, "y": 2})
    with pytest.raises(DiagramError, match="no key 'b', 'c' in the diagram '-a'"):
        parse("-a", values={"a": 1, "b": 2, "c": 3})
    with pytest.raises(DiagramError, match="error= is given, and no # is in the diagram '-a'"):
        parse("-a", error=ValueError())
    assert parse("-a", values={"a": 1, "b": 2}, has_shared_values=True).keys == {"a"}


@pytest.mark.parametrize("key", ["ab", "", "-", "?", " ", "@"])
def test_a_key_is_one_character_that_means_nothing_else(key):
    with pytest.raises(DiagramError, match="a key is one character"):
        parse("-a", values={"a": 1, key: 2})


@pytest.mark.parametrize(
    ("frame", "what"),
    [
        (0, "frame: longer than nothing, not 0"),
        ("0s", "frame: longer than nothing, not '0s'"),
        (1, "frame must be whole microseconds, not 1ns"),
        ("0.1us", "0.1us is finer than 1us"),
        ("10", "frame must be a duration, such as '10ms' or '1.5s', not '10'"),
        ("-1s", "frame must be a duration, such as '10ms' or '1.5s', not '-1s'"),
    ],
)
def test_a_frame_is_a_duration(frame, what):
    with pytest.raises(ConfigError) as raised:
        parse("-a", frame=frame)
    assert str(raised.value) == what


@given(st.text("-ab12sm|#?^!()@. \n", max_size=12))
def test_any_text_is_a_diagram_or_an_error_that_points_into_it(text):
    try:
        diagram = parse(text)
    except DiagramError as error:
        *_, line, pointer = str(error).split("\n")
        assert len(pointer) <= len(line) or not line.strip()
    else:
        times = [event.time for event in diagram.events]
        assert times == sorted(times)


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (0, "0s"),
        (1_000, "1us"),
        (1_500_000, "1.5ms"),
        (20 * MS, "20ms"),
        (6 * S, "6s"),
        (1500 * MS, "1.5s"),
        (S + 1_000, "1.000001s"),
        (61 * S, "61s"),
        (90 * 60 * S, "90m"),
        (2 * 3600 * S, "2h"),
    ],
)
def test_a_duration_is_written_short_and_exactly(time, text):
    assert written(time) == text
    assert nanoseconds(text) == time


@given(st.integers(0, 10**15))
def test_every_duration_is_read_as_it_was_written(microseconds):
    assert nanoseconds(written(microseconds * 1000)) == microseconds * 1000
