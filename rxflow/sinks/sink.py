"""A file as Rx sees it: items become rows, rows are committed in groups."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, cast

from reactivex import abc

from rxflow import arguments, codec
from rxflow.delivery import Token
from rxflow.errors import SinkError
from rxflow.log import PerSecond, announce, escaped, printable, tell
from rxflow.message import Message
from rxflow.process.disk import HANGS, PATIENCE, lasting
from rxflow.process.read_pass import on_its_way
from rxflow.rejection import rejection
from rxflow.sinks import rows as item
from rxflow.sinks.file.journal import Attached
from rxflow.sinks.file.store import DurableFile
from rxflow.sinks.group_commit import Commit, GroupCommit

_WRITING: Final = "writing its journal"


class FileSink(abc.ObserverBase[Any]):
    """An observer that appends each item to a file; see `JsonSink`.

    On the thread of a running asyncio loop rows are committed by a worker thread, each group as
    soon as the one before is done; elsewhere `on_next` returns when its row is on the disk. A
    commit that lasts is said after three seconds, and fails the sink after five minutes.

    Attributes:
        path: The file, as it was given; a `~` was expanded.
        rejected: The observer that gets what can't be stored, if any.
        is_program: Set by `run`, which reports what otherwise is raised or warned of.
        on_failure: Called once with the error when the sink fails; set by `run`.
        on_plain: Called with each plain value, and whether a message is on its way; set by `run`.
        failure: Why nothing more is stored, once that is so. Nothing is acknowledged after it.
        error: What the stream ended with, if it failed.
    """

    def __init__(
        self,
        file: DurableFile,
        rejected: abc.ObserverBase[Any] | None,
        default: codec.Default | None = None,
    ) -> None:
        self._default = default
        self.path: Path = file.path
        self.rejected = rejected
        self.is_program = False
        self.on_failure: Callable[[SinkError], None] | None = None
        self.on_plain: Callable[[bool], object] | None = None
        self.failure: SinkError | None = None
        self.error: Exception | None = None
        self._file = file
        self._shown = escaped(self.path)
        self._group = GroupCommit(self._commit, self._settled, self._lasts, self._shown)
        self._add_one = self._group.add_one
        self._is_ending = False
        self._is_failing = False
        self._is_closed = False
        self._is_dropping = False
        self._has_given_up = False
        self._waiting: list[asyncio.Future[None]] = []
        plain = self._shown.replace("{", "{{").replace("}", "}}")
        summary = f"committed {{total}} rows to {plain} in {{events}} commits, {{seconds}} s"
        self._log = PerSecond(summary)

    # -- what is known of it ----------------------------------------------------------------------

    @property
    def rows(self) -> int:
        """Rows that are on the disk through this sink."""
        return self._file.rows

    @property
    def commits(self) -> int:
        """How often it wrote and synced."""
        return self._file.commits

    @property
    def bytes(self) -> int:
        """By how many bytes the file grew, durably."""
        return self._file.bytes

    @property
    def session_path(self) -> Path:
        """Beside this file a run keeps its client ids."""
        return self.path

    @property
    def journal(self) -> Self:
        """Records which QoS 2 messages are in the file: this sink."""
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    @property
    def is_closed(self) -> bool:
        """True when everything is committed, or given up, and the file is closed."""
        return self._is_closed

    @property
    def max_queued(self) -> int:
        """With more rows waiting on a loop than this, `on_next` commits in place."""
        return self._group.max_queued

    @max_queued.setter
    def max_queued(self, rows: int) -> None:
        arguments.whole("max_queued", rows, 1)
        self._group.max_queued = rows

    # -- items ------------------------------------------------------------------------------------

    def open(self) -> None:
        """Lock and recover the file, or make it, now rather than at the first item.

        Raises:
            SinkError: What stands at the path is not ours, or can't be opened.
        """
        if self._is_ending:
            raise self._too_late()
        if self._file.is_open:
            return
        try:
            self._group.call(self._file.open, "opening it", self._file.close)
        except BaseException:
            self._group.close()  # nobody closes what was never open
            raise
        if kept := self._file.kept:
            text = f"{self._shown}: a crash had torn its last commit, kept in {escaped(kept)}"
            tell(text, is_program=True)
        if count := self._file.inflight.unknown:
            which = "1 QoS 2 message" if count == 1 else f"{count} QoS 2 messages"
            text = f"{self._shown} is new, and {which} may stand in one that was here"
            advice = "what comes again is stored again; existing='rotate' moves a file without that"
            tell(f"{text}: {advice}", is_program=True)

    def on_next(self, value: Any) -> None:
        """Take one item: a message, a batch of messages, or a plain value.

        Raises:
            SinkError: It can't be stored. Nothing more is accepted after that.
        """
        if self._is_ending or not self._file.is_open:
            self._open_for(value)
        if type(value) is Message:
            message: Message[Any] = value
            payload = message.payload
            try:
                if type(payload) is dict:
                    row = codec.encode(payload, self._default)
                else:
                    row = item.row(payload, self._default)
            except Exception as error:  # noqa: BLE001 (of a default= of the user's, too)
                self._set_aside(message, str(error), value)
            else:
                self._add_one(row, message.delivery)
        elif item.is_batch(value):
            self._take_each(value)
        else:
            self._take_plain(value)
        if self.failure is not None:
            raise self.failure

    def _take_plain(self, value: Any) -> None:
        """A value without an envelope: what was made of a message carries its delivery."""
        made_of: Message[Any] | None = on_its_way()
        if self.on_plain is not None:
            self.on_plain(made_of is not None)
        message: Message[Any] = made_of.with_payload(value) if made_of else Message("", value)
        del made_of
        try:
            row = item.row(value, self._default)
        except Exception as error:  # noqa: BLE001 (of a default= of the user's, too)
            self._set_aside(message, str(error), message)
        else:
            self._add_one(row, message.delivery)

    def _take_each(self, batch: list[Any]) -> None:
        rows: list[bytes] = []
        tokens: list[Token | None] = []
        for each in batch:
            message = cast("Message[Any]", each if isinstance(each, Message) else Message("", each))
            try:
                rows.append(codec.compact(item.row(message.payload, self._default)))
            except Exception as error:  # noqa: BLE001 (of a default= of the user's, too)
                self._set_aside(message, str(error), batch)
                continue
            tokens.append(message.delivery)
        self._group.add(rows, tokens)

    def _open_for(self, value: Any) -> None:
        """Open at the first item, or refuse one that comes too late."""
        if self._is_ending:
            error = self.failure or self._too_late()
            for token in item.tokens(value):
                token.fail(error)
            raise error.with_traceback(None)
        try:
            self.open()
        except SinkError as error:
            self._fail(error, item.tokens(value))
            raise

    def _too_late(self) -> SinkError:
        return SinkError(f"{self._shown} is closed. Make a new sink to write more.")

    def _set_aside(self, message: Message[Any], reason: str, whole: Any) -> None:
        """Give a message that is no row to `rejected`, or fail with all that came with it."""
        if self.rejected is None:
            kind = type(message.payload).__name__
            of = f" of topic {printable(message.topic)!r}" if message.topic else ""
            advice = "Map it to what JSON holds, give default=, or set it aside with rejected=."
            error = SinkError(f"{self._shown}: a {kind}{of} can't be stored: {reason}. {advice}")
            error.__cause__ = sys.exception()
            self._fail(error, item.tokens(whole))
            raise error
        try:
            self.rejected.on_next(rejection(message, reason))
        except Exception as cause:
            error = SinkError(f"{self._shown}: what can't be stored can't be set aside: {cause}")
            error.__cause__ = cause
            self._fail(error, item.tokens(whole))
            raise error from cause

    def _commit(self, rows: list[bytes], tokens: list[Token | None]) -> None:
        """Make rows durable, on whichever thread."""
        claims = self._file.inflight.claims(tokens)
        if claims:
            self._file.commit(rows, claims)
        else:
            self._file.commit(rows)

    # -- QoS 2: what is in the file and not released ----------------------------------------------

    def attach(self, session: str, ledger: Attached) -> dict[int, int]:
        """From now on, write down which packet ids of this session are in the file.

        To be called on an open sink, before the first message of a connection.

        Args:
            session: Names the broker and the client id.
            ledger: Who knows what the deliveries of this session are.

        Returns:
            The digest of each message that is in the file and not released, by its packet id.

        Raises:
            SinkError: The journal can't be written.
        """
        return self._group.call(partial(self._file.inflight.attach, session, ledger), _WRITING)

    def forget(self, session: str) -> None:
        """The broker forgot this session. To be called before the first message of the new one.

        Raises:
            SinkError: The journal can't be written.
        """
        self._group.call(partial(self._file.inflight.forget, session), _WRITING)

    def release(self, session: str, packet_ids: list[int]) -> None:
        """PUBREL came: drop these ids, on the disk, and then tell the ledger. On the loop's thread.

        Nothing is told by a sink that is closed: the broker asks again, and the next one answers.
        """
        if self._is_closed or not self._file.inflight.release(session, packet_ids):
            return
        if not self._is_dropping:
            self._is_dropping = True
            loop = asyncio.get_running_loop()
            self._group.behind(lambda: self._drop_released(loop))

    def _drop_released(self, loop: asyncio.AbstractEventLoop) -> None:
        """On the worker: unless a commit did it on its way."""
        self._is_dropping = False
        try:
            self._file.inflight.sync()
        except SinkError as error:
            with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
                loop.call_soon_threadsafe(self._fail, error, ())

    # -- the end ----------------------------------------------------------------------------------

    def on_completed(self) -> None:
        """Commit what is queued and close; on a loop that goes on behind (see `wait_closed`).

        A stream without items makes a file without rows.

        Raises:
            SinkError: It could not be stored, or the file not made.
        """
        if self._is_ending:
            return
        self._open_for(None)
        self._end()

    def on_error(self, error: Exception) -> None:
        """Commit what came before the error and close, then warn of it, unless `run` tells.

        Raises:
            Exception: The error itself, where there is neither a loop nor a `run`. That alone would
                not do: below an operator, reactivex swallows what `on_error` raises.
        """
        if self._is_failing:
            return
        if self.error is None:
            self.error = error
        if not self._is_ending:
            try:
                self._end()
            except SinkError as failure:
                failure.add_note(f"The stream had failed before: {error!r}")
                raise
        if self.is_program:
            return
        if error is not self.failure:  # that one was raised or told
            tell(f"{self._shown}: the stream failed: {escaped(repr(error))}", is_program=False)
        if not _is_on_a_loop():
            raise error

    def _end(self) -> None:
        if not _is_on_a_loop():
            self.close()
            return
        self._is_ending = True
        if self._group.is_idle:
            self._close()

    def close(self) -> None:
        """Commit what is queued, close the file, end the worker. Twice is once.

        Raises:
            SinkError: The last rows could not be stored.
        """
        if self._is_closed:
            return
        self._is_ending = True
        with suppress(SinkError):  # which is the failure
            self._group.flush()
        self._close()
        if self.failure is not None:
            raise self.failure

    async def wait_closed(self) -> None:
        """Wait until everything is committed and the file closed, or the sink has given up.

        Raises:
            SinkError: The sink failed, now or before, or the disk has not answered for 30 s.
        """
        if not self._is_closed:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter
        if self.failure is not None:
            raise self.failure

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _settled(self, commit: Commit, is_behind: bool) -> None:  # noqa: FBT001 (a callback)
        """A commit ended: behind on the loop, or in place, where the caller raises."""
        if self._has_given_up:  # and nobody waits any more: now the file can be let go of
            self._let_go()
            return
        if commit.error is not None:
            is_told = not is_behind or self.is_program or bool(self._waiting)
            self._fail(commit.error, commit.tokens)
            commit.tokens.clear()
            if not is_told:
                tell(str(commit.error), is_program=False)
            return
        count = len(commit.rows)
        rows = "1 row" if count == 1 else f"{count} rows"
        self._log.add("committed {} to {}", rows, self._shown, count=count)
        if self._is_ending and self._group.is_idle:
            self._close()

    def _fail(self, error: SinkError, tokens: Sequence[Token | None]) -> None:
        """Say of every token held that it was not stored, and stop."""
        is_first = self.failure is None
        if is_first:
            self.failure = error
        self._close()
        self._is_failing = True  # a ledger may answer with `on_error`
        try:
            self._group.drop(error)
            for token in tokens:
                if token is not None:
                    token.fail(error)
            if is_first and self.on_failure is not None:
                self.on_failure(error)
        finally:
            self._is_failing = False

    def _lasts(
        self, commit: Commit, seconds: float, /, *, is_blocking: bool = False
    ) -> SinkError | None:
        """A commit lasts: say so, or give up when it has been too long."""
        count = len(commit.rows)
        of = f"{self._shown}: a commit of {'1 row' if count == 1 else f'{count:,} rows'}"
        is_over = seconds >= PATIENCE and (is_blocking or self._is_ending)
        if seconds < HANGS and not is_over:
            lasting[self._group.number] = self._shown
            text = f"{of} has lasted {seconds:g} s: the disk does not answer"
            announce(f"{text}; until it does, nothing is acknowledged", is_program=self.is_program)
            return None
        text = f"{of} has lasted {seconds:g} s, and nothing of it is acknowledged."
        error = SinkError(f"{text} Check the disk, then start again: opening recovers the file.")
        self._has_given_up = True
        is_told = is_blocking or self.is_program or bool(self._waiting)
        self._fail(error, [token for token in commit.tokens if token is not None])
        if not is_told:
            announce(str(error), is_program=False)
        return error

    def _close(self) -> None:
        """Close the file, and wake who waits for that; a commit that is under way does it then."""
        if self._is_closed:
            return
        self._is_ending = True
        if self._group.is_writing and not self._has_given_up:
            return
        self._is_closed = True
        if not self._group.is_writing:  # else the file is the worker's, to which its number belongs
            self._let_go()
        self._log.flush()
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            with suppress(RuntimeError):  # its loop is closed
                waiter.get_loop().call_soon_threadsafe(_wake, waiter)

    def _let_go(self) -> None:
        """Close the file and end the worker, for good."""
        try:
            self._group.call(self._file.close, "closing it")
        except SinkError as error:
            self.failure = self.failure or error
        self._group.close()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _is_on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
