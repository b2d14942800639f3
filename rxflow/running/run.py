"""Running pipelines as a service: `run` and `run_async`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, TypeVar, cast, overload

from reactivex import Observable, abc

from rxflow import arguments
from rxflow.errors import ConfigError, ConnectError, RxflowError, SinkError
from rxflow.log import announce, escaped, logger
from rxflow.mqtt.sessions import ClientIds
from rxflow.process.environment import environment_of
from rxflow.process.heartbeat import BLOCKED
from rxflow.running import plain
from rxflow.running.health import Health, Running, Watch
from rxflow.running.pipeline import Life, Pipeline
from rxflow.running.report import Report, counted
from rxflow.running.signals import Stoppable, no_signals, signals
from rxflow.running.sinks import ServiceSink, Sinks, TakingPlain, ids_path
from rxflow.scope import Scope, left

T = TypeVar("T")

_ABORT_SECONDS: Final = 0.5  # for the sinks, and again for the sources
_IDS_SECONDS: Final = 5.0  # for the file of client ids
_CLOSE_SECONDS: Final = 30.0  # likewise, of a run that was told to end


@overload
def run(
    observable: Observable[T],
    sink: abc.ObserverBase[Any],
    /,
    *,
    name: str | None = ...,
    seconds: float | None = ...,
    drain_timeout: float = ...,
    needs_connection: bool = ...,
    log: bool = ...,
    on_start: Callable[[Running], object] | None = ...,
) -> Report: ...
@overload
def run(
    *pipelines: Pipeline | tuple[Observable[Any], abc.ObserverBase[Any]],
    name: str | None = ...,
    seconds: float | None = ...,
    drain_timeout: float = ...,
    needs_connection: bool = ...,
    log: bool = ...,
    on_start: Callable[[Running], object] | None = ...,
) -> Report: ...
def run(  # noqa: PLR0913 (each is one fact)
    *pipelines: Any,
    name: str | None = None,
    seconds: float | None = None,
    drain_timeout: float = 5.0,
    needs_connection: bool = True,
    log: bool = True,
    on_start: Callable[[Running], object] | None = None,
) -> Report:
    """Run a pipeline until it ends, on this thread.

    `run(pipeline)`, or `run(observable, sink)`, which makes one; several, which may `share()` a
    source, as `run(pipeline, pipeline)` or `run((observable, sink), (observable, sink))`. SIGINT,
    SIGTERM and `seconds` complete the sources; the pipeline then has `drain_timeout` to flush,
    commit and acknowledge; the broker keeps what is not done by then. A second signal aborts:
    sinks and connections then have one second to close. Off the main thread, signals are left
    alone.

    Args:
        pipelines: What to run, see above.
        name: Says in the log which run this is; None: as its pipelines are called.
        seconds: The longest it may run; > 0. None: until it ends or a signal comes.
        drain_timeout: Seconds to end in; >= 0.
        needs_connection: Whether a source that never had a connection within `seconds` is a
            `ConnectError`; False: the report says that nothing was received, and no more.
        log: Enable rxflow's log. False leaves it as it is.
        on_start: Called once on this thread, when the sinks are open and nothing has come: with the
            run, which reports at any time and can be stopped. What it raises ends the run.

    Returns:
        What was received and what became of it.

    Raises:
        ConfigError: At once: a setting is wrong, or an asyncio loop runs here.
        Exception: What ended the pipeline, after the sinks are closed: `ConnectError`,
            `DecodeError`, `SinkError`, or what a function of yours raised.
        KeyboardInterrupt: A second SIGINT; SystemExit at a second SIGTERM.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise ConfigError("run(): an asyncio loop runs here; use `await run_async(...)`")
    one = _Run(
        pipelines,
        name,
        seconds,
        drain_timeout,
        needs_connection=needs_connection,
        is_program=log,
        on_start=on_start,
    )
    return asyncio.run(one.to_the_end(signals))


@overload
def run_async(
    observable: Observable[T],
    sink: abc.ObserverBase[Any],
    /,
    *,
    name: str | None = ...,
    seconds: float | None = ...,
    drain_timeout: float = ...,
    needs_connection: bool = ...,
    log: bool = ...,
    on_start: Callable[[Running], object] | None = ...,
) -> Coroutine[Any, Any, Report]: ...
@overload
def run_async(
    *pipelines: Pipeline | tuple[Observable[Any], abc.ObserverBase[Any]],
    name: str | None = ...,
    seconds: float | None = ...,
    drain_timeout: float = ...,
    needs_connection: bool = ...,
    log: bool = ...,
    on_start: Callable[[Running], object] | None = ...,
) -> Coroutine[Any, Any, Report]: ...
def run_async(  # noqa: PLR0913 (likewise)
    *pipelines: Any,
    name: str | None = None,
    seconds: float | None = None,
    drain_timeout: float = 5.0,
    needs_connection: bool = True,
    log: bool = True,
    on_start: Callable[[Running], object] | None = None,
) -> Coroutine[Any, Any, Report]:
    """The same as `run`, inside a running asyncio program: `await` it, or make it a task.

    No signal handlers are installed. Cancelling it completes the sources, drains once, and raises
    `CancelledError`; cancelling it again while it drains disposes at once.
    """
    one = _Run(
        pipelines,
        name,
        seconds,
        drain_timeout,
        needs_connection=needs_connection,
        is_program=log,
        on_start=on_start,
    )
    return one.to_the_end(no_signals)


class _Subscribing:
    """The beginning of a run, as the heartbeat sees it: a source may emit then without end."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._began = loop.time()

    def blocked(self) -> float:
        """Seconds for which the loop has been subscribing; no connection of its own is lost."""
        return min(self._loop.time() - self._began, BLOCKED)

    def beat(self) -> None:
        """There is no connection to keep alive."""

    def breathe(self) -> None:
        """Nothing is read yet."""


class _Run:
    """One run of some pipelines."""

    def __init__(  # noqa: PLR0913 (each is one fact)
        self,
        given: tuple[Any, ...],
        name: str | None,
        seconds: float | None,
        drain_timeout: float,
        *,
        needs_connection: bool,
        is_program: bool,
        on_start: Callable[[Running], object] | None,
    ) -> None:
        pipelines = _pipelines(given)
        if name is not None:
            arguments.text("name", name)
        arguments.wait("seconds", seconds, is_zero_fine=False)
        arguments.wait("drain_timeout", drain_timeout, is_none_fine=False)
        arguments.flag("needs_connection", needs_connection)
        arguments.flag("log", is_program)
        if on_start is not None:
            arguments.function("on_start", on_start)
        self._on_start = on_start
        self._name = escaped(name or ", ".join(dict.fromkeys(each.name for each in pipelines)))
        self._seconds = seconds
        self._drain_timeout = drain_timeout
        self._needs_connection = needs_connection
        self._unreached: list[str] = []
        self._scope = Scope()
        self._context = self._scope.context
        self._context.is_program = is_program
        self._lives = [Life(each, self._one_ended, self._abandon) for each in pipelines]
        main = [each.sink for each in pipelines]
        self._sinks = Sinks(main, self._context, drain_timeout, self._one_ended)
        self._error: Exception | None = None
        self._has_ended = asyncio.Event()
        self._stop = asyncio.Event()
        self._has_drained = False
        self._is_aborted = False
        self._why_stopped = ""
        self._final: Report | None = None

    async def to_the_end(
        self, handled: Callable[[Stoppable], contextlib.AbstractContextManager[None]]
    ) -> Report:
        if self._context.is_program:
            logger.enable("rxflow")
        loop = asyncio.get_running_loop()
        self._watch = Watch(loop, self._context, self._sinks)
        limit = f" for at most {self._seconds:g} s" if self._seconds is not None else ""
        logger.info("launched {}{}", self._name, limit)
        interruption: BaseException | None = None
        with handled(self):
            try:
                self._begin(loop)
                await self._ended_or_stopped()
            except Exception as error:  # noqa: BLE001 (raised below, when all is closed)
                self._one_ended(error)
            except BaseException as error:
                self._why_stopped = self._why_stopped or "cancelled"
                interruption = error
                raise
            finally:
                try:
                    await self._finish_unless_told_twice(interruption)
                except asyncio.CancelledError as error:
                    interruption = interruption or error
                    raise
                finally:
                    self._miss_connections()
                    self._watch.close()
                    report = self._final = self._counted(is_over=True)
                    self._tell(report, interruption or self._error)
        if isinstance(self._error, StopIteration):  # which no coroutine can raise
            raise RxflowError("a function of the pipeline raised StopIteration") from self._error
        if self._error is not None:
            raise self._error
        return report

    def _miss_connections(self) -> None:
        if self._unreached and self._needs_connection and self._error is None:
            brokers = "; nor to ".join(self._unreached)
            self._error = ConnectError(f"in {self._seconds:g} s no connection to {brokers}")

    def _tell(self, report: Report, error: BaseException | None) -> None:
        """The last line; what is raised carries the report, as its attribute `report`."""
        if error is not None:
            with contextlib.suppress(AttributeError):  # of an error with slots
                vars(error)["report"] = report
        if isinstance(error, Exception):
            logger.error("failed {}: {}: {}", self._name, escaped(error), report)
        else:
            logger.info("finished {}: {}", self._name, report)

    # -- beginning ------------------------------------------------------------------------------

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        context, self._context.loop = self._context, loop
        context.is_run = True
        self._sinks.open()
        if identity := self._sinks.identity:
            context.journal = identity.journal
            if path := ids_path(identity):
                context.client_ids = ClientIds(
                    path, lambda: environment_of(loop).worker("rxflow client ids")
                )
        if self._on_start:
            self._watch.begin()
            self._on_start(self)
        context.is_single = len(self._lives) == 1 and self._lives[0].is_single
        subscribing = _Subscribing(loop)
        environment_of(loop).watch(subscribing)
        try:
            for life in self._lives:
                if isinstance(life.sink, TakingPlain):
                    life.sink.on_plain = partial(self._warn_of_plain, life)
                life.begin(self._scope, loop)
        finally:
            environment_of(loop).forget(subscribing)
        self._sinks.open()  # those that the operators reject to

    def _warn_of_plain(self, life: Life, is_made_of_message: bool) -> None:  # noqa: FBT001
        """A plain value came to a sink: say once if it was a message, and is acknowledged."""
        life.sink.on_plain = None
        text = plain.early(life.operators, is_made_of_message=is_made_of_message)
        if text and self._context.sources:
            announce(f"{self._name}: {text}", is_program=self._context.is_program)

    def _one_ended(self, error: Exception | None) -> None:
        if error is not None and self._error is None:
            self._error = error
            self._context.has_failed = True
            self._abandon()  # before the pipeline that failed drops its messages
        if error is not None or all(life.has_ended for life in self._lives):
            self._has_ended.set()

    def _abandon(self) -> None:
        """From now on acknowledge only what every sink has stored."""
        for source in self._context.sources:
            source.ledger.abandon(len(self._lives))

    # -- ending ---------------------------------------------------------------------------------

    def stop(self, why: str) -> None:
        """Complete the sources; the first reason counts. On any thread."""
        arguments.text("why", why)
        self._context.here(partial(self._stopped, escaped(why)))

    def _stopped(self, why: str) -> None:
        self._why_stopped = self._why_stopped or why
        self._stop.set()

    def interrupt(self) -> None:
        """A signal came while a message is on its way: the loop hears of it behind that one."""
        for source in self._context.sources:
            source.interrupt()

    def abort(self) -> None:
        """Don't drain, don't wait for what closes slowly."""
        self._is_aborted = True

    async def _ended_or_stopped(self) -> None:
        """Until the pipelines have ended; when something stops them, until they have drained."""
        try:
            async with asyncio.timeout(self._seconds):
                await _first(self._has_ended.wait(), self._stop.wait())
        except TimeoutError:
            self._why_stopped = "limit reached"
            self._unreached = [text for s in self._context.sources if (text := s.unreached)]
        if self._has_ended.is_set():
            return
        logger.info("{}: {}; draining", self._name, self._why_stopped)
        await self._drain()

    async def _drain(self) -> None:
        """Complete the sources, and give what they set in motion its time."""
        self._has_drained = True
        self._sinks.hurry()
        has_flushed = asyncio.Event()
        self._scope.complete(has_flushed.set, is_patient=True)
        for source in self._context.sources:
            source.hurry()
        try:
            async with asyncio.timeout(self._drain_timeout):
                await _first(self._has_ended.wait(), self._flushed(has_flushed))
        except TimeoutError:
            self._abandon()  # before what is still at work for one of them is dropped
            gc.collect()  # what only a cycle of references holds is let go of now
            self._tell_who_holds()
        except asyncio.CancelledError:
            self.abort()
            raise
        self._scope.insist()
        if not self._has_ended.is_set():
            self._abandon()
        for life in self._lives:  # those that nothing upstream has completed
            life.end_now()

    def _tell_who_holds(self) -> None:
        """Why the drain has run into its timeout."""
        for source in self._context.sources:
            source.ledger.settle()
        held = sum(source.ledger.unsettled for source in self._context.sources)
        messages = "1 message is" if held == 1 else f"{held:,} messages are"
        by = (
            "a stream that flat_map or its like made of a message has not ended"
            if self._scope.is_at_work
            else "an operator, a list of yours, or an error that is kept holds messages"
        )
        announce(
            f"{self._name}: gave up draining after {self._drain_timeout:g} s: {by}; "
            f"{messages} unacknowledged",
            is_program=self._context.is_program,
        )

    async def _flushed(self, has_flushed: asyncio.Event) -> None:
        await self._sources_closed()
        # A source that gave up waiting acknowledges nothing more of what is still at work.
        if not any(source.ledger.unsettled for source in self._context.sources):
            await has_flushed.wait()

    async def _sources_closed(self) -> None:
        for source in self._context.sources:
            await source.wait_closed()

    async def _finish_unless_told_twice(self, interruption: BaseException | None) -> None:
        """Finish; the first cancel, coming now, waits for what is under way."""
        finishing = asyncio.ensure_future(self._finish())
        try:
            await asyncio.shield(finishing)
        except asyncio.CancelledError:
            if interruption is not None or self._is_aborted:
                finishing.cancel()
            await finishing
            raise

    async def _finish(self) -> None:
        """Dispose, close the sinks, wait for the sources. Also when cancelled or aborted."""
        try:
            if not (self._has_ended.is_set() or self._has_drained or self._is_aborted):
                logger.info("{}: {}; draining", self._name, self._why_stopped)
                await self._drain()  # cancelled: once
        finally:
            self._dispose()
            try:
                async with asyncio.timeout(self._patience):
                    await self._sinks.close()
            except TimeoutError:
                self._give_up_sinks()
                self._sinks.complete_aside()
            await asyncio.sleep(0)  # what operators within groups held, they drop a turn later
            if any(source.ledger.unsettled for source in self._context.sources):
                gc.collect()
            self._leave_the_rest()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._patience):
                    await self._sources_closed()
            if self._context.client_ids:
                self._context.client_ids.close(_IDS_SECONDS)
            left(self._context)

    @property
    def _patience(self) -> float | None:
        """Limit the time of closing: a disk that hangs must not keep a service from ending."""
        if self._is_aborted:
            return _ABORT_SECONDS
        return max(_CLOSE_SECONDS, self._drain_timeout) if self._has_drained else None

    def _give_up_sinks(self) -> None:
        if not self._is_aborted:
            text = f"{self._sinks.unclosed} did not close within {_CLOSE_SECONDS:g} s"
            self._one_ended(SinkError(f"{text}; what it holds is not acknowledged"))

    def _leave_the_rest(self) -> None:
        """Nobody is left to settle a delivery: those still held, by a list say, are not waited for.

        An error's traceback holds some, too.
        """
        for source in self._context.sources:
            ledger = source.ledger
            ledger.finish()
            if ledger.unsettled:
                ledger.fail(self._error or SinkError("the run has ended"))
            ledger.wake()

    def _dispose(self) -> None:
        if not all(life.has_ended for life in self._lives):
            self._abandon()
        for life in self._lives:
            try:
                if self._error is None and not self._is_aborted:
                    life.end_now()
                life.dispose()
            except Exception as error:  # noqa: BLE001 (a `finally_action`, say)
                self._one_ended(error)

    # -- what can be told of it -----------------------------------------------------------------

    def report(self) -> Report:
        """So far; once it has ended, of the whole."""
        return self._final or self._counted()

    def health(self) -> Health:
        """As of now."""
        return self._watch.health()

    def _counted(self, *, is_over: bool = False) -> Report:
        ledgers = [source.ledger for source in self._context.sources]
        return counted(ledgers, self._sinks, self._watch.seconds, is_over=is_over)


def _pipelines(given: tuple[Any, ...]) -> list[Pipeline]:
    """Describe the pipelines that `run` was given.

    Raises:
        ConfigError: It is no pipeline, or two of them end in the same sink.
    """
    if len(given) == 2 and isinstance(given[0], Observable):  # noqa: PLR2004
        given = (given,)
    if not given:
        raise ConfigError("pipelines must be an observable and a sink: both are needed")
    made = [one if isinstance(one, Pipeline) else _pipeline(one, given) for one in given]
    sinks = [id(each.sink) for each in made if isinstance(each.sink, ServiceSink)]
    if len(set(sinks)) < len(sinks):
        raise ConfigError("run(): two pipelines end in the same sink; merge() the observables")
    return made


def _pipeline(one: Any, given: tuple[Any, ...]) -> Pipeline:
    """Return the pipeline of an observable and a sink; a refusal names the missing one."""
    pair: Any = one if isinstance(one, tuple) else given
    right = "pipelines must be an observable and a sink, pairs of them, or Pipelines"
    if len(pair) != 2:  # noqa: PLR2004
        raise ConfigError(f"{right}, not {arguments.shown(one)}")
    observable, sink = pair
    if not isinstance(observable, Observable):
        raise ConfigError(f"{right}; no Observable is {arguments.shown(observable)}")
    if not isinstance(one, tuple) or not arguments.is_observer(sink):
        made = " (make one)" * isinstance(sink, type)
        raise ConfigError(f"{right}; no sink is {arguments.shown(sink)}{made}")
    return Pipeline(cast("Observable[Any]", observable), sink)


async def _first(*waits: Coroutine[Any, Any, object]) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
