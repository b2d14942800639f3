"""Timed streams in virtual time, what came of them, and a ledger that says what is acknowledged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reactivex import Observable, abc
from reactivex.disposable import Disposable
from reactivex.testing import ReactiveTest, TestScheduler

from rxflow.delivery import Ledger
from rxflow.message import Message
from rxflow.operators.scope import Scope, scope_of, within

on_next, on_error, on_completed = (
    ReactiveTest.on_next,
    ReactiveTest.on_error,
    ReactiveTest.on_completed,
)

Event = tuple[float, str, Any]
Make = Callable[[TestScheduler, Observable[Any]], Observable[Any]]


def seen(
    make: Make,
    *events: Any,
    until: float = 1000.0,
    disposed: float | None = None,
    scope: Scope | None = None,
) -> list[Event]:
    """What an operator makes of a cold source, subscribed to at 0, in virtual time."""
    return seen_and_used(make, *events, until=until, disposed=disposed, scope=scope)[0]


def seen_and_used(
    make: Make,
    *events: Any,
    until: float = 1000.0,
    disposed: float | None = None,
    scope: Scope | None = None,
) -> tuple[list[Event], float | None]:
    """The same, and when the source was let go; None if it was not."""
    clock = TestScheduler()
    source = clock.create_cold_observable(list(events))
    watcher = clock.create_observer()
    subscription = make(clock, source).subscribe(watcher, scheduler=within(scope, clock))
    if disposed is not None:
        clock.schedule_absolute(disposed, lambda *_: subscription.dispose())
    clock.advance_to(until)
    subscription.dispose()
    ends = [use.unsubscribe for use in source.subscriptions]
    let_go = ends[-1] if ends and ends[-1] < until else None
    return [_event(message) for message in watcher.messages], let_go


def _event(message: Any) -> Event:
    notification = message.value
    if notification.kind == "N":
        value = notification.value
        return message.time, "next", list(value) if type(value) is list else value
    if notification.kind == "E":
        return message.time, type(notification.exception).__name__, str(notification.exception)
    return message.time, "completed", None


class Source(Observable[Any]):
    """A source that is driven by hand, acknowledges as `from_mqtt` does, and can be completed."""

    def __init__(self) -> None:
        super().__init__()
        self.acknowledged: list[int] = []
        self.ledger = Ledger(self.acknowledged.extend, lambda: None, lambda _: None)
        self.ledger.connected(session_present=False)
        self.subscriptions = 0
        self.disposals = 0
        self.completions = 0
        self._observer: Any = None
        self._leave: Any = None

    def _subscribe_core(
        self, observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        self.subscriptions += 1
        self._observer = observer
        if scope := scope_of(scheduler):
            if scope.is_over:
                return Disposable()
            self._leave = scope.register(self)
        return Disposable(self._dispose)

    def _dispose(self) -> None:
        self.disposals += 1
        self.ledger.close()
        if self._leave:
            self._leave.dispose()

    def complete(self) -> None:
        self.completions += 1
        self._observer.on_completed()

    def receive(self, packet_id: int, payload: Any = None) -> None:
        value = packet_id if payload is None else payload
        self._observer.on_next(Message("t", value, 1, delivery=self.ledger.open(packet_id)))

    def settled(self) -> list[int]:
        self.ledger.settle()
        return self.acknowledged


def store(item: Any) -> None:
    """What a sink does with messages and batches."""
    for message in item if isinstance(item, list) else [item]:
        if message.delivery:
            message.delivery.store(set())
