"""The environment of a loop: the date, chance, threads, the heartbeat.

A loop that has a `environment` of its own, as the virtual loop of `rxflow.testing` does, answers
for itself; on every other loop all of it is real.
"""

from __future__ import annotations

import asyncio
import random
import threading
from asyncio import AbstractEventLoop
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from rxflow.process.heartbeat import Beating, heartbeat
from rxflow.process.worker import Worker, Works


class Environment:
    """The real ones."""

    def utc(self) -> datetime:
        """The date and time, in UTC."""
        return datetime.now(UTC)

    def jittered(self, longest: float, host: str) -> float:
        """The wait before the next attempt to connect, so that not all clients come at once.

        Args:
            longest: Seconds; the wait is at least half of it.
            host: Where the attempt goes.
        """
        del host
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 (jitter)

    def start(self, work: Callable[[], object], name: str) -> None:
        """Do what blocks on a daemon thread, so that nothing waits for a dead host."""
        threading.Thread(target=work, name=name, daemon=True).start()

    def worker(self, name: str, store: object = None) -> Works:
        """One daemon thread that does what it is given in order; who asks for it ends it.

        Args:
            name: Of the thread.
            store: Into which it writes, if it does: a marble test has one that is slow.

        Raises:
            RuntimeError: The interpreter is shutting down.
        """
        del store
        return Worker(name)

    def watch(self, link: Beating) -> None:
        """Keep a connection alive while user code blocks the loop, until it is forgotten."""
        heartbeat.watch(link)

    def forget(self, link: Beating) -> None:
        """Let it go. Safe to call more than once."""
        heartbeat.forget(link)


_REAL: Final = Environment()


def environment_of(loop: AbstractEventLoop) -> Environment:
    """Those that this loop brings along, or the real ones."""
    found = getattr(loop, "environment", None)
    return found if isinstance(found, Environment) else _REAL


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The asyncio loop that runs on this thread, if any."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
