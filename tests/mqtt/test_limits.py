"""What a broker says is obeyed and told: limits, reason codes, its words, its silence."""

import contextlib
import time

import pytest
import reactivex
from scripted import (
    CONNECT,
    DISCONNECT,
    PUBLISH,
    SUBSCRIBE,
    Conversation,
    ScriptedBroker,
    packet,
    publish,
)
from serving import until_disconnect

from rxflow import ConfigError, ConnectError, MqttSink, SinkError, from_mqtt, run
from rxflow import operators as ops
from rxflow.log import logger
from rxflow.process.environment import Environment

SAID = b"\x1f\0\x08no\x1b[1m\n!"  # a reason string that would colour a terminal
SHOWN = r"no\\x1b\[1m\\n!"
ELSEWHERE = b"\x1c\0\1b"  # a server reference


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """No attempt waits; these are the waits that each would have had at most."""
    longest = []
    monkeypatch.setattr(Environment, "jittered", lambda _, wait, __: longest.append(wait) or 0.001)
    return longest


@pytest.fixture
def lines():
    found = []
    number = logger.add(found.append, level="INFO", format="{message}")
    yield found
    logger.remove(number)


def five(broker):
    return broker.url.replace("3.1.1", "5")


def auto(broker):
    return broker.url.partition("?")[0]


def properties(data):
    return bytes([len(data)]) + data


def connack(conversation, data=b"", code=0, *, session_present=False):
    conversation.expect(CONNECT)
    conversation.send(packet(0x20, bytes([session_present, code]) + properties(data)))


def subscribed(conversation):
    """The filters of the next SUBSCRIBE, which gets its SUBACK."""
    _, body = conversation.expect(SUBSCRIBE)
    names, rest = [], body[3:]
    while rest:
        size = int.from_bytes(rest[:2])
        names.append(rest[2 : 2 + size].decode())
        rest = rest[3 + size :]
    conversation.send(packet(0x90, body[:2] + b"\0" + b"\1" * len(names)))
    return names


def message(payload=b"1"):
    return packet(PUBLISH, b"\0\1a\0" + payload)


def served(conversation):
    """Be a good broker of MQTT 5."""
    connack(conversation)
    subscribed(conversation)
    conversation.send(message())
    until_disconnect(conversation)


def served_3(conversation):
    conversation.accept()
    conversation.accept_subscription()
    conversation.send(publish("a", qos=0))
    until_disconnect(conversation)


def one(url, *topics, **settings):
    """Receive one message."""
    log = settings.pop("log", False)
    source = from_mqtt(url, *(topics or ("a",)), **settings).pipe(ops.take(1))
    report = run(source, reactivex.Observer(), seconds=20, log=log)
    assert report.received == 1


# -- limits in CONNACK [3.2.2.3] -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "topic", "named"),
    [
        (b"\x28\0", "a/+", r"'a/\+' can't be subscribed: the broker has no wildcards"),
        (b"\x28\0", "#", "'#' can't be subscribed: the broker has no wildcards"),
        (b"\x2a\0", "$share/g/a", r"'\$share/g/a' can't be .* no shared subscriptions"),
        (b"\x27\0\0\0\x20", "a" * 22, "larger than the broker takes .Maximum Packet Size 32 bytes"),
    ],
)
def test_what_the_broker_can_not_do_is_one_error_that_names_it(limit, topic, named):
    def script(conversation):
        connack(conversation, limit)
        until_disconnect(conversation)

    with ScriptedBroker(script) as broker, pytest.raises(ConnectError, match=named):
        run(from_mqtt(five(broker), "b", topic), reactivex.Observer(), log=False)


def test_a_limit_that_is_no_hindrance_is_none():
    def script(conversation):
        connack(conversation, b"\x28\0\x2a\0\x29\0\x24\0\x25\0")
        assert subscribed(conversation) == ["a"]
        conversation.send(message())
        until_disconnect(conversation)

    with ScriptedBroker(script) as broker:
        one(five(broker))


@pytest.mark.parametrize(
    ("limit", "settings", "packets"),
    [
        (b"", {}, [["a", "b", "c", "d", "e"]]),
        (b"", {"max_filters_per_subscribe": 2}, [["a", "b"], ["c", "d"], ["e"]]),
        (b"\x27\0\0\0\x10", {}, [["a", "b"], ["c", "d"], ["e"]]),
    ],
)
def test_subscribe_is_split_by_number_and_by_size(limit, settings, packets):
    seen = []

    def script(conversation):
        connack(conversation, limit)
        seen.extend(subscribed(conversation) for _ in packets)
        conversation.send(message())
        until_disconnect(conversation)

    with ScriptedBroker(script) as broker:
        one(five(broker), "a", "b", "c", "d", "e", **settings)
    assert seen == packets


def test_a_broker_that_closes_on_many_filters_gets_fewer():
    def script(conversation):
        connack(conversation)
        _, body = conversation.expect(SUBSCRIBE)
        sizes.append((len(body) - 3) // 4)
        if sizes[-1] > 8:
            return
        conversation.send(packet(0x90, body[:2] + b"\0" + b"\1" * sizes[-1]))
        conversation.send(message())
        until_disconnect(conversation)

    sizes = []
    with ScriptedBroker(*[script] * 4) as broker:
        one(five(broker), *"abcdefghijklmnopqrst")
    assert sizes == [20, 20, 10, 5]


def test_a_refusal_that_may_mean_too_many_is_asked_once_more_alone():
    def script(conversation):
        connack(conversation)
        _, body = conversation.expect(SUBSCRIBE)
        conversation.send(packet(0x90, body[:2] + b"\0" + b"\1\x97"))
        assert subscribed(conversation) == ["b"]
        conversation.send(message())
        until_disconnect(conversation)

    with ScriptedBroker(script) as broker:
        one(five(broker), "a", "b")


def test_a_session_that_is_kept_for_less_than_asked_or_under_another_id_is_told(lines):
    def script(conversation):
        connack(conversation, b"\x11\0\0\0\x3c\x12\0\1x")
        subscribed(conversation)
        conversation.send(message())
        until_disconnect(conversation)

    with ScriptedBroker(script) as broker:
        one(five(broker), client_id="me", log=True)
    assert "keeps the session for 60 s while we are away, not for 86,400" in "".join(lines)
    assert "calls this client 'x', not 'me'" in "".join(lines)


# -- its words -------------------------------------------------------------------------------------


def refused_connection(conversation):
    connack(conversation, SAID + ELSEWHERE, code=0x9C)


def refused_subscription(conversation):
    connack(conversation)
    _, body = conversation.expect(SUBSCRIBE)
    conversation.send(packet(0x90, body[:2] + properties(SAID) + b"\x9e"))
    until_disconnect(conversation)


def refused_everything(conversation):
    connack(conversation)
    conversation.send(packet(DISCONNECT, b"\x9e" + properties(SAID)))
    until_disconnect(conversation)


@pytest.mark.parametrize(
    ("script", "code", "named"),
    [
        (refused_connection, 0x9C, f"use another server.*{SHOWN}; it names another broker: b"),
        (refused_subscription, 0x9E, f"'a'.*shared subscriptions not supported.*{SHOWN}"),
        (refused_everything, 0x9E, f"shared subscriptions not supported.*{SHOWN}"),
    ],
)
def test_a_final_refusal_has_its_code_and_the_brokers_words(script, code, named):
    with ScriptedBroker(script) as broker, pytest.raises(ConnectError, match=named) as caught:
        run(from_mqtt(five(broker), "a"), reactivex.Observer(), log=False)
    assert caught.value.reason_code == code


def test_why_a_broker_closes_is_logged_with_its_words_and_its_server(lines):
    def script(conversation):
        connack(conversation, SAID)
        conversation.send(packet(DISCONNECT, b"\x9d" + properties(SAID + ELSEWHERE)))
        conversation.read_to_end()

    with ScriptedBroker(script, served) as broker:
        one(five(broker), log=True)
    said = "".join(lines)
    assert "Success; no\\x1b[1m\\n!" in said
    assert "server moved (reason code 157): no\\x1b[1m\\n!; it names another broker: b" in said
    assert "\x1b" not in said


# -- back-off --------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0x87, 0x8B, 0x97])
def test_connections_that_do_nothing_wait_longer_and_longer(waits, code):
    def leave(conversation):
        connack(conversation)
        conversation.send(packet(DISCONNECT, bytes([code, 0])))
        conversation.read_to_end()

    def leave_after_work(conversation):
        connack(conversation)
        subscribed(conversation)

    scripts = [leave] * 4 + [leave_after_work, leave, served]
    with ScriptedBroker(*scripts) as broker:
        one(five(broker))
    assert waits == [1, 2, 4, 8, 1, 2]


def test_a_sink_whose_messages_are_acknowledged_begins_anew(waits):
    def take_one(conversation):
        conversation.accept()
        _, body = conversation.expect(PUBLISH)
        conversation.send(packet(0x40, body[3:5]))

    def take_none(conversation):
        conversation.accept()
        conversation.expect(PUBLISH)

    def take_all(conversation):
        take_one(conversation)
        until_disconnect(conversation)

    with ScriptedBroker(take_none, take_none, take_one, take_one, take_all) as broker:
        sink = MqttSink(broker.url, topic="a", drain_timeout=20)
        assert run(reactivex.of(1, 2, 3), sink, log=False).stored == 3
    assert waits == [1, 2, 1, 1]


def test_a_sink_ends_after_reconnect_timeout_too():
    with ScriptedBroker(lambda c: c.accept()) as broker:
        sink = MqttSink(broker.url, topic="a", reconnect_timeout=0.2, drain_timeout=20)
        with pytest.raises(SinkError, match=r"no connection to .* within 0.2 s"):
            run(reactivex.of(1), sink, log=False)


@pytest.mark.parametrize(("version", "code"), [(3, 4), (3, 5), (5, 0x86), (5, 0x87), (5, 0x8A)])
def test_a_password_that_is_wrong_for_a_minute_is_final_only_at_the_first(version, code, waits):
    def refuse(conversation):
        conversation.expect(CONNECT)
        conversation.send(packet(0x20, bytes([0, code]) + b"\0" * (version == 5)))

    def cut(conversation):
        conversation.accept(version=version)
        conversation.accept_subscription(version=version)

    serve = served if version == 5 else served_3
    with ScriptedBroker(cut, *[refuse] * 6, serve) as broker:
        one(five(broker) if version == 5 else broker.url)
    assert sum(waits) > 60
    with ScriptedBroker(refuse) as broker, pytest.raises(ConnectError, match="refused the conn"):
        one(five(broker) if version == 5 else broker.url)


def test_a_filter_that_is_refused_once_it_has_stood_is_asked_for_again():
    def cut(conversation):
        connack(conversation)
        subscribed(conversation)

    def refuse(conversation):
        connack(conversation)
        _, body = conversation.expect(SUBSCRIBE)
        conversation.send(packet(0x90, body[:2] + b"\0\x87"))
        conversation.read_to_end()

    with ScriptedBroker(cut, refuse, served) as broker:
        one(five(broker))


def test_a_connection_that_does_not_come_back_ends_the_stream_after_reconnect_timeout():
    def cut(conversation):
        connack(conversation)
        subscribed(conversation)

    with ScriptedBroker(cut) as broker:
        source = from_mqtt(five(broker), "a", reconnect_timeout=0.3)
        with pytest.raises(ConnectError, match=r"no connection to .* within 0.3 s: "):
            run(source, reactivex.Observer(), log=False)


def test_connections_that_do_nothing_end_after_reconnect_timeout_too():
    def useless(conversation):
        with contextlib.suppress(ConnectionError):  # the last one may be left before it stands
            connack(conversation)

    with ScriptedBroker(*[useless] * 2000) as broker:
        source = from_mqtt(five(broker), "a", reconnect_timeout=0.3)
        with pytest.raises(ConnectError, match=r"no connection to .* within 0.3 s: "):
            run(source, reactivex.Observer(), log=False)
        broker.leave()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("reconnect_timeout", -1),
        ("answer_timeout", 0),
        ("answer_timeout", None),
        ("max_filters_per_subscribe", 0),
        ("max_filters_per_subscribe", 1.5),
    ],
)
def test_wrong_settings_are_config_errors(name, value):
    with pytest.raises(ConfigError, match=name):
        from_mqtt("mqtt://h", "a", **{name: value})


# -- versions --------------------------------------------------------------------------------------


def close(conversation):
    conversation.expect(CONNECT)


def test_a_broker_that_closes_once_early_is_asked_for_5_again():
    with ScriptedBroker(close, served) as broker:
        one(auto(broker))


def test_a_broker_that_has_spoken_5_is_never_asked_for_less():
    with ScriptedBroker(connack, *[close] * 4, served) as broker:
        one(auto(broker))


def refuse_5(conversation):
    _, body = conversation.expect(CONNECT)
    assert body[6] == 5
    conversation.send(packet(0x20, b"\0\1"))


def test_after_3_1_1_the_next_connection_asks_for_5_first(lines):
    def cut(conversation: Conversation):
        conversation.accept()
        conversation.accept_subscription()

    with ScriptedBroker(refuse_5, cut, served) as broker:
        one(auto(broker), log=True)
    assert "trying 3.1.1, which has no properties" in "".join(lines)


def test_a_broker_that_closes_on_5_gets_one_more_of_it_after_a_connection_of_3_1_1():
    def cut(conversation: Conversation):
        conversation.accept()
        conversation.accept_subscription()

    with ScriptedBroker(close, close, cut, close, served_3) as broker:
        one(auto(broker))


# -- silence ---------------------------------------------------------------------------------------


def test_connack_may_take_as_long_as_answer_timeout_says():
    def silent(conversation):
        conversation.expect(CONNECT)
        conversation.read_to_end()

    with ScriptedBroker(silent) as broker:
        source = from_mqtt(five(broker), "a", answer_timeout=0.2, connect_timeout=0)
        with pytest.raises(ConnectError, match=r"no answer to CONNECT within 0\.2 s"):
            run(source, reactivex.Observer(), log=False)


def test_bytes_of_an_unfinished_packet_are_signs_of_life():
    def script(conversation):
        connack(conversation)
        _, body = conversation.expect(SUBSCRIBE)
        large = message(b"x" * 120_000)
        for at in range(0, len(large), 10_000):
            time.sleep(0.1)
            conversation.send(large[at : at + 10_000])
        conversation.send(packet(0x90, body[:2] + b"\0\1"))
        until_disconnect(conversation)

    with ScriptedBroker(script) as broker:
        one(five(broker), answer_timeout=1)


def test_answers_to_pings_are_none(lines):
    def script(conversation):
        connack(conversation, b"\x13\0\1")  # a ping each half second
        conversation.expect(SUBSCRIBE)
        until_disconnect(conversation)

    with ScriptedBroker(script, served) as broker:
        one(five(broker), answer_timeout=1.2, log=True)
    assert "no answer to SUBSCRIBE within 1.2 s" in "".join(lines)


def test_a_message_before_connack_is_refused(lines):
    def script(conversation):
        conversation.expect(CONNECT)
        conversation.send(publish("a", b"early", 0))
        conversation.read_to_end()

    seen = []
    with ScriptedBroker(script, served_3) as broker:
        source = from_mqtt(broker.url, "a").pipe(ops.take(1))
        run(source, reactivex.Observer(lambda m: seen.append(m.payload)), seconds=20)
    assert seen == [b"1"]
    assert "a packet before CONNACK" in "".join(lines)


@pytest.mark.parametrize("version", [3, 5])
def test_a_message_behind_a_refusal_is_refused(version):
    def script(conversation):
        conversation.expect(CONNECT)
        refusal = packet(0x20, b"\0\5" if version == 3 else b"\0\x87\0")
        conversation.send(refusal + (publish("a", qos=0) if version == 3 else message()))
        conversation.read_to_end()

    seen = []
    with ScriptedBroker(script) as broker, pytest.raises(ConnectError):
        url = five(broker) if version == 5 else broker.url
        run(from_mqtt(url, "a"), reactivex.Observer(seen.append), log=False)
    assert seen == []
