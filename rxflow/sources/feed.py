"""Acknowledged sources other than MQTT: `from_feed` makes one of whatever can be read."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Generator, Sequence
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from reactivex import abc
from reactivex.disposable import Disposable

from rxflow import arguments
from rxflow.delivery import Delivery
from rxflow.errors import CANCELLING, RxflowError, interrupted
from rxflow.flow import Flow
from rxflow.log import announce, escaped
from rxflow.message import Message
from rxflow.operators.operator import unwrapped
from rxflow.process.environment import environment_of
from rxflow.process.read_pass import read_pass, under_way
from rxflow.scope import Scope
from rxflow.sources.source import Source, at_home, ignore

P = TypeVar("P")
Q = TypeVar("Q", covariant=True)  # noqa: PLC0105 (one letter, as in every generic here)

_TICK: Final = 0.05  # seconds
_DRAIN_SECONDS: Final = 5.0
_ADVICE: Final = (
    "A window larger than max_pending never fills: make it smaller or timed, or raise max_pending"
)


class Feed(Protocol[Q]):
    """An acknowledged source: read item by item, and told which to forget. On one loop's thread."""

    async def read(self, emit: Callable[[Q, int], None]) -> None:
        """Emit each item with its position, until there are no more; then return.

        `emit` never waits. While `max_pending` items are unacknowledged this coroutine is not
        resumed from the `await` it stands at: so await something between items, or between small
        batches. What it raises fails the stream. At the end of the stream it is cancelled.

        Args:
            emit: Takes an item, and a number that names it in `acknowledge`.
        """
        ...

    def acknowledge(self, positions: Sequence[int]) -> None:
        """Forget these: stored, or let go by an operator. In the order emitted, each once.

        What takes time belongs into a task of its own, which `close` awaits. Nothing is
        acknowledged after a failure. What it raises fails the stream.
        """
        ...

    async def close(self) -> None:
        """End: `read` is over, and no further call follows. What is not acknowledged comes again.

        It has five seconds.
        """
        ...


def from_feed(
    make: Callable[[], Feed[P]], *, label: str, max_pending: int = 10_000
) -> Flow[Message[P]]:
    """The items of a feed, as an observable of messages of QoS 1 and topic `label`.

    Cold: each subscription makes a feed, also that of a `retry`, once the feed before is closed. A
    second subscription while the first lives is a `ConfigError` in the stream: put `share()` behind
    it. As with `from_mqtt`, an item is acknowledged when the last reference to its message is gone,
    in the order emitted; it is stored or let go by then, or the stream has ended, and then only
    what is stored is acknowledged.

    Args:
        make: Makes the feed, on the stream's thread.
        label: Names the source in logs and errors, and is the topic of its messages.
        max_pending: Most items that are emitted and not settled; reading goes on at half.

    Returns:
        A `Flow`, which completes when `read` returns and fails with what it raises.

    Raises:
        ConfigError: At call time: an argument is wrong.
    """
    arguments.function("make", make)
    arguments.text("label", label)
    arguments.check_range("max_pending", max_pending, 1, 1 << 31)
    latest: FeedSource[P] | None = None

    def begin(
        observer: abc.ObserverBase[Message[P]],
        scope: Scope | None,
        loop: asyncio.AbstractEventLoop,
    ) -> abc.DisposableBase:
        nonlocal latest
        if scope and scope.is_over:
            return Disposable()
        if latest is not None and not latest.has_ended:
            raise arguments.wrong(
                f"from_feed({label!r})",
                "be subscribed to once at a time, or each subscription would read a feed of its "
                "own; put share() behind it",
            )
        earlier, latest = latest, FeedSource(make, label, max_pending, observer, loop, scope)
        latest.start(earlier)
        return Disposable(latest.dispose)

    flow = Flow(at_home(begin), label=f"from_feed {label}")
    flow.is_single = True
    return flow


class FeedSource(Source[P]):
    """One subscription of a feed.

    Args:
        make: Makes the feed.
        label: Names it.
        max_pending: Most items that are emitted and not settled.
        observer: Gets the messages.
        loop: The thread of everything here.
        scope: The scope that it was subscribed in, if any.

    Attributes:
        message: The one that is on its way through the pipeline now; None between two.
    """

    def __init__(  # noqa: PLR0913, PLR0917 (each is one fact)
        self,
        make: Callable[[], Feed[P]],
        label: str,
        max_pending: int,
        observer: abc.ObserverBase[Message[P]],
        loop: asyncio.AbstractEventLoop,
        scope: Scope | None,
    ) -> None:
        super().__init__(observer, loop, scope, drain_timeout=_DRAIN_SECONDS, advice=_ADVICE)
        self.message: Message[P] | None = None
        self._make = make
        self._label = label
        self._max_pending = max_pending
        self._on_next = unwrapped(observer)  # a source stops by itself
        self._feed: Feed[P] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._is_stopped = False
        self._room = asyncio.Event()  # cleared at `max_pending`, set again at half
        self._room.set()
        self._ticking: asyncio.TimerHandle | None = None

    # -- reading ----------------------------------------------------------------------------------

    def _begin(self) -> None:
        if self.has_ended:
            return
        try:
            feed = self._feed = self._make()
            reading = _Paced(feed.read(self._emit), self._pass, self._room)
        except Exception as error:  # noqa: BLE001 (the user's function: it is the stream's)
            self.fail(error)
            return
        self.connected_at = self._loop.time()
        self._reading = self._loop.create_task(reading.to_the_end())
        self._reading.add_done_callback(partial(self._read, reading))

    def _pass(self, step: Callable[[], None]) -> None:
        """Emit: items between two awaits are committed together."""
        read_pass(step, self._loop, self)
        if self.ledger.has_news:
            self.settle()

    def _emit(self, payload: P, position: int) -> None:
        if threading.get_ident() != self._thread:
            text = "emit was called on another thread; use loop.call_soon_threadsafe(emit, ...)"
            raise RxflowError(f"{self._label}: {text}")
        if self._is_stopped:
            return
        ledger = self.ledger
        utc = environment_of(self._loop).utc()
        delivery = Delivery(ledger, position)
        self.message = Message(self._label, payload, 1, received_at=utc, delivery=delivery)
        del delivery
        if under_way.carrier is self:
            self._hand_on()
        else:  # it came by a callback of the feed's own
            read_pass(self._hand_on, self._loop, self)
        if ledger.unsettled >= self._max_pending:
            self._room.clear()
        if self._ticking is None:
            self._ticking = self._loop.call_later(_TICK, self._tick)

    def _hand_on(self) -> None:
        try:
            self._on_next(self.message)  # pyright: ignore[reportArgumentType]  # it was set
        except Exception as error:  # noqa: BLE001 (a subscriber's, none of the feed's)
            self.raised(error)
        except CANCELLING as error:
            self.raised(interrupted(error))
        finally:
            self.message = None

    def _read(self, paced: _Paced, reading: asyncio.Task[None]) -> None:
        """`read` is over."""
        paced.close()
        if self.has_ended:
            if not reading.cancelled() and (error := reading.exception()):
                self._tell("ended with", error)
        elif reading.cancelled():
            self.fail(interrupted(asyncio.CancelledError("the feed's read was cancelled")))
        elif error := reading.exception():
            self.fail(error if isinstance(error, Exception) else interrupted(error))
        else:
            self.complete()

    def interrupt(self) -> None:
        self._is_stopped = True

    @property
    def unreached(self) -> str | None:
        return None

    # -- acknowledging ----------------------------------------------------------------------------

    def settle(self) -> None:
        self.ledger.settle()
        self._acknowledge()
        self.settled()
        if self.ledger.unsettled <= self._max_pending // 2:
            self._room.set()

    def _acknowledge(self) -> None:
        ready, _ = self.ledger.take()
        if ready and self._feed is not None:
            try:
                self._feed.acknowledge(ready)
            except Exception as error:  # noqa: BLE001 (the feed's: it is the stream's)
                self.fail(error)

    def _tick(self) -> None:
        """Settle what timers and other threads let go, as long as anything is held."""
        self._ticking = None
        self.settle()
        if self.ledger.unsettled and not self.closed.done():
            self._ticking = self._loop.call_later(_TICK, self._tick)

    # -- the end ----------------------------------------------------------------------------------

    def _stop_receiving(self) -> None:
        self._is_stopped = True
        if self._reading:
            self._reading.cancel()

    def _close(self) -> None:
        self._on_next = ignore
        super()._close()

    @property
    def _is_settling(self) -> bool:
        return self._ticking is not None

    async def _say_goodbye(self, *, has_failed: bool) -> None:
        del has_failed
        self._acknowledge()
        feed, self._feed, self.connected_at = self._feed, None, None
        if feed is None:
            return
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                if self._reading:
                    await asyncio.wait([self._reading])
                await feed.close()
        except Exception as error:  # noqa: BLE001 (the stream has ended already)
            self._tell("did not close:", error)

    def _tell(self, what: str, error: BaseException) -> None:
        text = f"{escaped(self._label)}: the feed {what} {escaped(repr(error))}"
        announce(
            f"{text}; what it does not know as acknowledged comes again",
            is_program=self._context.is_program,
        )


class _Paced:
    """A coroutine that is resumed only while there is room.

    Args:
        work: The coroutine.
        run: Runs each stretch of it between two awaits.
        room: Set while it may go on.
    """

    def __init__(
        self,
        work: Coroutine[Any, Any, None],
        run: Callable[[Callable[[], None]], None],
        room: asyncio.Event,
    ) -> None:
        self._steps = work.__await__()
        self._run = run
        self._room = room

    async def to_the_end(self) -> None:
        """Await it."""
        await self

    def close(self) -> None:
        """Let go of it, if it never began."""
        self._steps.close()

    def __await__(self) -> Generator[Any, Any, None]:
        error: BaseException | None = None
        while True:
            awaited: list[Any] = []
            self._run(partial(self._step, error, awaited))
            if not awaited:
                return
            error = None
            try:
                yield awaited.pop()
                yield from self._room.wait().__await__()
            except BaseException as raised:  # noqa: BLE001 (of what it awaits: it is its own)
                error = raised

    def _step(self, error: BaseException | None, awaited: list[Any]) -> None:
        with contextlib.suppress(StopIteration):
            awaited.append(self._steps.send(None) if error is None else self._steps.throw(error))
