"""Faults that a hostile user found in connections, and that stay mended."""

from __future__ import annotations

import contextlib
import json
import time

import pytest
import reactivex
from scripted import CONNECT, DISCONNECT, PINGREQ, PUBLISH, ScriptedBroker, packet, publish
from serving import serve, until_disconnect
from stopping import stop

from rxflow import (
    ConfigError,
    ConnectError,
    JsonSink,
    MqttSink,
    RxflowWarning,
    SinkError,
    from_mqtt,
    run,
)
from rxflow import operators as ops

NOBODY = "mqtt://127.0.0.1:1?version=3.1.1"


def quiet(*pipelines, **settings):
    return run(*pipelines, log=False, **settings)


def test_a_half_open_broker_is_noticed_within_two_keep_alives():
    times = []

    def frozen(conversation):
        conversation.accept()
        conversation.accept_subscription()
        times.append(time.monotonic())
        with contextlib.suppress(ConnectionError):
            while True:
                assert conversation.read()[0] in {PINGREQ, DISCONNECT}
        times.append(time.monotonic())

    with ScriptedBroker(frozen, serve(publish("a"))) as broker:
        source = from_mqtt(broker.url, "a", keep_alive=2).pipe(ops.take(1))
        report = quiet(source, reactivex.Observer(), seconds=8)
    assert report.received == 1
    assert times[1] - times[0] <= 4.5


def test_nothing_is_sent_after_disconnect():
    kinds = []

    def script(conversation):
        conversation.accept()
        conversation.accept_subscription()
        with contextlib.suppress(ConnectionError):
            while True:
                kinds.append(conversation.read()[0] & 0xF0)

    with ScriptedBroker(script) as broker:
        source = from_mqtt(broker.url, "a", keep_alive=1, on_connect=stop)
        quiet(source, reactivex.Observer())
    assert kinds[kinds.index(DISCONNECT) :] == [DISCONNECT]


def test_connect_timeout_ends_an_attempt_that_hangs():
    def silent(conversation):
        conversation.expect(CONNECT)
        conversation.read_to_end()

    with ScriptedBroker(silent) as broker, pytest.raises(ConnectError, match=r"0\.3 s"):
        quiet(from_mqtt(broker.url, "a", connect_timeout=0.3), reactivex.Observer())


def test_two_sources_of_one_url_and_filters_in_one_run_have_a_session_each(tmp_path):
    path = tmp_path / "0.json"
    with ScriptedBroker(serve(publish("a")), serve(publish("a"))) as broker:
        one, other = (from_mqtt(broker.url, "a").pipe(ops.take(1)) for _ in range(2))
        run(one.pipe(ops.concat(other)), JsonSink(path), seconds=60, log=False)
    first, second = json.loads(path.with_name("0.json.client").read_text())["sessions"]
    assert first["client_id"] != second["client_id"]


def test_a_broker_that_is_away_is_a_warning_where_there_is_no_log():
    with pytest.warns(RxflowWarning, match="no connection to"):
        quiet(
            from_mqtt("mqtt://127.0.0.1:1", "a"),
            reactivex.Observer(),
            seconds=0.5,
            needs_connection=False,
        )


@pytest.mark.parametrize("log", [False, True])
def test_a_broker_that_was_never_reached_is_an_error_at_the_end_of_time(tmp_path, log):
    source = from_mqtt("mqtt://127.0.0.1:1", "a")
    with pytest.raises(ConnectError, match=r"in 0.3 s no connection to mqtt://127.0.0.1:1: .*ref"):
        run(source, JsonSink(tmp_path / "a.json"), seconds=0.3, log=log)


def test_a_source_that_an_operator_gave_up_on_is_not_missed(tmp_path):
    source = from_mqtt("mqtt://127.0.0.1:1", "a")
    instead = source.pipe(ops.timeout(0.2, reactivex.never()))
    report = run(instead, JsonSink(tmp_path / "a.json"), seconds=0.5, log=False)
    assert report.received == 0


@pytest.mark.parametrize(
    ("topics", "settings"),
    [((3,), {}), ((("a",),), {}), ((("a", "1"),), {}), (("a",), {"qos": 1.0})],
)
def test_topics_and_qos_of_a_wrong_type_are_config_errors(topics, settings):
    with pytest.raises(ConfigError):
        from_mqtt("mqtt://h", *topics, **settings)


def test_large_messages_of_qos_0_do_not_wait_for_ticks():
    count, size = 200, 100_000

    def script(conversation):
        conversation.accept()
        for _ in range(count):
            conversation.expect(PUBLISH)
        until_disconnect(conversation)

    with ScriptedBroker(script) as broker:
        items = reactivex.range(count).pipe(ops.map(lambda _: b"x" * size))
        report = quiet(items, MqttSink(broker.url, topic="a", qos=0, drain_timeout=60))
    assert report.stored == count
    assert report.seconds < 4


def test_a_message_larger_than_the_broker_takes_is_a_bad_item():
    def script(conversation):
        conversation.expect(CONNECT)
        conversation.send(packet(0x20, b"\0\0" + b"\5\x27\0\0\0\x40"))  # Maximum Packet Size 64
        until_disconnect(conversation)

    with ScriptedBroker(script) as broker:
        url = broker.url.replace("3.1.1", "5")
        with pytest.raises(SinkError, match=r"larger than the broker takes"):
            quiet(reactivex.of("x" * 100), MqttSink(url, topic="a", drain_timeout=0.5))
