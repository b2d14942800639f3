"""A broker by the letter: it takes apart each byte that a client sends, and knows what it owes.

Shares no code with rxflow, nor with the broker of its marbles: what both misread would stay hidden.
Every slip of the client is an AssertionError that cites the paragraph.
"""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from scripted import Conversation, ScriptedBroker

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBSCRIBE = range(0x10, 0x90, 0x10)
SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT, AUTH = range(0x90, 0x100, 0x10)

Properties = dict[int, Any]

# -- properties: each identifier with the type of its value [MQTT 5, 2.2.2.2] ----------------------

SESSION_EXPIRY, RECEIVE_MAXIMUM, MAXIMUM_QOS, RETAIN_AVAILABLE = 0x11, 0x21, 0x24, 0x25
MAXIMUM_PACKET, TOPIC_ALIAS_MAXIMUM, TOPIC_ALIAS, SUBSCRIPTION_ID = 0x27, 0x22, 0x23, 0x0B
SERVER_KEEP_ALIVE, ASSIGNED_ID, REASON, USER = 0x13, 0x12, 0x1F, 0x26

_TYPES = {
    0x01: "byte", 0x02: "four", 0x03: "text", 0x08: "text", 0x09: "bytes", 0x0B: "varying",
    0x11: "four", 0x12: "text", 0x13: "two", 0x15: "text", 0x16: "bytes", 0x17: "byte",
    0x18: "four", 0x19: "byte", 0x1A: "text", 0x1C: "text", 0x1F: "text", 0x21: "two",
    0x22: "two", 0x23: "two", 0x24: "byte", 0x25: "byte", 0x26: "pair", 0x27: "four",
    0x28: "byte", 0x29: "byte", 0x2A: "byte",
}  # fmt: skip

# Those that a client may send with each packet; 0 stands for the will.
_ALLOWED = {
    CONNECT: {0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, 0x26, 0x27},
    0: {0x01, 0x02, 0x03, 0x08, 0x09, 0x18, 0x26},
    PUBLISH: {0x01, 0x02, 0x03, 0x08, 0x09, 0x23, 0x26},
    PUBACK: {0x1F, 0x26}, PUBREC: {0x1F, 0x26}, PUBREL: {0x1F, 0x26}, PUBCOMP: {0x1F, 0x26},
    SUBSCRIBE: {0x0B, 0x26},
    UNSUBSCRIBE: {0x26},
    DISCONNECT: {0x11, 0x1F, 0x26},
}  # fmt: skip

_REASONS = {
    PUBACK: {0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99},
    PUBREC: {0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99},
    PUBREL: {0x00, 0x92},
    PUBCOMP: {0x00, 0x92},
    DISCONNECT: {0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, *range(0x93, 0x9A)},
}

_FLAGS = {PUBREL: 2, SUBSCRIBE: 2, UNSUBSCRIBE: 2}  # of every other but PUBLISH: 0


# -- packets of a client ---------------------------------------------------------------------------


@dataclass
class Will:
    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: Properties


@dataclass
class Connect:
    version: int
    client_id: str
    is_clean: bool
    keep_alive: int
    username: str | None
    password: bytes | None
    will: Will | None
    properties: Properties


@dataclass
class Publish:
    topic: str
    payload: bytes
    qos: int
    retain: bool
    duplicate: bool
    packet_id: int
    properties: Properties
    size: int = field(compare=False)


@dataclass
class Answer:
    """PUBACK, PUBREC, PUBREL or PUBCOMP."""

    kind: int
    packet_id: int
    reason: int
    properties: Properties


@dataclass
class Subscribe:
    packet_id: int
    filters: list[tuple[str, int]]
    properties: Properties


@dataclass
class Unsubscribe:
    packet_id: int
    filters: list[str]
    properties: Properties


@dataclass
class Ping:
    pass


@dataclass
class Disconnect:
    reason: int
    properties: Properties


class Reader:
    """The body of a packet, from the front; nothing may be left of it."""

    def __init__(self, data: bytes, version: int) -> None:
        self.data, self.at, self.version = data, 0, version

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, count: int) -> bytes:
        assert self.left >= count, f"{self.data!r} ends in the middle"
        self.at += count
        return self.data[self.at - count : self.at]

    def byte(self) -> int:
        return self.take(1)[0]

    def two(self) -> int:
        return int.from_bytes(self.take(2))

    def four(self) -> int:
        return int.from_bytes(self.take(4))

    def bytes(self) -> bytes:
        return self.take(self.two())

    def text(self) -> str:
        text = self.bytes().decode()  # strict: no surrogates [MQTT-1.5.4-1], [MQTT-1.5.3-1]
        assert "\0" not in text, "U+0000 [MQTT-1.5.4-2], [MQTT-1.5.3-2]"
        return text

    def pair(self) -> tuple[str, str]:
        return self.text(), self.text()  # [MQTT-1.5.7-1]

    def varying(self) -> int:
        value = 0
        for shift in (0, 7, 14, 21):
            digit = self.byte()
            value |= (digit & 127) << shift
            if digit < 128:
                assert digit or not shift, "more bytes than needed [MQTT-1.5.5-1]"
                return value
        raise AssertionError("a length of more than four bytes")

    def properties(self, kind: int) -> Properties:
        """Their length must be there, even if there are none [MQTT-2.2.2-1]."""
        found: Properties = {}
        if self.version < 5:
            return found
        end = self.varying() + self.at
        while self.at < end:
            identifier = self.byte()
            assert identifier in _ALLOWED[kind], f"property {identifier:#x} in {kind:#x}"
            value = getattr(self, _TYPES[identifier])()
            if identifier == USER:
                found.setdefault(USER, []).append(value)
            else:
                assert identifier not in found, f"property {identifier:#x} twice"
                found[identifier] = value
        assert self.at == end, "properties longer than they say"
        return found


def decode(first: int, body: bytes, version: int) -> Any:
    """Take a packet of a client apart."""
    kind, flags, reader = first & 0xF0, first & 15, Reader(body, version)
    if kind != PUBLISH:
        assert flags == _FLAGS.get(kind, 0), f"flags {flags} of {kind:#x} [MQTT-2.2.2-1]"
    if kind == CONNECT:
        packet: Any = _connect(reader)
    elif kind == PUBLISH:
        packet = _publish(reader, flags)
    elif kind in {PUBACK, PUBREC, PUBREL, PUBCOMP}:
        packet = Answer(kind, _packet_id(reader), *_reason(reader, kind))
    elif kind == SUBSCRIBE:
        packet = _subscribe(reader)
    elif kind == UNSUBSCRIBE:
        packet = Unsubscribe(_packet_id(reader), [], reader.properties(kind))
        while reader.left:
            packet.filters.append(reader.text())
        assert packet.filters, "no filter [MQTT-3.10.3-2]"
    elif kind == PINGREQ:
        packet = Ping()
    elif kind == DISCONNECT:
        packet = Disconnect(*_reason(reader, kind))
    else:
        raise AssertionError(f"a client sends no {kind:#x} [MQTT-4.12.0-7]")
    assert not reader.left, f"{reader.left} bytes too many in {kind:#x}"
    return packet


def _connect(reader: Reader) -> Connect:
    assert reader.text() == "MQTT", "[MQTT-3.1.2-1]"
    reader.version = version = reader.byte()
    assert version in {4, 5}, f"protocol level {version} [MQTT-3.1.2-2]"
    flags, keep_alive = reader.byte(), reader.two()
    assert not flags & 1, "reserved flag [MQTT-3.1.2-3]"
    properties = reader.properties(CONNECT)
    client_id = reader.text()
    assert client_id or flags & 2, "no id, and a session to keep [MQTT-3.1.3-7]"
    has_will, will_qos, will_retain = flags & 4, flags >> 3 & 3, bool(flags & 32)
    will = None
    if has_will:
        assert will_qos < 3, "[MQTT-3.1.2-14]"
        will_properties = reader.properties(0)
        topic = reader.text()
        will = Will(topic, reader.bytes(), will_qos, will_retain, will_properties)
        _check_topic(topic)
    else:
        assert not will_qos, "[MQTT-3.1.2-13]"
        assert not will_retain, "[MQTT-3.1.2-15]"
    assert version == 5 or not flags & 64 or flags & 128, "a password alone [MQTT-3.1.2-22]"
    username = reader.text() if flags & 128 else None
    password = reader.bytes() if flags & 64 else None
    assert properties.get(RECEIVE_MAXIMUM, 1), "Receive Maximum 0"
    assert properties.get(MAXIMUM_PACKET, 1), "Maximum Packet Size 0"
    is_clean = bool(flags & 2)
    return Connect(version, client_id, is_clean, keep_alive, username, password, will, properties)


def _check_topic(topic: str) -> None:
    assert topic, "an empty topic [MQTT-4.7.3-1]"
    assert not set(topic) & set("+#"), f"{topic!r} has a wildcard [MQTT-3.3.2-2]"


def _packet_id(reader: Reader) -> int:
    packet_id = reader.two()
    assert packet_id, "packet id 0 [MQTT-2.2.1-3], [MQTT-2.3.1-1]"
    return packet_id


def _publish(reader: Reader, flags: int) -> Publish:
    qos, size = flags >> 1 & 3, reader.left
    size += 2 + (size > 127) + (size > 16_383) + (size > 2_097_151)
    assert qos < 3, "[MQTT-3.3.1-4]"
    assert qos or not flags & 8, "QoS 0 with DUP [MQTT-3.3.1-2]"
    topic = reader.text()
    packet_id = _packet_id(reader) if qos else 0
    properties = reader.properties(PUBLISH)
    _check_topic(topic)
    payload = reader.take(reader.left)
    return Publish(
        topic, payload, qos, bool(flags & 1), bool(flags & 8), packet_id, properties, size
    )


def _subscribe(reader: Reader) -> Subscribe:
    packet_id, properties = _packet_id(reader), reader.properties(SUBSCRIBE)
    filters = []
    while reader.left:
        name, options = reader.text(), reader.byte()
        assert name, "[MQTT-4.7.3-1]"
        assert options & 3 < 3, "QoS 3"
        if reader.version < 5:
            assert options < 3, f"reserved bits {options:#x} [MQTT-3-8.3-4]"
        else:
            assert options < 0x30, f"reserved bits {options:#x} [MQTT-3.8.3-5]"
            assert not (options & 4 and name.startswith("$share/")), "[MQTT-3.8.3-4]"
        filters.append((name, options))
    assert filters, "no filter [MQTT-3.8.3-3], [MQTT-3.8.3-2]"
    assert properties.get(SUBSCRIPTION_ID, 1), "subscription identifier 0"
    return Subscribe(packet_id, filters, properties)


def _reason(reader: Reader, kind: int) -> tuple[int, Properties]:
    if not reader.left:
        return 0, {}
    assert reader.version >= 5, "bytes that MQTT 3.1.1 does not have"
    reason = reader.byte()
    assert reason in _REASONS[kind], f"reason {reason:#x} in {kind:#x}"
    return reason, reader.properties(kind) if reader.left else {}


# -- packets of a broker ---------------------------------------------------------------------------


def number(value: int) -> bytes:
    """A variable byte integer."""
    encoded = bytearray()
    while True:
        value, digit = divmod(value, 128)
        encoded.append(digit | (0x80 if value else 0))
        if not value:
            return bytes(encoded)


def text(value: str | bytes) -> bytes:
    """A string, with its length."""
    raw = value if isinstance(value, bytes) else value.encode()
    return len(raw).to_bytes(2) + raw


def properties(*pairs: tuple[int, Any]) -> bytes:
    """Properties, with their length."""
    encoded = b""
    for identifier, value in pairs:
        kind = _TYPES[identifier]
        encoded += bytes([identifier])
        if kind == "pair":
            encoded += text(value[0]) + text(value[1])
        elif kind in {"text", "bytes"}:
            encoded += text(value)
        elif kind == "varying":
            encoded += number(value)
        else:
            encoded += value.to_bytes({"byte": 1, "two": 2, "four": 4}[kind])
    return number(len(encoded)) + encoded


def packet(first: int, body: bytes = b"") -> bytes:
    """One packet of any kind."""
    return bytes([first]) + number(len(body)) + body


# -- the session -----------------------------------------------------------------------------------


class Session:
    """What a broker knows of a client over its connections; holds each packet against it."""

    def __init__(self) -> None:
        self.sent: dict[int, Publish] = {}  # by the client, and not acknowledged, in order
        self.released: list[int] = []  # PUBREC is sent, PUBCOMP isn't, in order
        self.requests: set[int] = set()  # SUBSCRIBE and UNSUBSCRIBE without answer
        self.owed: deque[tuple[int, int]] = deque()  # PUBACK and PUBREC that the client owes
        self.held: set[int] = set()  # QoS 2 to the client, from PUBLISH to PUBCOMP
        self.resent: list[Publish] | None = None  # on this connection; None: nothing may be
        self.limits: Properties = {}

    def begin(self, *, session_present: bool, limits: Properties) -> None:
        """A CONNACK is sent."""
        self.limits = limits
        self.requests.clear()
        self.owed.clear()
        if not session_present:
            self.sent.clear()
            self.released.clear()
            self.held.clear()
        self.resent = list(self.sent.values())

    def saw(self, each: Any) -> None:
        """Hold a packet of the client against what it may send now."""
        if isinstance(each, Publish):
            self._saw_publish(each)
        elif isinstance(each, Subscribe | Unsubscribe):
            assert each.packet_id not in {*self.sent, *self.requests}, "in use [MQTT-2.2.1-3]"
            self.requests.add(each.packet_id)
        elif isinstance(each, Answer):
            if each.kind in {PUBACK, PUBREC}:
                due = (each.kind, each.packet_id)
                assert due in self.owed, f"{each} is not due, or out of order [MQTT-4.6.0-2]"
                while self.owed.popleft() != due:
                    pass  # what is left to the broker may be passed over, and not come later
            elif each.kind == PUBREL:
                assert each.packet_id in self.released, f"{each} without PUBREC"
            elif each.kind == PUBCOMP:
                assert each.packet_id in self.held, f"{each} without PUBREL"
                self.held.discard(each.packet_id)

    def _saw_publish(self, each: Publish) -> None:
        assert each.qos <= self.limits.get(MAXIMUM_QOS, 2), "[MQTT-3.2.2-11]"
        assert not each.retain or self.limits.get(RETAIN_AVAILABLE, 1), "[MQTT-3.2.2-14]"
        assert each.size <= self.limits.get(MAXIMUM_PACKET, 1 << 28), "[MQTT-3.2.2-15]"
        assert TOPIC_ALIAS not in each.properties, "an alias that nobody allowed [MQTT-3.2.2-18]"
        if not each.qos:
            return
        assert each.packet_id not in self.released, "after its PUBREC [MQTT-4.3.3-6]"
        assert each.packet_id not in self.requests, "in use [MQTT-2.2.1-3]"
        if earlier := self.sent.get(each.packet_id):
            assert self.resent, f"{each} again, on the same connection [MQTT-4.4.0-1]"
            assert self.resent.pop(0) is earlier, f"{each} is out of order [MQTT-4.6.0-1]"
            assert each.duplicate, "again without DUP [MQTT-3.3.1-1]"
            assert (each.topic, each.payload, each.qos) == (
                earlier.topic,
                earlier.payload,
                earlier.qos,
            ), "another message under a packet id in use [MQTT-2.2.1-3]"
        else:
            assert not each.duplicate, f"DUP on what is new here: {each} [MQTT-4.3.2-2]"
            assert not self.resent, f"{each} before what is older [MQTT-4.4.0-1]"
            self.sent[each.packet_id] = each
        in_flight = len(self.sent) - len(self.resent or ()) + len(self.released)
        assert in_flight <= self.limits.get(RECEIVE_MAXIMUM, 65_535), "[MQTT-3.3.4-7]"


class Peer(Conversation):
    """One connection, from the side of a broker that overlooks nothing."""

    def __init__(self, connection: socket.socket, version: int, session: Session) -> None:
        super().__init__(connection)
        self.version, self.session = version, session
        self.latest: Any = None
        self.pings = 0
        self._unread = bytearray()

    # -- reading --

    def _exactly(self, count: int) -> bytes:
        while len(self._unread) < count:
            chunk = self._connection.recv(65_536)
            if not chunk:
                raise ConnectionError("closed by the client")
            self._unread += chunk
        taken = bytes(self._unread[:count])
        del self._unread[:count]
        return taken

    def read(self) -> tuple[int, bytes]:
        first = self._exactly(1)[0]
        encoded = self._exactly(1)
        while encoded[-1] > 127:
            encoded += self._exactly(1)
        length = Reader(encoded, self.version).varying()
        return first, self._exactly(length)

    def take(self) -> Any:
        """The next packet that is no PINGREQ; None at the end of the stream."""
        while True:
            try:
                first, body = self.read()
            except ConnectionError:
                return None
            each = decode(first, body, self.version)
            assert not isinstance(self.latest, Disconnect), "[MQTT-3.14.4-1]"
            assert isinstance(each, Connect) == (self.latest is None), "[MQTT-3.1.0-1]"
            self.latest = each
            if not isinstance(each, Ping):
                self.session.saw(each)
                return each
            self.pings += 1
            self.send(packet(PINGRESP))

    def expect(self, kind: Any) -> Any:  # type: ignore[override]
        """The next packet, which must be of this class."""
        each = self.take()
        assert isinstance(each, kind), f"expected {kind.__name__}, got {each}"
        return each

    def rest(self) -> list[Any]:
        """All packets until the client closes, which it must do by itself."""
        packets = []
        while each := self.take():
            packets.append(each)
            if isinstance(each, Disconnect):  # on which a broker closes, and the client at last
                with contextlib.suppress(OSError):
                    self._connection.shutdown(socket.SHUT_WR)
        return packets

    def expect_answer(self) -> Answer:
        """The next packet, which must be an answer; a SUBSCRIBE before it is granted."""
        while isinstance(each := self.take(), Subscribe):
            self.grant(each)
        assert isinstance(each, Answer), f"expected an answer, got {each}"
        return each

    def end(self) -> list[Any]:
        """Send what ends a source of `clients.received`; all packets until the client closes."""
        self.publish("end", b"end", 0)
        return self.rest()

    # -- writing --

    def connack(self, *limits: tuple[int, Any], session_present: bool = False, code: int = 0):
        """Take CONNECT, answer it."""
        connect = self.expect(Connect)
        assert connect.version == (5 if self.version == 5 else 4)
        if not code:
            self.session.begin(session_present=session_present, limits=dict(limits))
        body = properties(*limits) if self.version == 5 else b""
        self.send(packet(CONNACK, bytes([session_present, code]) + body))
        return connect

    def suback(self, *codes: int) -> Subscribe:
        """Take SUBSCRIBE, grant what it asks for, or answer with these codes."""
        asked: Subscribe = self.expect(Subscribe)
        self.grant(asked, *codes)
        return asked

    def grant(self, asked: Subscribe, *codes: int) -> None:
        """Answer SUBSCRIBE with what it asks for, or with these codes."""
        granted = bytes(codes or [options & 3 for _, options in asked.filters])
        self.send(self.of(SUBACK, asked.packet_id, granted))
        self.session.requests.discard(asked.packet_id)

    def of(self, kind: int, packet_id: int, rest: bytes = b"") -> bytes:
        """The bytes of SUBACK or UNSUBACK, without properties."""
        return packet(kind, packet_id.to_bytes(2) + b"\0" * (self.version == 5) + rest)

    def publish(  # noqa: PLR0913 (the fields of the packet)
        self,
        topic: str | bytes,
        payload: bytes = b"1",
        qos: int = 1,
        packet_id: int = 1,
        *,
        duplicate: bool = False,
        retain: bool = False,
        pairs: tuple[tuple[int, Any], ...] = (),
    ) -> None:
        """Send PUBLISH."""
        if qos:
            self.session.owed.append((PUBACK if qos == 1 else PUBREC, packet_id))
        if qos == 2:
            self.session.held.add(packet_id)
        flags = PUBLISH | duplicate << 3 | qos << 1 | retain
        identifier = packet_id.to_bytes(2) if qos else b""
        more = properties(*pairs) if self.version == 5 else b""
        self.send(packet(flags, text(topic) + identifier + more + payload))

    def answer(self, kind: int, packet_id: int, *rest: int) -> None:
        """Send PUBACK, PUBREC, PUBREL or PUBCOMP; on MQTT 5 perhaps with what follows the id."""
        self.send(packet(kind | _FLAGS.get(kind, 0), packet_id.to_bytes(2) + bytes(rest)))
        session = self.session
        if kind == PUBREC and session.sent.pop(packet_id, None) and not (rest and rest[0] > 127):
            session.released.append(packet_id)
        elif kind == PUBACK:
            session.sent.pop(packet_id, None)
        elif kind == PUBCOMP and packet_id in session.released:
            session.released.remove(packet_id)

    def take_message(self) -> Publish:
        """Take PUBLISH, and acknowledge it to the end."""
        message = self.expect(Publish)
        self.complete(message)
        return message

    def complete(self, message: Publish) -> None:
        """Acknowledge it, as its QoS asks for."""
        if message.qos == 1:
            self.answer(PUBACK, message.packet_id)
        elif message.qos == 2:
            self.answer(PUBREC, message.packet_id)
            assert self.expect(Answer).packet_id == message.packet_id
            self.answer(PUBCOMP, message.packet_id)

    def serve(self, count: int) -> None:
        """Take so many messages to their end, in whatever order their packets come."""
        while count:
            each = self.take()
            assert isinstance(each, Publish | Answer), f"expected a message, got {each}"
            if isinstance(each, Answer):
                self.answer(PUBCOMP, each.packet_id)
            elif each.qos:
                self.answer(PUBACK if each.qos == 1 else PUBREC, each.packet_id)
            count -= isinstance(each, Answer) or each.qos < 2

    def hears_nothing(self, seconds: float) -> None:
        """No packet comes for so long."""
        self._connection.settimeout(seconds)
        with contextlib.suppress(TimeoutError):
            raise AssertionError(f"unexpected: {self.take()}")
        self._connection.settimeout(10)

    def hears_pings(self, count: int) -> None:
        """The next packets are so many PINGREQ, each answered."""
        for _ in range(count):
            first, body = self.read()
            assert isinstance(decode(first, body, self.version), Ping), f"unexpected: {first:#x}"
            self.send(packet(PINGRESP))


class StrictBroker(ScriptedBroker):
    """Each connection gets the next script, with a `Peer`; all share a session."""

    def __init__(self, version: int, *scripts: Callable[[Peer], object]) -> None:
        super().__init__(*(self._strict(script) for script in scripts))
        self.version, self.session = version, Session()
        self.failed: Callable[[], object] = lambda: None  # called when a script has found a slip
        self.url = f"mqtt://127.0.0.1:{self.port}?version={'5' if version == 5 else '3.1.1'}"

    def __exit__(self, kind: object, *rest: object) -> None:
        self._thread.join(1)
        with contextlib.suppress(OSError):  # the client is gone: who still waits for it is told
            self._listener.shutdown(socket.SHUT_RDWR)
        if kind is not None and isinstance(self._error, OSError):
            self._error = None  # what happened to the client says more
        super().__exit__(kind, *rest)

    def _strict(self, script: Callable[[Peer], object]) -> Callable[[Conversation], object]:
        def whole(plain: Conversation) -> None:
            try:
                script(Peer(plain._connection, self.version, self.session))
            except BaseException:
                self.failed()
                raise

        return whole


def kinds(packets: list[Any]) -> Iterator[str]:
    """The names of packets."""
    return (type(each).__name__ for each in packets)
