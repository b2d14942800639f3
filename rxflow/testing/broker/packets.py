"""The packets of MQTT 3.1.1 and 5 from the broker's side: bytes to names and back. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = range(0x10, 0x80, 0x10)
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT = range(0x80, 0xF0, 0x10)

VERSION_5: Final = 5

_RECEIVE_MAXIMUM: Final = 0x21
_SESSION_EXPIRY: Final = 0x11
_FOR_EVER: Final = 0xFFFF_FFFF
# Bytes of the value of each property that a client may send; 0: a string; -1: a number of 1 to 4.
_SIZES: Final = {
    0x01: 1, 0x02: 4, 0x03: 0, 0x08: 0, 0x09: 0, 0x0B: -1, 0x11: 4, 0x15: 0, 0x16: 0, 0x17: 1,
    0x19: 1, 0x1F: 0, 0x21: 2, 0x22: 2, 0x23: 2, 0x27: 4,
}  # fmt: skip
_USER_PROPERTY: Final = 0x26


class Connect(NamedTuple):
    """The contents of a CONNECT."""

    version: int
    client_id: str
    is_clean: bool
    expiry: float  # seconds that its session outlives the connection
    receive_maximum: int


class Publish(NamedTuple):
    """A message from a client."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    packet_id: int


class Wish(NamedTuple):
    """One filter of a SUBSCRIBE."""

    filter: str
    qos: int
    handling: int  # of retained messages: 0 send, 1 send if it is new, 2 don't


class Body:
    """The body of a packet, read from the front."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def rest(self) -> bytes:
        """The bytes that are not read yet."""
        return self._data[self._at :]

    def take(self, size: int) -> bytes:
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def text(self) -> str:
        return self.take(self.number(2)).decode()

    def varying(self) -> int:
        value = shift = 0
        while (byte := self.number(1)) > 127:  # noqa: PLR2004 (the continuation bit)
            value |= (byte & 127) << shift
            shift += 7
        return value | byte << shift

    def properties(self, version: int) -> dict[int, int]:
        """The numbers among the properties; 3.1.1 has none."""
        found: dict[int, int] = {}
        if version < VERSION_5:
            return found
        end = self.varying() + self._at
        while self._at < end:
            kind = self.number(1)
            if kind == _USER_PROPERTY:
                self.text()
                self.text()
            elif (size := _SIZES[kind]) > 0:
                found[kind] = self.number(size)
            elif size:
                found[kind] = self.varying()
            else:
                self.take(self.number(2))
        return found


def packet(first: int, body: bytes = b"") -> bytes:
    """The bytes of one packet."""
    length, encoded = len(body), bytearray()
    while True:
        length, digit = divmod(length, 128)
        encoded.append(digit | (0x80 if length else 0))
        if not length:
            return bytes([first]) + bytes(encoded) + body


def whole(buffer: bytearray) -> Iterator[tuple[int, Body]]:
    """Take each whole packet out of a buffer."""
    while stop := _stop(buffer):
        start = next(at for at in range(1, 5) if buffer[at] < 128) + 1  # noqa: PLR2004 (the last)
        first, body = buffer[0], bytes(buffer[start:stop])
        del buffer[:stop]
        yield first, Body(body)


def _stop(buffer: bytearray) -> int:
    """Return the end of the first packet; 0 if it is not whole."""
    length = 0
    for count, byte in enumerate(buffer[1:5]):
        length |= (byte & 127) << 7 * count
        if byte < 128:  # noqa: PLR2004 (the last byte)
            stop = count + 2 + length
            return stop if stop <= len(buffer) else 0
    return 0


def read_connect(body: Body) -> Connect:
    """Take CONNECT apart."""
    body.text()
    version, flags = body.number(1), body.number(1)
    body.number(2)  # keep alive: this broker has patience
    properties = body.properties(version)
    client_id = body.text()
    is_clean = bool(flags & 2)
    kept: float = 0 if is_clean else _FOR_EVER
    if version >= VERSION_5:
        kept = properties.get(_SESSION_EXPIRY, 0)
    return Connect(
        version,
        client_id,
        is_clean,
        float("inf") if kept == _FOR_EVER else kept,
        properties.get(_RECEIVE_MAXIMUM, 0xFFFF),
    )


def read_publish(first: int, body: Body, version: int) -> Publish:
    """Take PUBLISH apart."""
    topic, qos = body.text(), first >> 1 & 3
    packet_id = body.number(2) if qos else 0
    body.properties(version)
    return Publish(topic, body.rest, qos, bool(first & 1), packet_id)


def read_subscribe(body: Body, version: int) -> tuple[int, list[Wish]]:
    """Take SUBSCRIBE apart: its packet id, and its filters."""
    packet_id = body.number(2)
    body.properties(version)
    wishes: list[Wish] = []
    while body.rest:
        name, options = body.text(), body.number(1)
        wishes.append(Wish(name, options & 3, options >> 4 & 3))
    return packet_id, wishes


def connack(version: int, *, session_present: bool) -> bytes:
    """CONNACK, which accepts."""
    return packet(CONNACK, bytes([session_present, 0]) + b"\0" * (version >= VERSION_5))


def suback(version: int, packet_id: int, codes: list[int]) -> bytes:
    """SUBACK, with a code for each filter."""
    return packet(SUBACK, packet_id.to_bytes(2) + b"\0" * (version >= VERSION_5) + bytes(codes))


def publish(  # noqa: PLR0913 (each is a field of the packet)
    version: int,
    topic: str,
    payload: bytes,
    *,
    qos: int,
    retain: bool,
    duplicate: bool = False,
    packet_id: int = 0,
) -> bytes:
    """PUBLISH, without properties."""
    name = topic.encode()
    head = len(name).to_bytes(2) + name + (packet_id.to_bytes(2) if qos else b"")
    head += b"\0" * (version >= VERSION_5)
    return packet(PUBLISH | duplicate << 3 | qos << 1 | retain, head + payload)


def answer(kind: int, packet_id: int) -> bytes:
    """PUBACK, PUBREC, PUBREL or PUBCOMP."""
    return packet(kind | (2 if kind == PUBREL else 0), packet_id.to_bytes(2))
