"""The time of a test's diagrams: nanoseconds from a zero that moves with each check.

What happens first at one instant, `Phase` says: unsubscribe, subscribe, work; work in the order in
which it was scheduled. Diagrams schedule theirs when a check begins, in the order of the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final, TypeVar

from reactivex import abc

from rxflow.testing.diagrams.durations import MICROSECOND, DiagramError, nanoseconds, written
from rxflow.testing.pending import Place
from rxflow.testing.virtual.clock import SECOND, EndlessError, Phase
from rxflow.testing.virtual.environment import apart
from rxflow.testing.virtual.loop import VirtualLoop
from rxflow.testing.virtual.scheduler import VirtualScheduler, timers_on

T = TypeVar("T")

_DAY: Final = nanoseconds("24h", "a day")
_STEPS: Final = 20_000  # of what goes on and on, before a check or a run without a limit says so
_TIMERS: Final = 100  # one after the other, that are followed before a check says so


class VirtualTime:
    """The clock of a test. Time is counted from the zero of the diagrams that are playing.

    Attributes:
        scheduler: What timers run on; its clock starts at 1970-01-01 and never goes back.
        is_running: True while time passes.
    """

    def __init__(self) -> None:
        self.scheduler = VirtualScheduler()
        self.is_running = False
        self._clock = self.scheduler.virtual
        self._loop: VirtualLoop | None = None
        self._zero = 0  # microseconds, as the scheduler counts them
        self._thread = threading.get_ident()

    @property
    def loop(self) -> VirtualLoop:
        """The same time for asyncio. Made when it is first asked for."""
        if self._loop is None:
            self._loop = VirtualLoop(self.scheduler)
        return self._loop

    def close(self, *, quiet: bool = False) -> None:
        """Close the loop, if there is one; as `VirtualLoop.finish`. Safe to call more than once."""
        if self._loop:
            self._loop.finish(quiet=quiet)

    @property
    def now(self) -> int:
        """Nanoseconds since zero."""
        return (self._clock.microseconds - self._zero) * MICROSECOND

    def begin(self) -> None:
        """From now on, zero is now."""
        self._zero = self._clock.microseconds

    def at(
        self, time: int, action: Callable[[], object], phase: Phase = Phase.WORK
    ) -> abc.DisposableBase:
        """Call a function at a time; nanoseconds since zero."""
        return self._clock.at(self._zero + time // MICROSECOND, action, phase)

    def run(self, before: int, beyond: int | None = None) -> bool:
        """Do what is due before a time, at least at zero. What it raises, this raises.

        Args:
            before: When it ends, in nanoseconds since zero.
            beyond: Then go on until nothing is left to do: so much further for what goes on and
                on, but as far as any timer asks that is set by then. None: don't go on.

        Returns:
            True if it was to go on, and something is still to be done.
        """
        clock = self._clock
        last = self._zero + max(before // MICROSECOND - 1, 0)
        with timers_on(self.scheduler), self._running():
            clock.advance_to(last)
            if beyond is None or clock.is_stopped or clock.last_due() is None:
                return False
            try:
                with clock.patient(_STEPS):
                    clock.advance_to(last + beyond // MICROSECOND)
                    for _ in range(_TIMERS):
                        if clock.is_stopped or (due := clock.last_due()) is None:
                            return False
                        clock.advance_to(due)
            except EndlessError:
                return True
            return clock.last_due() is not None

    def complete(self, coroutine: Coroutine[Any, Any, T], limit: int | None) -> T:
        """Run a coroutine to its end; see `VirtualLoop.run`.

        Args:
            coroutine: It begins at zero, in the phase SUBSCRIBE.
            limit: When it must be over, in nanoseconds since zero. None: after a day, and if it
                takes more than twenty thousand steps before.

        Raises:
            AssertionError: It is not.
        """
        steps = _STEPS if limit is None else None
        with self._running(), self._clock.patient(steps):
            try:
                return self.loop.run(_before(limit or _DAY, coroutine))
            except EndlessError:
                raise _not_over(self.now) from None

    @contextlib.contextmanager
    def _running(self) -> Generator[None]:
        self.is_running = True
        try:
            with apart():
                yield
        finally:
            self.is_running = False

    @property
    def has_tasks(self) -> bool:
        """True if a task of the loop is not done."""
        loop = self._loop
        return loop is not None and not loop.is_closed() and bool(loop.tasks())

    def tasks_left(self) -> str:
        """Describe the tasks that are not done, once those ready have run; empty if all are."""
        if not self.has_tasks:
            return ""
        self._clock.advance_to(self._clock.microseconds)
        left = self.loop.tasks()
        names = sorted(_shown(task) for task in left)
        return f"not done at the end of the test: {', '.join(names)}" if names else ""

    def stop(self) -> None:
        """Let nothing more happen in this run."""
        self._clock.stop()

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
        self._clock.refuse_real_time(name)


def _shown(task: asyncio.Task[Any]) -> str:
    """A task, and the line where it waits."""
    name = getattr(task.get_coro(), "__qualname__", repr(task.get_coro()))
    frames = task.get_stack(limit=1)
    where = f" [{Place(frames[-1].f_code.co_filename, frames[-1].f_lineno)}]" if frames else ""
    return f"task {name}{where}"


async def _before(limit: int, coroutine: Coroutine[Any, Any, T]) -> T:
    """The same, but not beyond a time from now."""
    timeout = asyncio.timeout(limit / MICROSECOND / SECOND)
    try:
        async with timeout:
            return await coroutine
    except TimeoutError:
        if not timeout.expired():
            raise
    raise _not_over(limit)


def _not_over(time: int) -> AssertionError:
    return AssertionError(
        f"the coroutine is not over after {written(time)}: give it an end, or Marbles a limit="
    )


@contextlib.contextmanager
def raised_in_threads(errors: list[BaseException]) -> Generator[None]:
    """Within, what a thread raises to nobody is put into a list."""

    def note(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
            errors.append(args.exc_value)

    before, threading.excepthook = threading.excepthook, note
    try:
        yield
    finally:
        threading.excepthook = before
