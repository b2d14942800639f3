"""Instants as a diagram: `^` for each frame in which something happened."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rxflow.testing.diagrams.diagram import Diagram
from rxflow.testing.diagrams.durations import DiagramError
from rxflow.testing.diagrams.events import Event
from rxflow.testing.diagrams.notation import parse
from rxflow.testing.diagrams.rendering import Row
from rxflow.testing.pending import Pending


class Marks(Diagram):  # noqa: PLW1641 (equal to text, written in many ways)
    """When something happened, to the frame. Compares with text, `"--^---^"`, and explains itself.

    Args:
        times: In nanoseconds.
        frame: What happened within one is one mark, at its beginning.
        pending: Gets to know of a comparison that fails.
    """

    def __init__(self, times: Iterable[int], frame: int, pending: Pending | None = None) -> None:
        self._pending = pending
        frames = sorted({time // frame * frame for time in times})
        super().__init__([Event(time, "marked") for time in frames], frame=frame)

    def __eq__(self, other: object) -> bool:
        found = self._parsed(other)
        result = super().__eq__(found)
        if self._pending and result is False:
            self._pending.compared(self.explain(found))
        return result

    def __ne__(self, other: object) -> bool:
        result = super().__eq__(self._parsed(other))
        if self._pending and result is True:
            self._pending.compared(f"equal to {other}")
        return result if result is NotImplemented else not result

    def explain(
        self, expected: Diagram | str, *, sources: Sequence[Row] = (), place: object = None
    ) -> str:
        return super().explain(self._parsed(expected), sources=sources, place=place)

    def _parsed(self, other: Any) -> Any:
        if not isinstance(other, str):
            return other
        found = parse(other, frame=self.frame, role="marks")
        if any(event.kind != "subscribed" for event in found.events):
            raise DiagramError(f"nothing ends here, so there is no '!': {other!r}")
        marked = [Event(event.time, "marked") for event in found.events]
        return Diagram(marked, frame=self.frame, until=found.until)
