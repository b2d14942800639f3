"""A sink whose disk is slow, full or dead on cue: `marbles.sink(disk="--====--x")`.

    -   as fast as can be: a commit takes no time
    =   slow: a commit that begins here is on the disk when the run of = is over
    x   full: a commit that ends here fails
    #   dead: a commit that begins here, or is under way, never ends

Everything else is what a `JsonSink` does in production: the same observer, group commit, file
format, roll-back and recovery, in a folder in memory where the system has one (`/dev/shm`).
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from reactivex import abc

from rxflow.errors import SinkError
from rxflow.process.worker import has_ended
from rxflow.sinks.contracts import Receipt
from rxflow.sinks.file.folder import explanation
from rxflow.sinks.file.format import ARRAY
from rxflow.sinks.file.json import FileSink
from rxflow.sinks.file.reading import read_rows
from rxflow.sinks.file.store import DurableFile
from rxflow.testing.diagrams.durations import MICROSECOND, DiagramError, nanoseconds
from rxflow.testing.diagrams.notation import parse
from rxflow.testing.diagrams.rendering import Row
from rxflow.testing.marks import Marks
from rxflow.testing.pending import Pending, Place
from rxflow.testing.virtual.clock import SECOND, VirtualClock
from rxflow.testing.virtual.environment import Inline
from rxflow.testing.virtual.loop import VirtualLoop

T = TypeVar("T")

_MEMORY: Final = Path("/dev/shm")  # noqa: S108 (a folder of an unguessable name is made in it)


class Disk:
    """When a disk is slow, full or dead. A part of `Marbles`: each check begins it anew.

    Args:
        clock: The time.
        text: The diagram.
        frame: Of the diagram.

    Attributes:
        diagram: The same, parsed.
        commits: When something was stored, in nanoseconds since the diagram began.

    Raises:
        DiagramError: It breaks a rule.
    """

    def __init__(self, clock: VirtualClock, text: str, frame: str | int = "1s") -> None:
        self.diagram = parse(text, frame=frame, role="cold")
        for event in self.diagram.events:
            if event.key not in {"=", "x", "#"}:
                raise DiagramError(f"a disk is - (fast), = (slow), x (full) or # (dead): {text!r}")
        self._clock = clock
        self._frame = nanoseconds(frame, "frame") // MICROSECOND
        self.begin()

    def begin(self) -> None:
        """The diagram begins now."""
        self._began = self._clock.microseconds
        self.commits: list[int] = []

    @property
    def length(self) -> int:
        """The last time that the diagram speaks of, in nanoseconds."""
        return self.diagram.length

    def rows(self) -> list[Row]:
        """The diagram, for the picture of a failure."""
        return [Row("disk", self.diagram.events)] if self.diagram.events else []

    def wait(self) -> None:
        """Block until it is free: time passes, and nothing else happens meanwhile."""
        free_at = self.free_at()
        if free_at is None:
            raise RuntimeError("the disk is dead, and nobody else would go on: this never returns")
        self._clock.sleep((free_at - self._clock.microseconds) / SECOND)

    def note(self) -> None:
        """A commit is on the disk."""
        self.commits.append(self._now * MICROSECOND)

    @property
    def is_full(self) -> bool:
        """True now."""
        return any(start <= self._now < end for start, end in self._spans("x"))

    def free_at(self) -> int | None:
        """When a commit that begins now ends, in the clock's microseconds; None: never."""
        end_of_run = self._now
        for start, end in self._spans("="):
            if start <= end_of_run < end:
                end_of_run = end
        is_dead = any(start <= end_of_run for start, _ in self._spans("#"))
        return None if is_dead else self._began + end_of_run

    @property
    def _now(self) -> int:
        return self._clock.microseconds - self._began

    def _spans(self, key: str) -> Iterator[tuple[int, int]]:
        starts = [e.time // MICROSECOND for e in self.diagram.events if e.key == key]
        return ((start, start + self._frame) for start in starts)


class DiskWorker(Inline):
    """Does what is submitted when the disk is free, in order; the loop goes on meanwhile."""

    at_once = 0

    def __init__(self, disk: Disk, clock: VirtualClock) -> None:
        self._disk = disk
        self._clock = clock
        self._jobs: deque[Callable[[], object]] = deque()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        free_at = self._disk.free_at()
        if free_at == self._clock.microseconds and not self._jobs:
            return super().submit(fn, *args, **kwargs)
        self._jobs.append(partial(super().submit, fn, *args, **kwargs))
        if free_at is not None:
            self._clock.at(free_at, self._next)
        return Future()

    def _next(self) -> None:
        if self._jobs:  # `wait` may have done it
            self._jobs.popleft()()

    def wait(self, under_way: threading.Lock, seconds: float) -> bool:
        """Do what waits, now; whoever wants that is blocked until the disk is free.

        Args:
            under_way: Held until it is done.
            seconds: But no longer than that.
        """
        self._finish(seconds)
        return has_ended(under_way, 0)

    def _finish(self, seconds: float) -> None:
        free_at = self._disk.free_at()
        latest = self._clock.microseconds + round(seconds * SECOND)
        if self._jobs and (free_at is None or free_at > latest):
            self._clock.sleep(seconds)
            return
        while self._jobs:
            self._jobs.popleft()()


class DiskFile:
    """The file of a `JsonSink` on such a disk: the store of a `DiagramSink`.

    Args:
        file: The file.
        disk: The disk.
    """

    def __init__(self, file: DurableFile, disk: Disk) -> None:
        self.path = file.path
        self.release, self.receipts, self.forget = file.release, file.receipts, file.forget
        self.close = file.close
        self._file = file
        self._disk = disk

    def __del__(self) -> None:
        self.close()  # of a sink whose loop nobody closed

    @property
    def bytes(self) -> int:
        """By how many the file grew."""
        return self._file.bytes

    def open(self) -> None:
        """Open it, in no time."""
        self._file.open()

    def commit(self, rows: Sequence[bytes], receipts: Sequence[Receipt] = ()) -> None:
        """Commit when the disk is free; fail if it is full then."""
        self._disk.wait()  # in place, this blocks; the worker comes when it is free
        if self._disk.is_full:
            no_room = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise explanation(self.path, "write it", no_room) from no_room
        self._file.commit(rows, receipts)
        self._disk.note()


class DiagramSink(FileSink):
    """See above. Its file is gone when the loop closes.

    Args:
        loop: The time, and where it runs.
        text: What its disk does.
        frame: Of the diagram.
        rejected: As of `JsonSink`.
        settle: Plays what is to be played before anything is asked.
        pending: What the test owes; None: nobody asks.

    Attributes:
        disk: What the diagram says.

    Raises:
        DiagramError: The diagram breaks a rule.
    """

    def __init__(  # noqa: PLR0913 (the last four by name)
        self,
        loop: VirtualLoop,
        text: str = "",
        *,
        frame: str | int = "1s",
        rejected: abc.ObserverBase[Any] | None = None,
        settle: Callable[[], object] = lambda: None,
        pending: Pending | None = None,
    ) -> None:
        self.disk = Disk(loop.clock, text, frame)
        self._pending = pending or Pending()
        place = Place.of_caller()
        self._debt = self._pending.add(
            lambda: f"a sink: nothing came to it, and nobody asked [{place}]", is_part=True
        )
        folder = tempfile.mkdtemp(prefix="rxflow-", dir=_MEMORY if _MEMORY.is_dir() else None)
        loop.resources.callback(shutil.rmtree, folder)
        loop.at_finish.callback(self._close_quietly)
        file = DurableFile(Path(folder, "sink.json"), ARRAY, "append", None)
        store = DiskFile(file, self.disk)
        loop.environment.write_by(DiskWorker(self.disk, loop.clock), store)
        super().__init__(store, rejected)
        self._frame = nanoseconds(frame, "frame")
        self._settle = settle

    @property
    def stored(self) -> list[Any]:
        """The rows that are in the file, decoded."""
        self._settle()
        self._debt.pay()
        return list(read_rows(self.path)) if self.path.exists() else []

    @property
    def committed(self) -> Marks:
        """When commits were on the disk: `sink.committed == "--^---^"`."""
        self._settle()
        self._debt.pay()
        return Marks(self.disk.commits, self._frame, self._pending)

    def open(self) -> None:
        self._debt.pay()
        super().open()

    def _close_quietly(self) -> None:
        with suppress(SinkError):
            self.close()
