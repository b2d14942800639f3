"""Operators through which several pipelines use one source: it belongs to the run, not to one.

So a `take_until` downstream ends its own branch only. With a mapper the source is used within one
subscription, and ends with it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

from reactivex import ConnectableObservable, Observable, abc, typing
from reactivex import operators as rx
from reactivex.disposable import Disposable, SingleAssignmentDisposable
from reactivex.subject import BehaviorSubject, ReplaySubject, Subject

from rxflow.operators import checking as check
from rxflow.operators.declaring import Layer, Make, change, operator
from rxflow.operators.envelope import without_delivery
from rxflow.operators.holding import Gated, Holding, fed
from rxflow.operators.operator import Same, Subscribe, lifted
from rxflow.scope import Scope, rooted, scope_of

__all__ = ["partition", "partition_indexed", "publish_value", "ref_count", "replay", "share"]

T = TypeVar("T")
T_out = TypeVar("T_out", covariant=True)  # noqa: PLC0105 (reactivex's name)


@change(Layer.SHARING)
def shared(make: Make) -> Make:
    """The same operator of reactivex; what it connects to belongs to the whole run."""
    signature = inspect.signature(make)

    def made(*args: Any, **kwargs: Any) -> Callable[[Observable[Any]], Any]:
        given = signature.bind(*args, **kwargs)
        mapper = given.arguments.get("mapper")
        if mapper:
            return lifted(_mapped(make, given, mapper))
        operator = make(*args, **kwargs)

        def apply(source: Observable[Any]) -> Any:
            result = operator(source)
            if isinstance(result, ConnectableObservable):
                result.source = source_of_all = _Rooted(result.source)
                vars(result)["_subscribe_core"] = source_of_all.feeding(result)
            return result

        return apply

    return made


@operator(shared, is_scoped=False, buffer_size=check.at_least_zero, window=check.wait)
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


@operator(shared, initial_value=check.anything)
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
            self.queue[-1] = self.queue[-1]._replace(value=without_delivery(value))


class _Latest(BehaviorSubject[T]):
    """Remembers the newest item without its delivery."""

    def _on_next_core(self, value: T) -> None:
        super()._on_next_core(value)
        if self.value is value:
            self.value = without_delivery(value)


@operator()
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
        self._use: _Use[T] | None = None

    def _subscribe_core(
        self, observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        use = self._use
        is_first = use is None
        if use is None:
            use = self._use = _Use(self._reset)
        use.count += 1
        if scope := scope_of(scheduler):
            scope.feed(use.gate)
        subscription = use.subject.subscribe(observer, scheduler=scheduler)
        if is_first:
            use.connection.disposable = use.gate.subscribe(
                self._source, use.subject.on_next, rooted(scheduler)
            )

        def leave() -> None:
            subscription.dispose()
            use.count -= 1
            if not use.count:
                self._reset(use)
                use.connection.dispose()

        return Disposable(leave)

    def _reset(self, use: _Use[T]) -> None:
        """Whoever comes from now on begins anew."""
        if self._use is use:
            self._use = None


class _Use(Generic[T]):
    """One subscription of what is shared, from its first observer to its end."""

    def __init__(self, reset: Callable[[_Use[T]], None]) -> None:
        self._reset = reset
        self.subject: Subject[T] = Subject()
        self.gate = Holding(cast("abc.ObserverBase[Any]", self))
        self.connection = SingleAssignmentDisposable()
        self.count = 0

    def on_error(self, error: Exception) -> None:
        """Its source has failed; let go of it first, for whoever begins anew at once."""
        self._reset(self)
        self.connection.dispose()
        self.subject.on_error(error)

    def on_completed(self) -> None:
        """Its source has ended."""
        self._reset(self)
        self.subject.on_completed()


@operator()
def partition(predicate: Callable[[Any], object]) -> Callable[[Observable[Any]], Any]:
    """Two streams: of the items for which a function is true, and of the others.

    Args:
        predicate: The function; of a message it gets the `Message`.
    """

    def apply(source: Observable[Any]) -> list[Observable[Any]]:
        shared = _Shared(source)
        others = rx.filter(lambda item: not predicate(item))
        return [rx.filter(cast("Any", predicate))(shared), others(shared)]

    return apply


@operator()
def partition_indexed(
    predicate_indexed: Callable[[Any, int], object],
) -> Callable[[Observable[Any]], Any]:
    """The same as `partition`; the function gets the item's number too, from 0.

    Args:
        predicate_indexed: The function.
    """

    def apply(source: Observable[Any]) -> list[Observable[Any]]:
        shared = _Shared(source)
        others = rx.filter_indexed(lambda item, index: not predicate_indexed(item, index))
        return [rx.filter_indexed(cast("Any", predicate_indexed))(shared), others(shared)]

    return apply


@operator()
def ref_count() -> Same[T]:
    """Connect what `publish` or `replay` made while somebody is subscribed to it."""
    return cast("Same[T]", rx.ref_count())


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


class _Rooted(abc.ObservableBase[T_out]):
    """A source that is subscribed in the scope of the whole run, behind a gate.

    What is subscribed to the connectable observable is ended after it.
    """

    def __init__(self, source: abc.ObservableBase[T_out]) -> None:
        self._source = source
        self._gate: Holding | None = None

    def subscribe(
        self,
        on_next: abc.ObserverBase[T_out] | abc.OnNext[T_out] | None = None,
        on_error: abc.OnError | None = None,
        on_completed: abc.OnCompleted | None = None,
        *,
        scheduler: abc.SchedulerBase | None = None,
    ) -> abc.DisposableBase:
        del on_error, on_completed  # `connect` passes a subject, no functions
        subject = cast("abc.ObserverBase[Any]", on_next)
        gate = self._gate = Holding(subject)
        source = cast("Observable[Any]", self._source)
        return gate.subscribe(source, subject.on_next, rooted(scheduler))

    def feeding(self, connectable: ConnectableObservable[Any]) -> Callable[..., Any]:
        """Return an observable that subscribes to the connectable one."""

        def subscribe(
            observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            if scope := scope_of(scheduler):
                scope.feed(self)
            return connectable.subject.subscribe(observer, scheduler=scheduler)

        return subscribe

    @property
    def inner(self) -> Scope | None:
        """The scope of what is upstream; None before it is connected."""
        return self._gate.inner if self._gate else None

    @property
    def is_over(self) -> bool:
        """True if what was connected has ended."""
        return self._gate is not None and self._gate.is_over

    @property
    def is_waiting(self) -> bool:
        """True if it is connected and has not ended."""
        return self._gate is not None and self._gate.is_waiting

    def end_now(self) -> None:
        """Complete what is connected."""
        if self._gate:
            self._gate.end_now()
