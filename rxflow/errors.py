"""Every error that rxflow raises, and the one warning.

    RxflowError
      ConfigError (ValueError)   while composing: a setting or topic filter is wrong
      ConnectError               the broker refused, or cannot be reached
      DecodeError                a payload is not what was promised
      SinkError                  the sink could not store

The cause of each is kept in `__cause__`. None of their texts holds a password.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Final


class RxflowError(Exception):
    """The base of every error of rxflow."""


class ConfigError(RxflowError, ValueError):
    """A setting or a topic filter is wrong. Raised while composing, before any I/O."""


class ConnectError(RxflowError):
    """The broker refused the connection or a subscription, or cannot be reached.

    Attributes:
        reason_code: The code of CONNACK or SUBACK as the broker sent it; None if it never answered.
    """

    def __init__(self, text: str, *, reason_code: int | None = None) -> None:
        super().__init__(text)
        self.reason_code = reason_code


class DecodeError(RxflowError):
    """A payload is not what the pipeline was promised.

    Attributes:
        topic: Where the message came from.
    """

    def __init__(self, text: str, *, topic: str) -> None:
        super().__init__(text)
        self.topic = topic


class SinkError(RxflowError):
    """A sink could not store what it was given. Nothing more is acknowledged after it."""


class RxflowWarning(UserWarning):
    """A warning that a user must see, when no `run` is there to log it."""


CANCELLING: Final = (asyncio.CancelledError, GeneratorExit, SystemExit)
"""Raised by a function of the user's these end no stream: they are no `Exception`."""


def interrupted(error: BaseException) -> RxflowError:
    """The error of a stream whose function was cancelled, or raised a cancellation."""
    if isinstance(error, SystemExit) and _is_heard():
        raise error
    failure = RxflowError(f"a function of the stream raised {error!r}")
    failure.__cause__ = error
    return failure


def _is_heard() -> bool:
    """Whether SystemExit ends more than its thread: on the main thread, or out of a loop."""
    return (
        threading.current_thread() is threading.main_thread()
        or asyncio._get_running_loop() is not None  # noqa: SLF001 (None where none runs)
    )
