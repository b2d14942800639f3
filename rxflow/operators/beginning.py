"""Operators that subscribe to their source at once.

reactivex has `merge`, `concat`, `catch`, `retry` and their like subscribe through the scheduler. On
a loop that is a turn later, and a group or a window has emitted its first item by then: nobody
would have it. So the first subscription is made at once. Each later one is the scheduler's, so that
what repeats for ever lets the loop do something else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from reactivex import Observable, abc, typing
from reactivex.disposable import CompositeDisposable, Disposable

from rxflow.operators import checking as check
from rxflow.operators.declaring import Layer, Make, change, operator
from rxflow.operators.operator import Same, lifted
from rxflow.operators.rejecting import emptied
from rxflow.scope import ScopedScheduler, scope_of, unscoped

__all__ = ["start_with"]

S = TypeVar("S")
T = TypeVar("T")


@operator(args=check.anything)
def start_with(*args: T) -> Same[T]:
    """Emit some items first.

    Marbles::

        source              -a-b-|
        (x)                 xa-b-|

    Args:
        args: The items.
    """

    def subscribe(
        source: Observable[Any],
        observer: abc.ObserverBase[Any],
        scheduler: abc.SchedulerBase | None = None,
    ) -> abc.DisposableBase:
        for item in args:
            observer.on_next(item)
        return source.subscribe(observer, scheduler=scheduler)

    return lifted(subscribe)


@change(Layer.BEGINNING)
def at_once(make: Make) -> Make:
    """The same operator of reactivex, which subscribes to its source without delay."""

    def made(*args: Any, **kwargs: Any) -> Callable[[Observable[Any]], Observable[Any]]:
        plain = make(*args, **kwargs)

        def subscribe(
            source: Observable[Any],
            observer: abc.ObserverBase[Any],
            scheduler: abc.SchedulerBase | None = None,
        ) -> abc.DisposableBase:
            if unscoped(scheduler) is None:  # reactivex's own default begins at once
                return plain(source).subscribe(observer, scheduler=scheduler)

            def own(value: Any) -> Any:
                if isinstance(value, Observable):
                    return _With(cast("Observable[Any]", value), scheduler)
                return _returning(own, value) if callable(value) else value

            named = {name: own(value) for name, value in kwargs.items()}
            begun = make(*map(own, args), **named)(own(source))
            return begun.subscribe(observer, scheduler=_Hasty(scheduler))

        return lifted(subscribe)

    return made


def _returning(own: Callable[[Any], Any], function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*given: Any) -> Any:
        return own(function(*given))

    return call


class _With(Observable[T]):
    """A source that is subscribed with the scheduler of the whole pipeline."""

    def __init__(self, source: Observable[T], scheduler: abc.SchedulerBase | None) -> None:
        super().__init__()
        self._source = source
        self._scheduler = scheduler
        self._error: Exception | None = None

    def _subscribe_core(
        self, observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        del scheduler  # the hasty one
        # `retry` keeps the last error, and its traceback would keep the message. This is another
        # try: nobody will see that error.
        swallowed, self._error = self._error, None
        if swallowed:
            emptied(swallowed)

        def on_error(error: Exception) -> None:
            self._error = error
            observer.on_error(error)

        return self._source.subscribe(
            observer.on_next, on_error, observer.on_completed, scheduler=self._scheduler
        )


class _Hasty(ScopedScheduler):
    """The same scheduler, which does at once the first thing that is to be done soon."""

    def __init__(self, scheduler: abc.SchedulerBase | None) -> None:
        super().__init__(unscoped(scheduler), scope_of(scheduler))
        self._is_first = True
        self._meanwhile: CompositeDisposable | None = None

    def schedule(
        self, action: typing.ScheduledAction[S], state: S | None = None
    ) -> abc.DisposableBase:
        if self._is_first:
            self._is_first = False
            # Whoever calls this puts what it returns in the place of what was scheduled meanwhile.
            meanwhile = self._meanwhile = CompositeDisposable()
            try:
                meanwhile.add(action(self, state) or Disposable())
            finally:
                self._meanwhile = None
            return meanwhile
        later = super().schedule(action, state)
        if self._meanwhile is None:
            return later
        self._meanwhile.add(later)
        return Disposable()
