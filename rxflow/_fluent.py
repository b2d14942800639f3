"""Types of the fluent methods of `Flow`, for type checkers; nothing imports this at run time.

The methods themselves are made from the table of operators. Here stand those whose types depend on
what the items are; the others have those that reactivex gives them. `tests/test_flow.py` holds the
arguments against the table.
"""

# pyright: reportIncompatibleMethodOverride=false, reportOverlappingOverload=false
# mypy: disable-error-code="override, overload-overlap, misc"

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, overload

from reactivex import Observable, abc, typing

from rxflow.message import Batch, Message

if TYPE_CHECKING:
    from rxflow.flow import Flow

T = TypeVar("T", covariant=True)  # noqa: PLC0105 (one letter, as in every generic here)
A = TypeVar("A")
B = TypeVar("B")
P = TypeVar("P")


class Fluent(Observable[T]):
    @overload
    def map(
        self: Fluent[Message[P]],
        mapper: Callable[[Message[P]], Message[B]],
        *,
        rejected: abc.ObserverBase[Any] | None = None,
    ) -> Flow[Message[B]]: ...
    @overload
    def map(
        self: Fluent[Message[P]],
        mapper: Callable[[Message[P]], B],
        *,
        rejected: abc.ObserverBase[Any] | None = None,
    ) -> Flow[Message[B]]: ...
    @overload
    def map(
        self: Fluent[Batch[P]],
        mapper: Callable[[Batch[P]], B],
        *,
        rejected: abc.ObserverBase[Any] | None = None,
    ) -> Flow[Message[B]]: ...
    @overload
    def map(
        self: Fluent[A],
        mapper: Callable[[A], B],
        *,
        rejected: abc.ObserverBase[Any] | None = None,
    ) -> Flow[B]: ...
    def map(self, mapper: Any = None, *, rejected: Any = None) -> Any: ...

    @overload
    def decode_json(
        self: Fluent[Message[Any]],
        *,
        rejected: abc.ObserverBase[Any] | None = None,
        max_payload_bytes: int = ...,
        exact_integers: bool = False,
    ) -> Flow[Message[Any]]: ...
    @overload
    def decode_json(
        self,
        *,
        rejected: abc.ObserverBase[Any] | None = None,
        max_payload_bytes: int = ...,
        exact_integers: bool = False,
    ) -> Flow[Any]: ...
    def decode_json(
        self, *, rejected: Any = None, max_payload_bytes: int = 0, exact_integers: bool = False
    ) -> Any: ...

    @overload
    def buffer_with_count(
        self: Fluent[Message[P]], count: int, skip: int | None = None
    ) -> Flow[Batch[P]]: ...
    @overload
    def buffer_with_count(
        self: Fluent[A], count: int, skip: int | None = None
    ) -> Flow[list[A]]: ...
    def buffer_with_count(self, count: int, skip: Any = None) -> Any: ...

    @overload
    def buffer_with_time(
        self: Fluent[Message[P]],
        timespan: typing.RelativeTime,
        timeshift: typing.RelativeTime | None = None,
        scheduler: abc.SchedulerBase | None = None,
    ) -> Flow[Batch[P]]: ...
    @overload
    def buffer_with_time(
        self: Fluent[A],
        timespan: typing.RelativeTime,
        timeshift: typing.RelativeTime | None = None,
        scheduler: abc.SchedulerBase | None = None,
    ) -> Flow[list[A]]: ...
    def buffer_with_time(
        self, timespan: Any, timeshift: Any = None, scheduler: Any = None
    ) -> Any: ...

    @overload
    def buffer_with_time_or_count(
        self: Fluent[Message[P]],
        timespan: typing.RelativeTime,
        count: int,
        scheduler: abc.SchedulerBase | None = None,
    ) -> Flow[Batch[P]]: ...
    @overload
    def buffer_with_time_or_count(
        self: Fluent[A],
        timespan: typing.RelativeTime,
        count: int,
        scheduler: abc.SchedulerBase | None = None,
    ) -> Flow[list[A]]: ...
    def buffer_with_time_or_count(
        self, timespan: Any, count: int, scheduler: Any = None
    ) -> Any: ...

    @overload
    def count(
        self: Fluent[Message[P]], predicate: Callable[[Message[P]], bool] | None = None
    ) -> Flow[Message[int]]: ...
    @overload
    def count(self: Fluent[A], predicate: Callable[[A], bool] | None = None) -> Flow[int]: ...
    def count(self, predicate: Any = None) -> Any: ...

    def filter(self: Fluent[A], predicate: Callable[[A], object]) -> Flow[A]: ...
    def take(self: Fluent[A], count: int) -> Flow[A]: ...
    def skip(self: Fluent[A], count: int) -> Flow[A]: ...
    def share(self: Fluent[A]) -> Flow[A]: ...
    def take_until(self: Fluent[A], other: Observable[Any] | typing.AnyFuture[Any]) -> Flow[A]: ...
    def debounce(
        self: Fluent[A],
        duetime: typing.RelativeTime,
        scheduler: abc.SchedulerBase | None = None,
    ) -> Flow[A]: ...
    def distinct_until_changed(
        self: Fluent[A],
        key_mapper: Callable[[A], Any] | None = None,
        comparer: Callable[[Any, Any], bool] | None = None,
    ) -> Flow[A]: ...
