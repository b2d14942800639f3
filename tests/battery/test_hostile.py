"""C12, C13, C21: hostile brokers, poisoned payloads, and what may be seen of secrets."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
import reactivex
from scripted import PUBACK, Conversation, ScriptedBroker, packet, publish

from rxflow import ConnectError, JsonLinesSink, JsonSink, MqttSink, from_mqtt, read_rows, run
from rxflow import operators as ops
from rxflow._client import Client
from rxflow.broker import Broker
from rxflow.log import logger

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
    "256 MB": b"\x30\xff\xff\xff\x7f",
    "just above max_packet_bytes": packet(0x30, TEXT + b"x" * 5000),
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
    monkeypatch.setattr("rxflow._client._TAKEOVERS", 1000)  # it closes as often as it likes
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
def test_topics_that_nobody_asked_for_write_no_row(tmp_path, qos):
    path = tmp_path / "rows.json"
    topics = ["b", "a/#", "+", "a\0", "a\udcff", "", "../../../etc/cron.d/x", "$SYS/x", "A"]
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
        source = from_mqtt(broker.url, "a", qos=qos).pipe(ops.take(1))
        run(source, JsonSink(path), seconds=20, log=False)
    assert list(read_rows(path)) == ["good"]
    assert answered == [*range(1, len(topics) + 1), 100]


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
    assert (report.stored, report.set_aside) == (10 * len(POISON), len(POISON))


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


# -- C21: secrets ----------------------------------------------------------------------------------

CANARY = "hunter2" + "-canary"


@contextlib.contextmanager
def everything_shown(capsys) -> Iterator[list[str]]:
    """All that is logged, with the values of variables, warned of, printed, or raised."""
    shown: list[str] = []
    number = logger.add(shown.append, level=0, diagnose=True, backtrace=True)
    try:
        yield shown
    finally:
        logger.remove(number)
        shown.extend(capsys.readouterr())


def refused(url: str, **settings) -> str:
    """What comes of a run whose connection fails: text, traceback, and every repr on the way."""
    source = from_mqtt(url, "a", connect_timeout=0.5, **settings)
    sink = JsonSink("unused.json")
    text = repr(source) + repr(source.pipe(ops.take(1))) + repr(sink) + str(vars(source))
    with pytest.raises(ConnectError) as caught:
        run(source, reactivex.Observer())
    error = caught.value
    return text + repr(error) + "".join(traceback.format_exception(error))


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.mark.parametrize("case", ["wrong password", "no broker", "in the URL", "no TLS there"])
def test_a_password_is_shown_nowhere(mosquitto, capsys, case):
    login = {"username": "wiredflow", "password": CANARY}
    port = closed_port() if case == "no broker" else mosquitto.port
    scheme = "mqtts" if case == "no TLS there" else "mqtt"
    user = f"wiredflow:{CANARY}@" if case == "in the URL" else ""
    with everything_shown(capsys) as shown:
        text = refused(f"{scheme}://{user}127.0.0.1:{port}", **({} if user else login))
    assert "connection" in "".join(shown)
    assert CANARY not in text + "".join(shown)


def test_a_password_of_a_sink_is_shown_nowhere(mosquitto, capsys):
    sink = MqttSink(mosquitto.url, topic="a", username="wiredflow", password=CANARY)
    with everything_shown(capsys) as shown:
        with pytest.raises(Exception, match="refused the connection") as caught:
            run(reactivex.of(1), sink)
        shown.append(repr(sink) + "".join(traceback.format_exception(caught.value)))
    assert CANARY not in "".join(shown)


def test_a_log_that_shows_variables_is_found_out(capsys):
    with everything_shown(capsys) as shown:
        password = CANARY
        logger.enable(__name__)
        try:
            len(password) / 0
        except ZeroDivisionError:
            logger.exception("shown")
    assert CANARY in "".join(shown)


@pytest.mark.parametrize("case", ["wrong CA", "expired", "wrong name", "no client certificate"])
def test_tls_refuses(make_mosquitto, authority, tmp_path_factory, case):
    certificate = {"expired": "expired", "wrong name": "wrong_name"}.get(case, "server")
    client_ca = authority.path if case == "no client certificate" else None
    broker = make_mosquitto(certificate=getattr(authority, certificate), client_ca=client_ca)
    settings = {} if case == "wrong CA" else {"ca_file": str(authority.path)}
    source = from_mqtt(broker.tls_url, "a", connect_timeout=1.0, **settings, **LOGIN)
    with pytest.raises(ConnectError):
        run(source, reactivex.Observer(), log=False)
    assert "Sending CONNACK" not in broker.log


def test_a_context_that_verifies_nothing_is_found_out(make_mosquitto, authority):
    broker = make_mosquitto(certificate=authority.expired)
    careless = ssl.create_default_context()
    careless.check_hostname, careless.verify_mode = False, ssl.CERT_NONE
    source = from_mqtt(broker.tls_url, "a", tls=careless, **LOGIN)
    run(source, reactivex.Observer(), seconds=0.3, log=False)
    assert "Sending CONNACK" in broker.log


def listeners(port: int) -> list[str]:
    """The addresses that somebody listens on at this port, as the kernel writes them."""
    rows = [
        line.split()
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        if Path(table).exists()
        for line in Path(table).read_text().splitlines()[1:]
    ]
    addresses = [row[1].rsplit(":", 1) for row in rows if row[3] == "0A"]
    return [address for address, number in addresses if int(number, 16) == port]


@pytest.mark.parametrize(
    ("host", "address"),
    [("127.0.0.1", "0100007F"), ("::1", "00000000000000000000000001000000")],
)
def test_the_embedded_broker_listens_on_loopback_only(host, address):
    with Broker(host=host) as broker:
        assert listeners(broker.port) == [address]


def test_a_listener_on_every_interface_is_found_out():
    with socket.create_server(("0.0.0.0", 0)) as listener:
        assert listeners(listener.getsockname()[1]) == ["00000000"]
