"""Subscriptions, as diagrams of `^` and `!`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

from rxflow.testing.diagrams.diagram import Diagram
from rxflow.testing.diagrams.durations import DiagramError
from rxflow.testing.diagrams.events import Event
from rxflow.testing.diagrams.notation import parse
from rxflow.testing.pending import Pending

Span = tuple[int, int | None]
"""From when to when something is subscribed, in nanoseconds; None if to the end."""


class Subscriptions(Sequence[Diagram]):  # noqa: PLW1641 (equal to text, written in many ways)
    """The subscriptions of a source, one diagram each; compares with one diagram or with a list.

    One diagram is enough where each began after the one before had ended: `"^--!-^--!"`. Without
    `!` the last one was still alive at the end.
    """

    def __init__(self, spans: Sequence[Span], frame: int, pending: Pending | None = None) -> None:
        self.spans = list(spans)
        self._frame = frame
        self._pending = pending

    def __len__(self) -> int:
        return len(self.spans)

    def __getitem__(self, index: Any) -> Any:
        found = self.spans[index]
        if isinstance(index, slice):
            return Subscriptions(cast("list[Span]", found), self._frame)
        return Diagram(marks([cast("Span", found)]), frame=self._frame)

    def __eq__(self, other: object) -> bool:
        expected = self._expected(other)
        if expected is None:
            return NotImplemented
        if self._pending and expected != self.spans:
            self._pending.compared(self.explain(other))
        return expected == self.spans

    def __ne__(self, other: object) -> bool:
        expected = self._expected(other)
        if expected is None:
            return NotImplemented
        if self._pending and expected == self.spans:
            self._pending.compared(f"equal to {other}")
        return expected != self.spans

    def __repr__(self) -> str:
        return repr([str(diagram) for diagram in self])

    def explain(self, expected: object) -> str:
        """Return the difference from a diagram, or from a list of them; empty if there is none."""
        spans = self._expected(expected)
        if spans is None or spans == self.spans:
            return ""
        wanted = Diagram(marks(spans), frame=self._frame)
        return Diagram(marks(self.spans), frame=self._frame).explain(wanted)

    def _expected(self, other: object) -> list[Span] | None:
        if isinstance(other, Subscriptions):
            return other.spans
        if isinstance(other, str | Diagram):
            other = [other]
        if not isinstance(other, list | tuple):
            return None
        diagrams = [
            parse(one, frame=self._frame, role="marks") if isinstance(one, str) else one
            for one in cast("Sequence[str | Diagram]", other)
        ]
        return [span for diagram in diagrams for span in spans_in(diagram)]


def spans_in(diagram: Diagram) -> Iterator[Span]:
    """From when to when the subscriptions of a diagram live; None if to the end.

    Raises:
        DiagramError: `^` and `!` don't alternate.
    """
    start: int | None = None
    for event in diagram.events:
        if event.kind == "subscribed":
            if start is not None:
                text = "^ while subscribed: write a list, one diagram for each subscription"
                raise DiagramError(f"{text}\n    {diagram}")
            start = event.time
        elif event.kind == "unsubscribed":
            if start is None:
                raise DiagramError(f"! before ^: nobody had subscribed\n    {diagram}")
            yield start, event.time
            start = None
    if start is not None:
        yield start, None


def marks(spans: Sequence[Span]) -> list[Event]:
    """All subscriptions in one row, in order of time; at one instant `!` before `^`."""
    found: list[tuple[int, int, Event]] = []
    for start, end in spans:
        found.append((start, 1, Event(start, "subscribed")))
        if end is not None:
            found.append((end, 2 if end == start else 0, Event(end, "unsubscribed")))
    return [event for _, _, event in sorted(found, key=lambda mark: mark[:2])]
