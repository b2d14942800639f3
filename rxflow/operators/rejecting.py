"""Items that an operator can't use: they are rejected, or the stream fails."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from reactivex import abc

from rxflow.errors import CANCELLING, interrupted
from rxflow.log import printable
from rxflow.message import Message
from rxflow.operators.envelope import messages_in, newest
from rxflow.rejection import rejection


def set_aside(item: object, error: Exception, rejected: abc.ObserverBase[Any]) -> None:
    """Hand the record of each message to `rejected`; of the error it keeps the text.

    The error is emptied: its traceback would hold the message, and with it every later
    acknowledgement.
    """
    text = f"{type(error).__name__}: {error}"
    emptied(error)
    for message in messages_in(item) or [Message("", item)]:
        rejected.on_next(rejection(message, text))


def topic_of(item: object) -> str:
    """Return the topic of an item's newest message; empty if it carries none."""
    messages = messages_in(item)
    return newest(messages).topic if messages else ""


def name_topic(error: Exception, *items: object) -> None:
    """Add to the user's own error which message it was about, once."""
    topic = next(filter(None, map(topic_of, items)), "")
    note = f"rxflow: while dealing with a message of topic {printable(topic)}"
    if topic and note not in getattr(error, "__notes__", ()):
        error.add_note(note)


def noting(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function of the user's, whose errors name the topic of the message."""

    @functools.wraps(function)
    def call(*items: Any) -> Any:
        try:
            return function(*items)
        except Exception as error:
            name_topic(error, *items)
            raise
        except CANCELLING as error:
            failure = interrupted(error)
            name_topic(failure, *items)
            raise failure from error

    return call


def emptied(error: BaseException | None) -> None:
    """Drop the tracebacks of an error and its causes: their frames hold messages."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
