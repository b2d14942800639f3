"""The observations of a test: one subscription written down, and calls at a time."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Final

from reactivex import Observable, abc
from reactivex.disposable import Disposable

from rxflow.operators.envelope import without_delivery
from rxflow.scope import Scope, within
from rxflow.testing.diagrams.diagram import Diagram
from rxflow.testing.diagrams.durations import DiagramError, written
from rxflow.testing.diagrams.events import Event, Kind
from rxflow.testing.diagrams.rendering import Row
from rxflow.testing.pending import Pending, Place
from rxflow.testing.subscriptions import Span, marks
from rxflow.testing.virtual.time import VirtualTime

_ASYNC: Final = "nobody would await an async function; sleep until then in what `run` is given"
_MUTABLE: Final = frozenset({list, dict, set})
_SURPLUS: Final = 16  # notifications beyond the expected ones, then a check has seen enough


class Observation:
    """One subscription that is written down.

    Attributes:
        events: What came.
        expected: What should, if that is known when it plays.
        cut: Why more might have come, had it not been stopped; empty if nothing could.
        span: From when to when.
        debt: Paid when it is compared.
        rows: What a failure shows of the sources.
    """

    def __init__(
        self,
        observable: Observable[Any],
        span: Span | None,
        time: VirtualTime,
        pending: Pending,
    ) -> None:
        place = Place.of_caller()
        self.events: list[Event] = []
        self.expected: Diagram | None = None
        self.cut: str = ""
        self.span = span
        self.debt = pending.add(lambda: f"observed, but compared with nothing [{place}]")
        self.rows: list[Row] = []
        self._observable = observable
        self._has_own_span = span is not None
        self._time = time
        self._subscription: abc.DisposableBase | None = None
        self._is_over = False

    @property
    def until(self) -> int | None:
        """From when on nobody wants to know."""
        return None if self.expected is None else self.expected.until

    @property
    def length(self) -> int:
        """The last time that its diagrams speak of."""
        span = self.span or (0, None)
        return max(0 if self.expected is None else self.expected.length, span[1] or span[0])

    def subscribe(self) -> None:
        """Begin, unless it was over before it began."""
        if not self._is_over:
            scope = Scope()
            scope.context.home = lambda: self._time.loop
            self._subscription = self._observable.subscribe(
                self._next,
                lambda error: self._write("error", error),
                lambda: self._write("completed"),
                scheduler=within(scope, self._time.scheduler),
            )
            if self._is_over:
                self._subscription.dispose()

    def dispose(self) -> None:
        """End."""
        self._is_over = True
        if self._subscription:
            self._subscription.dispose()

    @property
    def is_over(self) -> bool:
        """True if nothing more can come of it."""
        return self._is_over or bool(self.events and self.events[-1].kind in {"completed", "error"})

    def finish(self, rows: list[Row]) -> None:
        """The run is over."""
        if self._has_own_span and self.span:
            rows = [*rows, Row("subs", marks([self.span]))]
        self.rows = rows
        self.dispose()

    def _next(self, value: Any) -> None:
        value = without_delivery(value)
        self._write("next", value.copy() if type(value) in _MUTABLE else value)
        expected = self.expected
        if expected is None or expected.until is not None or self._is_over:
            return
        if len(self.events) > len(expected.events) + _SURPLUS:
            self.dispose()
            self._time.stop()

    def _write(self, kind: Kind, value: Any = None) -> None:
        if not self._is_over:
            self.events.append(Event(self._time.now, kind, value))


class Call:
    """A call that `at` was given."""

    def __init__(
        self, when: int, function: Callable[[], object], time: VirtualTime, pending: Pending
    ) -> None:
        self._name = f"at({written(when)!r})"
        place, name = Place.of_caller(), self._name
        self.length = when
        self.has_come = False
        self._where = place
        self._debt = pending.add(lambda: f"{name} never came [{place}]")
        self._function = function
        self._time = time
        self._set: abc.DisposableBase = Disposable()

    def begin(self) -> None:
        self._set.dispose()  # of a check that ended before it came
        self._set = self._time.at(self.length, self._call)

    def rows(self) -> Sequence[Row]:
        return ()

    def _call(self) -> None:
        __tracebackhide__ = True
        self.has_come = True
        self._debt.pay()
        result = self._function()
        if inspect.iscoroutine(result):
            result.close()
            raise DiagramError(f"{self._name}: {_ASYNC}")
        if result is False:
            raise AssertionError(f"{self._name} returned False [{self._where}]")
