"""Operators that collect items into batches.

Written directly, with one list and one timer, where reactivex builds them of windows: a tenth of
the cost. A batch is never empty; of messages it is a `Batch`. They hold: told to end, they emit
what they have.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final, Protocol, TypeVar, cast, overload

from reactivex import Observable, abc, compose, typing
from reactivex import operators as rx
from reactivex.disposable import CompositeDisposable

from rxflow import arguments
from rxflow.message import Batch, Message
from rxflow.operators import checking as check
from rxflow.operators.declaring import Layer, changed_result, operator
from rxflow.operators.holding import Holding, held, outlasting
from rxflow.operators.operator import lifted
from rxflow.operators.timing import Spans, Timer
from rxflow.operators.windows import toggled

__all__ = [
    "buffer",
    "buffer_toggle",
    "buffer_when",
    "buffer_with_count",
    "buffer_with_time",
    "buffer_with_time_or_count",
]

T = TypeVar("T")
P = TypeVar("P")

_LISTED: Final = rx.flat_map(outlasting(rx.to_list)())
"""Makes a list of each window."""


class Buffer(Protocol):
    """Return the batch of a buffer's messages, or the list of its plain values."""

    @overload
    def __call__(self, source: Observable[Message[P]], /) -> Observable[Batch[P]]: ...
    @overload
    def __call__(self, source: Observable[T], /) -> Observable[list[T]]: ...


def _as_batch(items: list[Any]) -> list[Any]:
    if not items or type(items[0]) is not Message or {*map(type, items)} != {Message}:
        return items
    return Batch(items)


def _taken(items: list[Any]) -> list[Any]:
    """Copy the list of reactivex, whose `take_last_buffer` keeps the one that it has emitted."""
    taken = list(items)
    items.clear()
    return _as_batch(taken)


def _moved(collected: Any) -> Any:
    moved = collected.copy()
    collected.clear()
    return moved


batched: Final = changed_result(Layer.RESULT, rx.map(_taken))
"""Of messages its lists are batches (`to_list`)."""

never_empty: Final = changed_result(Layer.RESULT, rx.filter(bool))
"""It emits no empty list (`buffer`)."""

emptied_after: Final = changed_result(Layer.RESULT, rx.map(_moved))
"""It does not keep what it has emitted (`to_set`)."""


@operator(count=check.at_least_one, skip=check.at_least_one)
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
    if skip is None or skip == count:
        return cast("Buffer", lifted(_in_line(count)))
    return cast("Buffer", lifted(_skipping(count, skip)))


@operator(timespan=check.seconds, timeshift=check.wait)
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


@operator(is_single=True, timespan=check.seconds, count=check.at_least_one)
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
    return cast("Buffer", lifted(_by_time_or_count(span.total_seconds(), count, scheduler)))


@operator(batched, never_empty, held, boundaries=check.observable)
def buffer(boundaries: Observable[Any]) -> Buffer:
    """Collect what comes between two items of another stream.

    Marbles::

        source              -a-b-c-|
        other               --o-o---
        (other)             --x-y--(z|)         x=[a]  y=[b]  z=[c]

    Args:
        boundaries: A batch ends, and the next begins, with each of its items.
    """
    return cast("Buffer", compose(rx.window(boundaries), _LISTED))


@operator(batched, never_empty, held)
def buffer_when(closing_mapper: Callable[[], Observable[Any]]) -> Buffer:
    """Collect what comes until another stream emits or ends, which is then made anew.

    Args:
        closing_mapper: Makes the stream that ends a batch.
    """
    return cast("Buffer", compose(rx.window_when(closing_mapper), _LISTED))


@operator(batched, never_empty, openings=check.observable)
def buffer_toggle(
    openings: Observable[Any], closing_mapper: Callable[[Any], Observable[Any]]
) -> Buffer:
    """Collect what comes between an opening and its closing, in a batch for each opening.

    A time limit closes those that are open; the end of the source does not.

    Marbles::

        source              -a-bc|
        other               --o|
        (other, 4 s)        ------(x|)          x=[b, c]

    Args:
        openings: A batch begins with each of its items.
        closing_mapper: Makes, of that item, the stream whose first item or end closes the batch.
    """
    return cast("Buffer", compose(toggled(openings, closing_mapper), _LISTED))


def _emit(items: list[Any], observer: abc.ObserverBase[Any]) -> None:
    if items:
        observer.on_next(_as_batch(items))


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
        spans = Spans(span, shift)

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

        timer = Timer(own, scheduler, tick)
        timer.start(spans.wait())
        holding = Holding(observer, flush, batches.clear, timer.lock)
        return CompositeDisposable(timer.current, holding.subscribe(source, on_next, scheduler))

    return subscribe


def _by_time_or_count(
    span: float, count: int, own: abc.SchedulerBase | None
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

        timer = Timer(own, scheduler, tick)
        timer.start(span)
        holding = Holding(observer, flush, discard, timer.lock)
        return CompositeDisposable(timer.current, holding.subscribe(source, on_next, scheduler))

    return subscribe
