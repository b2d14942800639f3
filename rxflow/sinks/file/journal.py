"""The journal `<path>.inflight`: QoS 2 messages in a file that the broker has not yet released.

A message of QoS 2 has a packet id until its PUBREL. A broker that has not seen our PUBREC sends it
again, perhaps to the next process, which must know that the row is in the file. So before a commit
writes rows, the packet ids behind them are on the disk, each with the offset at which its row will
end. A crash may come at any point: an id counts as committed if, and only if, the file as it is
after recovery reaches that offset. A released id is dropped, on the disk, before PUBCOMP lets the
broker use it for another message; all ids of a session go when the broker has forgotten it.

With each id stands a digest of the message. So an id that stayed behind although the broker uses it
anew (somebody else continued the session) can't be taken for the message that it was.

Each line of the file is a checksum and a JSON list, synced as soon as it is appended, so a crash
tears at most the last. It is made anew when it is opened, and when it has become long.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Any, Final

from rxflow import codec
from rxflow.errors import SinkError
from rxflow.log import escaped
from rxflow.sinks.contracts import Receipt
from rxflow.sinks.file.folder import Place, explained, flush, write_all

SUFFIX: Final = ".inflight"

_HEADER: Final = ["rxflow", "inflight", 1]
_LONG: Final = 1024 * 1024
_ANY: Final = 0  # an offset that every file reaches


class Inflight:
    """The journal beside one file. One call at a time.

    Attributes:
        unknown: Of how many messages it can't be told: the file that they were for is gone.
    """

    def __init__(self) -> None:
        self.unknown = 0
        self._place: Place | None = None
        self._fd = -1
        self._size = 0
        self._ids: dict[str, dict[int, tuple[int, int]]] = {}  # session -> id -> digest, row's end
        self._is_sound = True
        self._begun = (0, 0)  # what the latest `begin` wrote, from where to where

    # -- opening and closing ----------------------------------------------------------------------

    def open(self, place: Place, fd: int, end: int) -> None:
        """Read what an earlier process left, and keep what is committed, durably.

        Args:
            place: The folder, and the name that this journal belongs to.
            fd: The file of rows, after recovery; -1 if there is none.
            end: Where its last row ends.

        Raises:
            SinkError: What stands there is no journal, or can't be read or written.
        """
        self._place = place
        found = place.open(SUFFIX)
        if found is None:
            return
        try:
            with explained(place.path, f"read its {SUFFIX}"):
                self._read(found)
        finally:
            os.close(found)
        before = self._count
        for name, ids in self._ids.items():
            # At a new beginning (`rotate`) the offsets say nothing any more: what is in is in.
            self._ids[name] = {i: (d, _ANY) for i, (d, at) in ids.items() if at <= end}
        if fd < 0:
            self.unknown = before - self._count
        with explained(place.path, f"write its {SUFFIX}"):
            if fd >= 0:
                os.fsync(fd)  # rows that a killed process wrote may be in memory only
            self._write_anew(place)

    @property
    def _count(self) -> int:
        return sum(map(len, self._ids.values()))

    def _read(self, fd: int) -> None:
        with os.fdopen(os.dup(fd), "rb") as file:
            lines = file.read().splitlines(keepends=True)
        if not lines or _record(lines[0]) != _HEADER:
            assert self._place is not None  # noqa: S101 (set by the caller)
            shown = escaped(self._place.path.with_name(self._place.path.name + SUFFIX))
            raise SinkError(f"{shown} is not a journal of rxflow's; move it, and start again")
        for line in lines[1:]:
            record = _record(line)
            if record is None:
                break  # torn: what it was for was not done
            self._apply(record)

    def _apply(self, record: list[Any]) -> None:
        kind, name, what = record
        ids = self._ids.setdefault(name, {})
        if kind == "+":
            ids.update((packet_id, (digest, end)) for packet_id, digest, end in what)
        else:
            for packet_id in ids.copy() if what is None else what:
                ids.pop(packet_id, None)

    def _write_anew(self, place: Place) -> None:
        kept = [_line(_HEADER)]
        for name, ids in self._ids.items():
            if ids:
                entries = [[i, digest, end] for i, (digest, end) in ids.items()]
                kept.append(_line(["+", name, entries]))
        content = b"".join(kept)
        fd = place.replace(SUFFIX, content)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._size = fd, len(content)

    def close(self) -> None:
        """Close it; the next process finds what is not released. Safe to call more than once."""
        self._place = None
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    # -- sessions ---------------------------------------------------------------------------------

    def receipts(self, name: str) -> dict[int, int]:
        """A session goes on: what of it is committed and not released, packet id -> digest.

        Raises:
            SinkError: The journal can't be made.
        """
        place = self._opened()
        if self._fd < 0:
            with explained(place.path, f"make its {SUFFIX}"):
                self._write_anew(place)
        return {packet_id: digest for packet_id, (digest, _) in self._ids.get(name, {}).items()}

    def forget(self, name: str) -> None:
        """The broker has forgotten this session: its packet ids mean nothing any more.

        Raises:
            SinkError: It is not on the disk.
        """
        if self._ids.get(name):
            self._append([["-", name, None]])

    def release(self, name: str, packet_ids: Sequence[int]) -> None:
        """PUBREL came for these: drop them.

        Raises:
            SinkError: It is not on the disk.
        """
        self._append([["-", name, list(packet_ids)]])

    # -- commits ----------------------------------------------------------------------------------

    def begin(
        self, rows: Sequence[bytes], receipts: Sequence[Receipt], start: int, gap: int
    ) -> None:
        """Before rows are written: put down where they will end. Durable when it returns.

        Args:
            rows: What will be written.
            receipts: Of which of them.
            start: Where the first will begin.
            gap: Bytes between one row's end and the next row's first byte, its line break included.

        Raises:
            SinkError: It is not on the disk, and the rows must not be written.
        """
        ends = list(accumulate((len(row) + gap for row in rows), initial=start))
        records: dict[str, list[list[int]]] = {}
        for row, session, packet_id, digest in receipts:
            end = ends[row + 1] - gap + 1
            records.setdefault(session, []).append([packet_id, digest, end])
        begins = self._append([["+", name, entries] for name, entries in records.items()])
        self._begun = (begins, self._size)

    def undo(self, receipts: Sequence[Receipt]) -> None:
        """The rows were not stored after all: their ids must not count when others take the place.

        Raises:
            SinkError: It is not on the disk.
        """
        ids: dict[str, list[int]] = {}
        for receipt in receipts:
            ids.setdefault(receipt.session, []).append(receipt.packet_id)
        if self._cut_off(*self._begun):
            for name, packet_ids in ids.items():
                self._apply(["-", name, packet_ids])
            return
        self._append([["-", name, packet_ids] for name, packet_ids in ids.items()])

    def _cut_off(self, begins: int, ends: int) -> bool:
        """Take back what was written last, which a full disk allows too; False if it is not."""
        place = self._opened()
        if self._size != ends:
            return False
        with explained(place.path, f"write its {SUFFIX}"):
            os.ftruncate(self._fd, begins)
            os.fsync(self._fd)
        self._size = begins
        return True

    def _append(self, records: list[list[Any]]) -> int:
        """Write these records, in one sync.

        Returns:
            Where they begin.
        """
        place = self._opened()
        content = b"".join(map(_line, records))
        with explained(place.path, f"write its {SUFFIX}"):
            if self._fd < 0 or self._size + len(content) > _LONG:
                self._write_anew(place)
            try:
                write_all(self._fd, content, self._size)
                flush(self._fd)
            except BaseException:
                self._is_sound = False
                with suppress(OSError):
                    os.ftruncate(self._fd, self._size)
                    os.fsync(self._fd)
                raise
        begins = self._size
        self._size += len(content)
        for record in records:
            self._apply(record)
        return begins

    def _opened(self) -> Place:
        if self._place is None:
            raise SinkError("the journal of a closed file; make a new sink to write more")
        if not self._is_sound:
            shown = escaped(self._place.path)
            raise SinkError(f"{shown}{SUFFIX}: an earlier write failed; start again")
        return self._place


def _line(record: list[Any]) -> bytes:
    text = codec.encode(record)
    return b"%08x %b\n" % (zlib.crc32(text), text)


def _record(line: bytes) -> list[Any] | None:
    """Parse a line; None if it is not whole."""
    checksum, _, text = line.removesuffix(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text):
        return None
    return codec.decode(text)


def part(receipts: Iterable[Receipt], first: int, last: int) -> list[Receipt]:
    """The receipts of some rows of a commit, counted from the first of them."""
    return [r._replace(row=r.row - first) for r in receipts if first <= r.row < last]
