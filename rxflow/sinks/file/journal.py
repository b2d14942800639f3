"""Which QoS 2 messages are in a file and not yet released by the broker: `<path>.inflight`.

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
import threading
import zlib
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Any, Final, NamedTuple, Protocol

from rxflow import codec
from rxflow.delivery import Token
from rxflow.errors import SinkError
from rxflow.log import escaped
from rxflow.process.forked import tell_in_child
from rxflow.sinks.file.folder import Place, explained, flush, write_all

SUFFIX: Final = ".inflight"

_HEADER: Final = ["rxflow", "inflight", 1]
_LONG: Final = 1024 * 1024
_ANY: Final = 0  # an offset that every file reaches


class Attached(Protocol):
    """Who receives the messages of a session: its ledger."""

    def receipts(self, tokens: Sequence[Token | None]) -> list[tuple[int, int, int]]:
        """The QoS 2 messages of the session that nobody but this list holds any more.

        A message that is held elsewhere may yet become another row: it must not count as committed.
        Called on any thread.

        Returns:
            Of each its last index in the list, its packet id, and its digest.
        """
        ...

    def released(self, packet_ids: list[int]) -> None:
        """These are dropped for good: PUBCOMP may follow. Called on any thread."""
        ...


class Claim(NamedTuple):
    """A row of a commit that is all of a QoS 2 message.

    Attributes:
        row: Its index in the commit.
        session: Whose packet id it is.
        epoch: How often that session was forgotten before.
        packet_id: Until its PUBREL.
        digest: Of topic and payload.
    """

    row: int
    session: str
    epoch: int
    packet_id: int
    digest: int


class _Session:
    __slots__ = ("attached", "epoch", "ids")

    def __init__(self) -> None:
        self.attached: Attached | None = None
        self.epoch = 0
        self.ids: dict[int, tuple[int, int]] = {}  # packet id -> digest, end of its row


class Inflight:
    """The journal beside one file. Its methods may be called on any thread while it is open."""

    def __init__(self) -> None:
        self.unknown = 0  # of how many it can't be told: the file that they were for is gone
        self._place: Place | None = None
        self._fd = -1
        self._size = 0
        self._sessions: dict[str, _Session] = {}
        self._attached: list[tuple[str, _Session, Attached]] = []
        self._releases: deque[tuple[str, list[int]]] = deque()
        self._lock = threading.RLock()
        tell_in_child(self)
        self._is_sound = True
        self._begun = (0, 0)  # what the latest `begin` wrote, from where to where

    def forked(self) -> None:
        """In a forked child another thread may have held the lock, which that one never frees."""
        self._lock = threading.RLock()

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
        before = sum(len(session.ids) for session in self._sessions.values())
        for session in self._sessions.values():
            # At a new beginning (`rotate`) the offsets say nothing any more: what is in is in.
            session.ids = {i: (d, _ANY) for i, (d, at) in session.ids.items() if at <= end}
        if fd < 0:
            self.unknown = before - sum(len(session.ids) for session in self._sessions.values())
        with explained(place.path, f"write its {SUFFIX}"):
            if fd >= 0:
                os.fsync(fd)  # rows that a killed process wrote may be in memory only
            self._write_anew(place)

    def _read(self, fd: int) -> None:
        with os.fdopen(os.dup(fd), "rb") as file:
            lines = file.read().splitlines(keepends=True)
        if not lines or _record(lines[0]) != _HEADER:
            assert self._place is not None  # noqa: S101 (set by the caller)
            shown = escaped(self._place.path.with_name(self._place.path.name + SUFFIX))
            raise SinkError(f"{shown} is no journal of rxflow's. Move it, and start again.")
        for line in lines[1:]:
            record = _record(line)
            if record is None:
                break  # torn: what it was for was not done
            self._apply(record)

    def _apply(self, record: list[Any]) -> None:
        kind, name, what = record
        ids = self._sessions.setdefault(name, _Session()).ids
        if kind == "+":
            ids.update((packet_id, (digest, end)) for packet_id, digest, end in what)
        else:
            for packet_id in ids.copy() if what is None else what:
                ids.pop(packet_id, None)

    def _write_anew(self, place: Place) -> None:
        kept = [_line(_HEADER)]
        for name, session in self._sessions.items():
            if session.ids:
                entries = [[i, digest, end] for i, (digest, end) in session.ids.items()]
                kept.append(_line(["+", name, entries]))
        content = b"".join(kept)
        fd = place.replace(SUFFIX, content)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._size = fd, len(content)

    def close(self) -> None:
        """Close it; what is not released stays for the next process. Twice is once."""
        with self._lock:
            self._place = None
            self._attached.clear()
            self._releases.clear()
            fd, self._fd = self._fd, -1
            if fd >= 0:
                os.close(fd)

    # -- sessions ---------------------------------------------------------------------------------

    def attach(self, name: str, attached: Attached) -> dict[int, int]:
        """A session goes on: claim its packet ids from now on.

        Returns:
            The digest of each message that is committed and not released, by its packet id.

        Raises:
            SinkError: The journal can't be made.
        """
        with self._lock:
            place = self._opened()
            session = self._sessions.setdefault(name, _Session())
            session.attached = attached
            self._attached = [entry for entry in self._attached if entry[0] != name]
            self._attached.append((name, session, attached))
            if self._fd < 0:
                with explained(place.path, f"make its {SUFFIX}"):
                    self._write_anew(place)
            return {packet_id: digest for packet_id, (digest, _) in session.ids.items()}

    def forget(self, name: str) -> None:
        """The broker has forgotten this session: its packet ids mean nothing any more.

        On the disk when it returns, so it must come before the first message of the new session.

        Raises:
            SinkError: It is not on the disk.
        """
        with self._lock:
            session = self._sessions.get(name)
            if session is None:
                return
            session.epoch += 1
            if session.ids and self._place is not None:
                self._append([["-", name, None]])

    def release(self, name: str, packet_ids: list[int]) -> bool:
        """PUBREL came for these: drop them with the next commit, or the next `sync`.

        Returns:
            True if a `sync` is needed; else the ledger was told already.
        """
        session = self._sessions.get(name)
        if session is None or session.attached is None:
            return False
        if session.ids.keys().isdisjoint(packet_ids):
            session.attached.released(packet_ids)  # let go, or in no row of this file
            return False
        self._releases.append((name, packet_ids))
        return True

    # -- commits ----------------------------------------------------------------------------------

    def claims(self, tokens: Sequence[Token | None]) -> list[Claim]:
        """Which rows of a commit are all of a QoS 2 message, in the order of the rows."""
        found: list[Claim] = []
        for name, session, attached in self._attached:
            epoch = session.epoch  # before the ids are asked for: `forget` may come in between
            for row, packet_id, digest in attached.receipts(tokens):
                found.append(Claim(row, name, epoch, packet_id, digest))
        found.sort()
        return found

    def begin(self, rows: Sequence[bytes], claims: Sequence[Claim], start: int, gap: int) -> None:
        """Before rows are written: put down where they will end. Durable when it returns.

        Args:
            rows: What will be written.
            claims: Which of them are claimed.
            start: Where the first will begin.
            gap: Bytes between one row's end and the next row's first byte, its line break included.

        Raises:
            SinkError: It is not on the disk, and the rows must not be written.
        """
        ends = list(accumulate((len(row) + gap for row in rows), initial=start))
        records: dict[str, list[list[int]]] = {}
        with self._lock:
            for claim in claims:
                if self._sessions[claim.session].epoch == claim.epoch:
                    end = ends[claim.row + 1] - gap + 1
                    entry = [claim.packet_id, claim.digest, end]
                    records.setdefault(claim.session, []).append(entry)
            begins = self._append([["+", name, entries] for name, entries in records.items()])
            self._begun = (begins, self._size)

    def undo(self, claims: Sequence[Claim]) -> None:
        """The rows were not stored after all: their ids must not count when others take the place.

        Raises:
            SinkError: It is not on the disk.
        """
        if self._cut_off(*self._begun):
            for claim in claims:
                self._sessions[claim.session].ids.pop(claim.packet_id, None)
            return
        ids: dict[str, list[int]] = {}
        for claim in claims:
            ids.setdefault(claim.session, []).append(claim.packet_id)
        with self._lock:
            self._append([["-", name, packet_ids] for name, packet_ids in ids.items()])

    def _cut_off(self, begins: int, ends: int) -> bool:
        """Take back what was written last, which a full disk allows too; False if it is not."""
        with self._lock:
            place = self._opened()
            if self._size != ends:
                return False
            with explained(place.path, f"write its {SUFFIX}"):
                os.ftruncate(self._fd, begins)
                os.fsync(self._fd)
            self._size = begins
            return True

    def sync(self) -> None:
        """Drop what was released, if no commit has done it by now.

        Raises:
            SinkError: It is not on the disk.
        """
        with self._lock:
            if self._releases and self._place is not None:
                self._append([])

    def _append(self, records: list[list[Any]]) -> int:
        """Write what was released meanwhile, then these records, in one sync. With the lock.

        Returns:
            Where these records begin.
        """
        place = self._opened()
        taken = [self._releases.popleft() for _ in range(len(self._releases))]
        dropped = [["-", name, packet_ids] for name, packet_ids in taken]
        lines = [_line(record) for record in dropped]
        before = sum(map(len, lines))
        content = b"".join([*lines, *map(_line, records)])
        if not content:
            return self._size
        with explained(place.path, f"write its {SUFFIX}"):
            if self._size + len(content) > _LONG:
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
        begins = self._size + before
        self._size += len(content)
        for record in (*dropped, *records):
            self._apply(record)
        for name, packet_ids in taken:
            if (attached := self._sessions[name].attached) is not None:
                attached.released(packet_ids)
        return begins

    def _opened(self) -> Place:
        if self._place is None:
            raise SinkError("the journal of a closed file. Make a new sink to write more.")
        if not self._is_sound:
            shown = escaped(self._place.path)
            raise SinkError(f"{shown}{SUFFIX}: a write of it failed before. Start again.")
        return self._place


def _line(record: list[Any]) -> bytes:
    text = codec.encode(record)
    return b"%08x %b\n" % (zlib.crc32(text), text)


def _record(line: bytes) -> list[Any] | None:
    """What a line says; None if it is not whole."""
    checksum, _, text = line.removesuffix(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text):
        return None
    return codec.decode(text)


def part(claims: Iterable[Claim], first: int, last: int) -> list[Claim]:
    """The claims of some rows of a commit, counted from the first of them."""
    return [c._replace(row=c.row - first) for c in claims if first <= c.row < last]
