"""`Marbles`: tests of pipelines as diagrams, in virtual time.

    marbles = Marbles()
    source = marbles.hot("-a-b-c-d--|", name="sensor")
    marbles.check(source.pipe(ops.buffer_with_count(2)), "---x---y--|", x=["a", "b"], y=["c", "d"])
    assert source.subscriptions == "^---------!"

    broker = marbles.mqtt("sensors/1/temp q1 : --a-b---", a=21, b=22)
    sink = marbles.sink(disk="--===---")
    marbles.run(run_async(broker.from_mqtt("sensors/#"), sink, seconds=9))
    assert broker.acknowledged("sensors/1/temp") == "-----^"

Without pytest too. `rxflow.testing.diagrams.notation` has the notation,
`rxflow.testing.virtual.time` the order of what happens at one instant.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Final, Self, TypeVar, cast

from reactivex import Observable, abc

from rxflow import arguments
from rxflow.testing.broker.diagram import DiagramBroker
from rxflow.testing.diagrams.diagram import Diagram
from rxflow.testing.diagrams.durations import MICROSECOND, DiagramError, nanoseconds, written
from rxflow.testing.diagrams.events import Event
from rxflow.testing.diagrams.notation import parse
from rxflow.testing.diagrams.rendering import Row
from rxflow.testing.disk import DiagramSink
from rxflow.testing.observation import Call, Observation
from rxflow.testing.pending import Debt, Pending, Place, warn_at_the_end
from rxflow.testing.sources import Cold, Hot, Part, Played, Source
from rxflow.testing.subscriptions import Span, spans_in
from rxflow.testing.virtual.clock import Phase
from rxflow.testing.virtual.environment import apart
from rxflow.testing.virtual.loop import VirtualLoop
from rxflow.testing.virtual.scheduler import VirtualScheduler, timers_on
from rxflow.testing.virtual.time import VirtualTime, raised_in_threads

T = TypeVar("T")
Error = BaseException | type[BaseException]

_FRAMES: Final = 1000  # beyond all diagrams, in which what goes on and on may still end


class Marbles:
    """The diagrams of a test, and the virtual time that they play in.

    A check plays every source from its beginning; its zero is where the one before ended. It runs
    until nothing is left to do, or up to `limit`. What never ends fails it, unless there is a
    limit, or the expected diagram ends in `...`.

    As a context manager it also puts timers without a scheduler on virtual time in between, and at
    its end fails the test if something is pending; see `close`. Without one, the plugin for pytest
    does that, and elsewhere it is an `RxflowWarning`.

    Attributes:
        time: Its clock.
        at_finish: Closes at the end of the test what is put into it.

    Args:
        frame: From one character to the next.
        limit: How far a check or a run goes, counted from zero. None: a check until nothing is
            left to do; a run a day, or twenty thousand steps of what goes on and on.

    Raises:
        DiagramError: At call time, when one is no duration.
    """

    def __init__(self, *, frame: str | int = "1s", limit: str | int | None = None) -> None:
        self._frame = nanoseconds(frame, "frame")
        parse("", frame=self._frame)
        self._limit = None if limit is None else nanoseconds(limit, "limit")
        self.time = VirtualTime()
        self.at_finish = ExitStack()
        self._parts: list[Part] = []
        self._sources: list[Played] = []
        self._calls: list[Call] = []
        self._waiting: list[Observation] = []
        self._pending = Pending()
        self._tasks: Debt | None = None
        self._errors: list[BaseException] = []
        self._open = ExitStack()
        warn_at_the_end(self, self._pending)

    @property
    def scheduler(self) -> VirtualScheduler:
        """The virtual scheduler, for operators that want a scheduler of their own."""
        return self.time.scheduler

    @property
    def loop(self) -> VirtualLoop:
        """The same time for asyncio."""
        return self.time.loop

    @property
    def frame(self) -> int:
        """From one character to the next, in nanoseconds."""
        return self._frame

    def hot(
        self, text: str, *, name: str | None = None, error: Error | None = None, **values: Any
    ) -> Source:
        """A source that plays from zero on, whether or not somebody listens.

        Args:
            text: What it does. `^` and `!` in it say when a check subscribes and unsubscribes.
            name: What a failure calls it.
            error: What `#` is.
            values: What the keys stand for.

        Raises:
            DiagramError: The diagram is wrong.
        """
        _check_source(text, name, error)
        diagram = parse(text, frame=self._frame, values=values, error=_made(error), role="hot")
        list(spans_in(diagram))
        if self.time.is_running:
            raise DiagramError("hot: made too late, for it plays from zero on; make it before")
        return self._source(Hot(diagram, self._name(name or "hot"), self.time))

    def cold(
        self, text: str, *, name: str | None = None, error: Error | None = None, **values: Any
    ) -> Source:
        """A source that plays from its beginning for each subscription. Arguments as of `hot`."""
        _check_source(text, name, error)
        diagram = parse(text, frame=self._frame, values=values, error=_made(error), role="cold")
        return self._source(Cold(diagram, self._name(name or "cold"), self.time))

    def at(self, time: str, function: Callable[[], object]) -> None:
        """Call a function at a time of the next check, like `"3s"`; what it raises, that raises."""
        arguments.function("function", function)
        call = Call(nanoseconds(time, "time"), function, self.time, self._pending)
        self._calls.append(call)
        self._parts.append(call)

    def mqtt(self, text: str, /, *, frame: str | int | None = None, **values: Any) -> DiagramBroker:
        """A broker that does what a diagram says; a lane for each topic. See `DiagramBroker`.

        Args:
            text: Lines: `topic q1 r : --a--b`; when it can be reached, `$connection : ^-!`.
            frame: Of these lanes; None: that of the test.
            values: The payload of each key: bytes as they are, everything else as JSON.

        Raises:
            DiagramError: A lane is wrong.
        """
        arguments.text("text", text, is_empty_fine=True)
        frame = self._frame if frame is None else frame
        broker = DiagramBroker(
            self.loop,
            text,
            values,
            frame=frame,
            settle=self.settle,
            pending=self._pending,
        )
        self.add(broker)
        return broker

    def sink(
        self,
        disk: str = "",
        *,
        frame: str | int | None = None,
        rejected: abc.ObserverBase[Any] | None = None,
    ) -> DiagramSink:
        """A `JsonSink` whose disk is slow (`=`), full (`x`) or dead (`#`) on cue.

        `disk="--====--x"` is slow for four frames, and full for the one after two others.

        Args:
            disk: What the disk does.
            frame: Of that diagram; None: that of the test.
            rejected: As of `JsonSink`.

        Raises:
            DiagramError: The diagram is wrong.
        """
        arguments.text("disk", disk, is_empty_fine=True)
        arguments.observer("rejected", rejected)
        frame = self._frame if frame is None else frame
        loop = self.loop
        sink = DiagramSink(
            loop,
            disk,
            frame=frame,
            rejected=rejected,
            settle=self.settle,
            pending=self._pending,
        )
        self.add(sink.disk)
        return sink

    def observe(self, observable: Observable[Any], subs: str | None = None) -> Observed:
        """Observe an observable. It plays when the result is first looked at, or checked.

        Args:
            observable: What is subscribed to.
            subs: When: `"--^--!"`. Without it where a hot source has `^`, or at zero.

        Raises:
            DiagramError: `subs` is no diagram of one subscription.
        """
        arguments.observable("observable", observable)
        observation = Observation(observable, self._span(subs), self.time, self._pending)
        self._waiting.append(observation)
        return Observed(observation, self)

    def check(
        self,
        observable: Observable[Any] | Observed,
        expected: str | Diagram,
        *,
        subs: str | None = None,
        error: Error | None = None,
        **values: Any,
    ) -> None:
        """Play, and compare the whole timeline, silence included.

        Args:
            observable: What is subscribed to; or what `observe` returned.
            expected: What it does.
            subs: When it is subscribed to; see `observe`.
            error: What `#` is, compared by type and text; of a class the type alone.
            values: What the keys stand for.

        Raises:
            AssertionError: It does something else, or has no end while the diagram has. The text
                shows what, and where.
            DiagramError: A diagram is wrong.
        """
        __tracebackhide__ = True
        _check_error(error)
        if not isinstance(cast("object", expected), str | Diagram):
            arguments.refuse("expected", "a diagram", expected)
        if isinstance(expected, str):
            expected = parse(
                expected, frame=self._frame, values=values, error=error, role="expected"
            )
        elif values or error is not None:
            raise DiagramError("values= and error= belong to a text; this diagram has its own")
        if not isinstance(observable, Observed):
            observed = self.observe(observable, subs)
        elif subs is None:
            observed = observable
        else:
            raise DiagramError("subs= comes too late: give it to observe")
        problem = observed.explain(expected)
        if problem:
            raise AssertionError(problem)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end, as `asyncio.run` does, in virtual time.

        Sources, brokers and disks play from their beginning, as in a check. What blocks (a thread
        pool, `to_thread`) is done in the same instant.

        Returns:
            What the coroutine returns.

        Raises:
            AssertionError: It is not over at the limit; perhaps it waits for what can't come.
            BaseException: What it, or a task or timer of its, raised.
        """
        __tracebackhide__ = True
        if not inspect.iscoroutine(coroutine):
            arguments.refuse("coroutine", "a coroutine, as main() is", coroutine)
        try:
            self.settle()
            self._refuse_if_playing()
        except BaseException:
            coroutine.close()
            raise
        self.time.begin()
        for part in self._parts:
            part.begin()
        try:
            return self.time.complete(coroutine, self._limit)
        finally:
            self._forget_what_came()
            self._note_tasks()

    def add(self, part: Part) -> None:
        """Have something play in every check from now on."""
        self._parts.append(part)

    def settle(self) -> None:
        """Play what waits to be observed, if anything does.

        Raises:
            DiagramError: It is in the middle of playing.
        """
        if self._waiting:
            self._play()

    @contextmanager
    def active(self) -> Generator[None]:
        """Within, timers without a scheduler are virtual; then the loop and `at_finish` close."""
        with timers_on(self.scheduler), raised_in_threads(self._errors), self.at_finish:
            try:
                yield
            finally:
                self.time.close(quiet=True)

    def close(self) -> None:
        """Close the loop, and fail if something is pending.

        Raises:
            AssertionError: Something was observed and compared with nothing, or compared and not
                asserted; a call never came; a source, a broker or a sink took no part; a task is
                not done. It names the line of the test.
            BaseException: What a task or a thread raised to which nobody listened.
        """
        __tracebackhide__ = True
        self._waiting, self._calls = [], []
        self._note_tasks()
        self._pending.check()
        self.time.close()
        for error in self._errors:
            raise error

    def __enter__(self) -> Self:
        self._open.enter_context(self.active())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        __tracebackhide__ = True
        with self._open:
            if error is None:
                self.close()
            self._pending.clear()

    # -- playing ---------------------------------------------------------------------------------

    def _play(self) -> None:
        """One run of virtual time, from a new zero."""
        self._refuse_if_playing()
        playing, self._waiting = self._waiting, []
        time = self.time
        time.begin()
        span = self._hot_span()
        for observation in playing:
            observation.span = observation.span or span
        for observation in playing:
            if observation.span and (end := observation.span[1]) is not None:
                time.at(end, observation.dispose, Phase.UNSUBSCRIBE)
        for observation in playing:
            start = observation.span[0] if observation.span else 0
            time.at(start, observation.subscribe, Phase.SUBSCRIBE)
        for part in self._parts:
            part.begin()
        try:
            if time.run(*self._end(playing)):
                cut = _endless(time.now)
                for observation in [each for each in playing if not each.is_over] or playing:
                    observation.cut = cut
        finally:
            rows = [row for part in self._parts for row in part.rows()]
            with apart():
                for observation in playing:
                    observation.finish(rows)
            self._forget_what_came()
            self._note_tasks()

    def _refuse_if_playing(self) -> None:
        if self.time.is_running:
            raise DiagramError("a check can't begin in the middle of another")

    def _forget_what_came(self) -> None:
        come = [call for call in self._calls if call.has_come]
        self._calls = [call for call in self._calls if not call.has_come]
        self._parts = [part for part in self._parts if part not in come]

    def _note_tasks(self) -> None:
        """A task that is not done at the end of the test was waited for by nobody."""
        if self._tasks is None and self.time.has_tasks:
            self._tasks = self._pending.add(self.time.tasks_left)

    def _end(self, playing: Sequence[Observation]) -> tuple[int, int | None]:
        """Return the end of the run, and how much longer it follows an endless stream."""
        ends = [observation.until for observation in playing]
        calls = [call.length + MICROSECOND for call in self._calls]
        known = [end for end in ends if end is not None]
        if self._limit is not None:
            limit = self._limit + MICROSECOND
            return (min(limit, max(known + calls)) if len(known) == len(ends) else limit), None
        if len(known) == len(ends):
            return max(known + calls), None
        length = sum(part.length for part in self._parts)
        length += max(observation.length for observation in playing)
        return length + MICROSECOND, _FRAMES * self._frame

    def _span(self, subs: str | None) -> Span | None:
        if subs is None:
            return None
        arguments.text("subs", subs, is_empty_fine=True)
        spans = list(spans_in(parse(subs, frame=self._frame, role="marks")))
        if len(spans) != 1:
            raise DiagramError(f"subs: one ^ and at most one !, not {subs!r}")
        return spans[0]

    def _hot_span(self) -> Span | None:
        """When the hot sources say that a check subscribes."""
        spans = {span for source in self._sources for span in spans_in(source.diagram)}
        if len(spans) > 1:
            raise DiagramError("hot sources with different ^ or !: say when by subs=")
        return next(iter(spans), None)

    def _name(self, name: str) -> str:
        taken = {source.name for source in self._sources}
        names = (name, *(f"{name} {number}" for number in range(2, len(taken) + 2)))
        return next(each for each in names if each not in taken)

    def _source(self, played: Hot | Cold) -> Source:
        self._sources.append(played)
        self._parts.append(played)
        return Source(played, settle=self.settle, pending=self._pending)

    def note(self, text: str) -> None:
        """A comparison failed: it must be an assertion."""
        self._pending.compared(text)

    def compared(self, observation: Observation, expected: Diagram | None) -> None:
        """An observation is being compared: play it, knowing what is expected if it is known."""
        observation.debt.pay()
        if observation in self._waiting:
            observation.expected = expected
        self.settle()


class Observed(Diagram):  # noqa: PLW1641 (equal is not the same here)
    """The timeline of an observable, which plays when this is first looked at."""

    def __init__(self, observation: Observation, marbles: Marbles) -> None:
        super().__init__((), frame=marbles.frame)
        self._observation = observation
        self._marbles = marbles

    @property
    def events(self) -> tuple[Event, ...]:
        self._marbles.compared(self._observation, None)
        return tuple(self._observation.events)

    def __eq__(self, other: object) -> bool:
        __tracebackhide__ = True
        other = self._parsed(other)
        if not isinstance(other, Diagram):
            return NotImplemented
        self._marbles.compared(self._observation, other)
        if text := self.explain(other):
            if super().__eq__(other):
                raise AssertionError(text)
            self._marbles.note(text)
        return not text

    def __ne__(self, other: object) -> bool:
        __tracebackhide__ = True
        other = self._parsed(other)
        if not isinstance(other, Diagram):
            return NotImplemented
        self._marbles.compared(self._observation, other)
        differs = self.difference(other) is not None
        if not differs:
            self._marbles.note(f"equal to {other}")
        return differs

    def explain(
        self, expected: Diagram | str, *, sources: Sequence[Row] = (), place: object = None
    ) -> str:
        diagram: Diagram = self._parsed(expected)
        self._marbles.compared(self._observation, diagram)
        place = Place.of_caller() if place is None else place
        if self.difference(diagram) is None:
            cut = self._observation.cut if diagram.until is None else ""
            return cut and f"{cut} [{place}]" if place else cut
        rows = [*self._observation.rows, *sources]
        return super().explain(diagram, sources=rows, place=place)

    def _parsed(self, other: Any) -> Any:
        if isinstance(other, str):
            return parse(other, frame=self.frame, role="expected")
        return other


def _endless(end: int) -> str:
    return (
        f"nothing differs, but at {written(end)} something is still to come: end the diagram in "
        "..., give the pipeline an end, or Marbles (or its marker) a limit="
    )


def _check_source(text: object, name: object, error: object) -> None:
    arguments.text("text", text, is_empty_fine=True)
    if name is not None:
        arguments.text("name", name)
    _check_error(error)


def _check_error(error: object) -> None:
    is_class = isinstance(error, type) and issubclass(error, BaseException)
    if error is not None and not is_class and not isinstance(error, BaseException):
        arguments.refuse("error", "an exception or a class of them", error)


def _made(error: Error | None) -> BaseException | None:
    return error() if isinstance(error, type) else error
