"""One subscription of `from_mqtt`: from the first CONNECT to the last acknowledgement."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from reactivex import Observer, abc

from rxflow._client import Client, Settings
from rxflow._settings import SILENCE
from rxflow._standstill import Standstill
from rxflow.delivery import Journal, Ledger
from rxflow.errors import ConnectError, RxflowError, SinkError
from rxflow.log import PerSecond, announce, logger, printable
from rxflow.message import Message
from rxflow.operators.operator import unwrapped
from rxflow.topics import check_topic

_REFUSED: Final = 0x80


@dataclass(frozen=True, slots=True)
class Connected:
    """What `on_connect` is told, each time that the subscription stands.

    Attributes:
        session_present: True if the broker kept the session: messages missed meanwhile will come.
        reconnects: 0 the first time.
    """

    session_present: bool
    reconnects: int


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a source asks for.

    Attributes:
        filters: Each topic filter with its QoS.
        matches: Whether a topic is one of them.
        on_connect: Called when the subscription stands.
    """

    filters: tuple[tuple[str, int], ...]
    matches: Callable[[str], bool]
    on_connect: Callable[[Connected], object] | None


class Source:
    """A connection, its ledger, and the observer that they feed. Lives on one loop's thread.

    Args:
        settings: Where and how to connect.
        subscription: What to ask for.
        observer: Who gets the messages.
        loop: The thread of everything here.
        drain_timeout: Seconds that deliveries may take to settle when the subscription ends.
        is_program: Whether what the user must know goes to the log.
        journal: Who writes down which QoS 2 messages are stored, if anybody does.
    """

    def __init__(  # noqa: PLR0913 (each is one fact)
        self,
        settings: Settings,
        subscription: Subscription,
        observer: abc.ObserverBase[Message[bytes]],
        loop: asyncio.AbstractEventLoop,
        *,
        drain_timeout: float,
        is_program: bool,
        journal: Journal | None = None,
    ) -> None:
        self._journal = journal
        self.settings = settings
        self._subscription = subscription
        self._observer = observer
        self._loop = loop
        self._drain_timeout = drain_timeout
        self._is_program = is_program
        self._thread = threading.get_ident()
        self.has_ended = False
        self._failure: Exception | None = None
        self._has_completed = False
        self._connects = 0
        self._lost_at: float | None = None
        self._subscribing = 0
        self._patience: asyncio.TimerHandle | None = None  # with a broker that owes a SUBACK
        self._strays = PerSecond(
            "{events} more messages set aside for their topic", level="WARNING"
        )
        self._has_settled = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None
        self._starting: asyncio.Task[None] | None = None
        self.leave: abc.DisposableBase | None = None
        self.is_ending: Callable[[], bool] = _never
        self.closed: asyncio.Future[None] = loop.create_future()
        self.ledger = Ledger(self._acknowledge, self._wake, self._sink_failed, self._dropped)
        self._standstill = Standstill(self.ledger)
        emit = unwrapped(observer)  # a source stops by itself
        self._client = Client(settings, self, self.ledger, emit, loop)

    # -- life -----------------------------------------------------------------------------------

    def start(self, after: Source | None) -> None:
        """Connect, once an earlier subscription with the same client id is gone."""
        if after is None or after.closed.done():
            self._begin()
        else:
            self._starting = self._loop.create_task(self._start_after(after))

    async def _start_after(self, earlier: Source) -> None:
        await asyncio.wait([earlier.closed])
        if not self.has_ended:
            self._begin()

    def _begin(self) -> None:
        has_qos2 = any(qos == 2 for _, qos in self._subscription.filters)  # noqa: PLR2004
        if self._journal and has_qos2 and self.settings.is_durable:
            address = self.settings.address
            session = f"{self.settings.client_id} {address.host}:{address.port}"
            try:
                self.ledger.keep(self._journal, session)
            except SinkError as error:
                self.fail(error)
                return
        self._client.start()

    def complete(self) -> None:
        """End the stream: nothing more is received, and of what was, what is stored acknowledged.

        What is dropped from now on, an operator may have dropped because nobody listened any more.
        """
        self.ledger.close()
        self._here(self._complete)

    def _complete(self) -> None:
        if not self.has_ended:
            self._stop()
            self._has_completed = True
            self._observer.on_completed()
            self._close()

    def dispose(self) -> None:
        """Nobody wants more: acknowledge what gets stored, leave the rest to the broker."""
        self.ledger.close()
        self._here(self._dispose)

    def _dispose(self) -> None:
        self._stop()
        if self.is_ending():
            self._has_completed = True  # what is flushed downstream is still on its way to a sink
        self._close()

    def fail(self, error: Exception) -> None:
        """End the stream with an error; acknowledge nothing more."""
        self.ledger.fail(error)

    def _stop(self) -> None:
        self.has_ended = True
        self._stop_waiting()
        if self.leave:
            self.leave.dispose()
        self._client.stop()

    def _close(self) -> None:
        # What is downstream may hold messages that nobody will emit any more.
        self._observer = Observer[Message[bytes]](on_error=_ignore)
        self._client.on_next = _ignore
        if self._closing is None:
            self._closing = self._loop.create_task(self._finish())

    @property
    def _is_awaited(self) -> bool:
        """True while something can still be stored: after a dispose, what a sink has already."""
        ledger = self.ledger
        if ledger.has_failed:
            return False
        return bool(ledger.unsettled if self._has_completed else ledger.owed)

    async def _finish(self) -> None:
        """Wait until everything is settled, but not for ever, and say goodbye."""
        try:
            if self._starting:
                self._starting.cancel()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._drain_timeout):
                    while self._is_awaited:
                        self._has_settled.clear()
                        await self._has_settled.wait()
            self.ledger.finish()
            await self._client.close(deadline=1.0)
        finally:
            self._strays.flush()
            if not self.closed.done():
                self.closed.set_result(None)

    async def wait_closed(self) -> None:
        await asyncio.wait([self.closed])

    # -- the ledger's side ----------------------------------------------------------------------

    def _acknowledge(self, ready: list[int]) -> None:
        self._client.acknowledge(ready)

    def _wake(self) -> None:
        self._here(self._client.settle)

    def _dropped(self, packet_ids: list[int]) -> None:
        self._here(lambda: self._release(packet_ids))

    def _release(self, packet_ids: list[int]) -> None:
        self._client.complete(self.ledger.completed(packet_ids))
        self._loop.call_soon(self._client.settle)  # which sends it

    def _sink_failed(self, error: Exception) -> None:
        self._here(lambda: self._error(error))

    def _here(self, act: Callable[[], object]) -> None:
        """Do it on the loop's thread: now, if this is it."""
        if threading.get_ident() == self._thread:
            act()
        else:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nothing is left to do
                self._loop.call_soon_threadsafe(act)

    def _error(self, error: Exception) -> None:
        if self.has_ended:
            return
        self._failure = error
        self._stop()
        try:
            self._observer.on_error(error)
        except Exception as raised:  # noqa: BLE001 (nobody is above a source)
            self._show("an observer raised in on_error", raised)
        self._close()

    def _show(self, text: str, error: Exception) -> None:
        self._loop.call_exception_handler({"message": text, "exception": error})

    # -- what the client says -------------------------------------------------------------------

    def connected(self, *, session_present: bool) -> None:
        self.ledger.connected(session_present=session_present)
        lost_at, self._lost_at = self._lost_at, None
        is_first = self._connects == 0
        self._connects += 1
        # A session of an earlier process may have other filters, or none yet: once, ask for ours.
        if session_present and not is_first:
            self._stands(session_present=True)
        else:
            self._subscribing = self._client.subscribe(
                self._subscription.filters, retained=not session_present
            )
            self._await_answer(self.ledger.received + self.ledger.received0)
        if lost_at is not None and not session_present:
            self._report_gap(self._loop.time() - lost_at)

    def _await_answer(self, received: int) -> None:
        """Without SUBACK and without messages for as long, this connection is none."""
        self._stop_waiting()
        self._patience = self._loop.call_later(SILENCE, self._judge_silence, received)

    def _judge_silence(self, before: int) -> None:
        received = self.ledger.received + self.ledger.received0
        if received > before or self.ledger.unsettled:  # it may lie unread behind messages
            self._await_answer(received)
        else:
            self._client.lost(f"no answer to SUBSCRIBE within {SILENCE:g} s")

    def _stop_waiting(self) -> None:
        patience, self._patience = self._patience, None
        if patience:
            patience.cancel()

    def _report_gap(self, seconds: float) -> None:
        announce(
            f"possible gap: {self.settings.address} forgot the session; what was published "
            f"in the {seconds:.1f} s without connection is not coming",
            is_program=self._is_program,
        )

    def subscribed(self, mid: int, reason_codes: Sequence[int]) -> None:
        if mid != self._subscribing:
            return
        self._stop_waiting()
        for (name, qos), code in zip(self._subscription.filters, reason_codes, strict=False):
            if code >= _REFUSED:
                error = ConnectError(
                    f"{self.settings.address} refused to subscribe {name!r} (reason code {code})",
                    reason_code=code,
                )
                self.fail(error)
                return
            if code < qos:
                logger.warning("{!r}: QoS {} asked for, {} granted", name, qos, code)
        self._stands(session_present=self._client.session_present)

    def _stands(self, *, session_present: bool) -> None:
        names = ", ".join(name for name, _ in self._subscription.filters)
        logger.info("subscribed to {}", printable(names))
        hook = self._subscription.on_connect
        if hook is None:
            return
        try:
            hook(Connected(session_present, self._connects - 1))
        except Exception as error:  # noqa: BLE001 (the user's function)
            self.fail(error)

    def published(self, mid: int, error: str | None) -> None:
        raise NotImplementedError  # a source publishes nothing

    def disconnected(self, reason: str) -> None:
        del reason  # the client logs it
        self._stop_waiting()
        self._lost_at = self._loop.time()

    def failed(self, error: RxflowError) -> None:
        self.fail(error)

    def raised(self, error: Exception) -> None:
        if self.has_ended and error is not self._failure:
            # Of a subscriber without `on_error`, say: as with reactivex, its traceback is shown.
            self._show("the error of a stream was not handled", error)
        else:
            self.fail(error)

    def settled(self) -> None:
        if not self._is_awaited:
            self._has_settled.set()
        if text := self._standstill.notice(self._loop.time()):
            announce(text, is_program=self._is_program)

    def warn(self, text: str) -> None:
        announce(text, is_program=self._is_program)

    def admit(self, topic: bytes) -> str | None:
        try:
            name = check_topic(topic)
        except ValueError as error:
            self._strays.add(
                "set aside: a message whose topic {!r}: {}", topic[:80], printable(error)
            )
            return None
        if self._subscription.matches(name):
            return name
        self._strays.add("set aside: a message to {!r}, which nobody asked for", printable(name))
        return None


def _ignore(_: object) -> None:
    """Nobody is downstream any more."""


def _never() -> bool:
    """Of a source that no scope ends."""
    return False
