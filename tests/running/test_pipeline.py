"""`Pipeline`: a description that `run` runs."""

from __future__ import annotations

import threading

import pytest
import reactivex

from rxflow import (
    ConfigError,
    JsonSink,
    MqttSink,
    Pipeline,
    from_mqtt,
    run,
    run_async,
)
from rxflow import operators as ops
from rxflow.log import logger

ONE = reactivex.of(1)


def test_composing_opens_nothing_and_starts_no_thread(tmp_path):
    before = threading.active_count()
    source = from_mqtt("mqtt://127.0.0.1:1", "a", client_id="a")
    Pipeline(source.pipe(ops.decode_json()), JsonSink(tmp_path / "a.json"))
    assert (list(tmp_path.iterdir()), threading.active_count()) == ([], before)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((1, JsonSink("a")), r"observable must be an Observable, not 1"),
        ((ONE, print), r"sink must be a sink, .* not builtins\.print"),
        ((ONE, JsonSink), r"sink must be a sink"),
        ((ONE, None), r"sink must be a sink"),
    ],
)
def test_a_wrong_argument_is_refused_while_composing(arguments, named):
    with pytest.raises(ConfigError, match=named):
        Pipeline(*arguments)


@pytest.mark.parametrize("name", [None, "", 5])
def test_a_wrong_name_is_refused_while_composing(name):
    with pytest.raises(ConfigError, match="name must be a str"):
        Pipeline(ONE, JsonSink("a"), name=name)


def test_it_shows_itself_in_one_line_without_credentials():
    source = from_mqtt("mqtt://u:secret@plant", "a", client_id="a").pipe(ops.decode_json())
    shown = repr(Pipeline(source, JsonSink("a.json"), name="rooms"))
    assert shown == "rooms: from_mqtt mqtt://***@plant:1883 | decode_json() -> JsonSink('a.json')"
    sink = MqttSink("mqtt://u:secret@plant", topic="b")
    assert (
        repr(Pipeline(ONE, sink))
        == "pipeline: Observable -> MqttSink(mqtt://***@plant:1883, topic='b')"
    )
    assert repr(Pipeline(ONE, reactivex.Observer())) == "pipeline: Observable -> Observer"


def test_it_can_not_be_changed():
    pipeline = Pipeline(ONE, JsonSink("a"))
    with pytest.raises(AttributeError):
        pipeline.name = "b"


def test_run_stores_what_comes_before_it_is_acknowledged(marbles):
    broker, sink = marbles.mqtt("t q1 : -ab-c---"), marbles.sink(disk="-=====----")
    marbles.run(run_async(Pipeline(broker.from_mqtt("t"), sink), seconds=8, log=False))
    assert sink.stored == ["a", "b", "c"]
    assert broker.acknowledged("t") == "------^"


def test_several_share_a_source_and_a_message_waits_for_both(marbles):
    broker, quick, slow = marbles.mqtt("t q1 : -a------"), marbles.sink(), marbles.sink(disk="-===")
    shared = broker.from_mqtt("t").pipe(ops.share())
    pipelines = Pipeline(shared, quick), Pipeline(shared, slow)
    report = marbles.run(run_async(*pipelines, seconds=8, log=False))
    assert (quick.stored, slow.stored, report.stored) == (["a"], ["a"], 1)
    assert broker.acknowledged("t") == "----^"


def test_a_pair_and_a_pipeline_run_together(tmp_path):
    pipeline = Pipeline(ONE, JsonSink(tmp_path / "a.json"))
    assert run(pipeline, (ONE, JsonSink(tmp_path / "b.json")), log=False).stored == 2


def test_two_pipelines_can_not_end_in_the_same_sink(tmp_path):
    sink = JsonSink(tmp_path / "a.json")
    with pytest.raises(ConfigError, match="merge"):
        run(Pipeline(ONE, sink), Pipeline(ONE, sink))


def test_the_log_names_the_run_as_its_pipelines_are_called(tmp_path):
    def one(name):
        return Pipeline(ONE, JsonSink(tmp_path / name), name=name)

    said = []
    number = logger.add(said.append, format="{message}")
    try:
        run(one("rooms"), one("halls"))
        run(one("rooms"), name="all")
    finally:
        logger.remove(number)
        logger.disable("rxflow")
    launched = [line.strip() for line in said if line.startswith("launched")]
    assert launched == ["launched rooms, halls", "launched all"]


def test_the_output_that_keeps_the_session_keeps_it_in_whatever_order_they_are_given(
    marbles, tmp_path
):
    broker = marbles.mqtt("t q1 : -a------")

    def kept(*names):
        shared = broker.from_mqtt("t").pipe(ops.share())
        pipelines = [Pipeline(shared, JsonSink(tmp_path / name)) for name in names]
        marbles.run(run_async(*pipelines, seconds=3, log=False))
        return sorted(path.name for path in tmp_path.glob("*.client"))

    assert kept("a", "b") == ["a.client"]
    assert kept("b", "a") == ["a.client"]
