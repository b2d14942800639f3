"""The sink that users make of a store of theirs, and that rxflow's own are made of."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, cast

from reactivex import abc

from rxflow import arguments, codec
from rxflow.delivery import Token
from rxflow.errors import SinkError
from rxflow.log import PerSecond, announce, escaped, number_of, printable, tell
from rxflow.message import Batch, Message
from rxflow.process.disk import HANGS, PATIENCE, lasting
from rxflow.sinks.contracts import ExactlyOnceStore, Store
from rxflow.sinks.group_commit import Commit, GroupCommit
from rxflow.sinks.receipts import Receipts
from rxflow.sinks.rows import is_batch, payload_of, tokens, without_delivery
from rxflow.sinks.shell import Shell

Write = Callable[[Batch[Any]], Awaitable[None] | None]
"""Makes a batch durable before it returns; `async def` or not."""

_METHODS: Final = ("open", "commit", "close")


class _Function:
    """A function as a store: rows are messages, which carry no delivery."""

    def __init__(self, function: Write) -> None:
        self._function = function
        self.is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 (of an object that is called)
        )

    def open(self) -> None:
        """A function needs no opening."""

    def commit(self, rows: Sequence[Message[Any]]) -> None:
        """Call it on this thread."""
        returned = self._function(Batch(rows))
        if inspect.isawaitable(returned):
            if inspect.iscoroutine(returned):
                returned.close()
            raise SinkError("it returned an awaitable; make it an `async def` function")
        if inspect.isgenerator(returned) or inspect.isasyncgen(returned):
            raise SinkError("it returned a generator, which has not run; leave out its yield")

    async def commit_here(self, rows: Sequence[Message[Any]]) -> None:
        """Call and await it."""
        await cast("Awaitable[None]", self._function(Batch(rows)))

    def close(self) -> None:
        """Nor any closing."""


class DurableSink(Shell):
    """An observer that makes items durable in a store, and only then has them acknowledged.

    While one commit is under way, what arrives is collected for the next: a quiet sink commits each
    item as it comes, a busy one thousands at once. On the thread of a running asyncio loop a worker
    thread makes the calls; elsewhere `on_next` returns when its row is durable. A commit that lasts
    is named after three seconds, and fails the sink after five minutes.

    Once a commit has raised, nothing more is stored or acknowledged: the broker keeps the rest. To
    try again is the store's own affair, within `commit`.

    Making a sink does no I/O: the store is opened by `open`, at the first item, or on completion.

    Args:
        store: A `Store`; or a function that is called with a `Batch` of messages on a worker
            thread, or awaited on the loop if it is `async def`. Messages carry no delivery there:
            a function may keep them. When it returns they are acknowledged; when it raises, none
            of that batch is. A store that keeps receipts (`ExactlyOnceStore`) is written once only
            at QoS 2.
        name: Names the sink in errors and in the log; by default the function or the class.
        encode: Makes a row of a message (a plain value comes in an envelope without topic); what it
            raises rejects the message. None: a store gets payloads, a function messages.
        rejected: Gets a record (see `rxflow.rejection`) of each item that `encode` can't use;
            without it such an item fails the sink. It is not completed by this sink.

    Attributes:
        rows: Rows that are durable through this sink.
        commits: Commits that made them so.
        journal: Keeps receipts of QoS 2 messages; None if the store doesn't.

    Raises:
        ConfigError: At call time: an argument is wrong.
    """

    _WHERE = "its store"
    _CHECK = "check the store, then start again"
    _ADVICE = "make a row of it with encode=, or reject it with rejected="

    def __init__(
        self,
        store: Store[Any] | ExactlyOnceStore[Any] | Write,
        *,
        name: str | None = None,
        encode: Callable[[Message[Any]], Any] | None = None,
        rejected: abc.ObserverBase[Any] | None = None,
    ) -> None:
        if name is not None:
            arguments.text("name", name)
        if encode is not None:
            arguments.function("encode", encode)
        given: Any = store
        if isinstance(given, type) or not (isinstance(given, Store) or callable(given)):
            made = " (make one)" * isinstance(given, type)
            right = f"a store, with the methods {', '.join(_METHODS)}, or a function"
            arguments.refuse("store", right + made, given)
        is_function = not isinstance(given, Store)
        named = getattr(given if is_function else type(given), "__qualname__", type(given).__name__)
        super().__init__(escaped(name or named), rejected)
        self._store: Any = _Function(cast("Write", given)) if is_function else given
        self._encode = encode or (without_delivery if is_function else payload_of)
        is_async = is_function and self._store.is_async
        write = self._commit_here if is_async else self._commit
        self._group = GroupCommit(
            write, self._settled, self._lasts, self._shown, is_on_loop=is_async, of=self._store
        )
        self._add_one = self._group.add_one
        self._receipts: Receipts | None = None
        if isinstance(given, ExactlyOnceStore):
            self.journal = self._receipts = Receipts(given, self._group, self._failed)
        self.rows = self.commits = 0
        self._is_open = False
        self._is_ending = False
        self._is_closed = False
        self._has_given_up = False
        self._waiting: list[asyncio.Future[None]] = []
        plain = self._shown.replace("{", "{{").replace("}", "}}")
        self._log = PerSecond(
            f"committed {{total}} rows to {plain} in {{events}} commits, {{seconds}} s"
        )

    # -- what is known of it ----------------------------------------------------------------------

    @property
    def bytes(self) -> int:
        """0: only a file's store counts them."""
        return 0

    @property
    def session_path(self) -> Path | None:
        """The file beside which a run keeps its client ids; None: it keeps none."""
        return None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._shown})"

    @property
    def is_closed(self) -> bool:
        """True when everything is committed, or given up, and the store is closed."""
        return self._is_closed

    @property
    def max_queued(self) -> int:
        """With more rows waiting on a loop than this, `on_next` commits in place."""
        return self._group.max_queued

    @max_queued.setter
    def max_queued(self, rows: int) -> None:
        arguments.check_range("max_queued", rows, 1)
        self._group.max_queued = rows

    # -- items ------------------------------------------------------------------------------------

    def open(self) -> None:
        """Open the store now rather than at the first item.

        Raises:
            SinkError: It can't be opened.
        """
        if self._is_ending:
            raise self._too_late()
        if self._is_open:
            return
        try:
            self._group.call(self._store.open, "opening it", self._store.close)
        except SinkError:
            self._group.close()  # nobody closes what was never open
            raise
        except Exception as error:
            self._group.close()
            text = f"{self._shown}: cannot open it: {type(error).__name__}: {error}"
            raise SinkError(text) from error
        except BaseException:
            self._group.close()
            raise
        self._is_open = True

    def on_next(self, value: Any) -> None:
        """Take one item: a message, a batch of messages, or a plain value.

        Raises:
            SinkError: It can't be stored. Nothing more is accepted after that.
        """
        if self._is_ending or not self._is_open:
            self._open_for(value)
        if type(value) is Message:
            message: Message[Any] = value
        elif is_batch(value):
            self._take_each(value)
            if self.failure is not None:
                raise self.failure
            return
        else:
            message = self._enveloped(value)
        try:
            row = self._encode(message)
        except Exception as error:  # noqa: BLE001 (of a function of the user's, too)
            self._refuse(message, str(error), message)
        else:
            try:
                self._add_one(row, message.delivery)
            except SinkError as error:
                self._fail(error, tokens(message))
                raise
        if self.failure is not None:
            raise self.failure

    def _take_each(self, batch: list[Any]) -> None:
        rows: list[Any] = []
        deliveries: list[Token | None] = []
        for each in batch:
            message = cast("Message[Any]", each if isinstance(each, Message) else Message("", each))
            try:
                row = self._encode(message)
            except Exception as error:  # noqa: BLE001 (of a function of the user's, too)
                self._refuse(message, str(error), batch)
                continue
            rows.append(codec.compact(row) if type(row) is bytes else row)
            deliveries.append(message.delivery)
        try:
            self._group.add(rows, deliveries)
        except SinkError as error:
            self._fail(error, tokens(batch))
            raise

    def _open_for(self, value: Any) -> None:
        """Open at the first item, or refuse one that comes too late."""
        if self._is_ending:
            error = self.failure or self._too_late()
            self._disown(value, error)
            raise error.with_traceback(None)
        try:
            self.open()
        except SinkError as error:
            self._fail(error, tokens(value))
            raise

    def _too_late(self) -> SinkError:
        return SinkError(f"{self._shown} is closed; make a new sink to write more")

    def _refuse(self, message: Message[Any], reason: str, whole: Any) -> None:
        """Reject a message that is no row, or fail with all that came with it."""
        if self.rejected is None:
            kind = type(message.payload).__name__
            of = f" of topic {printable(message.topic)!r}" if message.topic else ""
            what = f"{self._shown}: a payload of type {kind}{of}"
            error = SinkError(f"{what} can't be stored: {reason}; {self._ADVICE}")
            error.__cause__ = sys.exception()
            self._fail(error, tokens(whole))
            raise error
        try:
            self._reject(message, reason)
        except Exception as cause:
            error = SinkError(
                f"{self._shown}: an item can't be stored, and rejected= failed too: {cause}"
            )
            error.__cause__ = cause
            self._fail(error, tokens(whole))
            raise error from cause

    def _commit(self, rows: list[Any], tokens: list[Token | None]) -> None:
        """Make rows durable, on whichever thread."""
        if self._receipts is not None:
            self._receipts.commit(rows, tokens)
        else:
            self._store.commit(rows)
        self.rows += len(rows)
        self.commits += 1

    async def _commit_here(self, rows: list[Any], tokens: list[Token | None]) -> None:
        """Likewise, on the loop."""
        del tokens
        await self._store.commit_here(rows)
        self.rows += len(rows)
        self.commits += 1

    def _failed(self, error: Exception) -> None:
        """A receipt could not be dropped."""
        self._fail(self._named(error), ())

    def _named(self, error: Exception) -> SinkError:
        """An error with the name of this sink, if it has none."""
        if isinstance(error, SinkError) and self._shown in str(error):
            return error
        named = SinkError(f"{self._shown}: {error}")
        named.__cause__ = error.__cause__ or error
        return named

    # -- the end ----------------------------------------------------------------------------------

    def on_completed(self) -> None:
        """Commit what is queued and close; on a loop this continues in the background.

        See `wait_closed`. A stream without items opens the store, too.

        Raises:
            SinkError: It could not be stored, or the store not opened.
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
        """Commit what is queued, close the store, end the worker. Safe to call more than once.

        Raises:
            SinkError: The last rows could not be stored; or, of an `async def` function on its own
                loop: they can't be waited for, see `wait_closed`.
        """
        if self._is_closed:
            return
        self._is_ending = True
        if self._group.is_on_loop and not self._group.is_idle and _is_on_a_loop():
            text = "its rows are written by the loop on which close() can't wait for them"
            raise SinkError(f"{self._shown}: {text}; use `await sink.wait_closed()`")
        with suppress(SinkError):  # which is the failure
            self._group.flush()
        self._close()
        if self.failure is not None:
            raise self.failure

    async def wait_closed(self) -> None:
        """Wait until everything is committed and the store closed, or the sink has given up.

        Raises:
            SinkError: The sink failed, now or before, or the store has not answered for 30 s.
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
            error = self._named(commit.error)
            is_told = not is_behind or self.is_program or bool(self._waiting)
            self._fail(error, commit.tokens)
            commit.tokens.clear()
            if not is_told:
                tell(str(error), is_program=False)
            return
        count = len(commit.rows)
        rows = number_of(count, "row")
        self._log.add("committed {} to {}", rows, self._shown, count=count)
        if self._is_ending and self._group.is_idle:
            self._close()

    def _fail(self, error: SinkError, tokens: Sequence[Token | None]) -> None:
        """Say of every token held that it was not stored, and stop."""
        is_first = self.failure is None
        if is_first:
            self.failure = error
        self._close()
        self._group.drop(error)
        for token in tokens:
            if token is not None:
                token.fail(error)
        if is_first and self.on_failure is not None:
            self.on_failure(error)

    def _lasts(
        self, commit: Commit, seconds: float, /, *, is_blocking: bool = False
    ) -> SinkError | None:
        """A commit lasts: say so, or give up when it has been too long."""
        count = len(commit.rows)
        of = f"{self._shown}: a commit of {number_of(count, 'row')}"
        is_over = seconds >= PATIENCE and (is_blocking or self._is_ending)
        if seconds < HANGS and not is_over:
            lasting[self._group.number] = self._shown
            text = f"{of} has lasted {seconds:g} s: {self._WHERE} does not answer"
            announce(f"{text}; until it does, nothing is acknowledged", is_program=self.is_program)
            return None
        text = f"{of} has lasted {seconds:g} s, and nothing of it is acknowledged;"
        error = SinkError(f"{text} {self._CHECK}")
        self._has_given_up = True
        is_told = is_blocking or self.is_program or bool(self._waiting)
        self._fail(error, [token for token in commit.tokens if token is not None])
        if not is_told:
            announce(str(error), is_program=False)
        return error

    def _close(self) -> None:
        """Close the store, and wake who waits for that; a commit that is under way does it then."""
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
            self._group.call(self._store.close, "closing it")
        except Exception as error:  # noqa: BLE001 (a store of the user's)
            self.failure = self.failure or self._named(error)
        self._group.close()
        if self._receipts:
            self._receipts.close()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _is_on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
