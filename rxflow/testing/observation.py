"""What a test observes: one subscription written down, and calls at a time."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from reactivex import Observable, abc
from reactivex.disposable import Disposable

from rxflow.message import Batch, Message
from rxflow.operators.scope import Scope, within
from rxflow.testing.diagram import Diagram
from rxflow.testing.events import Event, Kind
from rxflow.testing.rendering import Row
from rxflow.testing.subscriptions import Span, marks
from rxflow.testing.virtual_time import VirtualTime

_HERE: Final = str(Path(__file__).parent) + os.sep
_SURPLUS: Final = 16  # notifications beyond the expected ones, then a check has seen enough


class Place(NamedTuple):
    """File and line of the test that called."""

    file: str
    line: int

    @classmethod
    def of_caller(cls) -> Self:
        """The innermost line that is not of this package."""
        frame = sys._getframe(1)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        while frame.f_back and frame.f_code.co_filename.startswith(_HERE):
            frame = frame.f_back
        return cls(frame.f_code.co_filename, frame.f_lineno)

    def __str__(self) -> str:
        path, folder = Path(self.file), Path.cwd()
        shown = path.relative_to(folder) if path.is_relative_to(folder) else path.name
        return f"{shown}:{self.line}"


class Observation:
    """One subscription that is written down."""

    def __init__(
        self,
        observable: Observable[Any],
        span: Span | None,
        time: VirtualTime,
        place: Place,
    ) -> None:
        self.events: list[Event] = []
        self.expected: Diagram | None = None
        self.span = span
        self.place = place
        self.rows: list[Row] = []
        self._observable = observable
        self._has_own_span = span is not None
        self._time = time
        self._subscription: abc.DisposableBase | None = None
        self._is_over = False

    @property
    def until(self) -> int | None:
        """From when on nobody wants to know."""
        return self.expected.until if self.expected else None

    @property
    def length(self) -> int:
        """The last time that its diagrams speak of."""
        span = self.span or (0, None)
        return max(self.expected.length if self.expected else 0, span[1] or span[0])

    def subscribe(self) -> None:
        """Begin, unless it was over before it began."""
        if not self._is_over:
            self._subscription = self._observable.subscribe(
                self._next,
                lambda error: self._write("error", error),
                lambda: self._write("completed"),
                scheduler=within(Scope(), self._time.scheduler),
            )
            if self._is_over:
                self._subscription.dispose()

    def dispose(self) -> None:
        """End."""
        self._is_over = True
        if self._subscription:
            self._subscription.dispose()

    def finish(self, rows: list[Row]) -> None:
        """The run is over."""
        if self._has_own_span and self.span:
            rows = [*rows, Row("subs", marks([self.span]))]
        self.rows = rows
        self.dispose()

    def _next(self, value: Any) -> None:
        self._write("next", released(value))
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
    """What `at` was given."""

    def __init__(
        self, when: int, function: Callable[[], object], time: VirtualTime, place: Place
    ) -> None:
        self.length = when
        self.place = place
        self.has_come = False
        self._function = function
        self._time = time
        self._set: abc.DisposableBase = Disposable()

    def begin(self) -> None:
        self._set.dispose()  # of a check that ended before it came
        self._set = self._time.at(self.length, self._call)

    def rows(self) -> Sequence[Row]:
        return ()

    def _call(self) -> None:
        self.has_come = True
        self._function()


def released(value: Any) -> Any:
    """The same without deliveries: what a test writes down holds up no acknowledgement."""
    if isinstance(value, Message):
        return value.with_delivery(None)
    if isinstance(value, Batch):
        return Batch(message.with_delivery(None) for message in value)
    if type(value) in {list, tuple}:
        return type(value)(released(item) for item in value)
    return value
