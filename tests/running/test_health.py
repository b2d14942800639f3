"""`Running`: a run while it runs, in virtual time."""

from __future__ import annotations

import threading

import pytest
import reactivex

from rxflow import ConfigError, JsonLinesSink, JsonSink, Report, RxflowWarning, run, run_async
from rxflow import operators as ops
from rxflow.log import logger


class Watched:
    """What a run says of itself, second by second."""

    def __init__(self, marbles, *times):
        self.reports, self.healths = {}, {}
        for time in times:
            marbles.at(f"{time}s", lambda time=time: self.look(time))

    def look(self, time):
        self.reports[time] = self.running.report()
        self.healths[time] = self.running.health()

    def start(self, running):
        self.running = running


def adds_up(report):
    parts = (report.stored, report.filtered, report.rejected, report.unacknowledged, report.held)
    return report.received == sum(parts) and min(parts) >= 0


def watch(marbles, watched, flow, sink, **settings):
    settings = {"seconds": 9, "log": False, "on_start": watched.start, **settings}
    return marbles.run(run_async(flow, sink, **settings))


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_report_at_any_time_adds_up_and_agrees_with_that_of_the_end(marbles, tmp_path, qos):
    broker = marbles.mqtt(f"t q{qos} : -ab-c-d-e--", a=1, b=2, c="x", d=3, e=2)
    sink, watched = marbles.sink(disk="---====---"), Watched(marbles, *range(9))
    flow = broker.from_mqtt(("t", qos)).pipe(
        ops.map(lambda m: int(m.payload), rejected=JsonLinesSink(tmp_path / "bad.jsonl")),
        ops.filter(lambda m: m.payload < 3),
        ops.delay(0.5),
    )
    report = watch(marbles, watched, flow, sink)
    reports = [*watched.reports.values(), report]
    assert all(map(adds_up, reports))
    assert [each.received for each in reports] == sorted(each.received for each in reports)
    assert (report.received, report.stored, report.filtered, report.rejected) == (5, 3, 1, 1)
    assert report.held == 0
    assert watched.running.report() == report


def test_what_is_in_the_pipeline_is_held_until_it_is_stored_or_filtered(marbles):
    broker, sink = marbles.mqtt("t q1 : -ab-----"), marbles.sink()
    watched = Watched(marbles, 3, 6)
    flow = broker.from_mqtt("t").pipe(ops.delay(3), ops.filter(lambda m: m.payload == b'"a"'))
    report = watch(marbles, watched, flow, sink)
    found = [(each.stored, each.filtered, each.held) for each in watched.reports.values()]
    assert found == [(0, 0, 2), (1, 1, 0)]
    assert "unacknowledged 0, held 2; 0 commits" in str(watched.reports[3])
    assert (report.stored, report.filtered, report.unacknowledged) == (1, 1, 0)


def test_what_is_held_at_the_end_is_unacknowledged(marbles):
    broker, sink, kept = marbles.mqtt("t q1 : -a------"), marbles.sink(), []
    watched = Watched(marbles, 3)
    flow = broker.from_mqtt("t", drain_timeout=0.1).pipe(ops.do_action(kept.append))
    report = watch(marbles, watched, flow, sink, seconds=4)
    assert (watched.reports[3].held, watched.reports[3].unacknowledged) == (1, 0)
    assert (report.held, report.unacknowledged) == (0, 1)


def test_health_says_since_when_there_is_a_connection(marbles):
    broker = marbles.mqtt("""
        $connection : --^--!----^----
        t q1        : ---------------
    """)
    sink, watched = marbles.sink(), Watched(marbles, 1, 4, 6, 14)
    watch(marbles, watched, broker.from_mqtt("t"), sink, seconds=15)
    connected = [each.connected_for for each in watched.healths.values()]
    assert connected[0] is None
    assert connected[1] == pytest.approx(2, abs=1.1)
    assert connected[2] is None
    assert connected[3] == pytest.approx(4, abs=1.1)


def test_health_says_how_old_the_oldest_unacknowledged_message_is(marbles):
    broker, sink = marbles.mqtt("t q1 : --a-b-----c---"), marbles.sink(disk="------===-----")
    watched = Watched(marbles, 1, 5, 8, 11)
    flow = broker.from_mqtt("t").pipe(ops.delay(4))
    watch(marbles, watched, flow, sink, seconds=15)
    ages = [each.oldest_unacknowledged for each in watched.healths.values()]
    assert ages[0] is None
    assert 3 <= ages[1] <= 4  # a, one second too many at most
    assert 6 <= ages[2] <= 7
    assert 1 <= ages[3] <= 2  # c


def test_health_says_for_how_long_it_stands_still(marbles):
    broker, sink = marbles.mqtt("t q1 : -a-b--------"), marbles.sink()
    watched = Watched(marbles, 0.5, 4, 9)
    flow = broker.from_mqtt("t").pipe(ops.buffer_with_count(9))
    with pytest.warns(RxflowWarning, match="stalled for"):
        watch(marbles, watched, flow, sink, seconds=9.5)
    still = [each.standing_still_for for each in watched.healths.values()]
    assert still[0] == 0
    assert 0 <= still[1] <= 1
    assert 5 <= still[2] <= 6


def test_health_says_when_the_last_commit_was(marbles):
    broker, sink = marbles.mqtt("t q1 : --a-------"), marbles.sink()
    watched = Watched(marbles, 1, 7)
    watch(marbles, watched, broker.from_mqtt("t"), sink)
    assert watched.healths[1].last_commit_ago is None
    assert watched.healths[7].last_commit_ago == pytest.approx(5, abs=1.1)


def test_stop_drains_so_that_the_last_batch_is_stored(marbles):
    broker, sink = marbles.mqtt("t q1 : -ab-----"), marbles.sink()
    watched = Watched(marbles)
    marbles.at("4s", lambda: watched.running.stop("enough"))
    flow = broker.from_mqtt("t").pipe(ops.buffer_with_count(9))
    report = watch(marbles, watched, flow, sink, seconds=None)
    assert (sink.stored, report.stored, round(report.seconds)) == (["a", "b"], 2, 4)
    assert broker.acknowledged("t") == "----^"


def test_stop_on_another_thread_ends_a_run_and_the_log_says_why():
    def start(running):
        threading.Thread(target=running.stop, args=("enough\n",)).start()

    lines = []
    number = logger.add(lines.append, format="{message}")
    try:
        report = run(reactivex.never(), reactivex.Observer(), on_start=start)
    finally:
        logger.remove(number)
        logger.disable("rxflow")
    assert isinstance(report, Report)
    assert any(r"pipeline: enough\n; draining" in line for line in lines)


def test_on_start_comes_before_the_first_item_and_what_it_raises_ends_the_run(tmp_path):
    seen = []

    def start(running):
        seen.append(running.report())
        raise LookupError("boom")

    with pytest.raises(LookupError, match="boom"):
        run(reactivex.of(1), JsonSink(tmp_path / "a"), on_start=start, log=False)
    assert [each.received for each in seen] == [0]


@pytest.mark.parametrize("why", [None, "", 5])
def test_stop_wants_a_reason(why):
    def start(running):
        with pytest.raises(ConfigError, match="why must be a str"):
            running.stop(why)

    run(reactivex.of(1), reactivex.Observer(), on_start=start, log=False)
