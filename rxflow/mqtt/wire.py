"""The socket under paho: it reads a burst in one call and decodes every PUBLISH itself.

paho reads a packet byte by byte and acknowledges QoS 2 before anybody has the message. So it is
given this object as its socket (`tls_set_context`, see `_paho`): complete PUBLISH and PUBREL
packets are dealt with here, all other packets are passed through to paho. All output, paho's and
ours, goes through one buffer, whole packets only.
"""

from __future__ import annotations

import ssl
import time
import zlib
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, Protocol

from rxflow.delivery import Delivery, Ledger, Token
from rxflow.message import Message
from rxflow.mqtt.outbox import Outbox
from rxflow.mqtt.output import Output
from rxflow.mqtt.packets import (
    ANSWERS,
    PROTOCOL_ERROR,
    PUBACK,
    PUBCOMP,
    PUBREC,
    MalformedPacketError,
    check_packet,
)
from rxflow.properties import NONE, Properties, check

READ_AT_ONCE: Final = 256 * 1024
"""Bytes of one read pass at most."""

HELD_BACK: Final = 1024 * 1024
"""Above so many bytes of output that the broker does not take, nothing more is read."""

_FEW_BYTES: Final = 16 * 1024
"""Enough for a quiet stream; to make room for a burst costs more than to read a little."""

_GROWTH: Final = 100
"""Bytes of an unfinished packet that show that its sender still sends it."""

_TOPIC_BYTES_KEPT: Final = 16 * 1024 * 1024
_TOPIC_COSTS: Final = 100  # bytes, besides its name

CONNACK: Final = 0x20
_PUBLISH: Final = 0x30
_PUBREL: Final = 0x60
_PINGRESP: Final = 0xD0
_ANSWERS: Final = frozenset({PUBACK, PUBREC, PUBCOMP})  # to a PUBLISH of ours


class Stream(Protocol):
    """Bytes in and out: a TCP or TLS socket, or a WebSocket on top of one."""

    def recv(self, size: int, /) -> bytes: ...
    def send(self, data: bytes | bytearray | memoryview, /) -> int: ...
    def close(self) -> None: ...
    def fileno(self) -> int: ...
    def settimeout(self, seconds: float | None, /) -> None: ...
    def pending(self) -> int: ...
    def do_handshake(self) -> None: ...


class Receiver(Protocol):
    """The receiver of the messages."""

    ledger: Ledger

    @property
    def on_next(self) -> Callable[[Message[bytes]], object]:
        """Called with each message of the next pass."""
        ...

    def admit(self, topic: bytes) -> str | None:
        """The topic as text; None if the user has let go of it.

        Raises:
            ValueError: No topic may be so.
        """
        ...

    def oversized(self, message: Message[bytes], size: int) -> None:
        """This message came in a packet of `size` bytes, above the limit; without its payload."""
        ...


class Wire:
    """paho's socket, and our way past it. Used by one thread, save its `output`.

    Args:
        stream: What carries the bytes.
        receiver: Who gets the messages.
        passed: Called with the first byte of each packet that lies ready for paho, in order.
        is_5: True on MQTT 5, whose PUBLISH has properties.
        max_packet_bytes: Of a PUBLISH that is larger only the topic is kept; any other packet that
            is larger is a protocol error.
        max_pending: With so many deliveries unsettled, it pauses.
        max_pending_bytes: Likewise, in bytes of the large ones.
        now: The clock for `received_at`.
        clock: Seconds, for `last_read`.
    """

    def __init__(  # noqa: PLR0913 (each is one fact)
        self,
        stream: Stream,
        receiver: Receiver,
        passed: Callable[[int], object],
        *,
        is_5: bool,
        max_packet_bytes: int,
        max_pending: int,
        max_pending_bytes: int,
        now: Callable[[], datetime],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._receiver = receiver
        self._tell_passed = passed
        self._is_5 = is_5
        self._max_packet_bytes = max_packet_bytes
        self._max_pending = max_pending
        self._max_pending_bytes = max_pending_bytes
        self._now = now
        self._clock = clock
        self._data = b""  # read, from `_at` on not decoded yet
        self._at = 0
        self._later: list[bytes] = []  # read, of a packet of which still more is to come
        self._missing = 0  # bytes of that packet
        self._skip = 0  # bytes to come of a packet that is too large, and not kept
        self._grown = 0  # bytes that have come since
        self._grown_at = clock()  # the latest packet was whole, or an unfinished one had grown
        self._sound = b""  # the latest properties
        self._topics: dict[bytes, str | None] = {}
        self._topic_bytes = 0
        self._passed = bytearray()  # whole packets for paho
        self.output = Output(stream, clock)
        self.outbox: Outbox | None = None  # hears what becomes of what was published
        self._is_at_end = False
        self._expected = _FEW_BYTES
        self.message: Message[bytes] | None = None  # on its way through a pipeline
        self.is_stopped = False  # no message may be decoded now
        self.has_ended = False  # nor ever
        self.is_paused = False  # `max_pending` is reached: neither decode nor read
        self.connack_code = -1
        self.awaits_connack = False  # no other packet may come before it
        self.heard = 0  # bytes read, but for answers to pings
        self.trouble = ""  # why the stream ended, if it said so
        self.last_read = clock()

    # -- paho's side: a socket ----------------------------------------------------------------

    def recv(self, size: int) -> bytes:
        if self._passed:
            taken = bytes(self._passed[:size])
            del self._passed[:size]
            return taken
        if self._is_at_end:
            return b""
        raise BlockingIOError

    def send(self, data: bytes | bytearray) -> int:
        return self.output.add(data)

    def close(self) -> None:
        # paho closes it when the connection ends; the loop must first stop watching it: `end`.
        self.stop()

    def fileno(self) -> int:
        return self._stream.fileno()

    def settimeout(self, seconds: float | None) -> None:
        self._stream.settimeout(seconds)

    def setblocking(self, flag: bool) -> None:  # noqa: FBT001 (a socket's signature)
        self._stream.settimeout(None if flag else 0.0)

    def pending(self) -> int:
        return len(self._passed)

    def do_handshake(self) -> None:
        self._stream.do_handshake()

    # -- our side ---------------------------------------------------------------------------------

    @property
    def has_passed(self) -> bool:
        """True while paho has something to read, be it the end."""
        return bool(self._passed) or self._is_at_end

    @property
    def has_more(self) -> bool:
        """True if bytes wait that no readable event will announce."""
        return self._stream.pending() > 0

    @property
    def has_room(self) -> bool:
        """True when half of what may be held is settled."""
        ledger = self._receiver.ledger
        few = ledger.unsettled <= self._max_pending // 2
        return few and ledger.heavy <= self._max_pending_bytes // 2

    def read(self) -> None:
        """One pass: read what is there, decode it, hand on each message.

        Raises:
            MalformedPacketError: The connection must be closed.
            Exception: Whatever the observer raised.
        """
        with self.output.lock:
            chunks = self._chunks()
        if not chunks:
            return
        self.last_read = self._clock()
        count = sum(map(len, chunks))
        self._grown += count
        self.heard += count
        if self._skip and not (chunks := self._not_skipped(chunks)):
            self._note_growth()
            return
        if self._missing > 0:  # to join a large packet with each of its parts is quadratic
            self._missing -= count
            self._later += chunks
            if self._missing > 0:
                self._note_growth()
                return
            chunks, self._later = self._later, []
        if self._at < len(self._data):
            chunks.insert(0, self._data[self._at :])
        self._data = b"".join(chunks) if len(chunks) > 1 else chunks[0]
        self._at = 0
        if self.awaits_connack and self._data[0] & 0xF0 != CONNACK:  # [MQTT-3.2.0-1]
            raise MalformedPacketError("a packet before CONNACK", PROTOCOL_ERROR)
        self.decode()
        if self._at:
            self._grown = _GROWTH
        self._note_growth()

    def _not_skipped(self, chunks: list[bytes]) -> list[bytes]:
        """Skip the body of a packet that is too large."""
        data = b"".join(chunks)
        rest = data[self._skip :]
        self._skip = max(0, self._skip - len(data))
        return [rest] if rest else []

    def _note_growth(self) -> None:
        if self._grown >= _GROWTH:
            self._grown, self._grown_at = 0, self.last_read

    def expect(self) -> None:
        """Reading begins, or goes on after a pause: an unfinished packet has its time again."""
        self._grown_at = self._clock()

    @property
    def unfinished_for(self) -> float:
        """For how many seconds a packet that has begun grows by no more than PINGRESPs."""
        has_begun = self._skip or self._later or self._at < len(self._data)
        return self.last_read - self._grown_at if has_begun else 0.0

    def _chunks(self) -> list[bytes]:
        chunks: list[bytes] = []
        size = 0
        try:
            while size < READ_AT_ONCE:
                chunk = self._stream.recv(self._expected)
                if not chunk:
                    self._is_at_end = True
                    break
                size += len(chunk)
                chunks.append(chunk)
                self._expected = READ_AT_ONCE if len(chunk) >= _FEW_BYTES else _FEW_BYTES
                if not self._stream.pending():
                    break
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError as error:
            self._is_at_end = True
            self.trouble = error.strerror or str(error)
        return chunks

    def decode(self) -> None:  # noqa: C901, PLR0912, PLR0915 (the hot path: one loop, no calls)
        """Hand on every complete packet, until `max_pending` is reached.

        Of the time that a message takes here, the two calls of an `__init__` were a tenth: so what
        these would set is set here.
        """
        data, end, at = self._data, len(self._data), self._at
        receiver, topics, largest = self._receiver, self._topics, self._max_packet_bytes
        ledger, limit, on_next = receiver.ledger, self._max_pending, receiver.on_next
        received_at = self._now()
        is_5 = self._is_5
        new, enqueue = object.__new__, ledger.queue.append
        most = self._max_pending_bytes
        heavy = min(largest, most // limit)  # so many that are lighter are within `most` anyway
        room = limit - ledger.unsettled
        known, qos, retain, duplicate = -1, 0, False, False
        properties: Properties | bytes = NONE
        try:
            while not self.is_stopped:
                if end - at < 2:  # noqa: PLR2004 (a packet has two bytes at least)
                    break
                first, length, start = data[at], data[at + 1], at + 2
                if length > 127:  # noqa: PLR2004 (the continuation bit)
                    if end > start and data[start] < 128:  # noqa: PLR2004 (of two bytes: most are)
                        length, start = length & 127 | data[start] << 7, start + 1
                    else:
                        start, length = self._length(data, at + 1)
                        if not start:
                            break
                stop = start + length
                if length > heavy:
                    if length > largest:
                        if not (after := self._oversized(data, at, start, length)):
                            break
                        at = after
                        continue
                    is_counted = stop <= end and _PUBLISH < first & 0xF6 < PUBACK  # of QoS 1 or 2
                    if is_counted and not ledger.weigh(length, most):
                        self.is_paused = True
                        break
                if stop > end:
                    self._missing = stop - end
                    break
                if first != known:  # the same as the packet before, most often
                    if first & 0xF0 != _PUBLISH:
                        begin, at = at, stop
                        self._other(first, data, begin, stop)
                        continue
                    known, qos = first, first >> 1 & 3
                    retain, duplicate = first & 1 == 1, first & 8 == 8  # noqa: PLR2004 (the DUP bit)
                    if duplicate and not qos:  # [MQTT-3.3.1-2]
                        raise MalformedPacketError("a PUBLISH of QoS 0 with DUP")
                rest = start + 2 + (data[start] << 8 | data[start + 1]) if length > 1 else stop + 1
                packet_id, after = 0, rest
                if qos:
                    if room <= 0:
                        ledger.settle()
                        room = limit - ledger.unsettled
                        if room <= 0:
                            self.is_paused = True
                            break
                    room -= 1
                    after = rest + 2
                    packet_id = data[rest] << 8 | data[rest + 1] if after <= stop else 0
                    if not packet_id or qos == 3:  # noqa: PLR2004
                        raise MalformedPacketError("a PUBLISH of QoS 3, or with packet id 0")
                at = stop
                if after > stop:
                    raise MalformedPacketError("a PUBLISH shorter than its own topic")
                if is_5:
                    if after < stop and data[after] == 0:
                        properties = NONE
                        after += 1
                    else:
                        properties, after = self._properties(data, after, stop)
                name = data[start + 2 : rest]
                try:
                    topic = topics[name]
                except KeyError:
                    topic = self._topic(name)
                if qos == 1:
                    delivery: Any = new(Delivery)
                    delivery.ledger = ledger
                    delivery.number = number = ledger.opened
                    ledger.opened = number + 1
                    enqueue(packet_id)
                    delivery.owed = delivery.stored = delivery.sinks = 0
                elif qos:
                    digest = zlib.crc32(data[after:stop], zlib.crc32(name))
                    delivery = ledger.open2(packet_id, digest, duplicate=duplicate)
                    if delivery is None:
                        continue
                else:
                    ledger.received0 += 1
                    delivery = ledger.unacknowledged
                if topic is None:
                    continue
                message: Any = new(Message)
                message.topic = topic
                message.payload = data[after:stop]
                message.qos = qos
                message.retain = retain
                message.duplicate = duplicate
                message._properties = properties  # noqa: SLF001 (its constructor is here)
                message.received_at = received_at
                message.delivery = delivery
                del delivery
                self.message = message
                on_next(message)
                self.message = None
                del message
        finally:
            self._at = at
            self.message = None

    def _length(self, data: bytes, at: int) -> tuple[int, int]:
        """Return the start of the part after a length at `at`, and its length; (0, 0) if cut."""
        value = 0
        for count, byte in enumerate(data[at : at + 4]):
            value |= (byte & 0x7F) << (7 * count)
            if byte < 0x80:  # noqa: PLR2004 (the continuation bit)
                return at + count + 1, value
        if len(data) - at >= 4:  # noqa: PLR2004 (a length has four bytes at most)
            raise MalformedPacketError("a remaining length of more than four bytes")
        return 0, 0

    def _properties(self, data: bytes, at: int, stop: int) -> tuple[bytes, int]:
        size, length = 1, data[at] if at < stop else 128
        if length > 127:  # noqa: PLR2004 (the continuation bit)
            size, length = self._length(data[at : min(stop, at + 4)], 0)
        after = at + size + length
        if not size or after > stop:
            raise MalformedPacketError("properties longer than their PUBLISH")
        if size > 1 and length < 1 << 7 * (size - 1):  # [MQTT-1.5.5-1]
            raise MalformedPacketError("a length of properties in more bytes than it needs")
        raw = data[at + size : after]
        if raw != self._sound:  # a device that says who it is says the same each time
            try:
                check(raw)
            except ValueError as error:
                raise MalformedPacketError(str(error)) from error
            self._sound = raw
        return self._sound, after

    def _oversized(self, data: bytes, at: int, start: int, length: int) -> int:
        """Hand on what a PUBLISH that is too large begins with, and skip the rest.

        Returns:
            Where to go on; 0: later, when its topic is here or there is room.

        Raises:
            MalformedPacketError: It is no PUBLISH, or a malformed one.
        """
        first, end, stop = data[at], len(data), start + length
        qos = first >> 1 & 3
        if first & 0xF0 != _PUBLISH or qos == 3:  # noqa: PLR2004
            raise MalformedPacketError(
                f"a packet of type {first >> 4} and {length:,} bytes; "
                f"max_packet_bytes is {self._max_packet_bytes:,}"
            )
        rest = start + 2 + int.from_bytes(data[start : start + 2])
        after = rest + 2 * bool(qos)
        if min(stop, after) > end or end < start + 2:
            self._missing = max(1, min(stop, after) - end)
            return 0
        packet_id = int.from_bytes(data[rest:after])
        if after > stop or (qos and not packet_id):
            raise MalformedPacketError("a PUBLISH shorter than its own topic, or with packet id 0")
        ledger, name = self._receiver.ledger, data[start + 2 : rest]
        if qos and ledger.unsettled >= self._max_pending:
            ledger.settle()
            if ledger.unsettled >= self._max_pending:
                self.is_paused = True
                return 0
        self._skip = max(0, stop - end)
        topic = self._topics[name] if name in self._topics else self._topic(name)
        delivery: Token | None = ledger.unacknowledged
        if qos == 1:
            delivery = Delivery(ledger, packet_id)
        elif qos:
            digest = zlib.crc32(data[at + 1 : after])  # what it says is not here: length and topic
            delivery = ledger.open2(packet_id, digest, duplicate=bool(first & 8))
        else:
            ledger.received0 += 1
        if delivery and topic is not None:
            retain, duplicate = bool(first & 1), bool(first & 8)
            self._receiver.oversized(
                Message(topic, b"", qos, retain, duplicate, NONE, self._now(), delivery), length
            )
        return min(stop, end)

    def _topic(self, name: bytes) -> str | None:
        """As text, which is remembered, and None too."""
        self._topic_bytes += len(name) + _TOPIC_COSTS
        if self._topic_bytes > _TOPIC_BYTES_KEPT:
            self._topics.clear()
            self._topic_bytes = len(name) + _TOPIC_COSTS
        try:
            topic = self._topics[name] = self._receiver.admit(name)
        except ValueError as error:
            raise MalformedPacketError(f"the topic {name[:80]!r}: {error}") from None
        return topic

    def _other(self, first: int, data: bytes, at: int, stop: int) -> None:
        kind = first & 0xF0
        start = at + 2
        if first not in ANSWERS or data[at + 1] != 2:  # noqa: PLR2004 (by far the most: an id)
            while data[start - 1] > 127:  # noqa: PLR2004 (the continuation bit)
                start += 1
            check_packet(first, data[start:stop], is_5=self._is_5)
        elif not (data[start] or data[start + 1]):
            raise MalformedPacketError("an answer with packet id 0")
        if kind == _PUBREL:
            self._receiver.ledger.release(data[start] << 8 | data[start + 1])
        elif kind in _ANSWERS:
            self._answered(kind, data, start, stop)
        elif kind == _PINGRESP:
            self.heard -= stop - at  # `last_read` says it all
        else:
            if kind == CONNACK:
                if self.connack_code >= 0:  # [MQTT-3.2.0-2]
                    raise MalformedPacketError("a second CONNACK", PROTOCOL_ERROR)
                self.connack_code = data[start + 1]
                self.awaits_connack = False
            # paho refuses U+FEFF in a text, which MQTT does not [MQTT-1.5.4-3].
            self._passed += data[at:stop].replace(b"\xef\xbb\xbf", b"\xef\xbf\xbd")
            self._tell_passed(first)

    def _answered(self, kind: int, data: bytes, start: int, stop: int) -> None:
        """PUBACK, PUBREC or PUBCOMP: hand it to the outbox, if there is one."""
        outbox = self.outbox
        if outbox is None:
            return
        packet_id = data[start] << 8 | data[start + 1]
        if start + 2 == stop:
            outbox.answered(kind, packet_id)
        else:
            outbox.answered(kind, packet_id, data[start + 2 : stop])

    def discard(self) -> bool:
        """Read and throw away; True at the end of the stream."""
        try:
            while self._stream.recv(READ_AT_ONCE):
                pass
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError:
            pass
        return True

    def go_on(self) -> None:
        """Decode messages again after an interruption, unless none may come any more."""
        self.is_stopped = self.has_ended

    def stop(self) -> None:
        """Decode no more messages, for good."""
        self.is_stopped = self.has_ended = True

    def end(self) -> None:
        """Close for good."""
        self.stop()
        self._stream.close()
