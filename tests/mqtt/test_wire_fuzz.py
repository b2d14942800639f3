"""Any bytes, cut anywhere: the same messages as paho's own decoder makes, or the same refusal.

Where the wire is deliberately stricter than paho, `STRICTER` and `Paho` say so, and why.
"""

from __future__ import annotations

import re
import socket
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, NamedTuple

import paho.mqtt.client as paho
import pytest
from battery.sizes import FUZZ_EXAMPLES
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from paho.mqtt import _packet
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from scripted import packet

from rxflow.delivery import Ledger
from rxflow.mqtt.topics import check_topic
from rxflow.mqtt.transport import Plain
from rxflow.mqtt.wire import MalformedPacketError, Wire

LARGEST = 500
"""The wire's `max_packet_bytes`; paho has no such bound."""

STRICTER = (
    "packet id 0",  # [MQTT-2.2.1-3]: it must not be 0
    "property 0x23 is not allowed",  # topic alias: we allow none [MQTT-3.1.2-26]
    "property 0x[0-9a-f]{2} is not allowed",  # in PUBLISH, or at all [MQTT 5, 2.2.2.2]
    "property 0x[0-9a-f]{2} twice",  # paho's check compares another name and misses it
    "payload format [0-9]",  # [MQTT 5, 3.3.2.3.2]: 0 or 1
    "subscription identifier 0",  # [MQTT 5, 3.3.2.3.8]
    "properties end in the middle",  # paho reads on into the payload
    "properties longer than their PUBLISH",  # likewise
    "variable byte integer of more than four bytes",  # [MQTT-1.5.5]
    "QoS 0 with DUP",  # [MQTT-3.3.1-2]
    "a response topic with a wildcard",  # [MQTT-3.3.2-14]
    # Of every packet but PUBLISH paho looks at little: see `test_packets`.
    "of type [0-9]+|AUTH|CONNACK|SUBACK|0x[0-9a-f]{2} is [0-9]|an answer|behind the end|a text",
    "more bytes than it needs|properties longer than their packet|length of its properties",
)


TOO_LARGE = "a packet above LARGEST"


class _TooLarge(Exception):
    pass


class Seen(NamedTuple):
    """One message, as both make it."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    duplicate: bool
    user: tuple[tuple[str, str], ...] = ()
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    expiry: int | None = None


class Result(NamedTuple):
    """What became of the bytes."""

    seen: list[Seen | bytes]
    """Messages, and the packets that are none."""
    refusal: str
    """Why it went no further; empty if it did not stop."""


def decoded_by_the_wire(data: bytes, cuts: list[int], *, is_5: bool) -> Result:
    ours, peer = socket.socketpair()
    ours.settimeout(0)
    receiver = Receiver()
    wire = receiver.wire = Wire(
        Plain(ours),
        receiver,
        receiver.passed,
        is_5=is_5,
        max_packet_bytes=LARGEST,
        max_pending=1_000_000,
        max_pending_bytes=1 << 30,
        now=lambda: datetime(2026, 1, 2, tzinfo=UTC),
    )
    wire.connack_code = 0
    refusal = ""
    try:
        for piece in pieces(data, cuts):
            peer.sendall(piece)
            wire.read()
    except MalformedPacketError as error:
        refusal = str(error)
    finally:
        wire.end()
        peer.close()
    return Result(receiver.seen, refusal)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    return [data[a:b] for a, b in pairwise(edges)]


class Receiver:
    """Writes down what a wire hands on; drops each message at once."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.ledger.connected(session_present=False)
        self.seen: list[Seen | bytes] = []
        self.wire: Any = None

    def on_next(self, message) -> None:
        properties = message.properties
        self.seen.append(
            Seen(
                message.topic,
                message.payload,
                message.qos,
                message.retain,
                message.duplicate,
                properties.user,
                properties.content_type,
                properties.response_topic,
                properties.correlation_data,
                properties.expiry,
            )
        )

    @staticmethod
    def admit(topic: bytes) -> str:
        return check_topic(topic)

    @staticmethod
    def oversized(message, size) -> None:
        raise MalformedPacketError("too large: the rest of it is skipped, which paho can't")

    def passed(self, first: int) -> None:
        del first
        passed = b""
        while self.wire.pending():
            passed += self.wire.recv(100)
        self.seen.append(passed)


class Paho(paho.Client):
    """paho's framing and decoding; what is stricter than paho whatever the packet is added here."""

    def __init__(self, data: bytes, *, is_5: bool) -> None:
        protocol = paho.MQTTv5 if is_5 else paho.MQTTv311
        super().__init__(CallbackAPIVersion.VERSION2, protocol=protocol)
        self._data = data
        self._at = 0
        self._ids2: dict[int, tuple[bytes, bytes]] = {}
        self._why = ""
        self.seen: list[Seen | bytes] = []

    def _sock_recv(self, bufsize: int) -> bytes:
        taken = self._data[self._at : self._at + bufsize]
        self._at += len(taken)
        if not taken and bufsize:
            raise BlockingIOError
        return taken

    def result(self) -> Result:
        try:
            while self._at < len(self._data):
                code = self._packet_read()
                # Bounded, and refused before it is here: an endless packet would fill the memory.
                if self._in_packet["have_remaining"]:
                    self._check_size(self._in_packet["remaining_length"])
                elif len(self._in_packet["remaining_count"]) >= 4:
                    return Result(self.seen, "a length of more than four bytes")
                if code not in {MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_AGAIN}:
                    return Result(self.seen, self._why or repr(code))
        except _TooLarge:
            return Result(self.seen, TOO_LARGE)
        except Exception as error:  # noqa: BLE001 (struct.error, IndexError, KeyError ...)
            return Result(self.seen, repr(error))
        return Result(self.seen, "")

    def _check_size(self, size: int) -> None:
        if size > LARGEST:
            raise _TooLarge

    def _packet_handle(self) -> MQTTErrorCode:
        first, body = self._in_packet["command"], bytes(self._in_packet["packet"])
        self._check_size(len(body))
        if first & 0xF0 != 0x30:
            return self._other(first, body)
        try:
            message = _packet.decode_publish(first, bytearray(body), self._protocol)
        except Exception as error:
            self._why = repr(error)
            raise
        if message.qos == 3:
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        if message.qos == 2:  # the same message, until its PUBREL [MQTT-4.3.3-10]
            content = bytes(message.topic), bytes(message.payload)
            if self._ids2.get(message.mid) == content:
                return MQTTErrorCode.MQTT_ERR_SUCCESS
            self._ids2[message.mid] = content
        try:
            topic = check_topic(bytes(message.topic))
        except ValueError:  # wildcards, NUL, no UTF-8, nothing
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        properties = message.properties
        self.seen.append(
            Seen(
                topic,
                bytes(message.payload),
                message.qos,
                bool(message.retain),
                bool(message.dup),
                tuple(getattr(properties, "UserProperty", ())),
                getattr(properties, "ContentType", None),
                getattr(properties, "ResponseTopic", None),
                getattr(properties, "CorrelationData", None),
                getattr(properties, "MessageExpiryInterval", None),
            )
        )
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _other(self, first: int, body: bytes) -> MQTTErrorCode:
        kind = first & 0xF0
        if kind == 0x60:
            if len(body) < 2:
                return MQTTErrorCode.MQTT_ERR_PROTOCOL
            self._ids2.pop(int.from_bytes(body[:2]), None)
        elif kind == 0x20:  # a second CONNACK
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        elif kind not in {0x40, 0x50, 0x70, 0xD0}:  # which the wire keeps to itself
            length = bytes(self._in_packet["remaining_count"])
            whole = bytes([first]) + length + body
            self.seen.append(whole.replace(b"\xef\xbb\xbf", b"\xef\xbf\xbd"))
        return MQTTErrorCode.MQTT_ERR_SUCCESS


# -- what is sent ----------------------------------------------------------------------------------


def text(value: str) -> bytes:
    raw = value.encode(errors="surrogatepass")
    return len(raw).to_bytes(2) + raw


texts = st.text(st.characters(codec="utf-8"), max_size=5).map(text) | st.just(b"\0\3\xed\xa0\x80")
properties = st.one_of(
    st.builds(lambda a, b: b"\x26" + a + b, texts, texts),
    st.builds(lambda a: b"\x03" + a, texts),
    st.builds(lambda a: b"\x08" + a, texts),
    st.builds(lambda a: b"\x09" + len(a).to_bytes(2) + a, st.binary(max_size=5)),
    st.builds(lambda a: b"\x02" + a, st.binary(min_size=4, max_size=4)),
    st.builds(lambda a: b"\x01" + bytes([a]), st.integers(0, 2)),
    st.builds(lambda a: b"\x0b" + bytes([a]), st.integers(0, 255)),
    st.builds(lambda a: b"\x23" + a, st.binary(min_size=2, max_size=2)),
    st.binary(max_size=4),
)
topics = st.sampled_from(["a", "a/b", "é", "", "a/#", "+", "a\0", "\ud800", "\ufeff"]).map(text)


@st.composite
def publishes(draw, *, is_5: bool) -> bytes:
    flags = draw(st.integers(0, 15))
    body = draw(topics)
    if flags & 6:
        body += draw(st.sampled_from([0, 1, 2, 65_535])).to_bytes(2)
    if is_5:
        fields = b"".join(draw(st.lists(properties, max_size=3)))
        body += bytes([min(len(fields) + draw(st.sampled_from([0, 0, 0, 1, -1])), 127) & 127])
        body += fields
    return packet(0x30 | flags, body + draw(st.binary(max_size=20)))


others = st.sampled_from(
    [
        packet(0xD0, b""),
        packet(0x90, b"\0\1\1"),
        packet(0x62, b"\0\1"),
        packet(0x62, b"\0"),
        packet(0x40, b"\0\1"),
        packet(0x50, b"\0\1"),
        packet(0x70, b"\0\1\x92\0"),
        packet(0x40, b"\0\0"),
        packet(0x20, b"\0\0"),
        packet(0xF0, b"?"),
        b"\x30\xff\xff\xff\xff\x01",
        b"\x30\x83\x80\x00\0\1a",
        packet(0x30, text("a") + b"\0" * LARGEST),
    ]
)


@st.composite
def streams(draw, *, is_5: bool) -> bytes:
    """Packets, sound for the most part, then perhaps a few bytes changed."""
    parts = st.one_of(publishes(is_5=is_5), publishes(is_5=is_5), others)
    data = bytearray(b"".join(draw(st.lists(parts, max_size=6))))
    for _ in range(draw(st.sampled_from([0, 0, 1, 3])) if data else 0):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


RELEASED = b"".join(  # one packet id, in one chunk
    [
        packet(0x34, text("a") + b"\0\1\0"),
        packet(0x62, b"\0\1"),
        packet(0x34, text("a") + b"\0\1\0"),
    ]
)
cuts = st.lists(st.integers(0, 300), max_size=10)
SIZE = settings(
    max_examples=FUZZ_EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def check(data: bytes, where: list[int], *, is_5: bool) -> None:
    ours = decoded_by_the_wire(data, where, is_5=is_5)
    theirs = Paho(data, is_5=is_5).result()
    both = min(len(ours.seen), len(theirs.seen))
    assert ours.seen[:both] == theirs.seen[:both]
    if "U+FEFF" in theirs.refusal:  # [MQTT-1.5.4-3] says what it means, and that it may be there
        return
    assert len(ours.seen) == both
    if theirs.refusal == TOO_LARGE:  # the wire reads its topic first
        return
    if ours.refusal and re.search("|".join(STRICTER), ours.refusal):
        return
    assert bool(ours.refusal) == bool(theirs.refusal), (ours, theirs)
    assert len(ours.seen) == len(theirs.seen)


@SIZE
@given(streams(is_5=False), cuts)
@example(packet(0x30, b"\0\1a"), [])
@example(packet(0x32, b"\0\1a\0\1"), [3])
@example(packet(0x34, text("a") + b"\0\1") * 2, [])
@example(packet(0x34, text("a") + b"\0\1x") + packet(0x34, text("a") + b"\0\1y"), [])
def test_the_wire_and_paho_agree_on_3_1_1(data, where):
    check(data, where, is_5=False)


@SIZE
@given(streams(is_5=True), cuts)
@example(packet(0x30, b"\0\1a\0"), [])
@example(packet(0x30, b"\0\1a"), [])
@example(RELEASED, [])
@example(packet(0x32, b"\0\1a\0\1\x80\x00"), [])
@example(packet(0x30, text("a") + b"\x06\x03\0\3\xef\xbb\xbf"), [])
def test_the_wire_and_paho_agree_on_5(data, where):
    check(data, where, is_5=True)


@SIZE
@given(st.binary(max_size=60), cuts, st.booleans())
def test_the_wire_and_paho_agree_on_any_bytes(data, where, is_5):
    check(b"\x30" + data, where, is_5=is_5)


@pytest.mark.parametrize("is_5", [False, True])
def test_a_decoder_that_forgets_where_it_was_is_found_out(is_5, monkeypatch):
    def forgetful(self) -> list[bytes]:
        self._data, self._at = b"", 0
        return chunks(self)

    chunks = Wire._chunks
    monkeypatch.setattr(Wire, "_chunks", forgetful)
    data = packet(0x30, text("a") + b"\0" * is_5 + b"1") * 2
    with pytest.raises(AssertionError):
        check(data, [3, 8], is_5=is_5)
