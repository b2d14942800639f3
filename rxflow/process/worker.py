"""A thread for what blocks, that never keeps the process from ending.

The interpreter waits for the threads of a `ThreadPoolExecutor`, so a disk that hangs would keep a
process that has been told to end, and has ended all else. It is a daemon thread instead, and at
exit what it was given has five seconds.
"""

from __future__ import annotations

import atexit
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, Final, Generic, Protocol, TypeVar

_EXIT_SECONDS: Final = 5.0

T = TypeVar("T")

_Job = tuple[Callable[..., object], tuple[Any, ...]]


class Works(Protocol):
    """Does what it is given, in order.

    Attributes:
        at_once: A loop may wait a millisecond for so many rows at most.
    """

    at_once: int

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> object:
        """Have it done behind what was submitted before."""
        ...

    def wait(self, under_way: threading.Lock, seconds: float) -> bool:
        """Wait so long until something that was submitted has released this; True if it has."""
        ...

    def end(self, seconds: float) -> None:
        """End once all is done, and wait so long for that."""
        ...


def has_ended(under_way: threading.Lock, seconds: float) -> bool:
    """Wait so long for a lock that is held until something is done; True if it is."""
    if under_way.acquire(timeout=seconds):
        under_way.release()
        return True
    return False


class Errand(Generic[T]):
    """Something that another thread does, and that is waited for.

    Args:
        act: What to do; may raise.
    """

    def __init__(self, act: Callable[[], T]) -> None:
        self._act = act
        self._done: Future[T] = Future()
        self.under_way = threading.Lock()  # held until it is done
        self.under_way.acquire()

    def run(self) -> None:
        """Do it, and keep what it returns or raises for the thread that waits."""
        try:
            self._done.set_result(self._act())
        except Exception as error:  # noqa: BLE001 (a worker has nobody to raise to)
            self._done.set_exception(error)
        finally:
            self.under_way.release()

    def result(self) -> T:
        """Return its result once it is done, or raise its error."""
        return self._done.result(0)


class Worker:
    """One daemon thread that does what it is given, in order.

    Args:
        name: Of the thread.

    Raises:
        RuntimeError: The interpreter is shutting down.
    """

    at_once = 8

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=_run, args=(self._jobs,), name=name, daemon=True)
        self._thread.start()
        self._end = weakref.finalize(self, self._jobs.put, None)  # nobody has it any more
        self._end.atexit = False
        _workers.add(self)

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> None:
        """Have it done behind what was submitted before."""
        self._jobs.put((fn, args))

    def wait(self, under_way: threading.Lock, seconds: float) -> bool:
        return has_ended(under_way, seconds)

    def end(self, seconds: float) -> None:
        """End the thread once all is done, and wait so long for that."""
        self._end()
        if self._thread is not threading.current_thread():
            self._thread.join(seconds)

    def has_done_all(self, seconds: float) -> bool:
        """Wait so long for what was submitted before; True if all is done."""
        if not self._thread.is_alive():
            return True
        done = threading.Event()
        self.submit(done.set)
        return done.wait(seconds)


_workers: Final[weakref.WeakSet[Worker]] = weakref.WeakSet()


def _run(jobs: SimpleQueue[_Job | None]) -> None:
    while (job := jobs.get()) is not None:
        try:
            job[0](*job[1])
        except Exception:  # noqa: BLE001 (the next job is done all the same)
            what = (*sys.exc_info(), threading.current_thread())
            threading.excepthook(threading.ExceptHookArgs(what))
        del job  # it may hold messages, and the next may be long in coming


def _finish() -> None:
    until = time.monotonic() + _EXIT_SECONDS
    for worker in list(_workers):
        worker.has_done_all(max(0.0, until - time.monotonic()))


atexit.register(_finish)
