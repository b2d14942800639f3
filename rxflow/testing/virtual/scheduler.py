"""Virtual time as a `TestScheduler` of reactivex's, on a `VirtualClock`."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from datetime import datetime
from typing import Any

from reactivex import abc, typing
from reactivex.disposable import CompositeDisposable, Disposable, SingleAssignmentDisposable
from reactivex.scheduler import TimeoutScheduler
from reactivex.testing import TestScheduler

from rxflow.testing.virtual.clock import SECOND, VirtualClock


class VirtualScheduler(TestScheduler):
    """See above. A drop-in `TestScheduler`, save that `start` is refused: it knows no end.

    Args:
        clock: Its time. None: one of its own.

    Attributes:
        virtual: The same.
    """

    def __init__(self, clock: VirtualClock | None = None) -> None:
        super().__init__()
        self.virtual = clock or VirtualClock()

    def schedule(
        self, action: typing.ScheduledAction[Any], state: Any = None
    ) -> abc.DisposableBase:
        return self.schedule_absolute(self.clock, action, state)

    def schedule_relative(
        self,
        duetime: typing.RelativeTime,
        action: typing.ScheduledAction[Any],
        state: Any = None,
    ) -> abc.DisposableBase:
        return self.schedule_absolute(self.clock + self.to_seconds(duetime), action, state)

    def schedule_absolute(
        self,
        duetime: typing.AbsoluteTime,
        action: typing.ScheduledAction[Any],
        state: Any = None,
    ) -> abc.DisposableBase:
        result = SingleAssignmentDisposable()

        def run() -> None:
            result.disposable = self.invoke_action(action, state)

        due = round(self.to_seconds(duetime) * SECOND)
        runner = self.virtual.runner
        if due > self.virtual.microseconds:
            self.virtual.refuse_real_time("a timer")
        elif runner and runner.is_running():
            handle = runner.call_soon(run)
            return CompositeDisposable(result, Disposable(handle.cancel))
        return CompositeDisposable(result, self.virtual.at(due, run))

    def _get_clock(self) -> float:
        return self.virtual.seconds

    clock = property(fget=_get_clock)

    @property
    def now(self) -> datetime:
        return self.virtual.now

    def sleep(self, time: typing.RelativeTime) -> None:
        """Let time pass as if user code had blocked: what is due meanwhile comes late."""
        self.virtual.sleep(self.to_seconds(time))

    def advance_to(self, time: typing.AbsoluteTime) -> None:
        """As `VirtualClock.advance_to`, in seconds."""
        self.virtual.advance_to(round(self.to_seconds(time) * SECOND))

    def advance_by(self, time: typing.RelativeTime) -> None:
        self.advance_to(self.clock + self.to_seconds(time))

    def stop(self) -> None:
        """Let `advance_to` return: nothing more happens in it."""
        self.virtual.stop()

    def start(self, *_: Any, **__: Any) -> Any:
        """Refused: it has no end. `advance_to` has."""
        raise RuntimeError("use advance_to: start() does not know when to end")


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
