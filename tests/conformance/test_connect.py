"""CONNECT and CONNACK by the letter, for a source and for a sink. `strict` checks each byte."""

from __future__ import annotations

import threading
import time

import pytest
import reactivex
from clients import published, received, running
from strict import (
    ASSIGNED_ID,
    MAXIMUM_PACKET,
    MAXIMUM_QOS,
    PINGRESP,
    RECEIVE_MAXIMUM,
    RETAIN_AVAILABLE,
    SERVER_KEEP_ALIVE,
    SESSION_EXPIRY,
    TOPIC_ALIAS_MAXIMUM,
    USER,
    Connect,
    Disconnect,
    StrictBroker,
    packet,
)

from rxflow import ConfigError, ConnectError, MqttSink, SinkError, Will, from_mqtt

SIDES = pytest.mark.parametrize("side", ["source", "sink"])
FINAL = (0x85, 0x86, 0x87, 0x8A, 0x8C, 0x9A, 0x9B)
GREETING = (  # what a CONNACK may hold, all of it
    (ASSIGNED_ID, "another"),
    (SESSION_EXPIRY, 5),
    (RECEIVE_MAXIMUM, 9),
    (MAXIMUM_QOS, 1),
    (RETAIN_AVAILABLE, 0),
    (MAXIMUM_PACKET, 1000),
    (TOPIC_ALIAS_MAXIMUM, 3),
    (0x1F, "why\n\x1b[31m"),
    (USER, ("k\r", "v\x07")),
    (USER, ("k\r", "")),
    (0x28, 0),
    (0x29, 0),
    (0x2A, 0),
    (SERVER_KEEP_ALIVE, 0),
    (0x1A, "answers/"),
    (0x1C, "other:1883"),
)


def connected(side: str, version: int, *, scripts=None, **settings) -> Connect:
    """The CONNECT of a client that is served until it leaves."""
    seen: list[Connect] = []

    def script(peer):
        seen.append(peer.connack())
        if side == "source":
            peer.suback()
            peer.end()
        else:
            peer.take_message()
            peer.rest()

    with StrictBroker(version, script) as broker:
        if side == "source":
            received(broker, **settings)
        else:
            published(broker, 1, **settings)
    return seen[0]


# -- what CONNECT holds ----------------------------------------------------------------------------


@SIDES
def test_the_first_packet_is_connect_and_no_other_follows(side, version):
    connect = connected(side, version)
    assert connect.version == version


@SIDES
def test_a_client_without_an_id_asks_for_a_clean_session_under_a_made_up_one(side, version):
    connect = connected(side, version)
    assert connect.is_clean
    assert connect.client_id.isascii()
    assert 1 <= len(connect.client_id) <= 23
    assert connect.properties.get(SESSION_EXPIRY, 0) == 0


@SIDES
def test_an_id_of_the_users_goes_as_utf_8_and_asks_for_the_session_that_is_there(side, version):
    connect = connected(side, version, client_id="Wärme ☃")
    assert connect.client_id == "Wärme ☃"
    # A sink has no packet ids from before: on 5 it begins a session, and continues that one.
    assert connect.is_clean == (side == "sink" and version == 5)
    assert version == 4 or connect.properties[SESSION_EXPIRY] > 0


@pytest.mark.parametrize("client_id", ["", "a\0b", "\ud800", "x" * 65_536])
@SIDES
def test_an_id_that_mqtt_can_not_carry_is_refused_while_composing(side, client_id):
    make = from_mqtt if side == "source" else MqttSink
    names = ("a",) if side == "source" else ()
    settings = {} if side == "source" else {"topic": "a"}
    with pytest.raises(ConfigError, match="client_id"):
        make("mqtt://h", *names, client_id=client_id, **settings)


@SIDES
def test_without_a_will_no_flag_and_no_field_speaks_of_one(side, version):
    assert connected(side, version).will is None


@pytest.mark.parametrize("retain", [False, True])
@pytest.mark.parametrize("qos", [0, 1, 2])
@SIDES
def test_a_will_is_in_connect_with_its_topic_payload_qos_and_retain(side, version, qos, retain):
    will = connected(side, version, will=Will("☃/\ufeffgone", b"\0bye", qos, retain)).will
    assert will is not None
    assert (will.topic, will.payload) == ("☃/\ufeffgone", b"\0bye")
    assert (will.qos, will.retain) == (qos, retain)


@pytest.mark.parametrize("topic", ["", "a/+", "#", "a\0", "\ud800", "x" * 65_536])
def test_a_will_to_no_topic_is_refused_while_composing(topic):
    with pytest.raises(ConfigError, match="will"):
        from_mqtt("mqtt://h", "a", will=Will(topic))


@pytest.mark.parametrize(
    ("username", "password"), [(None, None), ("u", None), ("ü", "p\ufeff"), ("", "p"), ("u", "")]
)
@SIDES
def test_name_and_password_are_in_connect_if_they_are_given(side, version, username, password):
    connect = connected(side, version, username=username, password=password)
    assert connect.username == username
    assert connect.password == (None if password is None else password.encode())


def test_a_password_alone_is_refused_while_composing():
    with pytest.raises(ConfigError, match="username"):  # [MQTT-3.1.2-22]
        from_mqtt("mqtt://h", "a", password="p")


@pytest.mark.parametrize("keep_alive", [0, 1, 65_535])
@SIDES
def test_keep_alive_is_in_connect(side, version, keep_alive):
    assert connected(side, version, keep_alive=keep_alive).keep_alive == keep_alive


def test_a_source_says_how_much_it_takes_and_that_it_takes_no_alias():
    connect = connected("source", 5, max_pending=7, max_packet_bytes=5000)
    assert connect.properties[RECEIVE_MAXIMUM] == 7
    assert MAXIMUM_PACKET not in connect.properties  # it drops what is larger without a word
    assert connect.properties.get(TOPIC_ALIAS_MAXIMUM, 0) == 0


# -- keep alive ------------------------------------------------------------------------------------


@SIDES
def test_a_client_that_has_nothing_to_say_pings_within_its_keep_alive(side, version):
    gaps: list[float] = []

    def script(peer):
        peer.connack()
        if side == "source":
            peer.suback()
        last = time.monotonic()
        while len(gaps) < 3:
            assert peer.read()[0] == 0xC0
            gaps.append(time.monotonic() - last)
            last += gaps[-1]
            peer.send(packet(PINGRESP))
        if side == "source":
            peer.end()
        else:
            ended.set()
            peer.rest()

    ended = threading.Event()
    with StrictBroker(version, script) as broker:
        if side == "source":
            received(broker, keep_alive=1)
        else:
            sink = MqttSink(broker.url, topic="a", keep_alive=1)
            sink.open()
            assert ended.wait(60)
            sink.close()
    assert max(gaps) <= 1.5  # what the server waits for at most


@pytest.mark.parametrize("told", [1, 0])
def test_the_keep_alive_of_the_server_is_the_one_that_counts(told):
    def script(peer):
        peer.connack((SERVER_KEEP_ALIVE, told))
        peer.suback()
        if told:
            assert peer.read()[0] == 0xC0
            peer.send(packet(PINGRESP))
        else:
            peer._connection.settimeout(1.5)
            with pytest.raises(TimeoutError):
                peer.read()
            peer._connection.settimeout(10)
        peer.end()

    with StrictBroker(5, script) as broker:
        received(broker, keep_alive=3600 if told else 1)


# -- CONNACK ---------------------------------------------------------------------------------------


@SIDES
def test_everything_that_a_connack_may_hold_is_taken(side):
    def script(peer):
        peer.connack(*GREETING)
        if side == "source":
            peer.suback()
            peer.end()
        else:
            peer.take_message()
            peer.rest()

    with StrictBroker(5, script) as broker:
        if side == "source":
            received(broker, "a", "end", qos=1)
        else:
            assert published(broker, 1).stored == 1


@pytest.mark.parametrize(
    ("code", "version"),
    [(2, 4), (4, 4), (5, 4), *((code, 5) for code in FINAL)],
)
@SIDES
def test_a_refusal_that_will_not_pass_ends_the_client_with_its_code(side, code, version):
    def script(peer):
        peer.connack(code=code)
        assert peer.rest() == []

    with (
        StrictBroker(version, script) as broker,
        pytest.raises((ConnectError, SinkError)) as caught,
    ):
        if side == "source":
            received(broker)
        else:
            published(broker, 1, drain_timeout=20)
    error = caught.value if side == "source" else caught.value.__cause__
    assert isinstance(error, ConnectError)
    assert error.reason_code == code


@pytest.mark.parametrize("session_present", [False, True])
def test_a_refusal_counts_whatever_it_says_of_a_session(version, session_present):
    def script(peer):
        peer.connack(code=5 if version == 4 else 0x87, session_present=session_present)
        assert peer.rest() == []

    with StrictBroker(version, script) as broker, pytest.raises(ConnectError):
        received(broker, client_id="me")


@pytest.mark.parametrize("code", [6, 0x7F, 0xFF])
def test_a_return_code_that_3_1_1_does_not_have_is_no_connection(code):
    def refuses(peer):
        peer.connack(code=code)
        assert peer.rest() == []

    with StrictBroker(4, refuses) as broker, pytest.raises(ConnectError):
        received(broker, connect_timeout=1)


# -- sessions --------------------------------------------------------------------------------------


def test_a_kept_session_is_asked_for_on_each_connection_and_a_clean_one_never(version):
    seen: list[tuple[bool, bool]] = []

    def cut(peer):
        connect = peer.connack()
        seen.append((connect.client_id == "me", connect.is_clean))
        peer.suback()

    def last(peer):
        cut(peer)
        peer.end()

    with StrictBroker(version, cut, last) as broker:
        received(broker, client_id="me")
    with StrictBroker(version, cut, last) as broker:
        received(broker)
    assert seen == [(True, False)] * 2 + [(False, True)] * 2


def test_clean_start_forgets_once_and_keeps_from_then_on():
    seen: list[tuple[bool, int]] = []

    def cut(peer):
        connect = peer.connack()
        seen.append((connect.is_clean, connect.properties.get(SESSION_EXPIRY, 0)))
        peer.suback()

    def last(peer):
        cut(peer)
        peer.end()

    with StrictBroker(5, cut, last) as broker:
        received(broker, client_id="me", clean_start=True)
    assert seen[0][0]


def test_a_session_that_a_clean_start_can_not_find_is_no_connection():
    codes: list[object] = []

    def lies(peer):
        peer.connack(session_present=True)
        codes.extend(peer.rest())

    def serves(peer):
        peer.connack()
        peer.suback()
        peer.end()

    with StrictBroker(5, lies, serves) as broker:
        received(broker)
    assert codes in ([], [Disconnect(0x82, {})])


def test_a_session_is_subscribed_again_when_the_broker_has_lost_it(version):
    asked: list[list[tuple[str, int]]] = []

    def cut(peer):
        peer.connack()
        asked.append(peer.suback().filters)

    def last(peer):
        peer.connack()
        asked.append(peer.suback().filters)
        peer.end()

    with StrictBroker(version, cut, last) as broker:
        received(broker, ("a/+", 2), ("#", 1), client_id="me")
    assert [name for name, _ in asked[1]] == [name for name, _ in asked[0]] == ["a/+", "#"]
    assert [options & 3 for _, options in asked[1]] == [2, 1]


# -- the end ---------------------------------------------------------------------------------------


@SIDES
def test_a_client_that_leaves_says_so_and_closes_with_nothing_behind(side, version):
    left: list[object] = []

    def script(peer):
        peer.connack()
        if side == "source":
            peer.suback()
            left.extend(peer.end())
        else:
            peer.take_message()
            left.extend(peer.rest())

    with StrictBroker(version, script) as broker:
        if side == "source":
            received(broker)
        else:
            published(broker, 1)
    assert left == [Disconnect(0, {})]


def test_a_client_of_its_own_connects_over_tcp_with_nothing_but_the_standard(version):
    with StrictBroker(version, lambda peer: (peer.connack(), peer.suback(), peer.end())) as broker:
        running(broker, from_mqtt(broker.url, "#"), reactivex.Observer(), seconds=0.3)
