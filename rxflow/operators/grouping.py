"""`group_by`: its keys are remembered, its elements travel in their envelopes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar, overload

from reactivex import GroupedObservable, Observable
from reactivex import operators as rx
from reactivex.subject import Subject

from rxflow.operators import checking as check
from rxflow.operators.declaring import operator
from rxflow.operators.envelope import enveloped, without_delivery
from rxflow.operators.holding import feeding

__all__ = ["group_by", "group_by_until"]

T = TypeVar("T")
K = TypeVar("K")

Groups: TypeAlias = Callable[[Observable[T]], Observable[GroupedObservable[K, T]]]
AnyGroups: TypeAlias = Callable[[Observable[T]], Observable[GroupedObservable[K, Any]]]


@overload
def group_by(key_mapper: Callable[[T], K]) -> Groups[T, K]: ...
@overload
def group_by(
    key_mapper: Callable[[T], K],
    element_mapper: Callable[[T], Any] | None,
    subject_mapper: Callable[[], Subject[Any]] | None = None,
) -> AnyGroups[T, K]: ...
@operator(feeding)
def group_by(
    key_mapper: Callable[[Any], Any],
    element_mapper: Callable[[Any], Any] | None = None,
    subject_mapper: Callable[[], Subject[Any]] | None = None,
) -> Any:
    """A stream for each key, of the items that have it.

    Args:
        key_mapper: The key of an item; it gets the `Message`.
        element_mapper: What goes into the group, in the envelope of the item; None: the item.
        subject_mapper: Makes what a group is fed through; None: a `Subject`.
    """
    return rx.group_by(_key(key_mapper), _element(element_mapper), subject_mapper)


@operator(feeding, element_mapper=check.function_or_none)
def group_by_until(
    key_mapper: Callable[[T], K],
    element_mapper: Callable[[T], Any] | None,
    duration_mapper: Callable[[GroupedObservable[K, Any]], Observable[Any]],
    subject_mapper: Callable[[], Subject[Any]] | None = None,
) -> AnyGroups[T, K]:
    """The same as `group_by`; a group ends when another stream does, and may begin again.

    Args:
        key_mapper: The key of an item; it gets the `Message`.
        element_mapper: What goes into the group, in the envelope of the item; None: the item.
        duration_mapper: Makes the stream that ends a group, by its first item or its end.
        subject_mapper: Makes what a group is fed through; None: a `Subject`.
    """
    key, element = _key(key_mapper), _element(element_mapper)
    return rx.group_by_until(key, element, duration_mapper, subject_mapper)


def _key(mapper: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda item: without_delivery(mapper(item))


def _element(mapper: Callable[[Any], Any] | None) -> Callable[[Any], Any] | None:
    return (lambda item: enveloped(item, mapper(item))) if mapper else None
