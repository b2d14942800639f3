"""C12, C13: hostile brokers and poisoned payloads."""

from __future__ import annotations

import contextlib
import json

import pytest
import reactivex
from scripted import PUBACK, Conversation, ScriptedBroker, packet, publish
from serving import serve

from rxflow import JsonLinesSink, JsonSink, from_mqtt, read_rows, run
from rxflow import operators as ops
from rxflow.log import logger
from rxflow.mqtt.client import Client

LOGIN = {"username": "wiredflow", "password": "wiredflow"}


# -- C12: what the standard forbids ----------------------------------------------------------------

TEXT = b"\0\1a"
# The client gives the connection up and makes another.
MALFORMED = {
    "QoS 3": packet(0x36, TEXT + b"\0\1"),
    "packet id 0 in QoS 1": packet(0x32, TEXT + b"\0\0"),
    "packet id 0 in QoS 2": packet(0x34, TEXT + b"\0\0"),
    "topic longer than the packet": packet(0x30, b"\0\5a"),
    "half a topic length": packet(0x30, b"\0"),
    "PUBLISH without anything": packet(0x30, b""),
    "no packet id": packet(0x32, TEXT),
    "half a packet id": packet(0x32, TEXT + b"\0"),
    "length of five bytes": b"\x30\xff\xff\xff\xff\x01",
    "256 MB": b"\x90\xff\xff\xff\x7f",
    "no topic": packet(0x30, b"\0\0"),
    "a topic with a wildcard": packet(0x32, b"\0\3a/#\0\1"),
    "a topic with U+0000": packet(0x34, b"\0\2a\0\0\1"),
    "a topic that is no UTF-8": packet(0x32, b"\0\2a\xff\0\1"),
    "a large packet that is no PUBLISH": packet(0x90, b"\0" * 5000),
    "a second CONNACK": packet(0x20, b"\0\0"),
    "PUBREL without packet id": packet(0x62, b""),
    "packet type 0": b"\0\0",
    "a CONNECT": packet(0x10, b"\0\4MQTT\4\2\0\x1e\0\0"),
    "a SUBSCRIBE": packet(0x82, b"\0\1\0\1a\0"),
    "an UNSUBSCRIBE": packet(0xA2, b"\0\1\0\1a"),
    "a SUBACK without packet id": packet(0x90, b""),
    "a PUBACK without packet id": packet(0x40, b""),
    "a CONNACK without code": packet(0x20, b"\0"),
    "noise": b"\xff" * 100,
}
MALFORMED_IN_5 = {
    "topic alias": packet(0x30, TEXT + b"\3\x23\0\1"),
    "properties longer than the packet": packet(0x30, TEXT + b"\x7f"),
    "properties of endless length": packet(0x30, TEXT + b"\xff\xff\xff\xff\xff"),
    "property twice": packet(0x30, TEXT + b"\x04\1\0\1\0"),
    "property of another packet": packet(0x30, TEXT + b"\2\x24\1"),
    "half a user property": packet(0x30, TEXT + b"\5\x26\0\1k\0"),
    "subscription identifier 0": packet(0x30, TEXT + b"\2\x0b\0"),
    "DISCONNECT": packet(0xE0, b"\x81\0"),
}
# Strange, but nothing that harms: the connection goes on.
HARMLESS = {
    "PUBACK of nothing": packet(0x40, b"\0\7"),
    "PUBCOMP of nothing": packet(0x70, b"\0\7"),
    "PUBREL of nothing": packet(0x62, b"\0\7"),
    "PINGRESP unasked": packet(0xD0, b""),
}


SUBACK_OF_NOTHING = {3: packet(0x90, b"\0\x63\1"), 5: packet(0x90, b"\0\x63\0\1")}


def hostile_broker(cases: dict[str, bytes], version: int, answers: dict[str, str]):
    """A script for each case: what a client does that is sent this, then something good."""
    good = publish("a", b'"good"', 1, 9)
    if version == 5:
        good = packet(0x32, TEXT + b'\0\x09\0"good"')

    def script(name: str, data: bytes, *, is_first: bool):
        def talk(conversation: Conversation) -> None:
            conversation.accept(session_present=not is_first, version=version)
            if is_first:
                conversation.accept_subscription(version=version)
            conversation._connection.settimeout(3)
            answers[name] = ""
            try:
                conversation.send(data + good)
                while conversation.read() != (PUBACK, b"\0\x09"):
                    pass
                answers[name] = "goes on"
            except ConnectionError:
                answers[name] = "reconnects"
            except TimeoutError:
                answers[name] = "stands still"

        return talk

    return [script(name, data, is_first=not n) for n, (name, data) in enumerate(cases.items())]


@pytest.mark.parametrize("version", [3, 5])
def test_a_broker_that_breaks_the_protocol_stores_nothing_and_stops_nothing(
    monkeypatch, tmp_path, version
):
    monkeypatch.setattr(Client, "_wait", staticmethod(lambda _: 0.01))
    monkeypatch.setattr("rxflow.mqtt.client.ROUNDS", 1000)  # it closes as often as it likes
    bad = MALFORMED | (MALFORMED_IN_5 if version == 5 else {})
    harmless = HARMLESS | {"SUBACK of nothing": SUBACK_OF_NOTHING[version], "nothing": b""}
    answers: dict[str, str] = {}
    scripts = hostile_broker(bad | harmless, version, answers)
    seen = []
    with ScriptedBroker(*scripts) as broker:
        url = broker.url.replace("3.1.1", "5" if version == 5 else "3.1.1")
        source = from_mqtt(url, "a", client_id="me", max_packet_bytes=4096)
        messages = source.pipe(ops.do_action(lambda m: seen.append(m.payload)))
        whole = messages.pipe(ops.filter(lambda _: len(answers) == len(scripts)), ops.take(1))
        run(whole, JsonSink(tmp_path / "rows.json"), seconds=30, log=False)
    assert answers == dict.fromkeys(bad, "reconnects") | dict.fromkeys(harmless, "goes on")
    assert seen == [b'"good"'] * len(harmless)


@pytest.mark.parametrize("qos", [1, 2])
def test_what_nobody_asked_for_is_stored_and_not_acknowledged_unseen(tmp_path, qos):
    """A broker may rename what it delivers: nothing is acknowledged before it is kept."""
    path = tmp_path / "rows.json"
    topics = ["b", "../../../etc/cron.d/x", "$SYS/x", "A"]
    answer = {1: 0x40, 2: 0x50}[qos]
    answered = []

    def script(conversation: Conversation) -> None:
        conversation.accept()
        conversation.accept_subscription()
        for packet_id, topic in enumerate(topics, 1):
            conversation.send(publish(topic, b'"stray"', qos, packet_id))
        conversation.send(publish("a", b'"good"', qos, 100))
        answered.extend(conversation.packet_ids(answer, len(topics) + 1))

    with ScriptedBroker(script) as broker:
        source = from_mqtt(broker.url, "a", qos=qos).pipe(ops.take(len(topics) + 1))
        run(source, JsonSink(path), seconds=20, log=False)
    assert list(read_rows(path)) == ["stray"] * len(topics) + ["good"]
    assert answered == [*range(1, len(topics) + 1), 100]
    assert all(each.name.startswith("rows.json") for each in tmp_path.iterdir())


# -- hostile ends, and what is told of them --------------------------------------------------------

CANARY = "hunter2" + "-canary"
GREETING = packet(0x20, b"\0\0") + packet(0x90, b"\0\1\1")
ENDS = {
    **{f"cut after {n} bytes": (GREETING[:n], False) for n in range(len(GREETING) + 1)},
    "its CONNECT comes back": (b"", True),
    "its CONNECT comes back behind CONNACK": (GREETING[:4], True),
    "its CONNECT comes back behind SUBACK": (GREETING, True),
    "half a PUBLISH, and its CONNECT": (GREETING + b"\x30\xff\x01\0\xf0", True),
    "noise, and its CONNECT": (GREETING + b"\xf0\x05", True),
}


def test_hostile_ends_never_make_the_client_show_its_password(monkeypatch):
    monkeypatch.setattr(Client, "_wait", lambda *_: 0.01)
    shown: list[str] = []

    def script(data: bytes, *, is_echo: bool):
        def talk(conversation: Conversation) -> None:
            first, body = conversation.read()
            assert CANARY.encode() in body
            with contextlib.suppress(OSError):
                conversation.send(data + packet(first, body) * is_echo)

        return talk

    scripts = [script(data, is_echo=is_echo) for data, is_echo in ENDS.values()]
    log = logger.add(shown.append, level=0, backtrace=True, diagnose=True)
    try:
        with ScriptedBroker(*scripts, serve(publish("a"))) as broker:
            source = from_mqtt(broker.url, "a", username="u", password=CANARY)
            run(source.pipe(ops.take(1)), reactivex.Observer())
    finally:
        logger.remove(log)
    assert "before CONNACK" in "".join(shown)
    assert CANARY not in "".join(shown)


def test_a_topic_with_dots_is_a_topic_and_no_path(tmp_path):
    topic = "../../../etc/cron.d/x"

    def script(conversation: Conversation) -> None:
        conversation.accept()
        conversation.accept_subscription()
        conversation.send(publish(topic, b"1", 0))

    seen = []
    with ScriptedBroker(script) as broker:
        source = from_mqtt(broker.url, "#").pipe(
            ops.take(1), ops.do_action(lambda message: seen.append(message.topic))
        )
        run(source, JsonSink(tmp_path / "rows.json"), seconds=20, log=False)
    assert seen == [topic]
    assert all(each.name.startswith("rows.json") for each in tmp_path.iterdir())


# -- C13: poisoned payloads ------------------------------------------------------------------------

POISON = [
    b"",
    b" ",
    b"{",
    b"}",
    b"[",
    b'"',
    b'{"a":}',
    b'{"a" 1}',
    b'{"a":1,}',
    b"{1:2}",
    b"[1,]",
    b"[1 2]",
    b"1 2",
    b"01",
    b"+1",
    b".5",
    b"1.",
    b"0x10",
    b"NaN",
    b"Infinity",
    b"nul",
    b"True",
    b"'a'",
    b'"\x01"',
    b'"\\x"',
    b'"\\ud800"',
    b"\xff",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf1",
    b"\x00",
    b"// c\n1",
    b'1}, {"injected": true',
    b"[" * 2000,
    b"[" * 300 + b"]" * 300,
    b'{"a":' * 300 + b"1" + b"}" * 300,
]


@pytest.mark.parametrize("where", ["decode_json", "sink"])
def test_poison_is_set_aside_with_its_reason_and_the_good_is_stored(tmp_path, where):
    good, bad = tmp_path / "good.json", tmp_path / "bad.jsonl"
    aside = []

    def script(conversation: Conversation) -> None:
        conversation.accept()
        conversation.accept_subscription()
        packet_id = 0
        for kind, poison in enumerate(POISON, 1):
            for n in range(10):
                packet_id += 1
                conversation.send(publish("a", b'{"n": %d}' % n, 1, packet_id))
            packet_id += 1
            conversation.send(publish("a", poison, 1, packet_id))
            assert conversation.packet_ids(PUBACK, 11)[-1] == packet_id
            aside.append(len(list(read_rows(bad))) - kind)  # on the disk before its PUBACK

    rejected = JsonLinesSink(bad)
    count = 11 * len(POISON)
    with ScriptedBroker(script) as broker:
        source = from_mqtt(broker.url, "a").pipe(ops.take(count))
        if where == "sink":
            report = run(source, JsonSink(good, rejected=rejected), seconds=30, log=False)
        else:
            decoded = source.pipe(ops.decode_json(rejected=rejected))
            report = run(decoded, JsonSink(good), seconds=30, log=False)
    assert json.loads(good.read_bytes()) == [{"n": n} for n in range(10)] * len(POISON)
    rows = list(read_rows(bad))
    assert len(rows) == len(POISON)
    assert all(row["error"] for row in rows)
    assert aside == [0] * len(POISON)
    assert (report.stored, report.rejected) == (10 * len(POISON), len(POISON))


def test_without_a_place_for_poison_the_stream_ends_and_leaves_the_rest(tmp_path):
    answered = []

    def script(conversation: Conversation) -> None:
        conversation.accept()
        conversation.accept_subscription()
        for packet_id, payload in enumerate((b"1", b"{", b"2"), 1):
            conversation.send(publish("a", payload, 1, packet_id))
        with contextlib.suppress(ConnectionError):
            while True:
                first, body = conversation.read()
                if first == PUBACK:
                    answered.append(body)
                elif first == 0xE0:
                    return

    with ScriptedBroker(script) as broker:
        source = from_mqtt(broker.url, "a").pipe(
            ops.map(lambda message: json.loads(message.payload))
        )
        with pytest.raises(ValueError, match="Expecting"):
            run(source, JsonSink(tmp_path / "rows.json"), seconds=20, log=False)
    assert b"\0\2" not in answered
