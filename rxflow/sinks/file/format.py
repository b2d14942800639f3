r"""The two formats of a file: a JSON array that stays valid while it grows, and JSON lines.

Array: `[\n]\n` when empty; with rows `[\n`, the first row, `\n`, then `,` row `\n` for each further
one, then `]\n`. A commit overwrites the two bytes of the end and is always longer than they are, so
the file never shrinks and a committed row is never written again.

JSON lines: each row and its `\n`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rxflow import codec


@dataclass(frozen=True, slots=True)
class Layout:
    """The layout of rows in a file.

    Attributes:
        name: For error texts.
        opening: What the file begins with.
        ending: What stands behind the last row and is overwritten by the next commit.
        separator: What a row begins with when it isn't the first.
    """

    name: str
    opening: bytes
    ending: bytes
    separator: bytes

    @property
    def empty(self) -> bytes:
        """The whole file when it has no rows."""
        return self.opening + self.ending

    def joined(self, rows: Sequence[bytes], *, is_first: bool) -> bytes:
        """The bytes of one commit, from where the ending stood."""
        separator = self.separator
        start = b"" if is_first else separator
        return start + (b"\n" + separator).join(rows) + b"\n" + self.ending

    def row(self, line: bytes, *, is_first: bool) -> bytes | None:
        """The JSON text in a line (without its line break); None if it is no row."""
        if is_first:
            return line if is_json(line) and not line[:1].isspace() else None
        if not line.startswith(self.separator):
            return None
        row = line[len(self.separator) :]
        return row if is_json(row) or self.is_blank(row) else None

    def is_blank(self, row: bytes) -> bool:
        """True for an empty line among JSON lines: a person's, not ours, but harmless."""
        return not self.separator and not row.strip()


def is_json(text: bytes) -> bool:
    """True if these bytes are one whole JSON value that we could have written."""
    try:
        codec.decode(text)
    except ValueError:
        return False
    return True


ARRAY: Final = Layout("JSON array", opening=b"[\n", ending=b"]\n", separator=b",")
LINES: Final = Layout("JSON lines", opening=b"", ending=b"", separator=b"")
