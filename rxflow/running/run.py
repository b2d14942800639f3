"""Running a pipeline as a service: `run` and `run_async`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import threading
from collections.abc import Callable, Coroutine, Generator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar, cast, overload, runtime_checkable

from reactivex import Observable, abc, typing
from reactivex.disposable import Disposable
from reactivex.scheduler.eventloop import AsyncIOScheduler

from rxflow import arguments
from rxflow.delivery import Journal
from rxflow.errors import (
    CANCELLING,
    ConfigError,
    ConnectError,
    RxflowError,
    SinkError,
    interrupted,
)
from rxflow.log import announce, escaped, logger
from rxflow.mqtt.sessions import ClientIds
from rxflow.process.environment import surroundings_of
from rxflow.running.report import Report
from rxflow.scope import Scope, left, subscribing, within

S = TypeVar("S")
T = TypeVar("T")

# Operators that pass on an item while it is on its way, or none.
_PASSING_NAMES: Final = """
    as_observable catch concat_map decode_json default_if_empty distinct distinct_until_changed do
    do_action element_at element_at_or_default expand filter filter_indexed finally_action find
    find_index first first_or_default flat_map flat_map_indexed map map_indexed merge merge_all
    on_error_resume_next pluck pluck_attr publish ref_count repeat retry scan share skip skip_until
    skip_until_with_time skip_while skip_while_indexed skip_with_time start_with starmap
    starmap_indexed take take_until take_until_with_time take_while take_while_indexed
    take_with_time tap throttle_first time_interval timeout timestamp
"""
_PASSING: Final = frozenset(_PASSING_NAMES.split())

# Operators that make one item of several messages: reactivex keeps the delivery of the last alone.
_JOINING_NAMES: Final = """
    average buffer buffer_toggle buffer_when buffer_with_count buffer_with_time
    buffer_with_time_or_count combine_latest fork_join last max min pairwise reduce sum
    take_last_buffer to_dict to_iterable to_list to_set with_latest_from zip zip_with_iterable
"""
_JOINING: Final = frozenset(_JOINING_NAMES.split())

_ABORTED_BY_SIGTERM: Final = 128 + signal.SIGTERM
_ABORT_SECONDS: Final = 0.5  # for the sinks, and again for the sources
_IDS_SECONDS: Final = 5.0  # for the file of client ids
_CLOSE_SECONDS: Final = 30.0  # likewise, of a run that was told to end


@runtime_checkable
class ServiceSink(Protocol):
    """A sink of rxflow's, as a run sees it; any other observer gets its events, and no more."""

    is_program: bool
    on_failure: Callable[[SinkError], object] | None
    rejected: abc.ObserverBase[Any] | None
    rows: int
    commits: int
    bytes: int

    def open(self) -> None: ...
    def on_completed(self) -> None: ...
    async def wait_closed(self) -> None: ...


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


@overload
def run(
    observable: Observable[T],
    sink: abc.ObserverBase[Any],
    /,
    *,
    name: str = ...,
    seconds: float | None = ...,
    drain_timeout: float = ...,
    needs_connection: bool = ...,
    log: bool = ...,
) -> Report: ...
@overload
def run(
    *pipelines: tuple[Observable[Any], abc.ObserverBase[Any]],
    name: str = ...,
    seconds: float | None = ...,
    drain_timeout: float = ...,
    needs_connection: bool = ...,
    log: bool = ...,
) -> Report: ...
def run(
    *pipelines: Any,
    name: str = "pipeline",
    seconds: float | None = None,
    drain_timeout: float = 5.0,
    needs_connection: bool = True,
    log: bool = True,
) -> Report:
    """Run a pipeline until it ends, on this thread.

    `run(observable, sink)`, or `run((observable, sink), (observable, sink), ...)` for several that
    `share()` a source. SIGINT, SIGTERM and `seconds` complete the sources; the pipeline then has
    `drain_timeout` to flush, commit and acknowledge; what is not done by then is left to the
    broker. A second signal aborts: sinks and connections then have one second to close. Off the
    main thread, signals are left alone.

    Args:
        pipelines: What to run, see above.
        name: Says in the log which pipeline this is.
        seconds: The longest it may run; > 0. None: until it ends or a signal comes.
        drain_timeout: Seconds to end in; >= 0.
        needs_connection: Whether a source that never had a connection within `seconds` is a
            `ConnectError`; False: the report says that nothing was received, and no more.
        log: Enable rxflow's log. False leaves it as it is.

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
        pipelines, name, seconds, drain_timeout, needs_connection=needs_connection, is_program=log
    )
    return asyncio.run(one.to_the_end(_signals))


@overload
def run_async(
    observable: Observable[T],
    sink: abc.ObserverBase[Any],
    /,
    *,
    name: str = ...,
    seconds: float | None = ...,
    drain_timeout: float = ...,
    needs_connection: bool = ...,
    log: bool = ...,
) -> Coroutine[Any, Any, Report]: ...
@overload
def run_async(
    *pipelines: tuple[Observable[Any], abc.ObserverBase[Any]],
    name: str = ...,
    seconds: float | None = ...,
    drain_timeout: float = ...,
    needs_connection: bool = ...,
    log: bool = ...,
) -> Coroutine[Any, Any, Report]: ...
def run_async(
    *pipelines: Any,
    name: str = "pipeline",
    seconds: float | None = None,
    drain_timeout: float = 5.0,
    needs_connection: bool = True,
    log: bool = True,
) -> Coroutine[Any, Any, Report]:
    """The same as `run`, inside a running asyncio program: `await` it, or make it a task.

    No signal handlers are installed. Cancelling it completes the sources, drains once, and raises
    `CancelledError`; cancelling it again while it drains disposes at once.
    """
    one = _Run(
        pipelines, name, seconds, drain_timeout, needs_connection=needs_connection, is_program=log
    )
    return one.to_the_end(_no_signals)


class _Scheduler(AsyncIOScheduler):
    """The loop's scheduler; what is raised in a timer, where nobody is above, ends the run."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, raised: Callable[[Exception], None]
    ) -> None:
        super().__init__(loop)
        self._raised = raised

    def invoke_action(
        self, action: typing.ScheduledAction[S], state: S | None = None
    ) -> abc.DisposableBase:
        try:
            return super().invoke_action(action, state)
        except Exception as error:  # noqa: BLE001 (raised by the run)
            self._raised(error)
            return Disposable()
        except CANCELLING as error:
            self._raised(interrupted(error))
            return Disposable()


class _Pipeline:
    """One observable and its sink, within a run."""

    def __init__(
        self,
        observable: Observable[Any],
        sink: Any,
        ended: Callable[[Exception | None], None],
        failing: Callable[[], None],
    ) -> None:
        self.sink = sink
        self.has_ended = False
        self.operators: tuple[str, ...] = getattr(observable, "operators", ())
        self._observable = observable
        self._ended = ended
        self._failing = failing
        self._scope = Scope()
        self._subscription: abc.DisposableBase = Disposable()

    @property
    def is_single(self) -> bool:
        """True if at most one row can come of a message; see `Flow.is_single`."""
        return getattr(self._observable, "is_single", False)

    def begin(self, scope: Scope, loop: asyncio.AbstractEventLoop) -> None:
        """Subscribe, in a scope of its own within that of the run."""
        self._scope = scope.branch()
        with subscribing(self._scope):
            self._subscription = self._observable.subscribe(
                self.sink.on_next,
                self._on_error,
                self._on_completed,
                scheduler=within(self._scope, _Scheduler(loop, self._ended)),
            )

    def end_now(self) -> None:
        """Complete the sink, whatever is upstream."""
        if not self.has_ended:
            self.dispose()
            self._complete()

    def dispose(self) -> None:
        """Let go of the whole pipeline, and of the messages that its operators hold."""
        subscription, self._subscription = self._subscription, Disposable()
        subscription.dispose()

    def _on_completed(self) -> None:
        self._scope.context.here(self._complete)  # a stream may end on a thread of its own

    def _complete(self) -> None:
        if self.has_ended:
            return
        self.has_ended = True
        if self._scope.context.journal is self.sink:
            self._scope.context.journal = None  # it writes down nothing more
        try:
            self.sink.on_completed()
        except Exception as error:  # noqa: BLE001 (raised by the run)
            self._ended(error)
        else:
            self._ended(None)

    def _on_error(self, error: BaseException) -> None:
        if not isinstance(error, Exception):  # `from_future` hands on a CancelledError
            cause, error = error, RxflowError(f"a future of the stream was cancelled: {error!r}")
            error.__cause__ = cause
        self._failing()  # before this thread drops what it holds
        self._scope.context.here(partial(self._fail, error))

    def _fail(self, error: Exception) -> None:
        self.has_ended = True
        self._ended(error)
        try:
            self.sink.on_error(error)
        except Exception as raised:  # noqa: BLE001 (reactivex's default observer raises it again)
            self._ended(raised)


class _Run:
    """One run of some pipelines."""

    def __init__(  # noqa: PLR0913 (each is one fact)
        self,
        pipelines: tuple[Any, ...],
        name: str,
        seconds: float | None,
        drain_timeout: float,
        *,
        needs_connection: bool,
        is_program: bool,
    ) -> None:
        self._needs_connection = needs_connection
        self._unreached: list[str] = []
        self._pipelines = [
            _Pipeline(*pair, self._one_ended, self._abandon) for pair in _pairs(pipelines)
        ]
        arguments.text("name", name)
        arguments.wait("seconds", seconds, is_zero_fine=False)
        arguments.wait("drain_timeout", drain_timeout, is_none_fine=False)
        arguments.flag("needs_connection", needs_connection)
        arguments.flag("log", is_program)
        self._name = escaped(name)
        self._seconds = seconds
        self._drain_timeout = drain_timeout
        self._scope = Scope()
        self._context = self._scope.context
        self._context.is_program = is_program
        self._error: Exception | None = None
        self._has_ended = asyncio.Event()
        self._stop = asyncio.Event()
        self._has_drained = False
        self._is_aborted = False
        self._why_stopped = ""
        self._opened: list[ServiceSink] = []

    @property
    def _sinks(self) -> list[ServiceSink]:
        """Main sinks, and those that bad messages were set aside to; each once."""
        sinks: list[Any] = [pipeline.sink for pipeline in self._pipelines]
        found = {id(sink): sink for sink in [*sinks, *self._aside] if isinstance(sink, ServiceSink)}
        return list(found.values())

    @property
    def _aside(self) -> list[Any]:
        """The observers that bad messages are set aside to."""
        of_sinks = [getattr(p.sink, "rejected", None) for p in self._pipelines]
        found = {id(o): o for o in [*self._context.rejected, *of_sinks] if o is not None}
        return list(found.values())

    async def to_the_end(
        self, signals: Callable[[_Run], contextlib.AbstractContextManager[None]]
    ) -> Report:
        if self._context.is_program:
            logger.enable("rxflow")
        loop = asyncio.get_running_loop()
        began = loop.time()
        limit = f" for at most {self._seconds:g} s" if self._seconds is not None else ""
        logger.info("launched {}{}", self._name, limit)
        interruption: BaseException | None = None
        with signals(self):
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
                    report = self._report(loop.time() - began)
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
        self._context.loop = loop
        self._context.is_run = True
        self._open_sinks()
        sinks: list[Any] = [p.sink for p in self._pipelines if isinstance(p.sink, ServiceSink)]
        path = next((Path(sink.path) for sink in sinks if hasattr(sink, "path")), None)
        if path is not None:
            self._context.client_ids = ClientIds(
                path.with_name(f"{path.name}.client"),
                lambda: surroundings_of(loop).worker("rxflow client ids"),
            )
        self._context.journal = next(
            (p.sink for p in self._pipelines if isinstance(p.sink, Journal)), None
        )
        self._context.is_single = len(self._pipelines) == 1 and self._pipelines[0].is_single
        for pipeline in self._pipelines:
            if isinstance(pipeline.sink, TakingPlain):
                pipeline.sink.on_plain = partial(self._warn_of_plain, pipeline)
            pipeline.begin(self._scope, loop)
        self._open_sinks()  # those that the operators set aside to

    def _open_sinks(self) -> None:
        for sink in self._sinks:
            if sink not in self._opened:
                sink.on_failure = self._fail
                sink.is_program = self._context.is_program  # of what it must say while opening
                sink.open()
                sink.is_program = True  # its end is told by this run
                self._opened.append(sink)
                if isinstance(sink, Draining):
                    sink.drain_within(self._drain_timeout)

    def _warn_of_plain(self, pipeline: _Pipeline, is_made_of_message: bool) -> None:  # noqa: FBT001
        """A plain value came to a sink: say once if it was a message, and is acknowledged."""
        pipeline.sink.on_plain = None
        names = pipeline.operators
        plain = next((name for name in names if name.startswith("rx.")), None)
        if plain is None or not self._context.sources:
            return
        at = names.index(plain)
        holding = [name for name in names[at + 1 :] if _bare_name(name) not in _PASSING]
        if joining := [name for name in names[:at] if _bare_name(name) in _JOINING]:
            plain, holding = f"{plain} behind {joining[-1]}", holding or ["what comes of it"]
        if holding or not is_made_of_message:
            announce(
                f"{self._name}: {plain} is an operator of reactivex itself: what it makes of a "
                "message has lost its delivery, so the message is acknowledged before "
                f"{holding[0] if holding else 'what comes of it'} is stored; use the operator of "
                "rxflow.operators",
                is_program=self._context.is_program,
            )

    def _one_ended(self, error: Exception | None) -> None:
        if error is not None and self._error is None:
            self._error = error
            self._context.has_failed = True
            self._abandon()  # before the pipeline that failed drops its messages
        if error is not None or all(pipeline.has_ended for pipeline in self._pipelines):
            self._has_ended.set()

    def _abandon(self) -> None:
        """From now on acknowledge only what every sink has stored."""
        for source in self._context.sources:
            ledger = source.ledger
            ledger.abandon()
            ledger.needed = max(ledger.needed, len(self._pipelines))

    def _fail(self, error: SinkError) -> None:
        self._one_ended(error)

    # -- ending ---------------------------------------------------------------------------------

    def stop(self, why: str) -> None:
        """Complete the sources; the first reason counts."""
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
        for sink in self._opened:
            if isinstance(sink, Draining):
                sink.hurry()
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
        for pipeline in self._pipelines:  # those that nothing upstream has completed
            pipeline.end_now()

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
            f"{messages} left to the broker",
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
            aside = self._aside
            try:
                async with asyncio.timeout(self._patience):
                    # What a broker refuses at the very end can still be set aside.
                    await self._closed([sink for sink in self._opened if sink not in aside])
                    await self._closed(aside)
            except TimeoutError:
                self._give_up_sinks()
                self._complete(aside)
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
        """How long what closes may take: a disk that hangs must not keep a service from ending."""
        if self._is_aborted:
            return _ABORT_SECONDS
        return max(_CLOSE_SECONDS, self._drain_timeout) if self._has_drained else None

    def _give_up_sinks(self) -> None:
        if not self._is_aborted:
            open_ones = [sink for sink in self._opened if not getattr(sink, "is_closed", False)]
            names = ", ".join(str(getattr(sink, "path", "a sink")) for sink in open_ones)
            text = f"{names or 'a sink'} did not close within {_CLOSE_SECONDS:g} s"
            self._error = self._error or SinkError(f"{text}; what it holds is not acknowledged")

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
        if not all(pipeline.has_ended for pipeline in self._pipelines):
            self._abandon()
        for pipeline in self._pipelines:
            try:
                if self._error is None and not self._is_aborted:
                    pipeline.end_now()
                pipeline.dispose()
            except Exception as error:  # noqa: BLE001 (a `finally_action`, say)
                self._error = self._error or error

    def _complete(self, sinks: Sequence[abc.ObserverBase[Any]]) -> None:
        for sink in sinks:
            try:
                sink.on_completed()
            except Exception as error:  # noqa: BLE001 (the next one is closed all the same)
                self._error = self._error or error

    async def _closed(self, sinks: Sequence[Any]) -> None:
        """Complete them, and wait until those of rxflow are closed."""
        self._complete(sinks)
        for sink in sinks:
            if isinstance(sink, ServiceSink):
                try:
                    await sink.wait_closed()
                except SinkError as error:
                    self._error = self._error or error

    def _report(self, seconds: float) -> Report:
        ledgers = [source.ledger for source in self._context.sources]
        aside = sum(sink.rows for sink in self._aside if isinstance(sink, ServiceSink))
        rows = sum(sink.rows for sink in self._sinks)
        received = sum(ledger.received + ledger.received0 for ledger in ledgers)
        stored = sum(ledger.stored + ledger.stored0 for ledger in ledgers)
        if not ledgers:
            received = stored = rows
        left = sum(ledger.left for ledger in ledgers)
        # A QoS 0 message that two sinks stored is counted twice: it has no delivery of its own.
        stored = min(stored, received - left)
        aside = min(aside, stored)  # beside a source, plain values don't count
        stored -= aside
        return Report(
            received=received,
            stored=stored,
            filtered=received - stored - aside - left,
            rejected=aside,
            unacknowledged=left,
            commits=sum(sink.commits for sink in self._sinks),
            bytes=sum(sink.bytes for sink in self._sinks),
            seconds=seconds,
        )


def _pairs(pipelines: tuple[Any, ...]) -> list[tuple[Observable[Any], abc.ObserverBase[Any]]]:
    if len(pipelines) == 2 and isinstance(pipelines[0], Observable):  # noqa: PLR2004
        pipelines = (pipelines,)
    if not pipelines:
        raise ConfigError("pipelines must be an observable and a sink: both are needed")
    for pair in pipelines:
        if (
            not isinstance(pair, tuple)
            or len(cast("tuple[Any, ...]", pair)) != 2  # noqa: PLR2004
            or not isinstance(pair[0], Observable)
            or not arguments.is_observer(cast("Any", pair[1]))
        ):
            raise _no_pair(pipelines, pair)
    sinks = [id(sink) for _, sink in pipelines if isinstance(sink, ServiceSink)]
    if len(set(sinks)) < len(sinks):
        raise ConfigError("run(): two pipelines end in the same sink; merge() the observables")
    return list(pipelines)


def _no_pair(pipelines: tuple[Any, ...], wrong: Any) -> ConfigError:
    """Of what is no pipeline; the text says which of the two it lacks."""
    pair: Any = wrong if isinstance(wrong, tuple) else pipelines
    right = "pipelines must be an observable and a sink, or pairs of them"
    if len(pair) != 2:  # noqa: PLR2004
        return ConfigError(f"{right}, not {arguments.shown(wrong)}")
    observable, sink = pair
    if not isinstance(observable, Observable):
        return ConfigError(f"{right}; no Observable is {arguments.shown(observable)}")
    made = " (make one)" * isinstance(sink, type)
    return ConfigError(f"{right}; no sink is {arguments.shown(sink)}{made}")


def _bare_name(operator: str) -> str:
    return operator.split("(", maxsplit=1)[0].rsplit(".", maxsplit=1)[-1]


async def _first(*waits: Coroutine[Any, Any, object]) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


@contextlib.contextmanager
def _no_signals(_: _Run) -> Generator[None]:
    yield


@contextlib.contextmanager
def _signals(one: _Run) -> Generator[None]:
    """The first SIGINT or SIGTERM stops the run, the second aborts it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    seen: list[int] = []  # by the loop
    arrived: list[int] = []
    has_raised = False

    def receive(number: signal.Signals) -> None:
        if has_raised:
            return
        seen.append(number)
        if len(seen) == 1:
            one.stop(number.name)
        elif task:
            one.abort()
            task.cancel()

    def interrupt(number: int, _: object) -> None:
        nonlocal has_raised
        arrived.append(number)
        one.interrupt()
        if len(arrived) > 1 and not seen:  # code of the user's keeps the loop from seeing any
            has_raised = True
            one.abort()
            raise _aborted(number)

    try:
        with _installed(loop, receive, interrupt):
            yield
    except asyncio.CancelledError:
        if len(seen) > 1:
            raise _aborted(seen[-1]) from None
        raise


@contextlib.contextmanager
def _installed(
    loop: asyncio.AbstractEventLoop,
    receive: Callable[[signal.Signals], None],
    interrupt: Callable[[int, object], None],
) -> Generator[None]:
    """Have a signal call `interrupt` at once and `receive` on the loop, then be as before."""
    earlier = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in earlier:
        loop.add_signal_handler(number, receive, number)  # wakes the loop
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in earlier.items():
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _aborted(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(_ABORTED_BY_SIGTERM)
