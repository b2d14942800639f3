"""The sender of MQTT: what is to be published, and what the broker has not acknowledged yet. Pure.

It is told what the broker answers and makes the bytes to write; it knows no socket and no clock. It
alone sends again: a message has one packet id, and what is unacknowledged goes first on the next
connection, in its original order [MQTT-4.4.0-1, MQTT-4.6.0-1]; only then comes what is new.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rxflow.mqtt.packets import PROTOCOL_ERROR, PUBACK, PUBREC, MalformedPacketError
from rxflow.mqtt.reasons import reason_text

if TYPE_CHECKING:
    from rxflow.delivery import Token

MOST_IN_FLIGHT: Final = 1000
"""Messages sent and not acknowledged, however many more the broker would take."""

_PUBLISH: Final = 0x30
_DUPLICATE: Final = 0x08
_LAST_ID: Final = 0xFFFF
_LONGEST: Final = 268_435_455  # the greatest remaining length [MQTT-1.5.5]
_FAILURE: Final = 0x80
_ID_NOT_FOUND: Final = 0x92
_TOPICS_REMEMBERED: Final = 16

_REASON_STRING: Final = 0x1F

_WAITS, _SENT, _RECEIVED, _RELEASED_AGAIN, _DONE = range(5)
_HAS_PUBREC: Final = frozenset({_RECEIVED, _RELEASED_AGAIN})


class Outgoing:
    """A message on its way to the broker.

    Args:
        topic: Where it goes.
        head: The topic as `head_of` encodes it.
        payload: Its bytes.
        qos: 0, 1 or 2.
        retain: Whether the broker keeps it.
        delivery: Of the message that it was made of, if it has one.
        item: What it was made of, if that is still needed when the broker refuses it.

    Attributes:
        number: Its place among all that were given to the outbox.
        packet_id: 0 before it is sent in the session that stands.
    """

    __slots__ = (
        "delivery",
        "head",
        "item",
        "number",
        "packet_id",
        "payload",
        "qos",
        "retain",
        "state",
        "topic",
    )

    def __init__(  # noqa: PLR0913, PLR0917 (each is one fact; positional: a third of the cost)
        self,
        topic: str,
        head: bytes,
        payload: bytes,
        qos: int,
        retain: bool,  # noqa: FBT001
        delivery: Token | None,
        item: Any = None,
    ) -> None:
        self.topic = topic
        self.head = head
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.delivery = delivery
        self.item = item
        self.number = self.packet_id = 0
        self.state = _WAITS


class Limits(NamedTuple):
    """The limits in CONNACK that concern publishing.

    Attributes:
        session_present: The broker kept the session, and with it the packet ids.
    """

    session_present: bool
    is_5: bool = False
    receive_maximum: int = _LAST_ID
    maximum_packet_bytes: int = _LONGEST + 5
    maximum_qos: int = 2
    keeps_retained: bool = True


class Outbox:
    """Messages that are queued, in flight, or answered and not yet reported.

    Attributes:
        waiting: What is to be sent next, in order; what was sent on an earlier connection is first.
        waiting_bytes: Of these, without their headers.
        stored: What the broker acknowledged (QoS 0: what was written), to be taken by the owner.
        refused: What the broker refused, or would have to, each with the reason; likewise.
        accused: The `suspects` of the connection that ended last.
        is_connected: True from `connected` to `disconnected`.
    """

    def __init__(self) -> None:
        self.waiting: deque[Outgoing] = deque()
        self.waiting_bytes = 0
        self.stored: list[Outgoing] = []
        self.refused: list[tuple[Outgoing, str]] = []
        self.is_connected = False
        self.accused: list[str] = []
        self._numbers = 0
        self._last_id = 0
        self._taken: dict[int, Outgoing] = {}  # by packet id, in the order first sent
        self._released: dict[int, Outgoing] = {}  # PUBREC came; in the order of PUBREC
        self._in_flight = 0  # of this connection
        self._unwritten: deque[tuple[int, Outgoing]] = deque()  # QoS 0, and where each ends
        self._answers = bytearray()  # PUBREL
        self._topics0: deque[str] = deque(maxlen=_TOPICS_REMEMBERED)  # of QoS 0, written last
        self._limits = Limits(session_present=False)
        self._window = 0
        self._longest = 0
        self._overhead = [0, 2, 2]  # bytes besides topic and payload, for each QoS
        self._is_limited = False

    # -- what the owner asks ----------------------------------------------------------------------

    @property
    def unsettled(self) -> int:
        """The number of messages that are neither stored nor refused yet."""
        return len(self.waiting) + self._in_flight + len(self._unwritten)

    @property
    def has_news(self) -> bool:
        """True if something was answered that the owner has not taken, or is to be answered."""
        return bool(self.stored or self.refused or self._answers)

    @property
    def is_ready(self) -> bool:
        """True if `packets` would make any."""
        if not self.is_connected:
            return False
        if self._answers:
            return True
        waiting = self.waiting
        return bool(waiting) and (waiting[0].qos == 0 or self._in_flight < self._window)

    def add(self, outgoing: Outgoing) -> None:
        """Publish it, after all that was added before."""
        self._numbers = outgoing.number = self._numbers + 1
        self.waiting.append(outgoing)
        self.waiting_bytes += len(outgoing.head) + len(outgoing.payload)

    def clear(self) -> list[Outgoing]:
        """Forget all that is not stored, and return it."""
        held = [each for each in self._taken.values() if each.state not in {_WAITS, _DONE}]
        held += [each for _, each in self._unwritten]
        held += [each for each in self.waiting if each.state == _WAITS]
        held += [each for each, _ in self.refused]
        for forgotten in (self._taken, self._released, self._unwritten, self.waiting, self.refused):
            forgotten.clear()
        self._answers.clear()
        self._in_flight = self.waiting_bytes = 0
        return held

    def suspects(self) -> list[str]:
        """The topics of what the broker may mean when it closes this connection, latest first."""
        topics = [each.topic for each in self._taken.values() if each.state == _SENT]
        topics = [*self._topics0, *(each.topic for _, each in self._unwritten), *topics]
        return list(dict.fromkeys(reversed(topics)))

    # -- the connection ---------------------------------------------------------------------------

    def connected(self, limits: Limits) -> None:
        """CONNACK has come: what was sent before comes first, with its packet id if that is known.

        Without the session, the broker knows no packet id any more: all is sent as if it were new,
        and what it had received and not been told to release, too [MQTT-4.1.0-1].
        """
        self._limits = limits
        self._window = max(1, min(limits.receive_maximum, MOST_IN_FLIGHT))
        self._longest = _longest(limits.maximum_packet_bytes)
        self._overhead = [at_qos + limits.is_5 for at_qos in (0, 2, 2)]
        self._is_limited = limits.maximum_qos < 2 or not limits.keeps_retained  # noqa: PLR2004
        self._topics0.clear()
        self._answers.clear()
        self.is_connected = True
        if limits.session_present:
            for packet_id, each in self._released.items():
                each.state = _RELEASED_AGAIN
                self._release(packet_id)
            self._in_flight = len(self._released)
            return
        again = [each for each in self.waiting if each.state == _WAITS]
        again += self._released.values()
        for each in again:
            each.state, each.packet_id = _WAITS, 0
        self.waiting = deque(sorted(again, key=_number))
        self.waiting_bytes = _bytes(self.waiting)
        self._taken.clear()
        self._released.clear()
        self._in_flight = 0

    def disconnected(self, written: int) -> None:
        """The connection is gone: what was sent and not acknowledged waits, before all else.

        Args:
            written: As for `written`.
        """
        self.written(written)
        self.accused = self.suspects()
        self.is_connected = False
        again = [each for each in self._taken.values() if each.state == _SENT]
        for each in again:
            each.state = _WAITS
        again += [each for _, each in self._unwritten]
        again.sort(key=_number)
        self._unwritten.clear()
        self._answers.clear()
        self.waiting.extendleft(reversed(again))
        self.waiting_bytes += _bytes(again)
        self._in_flight = len(self._released)

    def packets(self, at: int, room: int) -> bytearray:
        """The bytes to write now: PUBREL, and PUBLISH while the broker's window has room.

        Args:
            at: How many bytes this connection was given before.
            room: Stop after so many.
        """
        out, self._answers = self._answers, bytearray()
        waiting, window = self.waiting, self._window
        size = 0
        while waiting and len(out) < room:
            outgoing = waiting[0]
            qos = outgoing.qos
            if outgoing.state == _WAITS:  # else it was answered meanwhile
                if qos and self._in_flight >= window:
                    break
                length = len(outgoing.head) + len(outgoing.payload) + self._overhead[qos]
                if length > self._longest or (self._is_limited and self._forbids(outgoing)):
                    self._refuse(outgoing, self._forbids(outgoing) or self._too_large(length))
                else:
                    self._write(outgoing, length, out)
                    if not qos:
                        self._unwritten.append((at + len(out), outgoing))
            waiting.popleft()
            size += len(outgoing.head) + len(outgoing.payload)
        self.waiting_bytes -= size
        return out

    def _write(self, outgoing: Outgoing, length: int, out: bytearray) -> None:
        first = _PUBLISH | outgoing.qos << 1 | outgoing.retain
        packet_id = outgoing.packet_id
        if packet_id:
            first |= _DUPLICATE  # [MQTT-3.3.1-1]
        elif outgoing.qos:
            packet_id = outgoing.packet_id = self._next_id()
            self._taken[packet_id] = outgoing
        if length < 128:  # noqa: PLR2004 (it has one byte)
            out += (first << 8 | length).to_bytes(2)
        else:
            out.append(first)
            out += _varying(length)
        out += outgoing.head
        if packet_id:
            outgoing.state = _SENT
            self._in_flight += 1
            out += packet_id.to_bytes(2)
        if self._limits.is_5:
            out.append(0)  # no properties
        out += outgoing.payload

    def written(self, count: int) -> None:
        """So many bytes of this connection have left: what of QoS 0 ends before is stored."""
        unwritten = self._unwritten
        while unwritten and unwritten[0][0] <= count:
            _, outgoing = unwritten.popleft()
            self._topics0.append(outgoing.topic)
            self.stored.append(outgoing)

    def _next_id(self) -> int:
        packet_id, taken = self._last_id, self._taken
        while True:
            packet_id = packet_id % _LAST_ID + 1
            if packet_id not in taken:
                self._last_id = packet_id
                return packet_id

    # -- what the broker says ---------------------------------------------------------------------

    def answered(self, kind: int, packet_id: int, more: bytes = b"") -> None:
        """PUBACK, PUBREC or PUBCOMP has come. One for a packet id that is not in use says nothing.

        Args:
            kind: Which of them: the first byte of the packet.
            packet_id: Which message it is about.
            more: The rest of it on MQTT 5, which is sound: a reason code, and properties.

        Raises:
            MalformedPacketError: It is no answer to what was sent.
        """
        code = more[0] if more else 0
        outgoing = self._taken.get(packet_id)
        if kind == PUBACK:
            if outgoing is None:
                return
            if outgoing.qos != 1:
                raise _wrong("PUBACK", outgoing)
            self._settle(outgoing, code, more)
        elif kind == PUBREC:
            self._received(packet_id, outgoing, code, more)
        elif outgoing is not None:
            if outgoing.state not in _HAS_PUBREC:
                raise _wrong("PUBCOMP", outgoing)
            if code == _ID_NOT_FOUND and outgoing.state == _RELEASED_AGAIN:
                code = 0  # it had completed this before the connection broke [3.7.2.1]
            self._settle(outgoing, code, more)

    def _received(self, packet_id: int, outgoing: Outgoing | None, code: int, more: bytes) -> None:
        if outgoing is None:
            if code < _FAILURE:
                self._release(packet_id, _ID_NOT_FOUND)
        elif outgoing.qos == 1:
            raise _wrong("PUBREC", outgoing)
        elif code >= _FAILURE:  # which frees the packet id [MQTT-4.3.3-4]
            self._settle(outgoing, code, more)
        else:
            if packet_id not in self._released:
                if outgoing.state == _WAITS:  # an answer to what was sent on an earlier connection
                    self._in_flight += 1
                outgoing.state = _RECEIVED
                self._released[packet_id] = outgoing
            self._release(packet_id)

    def _release(self, packet_id: int, code: int = 0) -> None:
        body = packet_id.to_bytes(2)
        if code and self._limits.is_5:
            body += bytes([code])
        self._answers += bytes([0x62, len(body)]) + body

    def _settle(self, outgoing: Outgoing, code: int, more: bytes) -> None:
        said = _reason_string(more[1:])
        if code >= _FAILURE:
            self._refuse(outgoing, reason_text(code, said))
            return
        self._drop(outgoing)
        self.stored.append(outgoing)

    def _refuse(self, outgoing: Outgoing, reason: str) -> None:
        self._drop(outgoing)
        self.refused.append((outgoing, reason))

    def _drop(self, outgoing: Outgoing) -> None:
        """It needs its packet id no more."""
        if outgoing.state != _WAITS:
            self._in_flight -= 1
        outgoing.state = _DONE
        if outgoing.packet_id:
            self._taken.pop(outgoing.packet_id, None)
            self._released.pop(outgoing.packet_id, None)

    def _forbids(self, outgoing: Outgoing) -> str:
        """Return the limit in CONNACK that forbids publishing this; empty if there is none."""
        limits = self._limits
        if outgoing.qos > limits.maximum_qos:  # [MQTT-3.2.2-11]
            return f"the broker takes no QoS above {limits.maximum_qos} (Maximum QoS)"
        if outgoing.retain and not limits.keeps_retained:  # [MQTT-3.2.2-14]
            return "the broker keeps no messages for later subscribers (Retain Available)"
        return ""

    def _too_large(self, length: int) -> str:
        size = 1 + len(_varying(length)) + length
        most = self._limits.maximum_packet_bytes
        return f"{size:,} bytes are larger than the broker takes, {most:,} (Maximum Packet Size)"


def head_of(topic: bytes) -> bytes:
    """A topic with its length, as it stands in PUBLISH."""
    return len(topic).to_bytes(2) + topic


def _wrong(name: str, outgoing: Outgoing) -> MalformedPacketError:
    waits = {1: "PUBACK", 2: "PUBCOMP" if outgoing.state in _HAS_PUBREC else "PUBREC"}[outgoing.qos]
    text = f"{name} for packet id {outgoing.packet_id}, which waits for {waits}"
    return MalformedPacketError(text, PROTOCOL_ERROR)


def _number(outgoing: Outgoing) -> int:
    return outgoing.number


def _bytes(messages: deque[Outgoing] | list[Outgoing]) -> int:
    return sum(len(each.head) + len(each.payload) for each in messages)


def _varying(length: int) -> bytes:
    encoded = bytearray()
    while True:
        length, digit = divmod(length, 128)
        encoded.append(digit | (0x80 if length else 0))
        if not length:
            return bytes(encoded)


def _longest(packet_bytes: int) -> int:
    """The greatest remaining length of a packet of at most so many bytes."""
    return max(min(packet_bytes - 1 - digits, 128**digits - 1) for digits in range(1, 5))


def _reason_string(raw: bytes) -> str:
    """Return the reason string in an answer's valid properties, which begin with their length."""
    at = next((at + 1 for at, byte in enumerate(raw) if byte < 0x80), 0)  # noqa: PLR2004
    while at < len(raw):
        stop = at + 3 + int.from_bytes(raw[at + 1 : at + 3])
        if raw[at] == _REASON_STRING:
            return raw[at + 3 : stop].decode()
        at = stop + 2 + int.from_bytes(raw[stop : stop + 2])  # the value of a user property
    return ""
