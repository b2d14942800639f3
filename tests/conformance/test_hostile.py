"""What the standard forbids a broker to send: the client closes, says why, and comes back.

On MQTT 5 a DISCONNECT with the code that the standard names goes before the close; on 3.1.1 the
connection is closed without one, so that the will is published [MQTT-3.14.4-3].
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
from clients import published, received
from strict import (
    CONNACK,
    DISCONNECT,
    PINGREQ,
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    SESSION_EXPIRY,
    SUBACK,
    SUBSCRIBE,
    SUBSCRIPTION_ID,
    TOPIC_ALIAS,
    USER,
    Disconnect,
    Publish,
    StrictBroker,
    Subscribe,
    packet,
    properties,
    text,
)

MALFORMED, PROTOCOL, ALIAS = 0x81, 0x82, 0x94


class Slip(NamedTuple):
    """What a broker does wrong, the code that it is told, and on which version it is one."""

    data: bytes
    code: int = MALFORMED
    version: int = 0  # both


def message(topic: bytes, rest: bytes, first: int = 0x30) -> Slip:
    """A PUBLISH of QoS 0 on both versions; of MQTT 5 where `rest` begins with properties."""
    return Slip(packet(first, text(topic) + rest))


def said(raw: bytes, code: int = MALFORMED) -> Slip:
    """A PUBLISH with these properties, their length in front."""
    return Slip(packet(0x30, text("a") + raw + b"x"), code, 5)


def has(*pairs, code: int = MALFORMED) -> Slip:
    return said(properties(*pairs), code)


# -- what comes to a source ------------------------------------------------------------------------

SLIPS = {
    "a topic that is no UTF-8 [MQTT-1.5.4-1]": message(b"\xff", b"\0x"),
    "half a surrogate pair in a topic [MQTT-1.5.4-1]": message(b"\xed\xa0\x80", b"\0x"),
    "U+0000 in a topic [MQTT-1.5.4-2]": message(b"a\0b", b"\0x"),
    "a wildcard in a topic [MQTT-3.3.2-2]": message(b"a/+", b"\0x"),
    "no topic [MQTT-4.7.3-1]": message(b"", b"\0x"),
    "QoS 3 [MQTT-3.3.1-4]": message(b"a", b"\0\1\0x", 0x36),
    "DUP at QoS 0 [MQTT-3.3.1-2]": message(b"a", b"\0x", 0x38),
    "packet id 0 [MQTT-2.2.1-4]": message(b"a", b"\0\0\0x", 0x32),
    "a topic longer than its packet": Slip(packet(0x30, b"\0\5a")),
    "a length of five bytes": Slip(b"\x30\xff\xff\xff\xff\1"),
    "PUBREL with flags 0 [MQTT-3.6.1-1]": Slip(packet(PUBREL, b"\0\1")),
    "PUBREL with flags 15 [MQTT-3.6.1-1]": Slip(packet(PUBREL | 15, b"\0\1")),
    "PUBREL cut off": Slip(packet(PUBREL | 2, b"\0")),
    "SUBACK with flags [MQTT-2.1.3-1]": Slip(packet(SUBACK | 1, b"\0\x63\0\0")),
    "SUBACK without a code": Slip(packet(SUBACK, b"\0\x63")),
    "PINGRESP with flags [MQTT-2.1.3-1]": Slip(packet(PINGRESP | 2)),
    "PINGRESP with a body": Slip(packet(PINGRESP, b"\0")),
    "CONNACK again [MQTT-3.2.0-2]": Slip(packet(CONNACK, b"\0\0\0"), PROTOCOL, 5),
    "CONNACK again [MQTT-3.2.0-1]": Slip(packet(CONNACK, b"\0\0"), PROTOCOL, 4),
    "packet type 0": Slip(packet(0x00), PROTOCOL),
    "packet type 15": Slip(packet(0xF0), 0, 4),
    "AUTH that nobody asked for [MQTT-4.12.0-6]": Slip(packet(0xF0, b"\x18\0"), PROTOCOL, 5),
    "CONNECT": Slip(packet(0x10, text("MQTT") + b"\4\2\0\0" + text("x")), PROTOCOL),
    "SUBSCRIBE": Slip(packet(SUBSCRIBE | 2, b"\0\1\0" + text("x")), PROTOCOL),
    "PINGREQ": Slip(packet(PINGREQ), PROTOCOL),
    "DISCONNECT on 3.1.1": Slip(packet(DISCONNECT), 0, 4),
    "DISCONNECT with flags [MQTT-3.14.1-1]": Slip(packet(DISCONNECT | 1, b"\0"), MALFORMED, 5),
    "DISCONNECT with a session expiry [MQTT-3.14.2-2]": Slip(
        packet(DISCONNECT, b"\x8b" + properties((SESSION_EXPIRY, 1))), PROTOCOL, 5
    ),
    "no properties, not even none [MQTT-2.2.2-1]": Slip(packet(0x30, text("a")), MALFORMED, 5),
    "properties longer than their packet": said(b"\x7f"),
    "a length of properties in more bytes than needed [MQTT-1.5.5-1]": said(b"\x80\0"),
    "a length of properties of five bytes": said(b"\xff\xff\xff\xff\1"),
    "a property that is none": said(b"\2\x7f\0"),
    "a property of another packet": said(b"\3\x21\0\1"),
    "a property cut off": said(b"\3\x02\0\0"),
    "a user property that is no UTF-8 [MQTT-1.5.7-1]": has((USER, (b"\xff", "v"))),
    "U+0000 in a user property [MQTT-1.5.7-1]": has((USER, ("k", "\0"))),
    "a content type that is no UTF-8 [MQTT-3.3.2-19]": has((0x03, b"\xff")),
    "a response topic that is no UTF-8 [MQTT-3.3.2-13]": has((0x08, b"\xff")),
    "a wildcard in a response topic [MQTT-3.3.2-14]": has((0x08, "a/#"), code=PROTOCOL),
    "a payload format that is none": has((0x01, 2), code=PROTOCOL),
    "an expiry twice": has((0x02, 1), (0x02, 1), code=PROTOCOL),
    "an alias that nobody allowed [MQTT-3.1.2-27]": has((TOPIC_ALIAS, 1), code=ALIAS),
    "an alias of 0 [MQTT-3.3.2-8]": has((TOPIC_ALIAS, 0), code=ALIAS),
    "an alias instead of a topic [MQTT-3.1.2-27]": Slip(
        packet(0x30, text("") + properties((TOPIC_ALIAS, 1))), ALIAS, 5
    ),
    "a subscription identifier of 0": has((SUBSCRIPTION_ID, 0), code=PROTOCOL),
}


def both(slips: dict[str, Slip]):
    """Each on the versions where it is a slip."""
    return pytest.mark.parametrize(
        ("slip", "version"),
        [
            pytest.param(slip, version, id=f"{name}-{'3.1.1' if version == 4 else '5'}")
            for name, slip in slips.items()
            for version in (4, 5)
            if slip.version in {0, version}
        ],
    )


def judge(left: list[object], slip: Slip, version: int) -> None:
    """The client closed by itself: on 3.1.1 without a word, on 5 perhaps with the reason."""
    if version == 4:
        assert left == []
    else:
        assert left in ([], [Disconnect(slip.code, {})], [Disconnect(MALFORMED, {})])


@both(SLIPS)
def test_a_source_closes_on_what_no_broker_may_send_and_comes_back(slip, version):
    left: list[object] = []

    def hostile(peer):
        peer.connack()
        peer.suback()
        peer.send(slip.data)
        peer.publish("end", b"end", 0)  # by which one that goes on is found out at once
        left.extend(peer.rest())

    def good(peer):
        peer.connack()
        peer.suback()
        peer.publish("a", b"good", 0)
        peer.end()

    with StrictBroker(version, hostile, good) as broker:
        messages = received(broker, max_packet_bytes=1_000_000)
    assert [message.payload for message in messages] == [b"good"]
    judge(left, slip, version)


def test_a_malformed_packet_is_answered_with_a_disconnect_that_says_so():
    left: list[object] = []

    def hostile(peer):
        peer.connack()
        peer.suback()
        peer.send(packet(0x36, text("a") + b"\0\1\0x"))
        left.extend(peer.rest())

    def good(peer):
        peer.connack()
        peer.suback()
        peer.end()

    with StrictBroker(5, hostile, good) as broker:
        received(broker)
    assert left == [Disconnect(MALFORMED, {})]


@pytest.mark.parametrize("codes", [(), (1,), (1, 1, 1), (1, 3), (1, 0x7F)])
def test_an_answer_to_subscribe_that_does_not_answer_each_filter_is_none(version, codes):
    """One code for each filter, and none that the standard does not know [MQTT-3.9.3-2]."""
    left: list[object] = []

    def hostile(peer):
        peer.connack()
        asked = peer.expect(Subscribe)
        peer.send(peer.of(SUBACK, asked.packet_id, bytes(codes)))
        peer.publish("end", b"end", 0)
        left.extend(peer.rest())

    def good(peer):
        peer.connack()
        peer.suback()
        peer.publish("a", b"good", 0)
        peer.end()

    with StrictBroker(version, hostile, good) as broker:
        messages = received(broker, "a", "#")
    assert [message.payload for message in messages] == [b"good"]
    judge(left, Slip(b"", PROTOCOL), version)


# -- before and in CONNACK -------------------------------------------------------------------------

GREETINGS = {
    "PUBLISH first [MQTT-3.2.0-1]": Slip(packet(0x30, text("a") + b"\0x"), PROTOCOL),
    "PINGRESP first [MQTT-3.2.0-1]": Slip(packet(PINGRESP), PROTOCOL),
    "SUBACK first [MQTT-3.2.0-1]": Slip(packet(SUBACK, b"\0\1\0\0"), PROTOCOL),
    "DISCONNECT first [MQTT-3.14.0-1]": Slip(packet(DISCONNECT, b"\x80"), PROTOCOL, 5),
    "AUTH first [MQTT-4.12.0-6]": Slip(packet(0xF0, b"\x18\0"), PROTOCOL, 5),
    "CONNACK with flags [MQTT-2.1.3-1]": Slip(packet(CONNACK | 1, b"\0\0\0")),
    "CONNACK with reserved bits [MQTT-3.2.2-1]": Slip(packet(CONNACK, b"\2\0\0"), version=5),
    "CONNACK with reserved bits": Slip(packet(CONNACK, b"\2\0"), version=4),
    "CONNACK cut off": Slip(packet(CONNACK, b"\0")),
    "CONNACK without properties [MQTT-2.2.2-1]": Slip(packet(CONNACK, b"\0\0"), version=5),
    "CONNACK too long": Slip(packet(CONNACK, b"\0\0\0"), version=4),
    "Receive Maximum 0": Slip(packet(CONNACK, b"\0\0" + properties((0x21, 0))), PROTOCOL, 5),
    "Maximum QoS 2": Slip(packet(CONNACK, b"\0\0" + properties((0x24, 2))), PROTOCOL, 5),
    "Maximum Packet Size 0": Slip(packet(CONNACK, b"\0\0" + properties((0x27, 0))), PROTOCOL, 5),
    "Retain Available 2": Slip(packet(CONNACK, b"\0\0" + properties((0x25, 2))), PROTOCOL, 5),
    "a property twice": Slip(
        packet(CONNACK, b"\0\0" + properties((0x21, 1), (0x21, 1))), PROTOCOL, 5
    ),
    "a property of another packet": Slip(
        packet(CONNACK, b"\0\0" + properties((TOPIC_ALIAS, 1))), PROTOCOL, 5
    ),
    "a reason that is no UTF-8 [MQTT-1.5.4-1]": Slip(
        packet(CONNACK, b"\0\0" + properties((0x1F, b"\xff"))), version=5
    ),
    "a code that is none [MQTT-3.2.2-8]": Slip(packet(CONNACK, b"\0\2\0"), PROTOCOL, 5),
}


@both(GREETINGS)
def test_a_source_closes_on_what_is_no_greeting_and_comes_back(slip, version):
    left: list[object] = []

    def hostile(peer):
        peer.take()
        peer.send(slip.data)
        if slip.data[0] & 0xF0 != CONNACK:
            peer.send(packet(CONNACK, b"\0\0" + b"\0" * (version == 5)))
        while isinstance(each := peer.take(), Subscribe):
            peer.send(peer.of(SUBACK, each.packet_id, b"\1"))
            peer.publish("end", b"end", 0)
        left.extend([each] if each else [])

    def good(peer):
        peer.connack()
        peer.suback()
        peer.publish("a", b"good", 0)
        peer.end()

    with StrictBroker(version, hostile, good) as broker:
        messages = received(broker)
    assert [message.payload for message in messages] == [b"good"]
    judge(left, slip, version)


# -- what comes to a sink --------------------------------------------------------------------------

ANSWERS = {  # with packet id 1, under which a message of this QoS waits
    "PUBACK of 1 byte": (1, Slip(packet(PUBACK, b"\0"))),
    "PUBACK with flags [MQTT-2.1.3-1]": (1, Slip(packet(PUBACK | 2, b"\0\1"))),
    "PUBACK too long for 3.1.1": (1, Slip(packet(PUBACK, b"\0\1\0\0"), MALFORMED, 4)),
    "PUBACK with a code that is none [MQTT-3.4.2-1]": (
        1, Slip(packet(PUBACK, b"\0\1\1"), PROTOCOL, 5),
    ),
    "PUBACK with a property twice": (
        1, Slip(packet(PUBACK, b"\0\1\0" + properties((0x1F, "a"), (0x1F, "a"))), PROTOCOL, 5),
    ),
    "PUBACK with a reason that is no UTF-8": (
        1, Slip(packet(PUBACK, b"\0\1\0" + properties((0x1F, b"\xff"))), MALFORMED, 5),
    ),
    "PUBREC for QoS 1 [MQTT-3.3.4-1]": (1, Slip(packet(PUBREC, b"\0\1"), PROTOCOL)),
    "PUBACK for QoS 2 [MQTT-3.3.4-1]": (2, Slip(packet(PUBACK, b"\0\1"), PROTOCOL)),
    "PUBCOMP before PUBREL [MQTT-4.3.3-3]": (2, Slip(packet(PUBCOMP, b"\0\1"), PROTOCOL)),
    "PUBREC with flags [MQTT-2.1.3-1]": (2, Slip(packet(PUBREC | 2, b"\0\1"))),
    "PUBREC with a code that is none [MQTT-3.5.2-1]": (
        2, Slip(packet(PUBREC, b"\0\1\1"), PROTOCOL, 5),
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("qos", "slip", "version"),
    [
        pytest.param(qos, slip, version, id=f"{name}-{'3.1.1' if version == 4 else '5'}")
        for name, (qos, slip) in ANSWERS.items()
        for version in (4, 5)
        if slip.version in {0, version}
    ],
)
def test_a_sink_takes_no_answer_that_is_none(qos, slip, version):
    """It closes, and the message is sent again on the next connection."""
    left: list[object] = []

    def hostile(peer):
        peer.connack()
        assert peer.expect(Publish).packet_id == 1
        peer.send(slip.data)
        left.extend(peer.rest())

    def good(peer):
        peer.connack(session_present=True)
        assert peer.take_message().duplicate
        peer.rest()

    with StrictBroker(version, hostile, good) as broker:
        assert published(broker, 1, qos=qos, client_id="me", drain_timeout=1.5).stored == 1
    judge(left, slip, version)


# -- what may be refused ---------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0x80, 0x8B, 0x8D, 0x93, 0x96, 0x98, 0x9C, 0x9D, 0xA0])
def test_a_disconnect_of_the_broker_closes_the_connection_and_another_serves(code):
    left: list[object] = []

    def leaves(peer):
        peer.connack()
        peer.suback()
        peer.publish("a", b"1", 0)
        peer.send(packet(DISCONNECT, bytes([code]) + properties((0x1F, "w\n"), (0x1C, "other"))))
        left.extend(peer.rest())

    def good(peer):
        peer.connack()
        peer.suback()
        peer.end()

    with StrictBroker(5, leaves, good) as broker:
        received(broker)
    assert left == []


@pytest.mark.parametrize("data", [packet(DISCONNECT), packet(DISCONNECT, b"\0")])
def test_a_disconnect_without_a_reason_is_one_too(data):
    def leaves(peer):
        peer.connack()
        peer.suback()
        peer.send(data)
        assert peer.rest() == []

    def good(peer):
        peer.connack()
        peer.suback()
        peer.end()

    with StrictBroker(5, leaves, good) as broker:
        received(broker)
