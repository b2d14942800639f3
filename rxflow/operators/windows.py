"""Operators that cut a stream into streams.

Written directly, with one timer and without a lock for each item, where reactivex feeds a `Subject`
for each window; what is left of the cost is mostly that of subscribing to each. A window holds
nothing: what is subscribed to it may. Told to end, the last window completes, and what is held
downstream of it comes through.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar, cast

from reactivex import Observable, abc, compose, typing
from reactivex import operators as rx
from reactivex.disposable import CompositeDisposable, Disposable, RefCountDisposable

from rxflow import arguments
from rxflow.operators import checking as check
from rxflow.operators.declaring import operator
from rxflow.operators.holding import Fed, Gated, Holding
from rxflow.operators.operator import lifted
from rxflow.operators.timing import Spans, Timer
from rxflow.scope import scope_of

__all__ = ["window_toggle", "window_with_count", "window_with_time", "window_with_time_or_count"]

T = TypeVar("T")

Windows = Callable[[Observable[T]], Observable[Observable[T]]]


@operator(openings=check.observable)
def window_toggle(
    openings: Observable[Any], closing_mapper: Callable[[Any], Observable[Any]]
) -> Windows[T]:
    """A window for each opening, until its closing.

    A time limit closes those that are open; the end of the source does not.

    Args:
        openings: A window begins with each of its items.
        closing_mapper: Makes, of that item, the stream whose first item or end closes the window.
    """
    return toggled(openings, closing_mapper)


def toggled(
    openings: Observable[Any], closing_mapper: Callable[[Any], Observable[Any]]
) -> Windows[Any]:
    """Windows that their scope can complete."""
    return compose(rx.window_toggle(openings, closing_mapper), rx.map(_Toggled))


@operator(count=check.at_least_one, skip=check.at_least_one)
def window_with_count(count: int, skip: int | None = None) -> Windows[T]:
    """Cut the stream into streams of a number of items.

    Args:
        count: Items in a window; >= 1.
        skip: A new window begins with every `skip`-th item; None means `count`.

    Raises:
        ConfigError: At call time, when either is out of range.
    """
    shift = skip or count

    def begin(windows: _Windows) -> Callable[[Any], None]:
        seen = 0
        windows.begin()

        def on_next(item: Any) -> None:
            nonlocal seen
            windows.feed(item)
            seen += 1
            if seen >= count and (seen - count) % shift == 0:
                windows.end()
            if seen % shift == 0:
                windows.begin()

        return on_next

    def subscribe(
        source: Observable[Any],
        observer: abc.ObserverBase[Any],
        scheduler: abc.SchedulerBase | None = None,
    ) -> abc.DisposableBase:
        windows = _Windows(observer)
        return windows.subscribe(source, begin(windows), scheduler)

    return lifted(subscribe)


@operator(timespan=check.seconds, timeshift=check.wait)
def window_with_time(
    timespan: typing.RelativeTime,
    timeshift: typing.RelativeTime | None = None,
    scheduler: abc.SchedulerBase | None = None,
) -> Windows[T]:
    """Cut the stream into streams by time, counted from the subscription.

    Args:
        timespan: How long a window is open, in seconds; > 0.
        timeshift: A new window begins every so many seconds; None or 0 means `timespan`.
        scheduler: Runs the timer instead of the one given to `subscribe`.

    Raises:
        ConfigError: At call time, when a time is out of range.
    """
    span = arguments.seconds("timespan", timespan)
    shift = arguments.seconds("timeshift", timeshift or 0, is_zero_fine=True) or span
    return lifted(_by_time(span, shift, scheduler))


@operator(timespan=check.seconds, count=check.at_least_one)
def window_with_time_or_count(
    timespan: typing.RelativeTime, count: int, scheduler: abc.SchedulerBase | None = None
) -> Windows[T]:
    """Cut the stream into streams, by time or by number, whichever comes first.

    Args:
        timespan: Longest time a window is open, counted from its beginning; > 0.
        count: Most items in a window; >= 1.
        scheduler: Runs the timer instead of the one given to `subscribe`.

    Raises:
        ConfigError: At call time, when either is out of range.
    """
    span = arguments.seconds("timespan", timespan)
    return lifted(_by_time_or_count(span, count, scheduler))


def _by_time(
    span: timedelta, shift: timedelta, own: abc.SchedulerBase | None
) -> Callable[..., abc.DisposableBase]:
    def subscribe(
        source: Observable[Any],
        observer: abc.ObserverBase[Any],
        scheduler: abc.SchedulerBase | None = None,
    ) -> abc.DisposableBase:
        windows = _Windows(observer)
        spans = Spans(span, shift)

        def tick() -> None:
            is_beginning, is_end = spans.turn()
            if is_beginning:
                windows.begin()
            if is_end:
                windows.end()
            timer.start(spans.wait())

        timer = Timer(own, scheduler, tick)
        windows.begin()
        timer.start(spans.wait())
        return windows.subscribe(source, windows.feed, scheduler, timer)

    return subscribe


def _by_time_or_count(
    span: timedelta, count: int, own: abc.SchedulerBase | None
) -> Callable[..., abc.DisposableBase]:
    def subscribe(
        source: Observable[Any],
        observer: abc.ObserverBase[Any],
        scheduler: abc.SchedulerBase | None = None,
    ) -> abc.DisposableBase:
        windows = _Windows(observer)
        left = count

        def on_next(item: Any) -> None:
            nonlocal left
            windows.feed(item)
            left -= 1
            if not left:
                tick()

        def tick() -> None:
            nonlocal left
            left = count
            windows.end()
            windows.begin()
            timer.start(span)

        timer = Timer(own, scheduler, tick)
        windows.begin()
        timer.start(span)
        return windows.subscribe(source, on_next, scheduler, timer)

    return subscribe


class _Toggled(Fed[T], Gated[T]):
    """A window that its scope can complete."""


class _Window(Fed[Any]):
    """One window: whoever subscribes gets what comes from then on, until it ends."""

    def __init__(self, refs: RefCountDisposable, windows: _Windows) -> None:
        super().__init__()
        self._windows = windows
        self.observers: tuple[abc.ObserverBase[Any], ...] = ()
        self._refs = refs
        self._end: Callable[[abc.ObserverBase[Any]], None] | None = None

    def _subscribe_core(
        self, observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        if scope := scope_of(scheduler):
            scope.feed(self._windows.holding)
        reference = self._refs.disposable
        if self._end:
            self._end(observer)
            return reference
        self.observers = (*self.observers, observer)

        def leave() -> None:
            self.observers = tuple([other for other in self.observers if other is not observer])

        return CompositeDisposable(reference, Disposable(leave))

    def end(self, end: Callable[[abc.ObserverBase[Any]], None]) -> None:
        """End it in this way for its observers, and for those that come later."""
        observers, self.observers = self.observers, ()
        self._end = end
        for observer in observers:
            end(observer)


class _Windows:
    """The open windows of one subscription, the oldest first.

    They live as long as the source is used, by what is downstream or by one of them.
    """

    __slots__ = ("_observer", "_open", "_refs", "_used", "holding")

    def __init__(self, observer: abc.ObserverBase[Any]) -> None:
        self._observer = observer
        self._open: tuple[_Window, ...] = ()
        self._used = CompositeDisposable()
        self._refs = RefCountDisposable(self._used)
        self.holding = Holding(cast("abc.ObserverBase[Any]", self))

    def subscribe(
        self,
        source: Observable[Any],
        on_next: Callable[[Any], None],
        scheduler: abc.SchedulerBase | None,
        timer: Timer | None = None,
    ) -> abc.DisposableBase:
        """Feed them from the source."""
        if timer:
            self.holding.guard(timer.lock)
            self._used.add(timer.current)
        self._used.add(self.holding.subscribe(source, on_next, scheduler))
        return self._refs

    def begin(self) -> None:
        """Open one more."""
        window = _Window(self._refs, self)
        self._open = (*self._open, window)
        self._observer.on_next(window)

    def end(self) -> None:
        """Complete the oldest."""
        oldest, *rest = self._open
        self._open = tuple(rest)
        oldest.end(_complete)

    def feed(self, item: Any) -> None:
        """Pass an item on to all that are open."""
        for window in self._open:
            for observer in window.observers:
                observer.on_next(item)

    def on_completed(self) -> None:
        """The source has ended: complete them, and what is downstream."""
        while self._open:
            self.end()
        self._observer.on_completed()

    def on_error(self, error: Exception) -> None:
        """The source has failed: so do they, and what is downstream."""
        windows, self._open = self._open, ()
        for window in windows:
            window.end(lambda observer: observer.on_error(error))
        self._observer.on_error(error)


def _complete(observer: abc.ObserverBase[Any]) -> None:
    observer.on_completed()
