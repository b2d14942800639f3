"""The environment of a virtual loop, instead of threads, chance and the date."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Executor, Future
from datetime import datetime
from typing import Any, Final, TypeVar

from rxflow.process.environment import Environment
from rxflow.process.heartbeat import Beating
from rxflow.process.worker import Works, has_ended
from rxflow.testing.virtual.clock import VirtualClock

T = TypeVar("T")


@contextlib.contextmanager
def apart() -> Generator[None]:
    """As if no other loop ran here: what an async test checks or runs is no part of its loop."""
    loop = asyncio._get_running_loop()  # noqa: SLF001 (asyncio exports it for makers of loops)
    if loop is None:
        yield
        return
    task = asyncio.current_task(loop)
    if task is not None:
        asyncio._leave_task(loop, task)  # noqa: SLF001 (likewise, for makers of tasks)
    try:
        with off_the_loop():
            yield
    finally:
        if task is not None:
            asyncio._enter_task(loop, task)  # noqa: SLF001


@contextlib.contextmanager
def off_the_loop() -> Generator[None]:
    """As on a thread of its own, where no loop runs."""
    loop = asyncio._get_running_loop()  # noqa: SLF001 (asyncio exports it for makers of loops)
    asyncio._set_running_loop(None)  # noqa: SLF001
    try:
        yield
    finally:
        asyncio._set_running_loop(loop)  # noqa: SLF001


class Inline(Executor):
    """Runs what is submitted at once, on the thread that submits it, but off its loop."""

    at_once = 8

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()
        try:
            with off_the_loop():
                future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 (handed to whoever waits)
            future.set_exception(error)
        return future

    def wait(self, under_way: threading.Lock, seconds: float) -> bool:
        return has_ended(under_way, seconds)

    def end(self, seconds: float) -> None:
        """All is done."""


INLINE: Final = Inline()


def inline(executor: Executor | None) -> Executor:
    """One that knows virtual time stays; every other would start a thread."""
    return executor if isinstance(executor, Inline) else INLINE


class VirtualEnvironment(Environment):
    """The environment of a virtual loop.

    Attributes:
        dice: Chooses the wait before a client's next attempt, as `Environment.jittered` does; by
            default the longest: 1, 2, 4 ... 60 s.
    """

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self.dice: Callable[[float, str], float] = _longest
        self._workers: dict[int, tuple[object, Works]] = {}

    def utc(self) -> datetime:
        return self._clock.now

    def jittered(self, longest: float, host: str) -> float:
        return self.dice(longest, host)

    def start(self, work: Callable[[], object], name: str) -> None:
        del name
        with off_the_loop():
            work()

    def worker(self, name: str, store: object = None) -> Works:
        del name
        return self._workers.get(id(store), (store, INLINE))[1]

    def write_by(self, worker: Works, store: object) -> None:
        """Have this worker write into this store."""
        self._workers[id(store)] = (store, worker)

    def watch(self, link: Beating) -> None:
        """Nothing blocks this loop: its time stands still meanwhile."""

    def forget(self, link: Beating) -> None:
        """It was not watched."""


def _longest(longest: float, host: str) -> float:
    del host
    return longest
