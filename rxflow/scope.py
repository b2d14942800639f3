"""The scope of a subscription: shared with its upstream, and completed from the top.

`take_until` and `run` end a pipeline from the top, so that what its buffers hold comes through.
Which operators are upstream of them is known only while subscribing, and later too (`concat`
subscribes its second source when the first ends). One thing reaches every upstream subscription:
the scheduler, which each operator of reactivex hands on. So a `Scope` travels with it.

The end of a scope has three steps. Its sources complete, and completion flows down as in any
stream. Once nothing more is on its way (the scope counts what its scheduler has still to run), an
operator that still holds items, because something else keeps it from completing, is ended by force:
the topmost first, and again only when nothing is on its way. Then whoever asked for it is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from datetime import datetime
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from reactivex import abc, typing
from reactivex.disposable import Disposable
from reactivex.internal import noop
from reactivex.internal.constants import DELTA_ZERO
from reactivex.scheduler.periodicscheduler import PeriodicScheduler

from rxflow.context import Context
from rxflow.errors import ConfigError
from rxflow.process.forked import tell_in_child

S = TypeVar("S")

_AT_ONCE: Final = (0, DELTA_ZERO)  # durations

_LONGEST_CHAIN: Final = 100_000
"""So many turns the end of a scope waits for what schedules something new each time."""


class Completable(Protocol):
    """A source: told to end, it completes."""

    def complete(self) -> None:
        """Complete. The second time, or after an end, nothing happens."""
        ...


class Holder(Protocol):
    """An operator that holds items."""

    @property
    def inner(self) -> Scope | None:
        """The scope of what is upstream of it; None before it has subscribed."""
        ...

    @property
    def is_over(self) -> bool:
        """True if it has ended."""
        ...

    @property
    def is_waiting(self) -> bool:
        """True if it has not ended, and has something that only its end brings out."""
        ...

    def end_now(self) -> None:
        """Emit what is held and complete, whatever is upstream."""
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
        context: The facts of the run; the same object in every scope of it.
    """

    def __init__(self, outer: Scope | None = None) -> None:
        self.root: Scope = outer.root if outer else self
        self.context: Context = outer.context if outer else Context()
        self._outer = outer
        self._has_begun_to_end = False
        self._sources: dict[int, Completable] = {}
        self._holders: dict[int, Holder] = {}
        self._branches: dict[int, Scope] = {}
        self._scheduled: set[object] = set()  # what is to run at once, and has not
        self._at_work: set[object] = set()
        self._feeders: set[Holder] = set()
        self._endings: list[_Ending] = []  # of the root

    @property
    def is_over(self) -> bool:
        """True once it began to end; a source that subscribes from then on stays silent."""
        return self._has_begun_to_end or (self._outer is not None and self._outer.is_over)

    # -- what is in it --------------------------------------------------------------------------

    def register(self, source: Completable) -> abc.DisposableBase:
        """Have a source completed with this scope. To be disposed when it has ended."""
        return _listed(self._sources, source)

    def hold(self, holder: Holder) -> abc.DisposableBase:
        """Have an operator emit what it holds. To be called when it has subscribed upstream."""
        listed = _listed(self._holders, holder)

        def forget() -> None:
            listed.dispose()
            if holder.inner:
                self._inherit(holder.inner)

        return Disposable(forget)

    def _inherit(self, inner: Scope) -> None:
        """Adopt the sources above an operator that has ended: a `share` of reactivex keeps them."""
        self._sources |= inner._sources

    def branch(self) -> Scope:
        """A scope for one pipeline of a run: it ends after all that the pipelines share."""
        scope = Scope(self)
        self._branches[id(scope)] = scope
        return scope

    def feed(self, holder: Holder) -> None:
        """Items come to this scope from what is downstream of an operator, a group or a window."""
        if holder not in self._feeders:
            self._feeders = {holder, *(each for each in self._feeders if not each.is_over)}

    def is_fed(self, *, is_patient: bool) -> bool:
        """True while an operator that feeds it, or anything within it, has not ended.

        Args:
            is_patient: One that has nothing yet counts while streams above it are at work; while
                something above it holds items it counts anyway.
        """
        self._feeders = {holder for holder in self._feeders if not holder.is_over}
        return any(
            (inner := holder.inner)
            and inner.is_over
            and (holder.is_waiting or inner.is_holding or (is_patient and inner.is_at_work))
            for holder in self._feeders
        ) or any(scope.is_fed(is_patient=is_patient) for scope in self._inner())

    @property
    def is_holding(self) -> bool:
        """True while an operator within it has something that only its end brings out."""
        return any(holder.is_waiting for holder in self._holders.values()) or any(
            scope.is_holding for scope in self._inner()
        )

    def work(self) -> object:
        """A stream made of a message begins; its key is for `worked`."""
        key = object()
        self._at_work.add(key)
        return key

    def worked(self, key: object, clock: abc.SchedulerBase | None) -> None:
        """It has ended, perhaps in the middle of something: the clock says when that is over."""
        self._at_work.discard(key)
        self.root.go_on(clock)

    # -- its end --------------------------------------------------------------------------------

    def complete(self, then: Callable[[], None] = noop, *, is_patient: bool = False) -> None:
        """Complete the sources, and end what still holds items when nothing is on its way.

        Args:
            then: Called when it is done, in the same instant; at once where nothing is on its way.
            is_patient: Wait for streams that were made of messages, as `flat_map` makes them,
                before what is downstream of them is ended.
        """
        ending = _Ending(self, then, is_patient=is_patient)

        def begin() -> None:
            self._has_begun_to_end = True
            self.root.begun(ending)
            ending.begin()

        self.context.here(begin)

    def insist(self) -> None:
        """Of the root: wait no longer for what is on its way."""
        for ending in list(self._endings):
            ending.insist()

    def go_on(self, clock: abc.SchedulerBase | None = None) -> None:
        """Of the root: something that was on its way has come.

        Args:
            clock: Look only when what is going on now is over.
        """
        if not self._endings:
            return
        if clock:
            clock.schedule(self._look)
        else:
            self.context.here(self._go_on)

    def _look(self, _: abc.SchedulerBase, __: object = None) -> None:
        self.context.here(self._go_on)

    def _go_on(self) -> None:
        for ending in list(self._endings):
            ending.go_on()

    def is_ending(self) -> bool:
        """Of the root: whether an end is on its way."""
        return bool(self._endings)

    def begun(self, ending: _Ending) -> None:
        """Of the root: this one goes on whenever something that was on its way has come."""
        self._endings.append(ending)

    def ended(self, ending: _Ending) -> None:
        """Of the root: this one is done."""
        if ending in self._endings:
            self._endings.remove(ending)

    def complete_sources(self) -> None:
        """Complete all sources within it."""
        for source in list(self._sources.values()):
            source.complete()
        for scope in self._inner():
            scope.complete_sources()

    def _inner(self) -> Iterator[Scope]:
        """The scopes within this one; what several pipelines share first."""
        for holder in list(self._holders.values()):
            if holder.inner:
                yield holder.inner
        yield from list(self._branches.values())

    @property
    def is_moving(self) -> bool:
        """True while its scheduler has something to run at once."""
        return bool(self._scheduled) or any(scope.is_moving for scope in self._inner())

    @property
    def is_at_work(self) -> bool:
        """True while a stream that was made of a message goes on."""
        return bool(self._at_work) or any(scope.is_at_work for scope in self._inner())

    def topmost(self, *, is_patient: bool) -> list[Holder]:
        """The holders with nothing above them that still holds items or is at work."""
        found: list[Holder] = []
        for holder in list(self._holders.values()):
            inner = holder.inner
            above = inner.topmost(is_patient=is_patient) if inner else []
            found += above
            if above or not holder.is_waiting:
                continue
            if inner and is_patient and inner.is_at_work:
                continue
            if inner and inner.is_fed(is_patient=is_patient):
                continue
            found.append(holder)
        for scope in list(self._branches.values()):
            found += scope.topmost(is_patient=is_patient)
        return found

    # -- what its scheduler runs ----------------------------------------------------------------

    def scheduled(self) -> object:
        """Something is to run at once; its key is for `ran`."""
        key = object()
        self._scheduled.add(key)
        return key

    def ran(self, key: object, clock: abc.SchedulerBase | None = None) -> None:
        """It ran; with a clock it was disposed of, perhaps while it ran."""
        self._scheduled.discard(key)
        self.root.go_on(clock)


class _Ending:
    """One end of a scope, on its way."""

    def __init__(self, scope: Scope, then: Callable[[], None], *, is_patient: bool) -> None:
        self._scope = scope
        self._then = then
        self._is_patient = is_patient
        self._is_insisting = False
        self._is_going_on = False
        self._is_done = False
        self._left = _LONGEST_CHAIN

    def begin(self) -> None:
        """Complete the sources, and go on."""
        self._do(self._begin)

    def insist(self) -> None:
        """Wait no longer for what is on its way."""
        self._is_insisting, self._is_patient = True, False
        self.go_on()

    def go_on(self) -> None:
        """End what holds items, until something is on its way."""
        self._do(self._go_on)

    def _do(self, act: Callable[[], None]) -> None:
        if self._is_going_on or self._is_done:
            return
        self._is_going_on = True
        try:
            act()
        except BaseException:
            self._is_done = True
            self._scope.root.ended(self)
            raise
        finally:
            self._is_going_on = False

    def _begin(self) -> None:
        self._scope.complete_sources()
        self._go_on()

    def _go_on(self) -> None:
        while not self._is_waiting():
            holders = self._scope.topmost(is_patient=self._is_patient)
            if not holders:
                if not (self._is_patient and self._scope.is_at_work):
                    self._finish()
                return
            for holder in holders:
                if holder.is_waiting:
                    holder.end_now()

    def _is_waiting(self) -> bool:
        """Whether something is on its way; what goes on for ever is not waited for."""
        self._left -= 1
        return self._left > 0 and not self._is_insisting and self._scope.is_moving

    def _finish(self) -> None:
        self._is_done = True
        self._scope.root.ended(self)
        self._then()


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

    def __getattr__(self, name: str) -> Any:
        # What only the inner one has, such as the clock of a virtual scheduler.
        if name == "inner" or self.inner is None:
            raise AttributeError(name)
        return getattr(self.inner, name)

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
        return self._soon(action, partial(self._delegate.schedule, state=state))

    def schedule_relative(
        self,
        duetime: typing.RelativeTime,
        action: typing.ScheduledAction[S],
        state: S | None = None,
    ) -> abc.DisposableBase:
        delegate = self._delegate
        if duetime in _AT_ONCE:
            return self._soon(action, partial(delegate.schedule_relative, duetime, state=state))
        return delegate.schedule_relative(duetime, self._scoped(action), state)

    def schedule_absolute(
        self,
        duetime: typing.AbsoluteTime,
        action: typing.ScheduledAction[S],
        state: S | None = None,
    ) -> abc.DisposableBase:
        return self._delegate.schedule_absolute(duetime, self._scoped(action), state)

    def _soon(
        self, action: typing.ScheduledAction[S], schedule: Callable[..., abc.DisposableBase]
    ) -> abc.DisposableBase:
        """Schedule what is to run at once; until it has, the end of the scope waits."""
        scope = self.scope
        if scope is None:
            return schedule(action=self._scoped(action))
        key = scope.scheduled()

        def act(_: abc.SchedulerBase, state: Any = None) -> abc.DisposableBase | None:
            try:
                return action(self, state)
            finally:
                scope.ran(key)

        return _Soon(schedule(action=act), scope, key, self.inner)

    def _scoped(self, action: typing.ScheduledAction[S]) -> Callable[..., Any]:
        def act(_: abc.SchedulerBase, state: Any = None) -> abc.DisposableBase | None:
            return action(self, state)

        return act


class _Soon(abc.DisposableBase):
    """A disposable that takes back scheduled work, so that its scope needn't wait for it."""

    __slots__ = ("_clock", "_key", "_made", "_scope")

    def __init__(
        self,
        made: abc.DisposableBase,
        scope: Scope,
        key: object,
        clock: abc.SchedulerBase | None,
    ) -> None:
        self._made = made
        self._scope = scope
        self._key = key
        self._clock = clock

    def dispose(self) -> None:
        self._made.dispose()
        self._scope.ran(self._key, self._clock)


def _listed(members: dict[int, Any], member: object) -> abc.DisposableBase:
    key = id(member)
    members[key] = member

    def forget() -> None:
        members.pop(key, None)

    return Disposable(forget)


class _Entered(threading.local):
    scope: Scope | None = None

    def forked(self) -> None:
        """In a forked child nothing subscribes meanwhile."""
        self.scope = None


_entered: Final = _Entered()
tell_in_child(_entered)
_running: Final[weakref.WeakSet[Context]] = weakref.WeakSet()


@contextlib.contextmanager
def subscribing(scope: Scope) -> Generator[None]:
    """Give subscriptions made meanwhile on this thread this scope, also where it was lost.

    An operator of reactivex itself that was given a scheduler hands on that one.
    """
    earlier, _entered.scope = _entered.scope, scope
    _running.add(scope.context)
    try:
        yield
    finally:
        _entered.scope = earlier


def left(context: Context) -> None:
    """This run is over."""
    _running.discard(context)


def home(scheduler: abc.SchedulerBase | None, loop: asyncio.AbstractEventLoop) -> Scope | None:
    """The scope that a source on this loop is subscribed in, if any.

    Raises:
        ConfigError: No run can reach it.
    """
    scope = scope_of(scheduler) or _entered.scope
    if scope is None and scheduler is not None and any(run.loop is loop for run in _running):
        raise ConfigError(
            "a source was subscribed to with a scheduler that is not the run's, by an operator of "
            "reactivex itself: the run could neither end nor acknowledge it; use the operator of "
            "rxflow.operators, or leave out scheduler="
        )
    return scope


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
