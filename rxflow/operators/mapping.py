"""`map`: a result travels in the envelope of the message that it was made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast, overload

from reactivex import Observable, abc
from reactivex import operators as rx

from rxflow.message import Batch, Message
from rxflow.operators import arguments
from rxflow.operators.operator import lifted
from rxflow.operators.scope import scope_of
from rxflow.operators.setting_aside import name_topic, set_aside

A = TypeVar("A")
B = TypeVar("B")
P = TypeVar("P")


class Map(Protocol[A, B]):  # pyright: ignore[reportInvalidTypeVarUse]  # invariant: `self` tells
    """From items of type A, what `map` makes of a function that returns B."""

    @overload
    def __call__(
        self: Map[Message[Any], Message[P]], source: Observable[A], /
    ) -> Observable[Message[P]]: ...
    @overload
    def __call__(
        self: Map[Message[Any], P], source: Observable[A], /
    ) -> Observable[Message[P]]: ...
    @overload
    def __call__(
        self: Map[Batch[Any], Message[P]], source: Observable[A], /
    ) -> Observable[Message[P]]: ...
    @overload
    def __call__(self: Map[Batch[Any], P], source: Observable[A], /) -> Observable[Message[P]]: ...
    @overload
    def __call__(self, source: Observable[A], /) -> Observable[Any]: ...


def map(
    mapper: Callable[[A], B] | None = None, *, rejected: abc.ObserverBase[Any] | None = None
) -> Map[A, B]:
    """Call a function with each item, and pass on what it returns.

    Of a message the function gets the `Message`, and what it returns travels in that message's
    envelope; of a batch, in the envelope of its newest message, with the deliveries of all. If it
    returns a `Message` or a `Batch`, that is passed on as it is.

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
        return cast("Map[A, B]", rx.map(None))
    arguments.function("mapper", mapper)
    arguments.observer("rejected", rejected)
    return cast("Map[A, B]", lifted(_mapped(mapper, rejected)))


def _mapped(
    mapper: Callable[[Any], Any], rejected: abc.ObserverBase[Any] | None
) -> Callable[..., abc.DisposableBase]:
    def subscribe(
        source: Observable[Any],
        observer: abc.ObserverBase[Any],
        scheduler: abc.SchedulerBase | None = None,
    ) -> abc.DisposableBase:
        if scope := scope_of(scheduler):
            scope.adopt(rejected)
        emit = observer.on_next

        def on_next(item: Any) -> None:
            try:
                result = mapper(item)
            except Exception as error:  # noqa: BLE001 (a user's function may raise anything)
                fail(item, error)
                return
            kind = type(item)
            if kind is Message or kind is Batch:
                made = type(result)
                if made is not Message and made is not Batch:
                    result = item.with_payload(result)
            emit(result)

        def fail(item: Any, error: Exception) -> None:
            if rejected is None:
                name_topic(error, item, "mapping")
                observer.on_error(error)
            else:
                set_aside(item, error, rejected)

        return source.subscribe(
            on_next, observer.on_error, observer.on_completed, scheduler=scheduler
        )

    return subscribe
