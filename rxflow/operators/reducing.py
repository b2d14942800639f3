"""Operators that make one value of many: of messages they use the payloads, and hold none.

What they have counted is let go, and acknowledged: the result at the end travels in the envelope of
the newest message, without a delivery. To lose nothing, collect a buffer and `map` it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast, overload

from reactivex import operators as rx
from reactivex.internal import NotSet

from rxflow.operators import checking as check
from rxflow.operators.declaring import operator
from rxflow.operators.envelope import payload_of
from rxflow.operators.holding import held
from rxflow.operators.operator import Made, Reduced
from rxflow.operators.stateful import computing

__all__ = ["average", "count", "reduce", "scan", "sum"]

A = TypeVar("A")
B = TypeVar("B")


@operator(computing, seed=check.anything)
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


@operator(computing, held, seed=check.anything)
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


@overload
def count(predicate: None = None) -> Reduced[int]: ...
@overload
def count(predicate: Callable[[A], bool]) -> Made[A, int]: ...
@operator(computing, held)
def count(predicate: Callable[[A], bool] | None = None) -> Any:
    """The number of items.

    Marbles::

        source              -a-b-c-|
        ()                  -------(x|)         x=3

    Args:
        predicate: Which items count; it gets the `Message`.
    """
    return rx.count(predicate)


@overload
def sum(key_mapper: None = None) -> Reduced[float]: ...
@overload
def sum(key_mapper: Callable[[A], Any]) -> Made[A, float]: ...
@operator(computing, held)
def sum(key_mapper: Callable[[A], Any] | None = None) -> Any:
    """The sum of all items; of messages, of their payloads.

    Args:
        key_mapper: What to add of each item; it gets the `Message`.
    """

    def key(item: Any) -> Any:
        return payload_of(key_mapper(item) if key_mapper else item)

    return rx.sum(key)


@overload
def average(key_mapper: None = None) -> Reduced[float]: ...
@overload
def average(key_mapper: Callable[[A], float]) -> Made[A, float]: ...
@operator(computing, held)
def average(key_mapper: Callable[[A], float] | None = None) -> Any:
    """The mean of all items; of messages, of their payloads.

    Args:
        key_mapper: What to average of each item; it gets the `Message`.
    """

    def key(item: Any) -> float:
        return key_mapper(item) if key_mapper else float(payload_of(item))

    return rx.average(key)
