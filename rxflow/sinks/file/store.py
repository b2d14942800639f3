"""A file of rows that are on the disk when `commit` returns. No Rx in here."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

from rxflow.errors import SinkError
from rxflow.log import escaped, number_of, printable, tell
from rxflow.sinks.contracts import Receipt
from rxflow.sinks.file.folder import Place, explained, explanation, flush, identity, write_all
from rxflow.sinks.file.format import Layout
from rxflow.sinks.file.journal import Inflight, part
from rxflow.sinks.file.recovery import COMMIT_BYTES, Foreign, Repair, examine

Existing = Literal["append", "refuse", "rotate"]

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EFBIG, errno.EDQUOT})


class DurableFile:
    """Rows in a file: `open`, `commit` any number of times, `close`. One thread at a time.

    A commit is all or nothing after any crash. A full disk rolls it back and leaves the file whole,
    open and usable; after any other failure nothing more is written through this descriptor, for
    a second sync would report success for pages that never reached the disk.

    Attributes:
        rows, commits, bytes: What became durable through this object.
        kept: Where recovery copied what a crash had torn, if it did.
        inflight: Which QoS 2 messages are in it and not yet released.
    """

    def __init__(self, path: Path, layout: Layout, existing: Existing, mode: int | None) -> None:
        self.path = path
        self.rows = self.commits = self.bytes = 0
        self.kept: Path | None = None
        self.inflight = Inflight()
        self.is_open = False
        self._layout = layout
        self._existing: Existing = existing
        self._shown = escaped(path)
        self._mode = mode
        self._place: Place | None = None
        self._fd = -1
        self._identity = (-1, -1)
        self._size = 0
        self._end = 0  # behind the last row
        self._is_sound = True

    def open(self) -> None:
        """Lock, recover or make the file.

        Raises:
            SinkError: What stands at the path is not ours, locked, or can't be opened.
        """
        self._place = place = Place(self.path, self._mode)
        try:
            fd = place.open()
            if fd is None:
                self._create(place, None)
                self.inflight.open(place, -1, self._end)
            else:
                self._fd = fd
                self._adopt(place)
            self._identity = identity(self._fd)
        except BaseException:
            self.close()
            raise
        self.is_open = True
        if self.kept:
            text = f"{self._shown}: a crash had torn its last commit, kept in {escaped(self.kept)}"
            tell(text, is_program=True)
        if count := self.inflight.unknown:
            which = number_of(count, "QoS 2 message")
            text = f"{self._shown} is new, and {which} may stand in one that was here"
            advice = "what comes again is stored again; existing='rotate' moves a file without that"
            tell(f"{text}: {advice}", is_program=True)

    def _create(self, place: Place, mode: int | None) -> None:
        empty = self._layout.empty
        with explained(self.path, "make it"):
            self._fd = place.create(empty, mode)
        self._size, self._end = len(empty), len(self._layout.opening)

    def _adopt(self, place: Place) -> None:
        """Go on with a file that is there already."""
        with explained(self.path, "read it"):
            found = os.fstat(self._fd)
            try:
                repair = examine(self._fd, found.st_size, self._layout)
            except Foreign as error:
                text = f"{self._shown} is left as it is: {error}; move it, or choose another path"
                raise SinkError(text) from error
        if self._existing == "refuse":
            self.inflight.open(place, self._fd, repair.end)  # the next one finds the file gone
            text = f'{self._shown} is there already, and existing="refuse";'
            raise SinkError(f"{text} move it, or choose another")
        self._size, self._end = found.st_size, repair.end
        if repair.is_needed:
            with explained(self.path, "recover it"):
                self._repair(place, repair, found.st_mode & 0o777)
        self.inflight.open(place, self._fd, self._end)  # while it is known what is in the file
        if self._existing == "rotate" and self._end > len(self._layout.opening):
            with explained(self.path, "rename it"):
                os.close(self._fd)
                self._fd = -1
                place.rotate()
            self._create(place, found.st_mode & 0o777)

    def _repair(self, place: Place, repair: Repair, mode: int) -> None:
        if repair.cut:
            self.kept = place.keep_torn(repair.cut, mode)
        write_all(self._fd, repair.patch, repair.end)
        self._size = repair.end + len(repair.patch)
        self._end = self._size - len(self._layout.ending)
        os.ftruncate(self._fd, self._size)
        os.fsync(self._fd)

    def commit(self, rows: Sequence[bytes], receipts: Sequence[Receipt] = ()) -> None:
        """Append rows; when it returns they are on the disk.

        More than `COMMIT_BYTES` are committed in parts, and those before a failure stay.

        Args:
            rows: JSON, each without a line break.
            receipts: Of those that are QoS 2 messages, in order; put down before the rows are.

        Raises:
            SinkError: They are not, or not all.
        """
        if not rows:
            return
        is_first = self._end == len(self._layout.opening)
        content = self._layout.joined(rows, is_first=is_first)
        if len(content) > COMMIT_BYTES and len(rows) > 1:
            middle = len(rows) // 2
            del content
            self.commit(rows[:middle], part(receipts, 0, middle))
            self.commit(rows[middle:], part(receipts, middle, len(rows)))
            return
        self._check()
        self._is_sound = False  # until the end, so that whatever interrupts this is not passed over
        if receipts:
            gap = len(self._layout.separator)
            start = self._end if is_first else self._end + gap
            self.inflight.begin(rows, receipts, start, gap + 1)
        try:
            self._write_and_sync(content)
        except SinkError:
            if receipts:
                self._undo(receipts)
            raise
        self._is_sound = True
        self._size = self._end + len(content)
        self._end = self._size - len(self._layout.ending)
        self.rows += len(rows)
        self.commits += 1
        self.bytes += len(content) - len(self._layout.ending)

    # -- QoS 2: what is in the file and not released ----------------------------------------------

    def receipts(self, session: str) -> dict[int, int]:
        """Of a session, what is in the file and not released: packet id -> digest."""
        return self.inflight.receipts(session)

    def release(self, session: str, packet_ids: Sequence[int]) -> None:
        """Drop these, on the disk."""
        self.inflight.release(session, packet_ids)

    def forget(self, session: str) -> None:
        """Drop all of a session, on the disk."""
        self.inflight.forget(session)

    # -- writing ----------------------------------------------------------------------------------

    def _write_and_sync(self, content: bytes) -> None:
        # `explained` in full: to enter it three times costs a commit 3 us.
        try:
            self._write(content)
        except OSError as error:
            raise explanation(self.path, "write it", error) from error
        try:
            flush(self._fd)
        except OSError as error:
            with suppress(OSError):  # these rows come again: they should not stand there too
                self._take_back()
            raise explanation(self.path, "sync it", error) from error

    def _undo(self, receipts: Sequence[Receipt]) -> None:
        """Rows that are not stored must come again, also when other rows stand where they stood."""
        try:
            self.inflight.undo(receipts)
        except SinkError:
            self._is_sound = False  # nothing is written any more, so they never will

    def _check(self) -> None:
        place = self._place
        if not self.is_open or place is None:
            raise SinkError(f"{self._shown} is closed; make a new sink to write more")
        if not place.is_open:
            text = f"{self._shown} was opened by the process that this one was forked from;"
            raise SinkError(f"{text} make a sink of its own, with another path")
        if not self._is_sound:
            text = f"{self._shown}: an earlier commit failed;"
            raise SinkError(f"{text} start again: opening recovers it")
        try:
            is_still = place.is_still(self._identity, self._size)
            is_locked = place.is_locked()
        except OSError as error:
            raise explanation(self.path, "look at it", error) from error
        if not is_still or not is_locked:
            self._is_sound = False
            text = f"{self._shown} was removed, renamed or changed while it was being written;"
            if is_still:
                lock = f"{printable(self.path.name)}.lock"
                text = f"{self._shown}: its lock was lost: {lock} was removed;"
            raise SinkError(f"{text} start again, and leave it alone while it is open")

    def _write(self, content: bytes) -> None:
        try:
            write_all(self._fd, content, self._end)
        except OSError as error:
            if error.errno in _NO_ROOM:
                with suppress(OSError):  # if even this fails, the file isn't sound and says so
                    self._roll_back()
            raise

    def _roll_back(self) -> None:
        """Take back what a full disk cut short. Recovery at the next open would do the same."""
        self._take_back()
        os.fsync(self._fd)
        self._is_sound = True

    def _take_back(self) -> None:
        """Put the ending back where it was."""
        write_all(self._fd, self._layout.ending, self._end)
        os.ftruncate(self._fd, self._size)

    def close(self) -> None:
        """Close the file and let go of its lock. Safe to call more than once."""
        self.is_open = False
        self.inflight.close()
        fd, self._fd = self._fd, -1
        place, self._place = self._place, None
        if fd >= 0:
            os.close(fd)
        if place is not None:
            place.close()
