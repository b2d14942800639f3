"""Virtual time: one queue for everything that is to happen, of loop and scheduler alike.

At one instant things happen in the order of `Phase`, those of a phase in the order in which they
were set, and what is set for "now" behind what is ready already. Times are whole microseconds; time
begins at 0, which is 1970-01-01 in UTC, and moves only in `advance_to` and where a loop runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections.abc import Callable, Generator
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Final, NamedTuple, Protocol, cast

from reactivex import abc
from reactivex.disposable import Disposable

from rxflow.message import EPOCH
from rxflow.testing.diagrams.durations import DiagramError

SECOND: Final = 1_000_000
"""In the unit of time here."""

_AT_ONE_INSTANT: Final = 100_000  # timers; then time stands still for good
_SPIN: Final = 0.2  # of a timer: what a turn of the loop costs, in which something was ready


class EndlessError(Exception):
    """More steps than were allowed, and something is still to be done."""


class StallError(RuntimeError):
    """Work at one instant schedules more for that instant, without end."""


class Phase(IntEnum):
    """The order of work at one instant."""

    UNSUBSCRIBE = 0
    """Also: connections of a broker in the diagram are lost and regained."""
    SUBSCRIBE = 1
    WORK = 2
    """Timers of all kinds."""
    PUBLISH = 3
    """Publications of a broker in the diagram: subscribing in that instant is early enough."""


class Handle(Protocol):
    """Something that is to be done, and may be called off."""

    def cancel(self) -> None: ...
    def cancelled(self) -> bool: ...
    def begin(self) -> None:
        """Do it now, or behind what is ready already."""
        ...


class Runner(Protocol):
    """A loop that has its time from a clock."""

    def handle(self, function: Callable[[], object], /) -> Handle:
        """Call a function after those that are ready already."""
        ...

    def run_to(self, horizon: int, /) -> None: ...
    def call_soon(self, callback: Callable[[], object], /) -> asyncio.Handle: ...
    def is_running(self) -> bool: ...
    def stop(self) -> None: ...


class _Due(NamedTuple):
    """A place in the queue; no two have the same number."""

    due: int
    phase: Phase
    number: int
    handle: Handle


class _Action:
    """A function that is to be called."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function: Callable[[], object] | None = function

    def cancel(self) -> None:
        self._function = None

    def cancelled(self) -> bool:
        return self._function is None

    def begin(self) -> None:
        if self._function:
            self._function()


class VirtualClock:
    """The time, and what is to be done.

    Attributes:
        microseconds: The time.
        is_stopped: True once `stop` was called, until time is to move again.
        runner: The loop that has its time from here, if there is one.
    """

    def __init__(self) -> None:
        self.microseconds = 0
        self.is_stopped = False
        self.runner: Runner | None = None
        self._waiting: list[_Due] = []
        self._number = 0
        self._patience: int | None = None
        self._steps = 0.0  # at this instant

    @property
    def seconds(self) -> float:
        """The time."""
        return self.microseconds / SECOND

    @property
    def now(self) -> datetime:
        """The date."""
        return EPOCH + timedelta(microseconds=self.microseconds)

    def sleep(self, seconds: float) -> None:
        """Let time pass as if user code had blocked: what is due meanwhile comes late."""
        self.microseconds += round(seconds * SECOND)

    # -- what is to be done ---------------------------------------------------------------------

    def put(self, due: int, phase: Phase, handle: Handle) -> None:
        """Do something at a time, or now if that is over."""
        self._number += 1
        place = _Due(max(due, self.microseconds), phase, self._number, handle)
        heapq.heappush(self._waiting, place)

    def at(
        self, microseconds: int, function: Callable[[], object], phase: Phase = Phase.WORK
    ) -> abc.DisposableBase:
        """Call a function at a time, in a phase of that instant."""
        handle = self.runner.handle(function) if self.runner else _Action(function)
        self.put(microseconds, phase, handle)
        return Disposable(handle.cancel)

    def refuse_real_time(self, name: str) -> None:
        """Refuse to wait on a loop whose time is real.

        Raises:
            DiagramError: It says what to write in an async test.
        """
        loop = asyncio._get_running_loop()  # noqa: SLF001 (None where none runs)
        if loop is not None and cast("object", loop) is not self.runner:
            raise DiagramError(
                f"{name}: in an async test no virtual time passes; write marbles.check(...) or "
                "marbles.run(main()), without await, for what is to happen in it"
            )

    # -- time -----------------------------------------------------------------------------------

    def advance_to(self, horizon: int) -> None:
        """Do everything up to this time, and what it sets in motion in the last instant.

        Raises:
            ValueError: It lies before now.
            BaseException: What anything raised.
        """
        if horizon < self.microseconds:
            raise ValueError(f"{horizon / SECOND:g} s lies before now, {self.seconds:g} s")
        self.is_stopped = False
        while not (self.runner or self.is_stopped) and self.move_on(horizon):
            pass
        if self.runner and not self.is_stopped:  # it may have been made in the middle
            self.runner.run_to(horizon)
        self.microseconds = max(self.microseconds, horizon)

    @contextlib.contextmanager
    def patient(self, steps: int | None) -> Generator[None]:
        """Within, time moves on in so many steps at most; None: in any number.

        Raises:
            EndlessError: There were more.
        """
        before, self._patience = self._patience, steps
        try:
            yield
        finally:
            self._patience = before

    def last_due(self) -> int | None:
        """When the last of what is set is due, in microseconds; None if nothing is set."""
        dues = (each.due for each in self._waiting if not each.handle.cancelled())
        return max(dues, default=None)

    def move_on(self, horizon: int | None) -> bool:
        """Begin the next phase, be it of a later instant; False if none is left up to a time."""
        queue = self._waiting
        while queue and queue[0].handle.cancelled():
            heapq.heappop(queue)
        if not queue or (horizon is not None and queue[0].due > horizon):
            return False
        due, phase = queue[0].due, queue[0].phase
        if self._patience is not None:
            if not self._patience:
                raise EndlessError
            self._patience -= 1
        if due > self.microseconds:
            self._steps = 0
        self.step(1)
        self.microseconds = max(self.microseconds, due)
        batch: list[Handle] = []
        while queue and (queue[0].due, queue[0].phase) == (due, phase):
            batch.append(heapq.heappop(queue).handle)
        for handle in batch:
            if not self.is_stopped and not handle.cancelled():
                handle.begin()
        return True

    def step(self, cost: float = _SPIN) -> None:
        """Count what happens at one instant.

        Raises:
            StallError: It is too much to be an accident.
        """
        self._steps += cost
        if self._steps > _AT_ONE_INSTANT:
            self._steps = 0
            raise StallError(
                f"no time passes at {self.seconds:g} s: what happens there sets more for the "
                "same instant, again and again; interval(0), repeat() or a loop of sleep(0)?"
            )

    def stop(self) -> None:
        """Let `advance_to` return: nothing more happens in it."""
        self.is_stopped = True
        if self.runner and self.runner.is_running():
            self.runner.stop()
