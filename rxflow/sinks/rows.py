"""What an item is to a sink: its row, and the deliveries behind it."""

from __future__ import annotations

from typing import Any, Final

from rxflow import codec
from rxflow.delivery import Token
from rxflow.message import Batch, Message

_RAW: Final = (bytes, bytearray, memoryview)


def row(payload: object, default: codec.Default | None = None) -> bytes:
    """The row of a payload or plain value; bytes are JSON already, and stay digit for digit.

    Args:
        payload: What to store.
        default: As of `codec.encode`.

    Raises:
        TypeError: JSON can't hold it.
        ValueError: The bytes are not JSON.
    """
    if isinstance(payload, _RAW):
        return codec.embed(bytes(payload))
    return codec.encode(payload, default)


def is_batch(item: object) -> bool:
    """True for what a buffer of messages emits: their own rows, not one row."""
    if not isinstance(item, list):
        return False
    return isinstance(item, Batch) or (bool(item) and isinstance(item[0], Message))


def tokens(item: Any) -> list[Token]:
    """The deliveries of a message, or of a batch; of a plain value none."""
    messages: list[Any] = item if is_batch(item) else [item]
    return [m.delivery for m in messages if isinstance(m, Message) and m.delivery is not None]
