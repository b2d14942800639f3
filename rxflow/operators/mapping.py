"""Operators that call a function with each item: a result travels in the envelope of its item."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar, cast

from reactivex import Observable, abc
from reactivex import operators as rx
from reactivex.operators._timeinterval import TimeInterval
from reactivex.operators._timestamp import Timestamp

from rxflow.errors import CANCELLING, interrupted
from rxflow.message import Batch, Message
from rxflow.operators import checking as check
from rxflow.operators.declaring import operator
from rxflow.operators.envelope import CARRIERS, enveloped, payload_of
from rxflow.operators.operator import Made, Same, direct
from rxflow.operators.rejecting import name_topic, set_aside
from rxflow.scope import scope_of

__all__ = [
    "filter",
    "map",
    "map_indexed",
    "pluck",
    "pluck_attr",
    "starmap",
    "starmap_indexed",
    "time_interval",
    "timestamp",
]

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")


@operator(is_single=True, is_noting=False, rejected=check.observer)
def map(
    mapper: Callable[[A], B] | None = None, *, rejected: abc.ObserverBase[Any] | None = None
) -> Made[A, B]:
    """Call a function with each item, and pass on what it returns.

    Of a message the function gets the `Message`, and what it returns travels in that message's
    envelope; of a batch, or of a tuple of messages, in the envelope of its newest message, with the
    deliveries of all. If it returns a `Message` or a `Batch`, that is passed on as it is; made by
    hand, without a delivery of its own, it carries that of the item.

    Marbles::

        source              -a---b---c-|
        (f)                 -x---y---z-|        x=f(a)  y=f(b)  z=f(c)

    Args:
        mapper: The function; None passes every item on.
        rejected: Where to set a message aside when the function raises; the stream then goes on.
            Without it the stream fails with the user's own exception, the topic added as a note.

    Raises:
        ConfigError: At call time, when the function or the observer is none.
    """
    if mapper is None:
        return cast("Made[A, B]", rx.map(None))
    return _called(mapper, rejected)


def _called(mapper: Callable[[Any], Any], rejected: abc.ObserverBase[Any] | None = None) -> Any:
    return direct(_mapped(mapper, rejected))


def _mapped(
    mapper: Callable[[Any], Any], rejected: abc.ObserverBase[Any] | None
) -> Callable[..., abc.DisposableBase]:
    def subscribe(
        source: Observable[Any],
        observer: abc.ObserverBase[Any],
        scheduler: abc.SchedulerBase | None = None,
    ) -> abc.DisposableBase:
        if scope := scope_of(scheduler):
            scope.context.adopt(rejected)

        def on_next(item: Any) -> None:
            try:
                result = mapper(item)
            except Exception as error:  # noqa: BLE001 (a user's function may raise anything)
                _fail(item, error, observer, rejected)
                return
            except CANCELLING as error:
                _fail(item, interrupted(error), observer, rejected)
                return
            kind = type(item)
            if kind is Message:
                made = type(result)
                if made is not Message and made is not Batch:
                    result = item.with_payload(result)
                elif result is not item:
                    result = enveloped(item, result)
            elif kind in CARRIERS:
                result = enveloped(item, result)
            observer.on_next(result)

        return source.subscribe(
            on_next, observer.on_error, observer.on_completed, scheduler=scheduler
        )

    return subscribe


def _fail(
    item: Any,
    error: Exception,
    observer: abc.ObserverBase[Any],
    rejected: abc.ObserverBase[Any] | None,
) -> None:
    if rejected is None:
        name_topic(error, item)
        observer.on_error(error)
    else:
        set_aside(item, error, rejected)


@operator(is_single=True, is_noting=False)
def filter(predicate: Callable[[T], object]) -> Same[T]:
    """Pass on the items for which a function is true; let the others go.

    reactivex's own costs the same; only that the error of this one names the topic.

    Marbles::

        source              -a---b---c-|
        (not b)             -a-------c-|

    Args:
        predicate: The function; of a message it gets the `Message`.

    Raises:
        ConfigError: At call time, when the function is none.
    """

    def subscribe(
        source: Observable[Any],
        observer: abc.ObserverBase[Any],
        scheduler: abc.SchedulerBase | None = None,
    ) -> abc.DisposableBase:
        def on_next(item: Any) -> None:
            try:
                is_wanted = predicate(item)
            except Exception as error:  # noqa: BLE001 (a user's function may raise anything)
                name_topic(error, item)
                observer.on_error(error)
                return
            except CANCELLING as error:
                failure = interrupted(error)
                name_topic(failure, item)
                observer.on_error(failure)
                return
            if is_wanted:
                observer.on_next(item)

        return source.subscribe(
            on_next, observer.on_error, observer.on_completed, scheduler=scheduler
        )

    return direct(subscribe)


@operator(is_single=True)
def map_indexed(mapper_indexed: Callable[[A, int], B] | None = None) -> Made[A, B]:
    """Call a function with each item and its number, from 0; see `map`.

    Args:
        mapper_indexed: The function; None passes every item on.
    """
    if mapper_indexed is None:
        return cast("Made[A, B]", rx.map_indexed(None))

    def mapper(item: Any, index: int) -> Any:
        return enveloped(item, mapper_indexed(item, index))

    return cast("Made[A, B]", rx.map_indexed(mapper))


@operator(is_single=True)
def starmap(mapper: Callable[..., B] | None = None) -> Made[Any, B]:
    """Call a function with the parts of each item as its arguments; see `map`.

    Of a message these are the parts of its payload; of a tuple of messages, such as `zip` makes,
    the messages.

    Args:
        mapper: The function; None passes every item on.
    """
    return _called(_starred(mapper)) if mapper else cast("Any", rx.map(None))


@operator(is_single=True)
def starmap_indexed(mapper: Callable[..., B]) -> Made[Any, B]:
    """The same as `starmap`, under the name that reactivex has for items that end in a number.

    Args:
        mapper: The function.
    """
    return _called(_starred(mapper))


def _starred(mapper: Callable[..., B]) -> Callable[[Any], B]:
    return lambda item: mapper(*(item.payload if type(item) is Message else item))


@operator(is_single=True, key=check.anything)
def pluck(key: object) -> Made[Any, Any]:
    """Pass on one entry of each item; of a message, of its payload, in its envelope.

    Args:
        key: As in `payload[key]`.
    """
    return _called(lambda item: payload_of(item)[key])


@operator(is_single=True, prop=check.text)
def pluck_attr(prop: str) -> Made[Any, Any]:
    """Pass on one attribute of each item; of a message, of its payload, in its envelope.

    What the envelope itself has is had by `map`: `ops.map(lambda m: m.topic)`.

    Args:
        prop: Name of the attribute.
    """
    return _called(lambda item: getattr(payload_of(item), prop))


@operator(is_single=True)
def timestamp(scheduler: abc.SchedulerBase | None = None) -> Made[Any, Timestamp[Any]]:
    """Add to each item, or payload, the scheduler's time.

    Args:
        scheduler: Whose time, instead of that of the one given to `subscribe`.
    """
    return cast("Any", _timed(rx.timestamp(scheduler)))


@operator(is_single=True)
def time_interval(scheduler: abc.SchedulerBase | None = None) -> Made[Any, TimeInterval[Any]]:
    """Add to each item, or payload, the time since the one before it.

    Args:
        scheduler: Whose time, instead of that of the one given to `subscribe`.
    """
    return cast("Any", _timed(rx.time_interval(scheduler)))


def _timed(operator: Callable[[Observable[Any]], Observable[Any]]) -> Callable[..., Any]:
    def mapper(timed: Any) -> Any:
        item = timed.value
        return enveloped(item, replace(timed, value=payload_of(item)))

    def apply(source: Observable[Any]) -> Observable[Any]:
        return rx.map(mapper)(operator(source))

    return apply
