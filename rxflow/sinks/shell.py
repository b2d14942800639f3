"""The shell that the sinks of rxflow share: it takes an item, rejects one, and fails."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from reactivex import abc

from rxflow import arguments
from rxflow.delivery import Journal
from rxflow.errors import SinkError
from rxflow.message import Message
from rxflow.process.forked import tell_in_child
from rxflow.process.read_pass import on_its_way
from rxflow.rejection import rejection
from rxflow.sinks.rows import tokens


class Shell(abc.ObserverBase[Any]):
    """An observer that answers for what it takes.

    Args:
        shown: Names it in errors and in the log.
        rejected: Gets a record (see `rxflow.rejection`) of each item that can't be used; without it
            such an item fails the sink.

    Attributes:
        rejected: As given.
        is_program: Set by `run`, which reports what otherwise is raised or warned of.
        on_failure: Called once with the error when the sink fails; set by `run`.
        on_plain: Called with each plain value, and whether a message is on its way; set by `run`.
        failure: Why nothing more is stored, once that is so. Nothing is acknowledged after it.
        error: What the stream ended with, if it failed.
        journal: Keeps receipts of QoS 2 messages; None if nothing does.

    Raises:
        ConfigError: `rejected` is no observer.
    """

    def __init__(self, shown: str, rejected: abc.ObserverBase[Any] | None) -> None:
        arguments.observer("rejected", rejected)
        self.rejected = rejected
        self.is_program = False
        self.on_failure: Callable[[SinkError], object] | None = None
        self.on_plain: Callable[[bool], object] | None = None
        self.failure: SinkError | None = None
        self.error: Exception | None = None
        self.journal: Journal | None = None
        self._shown = shown
        self._rejecting = threading.Lock()  # items come from threads, what a broker refuses doesn't
        tell_in_child(self)

    def forked(self) -> None:
        """In a forked child another thread may have held the lock, which that one never frees."""
        self._rejecting = threading.Lock()

    def _enveloped(self, value: Any) -> Message[Any]:
        """A plain value in the envelope of the message that it was made of, if there is one."""
        made_of: Message[Any] | None = on_its_way()
        if self.on_plain is not None:
            self.on_plain(made_of is not None)
        return made_of.with_payload(value) if made_of else Message("", value)

    def _reject(self, message: Message[Any], reason: str) -> None:
        """Give a message that can't be used to `rejected`, which there is."""
        if self.rejected is not None:
            with self._rejecting:
                self.rejected.on_next(rejection(message, reason))

    def _disown(self, value: Any, error: SinkError) -> None:
        """Say of each message that it was not stored, before anybody lets go of it."""
        for token in tokens(value):
            token.fail(error)
