"""Operators through which several pipelines use one source: it belongs to the run, not to one.

So a `take_until` downstream ends its own branch only. With a mapper the source is used within one
subscription, and ends with it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

from reactivex import ConnectableObservable, Observable, abc, typing
from reactivex import operators as rx
from reactivex.disposable import Disposable, SingleAssignmentDisposable
from reactivex.subject import BehaviorSubject, ReplaySubject, Subject

from rxflow.operators.envelope import bare
from rxflow.operators.holding import Gated, Holding, fed
from rxflow.operators.operator import Same, Subscribe, lifted
from rxflow.operators.scope import rooted

T = TypeVar("T")
T_out = TypeVar("T_out", covariant=True)  # noqa: PLC0105 (reactivex's name)


def replay(
    buffer_size: int | None = None,
    window: typing.RelativeTime | None = None,
    *,
    mapper: Callable[[Observable[Any]], Observable[Any]] | None = None,
    scheduler: abc.SchedulerBase | None = None,
) -> Callable[[Observable[Any]], Any]:
    """One subscription for all observers, each of which first gets what came before it.

    What comes again is payload and envelope: the delivery went on with the first emission.

    Args:
        buffer_size: How many items come again; None: all.
        window: How long an item comes again, in seconds; None: for ever.
        mapper: Uses the shared source within one subscription, instead of connecting it.
        scheduler: On which the observers are called; its clock measures the window.
    """

    def subject(_: abc.SchedulerBase | None = None) -> ReplaySubject[Any]:
        return _Replaying(buffer_size, window, scheduler)

    return _multicast(subject, mapper)


def publish_value(
    initial_value: Any, mapper: Callable[[Observable[Any]], Observable[Any]] | None = None
) -> Callable[[Observable[Any]], Any]:
    """One subscription for all observers, each of which first gets the newest item.

    That is payload and envelope only: the delivery went on with the first emission.

    Args:
        initial_value: What an observer gets before there is one.
        mapper: Uses the shared source within one subscription, instead of connecting it.
    """

    def subject(_: abc.SchedulerBase | None = None) -> BehaviorSubject[Any]:
        return _Latest(initial_value)

    return _multicast(subject, mapper)


def _multicast(subject: Callable[..., Any], mapper: Any) -> Callable[[Observable[Any]], Any]:
    if mapper:
        return rx.multicast(subject_factory=subject, mapper=mapper)
    return rx.multicast(subject())


class _Replaying(ReplaySubject[T]):
    """Replays items without their deliveries."""

    def _on_next_core(self, value: T) -> None:
        super()._on_next_core(value)
        if self.queue and self.queue[-1].value is value:
            self.queue[-1] = self.queue[-1]._replace(value=bare(value))


class _Latest(BehaviorSubject[T]):
    """Remembers the newest item without its delivery."""

    def _on_next_core(self, value: T) -> None:
        super()._on_next_core(value)
        if self.value is value:
            self.value = bare(value)


def share() -> Callable[[Observable[T]], Observable[T]]:
    """One subscription for all observers, from the first until the last is gone.

    Whoever subscribes after the source has ended, or failed, begins anew.
    """

    def apply(source: Observable[T]) -> Observable[T]:
        return _Shared(source)

    return apply


class _Shared(Observable[T]):
    """A source with one subscription for all that are subscribed to this."""

    def __init__(self, source: Observable[T]) -> None:
        super().__init__()
        self._source = source
        self._subject: Subject[T] | None = None
        self._connection = SingleAssignmentDisposable()
        self._count = 0

    def _subscribe_core(
        self, observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        subject = self._subject
        is_first = subject is None
        if subject is None:
            subject = self._subject = Subject()
            self._connection = SingleAssignmentDisposable()
            self._count = 0
        self._count += 1
        connection = self._connection
        subscription = subject.subscribe(observer, scheduler=scheduler)
        if is_first:
            connection.disposable = self._connect(subject, scheduler)

        def leave() -> None:
            subscription.dispose()
            if self._subject is subject:
                self._count -= 1
                if not self._count:
                    self._subject = None
                    connection.dispose()

        return Disposable(leave)

    def _connect(
        self, subject: Subject[T], scheduler: abc.SchedulerBase | None
    ) -> abc.DisposableBase:
        def reset() -> None:
            if self._subject is subject:
                self._subject = None

        def on_error(error: Exception) -> None:
            reset()
            subject.on_error(error)

        def on_completed() -> None:
            reset()
            subject.on_completed()

        return self._source.subscribe(
            subject.on_next, on_error, on_completed, scheduler=rooted(scheduler)
        )


def ref_count() -> Same[T]:
    """Connect what `publish` or `replay` made while somebody is subscribed to it."""
    return cast("Same[T]", rx.ref_count())


def shared(make: Callable[..., Any]) -> Callable[..., Any]:
    """The same operator of reactivex; what it connects to belongs to the whole run."""
    signature = inspect.signature(make)

    @functools.wraps(make)
    def made(*args: Any, **kwargs: Any) -> Callable[[Observable[Any]], Any]:
        given = signature.bind(*args, **kwargs)
        mapper = given.arguments.get("mapper")
        if mapper:
            return lifted(_mapped(make, given, mapper))
        operator = make(*args, **kwargs)

        def apply(source: Observable[Any]) -> Any:
            result = operator(source)
            if isinstance(result, ConnectableObservable):
                result.source = _Rooted(result.source)
            return result

        return apply

    return made


def _mapped(make: Callable[..., Any], given: inspect.BoundArguments, mapper: Any) -> Subscribe:
    """Of an operator that shares within one subscription: what is shared ends first."""

    def subscribe(
        source: Observable[Any],
        observer: abc.ObserverBase[Any],
        scheduler: abc.SchedulerBase | None = None,
    ) -> abc.DisposableBase:
        gate = Holding(observer)

        def mapped(subject: Observable[Any]) -> Observable[Any]:
            return mapper(fed(subject, gate))

        operator = make(**{**given.arguments, "mapper": mapped})
        return operator(Gated(source, gate.before)).subscribe(observer, scheduler=scheduler)

    return subscribe


def parted(make: Callable[..., Any]) -> Callable[..., Any]:
    """The same operator of reactivex (`partition`), whose parts share what belongs to the run."""

    @functools.wraps(make)
    def made(*args: Any, **kwargs: Any) -> Callable[[Observable[Any]], Any]:
        operator = make(*args, **kwargs)

        def apply(source: Observable[Any]) -> Any:
            def subscribe(
                observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None = None
            ) -> abc.DisposableBase:
                return source.subscribe(observer, scheduler=rooted(scheduler))

            return operator(Observable(subscribe))

        return apply

    return made


class _Rooted(abc.ObservableBase[T_out]):
    """A source that is subscribed in the scope of the whole run."""

    def __init__(self, source: abc.ObservableBase[T_out]) -> None:
        self._source = source

    def subscribe(
        self,
        on_next: abc.ObserverBase[T_out] | abc.OnNext[T_out] | None = None,
        on_error: abc.OnError | None = None,
        on_completed: abc.OnCompleted | None = None,
        *,
        scheduler: abc.SchedulerBase | None = None,
    ) -> abc.DisposableBase:
        return self._source.subscribe(on_next, on_error, on_completed, scheduler=rooted(scheduler))
