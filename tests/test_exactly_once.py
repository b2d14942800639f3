"""QoS 2 into one file: a stored row counts for its message, or it is said that it may not."""

import pytest
import reactivex
from reactivex import operators as rx

from rxflow import from_mqtt, run_async
from rxflow import operators as ops
from rxflow.log import logger
from rxflow.sinks.file.format import ARRAY
from rxflow.sinks.file.store import DurableFile
from rxflow.testing.marbles import Marbles


@pytest.fixture
def warned():
    lines = []
    logger.enable("rxflow")
    number = logger.add(lines.append, level="WARNING", format="{message}")
    yield lines
    logger.remove(number)
    logger.disable("rxflow")


class Health:
    """A page that shows the last message."""

    def __init__(self):
        self.last = None

    def see(self, message):
        self.last = message


def counted(path):
    """The packet ids of the messages that the next process will take for stored."""
    file = DurableFile(path, ARRAY, "append", None)
    file.open()
    ids = [packet_id for ids in file.inflight._ids.values() for packet_id in ids]
    file.close()
    return ids


def stored_and_counted(*operators, diagram="a q2 : -a"):
    """The rows of a run of some operators, and what counts as stored if it is killed now."""
    with Marbles() as marbles:
        broker, sink = marbles.mqtt(diagram), marbles.sink()
        flow = broker.from_mqtt(("a", 2)).pipe(ops.decode_json(), *operators)
        marbles.run(run_async(flow, sink, seconds=3, drain_timeout=1))
        return sink.stored, counted(sink.path)


def test_a_message_that_a_health_page_keeps_counts_as_stored(warned):
    health = Health()
    stored, ids = stored_and_counted(ops.do_action(health.see), ops.map(lambda m: m.payload))
    assert (stored, len(ids)) == (["a"], 1)
    assert not any("at least once" in line for line in warned)


def test_where_more_rows_may_come_of_a_message_it_is_said_with_topic_and_holder(warned):
    health = Health()
    stored, ids = stored_and_counted(ops.do_action(health.see), ops.flat_map(reactivex.of))
    assert (stored, ids) == (["a"], [])
    (line,) = [line for line in warned if "at least once" in line]
    assert "a message of topic 'a' (held by" in line
    assert "an attribute of a Health" in line


def test_it_is_said_once(warned):
    kept = []
    stored_and_counted(
        ops.do_action(kept.append),
        ops.flat_map(reactivex.of),
        diagram="a q2 : -abc",
    )
    assert len([line for line in warned if "at least once" in line]) == 1


def test_a_message_that_nobody_keeps_is_not_said_of(warned):
    stored, _ = stored_and_counted(rx.map(lambda m: m))
    assert stored == ["a"]
    assert not any("at least once" in line for line in warned)


@pytest.mark.parametrize(
    ("operators", "is_single"),
    [
        ([], True),
        ([ops.map(bytes), ops.filter(bool), ops.take(1)], True),
        ([ops.buffer_with_time_or_count(1, 2)], True),
        ([ops.map(bytes), ops.flat_map(reactivex.of)], False),
        ([ops.share()], False),
        ([ops.buffer_with_count(2, 1)], False),
        ([ops.repeat()], False),
        ([ops.start_with(1), ops.map(bytes)], False),
        ([rx.map(bytes)], False),
        ([ops.merge(reactivex.never())], False),
    ],
)
def test_of_which_operators_a_message_can_come_only_once(operators, is_single):
    assert from_mqtt("mqtt://localhost", "a").pipe(*operators).is_single is is_single


def test_an_observable_that_says_nothing_of_itself_is_not_single():
    assert not getattr(reactivex.never(), "is_single", False)


@pytest.mark.parametrize(
    ("operators", "said"),
    [
        ((), "exactly once"),
        ((ops.map(lambda m: m.payload),), "exactly once"),
        ((ops.share(),), "exactly once for messages that nothing else keeps"),
        ((rx.map(lambda m: m.payload),), "exactly once for messages that nothing else keeps"),
    ],
)
def test_a_run_says_at_its_start_what_qos_2_is(operators, said):
    lines = []
    number = logger.add(lines.append, level="INFO", format="{message}")
    try:
        stored_and_counted(*operators)
    finally:
        logger.remove(number)
        logger.disable("rxflow")
    [line] = [line for line in lines if line.startswith("QoS 2 of ")]
    assert line.partition(" is ")[2].strip().startswith(said)
    assert ("else" in line) == ("nothing else" in said)


def test_a_run_into_a_sink_without_receipts_says_that_qos_2_is_at_least_once():
    lines = []
    number = logger.add(lines.append, level="INFO", format="{message}")
    try:
        with Marbles() as marbles:
            source = marbles.mqtt("a q2 : -a").from_mqtt(("a", 2), client_id="one")
            marbles.run(run_async(source, reactivex.Observer(), seconds=3))
    finally:
        logger.remove(number)
        logger.disable("rxflow")
    assert any("at least once: no sink of this run keeps receipts" in line for line in lines)
