"""What the upstream of one subscription shares: its end, its sources, its rejected sinks.

`take_until` and `run` end a pipeline from the top, so that what its buffers hold comes through:
they complete everything *upstream of them that can be completed* and let completion flow down.
Which that is, is known only while subscribing, and later too (`concat` subscribes its second source
when the first ends). One thing reaches every upstream subscription: the scheduler, which each
operator of reactivex hands on. So a `Scope` travels with it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol, TypeVar

from reactivex import abc, typing
from reactivex.disposable import Disposable
from reactivex.scheduler.periodicscheduler import PeriodicScheduler

from rxflow.delivery import Journal, Ledger

S = TypeVar("S")


class Completable(Protocol):
    """A source, or an operator that holds items: told to end, it emits what it has."""

    def complete(self) -> None:
        """Emit what is held and complete. The second time, or after an end, nothing happens."""
        ...


class Connection(Protocol):
    """A source's connection, as far as a run sees it."""

    ledger: Ledger

    async def wait_closed(self) -> None:
        """Return when nothing more is received, acknowledged or sent."""
        ...


class Scope:
    """The upstream of one `take_until`, of one operator that holds items, or of one run.

    Scopes form a tree: an operator that ends what is above it subscribes that within a scope of its
    own and is itself a member of the scope it runs in. So what is upstream always ends first, and a
    source subscribed late (the second of a `concat`) is found like any other.

    Args:
        outer: The scope of which this one is a part.

    Attributes:
        root: The outermost scope: that of the run.
        is_over: True once it was completed; what subscribes within it from then on stays silent.
        is_program: Of the root: True under `run`; what the user must know goes to the log.
        client_id: Of the root: gives a durable client id for a key, if this run keeps ids.
        journal: Of the root: the sink that writes down which QoS 2 messages it has stored.
        sources: Of the root: the connections that this run waits for.
        rejected: Of the root: the observers to which operators of this run set messages aside.
        registered: Of the root: how many members there are anywhere within it.
    """

    def __init__(self, outer: Scope | None = None) -> None:
        self.root: Scope = outer.root if outer else self
        self.is_over: bool = outer.is_over if outer else False
        self.is_program = False
        self.client_id: Callable[[str], str] | None = None
        self.journal: Journal | None = None
        self.sources: list[Connection] = []
        self.rejected: list[abc.ObserverBase[Any]] = []
        self._members: dict[int, Completable] = {}
        self.registered = 0

    @property
    def is_idle(self) -> bool:
        """Of the root: True when nothing is registered anywhere within it."""
        return self.registered == 0

    @property
    def has_members(self) -> bool:
        """True if something is registered in this very scope."""
        return bool(self._members)

    def register(self, member: Completable) -> abc.DisposableBase:
        """Have `member` completed with this scope. To be disposed when the member has ended.

        A member that comes when the scope is over is never completed: what is downstream of it
        ends in this same instant, and it should stay silent until it is disposed.
        """
        key = id(member)
        root = self.root
        self._members[key] = member
        root.registered += 1

        def forget() -> None:
            self._members.pop(key, None)
            root.registered -= 1

        return Disposable(forget)

    def adopt(self, rejected: abc.ObserverBase[Any] | None) -> None:
        """Tell the run of an observer to which messages are set aside; it drains and closes it."""
        known = self.root.rejected
        if rejected is not None and not any(rejected is other for other in known):
            known.append(rejected)

    def complete(self) -> None:
        """Complete every member, each after all that is upstream of it."""
        self.is_over = True
        for member in list(self._members.values()):
            member.complete()


class ScopedScheduler(PeriodicScheduler):
    """A scheduler that carries a scope, and otherwise is the one that it was made from.

    Made from None it is false, so that `scheduler or default`, which every operator of reactivex
    writes, still picks that operator's own default while the scope is handed on.
    """

    def __init__(self, scheduler: abc.SchedulerBase | None, scope: Scope | None) -> None:
        super().__init__()
        self.scope = scope
        self.inner = scheduler

    def __bool__(self) -> bool:
        return bool(self.inner)

    @property
    def _delegate(self) -> abc.SchedulerBase:
        if self.inner is None:
            raise RuntimeError("subscribed without a scheduler: `scheduler or default` is needed")
        return self.inner

    @property
    def now(self) -> datetime:
        return self._delegate.now

    def schedule(
        self, action: typing.ScheduledAction[S], state: S | None = None
    ) -> abc.DisposableBase:
        return self._delegate.schedule(self._scoped(action), state)

    def schedule_relative(
        self,
        duetime: typing.RelativeTime,
        action: typing.ScheduledAction[S],
        state: S | None = None,
    ) -> abc.DisposableBase:
        return self._delegate.schedule_relative(duetime, self._scoped(action), state)

    def schedule_absolute(
        self,
        duetime: typing.AbsoluteTime,
        action: typing.ScheduledAction[S],
        state: S | None = None,
    ) -> abc.DisposableBase:
        return self._delegate.schedule_absolute(duetime, self._scoped(action), state)

    def _scoped(self, action: typing.ScheduledAction[S]) -> Callable[..., Any]:
        def act(_: abc.SchedulerBase, state: Any = None) -> abc.DisposableBase | None:
            return action(self, state)

        return act


def scope_of(scheduler: abc.SchedulerBase | None) -> Scope | None:
    """The scope that a subscription runs in, if any."""
    return scheduler.scope if isinstance(scheduler, ScopedScheduler) else None


def unscoped(scheduler: abc.SchedulerBase | None) -> abc.SchedulerBase | None:
    """The scheduler that was given to `subscribe`, without its scope."""
    return scheduler.inner if isinstance(scheduler, ScopedScheduler) else scheduler


def within(scope: Scope | None, scheduler: abc.SchedulerBase | None) -> abc.SchedulerBase | None:
    """The same scheduler, carrying this scope instead of its own."""
    plain = unscoped(scheduler)
    return ScopedScheduler(plain, scope) if scope else plain


def rooted(scheduler: abc.SchedulerBase | None) -> abc.SchedulerBase | None:
    """The same scheduler in the scope of the whole run: for what several pipelines share."""
    scope = scope_of(scheduler)
    return within(scope.root, scheduler) if scope else scheduler
