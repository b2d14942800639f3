"""What rxflow says, and how it keeps foreign text from speaking for it."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest
import reactivex
from hypothesis import given
from hypothesis import strategies as st

from rxflow import JsonSink, log, run, run_async
from rxflow.errors import RxflowWarning, SinkError
from rxflow.log import PerSecond, announce, escaped, logger, printable, tell
from rxflow.testing.marbles import Marbles


@pytest.fixture
def records():
    """The records of rxflow's log while the test runs."""
    found = []
    logger.enable("rxflow")
    number = logger.add(lambda message: found.append(message.record), level="DEBUG")
    yield found
    logger.remove(number)
    logger.disable("rxflow")


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    now = [100.0]
    monkeypatch.setattr(log.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é text", "plain é text"),
        ("two\nlines\r", "two\\nlines\\r"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\u2028b\u202ec", "a\\u2028b\\u202ec"),
        ("\ud800", "\\ud800"),
        (b"\n", "b'\\n'"),
        (None, "None"),
    ],
)
def test_foreign_text_is_shown_escaped(text, shown):
    assert printable(text) == shown


def test_foreign_text_is_cut_to_200_characters():
    assert printable("x" * 200) == "x" * 200
    assert printable("x" * 201) == "x" * 200 + "…"


@given(st.text())
def test_any_text_becomes_one_printable_line(text):
    assert printable(text).isprintable()


def test_a_program_is_told_in_its_log(records):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tell("mind {this} <red>gap</red>", is_program=True)
    (record,) = records
    assert record["message"] == "mind {this} <red>gap</red>"
    assert (record["level"].name, record["function"]) == (
        "WARNING",
        "test_a_program_is_told_in_its_log",
    )


def test_what_a_callback_announces_is_logged_at_its_own_line(records):
    announce("mind it", is_program=True)
    (record,) = records
    assert (record["name"], record["function"]) == (
        __name__,
        "test_what_a_callback_announces_is_logged_at_its_own_line",
    )


def test_what_is_announced_for_another_is_logged_at_that_ones_line(records):
    def warn(text):
        announce(text, is_program=True, depth=1)

    warn("mind it")
    assert (
        records[0]["function"] == "test_what_is_announced_for_another_is_logged_at_that_ones_line"
    )


def test_what_a_callback_announces_to_no_program_is_warned_of_at_its_users_line():
    def callback():
        announce("mind it", is_program=False)

    with pytest.warns(RxflowWarning, match="mind it") as caught:
        callback()
    assert caught[0].filename == __file__


def test_a_warning_that_was_made_an_error_ends_no_callback():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        announce("mind it", is_program=False)


def test_a_whole_text_is_escaped_and_not_cut():
    assert escaped("x" * 500 + "\n") == "x" * 500 + "\\n"


def test_a_library_warns_at_the_line_of_its_user(records):
    def inside():
        tell("mind {this}", is_program=False)

    with pytest.warns(RxflowWarning, match="mind {this}") as caught:
        inside()
    assert caught[0].filename == __file__
    assert records == []


def test_up_to_ten_events_a_second_have_a_line_each(records, clock):
    lines = PerSecond("{events} more")
    for number in range(10):
        lines.add("event {}", number)
    lines.flush()
    assert [record["message"] for record in records] == [f"event {n}" for n in range(10)]


def test_more_than_ten_a_second_become_a_summary(records, clock):
    lines = PerSecond("{events} more with {total} rows in {seconds} s")
    for _ in range(15):
        lines.add("event", count=3)
    assert len(records) == 10
    clock[0] += 1.5
    lines.add("event")
    assert [record["message"] for record in records[10:]] == ["5 more with 15 rows in 1.5 s"]


def test_after_a_busy_second_the_next_is_a_summary_from_its_start(records, clock):
    lines = PerSecond("{events} more")
    for _ in range(3):
        for _ in range(15):
            lines.add("event")
        clock[0] += 1.0
    lines.flush()
    messages = [record["message"] for record in records]
    assert messages == ["event"] * 10 + ["5 more", "15 more", "15 more"]


def test_after_a_calm_second_each_event_has_its_line_again(records, clock):
    lines = PerSecond("{events} more")
    for events in (15, 1, 1):
        for _ in range(events):
            lines.add("event")
        clock[0] += 1.0
    messages = [record["message"] for record in records[10:]]
    assert messages == ["5 more", "event", "event"]


def test_a_summary_is_told_once(records, clock):
    lines = PerSecond("{events} more")
    for _ in range(12):
        lines.add("event")
    lines.flush()
    lines.flush()
    assert [record["message"] for record in records[10:]] == ["2 more"]


def test_a_summary_of_one_event_is_the_event(records, clock):
    lines = PerSecond("{events} more")
    for number in range(11):
        lines.add("event {}", number)
    lines.flush()
    assert records[10]["message"] == "event 10"


def test_each_second_has_its_own_ten_lines(records, clock):
    lines = PerSecond("{events} more")
    for _ in range(3):
        for _ in range(10):
            lines.add("event")
        clock[0] += 1.0
    assert [record["message"] for record in records] == ["event"] * 30


def test_a_line_is_logged_where_the_event_was(records, clock):
    PerSecond("").add("event")
    assert records[0]["function"] == "test_a_line_is_logged_where_the_event_was"


def test_a_summary_is_logged_where_it_was_asked_for(records, clock):
    lines = PerSecond("{events} more", level="DEBUG")
    for _ in range(12):
        lines.add("event")
    lines.flush()
    assert {record["function"] for record in records} == {
        "test_a_summary_is_logged_where_it_was_asked_for"
    }
    assert {record["level"].name for record in records} == {"DEBUG"}


def test_the_terminal_shows_no_value_of_a_variable():
    code = """
from rxflow.log import log_to_terminal, logger
log_to_terminal()
def connect(password):
    raise ValueError("refused")
try:
    connect("c4" + "nary")
except ValueError:
    logger.exception("it failed")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30, check=True)
    assert b"it failed" in done.stderr
    assert b"c4nary" not in done.stderr
    assert done.stdout == b""


def test_the_values_of_a_line_are_never_formats(records, clock):
    PerSecond("").add("topic {}", "{0.__class__} <b>")
    assert records[0]["message"] == "topic {0.__class__} <b>"


def test_the_last_line_of_a_run_that_failed_ends_with_what_to_do(records, tmp_path):
    path = tmp_path / ("long" * 30) / ("name" * 30)
    with pytest.raises(SinkError):
        run(reactivex.of(1j), JsonSink(path))
    last = records[-1]
    assert (last["level"].name, last["name"]) == ("ERROR", "rxflow.running.run")
    assert str(path) in last["message"]
    assert "give default=, or reject it with rejected=" in last["message"]


def test_a_warning_names_the_module_that_warns(records):
    with Marbles() as marbles:
        marbles.run(run_async(marbles.hot("-a----|"), marbles.sink(disk="-=====")))
    warned = [record for record in records if record["level"].name == "WARNING"]
    assert [record["name"] for record in warned] == ["rxflow.sinks.sink"]
