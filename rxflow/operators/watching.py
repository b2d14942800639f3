"""Operators that look on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from reactivex import Observable, abc
from reactivex import operators as rx

from rxflow.operators import checking as check
from rxflow.operators.declaring import operator

__all__ = ["do"]

T = TypeVar("T")


@operator(is_single=True, on_next=check.observer_or_function)
def do(
    on_next: abc.ObserverBase[T] | abc.OnNext[T] | None = None,
    on_error: abc.OnError | None = None,
    on_completed: abc.OnCompleted | None = None,
) -> Callable[[Observable[T]], Observable[T]]:
    """Show every event to an observer, or to functions, and pass it on.

    reactivex has the one as its function and the other as its method; this is both.

    Args:
        on_next: An observer, or a function for each item.
        on_error: A function for the error.
        on_completed: A function for the end.
    """
    watcher: Any = on_next
    if callable(getattr(watcher, "on_next", None)):
        return rx.do(watcher)
    return rx.do_action(watcher, on_error, on_completed)
