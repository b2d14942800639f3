"""The properties of an MQTT 5 PUBLISH, read from their bytes [MQTT-3.3.2.3]."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple


class Properties(NamedTuple):
    """The MQTT 5 properties of a message; all empty under MQTT 3.1.1.

    Attributes:
        user: Names and values in the order sent; a name may come twice.
        content_type: A MIME type, or whatever the publisher means by it.
        response_topic: Where an answer is expected.
        correlation_data: To be sent back with the answer.
        expiry: Seconds of life left when the broker sent the message on.
        is_text: True if the publisher declared the payload as UTF-8 text.
        subscription_ids: Of the subscriptions that matched, where they were given one.
    """

    user: tuple[tuple[str, str], ...] = ()
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    expiry: int | None = None
    is_text: bool = False
    subscription_ids: tuple[int, ...] = ()


NONE: Final = Properties()

_USER: Final = 0x26
_KEPT_AT_MOST: Final = 256  # bytes: a longer text is read again each time, so memory is bounded


def check(raw: bytes) -> None:
    """Find out whether `parse` will read this; quicker where it is user properties.

    Args:
        raw: As for `parse`.

    Raises:
        ValueError: It won't.
    """
    at, end = 0, len(raw)
    lengths = 0
    try:
        while at < end and raw[at] == _USER and not raw[at + 1]:
            at += 3 + raw[at + 2]
            if raw[at]:
                break
            at += 2 + raw[at + 1]
            lengths += 2
    except IndexError:
        at = -1
    # A zero that does not begin a length is U+0000, or the length of an empty text.
    if at != end or raw.count(0) != lengths or not raw.isascii():
        parse(raw)  # which is complete


def parse(raw: bytes) -> Properties:
    """Read the properties of a PUBLISH.

    Args:
        raw: The property bytes, without their length.

    Raises:
        ValueError: They are malformed, or hold one that is not allowed here.
    """
    if not raw:
        return NONE
    return _remembered(raw) if len(raw) <= _KEPT_AT_MOST else _parse(raw)


def _parse(raw: bytes) -> Properties:  # noqa: C901 (one case for each property)
    user: list[tuple[str, str]] = []
    ids: list[int] = []
    single: dict[str, object] = {}
    at, end = 0, len(raw)
    while at < end:
        identifier = raw[at]
        at += 1
        match identifier:
            case 0x26:  # _USER
                name, at = _text(raw, at)
                value, at = _text(raw, at)
                user.append((name, value))
                continue
            case 0x0B:
                number, at = _variable(raw, at)
                if number == 0:
                    raise ValueError("subscription identifier 0")
                ids.append(number)
                continue
            case 0x01:
                key = "is_text"
                read: object = _byte_flag(raw, at)
                at += 1
            case 0x02:
                key, read = "expiry", int.from_bytes(_take(raw, at, 4))
                at += 4
            case 0x03:
                key = "content_type"
                read, at = _text(raw, at)
            case 0x08:
                key = "response_topic"
                read, at = _text(raw, at)
                if "+" in read or "#" in read:  # [MQTT-3.3.2-14]
                    raise ValueError("a response topic with a wildcard")
            case 0x09:
                key = "correlation_data"
                read, at = _binary(raw, at)
            case _:
                raise ValueError(f"property 0x{identifier:02x} is not allowed in this PUBLISH")
        if key in single:
            raise ValueError(f"property 0x{identifier:02x} twice")
        single[key] = read
    return Properties(user=tuple(user), subscription_ids=tuple(ids), **single)  # type: ignore[arg-type]


_remembered = lru_cache(maxsize=1024)(_parse)


def _take(raw: bytes, at: int, count: int) -> bytes:
    taken = raw[at : at + count]
    if len(taken) != count:
        raise ValueError("properties end in the middle")
    return taken


def _binary(raw: bytes, at: int) -> tuple[bytes, int]:
    length = int.from_bytes(_take(raw, at, 2))
    return _take(raw, at + 2, length), at + 2 + length


def _text(raw: bytes, at: int) -> tuple[str, int]:
    taken, at = _binary(raw, at)
    text = taken.decode()
    if "\0" in text:
        raise ValueError("U+0000 in a property")
    return text, at


def _byte_flag(raw: bytes, at: int) -> bool:
    value = _take(raw, at, 1)[0]
    if value > 1:
        raise ValueError(f"payload format {value}")
    return value == 1


def _variable(raw: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in (0, 7, 14, 21):
        byte = _take(raw, at, 1)[0]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 (the continuation bit)
            return value, at
    raise ValueError("a variable byte integer of more than four bytes")
