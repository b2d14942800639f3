"""A pipeline as it is described, and its life in a run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from reactivex import Observable, abc, typing
from reactivex.disposable import Disposable
from reactivex.scheduler.eventloop import AsyncIOScheduler

from rxflow import arguments
from rxflow.errors import CANCELLING, RxflowError, interrupted
from rxflow.running.sinks import Identity
from rxflow.scope import Scope, subscribing, within

S = TypeVar("S")


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Pipeline:
    """An observable and the sink that it ends in; `run` runs it.

    Making one describes it: no file is opened, nothing connects, no thread starts.

    Attributes:
        observable: What is run, with all its operators.
        sink: Its end: a sink of rxflow's, or any observer.
        name: Says in the log which pipeline this is.

    Raises:
        ConfigError: At call time: one of them is wrong.
    """

    observable: Observable[Any]
    sink: abc.ObserverBase[Any]
    name: str = field(default="pipeline", kw_only=True)

    def __post_init__(self) -> None:
        arguments.observable("observable", self.observable)
        if not arguments.is_observer(self.sink):
            arguments.refuse("sink", "a sink, or another observer that was made", self.sink)
        arguments.text("name", self.name)

    def __repr__(self) -> str:
        observable: Any = self.observable
        flow = repr(observable) if hasattr(observable, "operators") else type(observable).__name__
        sink = type(self.sink)
        shown = sink.__name__ if sink.__repr__ is object.__repr__ else repr(self.sink)
        return f"{self.name}: {flow} -> {shown}"


class Life:
    """One pipeline within a run: from its subscription to the end of its sink.

    Args:
        pipeline: What it is.
        ended: Called with the error that ended it, or None.
        failing: Called before that, on whatever thread, before an operator drops what it holds.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        ended: Callable[[Exception | None], None],
        failing: Callable[[], None],
    ) -> None:
        self.sink: Any = pipeline.sink
        self.journal = pipeline.sink.journal if isinstance(pipeline.sink, Identity) else None
        self.has_ended = False
        self.operators: tuple[str, ...] = getattr(pipeline.observable, "operators", ())
        self._observable = pipeline.observable
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
        if self.journal is not None and self._scope.context.journal is self.journal:
            self._scope.context.journal = None  # it records nothing more
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
