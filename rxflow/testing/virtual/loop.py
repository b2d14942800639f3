"""An asyncio loop whose time is virtual: when nothing is ready, it jumps to the next timer.

Its timers and those of its `VirtualScheduler` are one queue, that of a `VirtualClock`. A phase of
an instant (see `Phase`) lasts until nothing is ready any more and no socket has bytes to read; only
then does the next one begin, and at last does time move. Blocking work (`run_in_executor`, a sink's
worker, the attempt to connect) runs in the same instant, on this thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import weakref
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Executor
from contextvars import Context
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import CodeType, TracebackType
from typing import Any, Final, Self, TypeVar

from reactivex.scheduler.eventloop import AsyncIOScheduler

import rxflow
from rxflow.testing.virtual.clock import SECOND, Phase
from rxflow.testing.virtual.environment import VirtualEnvironment, apart, inline
from rxflow.testing.virtual.scheduler import VirtualScheduler, timers_on

T = TypeVar("T")

_PACKAGE: Final = str(Path(rxflow.__file__).parent) + os.sep


class StuckError(RuntimeError):
    """Nothing is ready and no timer is set, so that a wait would never end."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """See above.

    What is raised in a callback, where nobody is above, is raised by `run` and `advance_to`.
    Entered, it also takes the timers that reactivex starts without a scheduler; it closes at the
    end of the block.

    Args:
        scheduler: Whose time it is. None: one of its own.

    Attributes:
        scheduler: The same.
        clock: Its clock.
        environment: What rxflow finds here instead of threads, dice and the date.
        at_finish: Closes with the loop what is put into it.
        resources: The same, but also if nobody closes the loop; nothing in it may refer to the
            loop, which else would live for ever.
    """

    def __init__(self, scheduler: VirtualScheduler | None = None) -> None:
        self._horizon: int | None = None  # `run_to` stops here; None: no limit
        self._raised: list[BaseException] = []
        self._is_finished = False
        self._unfinished: set[asyncio.Task[Any]] = set()
        self.at_finish = contextlib.ExitStack()
        self.resources = contextlib.ExitStack()
        super().__init__(_Selector(self._move_on, self._spin))
        own: Any = self
        for sock in (own._ssock, own._csock):  # noqa: SLF001 (else the collector may be first)
            self.resources.callback(sock.close)
        self._closing = weakref.finalize(self, self.resources.close)
        self.scheduler = scheduler or VirtualScheduler()
        self.clock = self.scheduler.virtual
        self.clock.runner = self
        self.environment = VirtualEnvironment(self.clock)
        self.set_exception_handler(self._unhandled)

    # -- time -----------------------------------------------------------------------------------

    def time(self) -> float:
        return self.clock.seconds

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        self._check_open()
        now, due = self.clock.microseconds, round(when * SECOND)
        if due <= now < when * SECOND:
            due = now + 1  # who asks for later never gets now: that may go on for ever
        timer = _Timer(when, callback, args, self, context)
        self.clock.put(due, Phase.WORK, timer)
        return timer

    def handle(self, function: Callable[[], object]) -> _Timer:
        """A timer that is not set yet."""
        return _Timer(self.time(), function, (), self, None)

    def _check_open(self) -> None:
        if self.is_closed():
            raise RuntimeError("Event loop is closed")

    def _move_on(self) -> None:
        """Nothing is ready any more."""
        if not self.clock.move_on(self._horizon):
            if self._horizon is None:
                raise StuckError(f"at {self.time():g} s nothing is ready, and no timer is set")
            self.stop()

    def create_task(self, *args: Any, **kwargs: Any) -> asyncio.Task[Any]:
        """As usual, but no task is destroyed while it is pending, whenever the collector runs."""
        task = super().create_task(*args, **kwargs)
        if not _is_ours(task):
            self._unfinished.add(task)
            task.add_done_callback(self._unfinished.discard)
        return task

    def tasks(self) -> list[asyncio.Task[Any]]:
        """Those of the test that are not done; rxflow's own see to their end themselves."""
        return [task for task in asyncio.all_tasks(self) if not _is_ours(task)]

    def _spin(self) -> None:
        """Something is ready already."""
        self.clock.step()

    # -- running --------------------------------------------------------------------------------

    def run_to(self, horizon: int) -> None:
        """Run up to a time in microseconds; as `VirtualClock.advance_to`."""
        self._horizon = horizon
        try:
            with apart(), _default_timers(self):
                self.run_forever()
        finally:
            self._horizon = None
        self._raise()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end; time moves as it waits. It begins in the phase SUBSCRIBE.

        Raises:
            StuckError: It waits for what can't come.
            BaseException: What it, or a callback, raised.
        """
        done: asyncio.Future[T] = self.create_future()
        tasks: list[asyncio.Task[T]] = []

        def begin() -> None:
            task = self.create_task(coroutine)
            task.add_done_callback(partial(_hand_on, done))
            tasks.append(task)

        self.clock.is_stopped = False
        self.clock.at(self.clock.microseconds, begin, Phase.SUBSCRIBE)
        try:
            with apart(), _default_timers(self):
                result = self.run_until_complete(done)
        except BaseException:
            for task in tasks:
                task.cancel()
            self._raise()
            raise
        self._raise()
        return result

    def run_in_executor(
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Call it at once, on this thread, but off the loop as a thread of its own would be."""
        self._check_open()
        return asyncio.wrap_future(inline(executor).submit(func, *args), loop=self)

    def _unhandled(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception") or RuntimeError(context["message"])
        self._raised.append(error)
        if self.is_running() and not self._is_finished:
            self.stop()

    def _raise(self) -> None:
        if self._raised:
            first, self._raised = self._raised[0], []
            raise first

    # -- beginning and ending -------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.at_finish.enter_context(_default_timers(self))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.finish(quiet=error is not None)

    def finish(self, *, quiet: bool = False) -> None:
        """Cancel what still runs, and close. Safe to call more than once.

        Args:
            quiet: Raise nothing: there is an error already.
        """
        if self._is_finished:
            return
        self._is_finished = True
        with apart(), self.resources, contextlib.closing(self), self.at_finish:
            while tasks := asyncio.all_tasks(self):
                for task in tasks:
                    task.cancel()
                self.run_until_complete(asyncio.wait(tasks))
            self.run_until_complete(self.shutdown_asyncgens())
        if not quiet:
            self._raise()

    def __del__(self) -> None:
        """A test need not close its loop: `resources` are closed by now."""


def _is_ours(task: asyncio.Task[Any]) -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    return (
        isinstance(code, CodeType)
        and code.co_name.startswith("_")
        and code.co_filename.startswith(_PACKAGE)
    )


def _hand_on(done: asyncio.Future[T], task: asyncio.Task[T]) -> None:
    if task.cancelled():
        done.cancel()
    elif error := task.exception():
        done.set_exception(error)
    else:
        done.set_result(task.result())


class _Timer(asyncio.TimerHandle):
    """A timer that knows its handle once it is due: cancelled then, it does not run either."""

    __slots__ = ("_on", "_ready", "_run_it")

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: asyncio.AbstractEventLoop,
        context: Context | None,
    ) -> None:
        super().__init__(when, callback, args, loop, context)
        self._on = loop
        self._run_it = (callback, args, context)
        self._ready: asyncio.Handle | None = None

    def begin(self) -> None:
        """Queue it behind what is ready."""
        callback, args, context = self._run_it
        self._ready = self._on.call_soon(callback, *args, context=context)

    def cancel(self) -> None:
        super().cancel()
        if self._ready is not None:
            self._ready.cancel()


class _Selector(selectors.DefaultSelector):
    """Never waits: where it would, it asks for time to move on."""

    def __init__(self, move_on: Callable[[], None], spin: Callable[[], None]) -> None:
        super().__init__()
        self._move_on = move_on
        self._spin = spin

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and (timeout is None or timeout > 0):
            self._move_on()
        else:
            self._spin()
        return ready


# -- what the process has one of -------------------------------------------------------------------


@contextlib.contextmanager
def _default_timers(loop: VirtualLoop) -> Generator[None]:
    """Timers without a scheduler tick on this loop, and its `AsyncIOScheduler`s tell its time."""

    def now(scheduler: Any) -> datetime:
        own = scheduler._loop  # noqa: SLF001 (reactivex gives it no name)
        return own.clock.now if isinstance(own, VirtualLoop) else datetime.now(UTC)

    kind: Any = AsyncIOScheduler
    before = vars(kind).get("now")
    kind.now = property(now)
    try:
        with timers_on(loop.scheduler):
            yield
    finally:
        if before is None:
            del kind.now
        else:
            kind.now = before
