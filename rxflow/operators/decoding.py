"""`decode_json`: bytes from the network become values, or are rejected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast, overload

from reactivex import Observable, abc

from rxflow import codec
from rxflow.errors import DecodeError
from rxflow.log import printable
from rxflow.message import Message
from rxflow.operators import checking as check
from rxflow.operators.declaring import operator
from rxflow.operators.operator import direct
from rxflow.operators.rejecting import set_aside, topic_of
from rxflow.scope import scope_of

__all__ = ["decode_json"]


class Decode(Protocol):
    """The operator of `decode_json`, for messages and for plain payloads."""

    @overload
    def __call__(self, source: Observable[Message[bytes]], /) -> Observable[Message[Any]]: ...
    @overload
    def __call__(self, source: Observable[bytes | str], /) -> Observable[Any]: ...


@operator(
    is_single=True,
    rejected=check.observer,
    max_payload_bytes=check.at_least_one,
    exact_integers=check.flag,
)
def decode_json(
    *,
    rejected: abc.ObserverBase[Any] | None = None,
    max_payload_bytes: int = 1_048_576,
    exact_integers: bool = False,
) -> Decode:
    """Decode each payload from JSON.

    Of a message the value travels in its envelope; plain bytes and strings become plain values.
    Floats are rounded to 64 bits, of duplicate keys the last one wins.

    Args:
        rejected: An observer for messages that can't be decoded; the stream then goes on.
            Without it the stream fails with a `DecodeError`.
        max_payload_bytes: Longest payload that is decoded: in memory, JSON grows up to 33-fold.
        exact_integers: Refuse integers beyond 64 bits, which otherwise become floats.

    Raises:
        ConfigError: At call time, when the limit is out of range or `rejected` no observer.
        DecodeError: In the stream: not JSON, too long, too deeply nested, or neither bytes nor
            text. It names the topic.
    """
    return cast("Decode", direct(_decoded(rejected, max_payload_bytes, is_exact=exact_integers)))


def _decoded(
    rejected: abc.ObserverBase[Any] | None, most: int, *, is_exact: bool
) -> Callable[..., abc.DisposableBase]:
    decode = codec.decode

    def subscribe(
        source: Observable[Any],
        observer: abc.ObserverBase[Any],
        scheduler: abc.SchedulerBase | None = None,
    ) -> abc.DisposableBase:
        if scope := scope_of(scheduler):
            scope.context.adopt(rejected)

        def on_next(item: Any) -> None:
            is_message = type(item) is Message
            try:
                payload = item.payload if is_message else item
                if type(payload) is not bytes or len(payload) > most:
                    payload = _decodable(payload, most)
                value = decode(payload, exact_integers=is_exact)
            except ValueError as error:
                fail(item, error)
            else:
                observer.on_next(item.with_payload(value) if is_message else value)

        def fail(item: Any, reason: ValueError) -> None:
            topic = topic_of(item)
            where = f"topic {printable(topic)}" if topic else "a payload without a topic"
            error = DecodeError(f"{where}: {reason}", topic=topic)
            if rejected is None:
                error.__cause__ = reason
                observer.on_error(error)
            else:
                set_aside(item, error, rejected)

        return source.subscribe(
            on_next, observer.on_error, observer.on_completed, scheduler=scheduler
        )

    return subscribe


def _decodable(payload: Any, most: int) -> bytes:
    """The payload as bytes.

    Raises:
        ValueError: It is neither bytes nor text, or too long.
    """
    if isinstance(payload, str):
        payload = payload.encode()  # of a lone surrogate: UnicodeEncodeError, a ValueError
    elif not isinstance(payload, bytes):
        raise ValueError(f"neither bytes nor text, but {type(payload).__name__}")  # noqa: TRY004
    if len(payload) > most:
        raise ValueError(f"{len(payload)} bytes, above max_payload_bytes={most}")
    return payload
