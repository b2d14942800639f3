"""The time of a test's diagrams: nanoseconds from a zero that moves with each check.

What happens first at one instant, `Phase` says: unsubscribe, subscribe, work; work in the order in
which it was scheduled. Diagrams schedule theirs when a check begins, in the order of the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

from reactivex import abc
from reactivex.scheduler import TimeoutScheduler

from rxflow.testing.durations import MICROSECOND, DiagramError, written
from rxflow.testing.virtual_scheduler import SECOND, Phase, VirtualScheduler

T = TypeVar("T")


class VirtualTime:
    """The clock of a test. Time is counted from the zero of the diagrams that are playing.

    Attributes:
        scheduler: What timers run on; its clock starts at 1970-01-01 and never goes back.
        is_running: True while time passes.
    """

    def __init__(self) -> None:
        self.scheduler = VirtualScheduler()
        self.is_running = False
        self._zero = 0  # microseconds, as the scheduler counts them
        self._thread = threading.get_ident()

    @property
    def now(self) -> int:
        """Nanoseconds since zero."""
        return (self.scheduler.microseconds - self._zero) * MICROSECOND

    def begin(self) -> None:
        """From now on, zero is now."""
        self._zero = self.scheduler.microseconds

    def at(
        self, time: int, action: Callable[[], object], phase: Phase = Phase.WORK
    ) -> abc.DisposableBase:
        """Call a function at a time; nanoseconds since zero."""
        return self.scheduler.at(self._zero + time // MICROSECOND, action, phase)

    def run(self, before: int) -> None:
        """Do what is due before a time, at least at zero. What it raises, this raises."""
        last = self._zero + max(before // MICROSECOND - 1, 0)
        with timers_on(self.scheduler), self._running():
            self.scheduler.advance_to(last / SECOND)

    def complete(self, coroutine: Coroutine[Any, Any, T], limit: int) -> T:
        """Run a coroutine to its end; see `VirtualLoop.run`.

        Args:
            coroutine: It begins at zero, in the phase SUBSCRIBE.
            limit: When it must be over, in nanoseconds since zero.

        Raises:
            AssertionError: It is not.
        """
        with self._running():
            return self.scheduler.loop.run(_before(limit, coroutine))

    @contextlib.contextmanager
    def _running(self) -> Generator[None]:
        self.is_running = True
        try:
            yield
        finally:
            self.is_running = False

    def stop(self) -> None:
        """Let nothing more happen in this run."""
        self.scheduler.stop()

    def check_thread(self, name: str) -> None:
        """Refuse a subscription from another thread, where time is real.

        Raises:
            DiagramError: It says how to subscribe.
        """
        if threading.get_ident() != self._thread:
            raise DiagramError(
                f"{name}: subscribed to on another thread, in real time; use marbles.observe(...), "
                "or subscribe with scheduler=marbles.scheduler"
            )


async def _before(limit: int, coroutine: Coroutine[Any, Any, T]) -> T:
    """The same, but not beyond a time from now."""
    timeout = asyncio.timeout(limit / MICROSECOND / SECOND)
    try:
        async with timeout:
            return await coroutine
    except TimeoutError:
        if not timeout.expired():
            raise
    raise AssertionError(
        f"the coroutine is not over after {written(limit)}: give it an end, or Marbles a limit="
    )


@contextlib.contextmanager
def timers_on(scheduler: abc.SchedulerBase) -> Generator[None]:
    """Within, a timer of reactivex that was given no scheduler runs on this one."""
    virtual: Any = TimeoutScheduler
    before = TimeoutScheduler.__dict__["singleton"]
    virtual.singleton = classmethod(lambda _: scheduler)
    try:
        yield
    finally:
        virtual.singleton = before
