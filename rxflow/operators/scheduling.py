"""Operators that were given a scheduler of their own: their scope reaches the source all the same.

An operator of reactivex hands its own scheduler on to its source, and with the plain one the scope
would be lost: no end would reach what is upstream. So each subscription gives it a scheduler that
carries the scope, and otherwise is the one that the user chose.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from reactivex import Observable, abc

from rxflow.operators.operator import lifted
from rxflow.operators.scope import scope_of, within


def takes_scheduler(make: Callable[..., Any]) -> bool:
    """Whether a function that makes an operator can be given a scheduler."""
    return "scheduler" in inspect.signature(make).parameters


def scoped(make: Callable[..., Any]) -> Callable[..., Any]:
    """The same function; a scheduler that it is given carries the scope of each subscription."""
    signature = inspect.signature(make)

    @functools.wraps(make)
    def made(*args: Any, **kwargs: Any) -> Callable[[Observable[Any]], Observable[Any]]:
        given = signature.bind(*args, **kwargs)
        own = given.arguments.get("scheduler")
        if own is None:
            return make(*args, **kwargs)

        def subscribe(
            source: Observable[Any],
            observer: abc.ObserverBase[Any],
            scheduler: abc.SchedulerBase | None = None,
        ) -> abc.DisposableBase:
            scope = scope_of(scheduler)
            named = {**given.arguments, "scheduler": within(scope, own)}
            return make(**named)(source).subscribe(observer, scheduler=scheduler)

        return lifted(subscribe)

    return made
