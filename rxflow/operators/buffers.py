"""Operators that collect items into batches.

Written directly, with one list and one timer, where reactivex builds them of windows: a tenth of
the cost. A batch is never empty; of messages it is a `Batch`. They hold: told to end, they emit
what they have.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import timedelta
from threading import RLock
from typing import Any, Protocol, TypeVar, cast, overload

from reactivex import Observable, abc, typing
from reactivex.disposable import CompositeDisposable, SerialDisposable
from reactivex.internal import synchronized
from reactivex.scheduler import TimeoutScheduler

from rxflow.message import Batch, Message
from rxflow.operators import arguments
from rxflow.operators.holding import Holding
from rxflow.operators.operator import lifted

T = TypeVar("T")
P = TypeVar("P")


class Buffer(Protocol):
    """What a buffer makes of messages, and of plain values."""

    @overload
    def __call__(self, source: Observable[Message[P]], /) -> Observable[Batch[P]]: ...
    @overload
    def __call__(self, source: Observable[T], /) -> Observable[list[T]]: ...


def buffer_with_count(count: int, skip: int | None = None) -> Buffer:
    """Collect items into batches of a number.

    The last, short batch is emitted on completion.

    Marbles::

        source              -a-b-c---d-|
        (2)                 ---x-----y-|        x=[a, b]  y=[c, d]

    Args:
        count: Items in a batch; >= 1.
        skip: A new batch begins with every `skip`-th item: below `count` they overlap, above it
            items between them are let go. None means `count`.

    Raises:
        ConfigError: At call time, when either is out of range.
    """
    arguments.at_least_one("count", count)
    arguments.at_least_one("skip", skip if skip is not None else count)
    if skip is None or skip == count:
        return cast("Buffer", lifted(_in_line(count)))
    return cast("Buffer", lifted(_skipping(count, skip)))


def buffer_with_time(
    timespan: typing.RelativeTime,
    timeshift: typing.RelativeTime | None = None,
    scheduler: abc.SchedulerBase | None = None,
) -> Buffer:
    """Collect items into batches by time, counted from the subscription.

    The last, short batch is emitted on completion. A span without items emits nothing.

    Marbles::

        source              -a-b-c---d-|
        (4 s)               ----x---y--(z|)     x=[a, b]  y=[c]  z=[d]

    Args:
        timespan: How long a batch collects, in seconds; > 0.
        timeshift: A new batch begins every so many seconds; None or 0 means `timespan`.
        scheduler: Runs the timer instead of the one given to `subscribe`.

    Raises:
        ConfigError: At call time, when a time is out of range.
    """
    span = arguments.seconds("timespan", timespan)
    shift = arguments.seconds("timeshift", timeshift or 0, is_zero_fine=True) or span
    return cast("Buffer", lifted(_by_time(span, shift, scheduler)))


def buffer_with_time_or_count(
    timespan: typing.RelativeTime, count: int, scheduler: abc.SchedulerBase | None = None
) -> Buffer:
    """Collect items into batches, by time or by number, whichever comes first.

    The last, short batch is emitted on completion. A span without items emits nothing.

    Marbles::

        source              -a-b-c---d-|
        (4 s, 2)            ---x---y---(z|)     x=[a, b]  y=[c]  z=[d]

    Args:
        timespan: Longest time a batch collects, counted from its beginning; > 0.
        count: Most items in a batch; >= 1.
        scheduler: Runs the timer instead of the one given to `subscribe`.

    Raises:
        ConfigError: At call time, when either is out of range.
    """
    span = arguments.seconds("timespan", timespan)
    arguments.at_least_one("count", count)
    return cast("Buffer", lifted(_by_time_or_count(span, count, scheduler)))


def _emit(items: list[Any], observer: abc.ObserverBase[Any]) -> None:
    if items:
        all_are_messages = {*map(type, items)} == {Message}
        observer.on_next(Batch(items) if all_are_messages else items)


def _in_line(count: int) -> Callable[..., abc.DisposableBase]:
    def subscribe(
        source: Observable[Any],
        observer: abc.ObserverBase[Any],
        scheduler: abc.SchedulerBase | None = None,
    ) -> abc.DisposableBase:
        items: list[Any] = []

        def on_next(item: Any) -> None:
            items.append(item)
            if len(items) >= count:
                flush()

        def flush() -> None:
            nonlocal items
            full, items = items, []
            _emit(full, observer)

        def discard() -> None:
            items.clear()

        return Holding(observer, flush, discard).subscribe(source, on_next, scheduler)

    return subscribe


def _skipping(count: int, skip: int) -> Callable[..., abc.DisposableBase]:
    def subscribe(
        source: Observable[Any],
        observer: abc.ObserverBase[Any],
        scheduler: abc.SchedulerBase | None = None,
    ) -> abc.DisposableBase:
        batches: deque[list[Any]] = deque()
        seen = 0

        def on_next(item: Any) -> None:
            nonlocal seen
            if seen % skip == 0:
                batches.append([])
            seen += 1
            for items in batches:
                items.append(item)
            if batches and len(batches[0]) == count:
                _emit(batches.popleft(), observer)

        def flush() -> None:
            while batches:
                _emit(batches.popleft(), observer)

        return Holding(observer, flush, batches.clear).subscribe(source, on_next, scheduler)

    return subscribe


def _by_time(
    span: timedelta, shift: timedelta, own: abc.SchedulerBase | None
) -> Callable[..., abc.DisposableBase]:
    def subscribe(
        source: Observable[Any],
        observer: abc.ObserverBase[Any],
        scheduler: abc.SchedulerBase | None = None,
    ) -> abc.DisposableBase:
        batches: deque[list[Any]] = deque([[]])
        spans = _Spans(span, shift)

        def on_next(item: Any) -> None:
            for items in batches:
                items.append(item)

        def flush() -> None:
            while batches:
                _emit(batches.popleft(), observer)

        def tick() -> None:
            is_beginning, is_end = spans.turn()
            if is_beginning:
                batches.append([])
            if is_end:
                _emit(batches.popleft(), observer)
            timer.start(spans.wait())

        timer = _Timer(own, scheduler, tick)
        timer.start(spans.wait())
        holding = Holding(observer, flush, batches.clear, timer.lock)
        return CompositeDisposable(timer.current, holding.subscribe(source, on_next, scheduler))

    return subscribe


class _Spans:
    """When the next batch ends and when one begins, counted from the subscription."""

    __slots__ = ("_beginning", "_elapsed", "_end", "_shift")

    def __init__(self, span: timedelta, shift: timedelta) -> None:
        self._shift = shift
        self._end = span
        self._beginning = shift
        self._elapsed = timedelta()

    def wait(self) -> timedelta:
        """How long from the last turn to the next."""
        before, self._elapsed = self._elapsed, min(self._end, self._beginning)
        return self._elapsed - before

    def turn(self) -> tuple[bool, bool]:
        """Does a batch begin now, and does one end?"""
        is_beginning, is_end = self._elapsed == self._beginning, self._elapsed == self._end
        self._beginning += self._shift * is_beginning
        self._end += self._shift * is_end
        return is_beginning, is_end


def _by_time_or_count(
    span: timedelta, count: int, own: abc.SchedulerBase | None
) -> Callable[..., abc.DisposableBase]:
    def subscribe(
        source: Observable[Any],
        observer: abc.ObserverBase[Any],
        scheduler: abc.SchedulerBase | None = None,
    ) -> abc.DisposableBase:
        items: list[Any] = []

        def on_next(item: Any) -> None:
            items.append(item)
            if len(items) >= count:
                tick()

        def tick() -> None:
            flush()
            timer.start(span)

        def flush() -> None:
            nonlocal items
            full, items = items, []
            _emit(full, observer)

        def discard() -> None:
            items.clear()

        timer = _Timer(own, scheduler, tick)
        timer.start(span)
        holding = Holding(observer, flush, discard, timer.lock)
        return CompositeDisposable(timer.current, holding.subscribe(source, on_next, scheduler))

    return subscribe


class _Timer:
    """The one timer of a buffer: started again, it forgets what it waited for.

    Attributes:
        current: What it waits for; disposed, it never ticks again.
        lock: What keeps it from ticking in the middle of an item; None where its scheduler is that
            of the whole subscription, and so one thread does it all.
    """

    __slots__ = ("_scheduler", "_tick", "_turn", "current", "lock")

    def __init__(
        self,
        own: abc.SchedulerBase | None,
        given: abc.SchedulerBase | None,
        tick: Callable[[], None],
    ) -> None:
        self._scheduler = own or given or TimeoutScheduler.singleton()
        self._tick = tick
        self._turn = 0
        self.current = SerialDisposable()
        self.lock = None if given and not own else RLock()

    def start(self, wait: timedelta) -> None:
        self._turn = turn = self._turn + 1

        def ring(_: abc.SchedulerBase, __: object = None) -> None:
            if turn == self._turn and not self.current.is_disposed:
                self._tick()

        action = synchronized(self.lock)(ring) if self.lock else ring
        self.current.disposable = self._scheduler.schedule_relative(wait, action)
