"""Timed streams in virtual time, what came of them, and a ledger that says what is acknowledged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from ledgers import Linked
from reactivex import Observable, abc
from reactivex.disposable import Disposable
from reactivex.notification import OnNext
from reactivex.operators._timeinterval import TimeInterval
from reactivex.operators._timestamp import Timestamp
from reactivex.testing import ReactiveTest, TestScheduler

from rxflow import operators as ops
from rxflow.delivery import Delivery, Ledger
from rxflow.message import EPOCH, Message
from rxflow.operators.envelope import messages_in
from rxflow.properties import Properties
from rxflow.scope import Scope, scope_of, within

on_next, on_error, on_completed = (
    ReactiveTest.on_next,
    ReactiveTest.on_error,
    ReactiveTest.on_completed,
)

Event = tuple[float, str, Any]
Envelope = tuple[object, ...]
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

    def __init__(self, topic: str = "t") -> None:
        super().__init__()
        self.topic = topic
        self.acknowledged: list[int] = []
        self.ids: dict[tuple[Ledger, int], int] = {}
        self.envelopes: dict[int, Envelope] = {}
        self.ledgers: list[Ledger] = []
        self._begin()
        self.subscriptions = 0
        self.disposals = 0
        self.completions = 0
        self._observer: Any = None
        self._leave: Any = None

    def _begin(self) -> None:
        self.ledger = Linked(self.acknowledged.extend)
        self.ledger.connected(session_present=False)
        self.ledgers.append(self.ledger)

    def _subscribe_core(
        self, observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        self.subscriptions += 1
        if self.subscriptions > 1:
            self._begin()
        self._observer = observer
        if scope := scope_of(scheduler):
            if scope.is_over:
                return Disposable()
            self._leave = scope.register(self)
        ledger = self.ledger

        def dispose() -> None:
            self.disposals += 1
            ledger.close()
            if self._observer is observer:
                self._observer = None
            if self._leave:
                self._leave.dispose()

        return Disposable(dispose)

    def complete(self) -> None:
        self.completions += 1
        if self._observer:
            self._observer.on_completed()

    def receive(self, packet_id: int, payload: Any = None) -> None:
        """A message comes; without a subscription none does."""
        if self._observer is None:
            return
        value = packet_id if payload is None else payload
        token = Delivery(self.ledger, packet_id)
        self.ids[self.ledger, token.number] = packet_id
        received_at = EPOCH + timedelta(seconds=packet_id)
        flags = packet_id % 2 == 0, packet_id % 3 == 0
        properties = Properties(content_type=str(packet_id))
        message = Message(self.topic, value, 1, *flags, properties, received_at, token)
        self.envelopes[packet_id] = envelope_of(message)
        del token
        self._observer.on_next(message)

    def resolved(self) -> set[int]:
        """What was stored or let go so far, though what came before it may still be held."""
        acknowledged = self.settled()
        dropped = {self.ids[ledger, n] for ledger in self.ledgers for n in ledger._fates}
        return {*acknowledged, *dropped}

    def settled(self) -> list[int]:
        for ledger in self.ledgers:
            ledger.settle()
        return self.acknowledged


def envelope_of(message: Message[Any]) -> Envelope:
    """All of it but payload and delivery."""
    bare = message.with_payload(None).with_delivery(None)
    return bare.topic, bare.qos, bare.retain, bare.duplicate, bare.properties, bare.received_at


def store(item: Any) -> None:
    """What a sink does with messages and batches."""
    for message in messages_in(item):
        if message.delivery:
            message.delivery.take(1)
            message.delivery.store(set())


storing = ops.do_action(store)
"""An operator behind which everything counts as stored."""


def unwrapped(item: Any) -> Any:
    """The item as it would be, had the messages in it been their payloads."""
    if isinstance(item, Message):
        return unwrapped(item.payload)
    if isinstance(item, list | tuple | set):
        kind = list if isinstance(item, list) else type(item)
        return kind(map(unwrapped, item))
    if isinstance(item, dict):
        return {key: unwrapped(value) for key, value in item.items()}
    if isinstance(item, OnNext):
        return OnNext(unwrapped(item.value))
    if isinstance(item, Timestamp | TimeInterval):
        return replace(item, value=unwrapped(item.value))
    return item
