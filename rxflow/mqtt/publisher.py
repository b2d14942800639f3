"""Publishing on a loop: what a sink gives is sent, and settled when the broker has answered."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import Any, Final, Protocol

from rxflow.delivery import Account, Token
from rxflow.errors import RxflowError, SinkError
from rxflow.log import PerSecond, announce, printable
from rxflow.message import Message
from rxflow.mqtt.client import Client, Connection
from rxflow.mqtt.options import Options
from rxflow.mqtt.outbox import Outbox, Outgoing
from rxflow.process.environment import running_loop
from rxflow.process.read_pass import soon

_ONE_DAY: Final = 86_400
_MOST_WAITING: Final = 100_000
_BURST: Final = 1000  # items in one turn of the loop: no turn was left to send them in
_IN_VAIN: Final = 3


class Owner(Protocol):
    """The sink, as its publisher sees it."""

    @property
    def is_program(self) -> bool:
        """True under `run`."""
        ...

    @property
    def rejected(self) -> object:
        """An observer, if there is one."""
        ...

    @property
    def failure(self) -> SinkError | None:
        """Why nothing more is published, once that is so."""
        ...

    @property
    def error(self) -> Exception | None:
        """The error that the stream ended with, if it failed."""
        ...

    @property
    def drain_seconds(self) -> float:
        """The drain timeout."""
        ...

    def fail(self, failure: SinkError, *, is_told: bool = False) -> None:
        """Publish nothing more."""
        ...

    def reject(self, message: Message[Any], reason: str) -> None:
        """Hand a message to `rejected`."""
        ...

    def settled(self) -> None:
        """There may be room for more."""
        ...

    def ended(self) -> None:
        """All is published, or given up, and the connection closed."""
        ...


class Publisher:
    """A client that publishes. All on the thread of its loop.

    Args:
        owner: The sink.
        options: How to connect.
        loop: Where it works.

    Attributes:
        loop: As given.
        outbox: What waits, and what is in flight.
        rows: Messages that the broker has acknowledged.
    """

    def __init__(self, owner: Owner, options: Options, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.outbox = Outbox()
        self.rows = 0
        self._closing: asyncio.Task[None] | None = None
        self._owner = owner
        self._options = options
        self._place = options.place
        self._client: Client | None = None
        self._log = PerSecond("published {events} more messages in {seconds} s")
        self._is_scheduled = self._is_settling = False
        self._this_turn = 0  # items since the loop last had time to send some
        self._burst = 0  # items that wait, and came more than `_BURST` a turn
        self._until: float | None = None  # by the loop's clock: told to stop
        self._has_stood = False
        self._answered = 0  # `rows` when the connection began
        self._in_vain = 0  # connections lost in a row that brought no answer
        self._reason = ""  # why the last connection was lost, if there is none
        self._changed = asyncio.Event()

    def start(self) -> None:
        """Begin to connect.

        Raises:
            ConfigError: A TLS file can't be used.
        """
        self._options.warn_of_plain_password(is_program=self._owner.is_program)
        settings = self._options.settings(
            is_durable=self._options.client_id is not None,
            session_expiry=_ONE_DAY,
        )
        # Packet ids that an earlier process has left there would swallow messages of this one.
        settings = replace(settings, starts_clean=True)
        self._client = Client(settings, self, self.loop, outbox=self.outbox)
        self._client.start()

    def take(self, outgoing: Outgoing) -> None:
        """Publish it at the end of the read pass, or in the loop's next turn, with what follows."""
        delivery = outgoing.delivery
        if self._owner.failure:
            if delivery:
                delivery.fail(self._owner.failure)
            return
        if delivery:
            delivery.take(id(self))
        self.outbox.add(outgoing)
        self._this_turn += 1
        if not self._is_scheduled:
            self._is_scheduled = True
            soon(self._publish_this_turn, self.loop)
            if len(self.outbox.waiting) > _MOST_WAITING + self._burst:
                queued = f"{_MOST_WAITING:,} items queued"
                text = f"{self._place}: {queued}; the broker accepts them too slowly"
                self._owner.fail(SinkError(text), is_told=running_loop() is self.loop)

    def _publish_this_turn(self) -> None:
        if self._this_turn > _BURST:
            self._burst += self._this_turn
        self._is_scheduled, self._this_turn = False, 0
        self.settled()

    def end(self) -> None:
        """Publish what waits, and close."""
        if self._closing is None:
            self._closing = self.loop.create_task(self._finish())

    async def closed(self) -> None:
        """Return when the end is over, if it has begun."""
        if self._closing:
            await asyncio.wait([self._closing])

    def hurry(self) -> None:
        """Be done within the drain timeout."""
        if self._until is None:
            self._until = self.loop.time() + self._owner.drain_seconds
            self._changed.set()

    def give_up(self, failure: SinkError) -> None:
        """Publish nothing more of what waits."""
        for outgoing in self.outbox.clear():
            if outgoing.delivery:
                outgoing.delivery.fail(failure)
        self._changed.set()
        self.end()

    async def _finish(self) -> None:
        try:
            await self._drain()
            if (left := self.outbox.unsettled) and not self._owner.failure:
                self._owner.fail(SinkError(self._left(left)))
            if self._client:
                await self._client.close(
                    deadline=1.0, has_failed=bool(self._owner.failure or self._owner.error)
                )
        finally:
            self._log.flush()
            self._owner.ended()

    async def _drain(self) -> None:
        """Until all is acknowledged; or `drain_timeout` is over since this was told to stop.

        Told or not, also for so long without any progress. Without a connection there is none, and
        the client decides how long it tries, once one has stood.
        """
        loop = asyncio.get_running_loop()
        progress, since = None, loop.time()
        while self.outbox.unsettled and not self._owner.failure:
            self._changed.clear()
            now = loop.time()
            if self._progress != progress or self._is_away:
                progress, since = self._progress, now
            until = since + self._owner.drain_seconds
            if self._until is not None:
                until = min(until, self._until)
            if now >= until:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self._changed.wait()

    @property
    def _progress(self) -> tuple[int, int]:
        return self.outbox.unsettled, self._client.sent if self._client else 0

    @property
    def _is_away(self) -> bool:
        """True while the client tries to connect for as long as it was told to."""
        is_limited = self._options.connect_timeout is not None
        return not self.outbox.is_connected and (self._has_stood or is_limited)

    def _left(self, count: int) -> str:
        messages = "1 message was" if count == 1 else f"{count:,} messages were"
        given = f"drain_timeout={self._owner.drain_seconds:g}"
        if self._until is None:
            given = f"no answer for {self._owner.drain_seconds:g} s, {given}"
        reason = f"; {printable(self._reason)}" if self._reason else ""
        return f"{self._place}: {messages} not acknowledged in time ({given}){reason}"

    # -- what the client says -------------------------------------------------------------------

    def connected(self, connection: Connection) -> None:
        del connection  # the outbox knows
        self._has_stood = True
        self._reason = ""
        self._answered = self.rows
        self._changed.set()
        self.settled()

    def settled(self) -> None:
        """Take what was answered, and publish what there is room for."""
        if self._is_settling:
            return
        self._is_settling = True
        outbox = self.outbox
        try:
            while True:
                if outbox.stored:
                    self._take_stored()
                while outbox.refused and not self._owner.failure:
                    self._broker_refused(*outbox.refused.pop(0))
                if self._client and not self._owner.failure:
                    self._client.publish()
                if not (outbox.stored or outbox.refused):
                    break
        finally:
            self._is_settling = False
        if not outbox.waiting:
            self._burst = 0
        self._owner.settled()

    def _take_stored(self) -> None:
        stored, self.outbox.stored = self.outbox.stored, []
        if self._client:
            self._client.worked()
        self.rows += len(stored)
        if self._client and (stored[0].qos or stored[-1].qos):  # QoS 0 is only written
            self._client.worked()
        touched: set[Account] = set()
        for outgoing in stored:
            self._log.add("sent {} to {}", _Shown(outgoing.payload), _Shown(outgoing.topic))
            if outgoing.delivery:
                outgoing.delivery.store(touched)
        stored.clear()
        outgoing = None
        for ledger in touched:
            ledger.wake()
        self._changed.set()

    def _broker_refused(self, outgoing: Outgoing, reason: str) -> None:
        """Set a message aside that the broker won't have, or fail with it."""
        text = f"{self._place} refused a message to {printable(outgoing.topic)!r}: "
        text += printable(reason)
        if self._owner.rejected is not None:
            handed = _Handed(outgoing.delivery) if outgoing.delivery else None
            value = outgoing.item
            message = (
                value
                if isinstance(value, Message)
                else Message(outgoing.topic, outgoing.payload, outgoing.qos, outgoing.retain)
            )
            try:
                self._owner.reject(message.with_delivery(handed), text)
            except Exception as error:  # noqa: BLE001 (the failure names it)
                text = f"{text}; rejected= failed too: {error}"
            else:
                if handed:
                    self.loop.call_soon(handed.let_go)  # when nobody here refers to it
                self._changed.set()
                return
        failure = SinkError(text)
        if outgoing.delivery:
            outgoing.delivery.fail(failure)  # before anybody lets go of it
        self._owner.fail(failure)

    def warn(self, text: str) -> None:
        announce(text, is_program=self._owner.is_program, depth=1)

    def disconnected(self, reason: str) -> None:
        """Its client comes back, and the outbox sends again what was not acknowledged."""
        self._reason = reason
        self._changed.set()
        self._in_vain = 0 if self.rows > self._answered else self._in_vain + 1
        if self._in_vain == _IN_VAIN and (waiting := self.outbox.waiting):
            topic = printable(waiting[0].topic)
            self.warn(
                f"{self._place}: {self._in_vain} connections were lost in a row before it answered "
                f"to a message to {topic!r}: perhaps it may not be published, or is too large"
            )

    def failed(self, error: RxflowError) -> None:
        failure = failed_by("can't publish", error)
        if getattr(error, "reason_code", None) is not None and (topics := self.outbox.accused):
            shown = ", ".join(repr(printable(topic)) for topic in topics[:3])
            failure = failed_by(f"can't publish to {shown}, the latest first", error)
        self._owner.fail(failure)

    def raised(self, error: Exception) -> None:
        self._owner.fail(failed_by(f"{self._place}: can't publish", error))


class _Handed:
    """The delivery of a message that is handed on: whoever takes it owes what the sink owed."""

    __slots__ = ("_token", "_was_taken")

    def __init__(self, token: Token) -> None:
        self._token = token
        self._was_taken = False

    def take(self, taker: int) -> None:
        del taker  # the sink had taken it
        self._was_taken = True

    def store(self, touched: set[Account]) -> None:
        self._token.store(touched)

    def fail(self, error: Exception) -> None:
        self._token.fail(error)

    def let_go(self) -> None:
        """The observer has it; one that keeps no account of deliveries is done with it."""
        if not self._was_taken:
            touched: set[Account] = set()
            self._token.store(touched)
            for ledger in touched:
                ledger.wake()


class _Shown:
    """A value as a line of the log shows it, made only if it is shown."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes | str) -> None:
        self._value = value

    def __str__(self) -> str:
        value = self._value
        return printable(
            value[:200].decode(errors="replace") if isinstance(value, bytes) else value
        )


def failed_by(what: str, cause: Exception) -> SinkError:
    """Make the error of a sink that something has caused."""
    failure = SinkError(f"{what}: {cause}")
    failure.__cause__ = cause
    return failure
