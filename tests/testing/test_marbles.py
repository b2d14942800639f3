"""Checks of pipelines: sources, subscriptions, time, and what a failure says."""

from __future__ import annotations

import inspect
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import reactivex
from hypothesis import given
from reactivex import operators as rx
from reactivex import timer
from reactivex.scheduler import TimeoutScheduler
from reactivex.subject import Subject
from streams import Source as Acknowledging

from rxflow import Batch, Message
from rxflow import operators as ops
from rxflow.scope import Scope, within
from rxflow.testing import DiagramError, Marbles
from rxflow.testing.diagrams.notation import parse
from rxflow.testing.strategies import marble_diagrams


def failure(marbles, *args, **kwargs):
    """The lines of what a check says."""
    with pytest.raises(AssertionError) as raised:
        marbles.check(*args, **kwargs)
    return str(raised.value).splitlines()


# -- checks ----------------------------------------------------------------------------------------


def test_flush(marbles):
    source = marbles.hot("-a-b-c-d--|", name="sensor")
    marbles.check(
        source.pipe(ops.buffer_with_count(2), ops.take_until(timer(6))),
        "---x--(y|)",
        x=["a", "b"],
        y=["c"],
    )
    assert source.subscriptions == "^-----!"


def test_a_failure_looks_as_promised_and_names_file_and_line(marbles):
    source = marbles.hot("-a-b-c-d--|", name="sensor")
    pipeline = source.pipe(rx.buffer_with_count(2), rx.take_until(timer(6)))
    line = inspect.currentframe().f_lineno + 2
    with pytest.raises(AssertionError) as raised:
        marbles.check(pipeline, "---x--(y|)", x=["a", "b"], y=["c"])
    place = f"{Path(__file__).relative_to(Path.cwd())}:{line}"
    assert str(raised.value).splitlines() == [
        f"marbles differ at notification 2 [{place}] (1 column = 1s)",
        "    sensor  -a-b-c-   d--|",
        "  expected  ---x--(y|)",
        "    actual  ---x--|",
        "                  ^ at 6s: expected ['c'], got completion",
        "  values    x=['a', 'b']  y=['c']",
    ]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("---", "---"),
        ("|", "|"),
        ("a-|", "A-|"),
        ("-a(bc)-|", "-A(BC)-|"),
        ("-a-#", "-A-#"),
        ("-a 30s b|", "-A @31s B|"),
        ("-a", "-?"),
        ("-a-b-c", "-A-..."),
        ("-a-b-c", "-A-B-C"),
    ],
)
@pytest.mark.parametrize("kind", ["hot", "cold"])
def test_a_check_passes(marbles, kind, source, expected):
    marbles.check(getattr(marbles, kind)(source).pipe(ops.map(str.upper)), expected)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("-a-|", "-a--|"),
        ("-a-|", "-a-"),
        ("-a-", "-a-|"),
        ("-a-b", "-a"),
        ("-a", "-a-b"),
        ("-a", "--a"),
        ("-a", "a"),
        ("-a-b", "-a--..."),
        ("-#", "-|"),
        ("-(ab)", "-(ba)"),
        ("-ab", "-(ab)"),
        ("-a 1us b", "-(ab)"),
        ("-|", "-?"),
        ("-a", "-a 30s b..."),
    ],
)
@pytest.mark.parametrize("kind", ["hot", "cold"])
def test_a_check_fails(marbles, kind, source, expected):
    said = failure(marbles, getattr(marbles, kind)(source), expected)
    assert said[0].startswith("marbles differ at notification")


@given(marble_diagrams())
def test_an_operator_that_does_nothing_changes_no_diagram(text):
    for source in ("hot", "cold"):
        marbles = Marbles()
        marbles.check(getattr(marbles, source)(text).pipe(ops.filter(lambda _: True)), text)


@given(marble_diagrams("ab", terminal="|"), marble_diagrams("ab", terminal="|"))
def test_two_diagrams_check_if_and_only_if_they_are_equal(first, second):
    marbles = Marbles()
    if parse(first) == parse(second):
        marbles.check(marbles.cold(first), second)
    else:
        failure(marbles, marbles.cold(first), second)


def test_a_thousand_items_at_one_instant_move_no_clock(marbles):
    marbles.check(reactivex.range(1000).pipe(ops.count()), "(a|)", a=1000)
    burst = marbles.cold(f"-({'a' * 500}|)")
    marbles.check(burst.pipe(ops.count()), "-(n|)", n=500)


def test_tenths_of_a_second_are_exact():
    marbles = Marbles(frame="100ms")
    marbles.check(reactivex.interval(0.1).pipe(ops.take(3)), "-ab(c|)", a=0, b=1, c=2)
    marbles.check(marbles.cold("-a|").pipe(ops.delay(0.0001)), "- 100.1ms a|")


def test_errors_are_compared_by_type_and_text(marbles):
    source = marbles.cold("-a")
    broken = source.pipe(ops.map(lambda _: 1 / 0))
    marbles.check(broken, "-#", error=ZeroDivisionError)
    marbles.check(broken, "-#", error=ZeroDivisionError("division by zero"))
    said = failure(marbles, broken, "-#", error=ZeroDivisionError("other"))
    assert said[-1].endswith(
        "expected error ZeroDivisionError('other'), got error ZeroDivisionError('division by zero')"
    )
    failure(marbles, broken, "-#", error=ValueError)
    failure(marbles, broken, "-#")


def test_a_source_fails_with_the_error_it_was_given(marbles):
    mine = ValueError("mine")
    marbles.check(marbles.hot("-#", error=mine), "-#", error=mine)
    marbles.check(marbles.cold("-#", error=KeyError), "-#", error=KeyError())


def test_an_endless_pipeline_ends_a_check_that_has_seen_enough(marbles):
    said = failure(marbles, reactivex.interval(0.000_01), "--a")
    assert "expected nothing, got 0" in said[3]
    assert len(said[2]) < 500


def test_an_endless_silent_pipeline_is_followed_to_the_limit():
    ticks = []
    tick = reactivex.interval(1).pipe(ops.do_action(ticks.append), ops.ignore_elements())
    Marbles(limit="5s").check(tick, "-")
    assert len(ticks) == 5
    ticks.clear()
    failure(Marbles(), tick, "---")
    assert len(ticks) >= 999


def test_nothing_is_compared_beyond_the_limit():
    marbles = Marbles(limit="5s")
    marbles.check(marbles.cold("-----a-b"), "-----a")
    failure(marbles, marbles.cold("-----a-b"), "-----a-b")


def test_an_open_end_stops_the_check_there(marbles):
    ticks = []
    tick = reactivex.interval(1).pipe(ops.do_action(ticks.append))
    marbles.check(tick, "-ab...", a=0, b=1)
    assert ticks == [0, 1]


def test_an_open_end_at_the_first_microsecond_is_allowed(marbles):
    marbles.check(marbles.cold("-a"), "...")
    marbles.check(marbles.cold("-a"), " 1us ...")


def test_each_check_begins_at_zero_and_plays_every_source_again(marbles):
    source = marbles.hot("-a-b|")
    marbles.check(source, "-a-b|")
    marbles.check(source.pipe(ops.take(1)), "-(a|)")
    assert source.subscriptions == "^!"
    later = marbles.hot("--c|")
    marbles.check(reactivex.merge(source, later), "-acb|")


def test_messages_are_compared_with_plain_values_by_their_payload(marbles):
    source = marbles.hot("-a-b-|", a=Message("t", 1), b=Message("t", 2))
    marbles.check(source.pipe(ops.map(lambda m: m.payload + 1)), "-a-b-|", a=2, b=3)
    marbles.check(source, "-a-b-|", a=Message("t", 1), b=2)
    marbles.check(source.pipe(ops.buffer_with_count(2)), "---x-|", x=[1, 2])


def test_what_a_check_writes_down_holds_up_no_acknowledgement(marbles):
    source = Acknowledging()
    for number in (1, 2, 3, 4):
        marbles.at(f"{number}s", lambda number=number: source.receive(number))
    marbles.check(source, "-abcd", a=1, b=2, c=3, d=4)
    assert source.settled() == [1, 2, 3, 4]
    for number in (5, 6):
        marbles.at(f"{number}s", lambda number=number: source.receive(number))
    marbles.check(source.pipe(ops.buffer_with_count(2)), "------x", x=[5, 6])
    assert source.settled() == [1, 2, 3, 4, 5, 6]


def test_a_batch_stays_a_batch(marbles):
    source = marbles.hot("-(ab)", a=Message("t", 1), b=Message("t", 2))
    observed = marbles.observe(source.pipe(ops.buffer_with_count(2)))
    assert type(observed.events[0].value) is Batch
    assert observed == parse("-x", values={"x": [1, 2]})


# -- sources ---------------------------------------------------------------------------------------


def test_a_hot_source_plays_whether_or_not_somebody_listens(marbles):
    source = marbles.hot("a-b-c-|")
    marbles.check(source, "--b-c-|", subs="-^")
    assert source.subscriptions == "-^----!"


def test_a_cold_source_plays_for_each_subscription(marbles):
    source = marbles.cold("a-b|")
    marbles.check(source.pipe(ops.repeat(2)), "a-ba-b|")
    assert source.subscriptions == ["^--!", "---^--!"]
    assert source.subscriptions != ["^--!"]
    assert len(source.subscriptions) == 2
    assert source.subscriptions[1:] == "---^--!"


def test_a_hot_source_completes_every_subscriber(marbles):
    source = marbles.hot("-a-|")
    first, second = marbles.observe(source), marbles.observe(source, "--^")
    late = marbles.observe(source, "-----^")
    assert [str(each) for each in (first, second, late)] == ["-a-|", "---|", "-----|"]
    assert source.subscriptions == ["^--!", "--^!", "-----^ 0s !"]
    assert first == "-a-|"


def test_a_hot_source_that_failed_tells_who_comes_later(marbles):
    source = marbles.hot("-#", error=ValueError("gone"))
    marbles.check(source, "---#", subs="---^", error=ValueError("gone"))


def test_a_hot_source_says_when_a_check_subscribes(marbles):
    source = marbles.hot("a-^b-c!d-|")
    marbles.check(source, "---b-c")
    assert source.subscriptions == "--^---!"
    other = marbles.hot("-^-")
    with pytest.raises(DiagramError, match="say when by subs="):
        marbles.check(other, "-")
    assert other.subscriptions == []


def test_an_item_in_the_frame_of_an_unsubscription_is_not_seen(marbles):
    source = marbles.hot("-a-b-c-")
    marbles.check(source, "-a-", subs="^--!")
    marbles.check(marbles.cold("-a-b-c-"), "-a-", subs="^--!")


@pytest.mark.parametrize("kind", ["hot", "cold"])
def test_sources_are_completed_by_what_ends_them(marbles, kind):
    source = getattr(marbles, kind)("-a-b-c-")
    marbles.check(source.pipe(ops.to_list(), ops.take_until(timer(4))), "----(x|)", x=["a", "b"])
    assert source.subscriptions == "^---!"


def test_a_source_stays_silent_in_a_scope_that_is_over(marbles):
    source = marbles.hot("-a-")
    scope = Scope()
    scope.complete()
    seen = []
    source.subscribe(seen.append, scheduler=within(scope, marbles.scheduler)).dispose()
    marbles.check(source, "-a-")
    assert seen == []


def test_the_fluent_methods_are_those_of_rxflow(marbles):
    source = marbles.hot("-a-b-c-", name="door")
    marbles.check(
        source.buffer_with_count(2).take_until(timer(6)), "---x--(y|)", x=["a", "b"], y=["c"]
    )
    assert repr(source.buffer_with_count(2)) == "door | buffer_with_count(2)"


def test_sources_have_names_of_their_own(marbles):
    sources = [marbles.hot("-"), marbles.hot("-"), marbles.cold("-"), marbles.cold("-", name="hot")]
    names = [source.label for source in sources]
    marbles.check(reactivex.merge(*sources), "-")
    assert names == ["hot", "hot 2", "cold", "hot 3"]


def test_a_failure_shows_the_sources_that_took_part(marbles):
    used, unused = marbles.hot("-a-", name="used"), marbles.hot("-b-", name="unused")
    said = failure(marbles, used, "--a", subs="-^-!")
    assert said[1:4] == ["      used  -a--", "      subs  -^-!", "  expected  --a-"]
    assert unused.subscriptions == []


def test_a_subscription_that_lives_at_the_end_has_no_end(marbles):
    source = marbles.hot("-a-")
    assert source.subscriptions == []
    marbles.check(source, "-a-")
    assert source.subscriptions == "^"
    assert source.subscriptions != "^---!"
    assert source.subscriptions != 1
    assert repr(source.subscriptions) == "['^']"


def test_one_diagram_holds_subscriptions_one_after_another(marbles):
    source = marbles.cold("-#")
    marbles.check(source.pipe(ops.delay_subscription(1), ops.retry(2)), "----#")
    assert source.subscriptions == "-^!^!"
    assert source.subscriptions == [parse("-^!"), "---^!"]


def test_subscriptions_explain_themselves(marbles):
    source = marbles.hot("-a-", name="sensor")
    marbles.check(source.pipe(ops.take(1)), "-(a|)")
    assert source.subscriptions.explain("^!") == source.subscriptions.explain(1) == ""
    assert source.subscriptions.explain("^--!").splitlines() == [
        "marbles differ at subscriptions 2 (1 column = 1s)",
        "  expected  ^--!",
        "    actual  ^!",
        "             ^ at 1s: expected nothing, got its end; it was expected at 3s",
    ]


@pytest.mark.parametrize(
    ("text", "what"),
    [("-^^", "^ while subscribed"), ("-!", "! before ^"), ("-a", "only -, ^ and !")],
)
def test_subscriptions_are_compared_with_diagrams_of_such(marbles, text, what):
    source = marbles.hot("-")
    with pytest.raises(DiagramError) as raised:
        assert source.subscriptions == text
    assert what in str(raised.value)


# -- time ------------------------------------------------------------------------------------------


def test_at_one_instant_first_unsubscribe_then_subscribe_then_work(marbles):
    order = []
    marbles.at("2s", lambda: order.append("call"))

    def watched(name):
        source = marbles.hot("--a", name=name)
        return reactivex.defer(lambda _: order.append(f"{name} begins") or source).pipe(
            ops.do_action(lambda _: order.append(f"{name} works")),
            ops.finally_action(lambda: order.append(f"{name} ends")),
        )

    late = marbles.observe(watched("late"), "--^")
    early = marbles.observe(watched("early"), "^-!")
    assert (str(late), str(early)) == ("--a", "-")
    assert order == [
        "early begins",
        "early ends",
        "late begins",
        "call",
        "late works",
        "late ends",
    ]


def test_work_of_one_instant_is_done_in_the_order_in_which_it_was_scheduled(marbles):
    source = marbles.hot("---a---")
    marbles.check(source.pipe(ops.take_until(timer(3))), "---(a|)")
    marbles.check(marbles.cold("---a---").pipe(ops.take_until(timer(3))), "---(a|)")
    marbles.check(timer(3).pipe(ops.take_until(source)), "---|")


def test_calls_come_at_their_time_and_once(marbles):
    subject = Subject()
    marbles.at("1s", lambda: subject.on_next("a"))
    marbles.at("2500ms", lambda: subject.on_next("b"))
    marbles.at("4s", subject.on_completed)
    marbles.check(subject, "-a 1.5s b 1.5s |")
    marbles.check(marbles.cold("-a"), "-a")


def test_a_call_after_an_open_end_comes_too(marbles):
    come = []
    marbles.at("9s", lambda: come.append(marbles.scheduler.now.timestamp()))
    marbles.check(marbles.cold("-a-b"), "-a-...")
    assert come == [9.0]


def test_what_a_call_raises_the_check_raises_and_time_goes_on_after(marbles):
    marbles.at("1s", [].pop)
    with pytest.raises(IndexError):
        marbles.check(marbles.cold("-a"), "-a")
    marbles.check(marbles.cold("-a"), "-a")


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        (ops.delay, "---(a|)"),
        (rx.delay, "---(a|)"),
        (ops.debounce, "-(a|)"),
        (rx.debounce, "-(a|)"),
    ],
)
def test_a_timer_without_a_scheduler_runs_in_virtual_time(marbles, operator, expected):
    before = threading.active_count()
    bare = reactivex.create(lambda o, _: timer(1).subscribe(o))
    marbles.check(bare.pipe(operator(2)), expected, a=0)
    assert threading.active_count() == before


def test_timers_are_real_again_when_the_test_is_over():
    real = TimeoutScheduler.singleton()
    with Marbles() as marbles:
        assert TimeoutScheduler.singleton() is marbles.scheduler
        assert TimeoutScheduler() is marbles.scheduler
        with Marbles() as inner:
            assert TimeoutScheduler.singleton() is inner.scheduler
            inner.check(timer(1).pipe(ops.map(str)), "-(0|)")
        assert TimeoutScheduler.singleton() is marbles.scheduler
    assert TimeoutScheduler.singleton() is real
    Marbles().check(timer(1).pipe(ops.map(str)), "-(0|)")
    assert TimeoutScheduler.singleton() is real


def test_a_scheduler_can_be_given_to_what_wants_one(marbles):
    marbles.check(marbles.cold("a|").pipe(ops.delay(2, scheduler=marbles.scheduler)), "--a|")


def test_a_subscription_of_the_test_itself_sees_every_check(marbles):
    source = marbles.hot("-a-|")
    seen = []
    source.subscribe(seen.append)
    marbles.check(source, "-a-|")
    assert seen == ["a"]
    assert source.subscriptions == ["^--!", "^--!"]


def test_a_subscription_on_another_thread_is_refused(marbles):
    source = marbles.hot("-a-|", name="sensor")
    errors = []
    thread = threading.Thread(target=lambda: source.subscribe(on_error=errors.append))
    thread.start()
    thread.join()
    assert "sensor: subscribed to on another thread" in str(errors[0])
    assert source.subscriptions == []


def test_other_parts_play_and_are_shown(marbles):
    class Door:
        length = 0

        def begin(self):
            self.begun = marbles.time.now

        def rows(self):
            return ()

    door = Door()
    marbles.add(door)
    marbles.check(marbles.cold("-a"), "-a")
    marbles.check(marbles.cold("-a"), "-a")
    assert door.begun == 0


# -- observing -------------------------------------------------------------------------------------


def test_observed_diagrams_play_together_and_compare_with_text_and_with_each_other(marbles):
    source = marbles.hot("-a-b-c-|")
    shared = source.pipe(ops.share())
    first, second = marbles.observe(shared), marbles.observe(shared, subs="--^---!")
    assert first == "-a-b-c-|"
    assert second == "---b-c"
    assert first != second
    marbles.check(first, "-x-y-z-|", x="a", y="b", z="c")
    assert source.subscriptions == "^------!"
    assert second == marbles.observe(marbles.cold("---b-c"))


def test_an_observed_diagram_explains_itself(marbles):
    observed = marbles.observe(marbles.cold("-a|", name="sensor"))
    lines = observed.explain("--a|").splitlines()
    assert lines[0].startswith("marbles differ at notification 1 [")
    assert lines[1] == "    sensor  -a|"
    assert observed.explain("-a|") == ""
    assert observed != 1


def test_a_check_in_the_middle_of_another_is_refused(marbles):
    marbles.at("1s", lambda: marbles.check(marbles.cold("-b"), "-b"))
    with pytest.raises(DiagramError, match="in the middle of another"):
        marbles.check(marbles.cold("-a"), "-a")
    marbles.check(marbles.cold("-a"), "-a")


def test_what_is_said_already_is_not_said_again(marbles):
    observed = marbles.observe(marbles.cold("-a-b"), "^-!")
    marbles.check(observed, parse("-x", values={"x": "a"}))
    with pytest.raises(DiagramError, match="this diagram has its own"):
        marbles.check(observed, parse("-x", values={"x": "a"}), x="a")
    with pytest.raises(DiagramError, match="give it to observe"):
        marbles.check(observed, "-a", subs="^")


@pytest.mark.parametrize("subs", ["", "-", "^!^!", "-!", "a"])
def test_an_observation_is_one_subscription(marbles, subs):
    with pytest.raises(DiagramError):
        marbles.observe(reactivex.never(), subs)


def test_an_unsubscription_with_a_subscription_at_one_instant_wins(marbles):
    source = marbles.hot("-a")
    observed = marbles.observe(source, "-^ 0s !")
    assert observed == "-"
    assert source.subscriptions == []


def test_a_pipeline_that_ends_itself_while_it_is_subscribed_to(marbles):
    marbles.check(reactivex.of("a", "b"), "(ab|)")
    said = failure(marbles, reactivex.repeat_value("a"), "(aa)")
    assert "expected nothing, got 'a'" in said[3]


def test_what_was_observed_and_compared_with_nothing_is_a_failure():
    what = r"compared with nothing \[.*test_marbles.py:\d+\]"
    with pytest.raises(AssertionError, match=what), Marbles() as marbles:
        marbles.observe(marbles.cold("-a"))


def test_a_call_that_never_came_is_a_failure():
    what = r"at\('3s'\) never came \[.*test_marbles.py:\d+\]"
    with pytest.raises(AssertionError, match=what), Marbles() as marbles:
        marbles.at("3s", print)
    with pytest.raises(AssertionError, match="never came"), Marbles(limit="2s") as marbles:
        marbles.at("3s", print)
        marbles.check(marbles.cold("-a"), "-a")


def test_nothing_is_added_to_a_test_that_has_failed_already():
    with pytest.raises(KeyError), Marbles() as marbles:
        marbles.at("3s", print)
        raise KeyError


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: Marbles(frame="0s"), "frame: longer than nothing"),
        (lambda: Marbles(limit="soon"), "limit must be a duration"),
        (lambda: Marbles().at("soon", print), "time must be a duration"),
        (lambda: Marbles().hot("-a", b=1), "no value named 'a'; the values are b"),
        (lambda: Marbles().hot("-a", a=1, b=1), "no key 'b' in the diagram"),
        (lambda: Marbles().hot("-^-^"), "^ while subscribed"),
        (lambda: Marbles().cold("-^"), "^ stands only in"),
        (lambda: Marbles().cold("-?"), "? stands only in an expected diagram"),
        (lambda: Marbles().cold("-a", foo=1), "a key is one character"),
    ],
)
def test_what_is_wrong_is_said_at_once(make, what):
    with pytest.raises(DiagramError) as raised:
        make()
    assert what in str(raised.value)


def test_a_hundred_repetitions_are_identical():
    def once():
        marbles = Marbles()
        source = marbles.hot("-a-b-c-d--|", name="sensor")
        timed = source.pipe(ops.buffer_with_time_or_count(2.0, 2), ops.delay(0.5))
        both = reactivex.merge(timed, reactivex.interval(1).pipe(ops.take(4)))
        observed = marbles.observe(both)
        said = failure(marbles, both, "--?")
        return str(observed), said, repr(source.subscriptions)

    assert len({str(once()) for _ in range(100)}) == 1


def test_it_stands_alone():
    program = (
        "import sys; sys.modules['pytest'] = sys.modules['hypothesis'] = None\n"
        "from rxflow import run_async\n"
        "from rxflow.testing import Marbles\n"
        "with Marbles() as m:\n"
        "    m.check(m.cold('-a|'), '-a|')\n"
        "    broker, sink = m.mqtt('t q1 : -a'), m.sink()\n"
        "    m.run(run_async(broker.from_mqtt('t'), sink, seconds=3, log=False))\n"
        "    assert (sink.stored, broker.acknowledged('t')) == (['a'], '-^')\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60)
