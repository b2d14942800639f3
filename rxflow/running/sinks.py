"""The sinks of a run: opened before the first message, closed after the last, and counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from reactivex import abc

from rxflow.context import Context
from rxflow.delivery import Journal
from rxflow.errors import SinkError


@runtime_checkable
class ServiceSink(Protocol):
    """A sink of rxflow's, as a run sees it; any other observer gets its events, and no more.

    Attributes:
        is_program: True if the run tells what must be told.
        on_failure: Called once with the error when the sink fails.
        rejected: The observer that gets what can't be stored, if any.
        rows: Rows that are durable.
        commits: How often it wrote and synced.
        bytes: What it wrote.
    """

    is_program: bool
    on_failure: Callable[[SinkError], object] | None
    rejected: abc.ObserverBase[Any] | None
    rows: int
    commits: int
    bytes: int

    def open(self) -> None:
        """Open or connect, now rather than at the first item."""
        ...

    def on_completed(self) -> None:
        """Store what waits and close."""
        ...

    async def wait_closed(self) -> None:
        """Return when it is closed; raise SinkError if it failed."""
        ...


@runtime_checkable
class Draining(Protocol):
    """A sink whose end takes as long as another side wants: it publishes."""

    def drain_within(self, seconds: float) -> None:
        """The `drain_timeout` of the run, before it begins."""
        ...

    def hurry(self) -> None:
        """The run was told to stop."""
        ...


@runtime_checkable
class TakingPlain(Protocol):
    """A sink that says of a plain value whether a message is on its way; see `FileSink`."""

    on_plain: Callable[[bool], object] | None


@runtime_checkable
class Identity(Protocol):
    """A sink by which a broker may know the run: what is stored says what was received."""

    @property
    def session_path(self) -> Path | None:
        """The file beside which the run keeps its client ids; None: it keeps none."""
        ...

    @property
    def journal(self) -> Journal | None:
        """Records which QoS 2 messages are stored; None: nothing does."""
        ...


class Sinks:
    """Those of the pipelines of a run, and those given as `rejected=`; each once.

    Args:
        main: Of the pipelines, in order.
        context: The run.
        drain_timeout: That of the run.
        failed: Called with the error of a sink.
    """

    def __init__(
        self,
        main: Sequence[Any],
        context: Context,
        drain_timeout: float,
        failed: Callable[[Exception], None],
    ) -> None:
        self._main = main
        self._context = context
        self._drain_timeout = drain_timeout
        self._failed = failed
        self._opened: list[ServiceSink] = []

    @property
    def _aside(self) -> list[Any]:
        """The observers given as `rejected=`."""
        of_sinks = [getattr(sink, "rejected", None) for sink in self._main]
        found = {id(o): o for o in [*self._context.rejected, *of_sinks] if o is not None}
        return list(found.values())

    @property
    def _all(self) -> list[ServiceSink]:
        each = [*self._main, *self._aside]
        return list({id(sink): sink for sink in each if isinstance(sink, ServiceSink)}.values())

    @property
    def identity(self) -> Identity | None:
        """The one sink by which the run is known: the first that was before, else the first."""
        known = [sink for sink in self._main if isinstance(sink, Identity)]
        kept = [sink for sink in known if (path := ids_path(sink)) and path.exists()]
        named = [sink for sink in known if sink.session_path]
        return next(iter([*kept, *named, *known]), None)

    @property
    def rows(self) -> int:
        """Rows that are durable, in all of them."""
        return sum(sink.rows for sink in self._all)

    @property
    def rejected(self) -> int:
        """Rows of those given as `rejected=`."""
        return sum(sink.rows for sink in self._aside if isinstance(sink, ServiceSink))

    @property
    def commits(self) -> int:
        """The number of times that they wrote and synced."""
        return sum(sink.commits for sink in self._all)

    @property
    def bytes(self) -> int:
        """The number of bytes that they wrote."""
        return sum(sink.bytes for sink in self._all)

    def open(self) -> None:
        """Open those that are known and not open.

        Raises:
            SinkError: One can't be opened.
        """
        for sink in self._all:
            if sink not in self._opened:
                sink.on_failure = self._failed
                sink.is_program = self._context.is_program  # of what it must say while opening
                sink.open()
                sink.is_program = True  # its end is told by the run
                self._opened.append(sink)
                if isinstance(sink, Draining):
                    sink.drain_within(self._drain_timeout)

    def hurry(self) -> None:
        """The run was told to stop."""
        for sink in self._opened:
            if isinstance(sink, Draining):
                sink.hurry()

    async def close(self) -> None:
        """Complete all that are open, and return when they are closed."""
        aside = self._aside
        # What a broker refuses at the very end can still be rejected.
        await self._closed([sink for sink in self._opened if sink not in aside])
        await self._closed(aside)

    def complete_aside(self) -> None:
        """Complete those given as `rejected=`, without waiting."""
        self._complete(self._aside)

    @property
    def unclosed(self) -> str:
        """Those that are open still, for people."""
        open_ones = [sink for sink in self._opened if not getattr(sink, "is_closed", False)]
        return ", ".join(map(repr, open_ones)) or "a sink"

    def _complete(self, sinks: Sequence[abc.ObserverBase[Any]]) -> None:
        for sink in sinks:
            try:
                sink.on_completed()
            except Exception as error:  # noqa: BLE001 (the next one is closed all the same)
                self._failed(error)

    async def _closed(self, sinks: Sequence[Any]) -> None:
        self._complete(sinks)
        for sink in sinks:
            if isinstance(sink, ServiceSink):
                try:
                    await sink.wait_closed()
                except SinkError as error:
                    self._failed(error)


def ids_path(sink: Identity) -> Path | None:
    """The file of client ids beside the output."""
    path = sink.session_path
    return path.with_name(f"{path.name}.client") if path else None
