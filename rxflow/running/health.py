"""A run while it runs: what it has done so far, and how it is."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final, Protocol

from rxflow.context import Context
from rxflow.delivery import Ledger
from rxflow.running.report import Report
from rxflow.running.sinks import Sinks

_EVERY: Final = 1.0  # seconds
_MOST: Final = 64  # marks of one source


@dataclass(frozen=True, slots=True)
class Health:
    """The health of a run, in seconds. A run is checked once a second, so each may be one too many.

    Attributes:
        connected_for: For how long every source has had its connection; None: one has none now,
            or there is no source.
        oldest_unacknowledged: Since the oldest message that is not acknowledged was received, of
            QoS 1 and 2; None: all are.
        standing_still_for: For how long messages have been held while none was received, stored or
            filtered; 0 while it moves or holds none.
        last_commit_ago: Since a sink last stored something; None: none has.
    """

    connected_for: float | None
    oldest_unacknowledged: float | None
    standing_still_for: float
    last_commit_ago: float | None


class Running(Protocol):
    """A run while it runs, as `run(on_start=...)` hands it out. On any thread, at any time."""

    def report(self) -> Report:
        """Return the figures so far. It costs nothing on a message's way."""
        ...

    def health(self) -> Health:
        """Return its health now."""
        ...

    def stop(self, why: str) -> None:
        """End it as a signal does: complete the sources, drain, and report.

        Args:
            why: For the log. The first reason counts.
        """
        ...


class Watch:
    """Looks at a run once a second, on its loop; asks nothing of a message.

    Args:
        loop: That of the run.
        context: Its sources.
        sinks: Its sinks.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, context: Context, sinks: Sinks) -> None:
        self._loop = loop
        self._context = context
        self._sinks = sinks
        self._marks: list[_Marks] = []
        self._commits = 0
        self._committed_at: float | None = None
        self._began = self._looked_at = loop.time()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Look from now on; what nobody asks for is not looked at."""
        self._look()

    def _look(self) -> None:
        now, sources = self._loop.time(), self._context.sources
        new = sources[len(self._marks) :]
        self._marks += [_Marks(each.ledger, self._looked_at) for each in new]
        self._looked_at = now
        for marks in self._marks:
            marks.look(now)
        if (commits := self._sinks.commits) != self._commits:
            self._commits, self._committed_at = commits, now
        self._timer = self._loop.call_later(_EVERY, self._look)

    def close(self) -> None:
        """Look no more."""
        if self._timer:
            self._timer.cancel()

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return self._loop.time() - self._began

    def health(self) -> Health:
        """As of now."""
        now = self._loop.time()
        live = [source.connected_at for source in self._context.sources if not source.has_ended]
        since = [at for at in live if at is not None]
        oldest = [at for marks in self._marks if (at := marks.oldest) is not None]
        return Health(
            connected_for=now - max(since) if live and len(since) == len(live) else None,
            oldest_unacknowledged=now - min(oldest) if oldest else None,
            standing_still_for=max((marks.still(now) for marks in self._marks), default=0.0),
            last_commit_ago=None if self._committed_at is None else now - self._committed_at,
        )


class _Marks:
    """When the deliveries of one ledger were received, as far as looking now and then can tell."""

    def __init__(self, ledger: Ledger, now: float) -> None:
        self._ledger = ledger
        self._times: list[tuple[int, float]] = [(0, now)]  # so many were received until then
        self._state = (0, 0)
        self._moved_at = now

    def look(self, now: float) -> None:
        if self._moves:
            self._state, self._moved_at = self._now, now
        times, count = self._times, self._ledger.opened
        if times[-1][0] == count:
            times[-1] = count, now
        else:
            times.append((count, now))
        while len(times) > 1 and times[1][0] <= self._first:
            del times[0]
        if len(times) > _MOST:
            del times[1:-1:2]

    @property
    def _now(self) -> tuple[int, int]:
        return self._ledger.received, self._ledger.unsettled

    @property
    def _moves(self) -> bool:
        return self._now != self._state or not self._ledger.unsettled

    @property
    def _first(self) -> int:
        """The number of the oldest that is not acknowledged."""
        return self._ledger.opened - len(self._ledger.queue)

    @property
    def oldest(self) -> float | None:
        """When that was received, at the earliest; None: all are acknowledged."""
        first = self._first
        if first == self._ledger.opened:
            return None
        return next((at for count, at in reversed(self._times) if count <= first), None)

    def still(self, now: float) -> float:
        """For how long nothing has moved while something is held."""
        return 0.0 if self._moves else now - self._moved_at
