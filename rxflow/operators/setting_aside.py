"""What happens to an item that an operator can't use: set aside, or the stream fails."""

from __future__ import annotations

from typing import Any

from reactivex import abc

from rxflow.log import printable
from rxflow.message import Batch, Message
from rxflow.rejection import rejection


def set_aside(item: object, error: Exception, rejected: abc.ObserverBase[Any]) -> None:
    """Hand the record of each message to `rejected`; of the error it keeps the text.

    The error is emptied: its traceback would hold the message, and with it every later
    acknowledgement.
    """
    text = f"{type(error).__name__}: {error}"
    _empty(error)
    for message in item if isinstance(item, Batch) else [item]:
        enveloped = message if isinstance(message, Message) else Message("", message)
        rejected.on_next(rejection(enveloped, text))


def topic_of(item: object) -> str:
    """Where an item came from; of a batch, its newest message; empty if it is no message."""
    newest: Any = item[-1] if isinstance(item, Batch) else item
    return newest.topic if isinstance(newest, Message) else ""


def name_topic(error: Exception, item: object, doing: str) -> None:
    """Add to the user's own error which message it was about."""
    if topic := topic_of(item):
        error.add_note(f"rxflow: while {doing} a message of topic {printable(topic)}")


def _empty(error: BaseException | None) -> None:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
