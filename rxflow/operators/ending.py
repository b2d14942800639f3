"""Operators that end a stream from outside: a time limit flushes; it doesn't discard.

They first complete what is upstream, so that what its buffers hold comes through in that same
instant, then complete downstream exactly when reactivex would.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, TypeAlias, TypeVar

from reactivex import Observable, abc, from_future, typing
from reactivex.disposable import CompositeDisposable
from reactivex.internal import (
    ArgumentOutOfRangeException,
    SequenceContainsNoElementsError,
    is_future,
    noop,
)
from reactivex.scheduler import TimeoutScheduler

from rxflow import arguments
from rxflow.operators import checking as check
from rxflow.operators.declaring import operator
from rxflow.operators.operator import Same, lifted
from rxflow.scope import Scope, scope_of, within

__all__ = ["take_until", "take_until_with_time", "take_with_time"]

T = TypeVar("T")

Stop: TypeAlias = Callable[
    [Callable[[], None], abc.ObserverBase[Any], abc.SchedulerBase | None], abc.DisposableBase
]


_TOO_FEW: Final = (SequenceContainsNoElementsError, ArgumentOutOfRangeException)


@operator(is_single=True, other=check.stream)
def take_until(other: Observable[Any] | typing.AnyFuture[Any]) -> Same[T]:
    """End when another observable emits, with everything that came before.

    What is upstream is completed first, not past a `share` or `publish`, which belong to several.

    Marbles::

        source              -a-b-c-d-e-
        other               ------x
        (other)             -a-b-c|

    Args:
        other: What ends it, by its first item or its error; its completion means nothing. Or a
            future.

    Raises:
        ConfigError: At call time, when `other` is neither.
    """
    until: Any = from_future(other) if is_future(other) else other

    def stop(
        end: Callable[[], None],
        observer: abc.ObserverBase[Any],
        scheduler: abc.SchedulerBase | None,
    ) -> abc.DisposableBase:
        def on_next(_: object) -> None:
            end()

        return until.subscribe(on_next, observer.on_error, noop, scheduler=scheduler)

    return lifted(_until(stop))


@operator(is_single=True, end_time=check.time)
def take_until_with_time(
    end_time: typing.AbsoluteOrRelativeTime, scheduler: abc.SchedulerBase | None = None
) -> Same[T]:
    """End at a time, with everything that came before.

    Marbles::

        source              -a-b-c-d-e-
        (4 s)               -a-b|

    Args:
        end_time: A `datetime`, or seconds from the subscription; >= 0.
        scheduler: Runs the timer instead of the one given to `subscribe`.

    Raises:
        ConfigError: At call time, when the time is out of range.
    """
    if not isinstance(end_time, datetime):
        end_time = arguments.seconds("end_time", end_time, is_zero_fine=True)
    return lifted(_until(_at(end_time, scheduler), is_stop_first=True))


@operator(is_single=True, duration=check.wait)
def take_with_time(
    duration: typing.RelativeTime, scheduler: abc.SchedulerBase | None = None
) -> Same[T]:
    """End after a time, with everything that came before.

    Marbles::

        source              -a-b-c-d-e-
        (4 s)               -a-b|

    Args:
        duration: Seconds from the subscription; >= 0.
        scheduler: Runs the timer instead of the one given to `subscribe`.

    Raises:
        ConfigError: At call time, when the time is out of range.
    """
    wait = arguments.seconds("duration", duration, is_zero_fine=True)
    return lifted(_until(_at(wait, scheduler), is_stop_first=True))


def _at(time: typing.AbsoluteOrRelativeTime, own: abc.SchedulerBase | None) -> Stop:
    def stop(
        end: Callable[[], None], _: abc.ObserverBase[Any], given: abc.SchedulerBase | None
    ) -> abc.DisposableBase:
        def ring(_: abc.SchedulerBase, __: object = None) -> None:
            end()

        clock = own or given or TimeoutScheduler.singleton()
        if isinstance(time, datetime):
            return clock.schedule_absolute(time, ring)
        return clock.schedule_relative(time, ring)

    return stop


def _until(stop: Stop, *, is_stop_first: bool = False) -> Callable[..., abc.DisposableBase]:
    """The subscribe function of an operator that ends when `stop` calls its first argument."""

    def subscribe(
        source: Observable[Any],
        observer: abc.ObserverBase[Any],
        scheduler: abc.SchedulerBase | None = None,
    ) -> abc.DisposableBase:
        outer = scope_of(scheduler) or Scope()
        until = _Until(observer, outer)

        def end() -> None:
            until.inner.complete(until.end_now)

        def upstream() -> abc.DisposableBase:
            return until.subscribe(source, scheduler)

        first = stop(end, observer, scheduler) if is_stop_first else upstream()
        second = upstream() if is_stop_first else stop(end, observer, scheduler)
        return CompositeDisposable(first, second, outer.hold(until))

    return subscribe


class _Until:
    """One subscription: what is upstream of it, and whether it has ended.

    It holds nothing; but at the end of the scope outside it completes, as at its own.
    """

    def __init__(self, observer: abc.ObserverBase[Any], outer: Scope) -> None:
        self.inner = Scope(outer)
        self._observer = observer
        self.is_over = False
        self._is_idle = outer.is_over  # subscribed at the end, and without an item since

    def subscribe(
        self, source: Observable[Any], scheduler: abc.SchedulerBase | None
    ) -> abc.DisposableBase:
        on_next = self._noted if self._is_idle else self._observer.on_next
        return source.subscribe(
            on_next, self._fail, self.end_now, scheduler=within(self.inner, scheduler)
        )

    @property
    def is_waiting(self) -> bool:
        """True if it has not ended, and something came through it."""
        return not (self.is_over or self._is_idle)

    def end_now(self) -> None:
        """Complete, whatever is upstream. Once."""
        if not self.is_over:
            self.is_over = True
            self._observer.on_completed()

    def _noted(self, item: Any) -> None:
        self._is_idle = False
        self._observer.on_next(item)

    def _fail(self, error: Exception) -> None:
        # `first` of nothing, `element_at(3)` of two: only because we ended what was upstream.
        if self.inner.is_over and isinstance(error, _TOO_FEW):
            self.end_now()
        else:
            self.is_over = True
            self._observer.on_error(error)
