"""Operators that count and compare: of messages they use the payloads."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from reactivex import Observable
from reactivex import operators as rx
from reactivex.internal import default_comparer
from reactivex.internal.basic import default_sub_comparer

from rxflow.operators.envelope import bare, by_payload, payload_of


def distinct(make: Callable[..., Any]) -> Callable[..., Any]:
    """The same operator of reactivex (`distinct`), whose keys are payloads without deliveries."""

    @functools.wraps(make)
    def made(
        key_mapper: Callable[[Any], Any] | None = None,
        comparer: Callable[[Any, Any], bool] | None = None,
    ) -> Any:
        def key(item: Any) -> Any:
            return bare(payload_of(key_mapper(item) if key_mapper else item))

        return make(key, comparer)

    return made


def compared(make: Callable[..., Any]) -> Callable[..., Any]:
    """The same operator of reactivex (`max`), whose comparer gets payloads."""

    @functools.wraps(make)
    def made(comparer: Callable[[Any, Any], Any] | None = None) -> Any:
        return make(by_payload(comparer or default_sub_comparer))

    return made


def compared_by(make: Callable[..., Any]) -> Callable[..., Any]:
    """The same operator of reactivex (`max_by`), whose keys are payloads."""

    @functools.wraps(make)
    def made(
        key_mapper: Callable[[Any], Any], comparer: Callable[[Any, Any], Any] | None = None
    ) -> Any:
        def key(item: Any) -> Any:
            return payload_of(key_mapper(item))

        return make(key, comparer)

    return made


def equal(make: Callable[..., Any]) -> Callable[..., Any]:
    """The same operator of reactivex (`contains`), whose comparer gets payloads."""

    @functools.wraps(make)
    def made(first: Any, comparer: Callable[[Any, Any], bool] | None = None) -> Any:
        return make(first, by_payload(comparer or default_comparer))

    return made


def shown(make: Callable[..., Any]) -> Callable[..., Any]:
    """The same operator of reactivex (`to_marbles`), which shows payloads."""

    @functools.wraps(make)
    def made(*args: Any, **kwargs: Any) -> Any:
        operator = make(*args, **kwargs)

        def apply(source: Observable[Any]) -> Any:
            return operator(rx.map(payload_of)(source))

        return apply

    return made
