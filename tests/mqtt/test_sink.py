"""`MqttSink`: what it publishes, when a message counts as stored, and what bad items get."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
from textwrap import dedent

import pytest
import reactivex
from memory import grown_by
from reactivex import operators as rx
from reactivex.subject import Subject
from scripted import (
    CONNECT,
    DISCONNECT,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    ScriptedBroker,
    packet,
    publish,
)
from serving import serve, until_disconnect

from rxflow import (
    ConfigError,
    ConnectError,
    JsonLinesSink,
    JsonSink,
    MqttSink,
    RxflowWarning,
    SinkError,
    Will,
    from_mqtt,
    read_rows,
    run,
)
from rxflow import operators as ops
from rxflow.message import Batch, Message
from rxflow.mqtt.outbox import Limits
from rxflow.mqtt.publisher import Publisher
from rxflow.testing.virtual.loop import VirtualLoop

LOGIN = {"username": "wiredflow", "password": "wiredflow"}


def quiet(*pipelines, **settings):
    return run(*pipelines, log=False, **settings)


def taken(conversation, count=1):
    """The next messages, acknowledged: topic, payload, QoS and whether it is retained."""
    messages, unreleased = [], 0
    while len(messages) < count or unreleased:
        first, body = conversation.read()
        if first & 0xF0 == PUBREL:
            conversation.send(packet(PUBCOMP, body[:2]))
            unreleased -= 1
            continue
        assert first & 0xF0 == PUBLISH
        end = 2 + int.from_bytes(body[:2])
        qos = first >> 1 & 3
        if qos:
            packet_id = body[end : end + 2]
            conversation.send(packet(PUBACK if qos == 1 else PUBREC, packet_id))
            unreleased += qos == 2
        payload = body[end + 2 * bool(qos) :]
        messages.append((body[2:end].decode(), payload, qos, bool(first & 1)))
    return messages


def published(items, **settings):
    """What the broker gets of some items."""
    messages, items = [], list(items)

    def script(conversation):
        conversation.accept()
        messages.extend(taken(conversation, len(items)))
        until_disconnect(conversation)

    with ScriptedBroker(script) as broker:
        sink = MqttSink(broker.url, **{"topic": "a", **settings})
        report = quiet(reactivex.of(*items), sink)
    assert report.stored == len(items)
    return messages


# -- what is published -----------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_items_are_published_in_order_with_every_qos(qos):
    messages = published(range(10), qos=qos)
    assert messages == [("a", b"%d" % n, qos, False) for n in range(10)]


def test_bytes_go_as_they_are_and_everything_else_as_json():
    items = [b"\xff", bytearray(b"x"), memoryview(b"y"), "text", None, {"n": [1, 2]}]
    payloads = [payload for _, payload, _, _ in published(items)]
    assert payloads == [b"\xff", b"x", b"y", b'"text"', b"null", b'{"n":[1,2]}']


def test_topic_qos_and_retain_may_be_functions_of_the_message():
    items = [Message("in/x", {"n": 0}), Message("in/y", b"1")]
    messages = published(
        items,
        topic=lambda m: m.topic.replace("in", "out"),
        qos=lambda m: int(m.payload == b"1"),
        retain=lambda m: m.topic == "in/x",
    )
    assert messages == [("out/x", b'{"n":0}', 0, True), ("out/y", b"1", 1, False)]


def test_of_a_batch_each_message_is_published():
    messages = []

    def script(conversation):
        conversation.accept()
        messages.extend(taken(conversation, 3))
        until_disconnect(conversation)

    with ScriptedBroker(script) as broker:
        batch = Batch(Message(topic, b"1") for topic in "xyz")
        quiet(reactivex.of(batch), MqttSink(broker.url, topic=lambda m: m.topic))
    assert [topic for topic, *_ in messages] == ["x", "y", "z"]


def test_an_item_that_waits_takes_no_more_memory_than_it_needs():
    async def main():
        grown = grown_by(lambda: [sink.on_next({"n": n}) for n in range(9_000)])
        sink.on_completed()
        return grown

    sink = MqttSink("mqtt://127.0.0.1:1", topic="a", drain_timeout=0)
    assert asyncio.run(main()) < 9_000 * 1536  # orjson's own take 4,112 bytes each


# -- what bad items get ----------------------------------------------------------------------------

BAD = [
    ({}, {1: 2j}),
    ({"topic": lambda _: "a/#"}, 1),
    ({"topic": lambda _: None}, 1),
    ({"topic": lambda m: m.payload["missing"]}, {}),
    ({"qos": lambda _: 3}, 1),
    ({"qos": lambda _: "1"}, 1),
    ({"retain": lambda m: m.missing}, 1),
]


@pytest.mark.parametrize(("settings", "payload"), BAD)
def test_a_bad_item_fails_the_sink_with_its_topic(settings, payload):
    sink = MqttSink("mqtt://127.0.0.1:1", **{"topic": "a", **settings})
    with pytest.raises(SinkError, match="of topic 'from/here'") as caught:
        quiet(reactivex.timer(0).pipe(ops.map(lambda _: Message("from/here", payload))), sink)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(("settings", "payload"), BAD)
def test_a_bad_item_is_set_aside_and_the_rest_is_published(tmp_path, settings, payload):
    messages = []

    def script(conversation):
        conversation.accept()
        messages.extend(taken(conversation))
        until_disconnect(conversation)

    bad = JsonLinesSink(tmp_path / "bad.jsonl")
    chosen = {"topic": lambda m: m.topic if m.topic == "ok" else "a"}
    for name, function in settings.items():
        chosen[name] = lambda m, f=function, n=name: (
            {"topic": "ok"}.get(n, 1) if (m.topic == "ok") else f(m)
        )
    with ScriptedBroker(script) as broker:
        sink = MqttSink(broker.url, rejected=bad, **chosen)
        quiet(reactivex.of(Message("in", payload), Message("ok", b"1")), sink)
    (row,) = read_rows(tmp_path / "bad.jsonl")
    assert row["topic"] == "in"
    assert [topic for topic, *_ in messages] == ["ok"]


def test_a_bad_item_that_can_not_be_set_aside_fails_the_sink():
    def full(_):
        raise OSError("full")

    sink = MqttSink("mqtt://h.invalid", topic="a", rejected=reactivex.Observer(full))
    with pytest.raises(SinkError, match="full"):
        quiet(reactivex.of(1j), sink)


@pytest.mark.parametrize("delay", [0.0, 0.05])
def test_a_message_that_can_not_be_published_is_not_acknowledged(delay):
    kinds = []
    with ScriptedBroker(serve(publish("a"), kinds=kinds)) as broker:
        source = from_mqtt(broker.url, "a").pipe(ops.buffer_with_time(delay or 0.01))
        sink = MqttSink("mqtt://127.0.0.1:1", topic="a", qos=lambda _: 7)
        with pytest.raises(SinkError, match="qos"):
            quiet(source, sink)
    assert kinds == [DISCONNECT]


@pytest.mark.filterwarnings("ignore::rxflow.RxflowWarning")
@pytest.mark.parametrize("settings", [{"qos": lambda _: 7}, {"connect_timeout": 0}])
def test_what_a_failed_sink_is_given_is_not_acknowledged_without_a_run_either(settings):
    kinds, failed = [], threading.Event()

    def script(conversation):
        conversation.accept()
        conversation.accept_subscription()
        assert "qos" in settings or failed.wait(10)
        conversation.send(publish("a"))
        kinds.extend(until_disconnect(conversation))

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # a timer raises
        sink = MqttSink("mqtt://127.0.0.1:1", topic="a", **settings)
        sink.on_failure = lambda _: failed.set()
        sink.open()
        source = from_mqtt(broker.url, "a").pipe(ops.buffer_with_time(0.01))
        source.subscribe(sink)
        while len(asyncio.all_tasks()) > 1:  # noqa: ASYNC110 (nothing says that they are gone)
            await asyncio.sleep(0.01)

    with ScriptedBroker(script) as broker:
        asyncio.run(main())
    assert kinds == [DISCONNECT]


# -- acknowledging ---------------------------------------------------------------------------------


def test_a_message_of_the_source_is_acknowledged_after_that_of_the_sink():
    order = []

    def source_side(conversation):
        conversation.accept()
        conversation.accept_subscription()
        conversation.send(publish("a", b"1", 1, 7))
        conversation.packet_ids(PUBACK, 1)
        order.append("source")
        until_disconnect(conversation)

    def sink_side(conversation):
        conversation.accept()
        _, body = conversation.expect(PUBLISH)
        order.append("sink")
        conversation.send(packet(PUBACK, body[3:5]))
        until_disconnect(conversation)

    with ScriptedBroker(source_side) as one, ScriptedBroker(sink_side) as other:
        source = from_mqtt(one.url, "a").pipe(ops.take(1))
        report = quiet(source, MqttSink(other.url, topic="b"))
    assert order == ["sink", "source"]
    assert (report.stored, report.unacknowledged) == (1, 0)


def test_what_the_broker_does_not_acknowledge_in_time_is_a_sink_error_and_left():
    kinds = []

    def silent(conversation):
        conversation.accept()
        until_disconnect(conversation)

    with ScriptedBroker(serve(publish("a"), kinds=kinds)) as one, ScriptedBroker(silent) as other:
        source = from_mqtt(one.url, "a").pipe(ops.take(1))
        with pytest.raises(
            SinkError, match=r"1 message was not acknowledged in time.*drain_timeout=0\.2"
        ):
            quiet(source, MqttSink(other.url, topic="b", drain_timeout=0.2))
    assert kinds == [DISCONNECT]


def test_a_message_that_the_broker_refuses_is_a_sink_error_that_names_its_topic():
    def script(conversation):
        conversation.accept(version=5)
        _, body = conversation.expect(PUBLISH)
        conversation.send(packet(PUBACK, body[3:5] + b"\x87\0"))
        until_disconnect(conversation)

    with ScriptedBroker(script) as broker, pytest.raises(SinkError, match=r"'b'.*not authorized"):
        url = broker.url.replace("3.1.1", "5")
        quiet(reactivex.of(1), MqttSink(url, topic="b"))


def test_a_refused_message_is_not_acknowledged_without_a_run_either():
    kinds = []

    def refuse(conversation):
        conversation.accept(version=5)
        _, body = conversation.expect(PUBLISH)
        conversation.send(packet(PUBACK, body[3:5] + b"\x87\0"))
        until_disconnect(conversation)

    async def main():
        sink = MqttSink(other.url.replace("3.1.1", "5"), topic="b")
        source = from_mqtt(one.url, "a")
        subscription = source.subscribe(sink)
        with pytest.raises(SinkError, match="not authorized"):
            while True:
                await sink.wait_closed()
                await asyncio.sleep(0.01)
        subscription.dispose()
        while len(asyncio.all_tasks()) > 1:  # noqa: ASYNC110 (nothing says that they are gone)
            await asyncio.sleep(0.01)

    with ScriptedBroker(serve(publish("a"), kinds=kinds)) as one, ScriptedBroker(refuse) as other:
        asyncio.run(main())
    assert kinds == [DISCONNECT]


def test_what_a_callback_of_the_client_raises_fails_the_sink():
    async def main():
        sink = MqttSink("mqtt://127.0.0.1:1", topic="a")
        failures = []
        sink.on_failure = failures.append
        sink.open()
        sink._publisher.raised(LookupError("boom"))
        sink._publisher.raised(LookupError("again"))
        with pytest.raises(SinkError, match="boom"):
            await sink.wait_closed()
        assert failures == [sink.failure]

    asyncio.run(main())


def test_no_more_is_in_flight_than_the_broker_wants():
    def script(conversation):
        conversation.expect(CONNECT)
        conversation.send(packet(0x20, b"\0\0" + b"\3\x21\0\2"))  # Receive Maximum 2
        waiting = [conversation.expect(PUBLISH)[1][3:5] for _ in range(2)]
        with pytest.raises(TimeoutError):
            conversation._connection.settimeout(0.2)
            conversation.expect(PUBLISH)
        conversation._connection.settimeout(10)
        for _ in range(8):
            conversation.send(packet(PUBACK, waiting.pop(0)))
            waiting.append(conversation.expect(PUBLISH)[1][3:5])
        conversation.send(b"".join(packet(PUBACK, each) for each in waiting))
        until_disconnect(conversation)

    with ScriptedBroker(script) as broker:
        url = broker.url.replace("3.1.1", "5")
        report = quiet(reactivex.range(10), MqttSink(url, topic="a"))
    assert report.stored == 10


@pytest.mark.parametrize("qos", [1, 2])
def test_what_was_not_acknowledged_is_published_again_on_the_next_connection(qos):
    seen = []

    def cut(conversation):
        conversation.accept()
        conversation.expect(PUBLISH)

    def script(conversation):
        conversation.accept(session_present=True)
        seen.extend(payload for _, payload, _, _ in taken(conversation, 1))
        until_disconnect(conversation)

    with ScriptedBroker(cut, script) as broker:
        quiet(reactivex.of(1), MqttSink(broker.url, topic="a", qos=qos, client_id="me"))
    assert seen == [b"1"]


def test_what_a_broker_forgot_before_its_release_is_published_again():
    published = []

    def forgets(conversation):
        conversation.accept()
        conversation.expect(PUBLISH)
        conversation.send(packet(PUBREC, b"\0\1"))
        conversation.expect(PUBREL)

    def serves(conversation):
        conversation.accept(session_present=False)
        while (first := conversation.read())[0] != DISCONNECT:
            kind, body = first
            if kind & 0xF0 == PUBLISH:
                published.append(body[5:])
                conversation.send(packet(PUBREC, body[3:5]))
            elif kind & 0xF0 == PUBREL:
                conversation.send(packet(PUBCOMP, body[:2]))

    with ScriptedBroker(forgets, serves) as broker:
        sink = MqttSink(broker.url, topic="a", qos=2, client_id="me")
        reactivex.of(b"1").subscribe(sink)
    assert published == [b"1"]


def test_nothing_is_lost_from_source_to_republish_over_a_restart_of_the_broker(mosquitto):
    count, got, halfway = 600, [], threading.Event()

    def restart():
        halfway.wait(20)
        mosquitto.stop()
        mosquitto.start()

    def note(message):
        got.append(int(message.payload))
        if len(got) == count // 4:
            halfway.set()

    standing = Subject()
    source = from_mqtt(mosquitto.url, "in", client_id="source", **LOGIN)
    target = from_mqtt(
        mosquitto.url, "out", client_id="target", on_connect=standing.on_next, **LOGIN
    )
    numbers = standing.pipe(ops.take(1), ops.delay(0.3), ops.flat_map(reactivex.range(count)))
    thread = threading.Thread(target=restart)
    thread.start()
    done = Subject()
    enough = ops.take_while(lambda _: len(set(got)) < count)
    quiet(
        (
            source.pipe(ops.take_until(done)),
            MqttSink(mosquitto.url, topic="out", client_id="again", **LOGIN),
        ),
        (
            target.pipe(ops.do_action(note), enough),
            reactivex.Observer(on_completed=lambda: done.on_next(None)),
        ),
        (numbers, MqttSink(mosquitto.url, topic="in", client_id="first", **LOGIN)),
        seconds=30,
    )
    thread.join()
    assert sorted(set(got)) == list(range(count))


# -- what the broker refuses -----------------------------------------------------------------------

REFUSED = b"\x87\x06\x1f\0\3no\n"  # not authorized, and a reason string that is not printable


def refusing(kind, *, then=0, code=REFUSED):
    """Refuses the first message, and takes so many more."""

    def script(conversation):
        conversation.accept(version=5)
        _, body = conversation.expect(PUBLISH)
        conversation.send(packet(kind, body[3:5] + code))
        for _ in range(then):
            _, body = conversation.expect(PUBLISH)
            conversation.send(packet(PUBACK, body[3:5]))
        assert DISCONNECT in until_disconnect(conversation)

    return script


def on5(broker):
    return broker.url.replace("3.1.1", "5")


@pytest.mark.parametrize(("qos", "kind"), [(1, PUBACK), (2, PUBREC)])
def test_a_refusal_names_topic_and_reason_and_nothing_is_acknowledged(qos, kind):
    kinds = []
    with (
        ScriptedBroker(serve(publish("a"), kinds=kinds)) as one,
        ScriptedBroker(refusing(kind)) as other,
    ):
        sink = MqttSink(on5(other), topic="b", qos=qos)
        said = r"refused a message to 'b': not authorized \(reason code 135\): no\\n"
        with pytest.raises(SinkError, match=said):
            quiet(from_mqtt(one.url, "a"), sink)
    assert sink.rows == 0
    assert kinds == [DISCONNECT]


PLAIN = rx.map(lambda m: {"value": m.payload.decode()})


def test_what_an_operator_of_reactivex_made_is_refused_and_its_message_not_acknowledged():
    kinds = []
    with (
        ScriptedBroker(serve(publish("a"), kinds=kinds)) as one,
        ScriptedBroker(refusing(PUBACK)) as other,
        pytest.raises(SinkError) as raised,
    ):
        quiet(from_mqtt(one.url, "a").pipe(PLAIN), MqttSink(on5(other), topic="b"))
    assert kinds == [DISCONNECT]
    assert raised.value.report.unacknowledged == 1


def test_what_an_operator_of_reactivex_made_is_set_aside_with_its_topic(tmp_path):
    kinds = []
    with ScriptedBroker(serve(publish("a"), kinds=kinds)) as broker:
        bad = JsonLinesSink(tmp_path / "bad.jsonl")
        sink = MqttSink("mqtt://127.0.0.1:1", topic=lambda _: "#", rejected=bad)
        report = quiet(from_mqtt(broker.url, "a").pipe(ops.take(1), PLAIN), sink)
    assert kinds == [PUBACK, DISCONNECT]
    assert (report.rejected, report.filtered) == (1, 0)
    assert [row["topic"] for row in read_rows(tmp_path / "bad.jsonl")] == ["a"]


def test_a_refused_message_is_set_aside_then_acknowledged_and_the_rest_goes_on(tmp_path):
    kinds = []
    bad = JsonLinesSink(tmp_path / "bad.jsonl")
    two = publish("a", b"1", 1, 1) + publish("a", b"2", 1, 2)
    with (
        ScriptedBroker(serve(two, kinds=kinds)) as one,
        ScriptedBroker(refusing(PUBACK, then=1)) as other,
    ):
        source = from_mqtt(one.url, "a").pipe(ops.take(2))
        report = quiet(source, MqttSink(on5(other), topic="b", rejected=bad))
    assert kinds == [PUBACK, PUBACK, DISCONNECT]
    assert (report.stored, report.rejected, report.unacknowledged) == (1, 1, 0)
    (row,) = read_rows(tmp_path / "bad.jsonl")
    assert (row["topic"], row["payload"]) == ("a", "1")
    assert "to 'b': not authorized" in row["error"]


def test_a_refused_message_is_acknowledged_once_an_observer_of_the_users_has_it():
    kinds, seen = [], []
    with (
        ScriptedBroker(serve(publish("a"), kinds=kinds)) as one,
        ScriptedBroker(refusing(PUBACK)) as other,
    ):
        source = from_mqtt(one.url, "a").pipe(ops.take(1))
        bad = reactivex.Observer(lambda message: seen.append(message.topic))
        report = quiet(source, MqttSink(on5(other), topic="b", rejected=bad))
    assert (seen, kinds, report.unacknowledged) == (["a"], [PUBACK, DISCONNECT], 0)


def test_a_refused_message_that_can_not_be_set_aside_is_not_acknowledged():
    def full(_):
        raise OSError("full")

    kinds = []
    with (
        ScriptedBroker(serve(publish("a"), kinds=kinds)) as one,
        ScriptedBroker(refusing(PUBACK)) as other,
    ):
        sink = MqttSink(on5(other), topic="b", rejected=reactivex.Observer(full))
        with pytest.raises(SinkError, match=r"refused a message to .b.: .*rejected= failed too"):
            quiet(from_mqtt(one.url, "a"), sink)
    assert kinds == [DISCONNECT]


@pytest.mark.parametrize(
    ("connack", "settings", "named"),
    [
        (b"\x24\1", {"qos": 2}, "Maximum QoS"),
        (b"\x25\0", {"retain": True}, "Retain Available"),
        (b"\x27\0\0\0\x40", {"topic": "long" * 20}, "Maximum Packet Size"),
    ],
)
@pytest.mark.parametrize("is_set_aside", [False, True])
def test_what_connack_forbids_is_an_error_that_names_the_limit_or_set_aside(
    connack, settings, named, is_set_aside
):
    def script(conversation):
        conversation.expect(CONNECT)
        conversation.send(packet(0x20, b"\0\0" + bytes([len(connack)]) + connack))
        assert until_disconnect(conversation) == [DISCONNECT]

    aside = []
    bad = reactivex.Observer(aside.append) if is_set_aside else None
    with ScriptedBroker(script) as broker:
        sink = MqttSink(on5(broker), **{"topic": "a", "rejected": bad, **settings})
        if is_set_aside:
            quiet(reactivex.of(1), sink)
            assert named in aside[0].payload["error"]
        else:
            with pytest.raises(SinkError, match=named):
                quiet(reactivex.of(1), sink)


def test_a_broker_that_refuses_qos_0_by_disconnect_is_an_error_that_names_topic_and_reason():
    def script(conversation):
        conversation.accept(version=5)
        conversation.expect(PUBLISH)
        conversation.send(packet(0xE0, b"\x87\0"))

    async def main():
        sink = MqttSink(on5(broker), topic="b", qos=0)
        failed = asyncio.Event()
        sink.on_failure = lambda _: failed.set()
        sink.on_next(1)
        await failed.wait()
        with pytest.raises(SinkError, match=r"publish to 'b'.*not authorized"):
            await sink.wait_closed()

    with ScriptedBroker(script) as broker:
        asyncio.run(main())


def test_a_message_that_ends_each_connection_is_named(monkeypatch):
    monkeypatch.setattr("rxflow.process.environment.Environment.jittered", lambda *_: 0.0)

    def closes(conversation):
        conversation.accept()
        conversation.expect(PUBLISH)

    async def main():
        sink = MqttSink(broker.url, topic="b")
        said = []
        sink.open()
        sink._publisher.warn = said.append
        sink.on_next(1)
        sink.on_completed()
        await sink.wait_closed()
        assert len([text for text in said if "answered to a message to 'b'" in text]) == 1

    with ScriptedBroker(closes, closes, closes, serving()) as broker:
        asyncio.run(main())


# -- over connections ------------------------------------------------------------------------------


def test_a_retained_topic_ends_with_the_newest_value_whenever_the_broker_dies():
    """1-3 unacknowledged when the broker dies, 4-7 given before it is back."""
    sent, is_gone, is_back = [], threading.Event(), threading.Event()

    def dies(conversation):
        conversation.accept()
        for _ in range(3):
            conversation.expect(PUBLISH)

    def lives(conversation):
        is_gone.set()
        is_back.wait(10)
        conversation.accept()
        sent.extend(payload for _, payload, _, _ in taken(conversation, 7))
        until_disconnect(conversation)

    with ScriptedBroker(dies, lives) as broker:
        sink = MqttSink(broker.url, topic="a", retain=True)
        for number in range(1, 4):
            sink.on_next(number)
        assert is_gone.wait(60)
        for number in range(4, 8):
            sink.on_next(number)
        is_back.set()
        sink.close()
    assert sent == [b"%d" % number for number in range(1, 8)]


def test_without_its_session_each_message_of_qos_2_is_sent_once_again():
    sent = []

    def forgets(conversation):
        conversation.accept()
        for _ in range(3):
            conversation.expect(PUBLISH)

    def serves(conversation):
        conversation.accept()
        sent.extend(payload for _, payload, _, _ in taken(conversation, 3))
        assert until_disconnect(conversation) == [DISCONNECT]

    with ScriptedBroker(forgets, serves) as broker:
        sink = MqttSink(broker.url, topic="a", qos=2, client_id="me")
        reactivex.of(1, 2, 3).subscribe(sink)
    assert sent == [b"1", b"2", b"3"]


def test_packet_ids_of_an_earlier_process_swallow_nothing_on_5():
    connects = []

    def first(conversation):
        conversation.accept(version=5)
        connects.append(conversation.connect[7] & 2)
        conversation.expect(PUBLISH)

    def second(conversation):
        conversation.accept(version=5, session_present=True)
        connects.append(conversation.connect[7] & 2)
        _, body = conversation.expect(PUBLISH)
        conversation.send(packet(PUBACK, body[3:5]))
        until_disconnect(conversation)

    with ScriptedBroker(first, second) as broker:
        reactivex.of(1).subscribe(MqttSink(on5(broker), topic="a", client_id="me"))
    assert connects == [2, 0]


def test_packet_ids_of_an_earlier_process_swallow_nothing_on_3_1_1():
    connects = []

    def life(*, present, count=0):
        def script(conversation):
            conversation.accept(session_present=present)
            connects.append(conversation.connect[7] & 2)
            taken(conversation, count)
            assert until_disconnect(conversation) == [DISCONNECT]

        return script

    with ScriptedBroker(life(present=True), life(present=False), life(present=False, count=1)) as b:
        reactivex.of(1).subscribe(MqttSink(b.url, topic="a", qos=2, client_id="me"))
    assert connects == [0, 2, 0]


def test_qos_2_is_exactly_once_over_restarts_of_the_broker(mosquitto):
    count, got = 400, []
    standing, done = threading.Event(), threading.Event()
    target = from_mqtt(
        mosquitto.url,
        "out",
        qos=2,
        client_id="target",
        on_connect=lambda _: standing.set(),
        **LOGIN,
    )

    def note(message):
        got.append(int(message.payload))
        if len(got) == count:
            done.set()

    subscription = target.subscribe(note)
    assert standing.wait(60)
    sink = MqttSink(mosquitto.url, topic="out", qos=2, client_id="again", **LOGIN)
    for number in range(count):
        sink.on_next(number)
        if number % 150 == 100:
            mosquitto.stop()
            mosquitto.start()
    sink.close()
    assert done.wait(60)
    subscription.dispose()
    assert got == list(range(count))


# -- the end ---------------------------------------------------------------------------------------


class Answering:
    """A client whose broker takes one message after the other, in virtual time."""

    sent = 0

    def __init__(self, outbox, loop, every, count):
        self._outbox, self._loop, self._every, self._left = outbox, loop, every, count

    def begin(self, sink):
        self._sink = sink
        self._outbox.connected(Limits(session_present=False))
        self._outbox.packets(0, 1 << 20)
        self._loop.call_later(self._every, self._answer, 1)

    def _answer(self, packet_id):
        if packet_id <= self._left:
            self._outbox.answered(0x40, packet_id)
            self._sink.settled()
            self._loop.call_later(self._every, self._answer, packet_id + 1)

    def publish(self):
        self._outbox.packets(0, 1 << 20)

    def worked(self):
        pass

    async def close(self, *, deadline):
        pass


def ended_after(*, every, answers, items=5, is_told=False, run_drain=None, **settings):
    """How long the end takes in virtual time, and the error."""

    async def main():
        loop = asyncio.get_running_loop()
        sink = MqttSink("mqtt://h", topic="a", **settings)
        if run_drain is not None:
            sink.drain_within(run_drain)
        sink._publisher = publisher = Publisher(sink, sink._options, loop)
        publisher._client = client = Answering(publisher.outbox, loop, every, answers)
        for number in range(items):
            sink.on_next(number)
        client.begin(publisher)
        sink.on_completed()
        if is_told:
            sink.hurry()
        began = loop.time()
        try:
            await sink.wait_closed()
        except SinkError as error:
            return loop.time() - began, str(error)
        return loop.time() - began, ""

    with VirtualLoop() as loop:
        return loop.run(main())


def test_a_stream_that_ends_by_itself_is_published_as_long_as_that_makes_progress():
    assert ended_after(every=4, answers=5) == (20, "")


def test_a_broker_that_answers_no_more_is_an_error_that_names_the_setting():
    seconds, error = ended_after(every=4, answers=3)
    assert seconds == 12 + 5
    assert "2 messages were not acknowledged in time (no answer for 5 s, drain_timeout=5)" in error


def test_who_is_told_to_stop_has_drain_timeout_and_no_more():
    seconds, error = ended_after(every=2, answers=5, is_told=True)
    assert seconds == 5
    assert "3 messages were not acknowledged in time (drain_timeout=5)" in error


@pytest.mark.parametrize(("settings", "seconds"), [({}, 7), ({"drain_timeout": 3}, 3)])
def test_the_drain_timeout_is_that_of_the_run_unless_given(settings, seconds):
    assert ended_after(every=99, answers=0, run_drain=7, **settings)[0] == seconds


@pytest.mark.parametrize("is_told", [False, True])
def test_a_run_says_what_its_drain_timeout_is_and_when_it_is_told_to_stop(is_told):
    sink = MqttSink("mqtt://127.0.0.1:1", topic="a")
    told = []
    sink.hurry = lambda: told.append(sink.drain_seconds)
    stream = reactivex.never() if is_told else reactivex.empty()
    quiet(stream, sink, drain_timeout=0.25, seconds=0.1 if is_told else None)
    assert told == [0.25] * is_told
    assert sink.drain_seconds == 0.25


def test_150_000_items_of_a_source_that_does_not_wait_are_no_error():
    count = 150_000

    def script(conversation):
        conversation.accept()
        left = count
        while left:
            left -= conversation._connection.recv(1 << 18).count(b"!")
        until_disconnect(conversation)

    with ScriptedBroker(script) as broker:
        items = reactivex.from_iterable([b"!"] * count)
        report = quiet(items, MqttSink(broker.url, topic="a", qos=0))
    assert report.stored == count


def test_eight_threads_that_are_the_first_together_share_one_connection():
    barrier = threading.Barrier(8)

    def give():
        barrier.wait(10)
        sink.on_next(1)

    with ScriptedBroker(serving(8)) as broker:  # which accepts one connection, and no more
        sink = MqttSink(broker.url, topic="a")
        threads = [threading.Thread(target=give) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sink.close()
    assert sink.rows == 8


def test_what_is_given_while_it_closes_is_published_or_refused():
    taken_on, refused = [], []

    def give():
        try:
            while True:
                sink.on_next(b"1")
                taken_on.append(1)
        except SinkError:
            refused.append(1)

    def script(conversation):
        conversation.accept()
        with contextlib.suppress(ConnectionError):
            while (each := conversation.read())[0] != DISCONNECT:
                conversation.send(packet(PUBACK, each[1][3:5]))

    with ScriptedBroker(script) as broker:
        sink = MqttSink(broker.url, topic="a")
        threads = [threading.Thread(target=give) for _ in range(4)]
        for thread in threads:
            thread.start()
        while len(taken_on) < 100:
            pass
        sink.close()
        for thread in threads:
            thread.join()
    assert len(refused) == 4
    assert sink.rows == len(taken_on)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"qos": True}, r"qos must be .*True"),
        ({"qos": 3}, r"qos must be .*3"),
        ({"qos": None}, r"qos must be .*None"),
        ({"retain": "no"}, r"retain must be .*'no'"),
        ({"retain": None}, r"retain must be .*None"),
        ({"topic": 5}, r"topic must be .*5"),
        ({"topic": "a/+"}, r"topic must be .*a/+"),
        ({"rejected": "bad.jsonl"}, r"rejected must be .*'bad\.jsonl'"),
        ({"rejected": JsonLinesSink}, r"rejected must be .*JsonLinesSink"),
        ({"will": {"topic": "a"}}, "will must be a Will"),
        ({"will": Will("a", retain="no")}, "will.*retain.*'no'"),
        ({"answer_timeout": 0}, r"answer_timeout must be .*0"),
        ({"reconnect_timeout": "1"}, r"reconnect_timeout must be .*'1'"),
    ],
)
def test_a_wrong_argument_is_refused_while_composing(settings, named):
    with pytest.raises(ConfigError, match=named):
        MqttSink("mqtt://h", **{"topic": "a", **settings})


# -- connecting ------------------------------------------------------------------------------------


def test_a_wrong_password_is_a_sink_error_with_the_connect_error_as_its_cause(mosquitto):
    sink = MqttSink(mosquitto.url, topic="a", username="wiredflow", password="canary")
    with pytest.raises(SinkError) as caught:
        quiet(reactivex.never(), sink)
    assert isinstance(caught.value.__cause__, ConnectError)
    assert "canary" not in str(caught.value)


def test_no_broker_within_connect_timeout_is_a_sink_error():
    sink = MqttSink("mqtt://127.0.0.1:1", topic="a", connect_timeout=0.1)
    with pytest.raises(SinkError, match=r"within 0\.1 s"):
        quiet(reactivex.never(), sink)


# -- closing, without a run ------------------------------------------------------------------------


def serving(count=1):
    def script(conversation):
        conversation.accept()
        taken(conversation, count)
        until_disconnect(conversation)

    return script


def test_on_a_thread_without_a_loop_completion_waits_until_all_is_acknowledged():
    with ScriptedBroker(serving(3)) as broker:
        sink = MqttSink(broker.url, topic="a")
        reactivex.of(1, 2, 3).subscribe(sink)
        assert sink.rows == 3
        sink.close()


def test_on_a_thread_without_a_loop_failure_raises():
    sink = MqttSink("mqtt://127.0.0.1:1", topic="a", connect_timeout=0)
    with pytest.raises(SinkError, match="within 0 s"):
        sink.on_next(1)  # which may be taken before the attempt has failed, or not
        sink.on_completed()
    with pytest.raises(SinkError):
        sink.on_next(2)


def test_on_a_thread_without_a_loop_the_thread_waits_for_a_broker_that_is_slow():
    count, waiting, has_ended = 8_000, [], threading.Event()

    def script(conversation):
        while sink._has_room.is_set():
            pass  # it has not come to wait yet
        has_ended.wait(0.5)
        waiting.append(len(sink._publisher.outbox.waiting))
        conversation.accept()
        until_disconnect(conversation)

    with ScriptedBroker(script) as broker:
        sink = MqttSink(broker.url, topic="a", qos=0)
        reactivex.range(count).pipe(ops.do_action(on_completed=has_ended.set)).subscribe(sink)
    assert sink.rows == count
    assert waiting[0] < count


def test_more_items_than_may_wait_are_a_sink_error(monkeypatch):
    monkeypatch.setattr("rxflow.mqtt.publisher._MOST_WAITING", 100)
    with pytest.raises(SinkError, match="100 items queued"):
        quiet(reactivex.range(200), MqttSink("mqtt://127.0.0.1:1", topic="a"))


def test_a_failure_that_nobody_is_told_of_is_a_warning():
    async def main():
        sink = MqttSink("mqtt://127.0.0.1:1", topic="a", connect_timeout=0)
        with pytest.warns(RxflowWarning, match="within 0 s"):  # noqa: PT031 (it comes from behind)
            sink.open()
            while sink.failure is None:  # noqa: ASYNC110 (nothing else says it)
                await asyncio.sleep(0.01)
        with pytest.raises(SinkError):
            await sink.wait_closed()

    asyncio.run(main())


def test_the_error_of_the_stream_is_a_warning_after_what_came_before_was_published():
    with ScriptedBroker(serving()) as broker:
        sink = MqttSink(broker.url, topic="a")
        source = reactivex.of(1).pipe(ops.concat(reactivex.throw(ValueError("bad"))))
        with pytest.warns(RxflowWarning, match="bad"):
            source.subscribe(sink)
    assert sink.rows == 1
    assert isinstance(sink.error, ValueError)


def test_wait_closed_serves_on_another_loop():
    with ScriptedBroker(serving()) as broker:
        sink = MqttSink(broker.url, topic="a")
        sink.on_next(1)

        async def main():
            sink.close()
            await sink.wait_closed()

        asyncio.run(main())
    assert sink.rows == 1


def test_a_sink_whose_loop_has_ended_says_so():
    sink = MqttSink("mqtt://127.0.0.1:1", topic="a")

    async def main():
        sink.open()

    asyncio.run(main())
    with pytest.raises(SinkError, match="loop has ended"):
        sink.on_next(1)
    with pytest.raises(SinkError, match="loop has ended"):
        sink.close()


def test_a_sink_that_is_closed_takes_nothing_more():
    with ScriptedBroker(serving()) as broker:
        sink = MqttSink(broker.url, topic="a")
        quiet(reactivex.of(1), sink)
    with pytest.raises(SinkError, match="closed"):
        sink.on_next(2)
    with pytest.raises(SinkError, match="closed"):
        quiet(reactivex.of(2), sink)


def test_a_sink_that_never_had_an_item_closes_without_a_connection():
    sink = MqttSink("mqtt://127.0.0.1:1", topic="a")
    sink.close()
    sink.close()
    asyncio.run(sink.wait_closed())


def test_a_program_may_end_right_behind_a_bare_subscribe():
    program = """
    import sys, reactivex
    from rxflow import MqttSink
    reactivex.of(1, 2).subscribe(MqttSink(sys.argv[1], topic="a"))
    """
    with ScriptedBroker(serving(2)) as broker:
        command = [sys.executable, "-W", "error", "-c", dedent(program), broker.url]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_sink_beside_a_file_sink_waits_for_both(tmp_path):
    kinds = []
    with (
        ScriptedBroker(serve(publish("a"), kinds=kinds)) as one,
        ScriptedBroker(serving()) as other,
    ):
        shared = from_mqtt(one.url, "a").pipe(ops.share())
        report = quiet(
            (shared.pipe(ops.take(1)), JsonSink(tmp_path / "a.json")),
            (shared.pipe(ops.take(1)), MqttSink(other.url, topic="b")),
        )
    assert kinds == [PUBACK, DISCONNECT]
    assert report.stored == 1
