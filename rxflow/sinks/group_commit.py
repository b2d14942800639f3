"""Group commit: what arrives while one commit is on its way to the disk is the next one.

No timer: a quiet sink commits each read pass of its loop, a busy one thousands of rows at a time. A
worker thread writes, for a disk may hang, and nothing wakes who waits for it then, no signal
either. For a few rows on a disk that was quick last time the loop waits a millisecond: to be told
by its selector takes as long as such a disk does.
"""

from __future__ import annotations

import threading
from asyncio import (
    AbstractEventLoop,
    CancelledError,
    Task,
    TimerHandle,
    get_running_loop,
    new_event_loop,
)
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol, TypeVar, cast

from rxflow.delivery import Account, Token
from rxflow.errors import SinkError
from rxflow.log import number_of
from rxflow.process.disk import LASTS, PATIENCE, lasting, waiting_for
from rxflow.process.environment import environment_of
from rxflow.process.forked import tell_in_child
from rxflow.process.read_pass import soon, under_way
from rxflow.process.worker import Errand, Works, has_ended

T = TypeVar("T")

Write = Callable[[list[Any], list[Token | None]], Awaitable[None] | None]
"""Makes rows durable, or raises; a token or None for each row, as evidence only."""


class Lasts(Protocol):
    """The callback for a commit that lasts; see `GroupCommit`."""

    def __call__(
        self, commit: Commit, seconds: float, /, *, is_blocking: bool = False
    ) -> SinkError | None: ...


_MAX_QUEUED: Final = 10_000
_MOST_WAITING: Final = 100_000  # rows, where nothing can wait for room
_MAX_LARGE_BYTES: Final = 32 * 1024 * 1024
_LARGE: Final = _MAX_LARGE_BYTES // _MAX_QUEUED
_FEW: Final = 64
_QUICK: Final = 0.001  # seconds of a commit
_AGAIN: Final = 30.0  # seconds after which it is said again that a commit lasts


class Commit:
    """One commit on its way: its rows, the tokens behind them, and how it went."""

    __slots__ = ("error", "is_awaited", "rows", "task", "timer", "tokens", "under_way")

    def __init__(self, rows: list[Any], tokens: list[Token | None]) -> None:
        self.rows = rows
        self.tokens = tokens
        self.error: SinkError | None = SinkError("the commit was interrupted")
        self.is_awaited = False  # by the loop, which needs not be told of the end
        self.timer: TimerHandle | None = None
        self.task: Task[None] | None = None
        self.under_way = threading.Lock()  # held until it is done
        self.under_way.acquire()

    def write(self, write: Write) -> None:
        """Write, and keep the error, if any, for the thread that settles this."""
        try:
            write(self.rows, self.tokens)
        except Exception as error:  # noqa: BLE001 (a worker has nobody to raise to)
            self._failed(error)
        else:
            self.error = None

    async def write_here(self, write: Write) -> None:
        """Likewise, on the loop: what `write` returns is awaited."""
        try:
            await cast("Awaitable[None]", write(self.rows, self.tokens))
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 (likewise)
            self._failed(error)
        else:
            self.error = None

    def _failed(self, error: Exception) -> None:
        if isinstance(error, SinkError):
            self.error = error
            return
        rows = number_of(len(self.rows), "row")
        self.error = SinkError(f"a commit of {rows} failed: {type(error).__name__}: {error}")
        self.error.__cause__ = error

    def acknowledge(self) -> None:
        """Mark every token as stored, let go of them, and only then wake their ledgers."""
        touched: set[Account] = set()
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
    methods may be called on any thread, one `add` at a time. A loop waits for the disk no longer
    than `PATIENCE`, and then in a way that a signal interrupts.

    Args:
        write: Makes rows durable, on the worker or the caller's thread.
        settled: Called with each commit that ended, after its tokens were marked, and with True
            if no caller waits who could be told.
        lasts: Called with a commit that lasts and the seconds so far, again and again;
            `is_blocking` if a caller waits who has no more patience. It says what is to be said, or
            returns the error with which the sink gives up.
        file: What is written, for people.
        is_on_loop: True if `write` returns what the loop awaits: no worker writes then.
        max_queued: With more rows waiting than this, or 32 MiB of large ones (64 MiB in all), `add`
            waits until what waits is written before it takes more: never what is still on its way
            down. With `is_on_loop` nothing can wait: 100,000 rows that wait are an error.

    Attributes:
        max_queued, is_on_loop: As given.
        number: Names this to tokens.
        write, settled, lasts, file: As given.
    """

    def __init__(  # noqa: PLR0913 (each is one fact)
        self,
        write: Write,
        settled: Callable[[Commit, bool], None],
        lasts: Lasts,
        file: str = "",
        max_queued: int = _MAX_QUEUED,
        *,
        is_on_loop: bool = False,
        of: object = None,
    ) -> None:
        self.max_queued = max_queued
        self.is_on_loop = is_on_loop
        self._of = of
        self._own_loop: AbstractEventLoop | None = None  # of rows that come where no loop runs
        self.number = id(self)
        self.write = write
        self.settled = settled
        self.lasts = lasts
        self.file = file
        self._worker: Works | None = None
        self._took = float("inf")  # seconds, the latest commit
        self.forked()
        tell_in_child(self)

    def forked(self) -> None:
        """Begin anew: in a forked child nothing waits, the rows are the parent's."""
        self._lock = threading.Lock()
        self._rows: deque[Any] = deque()  # added to without the lock, which costs more than all
        self._tokens: deque[Token | None] = deque()
        self._large_bytes = 0  # waiting in rows that are large
        self._loop: AbstractEventLoop | None = None
        self._is_scheduled = False
        self._seen_to_in: object = None  # the read pass at whose end there will be a commit
        self._running: Commit | None = None
        self._worker = None

    @property
    def is_idle(self) -> bool:
        """True if nothing waits and nothing is under way."""
        return self._running is None and not self._tokens

    @property
    def is_writing(self) -> bool:
        """True if a commit is under way: the file is the worker's."""
        return self._running is not None

    def add(self, rows: list[Any], tokens: list[Token | None]) -> None:
        """Take rows, a token or None for each: committed soon on a loop, else on return.

        Those of a large group should be compact, see `codec.compact`.

        Raises:
            SinkError: There is no room, and the disk does not answer.
        """
        if len(self._tokens) > self.max_queued:
            self._make_room()
        for token in tokens:
            if token is not None:
                token.take(self.number)
        if large := sum(len(row) for row in rows if type(row) is bytes and len(row) > _LARGE):
            self._add_large(large)
        self._rows.extend(rows)
        self._tokens.extend(tokens)
        self._see_to_it()

    def add_one(self, row: Any, token: Token | None) -> None:
        """Take one row: `add` without the lists."""
        waiting = len(self._tokens)
        if type(row) is bytes:
            if waiting > _FEW:
                row = b"%b" % row  # `codec.compact`, without the call
            if len(row) > _LARGE:
                self._add_large(len(row))
        if waiting > self.max_queued:
            self._make_room()  # before this one is taken: somebody upstream still holds it
        if token is not None:
            token.take(self.number)
        self._rows.append(row)
        self._tokens.append(token)
        if self._seen_to_in is None or under_way.acts is not self._seen_to_in:
            self._see_to_it()

    def _add_large(self, size: int) -> None:
        """Make room for large rows; `max_queued` bounds the memory of all others."""
        if self._large_bytes + size > _MAX_LARGE_BYTES:
            self._make_room()
        self._large_bytes += size

    def _make_room(self) -> None:
        """Wait until what waits is written.

        Raises:
            SinkError: That is not possible, and too much waits.
        """
        if not self.is_on_loop or _loop_here() is None:
            self.flush()
        elif len(self._tokens) > _MOST_WAITING:
            raise SinkError(
                f"{self.file}: {_MOST_WAITING:,} rows queued; the disk accepts them too slowly"
            )

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
        if self._loop is not None and not self.is_idle:
            self.flush()
        self._loop = loop
        self._is_scheduled = False

    # -- commits ----------------------------------------------------------------------------------

    def flush(self) -> None:
        """Return when everything that waits is committed, after the commit that is under way.

        Raises:
            SinkError: The disk does not answer; the sink has given up.
        """
        self._seen_to_in = None
        loop = _loop_here()
        if loop and self.is_on_loop and not self.is_idle:
            raise SinkError(
                f"{self.file}: its rows are for another loop, which can't be waited for"
            )
        worker = self._worker_on(loop) if loop else None
        while True:
            with self._lock:
                running = self._running
                commit = None if running else self._take()
            if running:
                self._await(running)
            elif commit and worker:
                worker.submit(self._work, commit, loop)
                self._await(commit)
            elif commit:
                try:
                    self._write_here(commit)
                finally:
                    self._settle(commit)
            else:
                return

    def _write_here(self, commit: Commit) -> None:
        """On a thread without a loop."""
        try:
            if self.is_on_loop:
                self._own_loop = self._own_loop or new_event_loop()
                self._own_loop.run_until_complete(commit.write_here(self.write))
            else:
                commit.write(self.write)
        finally:
            commit.under_way.release()

    def _await(self, commit: Commit) -> None:
        """Wait for a commit, and settle it."""
        with waiting_for(self.file):
            if not self._wait(commit.under_way, LASTS):
                self.lasts(commit, LASTS)
                if not self._wait(commit.under_way, PATIENCE - LASTS):
                    error = self.lasts(commit, PATIENCE, is_blocking=True)
                    raise error or SinkError("the disk does not answer")
        self._settle(commit)

    def _wait(self, under_way: threading.Lock, seconds: float) -> bool:
        """Wait so long for what is under way; True if it has ended."""
        worker = self._worker
        return worker.wait(under_way, seconds) if worker else has_ended(under_way, seconds)

    def _take(self) -> Commit | None:
        """Make the queue the commit in progress. Called with the lock."""
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
        """On the loop: hand what waits to the worker; wait for a few rows on a quick disk."""
        with self._lock:
            if loop is self._loop:
                self._is_scheduled = False
            commit = self._take()
        if commit is None:
            return
        if self.is_on_loop:
            commit.task = loop.create_task(self._run_here(commit, loop))
            commit.timer = loop.call_later(LASTS, self._judge, commit, loop, LASTS)
            return
        worker = self._worker_on(loop)
        if worker is None:
            self._run(commit, loop)
            self._settle(commit)
            return
        if len(commit.rows) <= worker.at_once and self._took < _QUICK:
            commit.is_awaited = True
            worker.submit(self._work, commit, loop)
            if self._wait(commit.under_way, _QUICK):
                self._settle_and_go_on(commit, loop)
                return
            commit.is_awaited = False  # and now look again: this may have come too late
            if self._wait(commit.under_way, 0):
                self._settle_and_go_on(commit, loop)
                return
        else:
            worker.submit(self._work, commit, loop)
        if self._running is commit:
            commit.timer = loop.call_later(LASTS, self._judge, commit, loop, LASTS)

    def _run(self, commit: Commit, loop: AbstractEventLoop) -> None:
        began = loop.time()
        try:
            commit.write(self.write)
        finally:
            self._took = loop.time() - began
            commit.under_way.release()

    async def _run_here(self, commit: Commit, loop: AbstractEventLoop) -> None:
        try:
            await commit.write_here(self.write)
        finally:
            commit.under_way.release()
            self._settle_and_go_on(commit, loop)

    def _work(self, commit: Commit, loop: AbstractEventLoop) -> None:
        self._run(commit, loop)
        if commit.is_awaited:
            return
        try:
            loop.call_soon_threadsafe(self._settle_and_go_on, commit, loop)
        except RuntimeError:  # the loop is closed, so this thread must do it, its last deed
            worker, self._worker = self._worker, None
            if worker is not None:
                worker.end(0)
            self._settle(commit)
            self.flush()

    def _settle_and_go_on(self, commit: Commit, loop: AbstractEventLoop) -> None:
        if commit.timer:
            commit.timer.cancel()
        if self._settle(commit, is_behind=True) and self._tokens:
            self._start(loop)

    def _settle(self, commit: Commit, *, is_behind: bool = False) -> bool:
        """Mark, let go, wake: once for each commit, whoever comes first."""
        with self._lock:
            if self._running is not commit:
                return False
            self._running = None
        lasting.pop(self.number, None)
        try:
            if commit.error is None:
                commit.acknowledge()
        finally:
            self.settled(commit, is_behind)
        return True

    def _judge(self, commit: Commit, loop: AbstractEventLoop, seconds: float) -> None:
        """On the loop: so long has this commit lasted, unless it has ended."""
        if self._running is not commit:
            return
        if self.lasts(commit, seconds):
            if commit.task:
                commit.task.cancel()
            return
        wait = _AGAIN - seconds % _AGAIN
        commit.timer = loop.call_later(wait, self._judge, commit, loop, seconds + wait)

    # -- the worker -------------------------------------------------------------------------------

    def call(self, act: Callable[[], T], doing: str, undo: Callable[[], object] | None = None) -> T:
        """Do something with the file, and return when it is done; never on a loop's own thread.

        Args:
            act: What to do.
            doing: What it is, for people.
            undo: Called if it is done after all, when nobody waits any more.

        Raises:
            SinkError: The disk does not answer.
            Exception: What it raised.
        """
        loop = _loop_here()
        worker = self._worker_on(loop) if loop and not self.is_on_loop else None
        if worker is None:
            return act()
        errand = Errand(act)
        worker.submit(errand.run)
        with waiting_for(self.file):
            has_ended = self._wait(errand.under_way, PATIENCE)
        if not has_ended:
            if undo:
                worker.submit(undo)
            text = f"{self.file}: {doing} has lasted {PATIENCE:g} s: the disk does not answer;"
            raise SinkError(f"{text} check the disk, then start again")
        return errand.result()

    def behind(self, work: Callable[[], None]) -> None:
        """On the loop: have the worker do this too, between two commits."""
        if worker := self._worker_on(get_running_loop()):
            worker.submit(work)

    def _worker_on(self, loop: AbstractEventLoop) -> Works | None:
        """The worker; None if the interpreter is shutting down."""
        if self._worker is None:
            with suppress(RuntimeError):
                self._worker = environment_of(loop).worker("rxflow-commit", self._of)
        return self._worker

    def drop(self, error: SinkError) -> None:
        """Give up what waits: none of it is stored."""
        with self._lock:
            commit = self._taken()
        commit.fail(error)

    def close(self) -> None:
        """End the worker thread."""
        if self._own_loop:
            self._own_loop.close()
        worker, self._worker = self._worker, None
        if worker is not None:
            with waiting_for(self.file):
                worker.end(PATIENCE)


def _loop_here() -> AbstractEventLoop | None:
    try:
        return get_running_loop()
    except RuntimeError:
        return None
