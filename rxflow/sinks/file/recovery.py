r"""Recovery: a file holds rows when it is opened, a torn end, or somebody else's work.

Only the last commit can be torn, for each one before it was synced before the next began. A commit
is at most `COMMIT_BYTES` long, or a single row. So the end of the file is all that is read, however
large it is, and what may be cut off is bounded too.

What a crash leaves of one write, over the bytes that stood there: a prefix of it, at any byte; the
size grown and zeros behind the prefix; any set of its 512-byte sectors, with zeros or the old bytes
in the others. So a bad line is torn only if it has no end, holds NUL, or shows what stood at the
end of the file before (`]`, or the line break behind it). Everything else is somebody's work, and
is refused.
"""

from __future__ import annotations

import os
from typing import Final, NamedTuple

from rxflow import codec
from rxflow.sinks.file.format import Layout, is_json

COMMIT_BYTES: Final = 8 * 1024 * 1024

_WINDOW: Final = COMMIT_BYTES + COMMIT_BYTES // 8
_BLOCK: Final = 64 * 1024
_SECTOR: Final = 512
_LINES_OF_ONE_TORN_ROW: Final = 3  # the old ending, the row, the new ending
_CONTROLS: Final = bytes(code for code in range(0x20) if code not in b"\0\n")


class Foreign(ValueError):
    """The file is not one of ours; the text says what shows it."""


class Repair(NamedTuple):
    """The repair of a file: keep it up to `end`, write `patch` there, end the file after it.

    Attributes:
        end: Offset in bytes; a row ends here, or the opening does.
        patch: What belongs behind it.
        cut: What stands there and is no row.
        is_needed: False if the file is whole as it is.
    """

    end: int
    patch: bytes
    cut: bytes
    is_needed: bool


class _Line(NamedTuple):
    """The first line that is no row."""

    at: int
    text: bytes  # with its line break, if it has one


def examine(fd: int, size: int, layout: Layout) -> Repair:
    """Tell what to do with an open file of this size.

    Raises:
        Foreign: It is not ours, or damaged where no crash of ours could have damaged it.
    """
    start = len(layout.opening)
    if os.pread(fd, start, 0) != layout.opening:
        content = os.pread(fd, COMMIT_BYTES + 1, 0)
        if len(content) <= COMMIT_BYTES and layout.opening.startswith(content.rstrip(b"\0")):
            return Repair(0, layout.empty, b"", is_needed=True)  # torn while it was made
        raise _foreign(layout)
    at = _window_start(fd, size, start)
    if at > start and layout.row(_first_line(fd, start), is_first=True) is None:
        raise _foreign(layout)
    window = os.pread(fd, size - at, at)
    bad = _first_bad_line(window, at, layout)
    if bad is None:
        return Repair(size, layout.ending, b"", is_needed=bool(layout.ending))
    rest = window[bad.at - at :]
    if rest == layout.ending:
        return Repair(bad.at, layout.ending, b"", is_needed=False)
    is_cut = not rest.endswith(b"\n") and rest == bad.text
    if is_cut and whole_row(rest, layout, is_first=bad.at == start) is not None:
        return Repair(size, b"\n" + layout.ending, b"", is_needed=True)
    _refuse_unless_torn(bad, rest, layout)
    return Repair(bad.at, layout.ending, b"" if rest == b"]" else rest, is_needed=True)


def _foreign(layout: Layout) -> Foreign:
    return Foreign(f"it does not begin like rxflow's {layout.name}")


def _first_bad_line(window: bytes, at: int, layout: Layout) -> _Line | None:
    """The first line that is no row, be it the ending; None if the window ends behind a row."""
    first = len(layout.opening)
    begin = 0
    while begin < len(window):
        end = window.find(b"\n", begin) + 1
        line = window[begin:end] if end else window[begin:]
        is_first = at + begin == first
        is_row = end and layout.row(line[:-1], is_first=is_first) is not None
        if not is_row or (is_first and _is_one_byte_over_the_ending(window, layout)):
            return _Line(at + begin, line)
        begin = end
    return None


def _is_one_byte_over_the_ending(rest: bytes, layout: Layout) -> bool:
    r"""True for `1\n` behind the opening, and at most zeros: the line break is the ending's."""
    size = len(layout.ending)
    return size > 0 and rest[size : size + 1] in {b"", b"\0"} and not rest[size:].strip(b"\0")


def whole_row(line: bytes, layout: Layout, *, is_first: bool) -> bytes | None:
    """The JSON text of a line, if nothing of it can be missing but its line break."""
    if line.endswith(b"\n"):
        return layout.row(line[:-1], is_first=is_first)
    row = layout.row(line, is_first=is_first)
    return row if row and not codec.is_cut_short(row) else None


def check_bad_line(line: bytes, layout: Layout) -> None:
    """Refuse a line behind good ones that no crash can have left.

    Raises:
        Foreign: So it is.
    """
    is_torn = not line.endswith(b"\n") or b"\0" in line or _is_old_ending(line, layout)
    if not is_torn:
        raise Foreign(f"a line is not a row of a {layout.name}, and no crash explains it")


def _is_old_ending(line: bytes, layout: Layout) -> bool:
    if not layout.ending:
        return False
    return line.startswith(layout.ending[:1]) or line == layout.separator + b"\n"


def _refuse_unless_torn(bad: _Line, rest: bytes, layout: Layout) -> None:
    """Refuse to cut what no crash can have left."""
    first = len(layout.opening)
    if bad.at > first or _is_old_ending(bad.text, layout):
        check_bad_line(bad.text, layout)
    elif not _is_torn_start(rest, first) or (
        bad.text.endswith(b"\n")
        and b"\0" not in bad.text
        and not _is_one_byte_over_the_ending(rest, layout)
    ):
        raise _foreign(layout)
    if len(rest) > COMMIT_BYTES and rest.count(b"\n") > _LINES_OF_ONE_TORN_ROW:
        raise Foreign(f"more than one commit is damaged, from byte {bad.at}")


def _is_torn_start(rest: bytes, start: int) -> bool:
    """True if this can be what a crash left of a file's first commit: JSON text with holes."""
    text = rest.rstrip(b"\0")
    sectors = [text[max(at, 0) : at + _SECTOR] for at in range(-start, len(text), _SECTOR)]
    if any(b"\0" in sector and sector.strip(b"\0") for sector in sectors):
        return False
    if len(text.translate(None, _CONTROLS)) != len(text):
        return False
    line = text.partition(b"\n")[0].partition(b"\0")[0]
    return not line[:1].isspace() and (codec.is_cut_short(line) or is_json(line))


def _window_start(fd: int, size: int, start: int) -> int:
    """Return the line start to read from, which lies before anything the last commit wrote.

    A single row may be longer than the window, and its first sector may still hold the ending that
    it should have overwritten: so the line before the one that reaches into the window counts too.
    """
    at = size - _WINDOW
    if at <= start:
        return start
    breaks = 0
    while at > start:
        begin = max(start, at - _BLOCK)
        block = os.pread(fd, at - begin, begin)
        end = len(block)
        while (end := block.rfind(b"\n", 0, end)) >= 0:
            breaks += 1
            if breaks == 2:  # noqa: PLR2004 (this line, and the one before)
                return begin + end + 1
        at = begin
    return start


def _first_line(fd: int, start: int) -> bytes:
    blocks: list[bytes] = []
    at = start
    while block := os.pread(fd, _BLOCK, at):
        head, found, _ = block.partition(b"\n")
        blocks.append(head)
        if found:
            break
        at += len(block)
    return b"".join(blocks)
