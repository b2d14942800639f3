"""A diagram as data: events in order, comparable, able to say where two of them differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

from rxflow.testing.diagrams.durations import DiagramError, written
from rxflow.testing.diagrams.equality import is_same, is_same_error
from rxflow.testing.diagrams.events import Event
from rxflow.testing.diagrams.rendering import Row, framed, picture


class Diagram:  # noqa: PLW1641 (equal to what is open, so no hash could agree)
    """A timeline of events. As text it is a diagram again, of the keys in `values`.

    Two are equal if the same happens at the same times; how it was written doesn't count. Where one
    is open (`...`), what the other has from there on doesn't count either.

    Args:
        events: In order of time; those of one instant in their order.
        frame: Nanoseconds from one character to the next, for its picture.
        until: Where `...` stands.

    Attributes:
        events: The same.
        frame: The same.
        until: The same: from this instant on anything may follow. None: nothing may.
    """

    def __init__(self, events: Sequence[Event], *, frame: int, until: int | None = None) -> None:
        self._events = events
        self.frame = frame
        self.until = until

    @property
    def events(self) -> tuple[Event, ...]:
        return tuple(self._events)

    @property
    def keys(self) -> frozenset[str]:
        """The keys of its items, as written; what was observed has none."""
        return frozenset(event.key for event in self.events if event.kind == "next" and event.key)

    @property
    def values(self) -> Mapping[str, Any]:
        """The value of each key in its text."""
        return picture([Row("", self.events, self.until)], self.frame).values[0]

    @property
    def length(self) -> int:
        """The last time that it speaks of, in nanoseconds."""
        last = self.events[-1].time if self.events else 0
        return max(last, self.until or 0)

    def __str__(self) -> str:
        return picture([Row("", self.events, self.until)], self.frame).lines[0]

    def __repr__(self) -> str:
        return f"<Diagram {self}>"

    def __bool__(self) -> bool:
        raise DiagramError("a diagram is neither true nor false; compare it with another")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Diagram):
            return NotImplemented
        if None not in {self.until, other.until} and self.until != other.until:
            return False
        return self.difference(other) is None

    def difference(self, expected: Diagram) -> Difference | None:
        """Return the first difference from the expected diagram; None if there is none."""
        ends = [end for end in (self.until, expected.until) if end is not None]
        mine, theirs = self.events, expected.events
        if ends:
            mine = [event for event in mine if event.time < min(ends)]
            theirs = [event for event in theirs if event.time < min(ends)]
        for number, (want, got) in enumerate(zip_longest(theirs, mine), 1):
            if want is None or got is None or want.time != got.time or not _is_alike(want, got):
                return _difference(number, want, got)
        return None

    def explain(
        self, expected: Diagram, *, sources: Sequence[Row] = (), place: object = None
    ) -> str:
        """Return a picture of the difference from the expected diagram; empty if there is none.

        Args:
            expected: What was expected.
            sources: Rows to draw above.
            place: File and line of the test.
        """
        difference = self.difference(expected)
        if difference is None:
            return ""
        what = _named(self) or _named(expected) or "notification"
        where = f" [{place}]" if place else ""
        end = expected.until
        mine = [event for event in self.events if end is None or event.time < end]
        rows = [
            *sources,
            Row("expected", expected.events, expected.until),
            Row("actual", mine, self.until),
        ]
        head = f"marbles differ at {what} {difference.number}{where}"
        return "\n".join(
            [
                f"{head} (1 column = {written(self.frame)})",
                *framed(rows, self.frame, (difference.time, difference.text)),
            ]
        )


class Difference(NamedTuple):
    """The first difference of two diagrams.

    Attributes:
        number: Of the notification, counted from 1.
        time: The earlier of the two instants, in nanoseconds.
        text: What was expected there, and what came.
    """

    number: int
    time: int
    text: str


def _named(diagram: Diagram) -> str:
    """The kind of a diagram's marks, if it has no notifications."""
    kinds = {event.kind for event in diagram.events}
    if "marked" in kinds:
        return "mark"
    return "subscriptions" if kinds & {"subscribed", "unsubscribed"} else ""


def _is_alike(want: Event, got: Event) -> bool:
    """The same, but for the time."""
    if "any" in {want.kind, got.kind}:
        return {want.kind, got.kind} <= {"any", "next"}
    if want.kind != got.kind:
        return False
    return (is_same_error if want.kind == "error" else is_same)(want.value, got.value)


def _difference(number: int, want: Event | None, got: Event | None) -> Difference:
    times = [event.time for event in (want, got) if event]
    time = min(times)
    expected = _described(want) if want and want.time == time else "nothing"
    actual = _described(got) if got and got.time == time else "nothing"
    if expected == actual and want and got:
        expected += f" of {type(want.value).__qualname__}"
        actual += f" of {type(got.value).__qualname__}"
    text = f"at {written(time)}: expected {expected}, got {actual}"
    if want and got and want.time != got.time and _is_alike(want, got):
        came = "it came" if got.time > time else "it was expected"
        text += f"; {came} at {written(max(times))}"
    return Difference(number, time, text)


def _described(event: Event) -> str:
    if event.kind == "next":
        return repr(event.value)
    if event.kind == "error":
        is_class = isinstance(event.value, type)
        return f"error {event.value.__qualname__ if is_class else repr(event.value)}"
    return {
        "any": "any value",
        "completed": "completion",
        "subscribed": "a subscription",
        "unsubscribed": "its end",
        "marked": "^",
    }[event.kind]
