"""`from_mqtt`: connecting, subscribing, receiving, and what bad input gets."""

import asyncio
import ssl
import threading
import warnings
from pathlib import Path
from urllib.parse import quote

import paho.mqtt.client as paho
import pytest
import reactivex
from brokers import Mosquitto
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from reactivex.scheduler import (
    CurrentThreadScheduler,
    EventLoopScheduler,
    ImmediateScheduler,
    NewThreadScheduler,
    ThreadPoolScheduler,
    TimeoutScheduler,
)
from reactivex.subject import Subject
from scripted import (
    CONNECT,
    DISCONNECT,
    PUBACK,
    PUBCOMP,
    PUBREC,
    SUBSCRIBE,
    Conversation,
    ScriptedBroker,
    packet,
    publish,
)
from serving import serve
from stopping import stop, stop_after

from rxflow import (
    ConfigError,
    ConnectError,
    DecodeError,
    JsonLinesSink,
    JsonSink,
    MqttSink,
    RxflowWarning,
    Will,
    from_mqtt,
    read_rows,
    run,
)
from rxflow import operators as ops
from rxflow.log import logger

USER = PASSWORD = "wiredflow"
LOGIN = {"username": USER, "password": PASSWORD}


def received(source, count=1, seconds=20.0):
    """The first messages of a source, as they come; fewer if the time is over."""
    messages = []
    run(source.pipe(ops.take(count)), keeping(messages), seconds=seconds)
    return messages


def keeping(messages):
    """An observer that keeps messages, but not their deliveries."""
    return reactivex.Observer(lambda message: messages.append(message.with_delivery(None)))


def echo(url, topic, payloads, *, sink=None, **settings):
    """What comes back of what is published once the subscription stands."""
    standing = Subject()
    source = from_mqtt(url, topic, on_connect=standing.on_next, **settings)
    sent = standing.pipe(ops.take(1), ops.flat_map(lambda _: reactivex.of(*payloads)))
    messages = []
    run(
        (source.pipe(ops.take(len(payloads))), keeping(messages)),
        (sent, sink or MqttSink(url, topic=topic.replace("#", "x"), **settings)),
        seconds=20,
        log=False,
    )
    return messages


# -- composing -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "settings", "named"),
    [
        (("http://h", "a"), {}, "http"),
        (("mqtt://h:0", "a"), {}, "'0'"),
        (("mqtt://h",), {}, "topics"),
        (("mqtt://h", ""), {}, "topics"),
        (("mqtt://h", "a/#/b"), {}, "a/#/b"),
        (("mqtt://h", ("a", 3)), {}, "qos.*3"),
        (("mqtt://h", "a"), {"qos": 3}, "qos.*3"),
        (("mqtt://h", "a"), {"keep_alive": -1}, "keep_alive.*-1"),
        (("mqtt://h", "a"), {"connect_timeout": -1}, "connect_timeout.*-1"),
        (("mqtt://h", "a"), {"drain_timeout": -0.5}, "drain_timeout.*-0.5"),
        (("mqtt://h", "a"), {"session_expiry": -1}, "session_expiry"),
        (("mqtt://h", "a"), {"max_pending": 0}, "max_pending.*0"),
        (("mqtt://h", "a"), {"max_packet_bytes": 1}, "max_packet_bytes"),
        (("mqtt://h", "a"), {"version": "4"}, "version.*'4'"),
        (("mqtt://h", "a"), {"client_id": ""}, "client_id"),
        (("mqtt://h", "a"), {"clean_start": False}, "clean_start.*client_id"),
        (("mqtt://h", "a"), {"ca_file": "x.pem"}, "ca_file.*mqtts"),
        (("mqtts://h", "a"), {"key_file": "x.pem"}, "cert_file"),
        (("mqtt://h", "a"), {"password": "x"}, "username"),
    ],
)
def test_a_wrong_setting_is_a_config_error_while_composing(arguments, settings, named):
    with pytest.raises(ConfigError, match=named):
        from_mqtt(*arguments, **settings)


def test_a_context_and_files_exclude_each_other():
    with pytest.raises(ConfigError, match="ca_file"):
        from_mqtt("mqtts://h", "a", tls=ssl.create_default_context(), ca_file="x.pem")


def test_websocket_without_its_extra_is_a_config_error(monkeypatch):
    monkeypatch.setattr("rxflow.mqtt.websocket.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"rxflow-mqtt\[websocket\]"):
        from_mqtt("ws://h", "a")


def test_composing_touches_no_network():
    flow = from_mqtt("mqtt://host.invalid", "a", password="secret", username="u").pipe(ops.take(1))
    assert "secret" not in repr(flow)


# -- receiving -------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["3.1.1", "5"])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_messages_come_in_order_with_every_qos_and_version(mosquitto, version, qos):
    payloads = [str(n).encode() for n in range(500)]
    sink = MqttSink(mosquitto.url, topic="t/x", qos=qos, version=version, **LOGIN)
    messages = echo(mosquitto.url, "t/#", payloads, sink=sink, qos=qos, version=version, **LOGIN)
    assert [message.payload for message in messages] == payloads
    assert {(message.topic, message.qos) for message in messages} == {("t/x", qos)}


def test_the_embedded_broker_serves_source_and_sink(mqtt_broker):
    messages = echo(mqtt_broker.url, "a", [b"1", {"n": 2}], **LOGIN)
    assert [message.payload for message in messages] == [b"1", b'{"n":2}']
    assert messages[0].received_at.tzinfo is not None


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_messages_come_over_a_unix_socket(make_mosquitto, tmp_path, qos):
    path = tmp_path / "m@sock"
    make_mosquitto(options=f"listener 0 {path}")
    payloads = [b"x" * size for size in (0, 1, 200, 500_000)]
    messages = echo(f"mqtt+unix://{quote(str(path))}", "a", payloads, qos=qos, **LOGIN)
    assert [message.payload for message in messages] == payloads


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_messages_come_over_websocket(mosquitto_websocket, authority, scheme):
    broker = mosquitto_websocket
    url = broker.websocket_url if scheme == "ws" else broker.secure_websocket_url
    tls = {"ca_file": str(authority.path)} if scheme == "wss" else {}
    payloads = [b"x" * size for size in (0, 1, 200, 20_000)]
    messages = echo(url, "a", payloads, **LOGIN, **tls)
    assert [message.payload for message in messages] == payloads


def test_messages_come_over_tls(mosquitto_tls, authority):
    payloads = [b"x" * size for size in (0, 1, 20_000, 300_000)] * 5
    messages = echo(mosquitto_tls.tls_url, "a", payloads, ca_file=str(authority.path), **LOGIN)
    assert [message.payload for message in messages] == payloads


def test_each_filter_may_have_a_qos_of_its_own(mosquitto):
    standing, seen = Subject(), []
    source = from_mqtt(mosquitto.url, ("a", 0), ("b", 2), on_connect=standing.on_next, **LOGIN)
    sent = standing.pipe(ops.take(1), ops.flat_map(lambda _: reactivex.of("a", "b")))
    run(
        (source.pipe(ops.take(2)), reactivex.Observer(lambda m: seen.append((m.topic, m.qos)))),
        (sent, MqttSink(mosquitto.url, topic=lambda topic: topic, qos=2, **LOGIN)),
        seconds=20,
        log=False,
    )
    assert sorted(seen) == [("a", 0), ("b", 2)]


def test_properties_of_mqtt_5_arrive(mosquitto):
    def send(_):
        properties = Properties(PacketTypes.PUBLISH)
        properties.UserProperty = [("unit", "°C"), ("unit", "K")]
        properties.ContentType = "application/json"
        properties.ResponseTopic = "answers"
        properties.CorrelationData = b"\x01"
        properties.MessageExpiryInterval = 60
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        client.username_pw_set(USER, PASSWORD)
        client.connect("127.0.0.1", mosquitto.port)
        client.publish("a", b"1", properties=properties)
        client.loop_write()
        client.disconnect()

    (message,) = received(from_mqtt(mosquitto.url, "a", version="5", on_connect=send, **LOGIN))
    assert message.properties.user == (("unit", "°C"), ("unit", "K"))
    assert message.properties.content_type == "application/json"
    assert message.properties.response_topic == "answers"
    assert message.properties.correlation_data == b"\x01"
    assert message.properties.expiry == 60


def test_retained_messages_are_marked(mosquitto):
    run(
        reactivex.of({"n": 1}),
        MqttSink(mosquitto.url, topic="kept", retain=True, **LOGIN),
        log=False,
    )
    (message,) = received(from_mqtt(mosquitto.url, "kept", **LOGIN))
    assert message.retain


def test_two_members_of_a_group_share_the_messages(mosquitto):
    standing, seen = Subject(), {"one": [], "two": []}
    settings = {"on_connect": standing.on_next, **LOGIN}
    member = {
        name: from_mqtt(mosquitto.url, "$share/group/work", **settings).pipe(
            ops.map(lambda m, name=name: seen[name].append(m.payload))
        )
        for name in seen
    }
    work = standing.pipe(ops.take(2), ops.last(), ops.flat_map(lambda _: reactivex.range(100)))
    run(
        (reactivex.merge(*member.values()).pipe(ops.take(100)), reactivex.Observer()),
        (work, MqttSink(mosquitto.url, topic="work", **LOGIN)),
        seconds=20,
        log=False,
    )
    assert len(seen["one"]) == len(seen["two"]) == 50


def test_the_will_is_in_the_connect_packet():
    seen = []

    def script(conversation: Conversation) -> None:
        conversation.accept()
        seen.append(conversation.connect)
        stop()

    with ScriptedBroker(script) as broker:
        received(from_mqtt(broker.url, "a", will=Will("gone", b"bye", 1)))
    assert b"\0\4gone\0\3bye" in seen[0]


# -- acknowledging ---------------------------------------------------------------------------------


def test_a_message_is_acknowledged_after_it_is_stored(tmp_path):
    path = tmp_path / "a.json"
    rows_when_acknowledged = []

    def script(conversation: Conversation) -> None:
        conversation.accept()
        conversation.accept_subscription()
        conversation.send(publish("a", b'{"n":1}', 1, 7))
        assert conversation.packet_ids(PUBACK, 1) == [7]
        rows_when_acknowledged.extend(read_rows(path))
        conversation.send(publish("a", b"2", 1, 8))
        conversation.read_to_end()

    with ScriptedBroker(script) as broker:
        run(from_mqtt(broker.url, "a").pipe(ops.take(2)), JsonSink(path), seconds=60, log=False)
    assert rows_when_acknowledged == [{"n": 1}]


def test_qos_2_is_received_with_pubrec_after_the_commit(tmp_path):
    path = tmp_path / "a.json"
    rows = []

    def script(conversation: Conversation) -> None:
        conversation.accept()
        conversation.accept_subscription(2)
        conversation.send(publish("a", b"1", 2, 7))
        assert conversation.packet_ids(PUBREC, 1) == [7]
        rows.extend(read_rows(path))
        conversation.send(publish("a", b"1", 2, 7, flags=8))  # again, before PUBREL
        assert conversation.packet_ids(PUBREC, 1) == [7]
        conversation.send(packet(0x62, b"\0\7"))
        assert conversation.packet_ids(PUBCOMP, 1) == [7]
        conversation.send(publish("a", b"2", 2, 7))
        conversation.read_to_end()

    with ScriptedBroker(script) as broker:
        source = from_mqtt(broker.url, "a", qos=2).pipe(ops.take(2))
        run(source, JsonSink(path), seconds=60, log=False)
    assert rows == [1]
    assert list(read_rows(path)) == [1, 2]


def test_acknowledgements_leave_in_the_order_of_arrival():
    order = []

    def script(conversation: Conversation) -> None:
        conversation.accept()
        conversation.accept_subscription()
        conversation.send(b"".join(publish("a", b"%d" % n, 1, n) for n in range(1, 11)))
        order.extend(conversation.packet_ids(PUBACK, 10))
        stop()
        conversation.read_to_end()

    with ScriptedBroker(script) as broker:
        kept = []
        source = from_mqtt(broker.url, "a").pipe(
            ops.do_action(lambda m: kept.append(m) if m.payload == b"1" else None),
            ops.do_action(lambda m: kept.clear() if m.payload == b"10" else None),
        )
        run(source, reactivex.Observer(), log=False)
    assert order == list(range(1, 11))


def test_what_is_stored_nowhere_is_left_to_the_broker():
    kinds = []

    def script(conversation: Conversation) -> None:
        conversation.accept()
        conversation.accept_subscription()
        conversation.send(publish("a", b"1", 1, 1))
        kinds.extend(conversation.read_to_end())

    with ScriptedBroker(script) as broker:
        arrived = Subject()
        source = from_mqtt(broker.url, "a").pipe(
            ops.do_action(lambda _: arrived.on_next(None)), ops.buffer_with_count(10)
        )
        failing = arrived.pipe(ops.delay(0.01), ops.map(lambda _: 1 / 0))
        with pytest.raises(ZeroDivisionError):
            run(source.pipe(ops.merge(failing)), reactivex.Observer(), log=False)
    assert kinds == [DISCONNECT]


def test_a_stopped_run_says_disconnect_after_its_last_acknowledgement(tmp_path):
    kinds = []

    def script(conversation: Conversation) -> None:
        conversation.accept()
        conversation.accept_subscription()
        conversation.send(publish("a", b"1", 1, 1))
        kinds.extend(conversation.read_to_end())

    with ScriptedBroker(script) as broker:
        source = from_mqtt(broker.url, "a").pipe(stop_after(1))
        run(source, JsonSink(tmp_path / "a.json"), log=False)
    assert kinds == [PUBACK, DISCONNECT]


# -- connecting and coming back --------------------------------------------------------------------


def test_a_wrong_password_is_final_at_once_and_shown_nowhere(mosquitto, capsys):
    lines = []
    number = logger.add(lines.append, level=0, diagnose=True, backtrace=True)
    canary = "hunter2" + "-canary"
    source = from_mqtt(mosquitto.url, "a", username=USER, password=canary)
    del canary
    with pytest.raises(ConnectError) as caught:
        run(source, reactivex.Observer())
    logger.remove(number)
    assert not any("next attempt" in line for line in lines)
    assert caught.value.reason_code in {4, 5, 0x86, 0x87}
    shown = "".join(lines) + repr(caught.value) + str(caught.getrepr()) + str(capsys.readouterr())
    assert "hunter2-canary" not in shown


def test_a_wrong_password_is_refused_by_the_embedded_broker(mqtt_broker):
    source = from_mqtt(mqtt_broker.url, "a", username=USER, password="wrong")
    with pytest.raises(ConnectError) as caught:
        run(source, reactivex.Observer(), log=False)
    assert caught.value.reason_code in {4, 5, 0x86, 0x87}


def test_no_broker_is_a_warning_and_with_connect_timeout_an_error():
    with ScriptedBroker() as closed:
        url = closed.url
    lines = []
    number = logger.add(lines.append, level="WARNING", format="{message}")
    with pytest.raises(ConnectError, match=r"within 0\.3 s"):
        run(from_mqtt(url, "a", connect_timeout=0.3), reactivex.Observer())
    logger.remove(number)
    assert "next attempt in" in lines[0]


def test_a_broker_of_3_1_1_that_refuses_version_5_is_spoken_to_in_3_1_1():
    def refuse(conversation: Conversation) -> None:
        _, connect = conversation.expect(CONNECT)
        assert connect[6] == 5
        conversation.send(packet(0x20, b"\0\1"))

    def serve(conversation: Conversation) -> None:
        conversation.accept()
        assert conversation.connect[6] == 4
        conversation.accept_subscription()
        conversation.send(publish("a", b"1", 0))

    with ScriptedBroker(refuse, serve) as broker:
        url = broker.url.partition("?")[0]
        assert len(received(from_mqtt(url, "a"))) == 1


def test_a_broker_that_closes_on_version_5_twice_is_spoken_to_in_3_1_1():
    def serve(conversation: Conversation) -> None:
        conversation.accept()
        conversation.accept_subscription()
        conversation.send(publish("a", b"1", 0))

    def close(conversation: Conversation) -> None:
        conversation.expect(CONNECT)

    with ScriptedBroker(close, close, serve) as broker:
        assert len(received(from_mqtt(broker.url.partition("?")[0], "a"))) == 1


def test_a_broker_that_is_silent_on_version_5_is_spoken_to_in_3_1_1():
    def silent(conversation: Conversation) -> None:
        conversation.expect(CONNECT)
        conversation.read_to_end()

    def serve(conversation: Conversation) -> None:
        conversation.accept()
        conversation.accept_subscription()
        conversation.send(publish("a", b"1", 0))

    with ScriptedBroker(silent, serve) as broker:
        assert len(received(from_mqtt(broker.url.partition("?")[0], "a", answer_timeout=1))) == 1


def test_a_version_that_the_url_fixes_and_the_broker_refuses_is_final():
    def refuse(conversation: Conversation) -> None:
        conversation.expect(CONNECT)
        conversation.send(packet(0x20, b"\0\1"))

    with ScriptedBroker(refuse) as broker, pytest.raises(ConnectError) as caught:
        run(from_mqtt(broker.url, "a"), reactivex.Observer(), log=False)
    assert caught.value.reason_code == 1


def test_a_refusal_that_may_pass_is_tried_again():
    def busy(conversation: Conversation) -> None:
        conversation.expect(CONNECT)
        conversation.send(packet(0x20, b"\0\3"))

    def serve(conversation: Conversation) -> None:
        conversation.accept()
        conversation.accept_subscription()
        conversation.send(publish("a", b"1", 0))

    with ScriptedBroker(busy, serve) as broker:
        assert len(received(from_mqtt(broker.url, "a"))) == 1


def test_a_filter_that_suback_refuses_is_named():
    def script(conversation: Conversation) -> None:
        conversation.accept()
        conversation.accept_subscription(0x80)
        conversation.read_to_end()

    with ScriptedBroker(script) as broker, pytest.raises(ConnectError, match="secret/#") as caught:
        source = from_mqtt(broker.url, "secret/#")
        run(source, reactivex.Observer(), log=False)
    assert caught.value.reason_code == 0x80


def test_after_a_lost_session_it_subscribes_again_with_the_same_options():
    filters = []

    def first(conversation: Conversation) -> None:
        conversation.accept()
        filters.append(conversation.expect(SUBSCRIBE)[1][2:])

    def second(conversation: Conversation) -> None:
        conversation.accept()
        _, body = conversation.expect(SUBSCRIBE)
        filters.append(body[2:])
        conversation.send(packet(0x90, body[:2] + b"\1\0"))
        conversation.send(publish("a", b"1", 0))

    with ScriptedBroker(first, second) as broker:
        received(from_mqtt(broker.url, "a", ("b", 0)))
    assert filters == [b"\0\1a\1\0\1b\0"] * 2


def test_a_session_that_is_present_is_not_subscribed_again(tmp_path):
    def first(conversation: Conversation) -> None:
        conversation.accept()
        conversation.accept_subscription()
        conversation.send(publish("a", b"1", 1, 1))

    def second(conversation: Conversation) -> None:
        conversation.accept(session_present=True)
        conversation.send(publish("a", b"1", 1, 1, flags=8))
        assert conversation.packet_ids(PUBACK, 1) == [1]

    path = tmp_path / "a.json"
    with ScriptedBroker(first, second) as broker:
        # The first delivery is held over the cut, so its acknowledgement is late: it never leaves.
        source = from_mqtt(broker.url, "a", client_id="me").pipe(
            ops.map(lambda message: {"again": message.duplicate}),
            ops.buffer_with_count(2),
            ops.take(1),
        )
        run(source, JsonSink(path), seconds=60)
    assert list(read_rows(path)) == [{"again": False}, {"again": True}]


def test_an_acknowledgement_never_leaves_on_a_later_connection(tmp_path):
    kept = []

    def first(conversation: Conversation) -> None:
        conversation.accept()
        conversation.accept_subscription()
        conversation.send(publish("a", b"1", 1, 1))

    def second(conversation: Conversation) -> None:
        conversation.accept()
        conversation.accept_subscription()
        kept.clear()
        conversation.send(publish("a", b"2", 1, 2))
        assert conversation.packet_ids(PUBACK, 1) == [2]

    with ScriptedBroker(first, second) as broker:
        source = from_mqtt(broker.url, "a").pipe(
            ops.do_action(lambda m: kept.append(m) if m.payload == b"1" else None), ops.take(2)
        )
        run(source, JsonSink(tmp_path / "a.json"), seconds=60)


def test_the_gap_of_a_lost_session_is_reported():
    def first(conversation: Conversation) -> None:
        conversation.accept()
        conversation.accept_subscription()

    def second(conversation: Conversation) -> None:
        conversation.accept()
        conversation.accept_subscription()
        conversation.send(publish("a", b"1", 0))

    lines = []
    with ScriptedBroker(first, second) as broker:
        number = logger.add(lines.append, level="WARNING", format="{message}")
        source = from_mqtt(broker.url, "a").pipe(ops.take(1))
        run(source, reactivex.Observer(), seconds=60)
        logger.remove(number)
    assert any("possible gap" in line for line in lines)


def test_a_malformed_packet_ends_the_connection_and_the_next_one_serves():
    def malformed(conversation: Conversation) -> None:
        conversation.accept()
        conversation.accept_subscription()
        conversation.send(packet(0x36, b"\0\1a\0\1"))
        conversation.read_to_end()

    def serve(conversation: Conversation) -> None:
        conversation.accept()
        conversation.accept_subscription()
        conversation.send(publish("a", b"1", 0))

    with ScriptedBroker(malformed, serve) as broker:
        assert len(received(from_mqtt(broker.url, "a"))) == 1


def test_the_hook_is_told_of_each_connection_and_its_error_fails_the_stream():
    seen = []

    def script(conversation: Conversation) -> None:
        conversation.accept()
        conversation.accept_subscription()

    def hook(connected):
        seen.append(connected.reconnects)
        if connected.reconnects:
            raise LookupError("no such thing")

    with ScriptedBroker(script, script) as broker, pytest.raises(LookupError):
        source = from_mqtt(broker.url, "a", on_connect=hook)
        run(source, reactivex.Observer(), seconds=20)
    assert seen == [0, 1]


@pytest.mark.parametrize("which", ["expired", "wrong_name"])
def test_a_certificate_that_is_wrong_is_refused(make_mosquitto, authority, which):
    broker: Mosquitto = make_mosquitto(certificate=getattr(authority, which))
    source = from_mqtt(broker.tls_url, "a", ca_file=str(authority.path), **LOGIN)
    with pytest.raises(ConnectError, match="certificate"):
        run(source, reactivex.Observer(), log=False)


def test_an_unknown_authority_is_refused(mosquitto_tls):
    with pytest.raises(ConnectError, match="certificate"):
        run(
            from_mqtt(mosquitto_tls.tls_url, "a", **LOGIN),
            reactivex.Observer(),
            log=False,
        )


def test_a_password_over_plain_tcp_is_warned_of():
    source = from_mqtt("mqtt://192.0.2.1", "a", username="u", password="canary")
    with warnings.catch_warnings(record=True, action="always") as caught:
        source.subscribe(reactivex.Observer()).dispose()
    texts = [str(warning.message) for warning in caught if warning.category is RxflowWarning]
    assert sum("mqtts://" in text for text in texts) == 1
    assert "canary" not in "".join(texts)


# -- subscribing twice -----------------------------------------------------------------------------


def test_a_second_subscription_names_share(mqtt_broker):
    source = from_mqtt(mqtt_broker.url, "a", **LOGIN)
    errors = []

    async def main():
        first = source.subscribe(reactivex.Observer())
        source.subscribe(reactivex.Observer(on_error=errors.append))
        first.dispose()
        while not errors or len(asyncio.all_tasks()) > 1:  # noqa: ASYNC110 (nothing says it)
            await asyncio.sleep(0.01)

    asyncio.run(main())
    assert isinstance(errors[0], ConfigError)
    assert "share()" in str(errors[0])


def test_at_qos_0_a_second_subscription_is_a_connection_of_its_own(mosquitto):
    standing, seen = Subject(), []
    source = from_mqtt(mosquitto.url, "a", qos=0, on_connect=standing.on_next, **LOGIN)
    both = source.pipe(ops.merge(source), ops.take(2))
    run(
        (both, reactivex.Observer(seen.append)),
        (standing.pipe(ops.skip(1), ops.map(str)), MqttSink(mosquitto.url, topic="a", **LOGIN)),
        seconds=20,
        log=False,
    )
    assert len(seen) == 2


def test_retry_connects_again_after_the_first_connection_is_gone():
    def serve(payload):
        def script(conversation: Conversation) -> None:
            conversation.accept()
            conversation.accept_subscription()
            conversation.send(publish("a", payload, 1, 1))
            conversation.read_to_end()

        return script

    with ScriptedBroker(serve(b"bad"), serve(b"1")) as broker:
        source = from_mqtt(broker.url, "a", client_id="me").pipe(
            ops.map(lambda message: int(message.payload)), ops.retry(), ops.take(1)
        )
        assert [message.payload for message in received(source)] == [1]


# -- decode_json in a pipeline ---------------------------------------------------------------------


BAD = [b"", b"{", b"\xff", b"NaN", b"[" * 2000, b'{"a":' * 300 + b"1" + b"}" * 300]


def test_a_bad_payload_fails_the_stream_with_its_topic(mqtt_broker):
    standing = Subject()
    source = from_mqtt(mqtt_broker.url, "a", on_connect=standing.on_next, **LOGIN)
    with pytest.raises(DecodeError) as caught:
        run(
            (source.pipe(ops.decode_json()), reactivex.Observer()),
            (standing.pipe(ops.map(lambda _: b"{")), MqttSink(mqtt_broker.url, topic="a", **LOGIN)),
            seconds=20,
            log=False,
        )
    assert caught.value.topic == "a"


def test_bad_payloads_are_set_aside_and_the_stream_goes_on(mosquitto, tmp_path: Path):
    good, bad = tmp_path / "good.json", tmp_path / "bad.jsonl"
    payloads = [item for n, each in enumerate(BAD) for item in (each, b"%d" % n)]
    standing = Subject()
    source = from_mqtt(mosquitto.url, "a", on_connect=standing.on_next, **LOGIN)
    sent = standing.pipe(ops.take(1), ops.flat_map(lambda _: reactivex.of(*payloads)))
    report = run(
        (
            source.pipe(ops.take(len(payloads)), ops.decode_json(rejected=JsonLinesSink(bad))),
            JsonSink(good),
        ),
        (sent, MqttSink(mosquitto.url, topic="a", **LOGIN)),
        seconds=20,
        log=False,
    )
    assert list(read_rows(good)) == list(range(len(BAD)))
    assert [row["topic"] for row in read_rows(bad)] == ["a"] * len(BAD)
    assert (report.received, report.stored, report.rejected) == (12, 6, 6)


# -- whatever scheduler it is subscribed with, and whoever does not listen to errors --------------


@pytest.mark.parametrize(
    "scheduler",
    [
        NewThreadScheduler,
        ThreadPoolScheduler,
        TimeoutScheduler,
        CurrentThreadScheduler,
        ImmediateScheduler,
        EventLoopScheduler,
    ],
)
def test_a_source_lives_on_its_loop_whatever_scheduler_it_is_subscribed_with(scheduler):
    seen, ended = [], threading.Event()
    with ScriptedBroker(serve(publish("a", b"1"), publish("a", b"2", 1, 2))) as broker:
        source = from_mqtt(broker.url, "a").pipe(ops.map(lambda m: m.payload), ops.take(2))
        clock = scheduler()
        source.subscribe(lambda m: seen.append(m.payload), print, ended.set, scheduler=clock)
        assert ended.wait(60)
    assert seen == [b"1", b"2"]
    if hasattr(clock, "dispose"):
        clock.dispose()


def test_the_first_message_is_had_by_run_of_reactivex():
    with ScriptedBroker(serve(publish("a", b"1"))) as broker:
        assert from_mqtt(broker.url, "a").pipe(ops.first()).run().payload == b"1"


def test_an_error_that_nobody_handles_is_shown_with_its_traceback(caplog):
    with ScriptedBroker(serve(publish("a", b"1"))) as broker:
        from_mqtt(broker.url, "a").pipe(ops.map(lambda _: 1 // 0)).subscribe(print)
    (shown,) = [record for record in caplog.records if record.name == "asyncio"]
    assert shown.message.startswith("the error of a stream was not handled")
    assert shown.exc_info[0] is ZeroDivisionError


@pytest.mark.parametrize(
    ("filters", "is_told"),
    [
        ((("a/#", 2), "a/b"), True),
        (("a/b", ("a/+", 2)), True),
        (("a/#", "a/b"), False),
        ((("a/#", 2), "b"), False),
        ((("a", 2), "b"), False),
    ],
)
def test_filters_that_overlap_at_qos_2_are_warned_of(filters, is_told):
    source = from_mqtt("mqtt://127.0.0.1:1", *filters, client_id="me", connect_timeout=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        source.subscribe(on_error=lambda _: None).dispose()
    assert any("overlap" in str(each.message) for each in caught) is is_told
