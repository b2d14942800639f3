"""The thread on which a bare `subscribe` runs its pipeline when no asyncio loop is running.

One daemon thread with one loop, started at first use. At exit the sources of what still runs there
are completed, and their pipelines get five seconds to flush and acknowledge.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Final, Protocol, TypeVar, runtime_checkable

from reactivex import abc
from reactivex.disposable import Disposable
from reactivex.internal import default_error, noop
from reactivex.scheduler.eventloop import AsyncIOScheduler

from rxflow.process.environment import running_loop
from rxflow.scope import Scope, within

T = TypeVar("T")

_DRAIN_SECONDS: Final = 5.0


@runtime_checkable
class Closing(Protocol):
    """A source's connection, or a sink, that takes time to close."""

    async def wait_closed(self) -> None:
        """Return when it is closed."""
        ...


class Background:
    """A loop on a thread of its own, and the scopes of the subscriptions that run there."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._scopes: set[Scope] = set()
        self._has_drained = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="rxflow", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """False once it was stopped, and in a forked child, which has no such thread."""
        return self._thread.is_alive()

    def call(self, function: Callable[[], T]) -> T:
        """Call a function on the thread, and wait for what it returns or raises."""
        if running_loop() is self.loop:
            return function()
        done: Future[T] = Future()

        def call() -> None:
            try:
                done.set_result(function())
            except BaseException as error:  # noqa: BLE001 (raised in the caller's thread)
                done.set_exception(error)

        self.loop.call_soon_threadsafe(call)
        return done.result()

    def watch(self, scope: Scope) -> None:
        """Complete this scope at exit, and wait until it is forgotten. On the thread only."""
        self._scopes.add(scope)

    def forget(self, scope: Scope, closing: Sequence[Closing]) -> None:
        """Its pipeline has ended: no longer watch it, once these are closed. On the thread only."""
        if closing:
            task = self.loop.create_task(self._forget(scope, closing))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._scopes.discard(scope)
            if not self._scopes:
                self._has_drained.set()

    async def _forget(self, scope: Scope, closing: Sequence[Closing]) -> None:
        await asyncio.gather(*[each.wait_closed() for each in closing], return_exceptions=True)
        self.forget(scope, [])

    def stop(self) -> None:
        """Complete what runs, wait until it has drained, and end the thread."""
        if self.is_alive:
            drained = asyncio.run_coroutine_threadsafe(self._drain(), self.loop)
            drained.add_done_callback(lambda _: self.loop.call_soon_threadsafe(self.loop.stop))
            self._thread.join(_DRAIN_SECONDS + 1)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()

    async def _drain(self) -> None:
        self._has_drained.clear()
        for scope in self._scopes:
            self.loop.call_soon(scope.complete)
        if self._scopes:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DRAIN_SECONDS):
                    await self._has_drained.wait()


class _Process:
    """The background of this process, once there is one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._background: Background | None = None

    def background(self) -> Background:
        with self._lock:
            if self._background is None or not self._background.is_alive:
                self._background = Background()
            return self._background

    def stop(self) -> None:
        with self._lock:
            background, self._background = self._background, None
        if background:
            background.stop()


_process = _Process()
atexit.register(_process.stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_process.__init__)  # the thread stayed with the parent


def background() -> Background:
    """The background of this process, started if need be."""
    return _process.background()


def running_or_background_loop() -> asyncio.AbstractEventLoop:
    """The loop that runs on this thread; where none does, that of the background."""
    return running_loop() or background().loop


class Bare:
    """A subscription made where no loop runs: on the background thread, and drained at exit.

    Args:
        outer: The scope that it was made in, of a pipeline without a scheduler.
    """

    def __init__(self, outer: Scope | None) -> None:
        self._background = background()
        self._scope = Scope()
        self._outer = outer
        self._closing: list[Closing] = []
        self._has_ended = False

    def subscribe(
        self,
        subscribe: Callable[..., abc.DisposableBase],
        observer: Any,
        on_error: abc.OnError | None,
        on_completed: abc.OnCompleted | None,
        own: abc.SchedulerBase | None = None,
    ) -> abc.DisposableBase:
        """Call `subscribe` on the thread, with the loop's scheduler, and wait until it returns.

        With a scheduler of the user's own it is called with that one, and here: only the sources
        run on the thread.
        """
        on_next = observer
        if callable(getattr(observer, "on_next", None)):
            on_next, on_error = observer.on_next, observer.on_error
            on_completed = observer.on_completed
        if isinstance(observer, Closing):
            self._closing.append(observer)

        def start() -> abc.DisposableBase:
            loop = self._background.loop
            if own is None:  # else it lives where that one is, unless it has a source of MQTT
                self._scope.context.loop = loop
            clock = own or AsyncIOScheduler(loop)
            scheduler = within(self._scope.branch(), clock)
            self._background.call(partial(self._background.watch, self._scope))
            try:
                return subscribe(
                    on_next,
                    self._ending(on_error or default_error),
                    self._ending(on_completed or noop),
                    scheduler=scheduler,
                )
            except BaseException:
                self._end()
                raise

        subscription = start() if own else self._background.call(start)
        left = self._outer.register(self) if self._outer else Disposable()

        def dispose() -> None:
            self._closing.clear()  # nobody completes the sink now; what it took, it commits
            try:
                subscription.dispose()
            finally:
                self._end()

        def let_go() -> None:
            left.dispose()
            if self._background.is_alive:
                self._background.call(dispose)

        return Disposable(let_go)

    def complete(self) -> None:
        """Complete its sources, from whatever thread."""
        if self._background.is_alive:
            self._background.call(self._scope.complete)

    def _ending(self, function: Callable[..., None]) -> Callable[..., None]:
        def call(*args: Any) -> None:
            try:
                function(*args)
            finally:
                self._end()

        return call

    def _end(self) -> None:
        if not self._has_ended:
            self._has_ended = True
            closing = [*self._scope.context.sources, *self._closing]
            forget = partial(self._background.forget, self._scope, closing)
            if self._background.is_alive:
                self._background.loop.call_soon_threadsafe(forget)
