"""Sources that do what a diagram says, hot or cold, and know who subscribed when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, Disposable

from rxflow.flow import Flow
from rxflow.scope import scope_of, unscoped
from rxflow.testing.diagrams.diagram import Diagram
from rxflow.testing.diagrams.events import Event
from rxflow.testing.diagrams.rendering import Row
from rxflow.testing.pending import Debt, Pending, Place
from rxflow.testing.subscriptions import Span, Subscriptions
from rxflow.testing.virtual.time import VirtualTime


class Part(Protocol):
    """Something that plays in a check: a source, a broker, a disk."""

    @property
    def length(self) -> int:
        """The last time that its diagram speaks of, in nanoseconds."""
        ...

    def begin(self) -> None:
        """Forget the last check and schedule what the diagram says; now is zero."""
        ...

    def rows(self) -> Sequence[Row]:
        """Return the line that a failure shows of it; none if it took no part."""
        ...


class Source(Flow[Any]):
    """A hot or cold source of a test; `Marbles.hot` and `Marbles.cold` make it.

    Like any source of rxflow it can be completed, so `take_until` flushes what is above it.
    """

    def __init__(self, inner: Played, *, settle: Callable[[], None], pending: Pending) -> None:
        super().__init__(inner, label=inner.name)
        name, place = inner.name, Place.of_caller()
        inner.debt = pending.add(
            lambda: f"{name}: nobody subscribed, and nobody asked for its subscriptions [{place}]",
            is_part=True,
        )
        self._played = inner
        self._settle = settle
        self._pending = pending

    def subscribe(
        self,
        on_next: abc.ObserverBase[Any] | abc.OnNext[Any] | None = None,
        on_error: abc.OnError | None = None,
        on_completed: abc.OnCompleted | None = None,
        *,
        scheduler: abc.SchedulerBase | None = None,
    ) -> abc.DisposableBase:
        """Subscribe, without a scheduler on that of the test."""
        if not unscoped(scheduler):
            scheduler = self._played.time.scheduler
        return super().subscribe(on_next, on_error, on_completed, scheduler=scheduler)

    @property
    def subscriptions(self) -> Subscriptions:
        """The subscriptions of the last check: `source.subscriptions == "^-----!"`."""
        self._settle()
        self._played.taken()
        return Subscriptions(self._played.spans, self._played.diagram.frame, self._pending)


class Played(Observable[Any]):
    """The common part of hot and cold sources.

    Attributes:
        diagram: What it does.
        name: What it is called in a failure.
        time: The clock of the test.
        spans: From when to when each subscription lived, in nanoseconds; None if it still does.
        debt: To be paid when it takes part.
    """

    def __init__(self, diagram: Diagram, name: str, time: VirtualTime) -> None:
        super().__init__()
        self.diagram = diagram
        self.name = name
        self.time = time
        self.spans: list[Span] = []
        self.debt: Debt | None = None

    def taken(self) -> None:
        """It took part in the test."""
        if self.debt is not None:
            self.debt.pay()
            self.debt = None

    @property
    def length(self) -> int:
        """The last time that its diagram speaks of."""
        return self.diagram.length

    def begin(self) -> None:
        """Forget the last check."""
        self.spans = []

    def rows(self) -> Sequence[Row]:
        """Its diagram, if someone subscribed."""
        return [Row(self.name, self.diagram.events)] if self.spans else []

    def _subscribe_core(
        self, observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        self.time.check_thread(self.name)
        self.taken()
        scope = scope_of(scheduler)
        if scope and scope.is_over:
            return Disposable()
        subscriber = Subscriber(observer, self)
        playing = self._play_to(subscriber)
        if scope and subscriber.is_active:
            playing = CompositeDisposable(playing, scope.register(subscriber))
        return CompositeDisposable(Disposable(subscriber.leave), playing)

    def _play_to(self, subscriber: Subscriber) -> abc.DisposableBase:
        raise NotImplementedError


class Subscriber:
    """One subscription of a source."""

    __slots__ = ("_number", "_observer", "_source", "_spans", "is_active")

    def __init__(self, observer: abc.ObserverBase[Any], source: Played) -> None:
        self.is_active = True
        self._observer = observer
        self._source = source
        self.begin()

    def begin(self) -> None:
        """Be counted among those of this check."""
        self._spans = self._source.spans
        self._number = len(self._spans)
        self._spans.append((self._source.time.now, None))

    def take(self, event: Event) -> None:
        """Hand an event on."""
        if not self.is_active:
            return
        if event.kind == "next":
            self._observer.on_next(event.value)
            return
        self.leave()
        if event.kind == "error":
            self._observer.on_error(event.value)
        else:
            self._observer.on_completed()

    def complete(self) -> None:
        """End, because the scope does."""
        self.take(Event(self._source.time.now, "completed"))

    def leave(self) -> None:
        """Want nothing more. After the check it is no unsubscription of the pipeline's."""
        if self.is_active:
            self.is_active = False
            if self._source.time.is_running:
                start, _ = self._spans[self._number]
                self._spans[self._number] = start, self._source.time.now


class Hot(Played):
    """One that plays whether or not somebody listens; after its end it says so at once."""

    def __init__(self, diagram: Diagram, name: str, time: VirtualTime) -> None:
        super().__init__(diagram, name, time)
        self._subscribers: list[Subscriber] = []
        self._end: Event | None = None
        self._set: list[abc.DisposableBase] = []

    def begin(self) -> None:
        super().begin()
        self._end = None
        for subscriber in self._subscribers:  # of a test that subscribed before
            subscriber.begin()
        for handle in self._set:  # of a check that ended before its diagram
            handle.dispose()
        self._set = [
            self.time.at(event.time, lambda event=event: self._emit(event))
            for event in self.diagram.events
            if event.kind not in {"subscribed", "unsubscribed"}
        ]

    def _emit(self, event: Event) -> None:
        listening = self._subscribers
        if event.kind != "next":
            self._end = event
            self._subscribers = []
        for subscriber in listening.copy():
            subscriber.take(event)

    def _play_to(self, subscriber: Subscriber) -> abc.DisposableBase:
        if self._end:
            subscriber.take(self._end)
            return Disposable()
        listening = self._subscribers
        listening.append(subscriber)
        return Disposable(lambda: listening.remove(subscriber))


class Cold(Played):
    """One that plays from its beginning for each subscription."""

    def _play_to(self, subscriber: Subscriber) -> abc.DisposableBase:
        now = self.time.now
        return CompositeDisposable(
            *(
                self.time.at(now + event.time, lambda event=event: subscriber.take(event))
                for event in self.diagram.events
            )
        )
