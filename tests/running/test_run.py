"""`run` and `run_async`: how a pipeline ends, what it reports, and what it leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from textwrap import dedent

import paho.mqtt.client as paho
import pytest
import reactivex
from reactivex import operators as rx
from reactivex.subject import Subject
from scripted import DISCONNECT, PUBACK, ScriptedBroker, publish
from serving import serve, until_disconnect
from stopping import stop, stop_after

from rxflow import (
    ConfigError,
    JsonLinesSink,
    JsonSink,
    MqttSink,
    RxflowError,
    RxflowWarning,
    SinkError,
    from_mqtt,
    read_rows,
    run,
    run_async,
)
from rxflow import operators as ops
from rxflow.log import logger
from rxflow.process import heartbeat

LOGIN = {"username": "wiredflow", "password": "wiredflow"}
MANY = [publish("a", b"%d" % n, 1, n) for n in range(1, 101)]


class Seen(reactivex.Observer):
    """An observer that keeps what it is told, and no delivery."""

    def __init__(self):
        self.events = []
        super().__init__(
            lambda item: self.events.append(getattr(item, "payload", item)),
            lambda error: self.events.append(type(error).__name__),
            lambda: self.events.append("completed"),
        )


def quiet(*pipelines, **settings):
    return run(*pipelines, log=False, **settings)


def adds_up(report):
    parts = report.stored, report.filtered, report.rejected, report.unacknowledged
    assert min(parts) >= 0
    return report.received == sum(parts)


def boom(*_):
    raise LookupError("boom")


# -- arguments -------------------------------------------------------------------------------------

ONE = reactivex.of(1)


@pytest.mark.parametrize(
    ("pipelines", "settings", "named"),
    [
        ((), {}, "needed"),
        ((ONE,), {}, "an observable and a sink"),
        ((ONE, print), {}, "an observable and a sink"),
        ((ONE, JsonSink), {}, "an observable and a sink"),
        (((ONE,),), {}, "an observable and a sink"),
        ((1, Seen()), {}, "an observable and a sink"),
        ((ONE, Seen()), {"seconds": 0}, "seconds.*0"),
        ((ONE, Seen()), {"seconds": -1}, "seconds.*-1"),
        ((ONE, Seen()), {"seconds": "1"}, "seconds.*'1'"),
        ((ONE, Seen()), {"seconds": float("nan")}, "seconds.*nan"),
        ((ONE, Seen()), {"drain_timeout": -1}, "drain_timeout.*-1"),
        ((ONE, Seen()), {"drain_timeout": None}, "drain_timeout.*None"),
    ],
)
@pytest.mark.parametrize("way", [run, run_async])
def test_a_wrong_argument_is_a_config_error_at_once(way, pipelines, settings, named):
    with pytest.raises(ConfigError, match=named):
        way(*pipelines, **settings)


def test_two_pipelines_can_not_end_in_the_same_sink(tmp_path):
    sink = JsonSink(tmp_path / "a.json")
    with pytest.raises(ConfigError, match="merge"):
        run((ONE, sink), (ONE, sink))
    assert not list(tmp_path.iterdir())


def test_run_inside_a_running_loop_names_run_async():
    async def main():
        run(ONE, Seen())

    with pytest.raises(ConfigError, match="await run_async"):
        asyncio.run(main())


def test_run_inside_a_run_fails_the_outer_one():
    with pytest.raises(ConfigError, match="await run_async"):
        quiet(ONE.pipe(ops.map(lambda _: quiet(ONE, Seen()))), Seen())


# -- ending ----------------------------------------------------------------------------------------


def test_a_plain_observable_is_run_to_its_end_and_reported(tmp_path):
    report = quiet(reactivex.of(1, 2, 3), JsonSink(tmp_path / "a.json"))
    assert list(read_rows(tmp_path / "a.json")) == [1, 2, 3]
    assert (report.received, report.stored) == (3, 3)
    assert "received 3, stored 3, filtered 0, rejected 0, unacknowledged 0" in str(report)


def test_one_run_may_follow_the_other_with_the_same_observable(tmp_path):
    with ScriptedBroker(serve(*MANY), serve(*MANY)) as broker:
        source = from_mqtt(broker.url, "a").pipe(ops.take(50))
        for n in range(2):
            quiet(source, JsonSink(tmp_path / f"{n}.json"))
    assert all(len(list(read_rows(tmp_path / f"{n}.json"))) == 50 for n in range(2))


def test_a_signal_completes_the_source_so_that_the_last_batch_is_stored(tmp_path):
    with ScriptedBroker(serve(*MANY)) as broker:
        source = from_mqtt(broker.url, "a").pipe(stop_after(100), ops.buffer_with_count(1000))
        report = quiet(source, JsonSink(tmp_path / "a.json"))
    assert list(read_rows(tmp_path / "a.json")) == list(range(1, 101))
    assert (report.stored, report.unacknowledged) == (100, 0)


def test_seconds_completes_the_source_so_that_the_last_batch_is_stored(marbles):
    broker, sink = marbles.mqtt("a q1 : -ab-c---"), marbles.sink()
    source = broker.from_mqtt("a").pipe(ops.buffer_with_count(1000))
    report = marbles.run(run_async(source, sink, seconds=6, log=False))
    assert sink.stored == ["a", "b", "c"]
    assert (report.stored, report.unacknowledged) == (3, 0)


def test_an_endless_plain_observable_completes_its_observer_when_the_time_is_over():
    seen = Seen()
    quiet(reactivex.interval(0.05), seen, seconds=0.2)
    assert seen.events[-1] == "completed"


def test_what_never_comes_to_an_end_is_cut_at_the_drain_timeout_and_completed():
    seen = Seen()
    with ScriptedBroker(serve()) as broker:
        source = from_mqtt(broker.url, "a", on_connect=stop)
        quiet(source.pipe(ops.merge(reactivex.never())), seen, drain_timeout=0.1)
    assert seen.events == ["completed"]


@pytest.mark.parametrize("share", [ops.share, reactivex.operators.share])
def test_what_is_under_way_behind_a_share_is_given_its_time(tmp_path, share):
    kinds = []
    with ScriptedBroker(serve(publish("a"), kinds=kinds)) as broker:
        shared = from_mqtt(broker.url, "a").pipe(stop_after(1), share())
        later = ops.flat_map(lambda m: reactivex.timer(0.5).pipe(ops.map(lambda _: m)))
        report = quiet((shared, Seen()), (shared.pipe(later), JsonSink(tmp_path / "a.json")))
    assert list(read_rows(tmp_path / "a.json")) == [1]
    assert kinds == [PUBACK, DISCONNECT]
    assert adds_up(report)


def test_a_disk_that_hangs_does_not_keep_a_run_from_ending(tmp_path, monkeypatch):
    answers, kinds = threading.Event(), []
    monkeypatch.setattr(sys.modules["rxflow.running.run"], "_CLOSE_SECONDS", 0.2)
    monkeypatch.setattr("rxflow.sinks.file.store.flush", lambda _: answers.wait(60))
    with ScriptedBroker(serve(publish("a"), kinds=kinds)) as broker:
        source = from_mqtt(broker.url, "a").pipe(stop_after(1))
        with pytest.raises(SinkError, match=r"did not close within 0\.2 s"):
            quiet(source, JsonSink(tmp_path / "n"), drain_timeout=0)
        answers.set()
    assert kinds == [DISCONNECT]  # and no PUBACK


def test_what_is_under_way_at_the_drain_timeout_is_left_to_the_broker(tmp_path):
    kinds = []
    with ScriptedBroker(serve(publish("a"), kinds=kinds)) as broker:
        shared = from_mqtt(broker.url, "a", drain_timeout=0.1).pipe(stop_after(1), ops.share())
        never = ops.flat_map(lambda m: reactivex.timer(60).pipe(ops.map(lambda _: m)))
        report = quiet(
            (shared.pipe(never), JsonSink(tmp_path / "a.json")),
            (shared, JsonSink(tmp_path / "b.json")),
            drain_timeout=60,
        )
    assert kinds == [DISCONNECT]
    assert (report.stored, report.unacknowledged) == (0, 1)


def test_an_endless_pipeline_does_not_hold_up_the_others(tmp_path):
    with ScriptedBroker(serve(*MANY)) as broker:
        shared = from_mqtt(broker.url, "a").pipe(stop_after(100), ops.share())
        seen = Seen()
        report = quiet(
            (shared, JsonSink(tmp_path / "a.json")),
            (shared.pipe(ops.filter(lambda m: m.payload < b"2")), JsonSink(tmp_path / "b.json")),
            (reactivex.interval(0.01), seen),
            drain_timeout=60,
        )
    assert seen.events[-1] == "completed"
    assert (report.received, report.stored, report.unacknowledged) == (100, 100, 0)


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [ONE, reactivex.timer(0.01)])
@pytest.mark.parametrize("hook", ["on_next", "on_completed"])
def test_what_a_plain_observer_raises_ends_the_run(source, hook):
    with pytest.raises(LookupError, match="boom"):
        quiet(source, reactivex.Observer(**{hook: boom}))


@pytest.mark.parametrize("raising", [{"on_next": boom}, {"on_completed": boom}])
def test_what_an_observer_raises_ends_the_run_and_acknowledges_nothing(raising):
    kinds = []
    with ScriptedBroker(serve(publish("a"), kinds=kinds)) as broker:
        source = from_mqtt(broker.url, "a").pipe(ops.merge(reactivex.never()), ops.take(1))
        with pytest.raises(LookupError, match="boom"):
            quiet(source, reactivex.Observer(**raising))
    assert "on_completed" in raising or kinds == [DISCONNECT]


def test_what_a_timer_raises_past_every_operator_ends_the_run(tmp_path):
    def subscribe(observer, scheduler=None):
        return scheduler.schedule_relative(0.01, boom)

    with pytest.raises(LookupError, match="boom"):
        quiet(reactivex.create(subscribe), JsonSink(tmp_path / "a.json"))


@pytest.mark.parametrize("after", [0.0, 0.05])
def test_an_error_raises_when_the_file_is_closed_and_unlocked(tmp_path, after):
    path = tmp_path / "a.json"
    source = ONE.pipe(ops.concat(reactivex.timer(after).pipe(ops.map(boom))))
    with pytest.raises(LookupError, match="boom"):
        quiet(source, JsonSink(path))
    assert list(read_rows(path)) == [1]
    quiet(ONE, JsonSink(path))


def test_an_observable_that_can_not_be_subscribed_to_raises_and_closes_the_others(tmp_path):
    path, seen = tmp_path / "a.json", Seen()
    with pytest.raises(LookupError, match="boom"):
        quiet(
            (reactivex.never(), JsonSink(path)),
            (reactivex.never(), seen),
            (reactivex.create(boom), Seen()),
        )
    assert seen.events == []
    quiet(ONE, JsonSink(path))


def test_a_sink_that_can_not_be_opened_raises_before_anything_is_subscribed(tmp_path):
    subscribed = []
    source = reactivex.defer(lambda _: subscribed.append(1) or ONE)
    with pytest.raises(SinkError, match="folder"):
        quiet((source, JsonSink(tmp_path / "good.json")), (source, JsonSink(tmp_path)))
    assert not subscribed
    quiet(ONE, JsonSink(tmp_path / "good.json"))


def test_the_first_error_raises_and_what_on_error_raises_is_dropped():
    source = reactivex.throw(ValueError("first"))
    with pytest.raises(ValueError, match="first"):
        quiet(source, reactivex.Observer(on_error=boom))


def test_a_sink_that_fails_ends_the_run_with_its_error(tmp_path):
    with pytest.raises(SinkError, match="complex") as caught:
        quiet(ONE.pipe(ops.concat(reactivex.of(1j))), JsonSink(tmp_path / "a.json"))
    assert isinstance(caught.value.__cause__, TypeError)


def test_a_sink_that_fails_as_late_as_while_it_closes_fails_the_run(tmp_path):
    class Late(JsonSink):
        async def wait_closed(self):
            await super().wait_closed()
            raise SinkError("late")

    with pytest.raises(SinkError, match="late"):
        quiet(ONE, Late(tmp_path / "a.json"))


def test_a_rejected_sink_that_fails_fails_the_pipeline(tmp_path):
    rejected = JsonLinesSink(tmp_path)
    with pytest.raises(SinkError, match="folder"):
        quiet(reactivex.of(1j), JsonSink(tmp_path / "a.json", rejected=rejected))


def test_a_rejected_observer_that_raises_fails_the_pipeline(tmp_path):
    with pytest.raises(SinkError, match="boom"):
        quiet(
            reactivex.of(1j),
            JsonSink(tmp_path / "a.json", rejected=reactivex.Observer(boom)),
        )


def test_a_rejected_observer_that_raises_at_the_end_does_not_keep_the_others_open(tmp_path):
    path = tmp_path / "a.json"
    rejected = reactivex.Observer(on_completed=boom)
    with pytest.raises(LookupError, match="boom"):
        quiet(reactivex.of(1), JsonSink(path, rejected=rejected))
    quiet(ONE, JsonSink(path))


def test_what_a_dispose_raises_does_not_keep_the_sinks_open(tmp_path):
    path = tmp_path / "a.json"
    source = reactivex.never().pipe(ops.finally_action(boom))
    with pytest.raises(LookupError, match="boom"):
        quiet((source, JsonSink(path)), (reactivex.never(), Seen()), seconds=0.1)
    quiet(ONE, JsonSink(path))


def test_what_a_dispose_raises_does_not_hide_the_error_before_it(tmp_path):
    path = tmp_path / "a.json"
    source = reactivex.never().pipe(ops.finally_action(boom))
    with pytest.raises(ValueError, match="first"):
        quiet((source, JsonSink(path)), (reactivex.throw(ValueError("first")), Seen()))
    quiet(ONE, JsonSink(path))


def test_the_error_of_one_branch_acknowledges_nothing_that_only_the_other_stored(tmp_path):
    kinds = []
    with ScriptedBroker(serve(*MANY, kinds=kinds)) as broker:
        shared = from_mqtt(broker.url, "a").pipe(ops.share())
        with pytest.raises(LookupError, match="boom"):
            quiet(
                (shared, JsonSink(tmp_path / "a.json")),
                (shared.pipe(ops.map(boom)), JsonSink(tmp_path / "b.json")),
            )
    assert kinds == [DISCONNECT]


def test_what_a_failed_branch_still_held_is_not_acknowledged_though_the_other_stored_it(tmp_path):
    kinds = []

    def script(conversation):
        conversation.accept()
        conversation.accept_subscription()
        conversation.send(publish("a", b"1", 1, 1))
        while not list(read_rows(tmp_path / "b.json")):
            pass  # until the other branch has it on the disk
        conversation.send(publish("a", b"2", 1, 2))
        kinds.extend(until_disconnect(conversation))

    with ScriptedBroker(script) as broker:
        shared = from_mqtt(broker.url, "a").pipe(ops.share())
        failing = ops.map(lambda m: boom() if m.payload == b"2" else m)
        with pytest.raises(LookupError, match="boom"):
            quiet(
                (shared.pipe(failing, ops.buffer_with_count(9)), JsonSink(tmp_path / "a.json")),
                (shared, JsonSink(tmp_path / "b.json")),
            )
    assert kinds == [DISCONNECT]


def test_an_error_while_draining_raises(tmp_path):
    with ScriptedBroker(serve(*MANY)) as broker:
        batch = ops.buffer_with_count(1000)
        source = from_mqtt(broker.url, "a").pipe(stop_after(100), batch, ops.map(boom))
        with pytest.raises(LookupError, match="boom"):
            quiet(source, JsonSink(tmp_path / "a.json"))


# -- the report ------------------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_the_report_adds_up_whatever_became_of_the_messages(tmp_path, qos):
    payloads = [b"%d" % n for n in range(1, 41)] + [b"{"] * 10
    packets = [publish("a", each, qos, n) for n, each in enumerate(payloads, 1)]
    with ScriptedBroker(serve(*packets)) as broker:
        source = from_mqtt(broker.url, ("a", qos)).pipe(
            stop_after(50),
            ops.decode_json(rejected=JsonLinesSink(tmp_path / "bad.jsonl")),
            ops.filter(lambda m: m.payload > 10),
        )
        report = quiet(source, JsonSink(tmp_path / "a.json"))
    parts = (
        report.received,
        report.stored,
        report.filtered,
        report.rejected,
        report.unacknowledged,
    )
    assert parts == (50, 30, 10, 10, 0)
    assert report.commits >= 2
    assert report.bytes > 0


@pytest.mark.parametrize("qos", [0, 1])
def test_the_report_adds_up_when_two_sinks_store_and_one_sets_aside(tmp_path, qos):
    packets = [publish("a", b"1", qos, 1), publish("a", b"{", qos, 2), publish("a", b"3", qos, 3)]
    with ScriptedBroker(serve(*packets)) as broker:
        shared = from_mqtt(broker.url, ("a", qos)).pipe(stop_after(3), ops.share())
        decoded = shared.pipe(ops.decode_json(rejected=JsonLinesSink(tmp_path / "bad.jsonl")))
        report = quiet(
            (shared.pipe(ops.map(lambda m: str(m.payload))), JsonSink(tmp_path / "a.json")),
            (decoded, JsonSink(tmp_path / "b.json")),
        )
    assert (report.received, report.rejected) == (3, 1)
    assert adds_up(report)


def test_plain_values_set_aside_beside_a_source_make_no_negative_number(tmp_path):
    rejected = JsonLinesSink(tmp_path / "bad.jsonl")
    with ScriptedBroker(serve()) as broker:
        report = quiet(
            (from_mqtt(broker.url, "a", on_connect=stop), JsonSink(tmp_path / "a.json")),
            (reactivex.of(1j), JsonSink(tmp_path / "b.json", rejected=rejected)),
        )
    assert adds_up(report)


def test_a_run_that_fails_logs_a_report_that_adds_up(tmp_path):
    lines = []
    number = logger.add(lines.append, format="{message}")
    with ScriptedBroker(serve(*MANY)) as broker:
        source = from_mqtt(broker.url, "a").pipe(
            ops.map(lambda m: boom() if m.payload == b"50" else m), ops.buffer_with_count(10)
        )
        with pytest.raises(LookupError):
            run(source, JsonSink(tmp_path / "a.json"), name="mine")
    logger.remove(number)
    assert "launched mine" in lines[0]
    assert "failed mine: boom: received 50," in lines[-1]


def test_messages_that_the_user_keeps_are_left_and_not_waited_for():
    kept = []
    with ScriptedBroker(serve(publish("a"))) as broker:
        source = from_mqtt(broker.url, "a", drain_timeout=600).pipe(stop_after(1))
        report = quiet(source, reactivex.Observer(kept.append))
    assert (len(kept), report.unacknowledged) == (1, 1)


# -- the log ---------------------------------------------------------------------------------------


def test_without_the_log_what_must_be_known_is_a_warning():
    logger.disable("rxflow")
    sink = MqttSink("mqtt://192.0.2.1", topic="a", username="u", password="canary")
    with pytest.warns(RxflowWarning, match="mqtts://"):
        quiet(reactivex.empty(), sink)


def test_with_the_log_what_must_be_known_is_logged():
    lines = []
    number = logger.add(lines.append, level="WARNING", format="{message}")
    sink = MqttSink("mqtt://192.0.2.1", topic="a", username="u", password="canary")
    run(reactivex.empty(), sink)
    logger.remove(number)
    assert "mqtts://" in lines[0]


# -- threads, loops, handlers ----------------------------------------------------------------------


def test_off_the_main_thread_signals_are_left_alone():
    found = []
    watched = ONE.pipe(ops.do_action(lambda _: found.append(signal.getsignal(signal.SIGTERM))))
    thread = threading.Thread(target=quiet, args=(watched, Seen()))
    thread.start()
    thread.join(60)
    assert found == [signal.SIG_DFL]


def test_the_handlers_of_the_program_are_back_after_a_run():
    def mine(*_):
        pass

    before = signal.signal(signal.SIGTERM, mine), signal.getsignal(signal.SIGINT)
    try:
        quiet(ONE, Seen())
        assert signal.getsignal(signal.SIGTERM) is mine
        assert signal.getsignal(signal.SIGINT) is before[1]
    finally:
        signal.signal(signal.SIGTERM, before[0])


def test_run_async_installs_no_handlers():
    found = []
    watched = ONE.pipe(ops.do_action(lambda _: found.append(signal.getsignal(signal.SIGTERM))))
    asyncio.run(run_async(watched, Seen(), log=False))
    assert found == [signal.SIG_DFL]


def test_cancelling_run_async_drains_once_and_raises(tmp_path):
    kinds, standing = [], Subject()

    async def main():
        arrived = asyncio.Event()
        source = from_mqtt(broker.url, "a").pipe(
            ops.do_action(lambda m: arrived.set() if m.payload == b"100" else None),
            ops.buffer_with_count(1000),
        )
        task = asyncio.create_task(run_async(source, JsonSink(tmp_path / "a.json"), log=False))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with ScriptedBroker(serve(*MANY, kinds=kinds)) as broker:
        asyncio.run(main())
    assert list(read_rows(tmp_path / "a.json")) == list(range(1, 101))
    assert kinds == [PUBACK] * 100 + [DISCONNECT]
    standing.dispose()


def test_cancelling_run_async_again_disposes_at_once_and_leaves_the_rest(tmp_path):
    kinds = []

    async def main():
        arrived = asyncio.Event()
        source = from_mqtt(broker.url, "a").pipe(
            ops.do_action(lambda _: arrived.set()),
            ops.flat_map(lambda m: reactivex.timer(60).pipe(ops.map(lambda _: m))),
        )
        sink = JsonSink(tmp_path / "a.json")
        task = asyncio.create_task(run_async(source, sink, log=False, drain_timeout=60))
        await arrived.wait()
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0.05)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 60)

    with ScriptedBroker(serve(publish("a"), kinds=kinds)) as broker:
        asyncio.run(main())
    assert PUBACK not in kinds


def test_a_program_may_run_two_pipelines_at_once(tmp_path):
    async def main():
        return await asyncio.gather(
            *(run_async(reactivex.of(n), JsonSink(tmp_path / f"{n}.json")) for n in range(2))
        )

    assert [report.stored for report in asyncio.run(main())] == [1, 1]


# -- signals ---------------------------------------------------------------------------------------


class Held(reactivex.Observable):
    """A source that does not end when it is told to, and does then what the test says."""

    def __init__(self, asked):
        super().__init__()
        self.complete = asked

    def _subscribe_core(self, observer, scheduler=None):
        scheduler.scope.register(self)
        return scheduler.schedule_relative(0.01, lambda *_: observer.on_next(1))


def kill(number, times=1):
    for _ in range(times):
        os.kill(os.getpid(), number)


ABORTED = [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_completes_the_sources(number):
    seen = Seen()
    endless = reactivex.interval(0.01).pipe(ops.do_action(lambda n: n == 3 and kill(number)))
    quiet(endless, seen)
    assert seen.events[-1] == "completed"


@pytest.mark.parametrize(("number", "error"), ABORTED)
def test_a_second_signal_aborts_while_it_drains(number, error):
    source = Held(lambda: kill(number)).pipe(ops.do_action(lambda _: kill(number)))
    sink = MqttSink("mqtt://127.0.0.1:1", topic="a", drain_timeout=600)
    with pytest.raises(error) as caught:
        quiet(source, sink, drain_timeout=600)
    assert error is KeyboardInterrupt or caught.value.code == 143


@pytest.mark.parametrize(("number", "error"), ABORTED)
def test_a_second_signal_aborts_while_a_sink_closes(number, error):
    class Closing(MqttSink):
        async def wait_closed(self):
            kill(number)
            await super().wait_closed()

    sink = Closing("mqtt://127.0.0.1:1", topic="a", drain_timeout=600)
    with pytest.raises(error):
        quiet(reactivex.interval(0.01).pipe(ops.do_action(lambda n: n or kill(number))), sink)


@pytest.mark.parametrize(("number", "error"), ABORTED)
def test_a_second_signal_aborts_while_a_source_closes(number, error):
    kinds, kept = [], []
    with ScriptedBroker(serve(publish("a"), kinds=kinds)) as broker:
        source = from_mqtt(broker.url, "a", drain_timeout=600)
        keep = source.pipe(ops.do_action(lambda m: (kept.append(m), kill(number))))
        with pytest.raises(error):
            quiet(
                (keep, reactivex.Observer(on_completed=lambda: kill(number))),
                (reactivex.never(), Seen()),
                drain_timeout=600,
            )
    assert PUBACK not in kinds


@pytest.mark.parametrize(("number", "error"), ABORTED)
def test_a_second_signal_aborts_though_the_loop_is_kept_busy(number, error):
    busy = reactivex.from_iterable(itertools.count())
    with pytest.raises(error):
        quiet(busy.pipe(ops.do_action(lambda n: n or kill(number, times=2))), Seen())


def test_exit_in_a_function_of_the_user_ends_the_run():
    with pytest.raises(SystemExit, match="7"):
        quiet(reactivex.timer(0.01).pipe(ops.map(lambda _: sys.exit(7))), Seen())


CHILD = """
import sys, itertools, reactivex
from rxflow import *
from rxflow import operators as ops
url, path = sys.argv[1:]
def ready(_):
    print("ready", flush=True)
"""


@contextlib.contextmanager
def child(body, url="", path=""):
    """A program of its own, once it has said that it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", CHILD + dedent(body), url, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "LOGURU_LEVEL": "WARNING"},
    )
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143)]
)
def test_a_program_that_is_busy_ends_at_the_second_signal_with_its_status(number, status):
    body = f"""
    import os

    def signals(n):  # the first is survived, for there is a second
        if n in (0, 1000):
            os.kill(os.getpid(), {int(number)})
        elif n == 999:
            ready(n)

    busy = reactivex.from_iterable(itertools.count())
    run(busy.pipe(ops.do_action(signals)), reactivex.Observer())
    """
    with child(body) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert "never retrieved" not in errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_under_load_exits_with_0_and_loses_nothing_acknowledged(
    mosquitto, tmp_path, number
):
    path, count = tmp_path / "a.json", 5_000
    body = """
    source = from_mqtt(url, "load", username="wiredflow", password="wiredflow", on_connect=ready)
    run(source.pipe(ops.decode_json(), ops.buffer_with_time_or_count(0.05, 100)), JsonSink(path))
    """
    acknowledged = itertools.count()
    half = threading.Event()
    publisher = paho.Client(paho.CallbackAPIVersion.VERSION2)
    publisher.max_inflight_messages_set(1000)
    publisher.username_pw_set("wiredflow", "wiredflow")
    publisher.on_publish = lambda *_: half.set() if next(acknowledged) == count // 2 else None
    publisher.connect("127.0.0.1", mosquitto.port)
    publisher.loop_start()
    with child(body, mosquitto.url, path) as process:
        sent = [publisher.publish("load", b"%d" % n, qos=1) for n in range(count)]
        assert half.wait(60)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    # On a busy machine -X dev says of some turn of the loop how long it took.
    said = [line for line in errors.splitlines() if not line.startswith("Executing <")]
    assert (process.returncode, said) == (0, [])
    sent.append(publisher.publish("load", b"%d" % count, qos=1))  # so that something is left
    for each in sent:
        each.wait_for_publish(60)
    publisher.disconnect()
    publisher.loop_stop()
    assert len(json.loads(path.read_text())) > 0
    rest = from_mqtt(mosquitto.url, "load", **LOGIN).pipe(
        ops.decode_json(), ops.take_while(lambda m: m.payload != count, inclusive=True)
    )
    quiet(rest, JsonSink(path), seconds=60)
    rows = list(read_rows(path))
    assert sorted(set(rows)) == list(range(count + 1))
    assert len(rows) - count <= 1001  # what was in flight


def test_a_session_brings_what_was_published_while_it_was_away(mosquitto, tmp_path):
    path = tmp_path / "a.json"
    source = from_mqtt(mosquitto.url, "away", on_connect=stop, **LOGIN)
    quiet(source.pipe(ops.merge(reactivex.never())), JsonSink(path), drain_timeout=0.1)
    quiet(reactivex.range(50), MqttSink(mosquitto.url, topic="away", **LOGIN))
    quiet(from_mqtt(mosquitto.url, "away", **LOGIN).pipe(ops.take(50)), JsonSink(path), seconds=60)
    assert list(read_rows(path)) == list(range(50))
    kept = Path(f"{path}.client").read_text()
    assert "wiredflow" not in kept
    assert f"{mosquitto.port}" in kept


def test_the_path_of_a_plain_observer_is_its_own_business(tmp_path):
    observer = Seen()
    observer.path = tmp_path / "a"
    quiet(ONE, observer)
    assert not list(tmp_path.iterdir())


def test_what_the_broker_sends_after_the_end_is_not_acknowledged(tmp_path):
    kinds = []

    def script(conversation):
        conversation.accept()
        conversation.accept_subscription()
        conversation.send(publish("a", b"1", 1, 1))
        conversation.packet_ids(PUBACK, 1)
        conversation.send(publish("a", b"2", 1, 2))
        kinds.extend(until_disconnect(conversation))

    with ScriptedBroker(script) as broker:
        report = quiet(from_mqtt(broker.url, "a").pipe(ops.take(1)), JsonSink(tmp_path / "a.json"))
    assert kinds[-1] == DISCONNECT or not kinds
    assert adds_up(report)


def test_a_cancelled_run_says_so_and_its_error_carries_the_report(tmp_path):
    lines = []

    async def main():
        arrived = asyncio.Event()
        source = from_mqtt(broker.url, "a").pipe(ops.do_action(lambda _: arrived.set()))
        task = asyncio.create_task(run_async(source, JsonSink(tmp_path / "a.json"), name="plant"))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as raised:
            await task
        return raised.value.report

    number = logger.add(lines.append, format="{message}", level="INFO")
    try:
        with ScriptedBroker(serve(publish("a"))) as broker:
            report = asyncio.run(main())
    finally:
        logger.remove(number)
        logger.disable("rxflow")
    said = [line for line in lines if "plant" in line]
    assert (report.received, report.stored) == (1, 1)
    assert said[-2:] == ["plant: cancelled; draining\n", f"finished plant: {report}\n"]


def test_the_error_of_a_run_carries_the_report(tmp_path):
    with pytest.raises(ZeroDivisionError) as raised:
        quiet(reactivex.of(1, 0).pipe(ops.map(lambda n: 1 / n)), JsonSink(tmp_path / "a.json"))
    assert raised.value.report.stored == 1


# -- values that have lost their envelope ----------------------------------------------------------


PLAIN = rx.map(lambda m: {"value": m.payload.decode()})


@pytest.mark.parametrize("qos", [1, 2])
def test_what_an_operator_of_reactivex_made_is_stored_before_it_is_acknowledged(marbles, qos):
    broker, sink = marbles.mqtt(f"t q{qos} : -ab-c---"), marbles.sink(disk="-x---")
    with pytest.raises(SinkError):
        marbles.run(run_async(broker.from_mqtt("t").pipe(PLAIN), sink, log=False))
    assert (sink.stored, list(broker.acknowledgements)) == ([], [])


def test_a_pipeline_of_plain_operators_loses_nothing(marbles):
    broker, sink = marbles.mqtt("t q1 : -ab-c---"), marbles.sink(disk="-=====----")
    plain = broker.from_mqtt("t").pipe(PLAIN, rx.filter(lambda row: row["value"] != '"b"'))
    report = marbles.run(run_async(plain, sink, seconds=8, log=False))
    assert (report.received, report.stored, report.filtered) == (3, 2, 1)
    assert [(each.key, each.at) for each in broker.acknowledgements] == [
        ("a", 6.0),
        ("b", 6.0),
        ("c", 6.0),
    ]


@pytest.mark.parametrize(
    ("holding", "named"),
    [(ops.delay(2), r"delay\(2\)"), (rx.buffer_with_count(2), "rx.window_with_count")],
)
def test_a_run_warns_of_messages_that_are_acknowledged_before_they_are_stored(
    marbles, holding, named
):
    broker, sink = marbles.mqtt("t q1 : -ab-c---"), marbles.sink()
    flow = broker.from_mqtt("t").pipe(PLAIN, holding)
    with pytest.warns(RxflowWarning, match=f"rx.map is .* before {named} is stored"):
        marbles.run(run_async(flow, sink, seconds=8, log=False))


def test_a_run_warns_of_a_batch_of_which_only_the_last_message_waits_for_its_row(marbles):
    broker, sink = marbles.mqtt("t q1 : -ab-c---"), marbles.sink()
    flow = broker.from_mqtt("t").pipe(ops.buffer_with_count(2), rx.map(len))
    with pytest.warns(RxflowWarning, match=r"rx\.map behind buffer_with_count\(2\) is"):
        marbles.run(run_async(flow, sink, seconds=8, log=False))


@pytest.mark.parametrize(
    "operator", [ops.map(lambda m: m.payload), rx.filter(bool), rx.do_action(lambda _: None)]
)
def test_a_run_does_not_warn_of_operators_that_keep_the_envelope(marbles, operator, recwarn):
    broker, sink = marbles.mqtt("t q1 : -ab-c---"), marbles.sink()
    flow = broker.from_mqtt("t").pipe(operator, ops.delay(2))
    marbles.run(run_async(flow, sink, seconds=8, log=False))
    assert not recwarn.list


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit])
@pytest.mark.parametrize("before", [ops.map(lambda m: m), ops.delay(1)], ids=["read", "timer"])
def test_what_cancels_in_a_function_of_the_users_is_an_error_and_acknowledges_nothing(
    marbles, error, before
):
    def raising(_):
        raise error

    broker, sink = marbles.mqtt("t q1 : -ab-c---"), marbles.sink()
    flow = broker.from_mqtt("t").pipe(before, ops.map(raising))
    with pytest.raises(RxflowError, match=f"a function of the stream raised {error.__name__}"):
        marbles.run(run_async(flow, sink, seconds=8, log=False))
    assert list(broker.acknowledgements) == []


@pytest.mark.parametrize("error", [asyncio.CancelledError, SystemExit])
@pytest.mark.parametrize("operator", [ops.map, ops.filter, ops.do_action, ops.distinct])
def test_what_cancels_on_another_thread_is_an_error_too(operator, error):
    def raising(_):
        raise error

    threads = []

    def elsewhere(observer, _=None):
        threads.append(threading.Thread(target=observer.on_next, args=(1,)))
        threads[0].start()

    with pytest.raises(RxflowError, match=f"a function of the stream raised {error.__name__}"):
        quiet(reactivex.create(elsewhere).pipe(operator(raising)), Seen(), seconds=10)
    threads[0].join(10)


def test_a_source_that_emits_without_end_while_it_is_subscribed_is_named(monkeypatch):
    def endless(observer, scheduler):
        while not lines:
            observer.on_next(1)
        observer.on_completed()

    lines = []
    for module in (heartbeat, sys.modules["rxflow.running.run"]):
        monkeypatch.setattr(module, "BLOCKED", 0.1)
    number = logger.add(lines.append, format="{message}", level="WARNING")
    try:
        run(reactivex.create(endless), reactivex.Observer())
    finally:
        logger.remove(number)
        logger.disable("rxflow")
    assert "endless" in lines[0]
    assert "has blocked the event loop" in lines[0]
