"""JSON in and out: the home of orjson. What is decoded here can be encoded again.

orjson reads nesting up to 1,024 and writes 254, so deeper values are refused on the way in. It
makes integers beyond 64 bits floats, and of duplicate keys the last one wins.
"""

from __future__ import annotations

import base64
import codecs
import json
import re
from typing import Any, Final, NoReturn

import orjson

_DEEPEST: Final = 254
_SHALLOW: Final = 2 * _DEEPEST  # bytes that can't be nested deeper
_LINE_FEED: Final = 10  # `10 in row` costs 20 ns, `b"\n" in row` 500
_CARRIAGE_RETURN: Final = 13
_LINE_BREAKS: Final = bytes.maketrans(b"\n\r", b"  ")
_LONG_NUMBER: Final = re.compile(rb"\d{19}")
_INTEGERS: Final = range(-(2**63), 2**64)
_MOST_DIGITS: Final = 20  # of an integer within 64 bits, its sign counted

_dumps = orjson.dumps
_loads = orjson.loads


def encode(value: object) -> bytes:
    """One JSON row without a raw line break; dates, UUIDs and dataclasses as orjson writes them.

    NaN and infinities become null.

    Raises:
        TypeError: JSON can't hold it; the text names the type.
        ValueError: It holds raw JSON (`orjson.Fragment`) with a line break.
    """
    try:
        row = _dumps(value)
    except TypeError as error:
        reason = str(error.__cause__ or error)  # what the user's own __iter__ or property raised
        raise TypeError(f"JSON can't hold this {type(value).__name__}: {reason}") from error
    if _LINE_FEED in row:
        raise ValueError("a fragment of raw JSON holds a line break")
    return row


def compact(row: bytes) -> bytes:
    """The same row in as much memory as it needs, if it has to wait among many.

    What orjson returns keeps 4 KiB, however short it is.
    """
    return b"%b" % row


def embed(raw: bytes) -> bytes:
    r"""Bytes that are one whole JSON value, as a row: digit for digit, on one line.

    Line breaks between tokens become spaces (within strings JSON has none), white space around
    the value goes.

    Raises:
        ValueError: They are not one JSON value in UTF-8, or nested more than 254 deep.
    """
    decode(raw)
    if _LINE_FEED in raw or _CARRIAGE_RETURN in raw:
        raw = raw.translate(_LINE_BREAKS)
    return raw.strip(b" \t")


def decode(payload: bytes, *, exact_integers: bool = False) -> Any:
    """The value of a JSON text.

    Args:
        payload: UTF-8, without a byte order mark.
        exact_integers: Refuse integers beyond 64 bits, which otherwise become floats.

    Raises:
        ValueError: It is not JSON (NaN is not), is nested more than 254 deep, or holds an integer
            that is refused.
    """
    try:
        value = _loads(payload)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from error
    if len(payload) > _SHALLOW and payload.count(b"[") + payload.count(b"{") > _DEEPEST:
        _refuse_what_is_too_deep(value)
    if exact_integers and _LONG_NUMBER.search(payload):
        json.loads(payload, parse_int=_exact)
    return value


def is_cut_short(text: bytes) -> bool:
    """True if more bytes could make this one JSON value: its rest is missing.

    A bare number may always be the beginning of a longer one.
    """
    try:
        read = codecs.getincrementaldecoder("utf-8")().decode(text)
    except UnicodeDecodeError:
        return False
    try:
        value = _loads(read)
    except orjson.JSONDecodeError as error:
        return error.pos == len(read)
    return isinstance(value, int | float) and not isinstance(value, bool)


def text_or_base64(raw: bytes) -> dict[str, str]:
    """A payload that was refused, for a record that JSON holds whatever the bytes are."""
    try:
        return {"payload": raw.decode()}
    except UnicodeDecodeError:
        return {"payload_base64": base64.b64encode(raw).decode()}


def _refuse_what_is_too_deep(value: object) -> None:
    try:
        _dumps(value)
    except TypeError as error:
        raise ValueError(f"nested more than {_DEEPEST} deep") from error


def _exact(digits: str) -> int:
    if len(digits) > _MOST_DIGITS or (number := int(digits)) not in _INTEGERS:
        _refuse_integer(digits)
    return number


def _refuse_integer(digits: str) -> NoReturn:
    shown = digits if len(digits) <= 2 * _MOST_DIGITS else f"{digits[: 2 * _MOST_DIGITS]}…"
    raise ValueError(f"integer beyond 64 bits: {shown}")
