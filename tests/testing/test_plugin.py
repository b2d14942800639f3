"""The pytest plugin as a user's project meets it: nothing is configured."""

from __future__ import annotations

import threading

import pytest

from rxflow import operators as ops
from rxflow.broker import (
    Broker,
    _amqtt,  # noqa: F401 (pytester forgets modules that an inner run is the first to import)
)
from rxflow.testing import DiagramError, Marbles
from rxflow.testing.diagrams.notation import parse
from rxflow.testing.strategies import marble_diagrams

pytest_plugins = ["pytester"]


@pytest.fixture
def run(pytester):
    """Run a file of tests in a project of its own; returns the result."""

    def run(text):
        pytester.makepyfile(test_demo=text)
        return pytester.runpytest_inprocess("-p", "no:cacheprovider", "--strict-markers")

    return run


def test_a_test_needs_only_the_fixture(run):
    run("""
        def test_passes(marbles):
            marbles.check(marbles.cold("-a|"), "-a|")
    """).assert_outcomes(passed=1)


def test_a_failing_check_is_understood_without_a_debugger(run):
    result = run("""
        from reactivex import operators as rx, timer

        def test_flush(marbles):
            source = marbles.hot("-a-b-c-d--|", name="sensor")
            pipeline = source.pipe(rx.buffer_with_count(2), rx.take_until(timer(6)))
            marbles.check(pipeline, "---x--(y|)", x=["a", "b"], y=["c"])
    """)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*AssertionError: marbles differ at notification 2 [[]test_demo.py:6] (1 column = 1s)",
            "E           sensor  -a-b-c-   d--|",
            "E         expected  ---x--(y|)",
            "E           actual  ---x--|",
            "E                         ^ at 6s: expected [[]'c'], got completion",
            "E         values    x=[[]'a', 'b']  y=[[]'c']",
            "test_demo.py:6: AssertionError",
        ],
        consecutive=False,
    )
    assert "rxflow/testing" not in result.stdout.str()


@pytest.mark.parametrize(
    ("compared", "shown"),
    [
        ('source.subscriptions == "^-!"', "expected  ^-!"),
        ('marbles.observe(source) == "-b"', "expected  -b"),
        ("marbles.observe(source) == marbles.observe(other)", "expected  -b"),
        ('marbles.observe(source) == parse("-b")', "expected  -b"),
        ('parse("-a-") == parse("-b")', "expected  -b"),
        ('broker.acknowledged("a") == "--^"', "expected  --^"),
    ],
)
def test_an_assertion_shows_the_diagrams(run, compared, shown):
    result = run(f"""
        from rxflow.testing.diagrams.notation import parse

        def test_it(marbles):
            source, other = marbles.hot("-a", name="sensor"), marbles.cold("-b")
            broker = marbles.mqtt("a q1 : -a")
            marbles.check(broker.from_mqtt("a"), "-? ...")
            marbles.check(source, "-a")
            marbles.check(broker.from_mqtt("a"), "-? ...")
            assert {compared}
    """)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"*{shown}", "*actual  *", "*^ at *"])


def test_other_comparisons_are_left_to_pytest(run):
    result = run("""
        def test_it(marbles):
            assert marbles.observe(marbles.cold("-a")) == 3
        def test_that(marbles):
            assert marbles.observe(marbles.cold("-a")) != "-a"
        def test_numbers():
            assert [1] == [2]
    """)
    result.assert_outcomes(failed=3)


def test_the_marker_sets_frame_and_limit(run):
    run("""
        import pytest, reactivex

        pytestmark = pytest.mark.marbles(frame="10ms", limit="1h")

        def test_frame(marbles):
            marbles.check(reactivex.timer(0.02), "--(a|)", a=0)

        @pytest.mark.marbles(limit="50ms")
        def test_limit(marbles):
            marbles.check(marbles.cold("-a 1s b"), "-a")
    """).assert_outcomes(passed=2)


@pytest.mark.parametrize("marker", ['"10ms"', 'farme="10ms"', 'frame="soon"'])
def test_a_wrong_marker_is_an_error(run, marker):
    result = run(f"""
        import pytest

        @pytest.mark.marbles({marker})
        def test_it(marbles):
            pass
    """)
    result.assert_outcomes(errors=1)


def test_a_task_that_fails_unseen_fails_the_test(run):
    result = run("""
        import asyncio, gc

        async def fail():
            raise LookupError("unseen")

        def test_it(marbles):
            marbles.loop.create_task(fail())
            marbles.scheduler.advance_to(1.0)
            gc.collect()
    """)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*LookupError: unseen"])


def test_timers_are_virtual_while_a_test_runs(run):
    run("""
        import reactivex, threading
        from reactivex.scheduler import TimeoutScheduler

        def test_it(marbles, scheduler):
            assert marbles.scheduler is scheduler
            threads, seen = threading.active_count(), []
            reactivex.timer(3600).subscribe(seen.append)
            scheduler.advance_to(3600.0)
            assert seen == [0]
            assert threading.active_count() == threads

        def test_after():
            assert type(TimeoutScheduler.singleton()) is TimeoutScheduler
    """).assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ('marbles.observe(marbles.cold("-a"))', "observed, but compared with nothing*test_demo.py"),
        ('marbles.at("3s", print)', "at('3s') never came*test_demo.py:2"),
    ],
)
def test_a_pending_expectation_fails_the_test(run, body, what):
    result = run(f"""
        def test_it(marbles):
            {body}
    """)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"*{what.replace('[', '[[]')}*"])


def test_a_failed_test_is_not_told_what_is_pending_too(run):
    result = run("""
        def test_it(marbles):
            marbles.at("3s", print)
            raise KeyError("the reason")
    """)
    result.assert_outcomes(failed=1)
    assert "never came" not in result.stdout.str()


def test_a_thread_left_behind_fails_the_test(run):
    result = run("""
        import threading

        stop = threading.Event()

        def test_it(marbles):
            threading.Thread(target=stop.wait, args=(10,), name="mine", daemon=True).start()

        def test_that_ends(marbles):
            threading.Thread(target=lambda: None).start()

        def test_without_marbles():
            threading.Thread(target=stop.wait, args=(10,), daemon=True).start()

        def test_stop():
            stop.set()
    """)
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["left behind: thread mine"])


def test_the_broker_is_real_and_its_users_can_be_set(run, mqtt_broker):
    assert isinstance(mqtt_broker, Broker)  # of our own tests, whose conftest sets the users
    run("""
        import pytest
        from rxflow import JsonLinesSink, MqttSink, from_mqtt, operators as ops, run
        from reactivex import interval

        def test_it(mqtt_broker, tmp_path):
            heard = from_mqtt(mqtt_broker.url, "a").pipe(ops.take(1))
            run(
                (heard, JsonLinesSink(tmp_path / "a.jsonl")),
                (interval(0.05), MqttSink(mqtt_broker.url, topic="a")),
                seconds=1,
            )
            assert (tmp_path / "a.jsonl").read_text().count("\\n") == 1
    """).assert_outcomes(passed=1)


# -- strategies ------------------------------------------------------------------------------------


def test_a_law_that_fails_shrinks_to_a_diagram(run):
    result = run("""
        from hypothesis import given
        from rxflow.testing import Marbles
        from rxflow.testing.strategies import marble_diagrams

        @given(marble_diagrams("ab"))
        def test_law(text):
            marbles = Marbles()
            marbles.check(marbles.cold(text), text.replace("b", "a"))
    """)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*text='b'*"])


def test_strategies_keep_to_what_they_are_told():
    from hypothesis import find  # noqa: PLC0415

    some = marble_diagrams("xs3", max_length=3, terminal="|")
    assert find(some, lambda text: text.endswith("|)")) == "(x|)"
    assert find(some, lambda text: "(3" in text and "|" not in text) == "(3x)"
    assert len(find(some, lambda text: text.count("-") == 2)) == 2
    plain = marble_diagrams("a", groups=False, terminal="#")
    assert find(plain, lambda text: text.endswith("#")) == "#"
    assert find(plain, lambda text: text == "a") == "a"


@pytest.mark.parametrize(
    "settings", [{"keys": ""}, {"keys": "a-"}, {"max_length": 0}, {"terminal": "!"}]
)
def test_strategies_refuse_what_makes_no_diagram(settings):
    with pytest.raises(DiagramError):
        marble_diagrams(**settings)


def test_a_check_of_eleven_frames_makes_no_thread_and_reads_no_clock(monkeypatch):
    monkeypatch.setattr("time.time", None)
    monkeypatch.setattr("time.monotonic", None)
    threads = threading.active_count()
    marbles = Marbles()
    marbles.check(marbles.hot("-a-b|").pipe(ops.delay(2)), "---a-b|")
    assert threading.active_count() == threads
    assert marbles.observe(marbles.cold("a|")) == parse("a|")
