"""Group commit: what arrives while one commit is on its way to the disk is the next one.

No timer: a quiet sink commits each read pass of its loop, a busy one thousands of rows at a time. A
few rows for a disk that was quick last time are written by the loop itself: to hand them to another
thread and back takes as long as such a disk does.
"""

from __future__ import annotations

import threading
from asyncio import AbstractEventLoop, get_running_loop
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from functools import partial
from typing import Final

from rxflow._read_pass import soon, under_way
from rxflow._surroundings import surroundings_of
from rxflow.delivery import Ledger, Token
from rxflow.errors import SinkError

Write = Callable[[list[bytes], list[Token | None]], None]
"""Makes rows durable, or raises SinkError; a token or None for each row, as evidence only."""

_MAX_QUEUED: Final = 10_000
_MAX_LARGE_BYTES: Final = 32 * 1024 * 1024
_LARGE: Final = _MAX_LARGE_BYTES // _MAX_QUEUED
_FEW: Final = 64
_AT_ONCE: Final = 8
_QUICK: Final = 0.001  # seconds of a commit


class Commit:
    """One commit on its way: its rows, the tokens behind them, and how it went."""

    __slots__ = ("error", "rows", "tokens", "under_way")

    def __init__(self, rows: list[bytes], tokens: list[Token | None]) -> None:
        self.rows = rows
        self.tokens = tokens
        self.error: SinkError | None = SinkError("the commit was interrupted")
        self.under_way = threading.Lock()  # held until it is done
        self.under_way.acquire()

    def run(self, write: Write) -> None:
        """Write, and keep the error, if any, for the thread that settles this."""
        try:
            write(self.rows, self.tokens)
        except SinkError as error:
            self.error = error
        except Exception as error:  # noqa: BLE001 (a worker has nobody to raise to)
            self.error = SinkError(f"the commit failed: {error!r}")
            self.error.__cause__ = error
        else:
            self.error = None
        finally:
            self.under_way.release()

    def acknowledge(self) -> None:
        """Mark every token as stored, let go of them, and only then wake their ledgers."""
        touched: set[Ledger] = set()
        tokens = self.tokens
        token: Token | None
        for token in tokens:
            if token is not None:
                token.store(touched)
        token = None
        tokens.clear()
        for ledger in touched:
            ledger.wake()

    def fail(self, error: SinkError) -> None:
        """Say of every token that it was not stored, then let go of them."""
        token: Token | None
        for token in self.tokens:
            if token is not None:
                token.fail(error)
        token = None
        self.tokens.clear()


class GroupCommit:
    """Rows and tokens that wait, and the one commit that is under way.

    With a loop, a worker thread writes and the loop settles; without, the caller does both. All
    methods may be called on any thread, one `add` at a time.

    Args:
        write: Makes rows durable, on the worker or the caller's thread.
        settled: Called with each commit that ended, after its tokens were marked, and with True
            if no caller waits who could be told.
        max_queued: With more rows waiting than this, or 32 MiB of large ones (64 MiB in all), `add`
            writes in place what waits before it takes more: never what is still on its way down.

    Attributes:
        max_queued: As given.
        at_once: So many rows the loop writes itself, if the disk was quick last time.
    """

    def __init__(
        self, write: Write, settled: Callable[[Commit, bool], None], max_queued: int = _MAX_QUEUED
    ) -> None:
        self.max_queued = max_queued
        self.at_once = _AT_ONCE
        self._number = id(self)
        self._write = write
        self._settled = settled
        self._lock = threading.Lock()
        self._rows: deque[bytes] = deque()  # added to without the lock, which costs more than all
        self._tokens: deque[Token | None] = deque()
        self._large_bytes = 0  # waiting in rows that are large
        self._loop: AbstractEventLoop | None = None
        self._is_scheduled = False
        self._seen_to_in: object = None  # the read pass at whose end there will be a commit
        self._running: Commit | None = None
        self._worker: Executor | None = None
        self._took = float("inf")  # seconds, the latest commit

    @property
    def is_idle(self) -> bool:
        """True if nothing waits and nothing is under way."""
        return self._running is None and not self._tokens

    def add(self, rows: list[bytes], tokens: list[Token | None]) -> None:
        """Take rows, a token or None for each: committed soon on a loop, else on return.

        Those of a large group should be compact, see `codec.compact`.
        """
        if len(self._tokens) > self.max_queued:
            self.flush()
        for token in tokens:
            if token is not None:
                token.take(self._number)
        if large := sum(size for row in rows if (size := len(row)) > _LARGE):
            self._add_large(large)
        self._rows.extend(rows)
        self._tokens.extend(tokens)
        self._see_to_it()

    def add_one(self, row: bytes, token: Token | None) -> None:
        """Take one row: `add` without the lists."""
        waiting = len(self._tokens)
        if waiting > _FEW:
            row = b"%b" % row  # `codec.compact`, without the call
        if waiting > self.max_queued:
            self.flush()  # before this one is taken: somebody upstream still holds it
        if token is not None:
            token.take(self._number)
        if len(row) > _LARGE:
            self._add_large(len(row))
        self._rows.append(row)
        self._tokens.append(token)
        if self._seen_to_in is None or under_way.acts is not self._seen_to_in:
            self._see_to_it()

    def _add_large(self, size: int) -> None:
        """Make room for large rows; `max_queued` bounds the memory of all others."""
        if self._large_bytes + size > _MAX_LARGE_BYTES:
            self.flush()
        self._large_bytes += size

    def _see_to_it(self) -> None:
        """Have what waits committed. Once for a read pass: to ask for the loop costs 0.2 us."""
        try:
            loop = get_running_loop()
        except RuntimeError:
            self.flush()
            return
        if loop is not self._loop:
            self._move_to(loop)
        if self._running is None and not self._is_scheduled:
            self._is_scheduled = True
            soon(partial(self._start, loop), loop)
        self._seen_to_in = under_way.acts

    def _move_to(self, loop: AbstractEventLoop) -> None:
        """Another loop than last time, or the first: what the last one began is ended here."""
        if self._loop is not None:
            self.flush()
        self._loop = loop
        self._is_scheduled = False

    def flush(self) -> None:
        """Commit everything that waits, on this thread, after the commit that is under way."""
        self._seen_to_in = None
        while True:
            with self._lock:
                running = self._running
                commit = None if running else self._take()
            if running:
                with running.under_way:
                    pass
                self._settle(running)
            elif commit:
                try:
                    commit.run(self._write)
                finally:
                    self._settle(commit)
            else:
                return

    def _take(self) -> Commit | None:
        """What waits, as the commit under way. Called with the lock."""
        if not self._tokens or self._running:
            return None
        self._running = commit = self._taken()
        return commit

    def _taken(self) -> Commit:
        rows, tokens = self._rows.popleft, self._tokens.popleft
        self._large_bytes = 0
        count = len(self._tokens)  # a row is added before its token, so each of these has one
        return Commit([rows() for _ in range(count)], [tokens() for _ in range(count)])

    def _start(self, loop: AbstractEventLoop) -> None:
        """On the loop: hand what waits to the worker."""
        with self._lock:
            if loop is self._loop:
                self._is_scheduled = False
            commit = self._take()
        if commit is None:
            return
        if len(commit.rows) <= self.at_once and self._took < _QUICK:
            self._run(commit, loop)
            self._settle_and_go_on(commit, loop)
            return
        if self._worker is None:
            self._worker = self.make_worker(loop)
        try:
            self._worker.submit(self._work, commit, loop)
        except RuntimeError:  # the interpreter is shutting down
            commit.run(self._write)
            self._settle(commit)

    def _run(self, commit: Commit, loop: AbstractEventLoop) -> None:
        began = loop.time()
        commit.run(self._write)
        self._took = loop.time() - began

    def _work(self, commit: Commit, loop: AbstractEventLoop) -> None:
        self._run(commit, loop)
        try:
            loop.call_soon_threadsafe(self._settle_and_go_on, commit, loop)
        except RuntimeError:  # the loop is closed, so this thread must do it, its last deed
            worker, self._worker = self._worker, None
            if worker is not None:
                worker.shutdown(wait=False)
            self._settle(commit)
            self.flush()

    def _settle_and_go_on(self, commit: Commit, loop: AbstractEventLoop) -> None:
        if self._settle(commit, is_behind=True) and self._tokens:
            self._start(loop)

    def _settle(self, commit: Commit, *, is_behind: bool = False) -> bool:
        """Mark, let go, wake: once for each commit, whoever comes first."""
        with self._lock:
            if self._running is not commit:
                return False
            self._running = None
        try:
            if commit.error is None:
                commit.acknowledge()
        finally:
            self._settled(commit, is_behind)
        return True

    def behind(self, work: Callable[[], None]) -> None:
        """On the loop: have the worker do this too, between two commits."""
        if self._worker is None:
            self._worker = self.make_worker(get_running_loop())
        with suppress(RuntimeError):  # the interpreter is shutting down
            self._worker.submit(work)

    def make_worker(self, loop: AbstractEventLoop) -> Executor:
        """What writes while the loop goes on; made for the first commit."""
        return surroundings_of(loop).worker("rxflow-commit")

    def drop(self, error: SinkError) -> None:
        """Give up what waits: none of it is stored."""
        with self._lock:
            commit = self._taken()
        commit.fail(error)

    def close(self) -> None:
        """End the worker thread."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.shutdown()
