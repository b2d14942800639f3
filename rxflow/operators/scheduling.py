"""Operators that were given a scheduler of their own: their scope reaches the source all the same.

An operator of reactivex hands its own scheduler on to its source, and with the plain one the scope
would be lost: no end would reach what is upstream. So each subscription gives it a scheduler that
carries the scope, and otherwise is the one that the user chose.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from reactivex import Observable, abc, typing
from reactivex.disposable import CompositeDisposable, SingleAssignmentDisposable
from reactivex.scheduler import TimeoutScheduler

from rxflow.operators import checking as check
from rxflow.operators.declaring import operator
from rxflow.operators.operator import Same, lifted

__all__ = ["delay_subscription", "subscribe_on"]


@operator()
def subscribe_on(scheduler: abc.SchedulerBase) -> Same[Any]:
    """Subscribe to the source through a scheduler, which also runs the timers of what is upstream.

    It is let go of at once, not through the scheduler as in reactivex: what came in between would
    be dropped by nobody's choice.

    Args:
        scheduler: Where to subscribe.
    """

    def subscribe(
        source: Observable[Any],
        observer: abc.ObserverBase[Any],
        _: abc.SchedulerBase | None = None,
    ) -> abc.DisposableBase:
        subscription, scheduled = SingleAssignmentDisposable(), SingleAssignmentDisposable()

        def begin(_: abc.SchedulerBase, __: object = None) -> None:
            subscription.disposable = source.subscribe(observer, scheduler=scheduler)

        scheduled.disposable = scheduler.schedule(begin)
        return CompositeDisposable(scheduled, subscription)

    return lifted(subscribe)


@operator(duetime=check.time)
def delay_subscription(
    duetime: typing.AbsoluteOrRelativeTime, scheduler: abc.SchedulerBase | None = None
) -> Same[Any]:
    """Subscribe to the source later. Unlike reactivex's, it holds no item afterwards.

    Args:
        duetime: A `datetime`, or seconds; >= 0.
        scheduler: Runs the timer instead of the one given to `subscribe`.
    """

    def subscribe(
        source: Observable[Any],
        observer: abc.ObserverBase[Any],
        given: abc.SchedulerBase | None = None,
    ) -> abc.DisposableBase:
        clock = scheduler or given or TimeoutScheduler.singleton()
        subscription, timer = SingleAssignmentDisposable(), SingleAssignmentDisposable()

        def begin(_: abc.SchedulerBase, __: object = None) -> None:
            subscription.disposable = source.subscribe(observer, scheduler=given)

        if isinstance(duetime, datetime):
            timer.disposable = clock.schedule_absolute(duetime, begin)
        else:
            timer.disposable = clock.schedule_relative(duetime, begin)
        return CompositeDisposable(timer, subscription)

    return lifted(subscribe)
