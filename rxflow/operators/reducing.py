"""Operators that make one value of many: of messages they use the payloads, and hold none.

What they have counted is let go, and acknowledged: the result at the end travels in the envelope of
the newest message, without a delivery. To lose nothing, collect a buffer and `map` it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from reactivex import operators as rx
from reactivex.internal import NotSet

from rxflow.operators.envelope import payload_of
from rxflow.operators.operator import Made

A = TypeVar("A")
B = TypeVar("B")


def scan(accumulator: Callable[[B, A], B], seed: B | type[NotSet] = NotSet) -> Made[A, B]:
    """Emit what a function makes of each item and of what it returned before.

    The result for a message travels in that message's envelope. The function gets the `Message`,
    without its delivery, and as the first argument what it returned.

    Marbles::

        source              -a-b-c-|
        (a + b)             -x-y-z-|            x=a  y=ab  z=abc

    Args:
        accumulator: The function.
        seed: Its first argument the first time; without one the first item is emitted as it is.
    """
    return cast("Any", rx.scan(cast("Any", accumulator), seed))


def reduce(accumulator: Callable[[B, A], B], seed: B | type[NotSet] = NotSet) -> Made[A, B]:
    """The same as `scan`, of which only the last result is emitted, on completion.

    Marbles::

        source              -a-b-c-|
        (a + b)             -------(x|)         x=abc

    Args:
        accumulator: The function.
        seed: Its first argument the first time; without one that is the first item.
    """
    return cast("Any", rx.reduce(cast("Any", accumulator), seed))


def count(predicate: Callable[[A], bool] | None = None) -> Made[A, int]:
    """The number of items.

    Marbles::

        source              -a-b-c-|
        ()                  -------(x|)         x=3

    Args:
        predicate: Which items count; it gets the `Message`.
    """
    return cast("Any", rx.count(predicate))


def sum(key_mapper: Callable[[A], Any] | None = None) -> Made[A, float]:
    """The sum of all items; of messages, of their payloads.

    Args:
        key_mapper: What to add of each item; it gets the `Message`.
    """

    def key(item: Any) -> Any:
        return payload_of(key_mapper(item) if key_mapper else item)

    return cast("Any", rx.sum(key))


def average(key_mapper: Callable[[A], float] | None = None) -> Made[A, float]:
    """The mean of all items; of messages, of their payloads.

    Args:
        key_mapper: What to average of each item; it gets the `Message`.
    """

    def key(item: Any) -> float:
        return key_mapper(item) if key_mapper else float(payload_of(item))

    return cast("Any", rx.average(key))
