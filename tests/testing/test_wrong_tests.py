"""Wrong tests of pipelines that a careless or hostile user writes: each of them fails.

Each comes with the right test that is closest to it, which passes.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
import unicodedata
import unittest

import pytest
import reactivex
from reactivex import operators as rx

from rxflow import operators as ops
from rxflow import run_async
from rxflow.testing import DiagramError, Marbles
from rxflow.testing.diagrams.notation import parse
from rxflow.testing.virtual import clock, time

pytest_plugins = ["pytester"]

HEAD = """
import asyncio, gc, threading
import pytest, reactivex
from reactivex import timer
from reactivex.subject import Subject
from rxflow import operators as ops, run_async
from rxflow.testing import Marbles

"""

# name -> the wrong test, what is said of it, the right one
WRONG: dict[str, tuple[str, str, str]] = {
    "a longer timeout than the horizon": (
        """
        def test(marbles):
            marbles.check(marbles.hot("-a-b").pipe(ops.timeout(3600)), "-a-b")
        """,
        "at 3603s: expected nothing, got error",
        """
        def test(marbles):
            watched = marbles.hot("-a-b").pipe(ops.timeout(3600))
            marbles.check(watched, "-a-b 1h #", error=Exception("Timeout"))
        """,
    ),
    "a delay longer than a thousand frames": (
        """
        @pytest.mark.marbles(frame="1ms")
        def test(marbles):
            marbles.check(marbles.hot("-a-b").pipe(ops.delay(2)), "")
        """,
        "at 2.001s: expected nothing, got 'a'",
        """
        @pytest.mark.marbles(frame="1ms")
        def test(marbles):
            marbles.check(marbles.hot("-a-b").pipe(ops.delay(2)), " 2.001s a-b")
        """,
    ),
    "timers in a row, each beyond the horizon": (
        """
        def test(marbles):
            marbles.check(timer(2000).pipe(ops.delay(2000), ops.delay(2000)), "")
        """,
        "at 100m: expected nothing, got 0",
        """
        def test(marbles):
            marbles.check(timer(2000).pipe(ops.delay(2000), ops.delay(2000)), " @100m (x|)", x=0)
        """,
    ),
    "a retry that comes after an hour, again and again": (
        """
        def test(marbles):
            failing = reactivex.throw(OSError()).pipe(ops.delay_subscription(3600), ops.retry())
            marbles.check(failing, "")
        """,
        "something is still to come",
        """
        @pytest.mark.marbles(limit="10h")
        def test(marbles):
            failing = reactivex.throw(OSError()).pipe(ops.delay_subscription(3600), ops.retry())
            marbles.check(failing, "")
        """,
    ),
    "silence that has no end": (
        """
        def test(marbles):
            marbles.check(reactivex.interval(1).pipe(ops.ignore_elements()), "---")
        """,
        "something is still to come",
        """
        def test(marbles):
            marbles.check(reactivex.interval(1).pipe(ops.ignore_elements()), "--- 1h ...")
        """,
    ),
    "unequal to what has no end": (
        """
        def test(marbles):
            silent = marbles.observe(reactivex.interval(1).pipe(ops.ignore_elements()))
            assert silent == "---"
        """,
        "something is still to come",
        """
        def test(marbles):
            silent = marbles.observe(reactivex.interval(1).pipe(ops.ignore_elements()))
            assert silent == "--- ..."
        """,
    ),
    "a fast silence that has no end": (
        """
        def test(marbles):
            marbles.check(reactivex.interval(0.00001).pipe(ops.ignore_elements()), "")
        """,
        "something is still to come",
        """
        def test(marbles):
            marbles.check(reactivex.interval(0.00001).pipe(ops.ignore_elements()), " 1ms ...")
        """,
    ),
    "what goes on behind an end": (
        """
        def test(marbles):
            def subscribe(observer, scheduler):
                reactivex.interval(1).subscribe(scheduler=scheduler)
                return timer(3).subscribe(observer, scheduler=scheduler)
            marbles.check(reactivex.create(subscribe), "---(a|)", a=0)
        """,
        "something is still to come",
        """
        def test(marbles):
            def subscribe(observer, scheduler):
                return timer(3).subscribe(observer, scheduler=scheduler)
            marbles.check(reactivex.create(subscribe), "---(a|)", a=0)
        """,
    ),
    "a broker that stays connected": (
        """
        def test(marbles):
            marbles.check(marbles.mqtt("a : -x").from_mqtt("a"), "-?")
        """,
        "something is still to come",
        """
        def test(marbles):
            marbles.check(marbles.mqtt("a : -x").from_mqtt("a"), "-?-- ...")
        """,
    ),
    "a pipeline without end in a coroutine": (
        """
        def test(marbles):
            marbles.run(run_async(reactivex.interval(1), marbles.sink()))
        """,
        "the coroutine is not over after",
        """
        def test(marbles):
            sink = marbles.sink()
            marbles.run(run_async(reactivex.interval(1), sink, seconds=3600.5))
            assert len(sink.stored) == 3600
        """,
    ),
    "time that stands still": (
        """
        def test(marbles):
            marbles.check(reactivex.interval(0).pipe(ops.ignore_elements()), "")
        """,
        "no time passes at 0 s",
        """
        def test(marbles):
            marbles.check(reactivex.interval(0).pipe(ops.take(1)), "(a|)", a=0)
        """,
    ),
    "a coroutine that never waits": (
        """
        def test(marbles):
            async def main():
                while True:
                    await asyncio.sleep(0)
            marbles.run(main())
        """,
        "no time passes at 0 s",
        """
        def test(marbles):
            async def main():
                for _ in range(9):
                    await asyncio.sleep(0)
            marbles.run(main())
        """,
    ),
    "a fixture that is asked for by name": (
        """
        def test(request):
            marbles = request.getfixturevalue("marbles")
            marbles.observe(marbles.cold("-a"))
        """,
        "observed, but compared with nothing",
        """
        def test(request):
            marbles = request.getfixturevalue("marbles")
            assert marbles.observe(marbles.cold("-a")) == "-a"
        """,
    ),
    "Marbles without with": (
        """
        def test():
            marbles = Marbles()
            marbles.observe(marbles.cold("-a"))
        """,
        "observed, but compared with nothing",
        """
        def test():
            marbles = Marbles()
            assert marbles.observe(marbles.cold("-a")) == "-a"
        """,
    ),
    "Marbles of a fixture, without with": (
        """
        @pytest.fixture
        def mine():
            return Marbles(frame="10ms")

        def test(mine):
            mine.at("3s", print)
        """,
        "at('3s') never came",
        """
        @pytest.fixture
        def mine():
            return Marbles(frame="10ms")

        def test(mine):
            mine.at("3s", print)
            mine.check(mine.cold("-a"), "-a")
        """,
    ),
    "an observation without assert": (
        """
        def test(marbles):
            marbles.observe(marbles.cold("-a")) == "-b"
        """,
        "not equal, and the test went on: write assert, or != [[]test_demo.py",
        """
        def test(marbles):
            assert marbles.observe(marbles.cold("-a")) != "-b"
        """,
    ),
    "an inequality without assert": (
        """
        def test(marbles):
            marbles.observe(marbles.cold("-a")) != "-a"
        """,
        "the test went on: write assert",
        """
        def test(marbles):
            assert marbles.observe(marbles.cold("-a")) == "-a"
        """,
    ),
    "subscriptions without assert": (
        """
        def test(marbles):
            source = marbles.hot("-a|")
            marbles.check(source, "-a|")
            source.subscriptions == "^----!"
        """,
        "the test went on: write assert",
        """
        def test(marbles):
            source = marbles.hot("-a|")
            marbles.check(source, "-a|")
            assert source.subscriptions != "^----!"
        """,
    ),
    "acknowledgements without assert": (
        """
        def test(marbles):
            broker = marbles.mqtt("a q1 : -x")
            marbles.check(broker.from_mqtt("a"), "-?-- ...")
            broker.acknowledged("a") == "^"
        """,
        "the test went on: write assert",
        """
        def test(marbles):
            broker = marbles.mqtt("a q1 : -x")
            marbles.check(broker.from_mqtt("a"), "-?-- ...")
            assert broker.acknowledged("a") != "^"
        """,
    ),
    "commits without assert": (
        """
        def test(marbles):
            sink = marbles.sink()
            marbles.run(run_async(marbles.hot("-a|"), sink))
            sink.committed == "--^"
        """,
        "the test went on: write assert",
        """
        def test(marbles):
            sink = marbles.sink()
            marbles.run(run_async(marbles.hot("-a|"), sink))
            assert sink.committed == "-^"
        """,
    ),
    "a comparison in a call": (
        """
        def test(marbles):
            seen = []
            marbles.at("1s", lambda: seen == ["a"])
            marbles.check(marbles.cold("---a"), "---a")
        """,
        "at('1s') returned False [[]test_demo.py",
        """
        def test(marbles):
            seen = []
            marbles.at("1s", lambda: seen == [])
            marbles.check(marbles.cold("---a"), "---a")
        """,
    ),
    "a diagram as a truth": (
        """
        def test(marbles):
            assert marbles.observe(marbles.cold("-a"))
        """,
        "a diagram is neither true nor false",
        """
        def test(marbles):
            assert marbles.observe(marbles.cold("-a")) == "-a"
        """,
    ),
    "acknowledgements as a truth": (
        """
        def test(marbles):
            broker = marbles.mqtt("a q1 : -x")
            marbles.check(broker.from_mqtt("a"), "...")
            assert broker.acknowledged("a")
        """,
        "a diagram is neither true nor false",
        """
        def test(marbles):
            broker = marbles.mqtt("a q1 : -x")
            marbles.check(broker.from_mqtt("a"), "-? ...")
            assert broker.acknowledged("a") == "-^"
        """,
    ),
    "a source that nobody subscribes to": (
        """
        def test(marbles):
            first, second = marbles.cold("-a|"), marbles.cold("--b|")
            marbles.check(first.pipe(ops.map(str)), "-a|")
        """,
        "cold 2: nobody subscribed",
        """
        def test(marbles):
            first, second = marbles.cold("-a|"), marbles.cold("--b|")
            marbles.check(first.pipe(ops.map(str)), "-a|")
            assert second.subscriptions == []
        """,
    ),
    "a pipeline that is only composed": (
        """
        def test(marbles):
            marbles.hot("-a").pipe(ops.map(str))
        """,
        "hot: nobody subscribed",
        """
        def test(marbles):
            marbles.check(marbles.hot("-a").pipe(ops.map(str)), "-a")
        """,
    ),
    "a broker to which nobody connects": (
        """
        def test(marbles):
            marbles.mqtt("a q1 : -x").from_mqtt("a").pipe(ops.map(str))
        """,
        "the broker of a: nobody connected",
        """
        def test(marbles):
            broker = marbles.mqtt("a q1 : -x")
            broker.from_mqtt("a").pipe(ops.map(str))
            assert broker.acknowledgements == []
        """,
    ),
    "a sink into which nothing runs": (
        """
        def test(marbles):
            marbles.sink()
            marbles.check(marbles.cold("-a"), "-a")
        """,
        "a sink: nothing came to it",
        """
        def test(marbles):
            sink = marbles.sink()
            marbles.check(marbles.cold("-a"), "-a")
            assert sink.stored == []
        """,
    ),
    "a coroutine function as a call": (
        """
        def test(marbles):
            async def call():
                raise KeyError
            marbles.at("1s", call)
            marbles.check(marbles.cold("--a"), "--a")
        """,
        "nothing would await it",
        """
        def test(marbles):
            async def call():
                await asyncio.sleep(1)
            marbles.run(call())
        """,
    ),
    "a call that returns a coroutine": (
        """
        def test(marbles):
            async def call():
                raise KeyError
            marbles.at("1s", lambda: call())
            marbles.check(marbles.cold("--a"), "--a")
        """,
        "nobody would await an async function",
        """
        def test(marbles):
            marbles.at("1s", lambda: None)
            marbles.check(marbles.cold("--a"), "--a")
        """,
    ),
    "a result instead of a function": (
        """
        def test(marbles):
            marbles.at("1s", print())
        """,
        "function must be a function, not None",
        """
        def test(marbles):
            marbles.at("1s", print)
            marbles.check(marbles.cold("--a"), "--a")
        """,
    ),
    "a function instead of a coroutine": (
        """
        def test(marbles):
            async def main():
                raise KeyError
            marbles.run(main)
        """,
        "coroutine must be a coroutine, as main() is, not ",
        """
        def test(marbles):
            async def main():
                return 1
            assert marbles.run(main()) == 1
        """,
    ),
    "a thread that ends soon after": (
        """
        stop = threading.Event()

        def test(marbles):
            threading.Thread(target=stop.wait, args=(0.5,), name="mine").start()
        """,
        "left behind: thread mine",
        """
        def test(marbles):
            thread = threading.Thread(target=print, name="mine")
            thread.start()
            thread.join()
        """,
    ),
    "a thread that fails": (
        """
        def test(marbles):
            def work():
                raise LookupError("in a thread")
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        """,
        "LookupError: in a thread",
        """
        def test(marbles):
            def work():
                raise SystemExit
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        """,
    ),
    "a task that is not done": (
        """
        def test(marbles):
            async def forever():
                await asyncio.Event().wait()
            async def main():
                asyncio.get_running_loop().create_task(forever())
            marbles.run(main())
        """,
        "not done at the end of the test: task *forever [[]test_demo.py",
        """
        def test(marbles):
            async def forever():
                await asyncio.Event().wait()
            async def main():
                task = asyncio.get_running_loop().create_task(forever())
                await asyncio.sleep(1)
                task.cancel()
            marbles.run(main())
        """,
    ),
    "a task that is not done, without with": (
        """
        def test():
            async def forever():
                await asyncio.Event().wait()
            async def main():
                asyncio.get_running_loop().create_task(forever())
            Marbles().run(main())
        """,
        "not done at the end of the test: task *forever",
        """
        def test():
            async def soon():
                await asyncio.sleep(1)
            async def main():
                await asyncio.get_running_loop().create_task(soon())
            Marbles().run(main())
        """,
    ),
    "a run that nobody waits for": (
        """
        def test(marbles):
            source, sink = marbles.hot("-a--b|"), marbles.sink()
            async def main():
                asyncio.get_running_loop().create_task(run_async(source, sink))
                await asyncio.sleep(2)
            marbles.run(main())
            assert sink.stored == ["a"]
        """,
        "not done at the end of the test: task ",
        """
        def test(marbles):
            source, sink = marbles.hot("-a--b|"), marbles.sink()
            async def main():
                await asyncio.get_running_loop().create_task(run_async(source, sink))
            marbles.run(main())
            assert sink.stored == ["a", "b"]
        """,
    ),
    "a source that is made too late": (
        """
        def test(marbles):
            async def main():
                return await marbles.hot("-a|").pipe(ops.to_list())
            marbles.run(main())
        """,
        "hot: made too late",
        """
        def test(marbles):
            source = marbles.hot("-a|")
            async def main():
                return await source.pipe(ops.to_list())
            assert marbles.run(main()) == ["a"]
        """,
    ),
    "a list that is filled after it was emitted": (
        """
        def test(marbles):
            def gather(source):
                all = []
                return source.pipe(ops.map(lambda x: all), ops.do_action(lambda _: 0)), all
            gathered, all = gather(marbles.cold("-a-b|"))
            marbles.at("2s", lambda: all.append("late"))
            marbles.check(gathered, "-x-y|", x=["late"], y=["late"])
        """,
        "at 1s: expected [[]'late'], got []",
        """
        def test(marbles):
            all = []
            gathered = marbles.cold("-a-b|").pipe(ops.map(lambda x: all))
            marbles.at("2s", lambda: all.append("late"))
            marbles.check(gathered, "-x-y|", x=[], y=["late"])
        """,
    ),
}


@pytest.fixture
def run(pytester, monkeypatch):
    monkeypatch.setattr(time, "_STEPS", 4000)  # for what never ends to be told sooner
    monkeypatch.setattr(clock, "_AT_ONE_INSTANT", 4000)

    def run(body):
        pytester.makepyfile(test_demo=HEAD + textwrap.dedent(body))
        return pytester.runpytest_inprocess("-p", "no:cacheprovider")

    return run


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_test_fails_and_the_right_one_passes(run, name):
    wrong, said, right = WRONG[name]
    result = run(wrong)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"*{said}*"])
    run(right).assert_outcomes(passed=1)


# -- async tests -----------------------------------------------------------------------------------


def as_an_async_test(body):
    """Run it as pytest-asyncio and anyio do: on a loop of real time, below the test."""
    with Marbles() as marbles:

        async def test():
            await asyncio.sleep(0)
            body(marbles)
            await asyncio.sleep(0)
            assert asyncio.current_task() is not None

        asyncio.run(test())


def test_in_an_async_test_a_broker_a_check_and_a_run_work():
    def body(marbles):
        broker, sink = marbles.mqtt("a q1 : -x--y"), marbles.sink()
        marbles.check(broker.from_mqtt("a").pipe(ops.map(lambda m: m.payload)), "-?--? ...")
        marbles.run(run_async(broker.from_mqtt("a"), sink, seconds=9, log=False))
        assert sink.stored == ["x", "y"]
        assert broker.acknowledged("a") == "-^--^"
        marbles.check(marbles.hot("-a").pipe(ops.delay(2)), "---a")
        marbles.scheduler.advance_by(1.0)

    as_an_async_test(body)


class InUnittest(unittest.IsolatedAsyncioTestCase):
    async def test_a_run_and_a_check(self):
        marbles = self.enterContext(Marbles())
        broker = marbles.mqtt("a q1 : -x")
        marbles.check(broker.from_mqtt("a"), "-? ...")
        assert marbles.run(asyncio.sleep(3600, "slept")) == "slept"

    async def test_that_awaits_virtual_time(self):
        marbles = self.enterContext(Marbles())
        errors = []
        reactivex.timer(1).subscribe(on_error=errors.append)
        assert "marbles.run(main()), without await" in str(errors[0])
        source = marbles.hot("-a|", name="door")
        with pytest.raises(DiagramError, match=r"door: in an async test no virtual time passes"):
            await source
        assert source.subscriptions == []


def test_a_failing_async_test_leaves_its_loop_as_it_was():
    def body(marbles):
        with pytest.raises(KeyError):
            marbles.run(failing())

    async def failing():
        raise KeyError

    as_an_async_test(body)


# -- characters ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "en dash",
        "em dash",
        "hyphen",
        "minus sign",
        "box drawings light horizontal",
        "box drawings light vertical",
        "fullwidth hyphen-minus",
        "fullwidth vertical line",
        "fullwidth number sign",
        "fullwidth left parenthesis",
        "fullwidth comma",
        "broken bar",
        "middle dot",
        "horizontal ellipsis",
        "katakana-hiragana prolonged sound mark",
        "combining acute accent",
        "comma",
    ],
)
@pytest.mark.parametrize("role", ["cold", "expected", "marks"])
def test_a_character_that_only_looks_like_one_of_ours_is_refused_by_name(name, role):
    with pytest.raises(DiagramError) as raised:
        parse(f"-{unicodedata.lookup(name.upper())}-", role=role)
    assert f"({name})" in str(raised.value)
    assert "\n     ^" in str(raised.value)


def test_a_comma_is_no_key_with_values_either():
    with pytest.raises(DiagramError, match=r"',' \(comma\)"):
        parse("-,", values={",": 1})


@pytest.mark.parametrize("key", "aZ7éßяλ中♥🚪=+*_~%&/<>$€")
def test_letters_digits_and_other_symbols_stay_keys(key):
    assert parse(f"-{key}").keys == {key}


# -- values ----------------------------------------------------------------------------------------


class Array:
    """Compares as numpy's arrays do: element by element, of one element or none with anything."""

    def __init__(self, *items):
        self.shape = (len(items),)
        self.items = items

    def __eq__(self, other):
        if isinstance(other, Array) and len(other.items) == len(self.items):
            return Result([a == b for a, b in zip(self.items, other.items, strict=True)])
        return Result([item == other for item in self.items])

    __hash__ = None


class Result(list):
    def __bool__(self):
        raise ValueError("ambiguous")

    def all(self):
        return all(self[:])


@pytest.mark.parametrize("other", [1, Array(), Array(1, 1, 1), Array(1, 2)])
def test_an_array_equals_only_one_of_its_shape(marbles, other):
    marbles.check(marbles.cold("a", a=Array(1, 1)), "a", a=Array(1, 1))
    with pytest.raises(AssertionError):
        marbles.check(marbles.cold("a", a=Array(1, 1)), "a", a=other)


# -- deliveries ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "operator",
    [
        ops.materialize(),
        rx.materialize(),
        rx.timestamp(),
        rx.map(lambda m: {"here": m}),
        rx.map(lambda m: [{"here": (m,)}]),
        rx.map(lambda m: m.with_payload([m])),
    ],
)
def test_what_is_observed_keeps_no_delivery(marbles, operator):
    broker = marbles.mqtt("a q1 : -x--y")
    observed = marbles.observe(broker.from_mqtt("a").pipe(operator))
    assert observed == "-?--?-- ..."
    assert broker.acknowledged("a") == "-^--^"
    assert len(observed.events) == 2


def test_a_dict_that_is_observed_keeps_no_delivery(marbles):
    broker = marbles.mqtt("a q1 : -x--y")
    both = broker.from_mqtt("a").pipe(ops.take(2), ops.to_dict(lambda m: m.payload))
    marbles.check(both, "----(x|)", x={b'"x"': b'"x"', b'"y"': b'"y"'})
    assert broker.acknowledged("a") == "----^"


# -- without pytest --------------------------------------------------------------------------------


def test_without_pytest_what_nobody_closes_is_a_warning():
    program = (
        "from rxflow.testing import Marbles\n"
        "def test():\n"
        "    marbles = Marbles()\n"
        "    marbles.observe(marbles.cold('-a')) == '-b'\n"
        "test()\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert "RxflowWarning: Marbles was never closed: not equal, and the test went on" in ran.stderr


def test_a_broken_thread_is_told_without_pytest_too():
    def work():
        raise LookupError

    with pytest.raises(LookupError), Marbles():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()


def test_nothing_is_owed_after_an_error():
    with pytest.raises(KeyError), Marbles() as marbles:
        marbles.observe(marbles.cold("-a"))
        raise KeyError
    with pytest.raises(KeyError), Marbles() as marbles:
        marbles.at("1s", lambda: False)
        marbles.cold("a")
        raise KeyError
