"""The timer that buffers and windows of time share."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from threading import RLock

from reactivex import abc, typing
from reactivex.disposable import SerialDisposable
from reactivex.internal import synchronized
from reactivex.scheduler import TimeoutScheduler, VirtualTimeScheduler
from reactivex.scheduler.eventloop import AsyncIOScheduler, AsyncIOThreadSafeScheduler

from rxflow.scope import unscoped


class Spans:
    """When the next batch ends and when one begins, counted from the subscription."""

    __slots__ = ("_beginning", "_elapsed", "_end", "_shift")

    def __init__(self, span: timedelta, shift: timedelta) -> None:
        self._shift = shift
        self._end = span
        self._beginning = shift
        self._elapsed = timedelta()

    def wait(self) -> timedelta:
        """Return the seconds from the last turn to the next."""
        before, self._elapsed = self._elapsed, min(self._end, self._beginning)
        return self._elapsed - before

    def turn(self) -> tuple[bool, bool]:
        """Does a batch begin now, and does one end?"""
        is_beginning, is_end = self._elapsed == self._beginning, self._elapsed == self._end
        self._beginning += self._shift * is_beginning
        self._end += self._shift * is_end
        return is_beginning, is_end


class Timer:
    """The one timer of a buffer: started again, it forgets what it waited for.

    Attributes:
        current: What it waits for; disposed, it never ticks again.
        lock: What keeps it from ticking in the middle of an item; None where its scheduler is that
            of the whole subscription, a loop or a virtual clock: one thread does it all.
    """

    __slots__ = ("_scheduler", "_tick", "_turn", "current", "lock")

    def __init__(
        self,
        own: abc.SchedulerBase | None,
        given: abc.SchedulerBase | None,
        tick: Callable[[], None],
    ) -> None:
        self._scheduler = own or given or TimeoutScheduler.singleton()
        self._tick = tick
        self._turn = 0
        self.current = SerialDisposable()
        self.lock = None if _is_one_thread(given) and not own else RLock()

    def start(self, wait: typing.RelativeTime) -> None:
        self._turn = turn = self._turn + 1

        def ring(_: abc.SchedulerBase, __: object = None) -> None:
            if turn == self._turn and not self.current.is_disposed:
                self._tick()

        action = synchronized(self.lock)(ring) if self.lock else ring
        self.current.disposable = self._scheduler.schedule_relative(wait, action)


def _is_one_thread(scheduler: abc.SchedulerBase | None) -> bool:
    """Whether what it runs comes on the thread that the items come on."""
    plain = unscoped(scheduler)
    return isinstance(plain, AsyncIOScheduler | VirtualTimeScheduler) and not isinstance(
        plain, AsyncIOThreadSafeScheduler
    )
