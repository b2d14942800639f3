"""One subscription of an acknowledged source: its ledger, its observer, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

import reactivex
from reactivex import Observable, Observer, abc
from reactivex.disposable import SingleAssignmentDisposable

from rxflow.background import running_or_background_loop
from rxflow.context import Context
from rxflow.delivery import Ledger
from rxflow.log import announce
from rxflow.message import Message
from rxflow.process.environment import running_loop
from rxflow.process.forked import tell_in_child
from rxflow.scope import Scope, home, scope_of
from rxflow.sources.stall import Stall

P = TypeVar("P")

_POLL: Final = 0.05  # seconds


class Source(Generic[P]):
    """A ledger, and the observer that gets what it records. Lives on one loop's thread.

    A subclass receives, and acknowledges what the ledger has ready.

    Args:
        observer: Gets the messages.
        loop: The thread of everything here.
        scope: The scope that it was subscribed in, if any.
        drain_timeout: Seconds that deliveries may take to settle when the subscription ends.
        advice: Says what to do about a stall.

    Attributes:
        ledger: Its deliveries.
        has_ended: True once it hands on nothing more.
        connected_at: Since when it has its connection, by the loop's clock; None: it has none.
        closed: Done when it is over.
    """

    def __init__(
        self,
        observer: abc.ObserverBase[Message[P]],
        loop: asyncio.AbstractEventLoop,
        scope: Scope | None,
        *,
        drain_timeout: float,
        advice: str,
    ) -> None:
        self.ledger = Ledger(self._wake)
        self.has_ended = False
        self.connected_at: float | None = None
        self.closed: asyncio.Future[None] = loop.create_future()
        self._observer = observer
        self._loop = loop
        self._root = scope.root if scope else None
        self._context = scope.context if scope else Context()
        self._drain_timeout = drain_timeout
        self._thread = threading.get_ident()
        self._stall = Stall(self.ledger, advice)
        self._has_completed = False
        self._has_settled = asyncio.Event()
        self._starting: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._leave: abc.DisposableBase | None = None
        if scope:
            self._leave = scope.register(self)
            scope.context.sources.append(self)
        tell_in_child(self)

    # -- what a subclass does ---------------------------------------------------------------------

    def _begin(self) -> None:
        """Receive, unless it has ended."""
        raise NotImplementedError

    def _stop_receiving(self) -> None:
        """Hand on nothing more; acknowledge as before."""
        raise NotImplementedError

    def settle(self) -> None:
        """Settle the ledger, acknowledge what it has ready, and call `settled`."""
        raise NotImplementedError

    def interrupt(self) -> None:
        """A signal will end this: hand on nothing behind the message that is on its way."""
        raise NotImplementedError

    @property
    def unreached(self) -> str | None:
        """Why there has been no connection, while there has been none and is wanted."""
        raise NotImplementedError

    async def _say_goodbye(self, *, has_failed: bool) -> None:
        """Close what it has received from."""
        raise NotImplementedError

    @property
    def _is_settling(self) -> bool:
        """True while something calls `settle` now and then."""
        raise NotImplementedError

    # -- life -------------------------------------------------------------------------------------

    def forked(self) -> None:
        """In a forked child this one has ended: its connection and its loop are the parent's."""
        self.has_ended = True
        self.closed = self._loop.create_future()
        self.closed.set_result(None)

    def start(self, after: Source[Any] | None) -> None:
        """Receive, once an earlier subscription is gone."""
        if after is not None and not after.closed.done():
            self._starting = self._loop.create_task(self._start_after(after))
        else:
            self._begin()

    async def _start_after(self, earlier: Source[Any]) -> None:
        earlier.make_way()
        await asyncio.wait([earlier.closed])
        self._begin()

    def complete(self) -> None:
        """End the stream: nothing more is received, and of what was, what is stored acknowledged.

        What is dropped from now on, an operator may have dropped because nobody listened any more.
        """
        self.ledger.close()
        self._here(self._complete)

    def _complete(self) -> None:
        if not self.has_ended:
            self._stop()
            self._has_completed = True
            self._observer.on_completed()
            self._close()

    def dispose(self) -> None:
        """Nobody wants more: acknowledge what gets stored, and nothing else."""
        self.ledger.close()
        self._here(self._dispose)

    def _dispose(self) -> None:
        self._stop()
        if self._context.is_run or (self._root and self._root.is_ending()):
            self._has_completed = True  # what an operator has passed on is still on its way
        self._close()

    def make_way(self) -> None:
        """Another subscription waits: what only an operator holds is not acknowledged.

        That of a `retry` would wait for the message in the error that the operator keeps.
        """
        self._has_completed = False
        self._has_settled.set()

    def hurry(self) -> None:
        """The run is told to end: wait for no longer than the drain timeout."""
        self._has_settled.set()

    def fail(self, error: Exception) -> None:
        """End the stream with an error; acknowledge nothing more."""
        self.ledger.fail(error)

    def raised(self, error: Exception) -> None:
        """A subscriber raised."""
        if self.has_ended and error is not self.ledger.failure:
            # Of a subscriber without `on_error`, say: as with reactivex, its traceback is shown.
            self._show("the error of a stream was not handled", error)
        else:
            self.fail(error)

    def _error(self, error: Exception) -> None:
        self._stop()
        try:
            self._observer.on_error(error)
        except Exception as raised:  # noqa: BLE001 (nobody is above a source)
            self._show("an observer raised in on_error", raised)
        self._close()

    def _show(self, text: str, error: Exception) -> None:
        self._loop.call_exception_handler({"message": text, "exception": error})

    def _stop(self) -> None:
        self.has_ended = True
        if self._leave:
            self._leave.dispose()
        self._stop_receiving()

    def _close(self) -> None:
        # What is downstream may hold messages that nobody will emit any more.
        self._observer = Observer[Message[P]](on_error=ignore)
        if self._closing is None:
            self._closing = self._loop.create_task(self._finish())

    async def _finish(self) -> None:
        """Wait until everything is settled, but not for ever, and say goodbye."""
        try:
            if self._starting:
                self._starting.cancel()
            while self._is_awaited and self._may_take_its_time:
                await self._next_settlement()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._drain_timeout):
                    while self._is_awaited:
                        await self._next_settlement()
            if self._is_awaited:
                gc.collect()  # what nobody holds but a cycle of references is let go by that
                self.settle()
            self.ledger.finish()
            has_failed = self.ledger.failure is not None or self._context.has_failed
            await self._say_goodbye(has_failed=has_failed)
        finally:
            if not self.closed.done():
                self.closed.set_result(None)

    @property
    def _is_awaited(self) -> bool:
        """True while something can still be stored: after a dispose, what a sink has already."""
        ledger = self.ledger
        if ledger.failure:
            return False
        return bool(ledger.unsettled if self._has_completed else ledger.owed)

    @property
    def _may_take_its_time(self) -> bool:
        """True in a run that goes on: it ends what is downstream, or waits for it."""
        return self._context.is_run and self._root is not None and not self._root.is_over

    async def _next_settlement(self) -> None:
        self._has_settled.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_POLL):
                await self._has_settled.wait()
        if not self._is_settling:  # then nobody else looks what was dropped
            self.settle()

    async def wait_closed(self) -> None:
        """Return when nothing more is received or acknowledged."""
        await asyncio.wait([self.closed])

    # -- the ledger's side ------------------------------------------------------------------------

    def settled(self) -> None:
        """The ledger has settled what was dropped so far."""
        if self.ledger.failure and not self.has_ended:
            self._error(self.ledger.failure)
        if not self._is_awaited:
            self._has_settled.set()
        if text := self._stall.notice(self._loop.time()):
            announce(text, is_program=self._context.is_program)
        if self.ledger.has_news:
            self._loop.call_soon(self.settle)

    def _wake(self) -> None:
        self._here(self.settle)

    def _here(self, act: Callable[[], object]) -> None:
        """Do it on the loop's thread: now, if this is it."""
        if threading.get_ident() == self._thread:
            act()
        else:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nothing is left to do
                self._loop.call_soon_threadsafe(act)


def at_home(
    begin: Callable[
        [abc.ObserverBase[Message[P]], Scope | None, asyncio.AbstractEventLoop],
        abc.DisposableBase,
    ],
) -> Observable[Message[P]]:
    """An observable that begins on its loop's thread, whatever thread it is subscribed to on."""

    def subscribe(
        observer: abc.ObserverBase[Message[P]], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        scope = scope_of(scheduler)
        context = scope.context if scope else Context()
        loop = context.loop = context.loop or (context.home or running_or_background_loop)()
        if loop is running_loop():
            return begin(observer, home(scheduler, loop), loop)
        subscription = SingleAssignmentDisposable()

        def begin_there() -> None:
            try:
                if not subscription.is_disposed:
                    subscription.disposable = begin(observer, scope, loop)
            except Exception as error:  # noqa: BLE001 (nobody is above: it is the stream's)
                observer.on_error(error)

        loop.call_soon_threadsafe(begin_there)
        return subscription

    return reactivex.create(subscribe)


def ignore(_: Any) -> None:
    """Nobody is downstream any more."""
