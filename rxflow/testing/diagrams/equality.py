"""When two values of a test are the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, cast

from rxflow.message import Message


def is_same(expected: Any, actual: Any) -> bool:
    """True if the values are equal, all the way down.

    NaN equals NaN. True is not 1, and False is not 0. A message equals another by everything but
    its delivery and time, and a plain value by its payload.
    """
    if isinstance(actual, Message) != isinstance(expected, Message):
        message, plain = (actual, expected) if isinstance(actual, Message) else (expected, actual)
        return is_same(cast("Message[Any]", message).payload, plain)
    if expected is actual:
        return True
    if isinstance(expected, bool) != isinstance(actual, bool):
        return False
    if isinstance(expected, float) and isinstance(actual, float):
        return expected == actual or (expected != expected and actual != actual)  # noqa: PLR0124 (NaN)
    for kind, compare in _INSIDE:
        if isinstance(expected, kind) and isinstance(actual, kind):
            return compare(expected, actual)
    return _equals(expected, actual)


def is_same_error(expected: Any, actual: Any) -> bool:
    """True if type and text agree; of a class, the type alone."""
    if isinstance(expected, type):
        return expected in {actual, type(actual)}
    return type(expected) is type(actual) and str(expected) == str(actual)


def _messages(expected: Message[Any], actual: Message[Any]) -> bool:
    """Their payloads by our rule, their envelopes by theirs."""
    return is_same(expected.payload, actual.payload) and (
        expected.with_payload(None) == actual.with_payload(None)
    )


def _sequences(expected: Sequence[Any], actual: Sequence[Any]) -> bool:
    return len(expected) == len(actual) and all(map(is_same, expected, actual))


def _mappings(expected: Mapping[Any, Any], actual: Mapping[Any, Any]) -> bool:
    return len(expected) == len(actual) and all(
        key in actual and is_same(value, actual[key]) for key, value in expected.items()
    )


def _sets(expected: AbstractSet[Any], actual: AbstractSet[Any]) -> bool:
    return _equals(
        {(isinstance(item, bool), item) for item in expected},
        {(isinstance(item, bool), item) for item in actual},
    )


_INSIDE: tuple[tuple[type, Callable[[Any, Any], bool]], ...] = (
    (Message, _messages),
    (list, _sequences),
    (tuple, _sequences),
    (dict, _mappings),
    (set, _sets),
    (frozenset, _sets),
)


def _equals(expected: Any, actual: Any) -> bool:
    result = expected == actual
    if type(result) is bool:
        return result
    if getattr(expected, "shape", None) != getattr(actual, "shape", None):
        return False  # an array of one element, or of none, would be like any other
    try:
        return bool(result)
    except ValueError:  # an array compares element by element
        return bool(result.all())
