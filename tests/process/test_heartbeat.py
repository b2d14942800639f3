"""Connections live on while user code blocks their loop, and a stall is told of."""

import signal
import threading
import time

import pytest
import reactivex
from scripted import PINGREQ, Conversation, ScriptedBroker, publish

from rxflow import RxflowWarning, from_mqtt, run, run_async
from rxflow import operators as ops
from rxflow.log import logger
from rxflow.process import heartbeat
from rxflow.process.disk import waiting_for


@pytest.fixture
def warnings_logged():
    lines = []
    number = logger.add(lines.append, level="WARNING", format="{message}")
    logger.enable("rxflow")
    yield lines
    logger.disable("rxflow")
    logger.remove(number)


def test_a_blocked_loop_keeps_its_connection_and_is_warned_of(monkeypatch, warnings_logged):
    monkeypatch.setattr(heartbeat, "BLOCKED", 0.5)
    pinged = threading.Event()

    def script(conversation: Conversation) -> None:
        conversation.accept()
        conversation.accept_subscription()
        conversation.send(publish("a", b"1", 0))
        while conversation.read()[0] != PINGREQ:
            pass
        pinged.set()
        time.sleep(1.2)  # the loop stays blocked until it was warned of
        conversation.send(b"\xd0\x00" + publish("a", b"2", 0))

    def block(message):
        if message.payload == b"1":
            assert pinged.wait(60)
            time.sleep(1.2)

    with ScriptedBroker(script) as broker:
        source = from_mqtt(broker.url, "a", keep_alive=1)
        seen = []
        blocking = source.pipe(ops.do_action(block), ops.take(2))
        run(blocking, reactivex.Observer(lambda m: seen.append(m.payload)), seconds=20)
    assert seen == [b"1", b"2"]
    assert any("blocked the event loop" in line for line in warnings_logged)


def test_the_thread_ends_with_the_last_connection():
    def script(conversation: Conversation) -> None:
        conversation.accept()
        conversation.accept_subscription()
        conversation.send(publish("a", b"1", 0))

    with ScriptedBroker(script) as broker:
        run(from_mqtt(broker.url, "a").pipe(ops.take(1)), reactivex.Observer(), seconds=20)
    for thread in threading.enumerate():
        if thread.name == "rxflow heartbeat":
            thread.join(60)
            assert not thread.is_alive()


def test_a_window_that_can_never_fill_is_told_of_once_with_its_oldest_topic(marbles):
    broker = marbles.mqtt("""t/1 q1 : -a
                             t/2 q1 : -bcd""")
    window = broker.from_mqtt("t/#").pipe(ops.buffer_with_count(100))
    with pytest.warns(RxflowWarning, match="4 messages are held.*'t/1'") as told:
        marbles.run(run_async(window, reactivex.Observer(), seconds=60, log=False))
    assert sum("stalled for" in str(each.message) for each in told) == 1


def test_a_stream_that_moves_is_not_told_of(marbles, recwarn):
    broker = marbles.mqtt("t q1 : -a---b---c---d")
    window = broker.from_mqtt("t").pipe(ops.buffer_with_count(100))
    marbles.run(run_async(window, reactivex.Observer(), seconds=18, log=False))
    assert not any("stalled for" in str(each.message) for each in recwarn)


# -- what blocks a loop, and how long it is put up with --------------------------------------------


class Link:
    """A connection whose loop is blocked for as long as it says."""

    def __init__(self, *blocked):
        self._blocked = iter(blocked)
        self.begins = threading.Event()
        self.beats = 0
        self.is_over = threading.Event()

    def blocked(self):
        self.begins.wait(60)
        seconds = next(self._blocked, None)
        if seconds is None:
            self.is_over.set()
            return 0.0
        return seconds

    def beat(self):
        self.beats += not self.is_over.is_set()

    def breathe(self):
        pass


@pytest.fixture
def beating(monkeypatch):
    """Watch a connection until it has said all, from this thread, which is in `act` meanwhile."""
    monkeypatch.setattr(heartbeat, "_PERIOD", 0.001)

    def beat(link, act=None):
        heart = heartbeat.Heartbeat()
        heart.watch(link)
        try:
            (act or link.begins.set)()
            assert link.is_over.wait(60)
        finally:
            heart.forget(link)
        return link.beats

    return beat


def test_a_loop_that_is_blocked_for_five_minutes_is_no_longer_kept_alive(beating, warnings_logged):
    assert beating(Link(0, 4, 299, 300, 301, 302, 0)) == 4
    assert [line.partition(" s")[0][-3:] for line in warnings_logged] == ["299", "300"]
    assert "no longer kept alive" in warnings_logged[1]


def test_the_function_that_blocks_is_named_with_its_place(beating, warnings_logged):
    def my_slow_function():
        link.begins.set()
        while not warnings_logged and not link.is_over.is_set():
            time.sleep(0.001)

    link = Link(*[6.0] * 100)
    beating(link, my_slow_function)
    (line,) = warnings_logged
    assert "my_slow_function (" in line
    assert "test_heartbeat.py:" in line
    assert "has blocked the event loop for 6 s" in line


def test_a_disk_that_blocks_is_named_by_its_file_and_no_function_is(beating, warnings_logged):
    def wait():
        with waiting_for("/data/rows.json"):
            link.begins.set()
            while not warnings_logged and not link.is_over.is_set():
                time.sleep(0.001)

    link = Link(*[6.0] * 100)
    beating(link, wait)
    (line,) = warnings_logged
    assert line.startswith("/data/rows.json: its disk has blocked the event loop for 6 s")
    assert "function" not in line


def test_a_thread_without_a_function_of_the_users_is_called_a_function():
    goes_on = threading.Event()
    thread = threading.Thread(target=goes_on.wait)
    thread.start()
    assert heartbeat._blocking(thread.ident) == "a function"
    goes_on.set()
    thread.join()


def many(conversation: Conversation) -> None:
    conversation.accept()
    conversation.accept_subscription()
    conversation.send(b"".join(publish("a", b"%d" % n, 1, n) for n in range(1, 201)))
    conversation.read_to_end()


def test_a_function_that_takes_long_for_each_message_does_not_hold_up_the_end():
    seen = []

    def slow(message):
        seen.append(message.payload)
        time.sleep(0.1)

    with ScriptedBroker(many) as broker:
        source = from_mqtt(broker.url, "a").pipe(ops.do_action(slow))
        report = run(source, reactivex.Observer(), seconds=3)
    assert len(seen) < 200
    assert report.received == len(seen)


def test_a_signal_ends_a_run_behind_the_message_that_is_on_its_way():
    seen = []

    def kill(message):
        seen.append(message.payload)
        if len(seen) == 3:
            signal.raise_signal(signal.SIGTERM)

    with ScriptedBroker(many) as broker:
        source = from_mqtt(broker.url, "a").pipe(ops.do_action(kill))
        run(source, reactivex.Observer())
    assert seen == [b"1", b"2", b"3"]
