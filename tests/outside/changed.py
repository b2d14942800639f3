"""An operator: pass on what has changed by some amount. It keeps numbers, and no message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reactivex import Observable, abc

from rxflow import Message


def changed_by(least: float) -> Callable[[Observable[Message[Any]]], Observable[Message[Any]]]:
    """Let go of readings that differ by less than this from the last one passed on of their topic.

    Args:
        least: In the unit of the payload; > 0.
    """

    def operator(source: Observable[Message[Any]]) -> Observable[Message[Any]]:
        def subscribe(
            observer: abc.ObserverBase[Message[Any]], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            last: dict[str, float] = {}

            def on_next(message: Message[Any]) -> None:
                before = last.get(message.topic)
                if before is None or abs(message.payload - before) >= least:
                    last[message.topic] = message.payload
                    observer.on_next(message)

            # The scheduler is handed on: with it an end finds its way to the source.
            return source.subscribe(
                on_next, observer.on_error, observer.on_completed, scheduler=scheduler
            )

        return Observable(subscribe)

    return operator
