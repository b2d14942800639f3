"""A session outlives its process, its filters and its connections, and is never deaf."""

import json
from datetime import UTC, datetime, timedelta

import pytest
import reactivex
from reactivex.subject import Subject
from scripted import (
    CONNECT,
    PUBACK,
    PUBLISH,
    SUBSCRIBE,
    UNSUBSCRIBE,
    Conversation,
    ScriptedBroker,
    packet,
    publish,
)
from serving import until_disconnect

from rxflow import ConnectError, JsonSink, MqttSink, from_mqtt, read_rows, run
from rxflow import operators as ops
from rxflow.log import logger

LOGIN = {"username": "wiredflow", "password": "wiredflow"}
VERSIONS = {3: "3.1.1", 5: "5"}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr("rxflow.process.environment.Environment.jittered", lambda *_: 0.01)


@pytest.fixture
def warnings():
    lines = []
    number = logger.add(lines.append, level="WARNING", format="{message}")
    yield lines
    logger.remove(number)


def send(broker, *topics):
    sink = MqttSink(broker.url, topic=lambda topic: topic, qos=2, **LOGIN)
    run(reactivex.of(*topics), sink, log=False)


def until_it_stands(url, path, *filters, count=0, **settings):
    """Run until the subscription stands and so many messages came; the topics that are stored."""
    standing = Subject()
    source = from_mqtt(url, *filters, on_connect=standing.on_next, **LOGIN, **settings)
    topics = source.pipe(ops.map(lambda message: message.topic))
    ended = topics.pipe(ops.take(count)) if count else topics.pipe(ops.take_until(standing))
    run(ended, JsonSink(path), seconds=20)
    return list(read_rows(path))


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_a_session_takes_its_new_settings_and_loses_nothing(mosquitto, tmp_path, version):
    path, url = tmp_path / "a.json", f"{mosquitto.url}?version={version}"
    until_it_stands(url, path, "a", "b", "c", ("d", 2))
    send(mosquitto, "c", "a", "b", "d")
    url = url.replace("127.0.0.1", "localhost")
    changed = [("d", 1), "e", "a", ("b", 2)]
    assert until_it_stands(url, path, *changed, count=3) == ["a", "b", "d"]
    until_it_stands(url, path, *changed)
    send(mosquitto, "c", "e")
    assert until_it_stands(url, path, *changed, count=1) == ["a", "b", "d", "e"]
    (session,) = json.loads((tmp_path / "a.json.client").read_text())["sessions"]
    assert session["subscribed"].items() >= {"a": 1, "b": 2, "d": 1, "e": 1}.items()


def test_on_3_1_1_a_kept_session_is_not_sent_its_retained_messages_again(mosquitto, tmp_path):
    path, url = tmp_path / "a.json", f"{mosquitto.url}?version=3.1.1"
    sink = MqttSink(mosquitto.url, topic="a", retain=True, **LOGIN)
    run(reactivex.of("a"), sink, log=False)
    until_it_stands(url, path, "a", "b", count=1)
    until_it_stands(url, path, "a", "b")
    send(mosquitto, "b")
    assert until_it_stands(url, path, "a", "b", count=1) == ["a", "b"]


# -- a broker that cuts ----------------------------------------------------------------------------


CUTS = ["CONNECT", "CONNACK", "SUBSCRIBE", "SUBSCRIBE that it took", "SUBACK", "PUBLISH"]


class Cutting:
    """A broker that cuts the first connection behind one packet, and serves the second."""

    def __init__(self, version, cut, *, session_present):
        self.version, self.cut, self.session_present = version, cut, session_present
        self.is_subscribed = False

    def first(self, conversation: Conversation) -> None:
        cut, version = self.cut, self.version
        if cut == "CONNECT":
            conversation.expect(CONNECT)
            return
        conversation.accept(version=version)
        if cut == "CONNACK":
            return
        _, body = conversation.expect(SUBSCRIBE)
        self.is_subscribed = cut != "SUBSCRIBE"
        if cut.startswith("SUBSCRIBE"):
            return
        conversation.send(packet(0x90, body[:2] + b"\0" * (version == 5) + b"\1"))
        if cut == "PUBLISH":
            conversation.send(self.message())

    def second(self, conversation: Conversation) -> None:
        conversation.accept(session_present=self.session_present, version=self.version)
        if not (self.session_present and self.is_subscribed):  # then only a SUBSCRIBE helps
            conversation.accept_subscription(version=self.version)
        conversation.send(self.message())
        until_disconnect(conversation)

    def message(self):
        properties = b"\0" * (self.version == 5)
        return packet(PUBLISH | 2, b"\0\1a" + b"\0\1" + properties + b"1")


@pytest.mark.parametrize("session_present", [False, True])
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("version", [3, 5])
def test_a_cut_behind_any_packet_leaves_no_pipeline_deaf(version, cut, session_present):
    script = Cutting(version, cut, session_present=session_present)
    with ScriptedBroker(script.first, script.second) as broker:
        url = broker.url.replace("3.1.1", VERSIONS[version])
        count = 2 if cut == "PUBLISH" else 1
        source = from_mqtt(url, "a", client_id="me").pipe(ops.take(count))
        report = run(source, reactivex.Observer(), seconds=60, log=False)
    assert report.received == count


@pytest.mark.parametrize("session_present", [False, True])
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("version", [3, 5])
def test_nor_the_next_process(tmp_path, version, cut, session_present):
    script = Cutting(version, cut, session_present=session_present)
    sink = lambda: JsonSink(tmp_path / "a.json")  # noqa: E731
    with ScriptedBroker(script.first, script.second) as broker:
        url = broker.url.replace("3.1.1", VERSIONS[version])
        with pytest.raises(ConnectError):
            run(from_mqtt(url, "a", connect_timeout=0, reconnect_timeout=0), sink(), log=False)
        run(from_mqtt(url, "a").pipe(ops.take(1)), sink(), seconds=60, log=False)
    assert list(read_rows(tmp_path / "a.json"))[-1:] == [1]


# -- what a user is told ---------------------------------------------------------------------------


def accepting(*, session_present=False, version=3, kinds=None):
    def script(conversation):
        conversation.accept(session_present=session_present, version=version)
        if not session_present:
            conversation.accept_subscription(version=version)
        conversation.send(publish("a"))
        (kinds if kinds is not None else []).extend(until_disconnect(conversation))

    return script


def test_a_session_that_the_broker_forgot_while_no_process_ran_is_a_possible_gap(
    tmp_path, warnings
):
    path = tmp_path / "a.json"
    kept = tmp_path / "a.json.client"
    with ScriptedBroker(accepting(), accepting()) as broker:
        source = from_mqtt(broker.url, "a").pipe(ops.take(1))
        run(source, JsonSink(path))
        assert warnings == []
        content = json.loads(kept.read_text())
        content["sessions"][0]["last_connected"] = str(datetime.now(UTC) - timedelta(hours=5))
        kept.write_text(json.dumps(content))
        run(source, JsonSink(path))
    (line,) = warnings
    assert "possible gap" in line
    assert "since its last connection, 5 h ago, will not be delivered" in line


def test_a_session_that_never_was_is_no_gap(tmp_path, warnings):
    path = tmp_path / "a.json"
    with ScriptedBroker(accepting()) as broker:
        address = f"127.0.0.1:{broker.port}"
        old = {"client_id": "rxflow-1", "broker": f"mqtt://{address}", "given": False}
        nothing = {"subscribed": {}, "asked": {"a": 1}, "last_connected": None}
        (tmp_path / "a.json.client").write_text(json.dumps({"sessions": [old | nothing]}))
        run(from_mqtt(broker.url, "a").pipe(ops.take(1)), JsonSink(path))
    assert warnings == []


def test_a_session_that_no_source_uses_any_more_is_told_of_with_its_remedy(tmp_path, warnings):
    path = tmp_path / "a.json"
    with ScriptedBroker(accepting()) as first, ScriptedBroker(accepting()) as second:
        for broker in (first, second):
            run(from_mqtt(broker.url, "a").pipe(ops.take(1)), JsonSink(path))
    (line,) = warnings
    old = json.loads((tmp_path / "a.json.client").read_text())["sessions"][0]
    address = f"mqtt://127.0.0.1:{first.port}"
    assert f"rxflow forget {address} --client-id {old['client_id']} --output {path}" in line


def test_what_is_gone_is_unsubscribed_and_let_go_until_then(tmp_path):
    path, told = tmp_path / "a.json", []

    def second(conversation):
        conversation.accept(session_present=True)
        _, body = conversation.expect(SUBSCRIBE)
        conversation.send(publish("a", b"1", 1, 1))
        assert conversation.packet_ids(PUBACK, 1) == [1]
        conversation.send(packet(0x90, body[:2] + b"\1"))
        _, body = conversation.expect(UNSUBSCRIBE)
        told.append(body[2:])
        conversation.send(packet(0xB0, body[:2]))
        conversation.send(publish("b", b"2", 1, 2))
        conversation.send(publish("c", b"3", 1, 3))
        until_disconnect(conversation)

    def first(conversation):
        conversation.accept()
        conversation.accept_subscription(1, 1)
        conversation.send(publish("a", b"0", 1, 1))
        until_disconnect(conversation)

    with ScriptedBroker(first, second) as broker:
        run(from_mqtt(broker.url, "a", "b").pipe(ops.take(1)), JsonSink(path), log=False)
        run(
            from_mqtt(broker.url, "b", "c").pipe(ops.take(2)), JsonSink(path), seconds=20, log=False
        )
    assert told == [b"\0\1a"]
    assert list(read_rows(path)) == [0, 2, 3]
    (session,) = json.loads((tmp_path / "a.json.client").read_text())["sessions"]
    assert session["subscribed"] == {"b": 1, "c": 1}
