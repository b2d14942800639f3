"""Operators of time that hold items for a while, and let go of each when they have emitted it.

One mechanism: the operator of reactivex gets each item in a box of its own. What it emits is
unpacked, which empties the box, so that whatever it still remembers holds no delivery. The boxes
that it has not emitted are known here, in order: at a time limit they are emitted at once, and
when the stream fails they are dropped after the source was let go, not before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, Disposable

from rxflow.operators.declaring import Layer, Make, change
from rxflow.operators.holding import outlast
from rxflow.operators.operator import lifted
from rxflow.scope import Scope, scope_of, within

T = TypeVar("T")

_GONE: Final = object()


@change(Layer.RESULT)
def delayed(make: Make) -> Make:
    """The same operator of reactivex (`delay`), which emits all that it holds."""
    return _boxed(make, is_newest_only=False)


@change(Layer.RESULT)
def thinned(make: Make) -> Make:
    """The same operator of reactivex (`debounce`, `sample`), which emits the newest it holds."""
    return _boxed(make, is_newest_only=True)


def _opening(function: Callable[[Any], Any]) -> Callable[[_Box], Any]:
    return lambda box: function(box.item)


class _Box:
    __slots__ = ("item",)

    def __init__(self, item: Any) -> None:
        self.item = item


class _Boxes:
    """One subscription: what the operator holds, and what ends it."""

    __slots__ = (
        "_held",
        "_is_late",
        "_is_newest_only",
        "_observer",
        "inner",
        "is_over",
        "running",
    )

    def __init__(
        self, observer: abc.ObserverBase[Any], *, is_newest_only: bool, is_late: bool
    ) -> None:
        self.running: abc.DisposableBase = Disposable()
        self._observer = observer
        self._held: dict[_Box, None] = {}
        self._is_newest_only = is_newest_only
        self._is_late = is_late  # subscribed at the end of its scope
        self.inner: Scope | None = None
        self.is_over = False

    def packed(self, source: Observable[Any]) -> Observable[Any]:
        """The source of the operator, each item in a box."""

        def subscribe(
            observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            def on_next(item: Any) -> None:
                box = _Box(item)
                if self._is_newest_only:
                    self._held.clear()
                self._held[box] = None
                observer.on_next(box)

            if scope := scope_of(scheduler):
                scheduler = within(inner := Scope(scope), scheduler)
                self.inner = inner
            return source.subscribe(
                on_next, observer.on_error, observer.on_completed, scheduler=scheduler
            )

        return Observable(subscribe)

    def unpacked(self, box: Any) -> None:
        """The operator emits: pass on what is in the box, and empty it."""
        if self._held.pop(box, _GONE) is _GONE:
            return  # emitted at the end, which another thread may have seen first
        item, box.item = box.item, None
        self._observer.on_next(item)

    def end(self) -> None:
        """The operator has completed."""
        self.is_over = True
        self._observer.on_completed()

    def fail(self, error: Exception) -> None:
        """The operator has failed."""
        self.is_over = True
        self._observer.on_error(error)

    @property
    def is_waiting(self) -> bool:
        """True if it has not ended: what it holds, it would emit too late."""
        return not self.is_over and bool(self._held or not self._is_late)

    def end_now(self) -> None:
        """Emit what is held and complete, whatever is upstream. Once."""
        if not self.is_over:
            self.is_over = True
            self.running.dispose()
            for box in list(self._held):
                self.unpacked(box)
            self._observer.on_completed()

    def discard(self) -> None:
        """Drop what is held."""
        for box in self._held:
            box.item = None
        self._held.clear()


def _boxed(make: Make, *, is_newest_only: bool) -> Make:
    def made(*args: Any, **kwargs: Any) -> Callable[[Observable[Any]], Observable[Any]]:
        def opened(argument: Any) -> Any:
            # A function of the user's, such as that of `delay_with_mapper`, gets the item.
            return _opening(argument) if callable(argument) else argument

        operator = make(*map(opened, args), **{key: opened(a) for key, a in kwargs.items()})

        def subscribe(
            source: Observable[Any],
            observer: abc.ObserverBase[Any],
            scheduler: abc.SchedulerBase | None = None,
        ) -> abc.DisposableBase:
            scope = scope_of(scheduler)
            is_late = bool(scope and scope.is_over)
            boxes = _Boxes(observer, is_newest_only=is_newest_only, is_late=is_late)
            boxes.running = operator(boxes.packed(source)).subscribe(
                boxes.unpacked, boxes.fail, boxes.end, scheduler=scheduler
            )

            registration = scope.hold(boxes) if scope and not boxes.is_over else Disposable()

            def drop() -> None:
                boxes.is_over = True
                outlast(boxes, scheduler, boxes.discard)

            return CompositeDisposable(boxes.running, Disposable(drop), registration)

        return lifted(subscribe)

    return made
