"""JSON in and out: the home of orjson. What is decoded here can be encoded again.

orjson reads nesting up to 1,024 and writes 254, so deeper values are refused on the way in. It
makes integers beyond 64 bits floats, and of duplicate keys the last one wins.
"""

from __future__ import annotations

import base64
import codecs
import json
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from decimal import Decimal
from functools import partial
from typing import Any, Final, NoReturn, cast

import orjson

_DEEPEST: Final = 254
_SHALLOW: Final = 2 * _DEEPEST  # bytes that can't be nested deeper
_LINE_FEED: Final = 10  # `10 in row` costs 20 ns, `b"\n" in row` 500
_CARRIAGE_RETURN: Final = 13
_LINE_BREAKS: Final = bytes.maketrans(b"\n\r", b"  ")
_LONG_NUMBER: Final = re.compile(rb"\d{19}")
_INTEGERS: Final = range(-(2**63), 2**64)
_MOST_DIGITS: Final = 20  # of an integer within 64 bits, its sign counted

_MORE: Final = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
_TOO_LARGE: Final = "64-bit"
_OWN_WAYS: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("model_dump", {"mode": "json"}),  # of pydantic
    ("tolist", {}),  # of an array that orjson can't read in place
)

Default = Callable[[Any], object]
"""Return the value to write instead of one that JSON has no form for."""

_dumps = orjson.dumps
_loads = orjson.loads


def encode(value: object, default: Default | None = None) -> bytes:
    """One JSON row without a raw line break; dates, UUIDs and dataclasses as orjson writes them.

    What orjson has no JSON for is written as most libraries do: numpy's arrays and numbers, keys
    that are numbers, dates or Enums; tuples of any class, sets and deques as arrays, mappings as
    objects, Decimal as text, integers beyond 64 bits digit for digit; models of pydantic, structs
    of msgspec and classes of attrs by their fields. NaN and infinities become null.

    Args:
        value: What to write.
        default: Asked first for what orjson has no JSON for; it returns what to write instead, or
            raises TypeError.

    Raises:
        TypeError: JSON can't hold it; the text names the type.
        ValueError: It holds raw JSON (`orjson.Fragment`) with a line break.
    """
    try:
        row = _dumps(value)
    except TypeError:
        row = _encode_more(value, default)
    if _LINE_FEED in row:
        raise ValueError("a fragment of raw JSON holds a line break")
    return row


def _encode_more(value: object, default: Default | None) -> bytes:
    """The slow way, for what orjson by itself has no JSON for."""
    instead = _known if default is None else partial(_asked, default)
    try:
        try:
            return _dumps(value, instead, _MORE)
        except TypeError as error:
            if _TOO_LARGE not in str(error):
                raise
            return _dumps(_in_digits(value), instead, _MORE)
    except TypeError as error:
        reason = str(error.__cause__ or error)  # what the user's own __iter__ or property raised
        raise TypeError(f"JSON can't hold this {type(value).__name__}: {reason}") from error


def _asked(default: Default, value: Any) -> object:
    try:
        return default(value)
    except TypeError:
        return _known(value)


def _known(value: Any) -> object:
    """Return the value to write instead of one that orjson has no JSON for."""
    if isinstance(value, tuple | AbstractSet | deque):
        return list(cast("Iterable[Any]", value))
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, Mapping):
        return dict(cast("Mapping[Any, Any]", value))
    kind: Any = type(value)
    if hasattr(kind, "__struct_fields__") and (msgspec := sys.modules.get("msgspec")):
        return msgspec.to_builtins(value)
    if hasattr(kind, "__attrs_attrs__"):
        return {field.name: getattr(value, field.name) for field in kind.__attrs_attrs__}
    for name, arguments in _OWN_WAYS:
        if callable(way := getattr(kind, name, None)):
            return way(value, **arguments)
    raise TypeError(f"Type is not JSON serializable: {kind.__name__}")


def _in_digits(value: Any) -> Any:
    """The same, with integers beyond 64 bits written out."""
    if isinstance(value, dict):
        items = cast("dict[Any, Any]", value).items()
        return {_in_text(key): _in_digits(each) for key, each in items}
    if isinstance(value, list | tuple | AbstractSet | deque):
        return [_in_digits(each) for each in cast("Iterable[Any]", value)]
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: _in_digits(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, int) and value not in _INTEGERS:
        return orjson.Fragment(str(int(value)))
    return value


def _in_text(key: Any) -> Any:
    return str(key) if isinstance(key, int) and key not in _INTEGERS else key


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
