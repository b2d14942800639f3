"""Operators that count and compare: of messages they use the payloads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from reactivex import operators as rx
from reactivex.internal import default_comparer
from reactivex.internal.basic import default_sub_comparer

from rxflow.operators.declaring import Layer, Make, change, changed_source
from rxflow.operators.envelope import by_payload, payload_of, without_delivery


@change(Layer.COMPARING)
def distinct(make: Make) -> Make:
    """The same operator of reactivex (`distinct`), whose keys are payloads without deliveries."""

    def made(
        key_mapper: Callable[[Any], Any] | None = None,
        comparer: Callable[[Any, Any], bool] | None = None,
    ) -> Any:
        def key(item: Any) -> Any:
            return without_delivery(payload_of(key_mapper(item) if key_mapper else item))

        return make(key, comparer)

    return made


@change(Layer.COMPARING)
def compared(make: Make) -> Make:
    """The same operator of reactivex (`max`), whose comparer gets payloads."""

    def made(comparer: Callable[[Any, Any], Any] | None = None) -> Any:
        return make(by_payload(comparer or default_sub_comparer))

    return made


@change(Layer.COMPARING)
def compared_by(make: Make) -> Make:
    """The same operator of reactivex (`max_by`), whose keys are payloads."""

    def made(
        key_mapper: Callable[[Any], Any], comparer: Callable[[Any, Any], Any] | None = None
    ) -> Any:
        def key(item: Any) -> Any:
            return payload_of(key_mapper(item))

        return make(key, comparer)

    return made


@change(Layer.COMPARING)
def equal(make: Make) -> Make:
    """The same operator of reactivex (`contains`), whose comparer gets payloads."""

    def made(first: Any, comparer: Callable[[Any, Any], bool] | None = None) -> Any:
        return make(first, by_payload(comparer or default_comparer))

    return made


shown: Final = changed_source(Layer.COMPARING, rx.map(payload_of))
"""It shows payloads (`to_marbles`)."""
