"""Operators that make a stream of each item and merge what these emit.

What the stream of a message emits travels in that message's envelope, with its delivery, which is
held while the stream runs. So a message that becomes many rows is acknowledged with the last one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar, cast

from reactivex import Observable, abc, from_, from_future, typing
from reactivex import operators as rx
from reactivex.disposable import CompositeDisposable, Disposable
from reactivex.internal import is_future

from rxflow.delivery import Spread
from rxflow.message import Message
from rxflow.operators import checking as check
from rxflow.operators.beginning import at_once
from rxflow.operators.declaring import Layer, changed_source, operator
from rxflow.operators.envelope import delivery_of, enveloped, messages_in, newest
from rxflow.operators.holding import Fed, outlast
from rxflow.operators.operator import Made, Same
from rxflow.operators.rejecting import name_topic
from rxflow.scope import scope_of, unscoped

__all__ = [
    "concat_map",
    "expand",
    "flat_map",
    "flat_map_indexed",
    "flat_map_latest",
    "merge",
    "switch_map",
    "switch_map_indexed",
]

A = TypeVar("A")
B = TypeVar("B")

Streamed: TypeAlias = Observable[B] | typing.AnyFuture[B] | Iterable[B]
"""A result that becomes a stream: an observable, a future, or an iterable."""


@operator(mapper=check.function_or_streamed)
def flat_map(mapper: Callable[[A], Streamed[B]] | Streamed[B] | None = None) -> Made[A, B]:
    """Make a stream of each item, and merge them.

    What the stream of a message emits travels in that message's envelope. The message is held
    until its stream completes, and counts as stored when all that the stream emitted is.

    Marbles::

        source              -a---b-|
        other               x--y|
        (other)             -x--yx--y|

    Args:
        mapper: Makes the stream; or one stream for every item.
    """
    return cast("Any", rx.flat_map(_streaming(mapper)))


@operator(mapper_indexed=check.function_or_streamed)
def flat_map_indexed(
    mapper_indexed: Callable[[A, int], Streamed[B]] | Streamed[B] | None = None,
) -> Made[A, B]:
    """The same as `flat_map`; the function gets the item's number too, from 0.

    Args:
        mapper_indexed: Makes the stream; or one stream for every item.
    """
    return cast("Any", rx.flat_map_indexed(_streaming(mapper_indexed)))


@operator(mapper=check.streaming)
def flat_map_latest(mapper: Callable[[A], Observable[B] | typing.AnyFuture[B]]) -> Made[A, B]:
    """The same as `switch_map`, under its older name.

    Args:
        mapper: Makes the stream.
    """
    return cast("Any", rx.flat_map_latest(_streaming(mapper)))


@operator(project=check.streaming)
def concat_map(project: Callable[[A], Observable[B]]) -> Made[A, B]:
    """Make a stream of each item, and emit one after the other; see `flat_map`.

    Marbles::

        source              -ab-|
        other               x--y|
        (other)             -x--yx--y|

    Args:
        project: Makes the stream.
    """
    return cast("Any", rx.concat_map(_streaming(project)))


@operator(project=check.streaming)
def switch_map(project: Callable[[A], Observable[B]] | None = None) -> Made[A, B]:
    """Make a stream of each item, which ends the one before; see `flat_map`.

    Marbles::

        source              -a-b-|
        other               x--y|
        (other)             -x-x--y|

    Args:
        project: Makes the stream; None: the items are streams.
    """
    return cast("Any", rx.switch_map(_streaming(project)))


@operator(project=check.streaming)
def switch_map_indexed(project: Callable[[A, int], Observable[B]] | None = None) -> Made[A, B]:
    """The same as `switch_map`; the function gets the item's number too, from 0.

    Args:
        project: Makes the stream; None: the items are streams.
    """
    return cast("Any", rx.switch_map_indexed(_streaming(project)))


@operator(at_once, mapper=check.streaming)
def expand(mapper: Callable[[A], Observable[Any]]) -> Same[A]:
    """Make a stream of each item, and of each item of these in turn; emit them all.

    Args:
        mapper: Makes the stream.
    """
    return cast("Any", rx.expand(_streaming(mapper)))


def _streaming(mapper: Any) -> Any:
    """The function of the user's, whose streams emit in their item's envelope."""
    if not callable(mapper):
        return mapper

    def streamed(item: Any, *index: int) -> Any:
        stream = mapper(item, *index)
        if inspect.iscoroutine(stream):
            stream.close()
            raise TypeError(
                f"{getattr(mapper, '__qualname__', mapper)} is an async function: flat_map and its "
                "like take a stream, a future or an iterable; return "
                "asyncio.ensure_future(...) of the coroutine instead"
            )
        return spread(item, stream)

    return streamed


@operator(at_once, sources=check.observable, max_concurrent=check.at_least_one)
def merge(
    *sources: Observable[Any], max_concurrent: int | None = None
) -> Callable[[Observable[Any]], Observable[Any]]:
    """Merge with other sources; or, of a stream of streams, so many at a time.

    Marbles::

        source              -a---b-|
        other               ---c--|
        (other)             -a-c-b-|

    Args:
        sources: The others.
        max_concurrent: Merge the streams that come, at most so many of them at once.
    """
    merged = rx.merge(*sources, max_concurrent=max_concurrent)
    return merged if max_concurrent is None else lambda source: merged(rx.map(_opened)(source))


def _opened(item: Any) -> Any:
    if type(item) is Message:
        return spread(item, item.payload)
    return spread(item, item) if isinstance(item, Observable) or is_future(item) else item


opening: Final = changed_source(Layer.OPENING, rx.map(_opened))
"""Of a message whose payload is a stream, that stream is merged (`merge_all`)."""


def spread(item: Any, stream: Any) -> Any:
    """A stream made of an item, whose results travel in that item's envelope.

    Args:
        item: What it was made of; of a plain value the stream stays as it is.
        stream: An observable, a future, or something to iterate over.
    """
    if is_future(stream):
        stream = from_future(stream)
    elif not isinstance(stream, Observable):
        stream = from_(stream)
    if messages_in(item):
        return _Spreading(item, stream)
    # A group or a window goes on for as long as it is fed.
    return stream if isinstance(item, Fed) else _Working(stream)


class _Working(Observable[Any]):
    """A stream made of a plain value, perhaps of a part of a message: its scope knows of it."""

    def __init__(self, stream: Observable[Any]) -> None:
        super().__init__()
        self._stream = stream

    def _subscribe_core(
        self, observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        scope = scope_of(scheduler)
        if scope is None or not scope.context.sources:  # of no message
            return self._stream.subscribe(observer, scheduler=scheduler)
        work = scope.work()
        running = self._stream.subscribe(observer, scheduler=scheduler)
        end = Disposable(partial(scope.worked, work, unscoped(scheduler)))
        return CompositeDisposable(running, end)


class _Spreading(Observable[Any]):
    """A stream, each of whose results is in the envelope of one item."""

    def __init__(self, item: Any, stream: Observable[Any]) -> None:
        super().__init__()
        self._item = item
        self._stream = stream

    def _spread(self) -> tuple[Any, Spread | None]:
        """Return the carrier of the results and of the delivery that they share. Drops the item."""
        item, self._item = self._item, None
        delivery = delivery_of(item)
        if delivery is None:
            return item, None
        whole = Spread(delivery)
        return newest(messages_in(item)).with_delivery(whole), whole

    def _subscribe_core(
        self, observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        carrier, whole = self._spread()
        scope = scope_of(scheduler)
        work = scope.work() if scope else None

        def on_next(result: Any) -> None:
            observer.on_next(enveloped(carrier, result))

        def on_error(error: Exception) -> None:
            name_topic(error, carrier)
            observer.on_error(error)

        def on_completed() -> None:
            touched = whole.complete() if whole else ()
            observer.on_completed()
            let_go()
            for ledger in touched:
                ledger.wake()
            if scope:
                scope.worked(work, unscoped(scheduler))

        def let_go() -> None:
            nonlocal carrier, whole
            carrier = whole = None

        running = self._stream.subscribe(on_next, on_error, on_completed, scheduler=scheduler)

        def drop() -> None:
            outlast(carrier, scheduler, let_go)
            if scope:
                scope.worked(work, unscoped(scheduler))

        return CompositeDisposable(running, Disposable(drop))
