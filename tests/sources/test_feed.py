"""`from_feed`: the rules of an acknowledged source, in virtual time."""

from __future__ import annotations

import asyncio
import threading

import pytest
import reactivex
from reactivex import operators as rx

from rxflow import (
    ConfigError,
    DurableSink,
    JsonSink,
    Message,
    RxflowError,
    RxflowWarning,
    SinkError,
    from_feed,
    run_async,
)
from rxflow import operators as ops


class Script:
    """A feed that emits a letter a second, `-` is none, and does at the end what it is told.

    The position of a letter is that in the text.
    """

    def __init__(self, text, *, end=None, log=None):
        self.text, self.end = text, end
        self.acknowledged, self.emitted = [], []
        self.log = [] if log is None else log
        self.log.append("made")

    async def read(self, emit):
        try:
            for position, letter in enumerate(self.text):
                if letter != "-":
                    self.emitted.append(letter)
                    emit(letter, position)
                await asyncio.sleep(1)
            if self.end == "wait":
                await asyncio.Event().wait()
            elif self.end:
                raise self.end
        except asyncio.CancelledError:
            self.log.append("cancelled")
            raise

    def acknowledge(self, positions):
        assert "closed" not in self.log[-1:]
        now = round(asyncio.get_running_loop().time(), 1)
        self.acknowledged += [(self.text[position], now) for position in positions]

    async def close(self):
        self.log.append("closed")

    @property
    def letters(self):
        return "".join(letter for letter, _ in self.acknowledged)


class Feeds:
    """Makes one after the other, and notes in one log what they do."""

    def __init__(self, *feeds):
        self.log, self.made = [], []
        self._feeds = list(feeds)

    def __call__(self):
        text, end = self._feeds.pop(0)
        self.made.append(Script(text, end=end, log=self.log))
        return self.made[-1]


def feeding(text, end="wait"):
    return Feeds((text, end))


def flow_of(make, **settings):
    return from_feed(make, label="letters", **settings)


def play(marbles, flow, sink, **settings):
    return marbles.run(run_async(flow, sink, log=False, **settings))


def boom(*_):
    raise LookupError("boom")


# -- arguments -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "settings", "named"),
    [
        (None, {}, "make must be a function"),
        (Script.read, {}, "make must be a plain function"),
        (Script, {"label": ""}, "label must be a str"),
        (Script, {"label": None}, "label must be a str"),
        (Script, {"max_pending": 0}, "max_pending must be"),
    ],
)
def test_a_wrong_argument_is_refused_while_composing(make, settings, named):
    with pytest.raises(ConfigError, match=named):
        from_feed(make, **{"label": "letters", **settings})


def test_it_shows_its_label_and_its_operators():
    assert repr(flow_of(feeding("a")).pipe(ops.take(1))) == "from_feed letters | take(1)"


# -- acknowledging ---------------------------------------------------------------------------------


def test_an_item_is_acknowledged_when_it_is_stored(marbles):
    make, sink = feeding("-ab"), marbles.sink(disk="-=====")
    report = play(marbles, flow_of(make), sink, seconds=8)
    assert sink.stored == ["a", "b"]
    assert make.made[0].acknowledged == [("a", 6), ("b", 6)]
    assert (report.received, report.stored, report.unacknowledged) == (2, 2, 0)


def test_an_item_is_a_message_of_qos_1_with_the_time_it_was_emitted(marbles):
    seen = []
    sink = reactivex.Observer(lambda m: seen.append((m, m.received_at.second)))
    play(marbles, flow_of(feeding("-a")), sink, seconds=3)
    assert seen == [(Message("letters", "a", 1), 1)]


def test_what_an_operator_lets_go_is_acknowledged_in_the_order_emitted(marbles):
    make, sink = feeding("abc"), marbles.sink(disk="====")
    flow = flow_of(make).pipe(ops.filter(lambda m: m.payload != "b"))
    report = play(marbles, flow, sink, seconds=6)
    assert make.made[0].acknowledged == [("a", 4), ("b", 4), ("c", 4)]
    assert (report.stored, report.filtered) == (2, 1)


@pytest.mark.parametrize("operator", [rx.map(lambda m: m.payload), ops.map(lambda m: m)])
def test_a_plain_value_is_stored_before_its_item_is_acknowledged(marbles, operator):
    make, sink = feeding("ab"), marbles.sink(disk="====")
    play(marbles, flow_of(make).pipe(operator), sink, seconds=6)
    assert make.made[0].acknowledged == [("a", 4), ("b", 4)]


def test_an_item_that_comes_by_a_callback_is_stored_before_it_is_acknowledged(marbles):
    class Callback(Script):
        async def read(self, emit):
            asyncio.get_running_loop().call_later(1, emit, "a", 0)
            await asyncio.Event().wait()

    feed, sink = Callback("a"), marbles.sink(disk="====")
    play(marbles, flow_of(lambda: feed).pipe(rx.map(lambda m: m.payload)), sink, seconds=6)
    assert feed.acknowledged == [("a", 4)]


def test_what_is_emitted_between_two_awaits_is_one_commit(marbles):
    class Burst(Script):
        async def read(self, emit):
            for position, letter in enumerate(self.text):
                emit(letter, position)
            await asyncio.Event().wait()

    feed, sink = Burst("abcdef"), marbles.sink()
    report = play(marbles, flow_of(lambda: feed), sink, seconds=3)
    assert (report.stored, report.commits) == (6, 1)


def test_a_message_that_two_sinks_get_waits_for_both(marbles):
    make, quick, slow = feeding("a"), marbles.sink(), marbles.sink(disk="====")
    shared = flow_of(make).pipe(ops.share())
    report = marbles.run(run_async((shared, quick), (shared, slow), seconds=6, log=False))
    assert (make.made[0].acknowledged, report.stored) == ([("a", 4)], 1)


# -- pausing ---------------------------------------------------------------------------------------


def test_reading_pauses_at_max_pending_and_goes_on_at_half(marbles):
    make, sink = feeding("abcdefgh"), marbles.sink(disk="======")
    marbles.at("5.5s", lambda: counts.append(list(make.made[0].emitted)))
    counts = []
    report = play(marbles, flow_of(make, max_pending=4), sink, seconds=20)
    assert counts == [["a", "b", "c", "d"]]
    assert report.stored == 8


def test_a_paused_feed_is_cancelled_at_the_end(marbles):
    make, sink = feeding("abcd"), marbles.sink()
    flow = flow_of(make, max_pending=2).pipe(ops.buffer_with_count(9))
    report = play(marbles, flow, sink, seconds=4)
    assert make.log == ["made", "cancelled", "closed"]
    assert (sink.stored, report.stored) == (["a", "b"], 2)


# -- the end ---------------------------------------------------------------------------------------


def test_the_stream_completes_when_read_returns_and_the_last_batch_is_stored(marbles):
    make, sink = feeding("abc", None), marbles.sink()
    report = play(marbles, flow_of(make).pipe(ops.buffer_with_count(9)), sink)
    assert (sink.stored, make.made[0].letters, report.stored) == (["a", "b", "c"], "abc", 3)
    assert make.log == ["made", "closed"]


def test_an_empty_feed_completes(marbles):
    marbles.check(flow_of(feeding("", None)), "|")


def test_the_end_of_a_run_flushes_and_acknowledges_what_is_stored(marbles):
    make, sink = feeding("abc"), marbles.sink()
    play(marbles, flow_of(make).pipe(ops.buffer_with_count(9)), sink, seconds=4)
    assert (sink.stored, make.made[0].letters) == (["a", "b", "c"], "abc")


def test_take_until_ends_it_from_the_top(marbles):
    make, sink = feeding("abc"), marbles.sink()
    flow = flow_of(make).pipe(ops.buffer_with_count(9), ops.take_until(reactivex.timer(1.5)))
    report = play(marbles, flow, sink)
    assert (sink.stored, make.made[0].letters, report.received) == (["a", "b"], "ab", 2)


def test_what_is_dropped_by_a_dispose_is_not_acknowledged(marbles):
    make, sink = feeding("abcd"), marbles.sink()
    flow = flow_of(make).pipe(ops.buffer_with_count(3), ops.flat_map(list), ops.take(1))
    report = play(marbles, flow, sink)
    assert (sink.stored, make.made[0].letters) == (["a"], "a")
    assert (report.received, report.unacknowledged) == (3, 2)


def test_what_is_held_by_a_list_of_the_users_is_left(marbles):
    make, sink, kept = feeding("a"), marbles.sink(), []
    flow = flow_of(make).pipe(ops.do_action(kept.append))
    report = play(marbles, flow, sink, seconds=2)
    assert (make.made[0].letters, report.unacknowledged) == ("", 1)


def test_on_the_background_thread_it_is_acknowledged_too(tmp_path):
    class Short(Script):
        closed = threading.Event()

        async def read(self, emit):
            emit("a", 0)
            emit("b", 1)

        async def close(self):
            self.closed.set()

    feed = Short("ab")
    flow_of(lambda: feed).subscribe(JsonSink(tmp_path / "a.json"))
    assert feed.closed.wait(30)
    assert feed.letters == "ab"


# -- failures --------------------------------------------------------------------------------------


def test_what_read_raises_fails_the_stream_and_nothing_more_is_acknowledged(marbles):
    make, sink = feeding("ab", OSError("gone")), marbles.sink(disk="======")
    with pytest.raises(OSError, match="gone"):
        play(marbles, flow_of(make), sink)
    assert (make.made[0].letters, make.log[-1]) == ("", "closed")


def test_what_an_operator_raises_fails_the_stream_and_not_the_feed(marbles):
    make, sink = feeding("ab"), marbles.sink()
    with pytest.raises(LookupError, match="boom"):
        play(marbles, flow_of(make).pipe(ops.map(boom)), sink)
    assert (make.made[0].letters, make.log) == ("", ["made", "cancelled", "closed"])


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit])
def test_what_cancels_in_a_function_of_the_users_is_an_error(marbles, error):
    def raising(_):
        raise error

    make, sink = feeding("ab"), marbles.sink()
    with pytest.raises(RxflowError, match=f"a function of the stream raised {error.__name__}"):
        play(marbles, flow_of(make).pipe(ops.map(raising)), sink)
    assert make.made[0].letters == ""


def test_a_sink_that_fails_ends_it_and_nothing_is_acknowledged(marbles):
    make, sink = feeding("ab"), marbles.sink(disk="xxx")
    with pytest.raises(SinkError):
        play(marbles, flow_of(make), sink)
    assert make.made[0].letters == ""


def test_what_make_raises_fails_the_stream(marbles):
    with pytest.raises(LookupError, match="boom"):
        play(marbles, flow_of(boom), marbles.sink())


def test_what_acknowledge_raises_fails_the_stream_and_it_is_not_asked_again(marbles):
    make, asked = feeding("ab"), []

    class Failing(Script):
        def acknowledge(self, positions):
            asked.extend(positions)
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        play(marbles, flow_of(lambda: Failing("ab", end="wait")), marbles.sink())
    assert (asked, make.made) == ([0], [])


@pytest.mark.parametrize("way", ["raises", "hangs"])
def test_what_goes_wrong_while_it_closes_is_told(marbles, way):
    class Closing(Script):
        async def close(self):
            await (asyncio.sleep(99) if way == "hangs" else boom())

    sink = marbles.sink()
    with pytest.warns(RxflowWarning, match="letters: the feed did not close"):
        report = play(marbles, flow_of(lambda: Closing("a")), sink)
    assert report.stored == 1


def test_retry_reads_a_new_feed_once_the_one_before_is_closed(marbles):
    make, sink = Feeds(("a", OSError("gone")), ("b", None)), marbles.sink()
    report = play(marbles, flow_of(make).pipe(ops.retry(2)), sink)
    assert make.log == ["made", "closed", "made", "closed"]
    assert (sink.stored, [each.letters for each in make.made]) == (["a", "b"], ["a", "b"])
    assert (report.received, report.stored) == (2, 2)


def test_a_second_subscription_while_the_first_lives_is_refused(marbles):
    make, flow = feeding("a"), None
    flow = flow_of(make)
    with pytest.raises(ConfigError, match=r"share\(\)"):
        play(marbles, flow.pipe(ops.merge(flow)), marbles.sink())


def test_emit_on_another_thread_is_refused(marbles):
    class Threaded(Script):
        async def read(self, emit):
            await asyncio.get_running_loop().run_in_executor(None, other, emit)

    def other(emit):
        def call():
            with pytest.raises(RxflowError, match="call_soon_threadsafe"):
                emit("a", 0)

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()

    assert play(marbles, flow_of(lambda: Threaded("a")), marbles.sink()).received == 0


def test_a_feed_that_is_disposed_of_before_it_began_is_closed(marbles):
    make = feeding("a")
    flow = flow_of(make).pipe(ops.start_with(Message("first", 0)), ops.take(1))
    play(marbles, flow, marbles.sink())
    assert make.log in ([], ["made", "closed"])


# -- what is told ----------------------------------------------------------------------------------


def test_it_says_that_it_stands_still(marbles):
    make, sink = feeding("a"), marbles.sink()
    flow = flow_of(make).pipe(ops.buffer_with_count(9))
    with pytest.warns(RxflowWarning, match="stalled .* or raise max_pending$"):
        play(marbles, flow, sink, seconds=9)


def test_a_run_reports_and_tells_its_health(marbles):
    make, sink, told = feeding("ab"), marbles.sink(disk="====="), []

    def start(running):
        loop = asyncio.get_running_loop()
        loop.call_later(3.5, lambda: told.append((running.report(), running.health())))

    play(marbles, flow_of(make), sink, seconds=8, on_start=start)
    report, health = told[0]
    assert (report.received, report.held) == (2, 2)
    assert health.connected_for == pytest.approx(3.5)
    assert 3.5 <= health.oldest_unacknowledged <= 4.5


def test_it_ends_in_a_durable_sink_of_a_function(marbles):
    make, rows = feeding("ab", None), []
    play(marbles, flow_of(make), DurableSink(lambda batch: rows.extend(batch.payloads)))
    assert (rows, make.made[0].letters) == (["a", "b"], "ab")
