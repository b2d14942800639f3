"""One thread for the whole process that keeps connections alive while user code blocks their loop.

A broker that hears nothing for one and a half keep-alives closes the connection [MQTT-3.1.2-22],
and a function that computes for a minute on the loop would lose it. The thread exists while there
is a connection. A loop that is blocked for five minutes is as good as dead: from then on the broker
is no longer told otherwise, and gives what it has for this client to others, or keeps it.
"""

from __future__ import annotations

import sys
import threading
from types import FrameType
from typing import Final, Protocol

from rxflow.log import announce, escaped
from rxflow.process.disk import awaited_on
from rxflow.process.forked import tell_in_child

BLOCKED: Final = 5.0
"""Seconds of a blocked loop after which it is said, once for each connection."""

BREATH: Final = 0.5
"""Seconds of a blocked loop after which it gets its turn behind the message that is on its way."""

DEAD: Final = 300.0
"""Seconds of a blocked loop after which its connection is no longer kept alive."""

_PERIOD: Final = 0.25
_LIBRARIES: Final = frozenset({"rxflow", "reactivex", "paho", "orjson", "loguru", "runpy"})


class Beating(Protocol):
    """A connection that can be kept alive from another thread."""

    def blocked(self) -> float:
        """For how many seconds the loop has been blocked."""
        ...

    def beat(self) -> None:
        """Send a PINGREQ if one is due."""
        ...

    def breathe(self) -> None:
        """End the read pass under way behind the message that it is at, and go on after that."""
        ...


class _Watch:
    """The state of a watched connection: the thread of its loop, and what was told of it."""

    __slots__ = ("is_given_up", "is_told", "thread")

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.is_told = self.is_given_up = False


class Heartbeat:
    """The thread, and the connections that it watches."""

    def __init__(self) -> None:
        self.forked()
        tell_in_child(self)

    def forked(self) -> None:
        """Begin anew: the thread, and the connections, stayed with the parent."""
        self._lock = threading.Lock()
        self._watched: dict[Beating, _Watch] = {}
        self._stop = threading.Event()

    def watch(self, link: Beating) -> None:
        """Keep it alive until it is forgotten. On the thread of its loop."""
        with self._lock:
            if not self._watched:
                self._stop = threading.Event()
                thread = threading.Thread(
                    target=self._run, args=(self._stop,), name="rxflow heartbeat", daemon=True
                )
                thread.start()
            self._watched[link] = _Watch()

    def forget(self, link: Beating) -> None:
        """Let it go; with the last one the thread ends. Safe to call more than once."""
        with self._lock:
            if self._watched.pop(link, None) is not None and not self._watched:
                self._stop.set()

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(_PERIOD):
            with self._lock:
                watched = list(self._watched.items())
            for link, watch in watched:
                self._look_after(link, watch)

    def _look_after(self, link: Beating, watch: _Watch) -> None:
        blocked = link.blocked()
        if blocked >= BREATH:
            link.breathe()
        if blocked < DEAD:
            link.beat()
        elif not watch.is_given_up:
            watch.is_given_up = True
            text = f"{_blocking(watch.thread)} has blocked the event loop for {blocked:.0f} s"
            text = f"{text}: its connection is no longer kept alive, and the broker will close it"
            announce(text, is_program=True)
        if blocked >= BLOCKED and not watch.is_told:
            watch.is_told = True
            self._tell(watch.thread, blocked)

    def _tell(self, thread: int, blocked: float) -> None:
        text = f"{_blocking(thread)} has blocked the event loop for {blocked:.0f} s: nothing is"
        text = f"{text} received or acknowledged meanwhile"
        if not awaited_on(thread):
            text = f"{text}; move slow work to a thread (observe_on, or to_thread)"
        announce(text, is_program=True)


def _blocking(thread: int) -> str:
    """Name the disk, or the user's function, that keeps a thread from going on."""
    if file := awaited_on(thread):
        return f"{file}: its disk"
    frames = sys._current_frames()  # noqa: SLF001 (the one way)  # pyright: ignore[reportPrivateUsage]
    frame = frames.get(thread)
    while frame is not None and not _is_of_the_user(frame):
        frame = frame.f_back
    if frame is None:
        return "a function"
    code = frame.f_code
    return f"{code.co_qualname} ({escaped(code.co_filename)}:{frame.f_lineno})"


def _is_of_the_user(frame: FrameType) -> bool:
    module = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    return module not in sys.stdlib_module_names and module not in _LIBRARIES


heartbeat: Final = Heartbeat()
