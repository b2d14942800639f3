"""The wire decodes what comes, and nothing that the standard forbids."""

import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledgers import Linked
from scripted import packet, publish

from rxflow.message import Message
from rxflow.mqtt.topics import check_topic
from rxflow.mqtt.transport import Plain
from rxflow.mqtt.wire import MalformedPacketError, Wire

NOW = datetime(2026, 1, 2, tzinfo=UTC)


class Receiver:
    """Keeps what a wire hands on."""

    def __init__(self) -> None:
        self.acknowledged: list[int] = []
        self.ledger = Linked(self.acknowledged.extend)
        self.messages: list[Message[bytes]] = []
        self.on_next: Callable[[Message[bytes]], object] = self.messages.append
        self.kinds: list[int] = []

    def admit(self, topic: bytes) -> str:
        return check_topic(topic)

    def oversized(self, message: Message[bytes], size: int) -> None:
        self.messages.append(message.with_payload(f"{size} bytes".encode()))


class Pair:
    """A wire, and the socket of its peer."""

    def __init__(
        self,
        *,
        is_5: bool = False,
        is_accepted: bool = True,
        max_pending: int = 1000,
        max_pending_bytes: int = 10_000_000,
    ) -> None:
        ours, self.peer = socket.socketpair()
        ours.settimeout(0)
        self.now = 0.0
        self.receiver = Receiver()
        self.wire = Wire(
            Plain(ours),
            self.receiver,
            self.receiver.kinds.append,
            is_5=is_5,
            max_packet_bytes=100_000,
            max_pending=max_pending,
            max_pending_bytes=max_pending_bytes,
            now=lambda: NOW,
            clock=lambda: self.now,
        )
        if is_accepted:
            self.wire.connack_code = 0
        else:
            self.wire.awaits_connack = True

    def feed(self, data: bytes) -> list[Message[bytes]]:
        self.peer.sendall(data)
        self.wire.read()
        return self.receiver.messages

    def close(self) -> None:
        self.wire.end()
        self.peer.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.receiver.messages.clear()
    pair.close()


def test_publish_becomes_a_message(pair):
    (message,) = pair.feed(publish("a/b", b"{}", qos=1, packet_id=7, flags=9))
    assert message == Message("a/b", b"{}", 1, retain=True, duplicate=True)
    assert message.received_at == NOW


def test_packets_cut_anywhere_give_the_same_messages(pair):
    data = publish("a", b"1" * 200, 1, 1) + publish("b", b"2", 0) + publish("c", b"3", 2, 9)
    for byte in data:
        pair.feed(bytes([byte]))
    assert [(m.topic, m.payload, m.qos) for m in pair.receiver.messages] == [
        ("a", b"1" * 200, 1),
        ("b", b"2", 0),
        ("c", b"3", 2),
    ]


@pytest.mark.parametrize("length", [127, 128, 16_383, 16_384])
@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_a_length_of_any_size_is_read_wherever_it_is_cut(pair, length, cut):
    payload = b"1" * (length - 3)  # behind a topic of one letter
    data = publish("a", payload, qos=0)
    assert len(data) - length == (2 if length < 128 else 3 if length < 16_384 else 4)
    pair.feed(data[:cut])
    pair.feed(data[cut:])
    assert [m.payload for m in pair.feed(publish("b"))] == [payload, b"1"]


def test_what_comes_of_a_large_packet_is_looked_at_when_it_is_whole(pair, monkeypatch):
    looks = []
    decode = Wire.decode
    monkeypatch.setattr(Wire, "decode", lambda wire: (looks.append(1), decode(wire)))
    data = publish("a", b"1" * 90_000, 1, 1) + publish("b", b"2", 0)
    for at in range(0, len(data), 1000):
        pair.feed(data[at : at + 1000])
    assert [m.payload for m in pair.receiver.messages] == [b"1" * 90_000, b"2"]
    assert len(looks) == 2


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (packet(0x36, b"\0\1a\0\1"), "QoS 3"),
        (publish("a", qos=1, packet_id=0), "packet id 0"),
        (packet(0x32, b"\0\1a\0"), "packet id cut off"),
        (packet(0x30, b"\0\5a"), "topic longer than the packet"),
        (packet(0x30, b"\0"), "no topic length"),
        (b"\x30\xff\xff\xff\xff\x01", "remaining length of five bytes"),
        (packet(0x62, b"\0"), "PUBREL without packet id"),
        (b"\x90\xff\xff\xff\x7f", "larger than max_packet_bytes, and no PUBLISH"),
        (b"\x36\xff\xff\xff\x7f", "too large, QoS 3"),
        (b"\x32\xff\xff\xff\x7f\0\1a\0\0", "too large, packet id 0"),
        (b"\x30\xa1\x8d\x06\0\1+", "too large, a topic with a wildcard"),
        (packet(0x20, b"\0\0"), "a second CONNACK"),
    ],
)
def test_a_malformed_packet_is_refused(pair, data, why):
    with pytest.raises(MalformedPacketError):
        pair.feed(data)
    assert pair.receiver.messages == [], why


@pytest.mark.parametrize(
    "properties",
    [b"\x05\x03\0\1a", b"\x02\x01\x02", b"\x05\x26\0\1a\0", b"\x03\x23\0\1", b"\xff\xff"],
    ids=["cut off", "format 2", "half a user property", "topic alias", "endless length"],
)
def test_malformed_properties_are_refused(properties):
    pair = Pair(is_5=True)
    with pytest.raises(MalformedPacketError):
        pair.feed(packet(0x30, b"\0\1a" + properties))
    pair.close()


def test_properties_of_mqtt_5_are_read():
    pair = Pair(is_5=True)
    user = b"\x26\0\1k\0\1v"
    (message,) = pair.feed(packet(0x30, b"\0\1a" + bytes([len(user)]) + user + b"payload"))
    assert message.properties.user == (("k", "v"),)
    assert message.payload == b"payload"
    pair.close()


def test_decoding_stops_in_the_middle_of_a_pass_at_max_pending():
    pair = Pair(max_pending=2)
    messages = pair.feed(b"".join(publish("a", b"x", 1, n) for n in range(1, 6)))
    assert len(messages) == 2
    assert pair.wire.is_paused
    messages.clear()
    pair.wire.is_paused = False
    pair.wire.decode()
    assert len(messages) == 2
    messages.clear()
    pair.close()


def test_a_message_that_is_dropped_at_once_never_pauses():
    pair = Pair(max_pending=2)
    seen: list[bytes] = []
    pair.receiver.on_next = lambda message: seen.append(message.payload)
    pair.feed(b"".join(publish("a", b"x", 1, n) for n in range(1, 100)))
    pair.receiver.ledger.settle()
    assert len(seen) == 99
    assert pair.receiver.acknowledged == list(range(1, 100))
    pair.close()


@pytest.mark.parametrize("topic", ["a/#", "+", "a\0", "a\udcff", ""])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_what_can_be_no_topic_is_malformed_and_not_acknowledged(pair, qos, topic):
    with pytest.raises(MalformedPacketError, match="topic"):
        pair.feed(publish(topic, b"x", qos, 5))
    pair.receiver.ledger.settle()
    assert (pair.receiver.messages, pair.receiver.acknowledged) == ([], [])


def test_topics_that_never_come_again_take_no_more_than_their_share(pair):
    for number in range(500):
        pair.feed(publish(f"{number}/".ljust(65_000, "x"), b"1", 0))
    assert sum(map(len, pair.wire._topics)) <= 16 * 1024 * 1024
    assert len(pair.receiver.messages) == 500


def test_pubrel_is_answered_and_other_packets_are_passed_on(pair):
    pair.feed(packet(0x62, b"\0\7") + packet(0x90, b"\0\1\1") + packet(0xD0, b""))
    pair.wire.output.acknowledge(*pair.receiver.ledger.take())
    pair.wire.output.flush()
    assert pair.peer.recv(100) == b"\x70\2\0\7"
    assert pair.receiver.kinds == [0x90]
    assert pair.wire.recv(100) == b"\x90\3\0\1\1"


def test_acknowledgements_of_both_kinds_keep_their_order(pair):
    pair.wire.output.acknowledge([1, 0x10002, 3], [])
    pair.wire.output.flush()
    assert pair.peer.recv(100) == b"\x40\2\0\1\x50\2\0\2\x40\2\0\3"


def test_an_exception_of_the_observer_is_raised_and_no_message_comes_twice(pair):
    pair.receiver.on_next = lambda _: 1 / 0
    with pytest.raises(ZeroDivisionError):
        pair.feed(publish("a", b"1", 0) + publish("a", b"2", 0))
    pair.receiver.on_next = pair.receiver.messages.append
    pair.wire.decode()
    assert [message.payload for message in pair.receiver.messages] == [b"2"]


def test_stopping_in_on_next_hands_on_nothing_more(pair):
    def stop(message: Message[bytes]) -> None:
        pair.receiver.messages.append(message)
        pair.wire.is_stopped = True

    pair.receiver.on_next = stop
    assert len(pair.feed(publish("a", qos=0) * 5)) == 1


def test_output_waits_until_the_peer_takes_it(pair):
    pair.wire.send(b"x" * 10_000_000)
    pair.wire.output.flush()
    assert 0 < pair.wire.output.unsent < 10_000_000
    received = 0
    while received < 10_000_000:
        received += len(pair.peer.recv(1_000_000))
        pair.wire.output.flush()
    assert pair.wire.output.unsent == 0


def test_the_end_of_the_stream_is_passed_on(pair):
    pair.peer.close()
    pair.wire.read()
    assert pair.wire.has_passed
    assert pair.wire.recv(1) == b""


@pytest.mark.parametrize("data", [publish("a"), packet(0x62, b"\0\1"), packet(0x90, b"\0\1\1")])
def test_nothing_is_taken_before_connack(data):
    pair = Pair(is_accepted=False)
    with pytest.raises(MalformedPacketError, match="before CONNACK"):
        pair.feed(data)
    assert pair.receiver.messages == []
    pair.close()


# -- what is too large -----------------------------------------------------------------------------

LARGE = 100_001  # bytes of a packet behind its header; `max_packet_bytes` is 100,000


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("step", [1, 3, 70_000, 300_000])
def test_of_a_packet_that_is_too_large_only_the_topic_is_kept(qos, step):
    pair = Pair()
    data = publish("a/b", b"x" * (LARGE - 5 - 2 * bool(qos)), qos, 7) + publish("c", b"next", 1, 8)
    head, rest = data[:20], data[20:]
    for at in range(0, len(head), step):
        pair.feed(head[at : at + step])
    for at in range(0, len(rest), 70_000):
        pair.feed(rest[at : at + 70_000])
        assert len(pair.wire._data) < 100_000
    seen = [(m.topic, m.payload, m.qos) for m in pair.receiver.messages]
    assert seen == [("a/b", b"100001 bytes", qos), ("c", b"next", 1)]
    assert pair.receiver.acknowledged == []
    pair.receiver.messages.clear()
    pair.receiver.ledger.settle()
    assert pair.receiver.acknowledged == [[8], [7, 8], [0x10007, 8]][qos]
    pair.close()


def test_a_too_large_message_of_qos_2_that_comes_again_is_one_message(pair):
    data = publish("a", b"x" * LARGE, 2, 7, flags=8)
    for _ in range(2):
        for at in range(0, len(data), 50_000):
            pair.feed(data[at : at + 50_000])
    assert len(pair.receiver.messages) == 1


def test_a_too_large_message_waits_for_room_too():
    pair = Pair(max_pending=1)
    messages = pair.feed(publish("a", b"1", 1, 1) + publish("a", b"x" * LARGE, 1, 2)[:50])
    assert (pair.wire.is_paused, len(messages)) == (True, 1)
    messages.clear()
    pair.receiver.ledger.settle()
    pair.wire.is_paused = False
    pair.wire.decode()
    assert [m.payload for m in messages] == [b"%d bytes" % (LARGE + 5)]
    messages.clear()
    pair.close()


# -- how many bytes may be held --------------------------------------------------------------------


@pytest.mark.parametrize("qos", [1, 2])
def test_decoding_stops_when_the_messages_held_are_large(qos):
    pair = Pair(max_pending=100, max_pending_bytes=100_000)
    messages = []
    for n in range(1, 6):
        messages = pair.feed(publish("a", b"x" * 30_000, qos, n))
    assert (len(messages), pair.wire.is_paused) == (3, True)
    del messages[0]
    pair.receiver.ledger.settle()
    pair.wire.is_paused = False
    pair.wire.decode()
    assert (len(messages), pair.wire.is_paused) == (3, True)
    messages.clear()
    pair.receiver.ledger.settle()
    pair.wire.decode()
    assert [len(m.payload) for m in messages] == [30_000]
    messages.clear()
    pair.receiver.ledger.settle()
    assert pair.receiver.ledger.heavy == 0
    pair.close()


def test_a_message_larger_than_all_that_may_be_held_comes_alone():
    pair = Pair(max_pending=100, max_pending_bytes=1000)
    messages = pair.feed(publish("a", b"x" * 50_000, 1, 1))
    pair.feed(publish("a", b"x" * 50_000, 1, 2))
    assert (len(messages), pair.wire.is_paused) == (1, True)
    messages.clear()
    pair.close()


def test_large_messages_that_are_dropped_at_once_never_pause():
    pair = Pair(max_pending=100, max_pending_bytes=100_000)
    seen = []
    pair.receiver.on_next = lambda message: seen.append(len(message.payload))
    for n in range(1, 20):
        pair.feed(publish("a", b"x" * 60_000, 1, n))
    assert (len(seen), pair.wire.is_paused) == (19, False)
    pair.close()


def test_a_large_message_that_comes_again_weighs_nothing():
    pair = Pair(max_pending=100, max_pending_bytes=100_000)
    pair.feed(publish("a", b"x" * 60_000, 2, 1))
    pair.receiver.ledger.connected(session_present=True)
    pair.feed(publish("a", b"x" * 60_000, 2, 1, flags=8))
    pair.receiver.messages.clear()
    pair.receiver.ledger.settle()
    assert pair.receiver.ledger.heavy == 0
    pair.close()


# -- a packet that does not end --------------------------------------------------------------------


@pytest.mark.parametrize(
    "begun",
    [publish("a", b"x" * 50_000)[:-1000], publish("a", b"x" * LARGE)[:70_000], b"\x30"],
    ids=["of usual size", "too large", "hardly begun"],
)
def test_a_packet_that_grows_by_nothing_but_pingresps_is_unfinished(begun):
    pair = Pair()
    pair.feed(publish("a"))
    pair.now = 10.0
    for at in range(0, len(begun), 10_000):
        pair.feed(begun[at : at + 10_000])
    began = 10.0 if len(begun) > 1 else 0.0
    for pair.now in (20.0, 30.0, 40.0):
        pair.feed(b"\xd0")
    assert pair.wire.unfinished_for == 40.0 - began
    pair.wire.expect()
    assert pair.wire.unfinished_for == 0.0
    pair.receiver.messages.clear()
    pair.close()


def test_a_packet_that_grows_is_not_given_up_nor_is_a_quiet_connection():
    pair = Pair()
    for at in range(0, 50_000, 1000):
        pair.now += 60.0
        pair.feed(publish("a", b"x" * 50_000)[at : at + 1000])
        assert pair.wire.unfinished_for == 0.0
    pair.feed(publish("a", b"x" * 50_000)[50_000:])
    for _ in range(5):
        pair.now += 60.0
        pair.feed(b"\xd0\0")
    assert pair.wire.unfinished_for == 0.0
    pair.close()


@given(st.lists(st.integers(1, 50), min_size=1), st.lists(st.binary(max_size=300), max_size=20))
def test_any_cut_gives_the_messages_that_were_sent(cuts, payloads):
    pair = Pair()
    data = b"".join(publish("t", payload, 1, n + 1) for n, payload in enumerate(payloads))
    at = 0
    while at < len(data):
        size = cuts[at % len(cuts)]
        pair.feed(data[at : at + size])
        at += size
    assert [message.payload for message in pair.receiver.messages] == payloads
    pair.receiver.messages.clear()
    pair.close()


@pytest.mark.parametrize("qos", [0, 1])
def test_a_message_from_the_wire_has_every_slot_that_one_made_by_hand_has(pair, qos):
    (message,) = pair.feed(publish("a", b"1", qos, 7))
    for slot in Message.__slots__:
        assert hasattr(message, slot), slot
    assert message.received_at == NOW
