"""The JSON rows of an item, and the deliveries that they stand for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from rxflow import codec
from rxflow.delivery import Token
from rxflow.message import Batch, Message

_RAW: Final = (bytes, bytearray, memoryview)


def json_row(default: codec.Default | None = None) -> Callable[[Message[Any]], bytes]:
    """Make the function that makes rows: bytes are JSON already, and stay digit for digit.

    Args:
        default: As of `codec.encode`.

    Returns:
        A function that raises TypeError if JSON can't hold the payload, and ValueError if the
        payload is bytes that are not JSON.
    """
    encode, embed = codec.encode, codec.embed

    def row(message: Message[Any]) -> bytes:
        payload = message.payload
        if type(payload) is not dict and isinstance(payload, _RAW):
            return embed(bytes(payload))
        return encode(payload, default)

    return row


def payload_of(message: Message[Any]) -> Any:
    """The row of a store that takes payloads."""
    return message.payload


def without_delivery(message: Message[Any]) -> Message[Any]:
    """The row of a function that takes messages, and may keep them."""
    return message.with_delivery(None)


def is_batch(item: object) -> bool:
    """True for what a buffer of messages emits: their own rows, not one row."""
    if not isinstance(item, list):
        return False
    return isinstance(item, Batch) or (bool(item) and isinstance(item[0], Message))


def tokens(item: Any) -> list[Token]:
    """The deliveries of a message, or of a batch; of a plain value none."""
    messages: list[Any] = item if is_batch(item) else [item]
    return [m.delivery for m in messages if isinstance(m, Message) and m.delivery is not None]
