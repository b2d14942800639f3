"""Operators through which several pipelines use one source: it belongs to the run, not to one.

So a `take_until` downstream ends its own branch only. With a mapper the source is used within one
subscription, and ends with it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from reactivex import ConnectableObservable, Observable, abc
from reactivex import operators as rx

from rxflow.operators.scope import rooted

T = TypeVar("T")
T_out = TypeVar("T_out", covariant=True)  # noqa: PLC0105 (reactivex's name)


def share() -> Callable[[Observable[T]], Observable[T]]:
    """One subscription for all observers, from the first until the last is gone."""
    publish = shared(rx.publish)
    return lambda source: rx.ref_count()(publish()(source))


def shared(make: Callable[..., Any]) -> Callable[..., Any]:
    """The same operator of reactivex; what it connects to belongs to the whole run."""

    @functools.wraps(make)
    def made(*args: Any, **kwargs: Any) -> Callable[[Observable[Any]], Any]:
        operator = make(*args, **kwargs)

        def apply(source: Observable[Any]) -> Any:
            result = operator(source)
            if isinstance(result, ConnectableObservable):
                result.source = _Rooted(result.source)
            return result

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
