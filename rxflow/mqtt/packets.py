"""Checks of the packets that a broker sends besides PUBLISH, before anybody acts on them. Pure.

paho takes the flags, the lengths and most of the values of these packets as they come; here they
are held against the standard, so that what is acted on is what the broker can have meant.
"""

from __future__ import annotations

from typing import Final

CONNACK: Final = 0x20
PUBLISH: Final = 0x30
PUBACK: Final = 0x40
PUBREC: Final = 0x50
PUBREL: Final = 0x60
PUBCOMP: Final = 0x70
SUBACK: Final = 0x90
UNSUBACK: Final = 0xB0
PINGRESP: Final = 0xD0
DISCONNECT: Final = 0xE0
AUTH: Final = 0xF0

MALFORMED: Final = 0x81
PROTOCOL_ERROR: Final = 0x82
ALIAS_INVALID: Final = 0x94

_FAILURE: Final = 0x80
ANSWERS: Final = {PUBACK, PUBREC, PUBREL | 2, PUBCOMP}  # with their flags

# Types of the values of properties [MQTT 5, 2.2.2.2]: bytes of a number, or
_TEXT, _PAIR, _BYTES = -1, -2, -3
_TYPES: Final = {
    0x11: 4, 0x12: _TEXT, 0x13: 2, 0x15: _TEXT, 0x16: _BYTES, 0x1A: _TEXT, 0x1C: _TEXT,
    0x1F: _TEXT, 0x21: 2, 0x22: 2, 0x24: 1, 0x25: 1, 0x26: _PAIR, 0x27: 4, 0x28: 1, 0x29: 1,
    0x2A: 1,
}  # fmt: skip
_SAID: Final = frozenset({0x1F, 0x26})  # a reason, and user properties
_ALLOWED: Final = {
    CONNACK: frozenset(_TYPES) - {0x1B},
    DISCONNECT: _SAID | {0x1C},  # a server says nothing of the session's expiry [MQTT-3.14.2-2]
}
_NEVER_0: Final = frozenset({0x21, 0x27})
_FLAGS: Final = frozenset({0x24, 0x25, 0x28, 0x29, 0x2A})  # 0 or 1

_REFUSALS: Final = frozenset({
    *range(0x80, 0x8B), 0x8C, 0x90, 0x95, 0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
})  # fmt: skip
_PUBLISHED: Final = frozenset({0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99})
_REASONS: Final = {
    CONNACK: _REFUSALS | {0x00},
    PUBACK: _PUBLISHED,
    PUBREC: _PUBLISHED,
    PUBREL: frozenset({0x00, 0x92}),
    PUBCOMP: frozenset({0x00, 0x92}),
    SUBACK: frozenset({0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2}),
    UNSUBACK: frozenset({0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91}),
    DISCONNECT: frozenset({0x00, *range(0x80, 0xA3)} - {0x84, 0x85, 0x86, 0x88, 0x8A, 0x8C, 0x91}),
}
_GRANTED_3: Final = frozenset({0, 1, 2, 0x80})
_OLD_REFUSALS: Final = range(1, 6)  # of a broker of 3.1.1 that was asked in MQTT 5


class MalformedPacketError(ValueError):
    """The broker sent what the standard forbids; the connection can't go on.

    Attributes:
        code: The reason code that says so in a DISCONNECT of MQTT 5.
    """

    def __init__(self, text: str, code: int = MALFORMED) -> None:
        super().__init__(text)
        self.code = code


def check_packet(first: int, body: bytes, *, is_5: bool) -> None:
    """Refuse a packet that no broker may send, whatever came before it.

    Args:
        first: Its first byte: type and flags.
        body: All behind its length.
        is_5: Whether the connection is one of MQTT 5.

    Raises:
        MalformedPacketError: It says what is wrong.
    """
    kind = first & 0xF0
    if kind == AUTH and is_5:
        raise MalformedPacketError("AUTH, which nobody asked for", PROTOCOL_ERROR)
    if kind not in _CHECKS or (kind == DISCONNECT and not is_5):
        raise MalformedPacketError(f"a packet of type {kind >> 4}", PROTOCOL_ERROR)
    if first & 0x0F != (2 if kind == PUBREL else 0):  # [MQTT-2.1.3-1], [MQTT-2.2.2-2]
        raise MalformedPacketError(f"flags {first & 0x0F} in a packet of type {kind >> 4}")
    _CHECKS[kind](kind, body, is_5)


def _check_id(body: bytes) -> None:
    if len(body) < 2 or not (body[0] or body[1]):  # noqa: PLR2004 (bytes of a packet id)
        raise MalformedPacketError("an answer with packet id 0, or without one")


def _check_answer(kind: int, body: bytes, is_5: bool) -> None:  # noqa: FBT001 (as in `check_packet`)
    _check_id(body)
    if len(body) > 2:  # noqa: PLR2004 (bytes of a packet id)
        if not is_5:
            raise MalformedPacketError("an answer that is too long")
        _check_reason(kind, body[2])
        if len(body) > 3:  # noqa: PLR2004 (and of the reason)
            _check_end(body, _properties(kind, body, 3))


def _check_codes(kind: int, body: bytes, is_5: bool) -> None:  # noqa: FBT001 (as in `check_packet`)
    """SUBACK and UNSUBACK."""
    _check_id(body)
    at = _properties(kind, body, 2) if is_5 else 2
    if kind == UNSUBACK and not is_5:
        _check_end(body, at)
    elif at == len(body):
        raise MalformedPacketError("an answer to SUBSCRIBE or UNSUBSCRIBE without a reason code")
    for code in body[at:]:
        if not is_5 and code not in _GRANTED_3:  # [MQTT-3.9.3-2]
            raise MalformedPacketError(f"return code {code:#04x} in SUBACK", PROTOCOL_ERROR)
        _check_reason(kind, code)


def _check_connack(kind: int, body: bytes, is_5: bool) -> None:  # noqa: FBT001 (as in `check_packet`)
    if len(body) < 2:  # noqa: PLR2004 (flags and code)
        raise MalformedPacketError("CONNACK cut off")
    if body[0] > 1:  # [MQTT-3.2.2-1]
        raise MalformedPacketError(f"flags {body[0]} in CONNACK")
    if not is_5 or (len(body) == 2 and body[1] in _OLD_REFUSALS):  # noqa: PLR2004
        _check_end(body, 2)
        return
    _check_reason(kind, body[1])
    _check_end(body, _properties(kind, body, 2))


def _check_disconnect(kind: int, body: bytes, is_5: bool) -> None:  # noqa: FBT001
    del is_5
    if body:
        _check_reason(kind, body[0])
    if len(body) > 1:
        _check_end(body, _properties(kind, body, 1))


def _check_pingresp(kind: int, body: bytes, is_5: bool) -> None:  # noqa: FBT001
    del kind, is_5
    _check_end(body, 0)


def _check_reason(kind: int, code: int) -> None:
    if code not in _REASONS[kind]:
        text = f"reason code {code:#04x} in a packet of type {kind >> 4}"
        raise MalformedPacketError(text, PROTOCOL_ERROR)


def _check_end(body: bytes, at: int) -> None:
    if at != len(body):
        raise MalformedPacketError(f"{len(body) - at} bytes behind the end of a packet")


def _properties(kind: int, body: bytes, at: int) -> int:
    """Look at the properties that begin here; say where they end."""
    at, size = _varying(body, at)
    end = at + size
    if end > len(body):
        raise MalformedPacketError("properties longer than their packet")
    allowed = _ALLOWED.get(kind, _SAID)
    seen: set[int] = set()
    while at < end:
        identifier = body[at]
        if identifier not in allowed:
            text = f"property {identifier:#04x} in a packet of type {kind >> 4}"
            raise MalformedPacketError(text, PROTOCOL_ERROR)
        if identifier in seen:
            raise MalformedPacketError(f"property {identifier:#04x} twice", PROTOCOL_ERROR)
        if identifier != 0x26:  # noqa: PLR2004 (user properties may come as often as they like)
            seen.add(identifier)
        at = _value(identifier, body, at + 1, end)
    return end


def _value(identifier: int, body: bytes, at: int, end: int) -> int:
    kind = _TYPES[identifier]
    if kind > 0:
        value = int.from_bytes(body[at : at + kind])
        stop = at + kind
        is_wrong = (not value and identifier in _NEVER_0) or (value > 1 and identifier in _FLAGS)
        if stop <= end and is_wrong:
            raise MalformedPacketError(f"property {identifier:#04x} is {value}", PROTOCOL_ERROR)
    elif kind == _PAIR:
        stop = _text(body, _text(body, at))
    elif kind == _TEXT:
        stop = _text(body, at)
    else:
        stop = at + 2 + int.from_bytes(body[at : at + 2])
    if stop > end:
        raise MalformedPacketError("properties end in the middle")
    return stop


def _text(body: bytes, at: int) -> int:
    stop = at + 2 + int.from_bytes(body[at : at + 2])
    try:
        text = body[at + 2 : stop].decode()
    except UnicodeDecodeError:
        raise MalformedPacketError("a text that is not UTF-8") from None  # [MQTT-1.5.4-1]
    if "\0" in text:
        raise MalformedPacketError("U+0000 in a text")  # [MQTT-1.5.4-2]
    return stop


def _varying(body: bytes, at: int) -> tuple[int, int]:
    """Return the start of the part that a length describes, and that length."""
    value = 0
    for count, byte in enumerate(body[at : at + 4]):
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:  # noqa: PLR2004 (the continuation bit)
            if count and not byte:
                raise MalformedPacketError("a length in more bytes than it needs")  # [MQTT-1.5.5-1]
            return at + count + 1, value
    raise MalformedPacketError("a packet without the length of its properties, or a wrong one")


_CHECKS: Final = {
    CONNACK: _check_connack,
    PUBACK: _check_answer,
    PUBREC: _check_answer,
    PUBREL: _check_answer,
    PUBCOMP: _check_answer,
    SUBACK: _check_codes,
    UNSUBACK: _check_codes,
    PINGRESP: _check_pingresp,
    DISCONNECT: _check_disconnect,
}
