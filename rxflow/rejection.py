"""The record of a rejected message."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from rxflow import codec
from rxflow.message import Message


def rejection(message: Message[Any], error_text: str) -> Message[dict[str, str]]:
    """Return the record of a message that could not be used, in its envelope, with its delivery.

    The record holds the error's text only: an exception's traceback would hold the message.

    Args:
        message: As it arrived, or as far as it got.
        error_text: Why it could not be used.
    """
    record = {
        "topic": _writable(message.topic),
        **_payload(message.payload),
        "error": _writable(error_text),
        "time": message.received_at.astimezone(UTC).isoformat(),
    }
    return message.with_payload(record)


def _payload(payload: object) -> dict[str, str]:
    if isinstance(payload, bytes | bytearray | memoryview):
        return codec.text_or_base64(bytes(payload))
    if isinstance(payload, str):
        return {"payload": _writable(payload)}
    try:
        return {"payload": codec.encode(payload).decode()}
    except (TypeError, ValueError):
        return {"payload": _shown(payload)}


def _shown(payload: object) -> str:
    try:
        return _writable(repr(payload))
    except Exception:  # noqa: BLE001 (a user's __repr__ must not stop the stream)
        return object.__repr__(payload)


def _writable(text: str) -> str:
    """The text with lone surrogates, which UTF-8 has no bytes for, written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()
