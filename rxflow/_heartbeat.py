"""One thread for the whole process that keeps connections alive while user code blocks their loop.

A broker that hears nothing for one and a half keep-alives closes the connection [MQTT-3.1.2-22],
and a function that computes for a minute on the loop would lose it. The thread exists while there
is a connection.
"""

from __future__ import annotations

import threading
from typing import Final, Protocol

from rxflow.log import announce

BLOCKED: Final = 5.0
"""Seconds of a blocked loop after which it is said, once for each connection."""

_PERIOD: Final = 0.25


class Beating(Protocol):
    """A connection that can be kept alive from another thread."""

    def beat(self) -> float:
        """Send a PINGREQ if one is due; return for how many seconds the loop has been blocked."""
        ...


class Heartbeat:
    """The thread, and the connections that it watches."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: dict[Beating, bool] = {}  # and whether its blocked loop was told of
        self._stop = threading.Event()

    def watch(self, link: Beating) -> None:
        """Keep it alive until it is forgotten."""
        with self._lock:
            if not self._watched:
                self._stop = threading.Event()
                thread = threading.Thread(
                    target=self._run, args=(self._stop,), name="rxflow heartbeat", daemon=True
                )
                thread.start()
            self._watched[link] = False

    def forget(self, link: Beating) -> None:
        """Let it go; with the last one the thread ends. Twice is once."""
        with self._lock:
            if self._watched.pop(link, None) is not None and not self._watched:
                self._stop.set()

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(_PERIOD):
            with self._lock:
                watched = list(self._watched.items())
            for link, is_told in watched:
                blocked = link.beat()
                if blocked >= BLOCKED and not is_told:
                    self._tell(link, blocked)

    def _tell(self, link: Beating, blocked: float) -> None:
        with self._lock:
            if link in self._watched:
                self._watched[link] = True
        announce(
            f"a function has blocked the event loop for {blocked:.0f} s: nothing is received or "
            "acknowledged meanwhile; move slow work to a thread (observe_on, or to_thread)",
            is_program=True,
        )


heartbeat: Final = Heartbeat()
