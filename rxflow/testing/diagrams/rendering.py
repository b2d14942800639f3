"""Pictures of diagrams: rows of characters, one column for each instant of any row.

A group widens its column in every row, and a long gap becomes a duration, so that what stands in
one column happens at one instant. Every row can be parsed again: the keys without a value stand
for themselves.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from rxflow.testing.diagrams.durations import written
from rxflow.testing.diagrams.equality import is_same
from rxflow.testing.diagrams.events import Event

_LONG_GAP: Final = 20  # frames of silence in a row; more are written as a duration
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_WIDE: Final = 100
_COLUMN: Final = 20  # of a label and of a diagram in a docstring
_SIGNS: Final = {
    "completed": "|",
    "error": "#",
    "any": "?",
    "subscribed": "^",
    "unsubscribed": "!",
    "marked": "^",
}


class Row(NamedTuple):
    """One line of a picture.

    Attributes:
        label: What stands before it.
        events: What happens, in order.
        until: Where `...` stands, in nanoseconds.
    """

    label: str
    events: Sequence[Event]
    until: int | None = None


class Picture(NamedTuple):
    """Rows as text.

    Attributes:
        lines: For each row its text.
        columns: For each instant its place in every line.
        values: The value of each key of each row.
    """

    lines: tuple[str, ...]
    columns: Mapping[int, int]
    values: tuple[Mapping[str, Any], ...]


def picture(rows: Sequence[Row], frame: int) -> Picture:
    """Draw rows below each other.

    Args:
        rows: The more important ones last: their keys mean the same in all rows that allow it.
        frame: Nanoseconds from one character to the next.
    """
    values = _values(rows)
    cells = [_cells(row, known, frame) for row, known in zip(rows, values, strict=True)]
    instants = sorted(set().union(*cells))
    widths = {t: max(len(row[t]) for row in cells if t in row) for t in instants}
    gaps = dict(zip(instants, _gaps(instants, frame), strict=True))
    columns: dict[int, int] = {}
    place = 0
    for instant in instants:
        columns[instant] = place + len(gaps[instant])
        place = columns[instant] + widths[instant]
    lines: list[str] = []
    for row in cells:
        line = ""
        for instant in instants:
            line += gaps[instant] + row.get(instant, "-").ljust(widths[instant])
            if instant == max(row, default=-1) and _is_end(row[instant]):
                break
        lines.append(line.rstrip() or "-")
    return Picture(tuple(lines), columns, tuple(values))


def framed(rows: Sequence[Row], frame: int, mark: tuple[int, str]) -> list[str]:
    """The lines of a picture with labels, a mark below an instant, and the values of the keys."""
    drawn = picture(rows, frame)
    width = max(8, *(len(row.label) for row in rows))
    lines = [f"  {row.label:>{width}}  {line}" for row, line in zip(rows, drawn.lines, strict=True)]
    instant, text = mark
    lines.append(f"  {'':{width}}  {'':{drawn.columns[instant]}}^ {text}")
    shared: dict[str, Any] = {}
    for row, known in reversed([*zip(rows, drawn.values, strict=True)]):
        told = {key: value for key, value in known.items() if not _is_itself(key, value)}
        if any(key in shared and not is_same(shared[key], told[key]) for key in told):
            lines += _told(f"{row.label:>{width}}", told, width)
        else:
            shared |= told
    return lines + _told("values", dict(sorted(shared.items())), width)


def documented(rows: Sequence[Row], frame: int) -> list[str]:
    """The lines of a picture as docstrings show them: label, diagram, values of its keys."""
    drawn = picture(rows, frame)
    lines: list[str] = []
    for row, line, known in zip(rows, drawn.lines, drawn.values, strict=True):
        told = [f"{k}={value!r}" for k, value in known.items() if not _is_itself(k, value)]
        lines.append(f"{row.label:<{_COLUMN}}{line:<{_COLUMN}}{'  '.join(told)}".rstrip())
    return lines


def _told(label: str, values: Mapping[str, Any], width: int) -> list[str]:
    parts = [f"{key}={value!r}" for key, value in values.items()]
    if sum(map(len, parts)) + 2 * len(parts) <= _WIDE:
        parts = ["  ".join(parts)] if parts else []
    return [f"  {label if n == 0 else '':<{width}}  {part}" for n, part in enumerate(parts)]


# -- time --------------------------------------------------------------------------------------


def _gaps(instants: Iterable[int], frame: int) -> Iterator[str]:
    """Return the text between each instant and the one before."""
    last = -frame
    for instant in instants:
        frames, rest = divmod(instant - last, frame)
        if rest == 0 and frames <= _LONG_GAP:
            yield "-" * (frames - 1)
        elif last < 0:
            yield f"{written(instant)} "
        else:
            yield f" {written(instant - last)} "
        last = instant


def _cells(row: Row, values: Mapping[str, Any], frame: int) -> dict[int, str]:
    """Return the text at each instant of a row."""
    cells: dict[int, str] = {}
    for instant, events in itertools.groupby(row.events, lambda event: event.time):
        cells[instant] = _cell([_sign(event, values) for event in events])
    for instant, cell in cells.items():
        # Between spaces a digit before a unit would be a duration.
        if cell.isdigit() and cells.get(instant + frame, "-")[0] in "umsh":
            cells[instant] = f"({cell})"
    if row.until is not None:
        cells[row.until] = " 0s ".join([*filter(None, [cells.get(row.until)]), "..."])
    return cells


def _cell(signs: list[str]) -> str:
    if len(signs) == 1:
        return signs[0]
    is_group = not {"?", "^", "!"}.intersection(signs) and signs[0] not in "|#"
    return f"({''.join(signs)})" if is_group else " 0s ".join(signs)


def _is_end(cell: str) -> bool:
    return cell.endswith("...") or cell.rstrip(")")[-1:] in {"|", "#", "!"}


# -- keys --------------------------------------------------------------------------------------


def _sign(event: Event, values: Mapping[str, Any]) -> str:
    if event.kind != "next":
        return _SIGNS[event.kind]
    return event.key or _found(event.value, values)


def _found(value: Any, values: Mapping[str, Any]) -> str:
    return next((key for key, known in values.items() if is_same(known, value)), "")


def _values(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For each row the value of its keys; a value without a key gets a free one."""
    own = [_written_keys(row) for row in rows]
    shared: dict[str, Any] = {}
    for known in reversed(own):
        shared |= {key: value for key, value in known.items() if key not in shared}
    for row, known in zip(rows, own, strict=True):
        for event in row.events:
            if event.kind == "next" and not event.key:
                key = _found(event.value, shared) or _new_key(event.value, shared)
                known[key] = shared.setdefault(key, event.value)
    return own


def _written_keys(row: Row) -> dict[str, Any]:
    return {event.key: event.value for event in row.events if event.kind == "next" and event.key}


def _new_key(value: Any, taken: Mapping[str, Any]) -> str:
    if isinstance(value, str) and len(value) == 1 and value.isalnum() and value not in taken:
        return value
    beyond = (chr(code) for code in range(0xC0, 0x10000) if chr(code).isalpha())
    return next(key for key in itertools.chain(_LETTERS, beyond) if key not in taken)


def _is_itself(key: str, value: Any) -> bool:
    return isinstance(value, str) and value == key
