"""A run as its sources, its operators and its sinks see it: what all its pipelines share."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from reactivex import abc

from rxflow.delivery import Journal, Ledger
from rxflow.process.environment import running_loop


class Connection(Protocol):
    """A source, as far as a run sees it.

    Attributes:
        ledger: Its deliveries.
        has_ended: True once it hands on nothing more.
        connected_at: Since when it has its connection, by the loop's clock; None: it has none.
    """

    ledger: Ledger
    has_ended: bool
    connected_at: float | None

    @property
    def unreached(self) -> str | None:
        """The broker, and why there is no connection, while there has been none and is wanted."""
        ...

    def interrupt(self) -> None:
        """A signal will end the run: hand on nothing behind the message that is on its way."""
        ...

    def hurry(self) -> None:
        """The run is told to end: wait for no longer than the drain timeout."""
        ...

    async def wait_closed(self) -> None:
        """Return when nothing more is received, acknowledged or sent."""
        ...


@dataclass(slots=True, eq=False, weakref_slot=True)
class Context:
    """The facts of one run; without `run`, those of one subscription.

    Attributes:
        is_run: True under `run`, which waits for what is downstream of a source.
        is_program: True if what the user must know goes to the log.
        is_single: True if at most one row can come of a message.
        has_failed: True once an error ended the run.
        client_ids: The sessions that this run keeps beside its output, if it does.
        journal: The sink that records which QoS 2 messages it has stored.
        sources: The connections that this run waits for.
        rejected: The observers to which its operators reject messages.
        loop: The asyncio loop on which it lives, if any.
        home: Makes that loop when a source first needs it; None: that of the thread, or of the
            background.
    """

    is_run: bool = False
    is_program: bool = False
    is_single: bool = False
    has_failed: bool = False
    client_ids: Any = None  # of `rxflow.mqtt.sessions`
    journal: Journal | None = None
    sources: list[Connection] = field(default_factory=list[Connection])
    rejected: list[abc.ObserverBase[Any]] = field(default_factory=list[abc.ObserverBase[Any]])
    loop: asyncio.AbstractEventLoop | None = None
    home: Callable[[], asyncio.AbstractEventLoop] | None = None

    def adopt(self, rejected: abc.ObserverBase[Any] | None) -> None:
        """Note an observer that gets rejected messages; the run drains and closes it."""
        if rejected is not None and not any(rejected is other for other in self.rejected):
            self.rejected.append(rejected)

    def here(self, act: Callable[[], None]) -> None:
        """Do it on the thread of its loop, at once if this is it."""
        loop = self.loop
        if loop is None or loop is running_loop():
            act()
        else:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nothing is left to end
                loop.call_soon_threadsafe(act)
