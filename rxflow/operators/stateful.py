"""Operators that remember: their state is payload and envelope, never a delivery.

One mechanism for all of them: the operator of reactivex gets each item without its deliveries, and
what it emits while it deals with that item carries them again. So the delivery goes on with the
emission that it triggered, and nothing that is remembered holds up an acknowledgement.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from reactivex import Observable, abc
from reactivex import operators as rx

from rxflow.message import Message
from rxflow.operators.declaring import Layer, Make, change, changed_source
from rxflow.operators.envelope import (
    CARRIERS,
    enveloped,
    exchanged,
    messages_in,
    newest,
    without_delivery,
)
from rxflow.operators.operator import lifted
from rxflow.operators.rejecting import name_topic

_NONE: Final = object()


@change(Layer.STATE)
def stateful(make: Make) -> Make:
    """The same operator of reactivex, which passes on what it remembers (`last`, `pairwise`)."""
    return _carried(make, is_computing=False)


@change(Layer.STATE)
def computing(make: Make) -> Make:
    """The same operator of reactivex, which makes something new of what it remembers (`scan`).

    What it emits of an item travels in the envelope of that; what it emits at the end, in that of
    the newest message, whose delivery was let go.
    """
    return _carried(make, is_computing=True)


stripped: Final = changed_source(Layer.STATE, rx.map(without_delivery))
"""Its items have no deliveries."""


class _Carry:
    """The item that a subscription of an operator deals with, and the carrier of its result."""

    __slots__ = ("_bare", "_is_computing", "_item", "_newest")

    def __init__(self, *, is_computing: bool) -> None:
        self._is_computing = is_computing
        self._item = self._bare = self._newest = _NONE

    def stripped(self, source: Observable[Any]) -> Observable[Any]:
        """A source of the operator, without deliveries."""

        def subscribe(
            observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            emit = observer.on_next

            def on_next(item: Any) -> None:
                item_before, bare_before = self._item, self._bare
                without = item
                if type(item) in CARRIERS:
                    without = without_delivery(item)
                    self._remember(without)
                self._item = item
                self._bare = without
                try:
                    emit(without)
                finally:
                    self._item = item_before
                    self._bare = bare_before

            return source.subscribe(
                on_next, observer.on_error, observer.on_completed, scheduler=scheduler
            )

        return Observable(subscribe)

    def _remember(self, without: Any) -> None:
        if type(without) is Message:
            self._newest = without
        elif messages := messages_in(without):
            self._newest = newest(messages)

    def restored(self, result: Any) -> Any:
        """Give an emitted value the delivery of the item that the operator is dealing with."""
        if self._item is _NONE:
            # At the end. The newest has no delivery: nothing that is remembered has one.
            return enveloped(self._newest, result) if self._is_computing else result
        if self._item is not self._bare:
            result = exchanged(result, self._bare, self._item)
        if self._is_computing:
            return enveloped(self._item, result)
        if type(result) is tuple:
            return tuple([self._live(part) for part in result])
        return result

    def _live(self, part: Any) -> Any:
        """The window of a `group_join`, in which live messages carry their deliveries."""
        return rx.map(self.restored)(part) if isinstance(part, Observable) else part

    def noted(self, error: Exception) -> None:
        """Add to an error which message it was about."""
        if self._item is not _NONE:
            name_topic(error, self._item)


def _carried(make: Make, *, is_computing: bool) -> Make:
    def made(*args: Any, **kwargs: Any) -> Callable[[Observable[Any]], Observable[Any]]:
        def subscribe(
            source: Observable[Any],
            observer: abc.ObserverBase[Any],
            scheduler: abc.SchedulerBase | None = None,
        ) -> abc.DisposableBase:
            carry = _Carry(is_computing=is_computing)

            def on_next(result: Any) -> None:
                observer.on_next(carry.restored(result))

            def on_error(error: Exception) -> None:
                carry.noted(error)
                observer.on_error(error)

            # `combine_latest` and its like remember items of their other sources as well.
            own = [carry.stripped(a) if isinstance(a, Observable) else a for a in args]
            named = {
                key: carry.stripped(a) if isinstance(a, Observable) else a
                for key, a in kwargs.items()
            }
            operator = make(*own, **named)
            return operator(carry.stripped(source)).subscribe(
                on_next, on_error, observer.on_completed, scheduler=scheduler
            )

        return lifted(subscribe)

    return made
