"""Operators that hold items: told to end, they emit what they have.

`Holding` is one subscription of such an operator as its scope sees it. `held` gives the same to
those of reactivex, by a gate in front of them that completes what is downstream of it.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from threading import RLock
from typing import Any, Final, TypeVar, cast

from reactivex import ConnectableObservable, GroupedObservable, Observable, abc
from reactivex.disposable import CompositeDisposable, Disposable, SingleAssignmentDisposable
from reactivex.internal import noop, synchronized

from rxflow.operators.declaring import Layer, Make, change, changed_source
from rxflow.operators.operator import lifted
from rxflow.scope import Scope, scope_of, unscoped, within

T = TypeVar("T")


class Holding:
    """One subscription of an operator that holds items.

    Args:
        observer: What is downstream.
        flush: Emits what is held; called once, just before completion.
        discard: Drops what is held.
        lock: For an operator whose timer runs on a thread of its own; None on one thread.
    """

    __slots__ = (
        "_discard",
        "_flush",
        "_is_idle",
        "_observer",
        "_scheduler",
        "_upstream",
        "_wrap",
        "inner",
        "is_over",
    )

    def __init__(
        self,
        observer: abc.ObserverBase[Any],
        flush: Callable[[], None] = noop,
        discard: Callable[[], None] = noop,
        lock: RLock | None = None,
    ) -> None:
        self.is_over = False
        self._observer = observer
        self._flush = flush
        self._discard = discard
        self._is_idle = False  # subscribed at the end, and without an item since
        self.inner: Scope | None = None
        self._scheduler: abc.SchedulerBase | None = None
        self._upstream = SingleAssignmentDisposable()
        self._wrap: Callable[..., Any] = _as_it_is
        self.guard(lock)

    def before(self, observer: abc.ObserverBase[Any]) -> Holding:
        """The same, in front of this observer."""
        self._observer = observer
        return self

    def guard(self, lock: RLock | None) -> None:
        """Its timer turns out to run on a thread of its own; None if not."""
        self._wrap = synchronized(lock) if lock else _as_it_is

    def subscribe(
        self,
        source: Observable[Any],
        on_next: Callable[[Any], None],
        scheduler: abc.SchedulerBase | None,
    ) -> abc.DisposableBase:
        """Subscribe to the source in a scope of its own, and be a member of the one outside."""
        wrap = self._wrap
        self._scheduler = scheduler
        scope = scope_of(scheduler)
        if scope:
            scheduler = within(inner := Scope(scope), scheduler)
            self.inner = inner
            if scope.is_over:
                on_next = self._noting(on_next)
        self._upstream.disposable = source.subscribe(
            wrap(on_next), wrap(self._fail), wrap(self._end), scheduler=scheduler
        )
        registration = scope.hold(self) if scope and not self.is_over else Disposable()
        return CompositeDisposable(self._upstream, Disposable(wrap(self._drop)), registration)

    @property
    def is_waiting(self) -> bool:
        """True if it has not ended, and may hold something."""
        return not (self.is_over or self._is_idle)

    def end_now(self) -> None:
        """Emit what is held and complete, whatever is upstream. Once."""
        self._wrap(self._end_now)()

    def _noting(self, on_next: Callable[[Any], None]) -> Callable[[Any], None]:
        """Subscribed at the end of its scope it has nothing to emit before it gets something."""
        self._is_idle = True

        def noted(item: Any) -> None:
            self._is_idle = False
            on_next(item)

        return noted

    def _end_now(self) -> None:
        if not self.is_over:
            self._upstream.dispose()
            self._end()

    def _end(self) -> None:
        if not self.is_over:
            self.is_over = True
            self._flush()
            self._observer.on_completed()

    def _fail(self, error: Exception) -> None:
        # What is held is dropped by the dispose that follows, which reaches the source first: a
        # reference dropped before that would acknowledge what nobody stored.
        self.is_over = True
        self._observer.on_error(error)

    def _drop(self) -> None:
        self.is_over = True
        # With this its observer: what an operator of reactivex behind a gate holds.
        outlast(self, self._scheduler, self._discard)


def _as_it_is(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def outlast(
    held: object, scheduler: abc.SchedulerBase | None, drop: Callable[[], None] = noop
) -> None:
    """Keep what a disposed operator held until the whole pipeline is disposed, then drop it.

    Within a group or a window an operator is disposed before the source is, whose ledger would take
    what is dropped for let go, and acknowledge it. So it is dropped a tick later.
    """

    def action(_: abc.SchedulerBase, __: object = None) -> None:
        nonlocal held
        held = None
        drop()

    clock = unscoped(scheduler)
    if clock is None:
        drop()
        return
    with contextlib.suppress(RuntimeError):  # the loop is closed, and with it the ledger
        clock.schedule(action)


def _outlasting(source: Observable[Any]) -> Observable[Any]:
    def subscribe(
        observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        # What it holds is known to the observer that it has upstream.
        drop = functools.partial(outlast, observer, scheduler)
        running = source.subscribe(observer, scheduler=scheduler)
        return CompositeDisposable(running, Disposable(drop))

    return Observable(subscribe)


outlasting: Final = changed_source(Layer.END, _outlasting)
"""Disposed, it keeps what it held as `outlast` does."""


class Gated(Observable[T]):
    """A source that its scope can complete, whatever it is. Without a scope it is that source.

    Args:
        source: What is gated.
        holding: Makes the gate of a subscription.
    """

    def __init__(
        self,
        source: Observable[T],
        holding: Callable[[abc.ObserverBase[T]], Holding] = Holding,
    ) -> None:
        super().__init__()
        self._source = source
        self._holding = holding

    def subscribe(
        self,
        on_next: abc.ObserverBase[T] | abc.OnNext[T] | None = None,
        on_error: abc.OnError | None = None,
        on_completed: abc.OnCompleted | None = None,
        *,
        scheduler: abc.SchedulerBase | None = None,
    ) -> abc.DisposableBase:
        if scope_of(scheduler) is None:
            return self._source.subscribe(on_next, on_error, on_completed, scheduler=scheduler)
        return super().subscribe(on_next, on_error, on_completed, scheduler=scheduler)

    def _subscribe_core(
        self, observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        return self._holding(observer).subscribe(self._source, observer.on_next, scheduler)


held: Final = changed_source(Layer.END, Gated)
"""At the end of its scope it emits what it holds."""


@change(Layer.END)
def feeding(make: Make) -> Make:
    """As `held`, of an operator of which groups or windows come.

    What is subscribed to one of these is ended after the operator, which may still feed it.
    """

    def made(*args: Any, **kwargs: Any) -> Callable[[Observable[Any]], Observable[Any]]:
        operator = make(*args, **kwargs)

        def subscribe(
            source: Observable[Any],
            observer: abc.ObserverBase[Any],
            scheduler: abc.SchedulerBase | None = None,
        ) -> abc.DisposableBase:
            gate = Holding(observer)

            def on_next(stream: Any) -> None:
                observer.on_next(fed(stream, gate))

            return operator(Gated(source, gate.before)).subscribe(
                on_next, observer.on_error, observer.on_completed, scheduler=scheduler
            )

        return lifted(subscribe)

    return made


class Fed(Observable[T]):
    """A stream that goes on for as long as it is fed: a group, a window, or what is made of one.

    What is made of it by `pipe` is one too.
    """

    def pipe(self, *operators: Callable[[Any], Any]) -> Any:
        made = super().pipe(*operators)
        if not isinstance(made, Observable) or isinstance(made, ConnectableObservable):
            return made
        return _Made(cast("Observable[Any]", made))


class _Made(Fed[T]):
    """The same stream, by another name: nothing is between it and who subscribes."""

    def __init__(self, stream: Observable[T]) -> None:
        super().__init__()
        self._stream = stream

    def subscribe(
        self,
        on_next: abc.ObserverBase[T] | abc.OnNext[T] | None = None,
        on_error: abc.OnError | None = None,
        on_completed: abc.OnCompleted | None = None,
        *,
        scheduler: abc.SchedulerBase | None = None,
    ) -> abc.DisposableBase:
        return self._stream.subscribe(on_next, on_error, on_completed, scheduler=scheduler)


class _Group(Fed[Any], GroupedObservable[Any, Any]):
    """A group."""


def fed(stream: Observable[Any], feeder: Holding) -> Observable[Any]:
    """The same group, window or subject; what is subscribed to it is ended after its feeder."""

    def subscribe(
        observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        if scope := scope_of(scheduler):
            scope.feed(feeder)
        return stream.subscribe(observer, scheduler=scheduler)

    if isinstance(stream, GroupedObservable):
        group = cast("GroupedObservable[Any, Any]", stream)
        return _Group(group.key, Observable(subscribe))
    return Fed(subscribe)
