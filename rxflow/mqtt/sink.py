"""The sink that publishes: `MqttSink`."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final, Unpack

from reactivex import abc

from rxflow import arguments
from rxflow.background import running_or_background_loop
from rxflow.delivery import Account, Token
from rxflow.errors import RxflowError, SinkError
from rxflow.log import PerSecond, announce, escaped, printable, tell
from rxflow.message import Message
from rxflow.mqtt.client import Client
from rxflow.mqtt.connection import Connection
from rxflow.mqtt.options import ConnectionOptions, Options, takes_connection
from rxflow.mqtt.outbox import Outbox, Outgoing
from rxflow.mqtt.publication import Publication
from rxflow.process.environment import running_loop
from rxflow.process.read_pass import on_its_way, soon
from rxflow.sinks.rows import is_batch
from rxflow.sinks.shell import Shell

_ONE_DAY: Final = 86_400
_ROOM: Final = 1000  # items that may wait before a thread without a loop is held back
_ROOM_BYTES: Final = 16 * 1024 * 1024
_MOST_WAITING: Final = 100_000
_BURST: Final = 1000  # items in one turn of the loop: no turn was left to send them in
_IN_VAIN: Final = 3
_LOOK: Final = 1.0  # seconds after which a thread that waits looks whether its loop still runs


class _Unless(float):
    """A number that gives way to that of a run."""


_DRAIN_SECONDS: Final = _Unless(5.0)


class MqttSink(Shell):
    """Publishes each item it is given: a message's payload, or a plain value.

    Bytes go as they are, everything else as JSON; of a batch, each message. A message is stored, as
    far as its own acknowledgement is concerned, when the broker has acknowledged it (QoS 0: when
    the kernel has taken it). What is unacknowledged when a connection is lost is sent again first
    on the next one, in its order. QoS 2 is exactly once as long as the broker keeps the session,
    for which it needs a `client_id`; otherwise it is at least once.

    What the broker refuses (access list, quota, its Maximum QoS, Retain Available or Maximum Packet
    Size) is a `SinkError` that names the topic and the reason, or goes to `rejected`. A message is
    never published with a lower QoS than asked for.

    It connects at the first item or at `open`, and keeps what comes until it is connected. On a
    thread without an asyncio loop it works in the background, on rxflow's own loop; there `on_next`
    waits while 1,000 items wait, and `on_completed` until all is acknowledged. On a loop, where it
    can't wait, it fails when 100,000 items wait, not counting what came all at once.

    Args:
        url: As for `from_mqtt`, and so is `client_id`.
        topic: Where to publish; or a function of the item.
        qos: 0, 1 or 2; or a function of the item.
        retain: Whether the broker keeps it for later subscribers; or a function of the item.
        drain_timeout: Seconds to end in, once told to stop (a signal, `seconds`). A stream that
            ends by itself is published as long as that makes progress: only that many seconds with
            a connection and without any are an error. Under `run`, that of the run unless given.
        rejected: An observer, usually a `JsonLinesSink`, to set aside what can't be published;
            without it that is a `SinkError`.
        **connection: Any of `rxflow.mqtt.ConnectionOptions`, by name.

    Raises:
        ConfigError: A setting is wrong; at call time.
    """

    @takes_connection()
    def __init__(  # noqa: PLR0913 (each is one fact)
        self,
        url: str,
        *,
        topic: str | Callable[[Any], str],
        qos: int | Callable[[Any], int] = 1,
        retain: bool | Callable[[Any], bool] = False,
        client_id: str | None = None,
        drain_timeout: float = _DRAIN_SECONDS,
        rejected: abc.ObserverBase[Any] | None = None,
        **connection: Unpack[ConnectionOptions],
    ) -> None:
        self._connecting = Options(url, connection, client_id=client_id)
        arguments.wait("drain_timeout", drain_timeout, is_none_fine=False)
        self._place = self._connecting.place
        self._publication = Publication(topic, qos, retain)
        super().__init__(str(self._place), rejected)
        self._drain_seconds = drain_timeout
        self.rows = 0
        self.commits = self.bytes = 0  # of files, which this sink has none of
        self._log = PerSecond("published {events} more messages in {seconds} s")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: Client | None = None
        self._outbox = Outbox()
        self._is_scheduled = self._is_settling = False
        self._this_turn = 0  # items since the loop last had time to send some
        self._burst = 0  # items that wait, and came more than `_BURST` a turn
        self._until: float | None = None  # by the loop's clock: told to stop
        self._has_stood = False
        self._answered = 0  # `rows` when the connection began
        self._in_vain = 0  # connections lost in a row that brought no answer
        self._reason = ""  # why the last connection was lost, if there is none
        self._is_over = False
        self._closing: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._waiters = 0  # those that will be told of a failure
        # For other threads than the loop's:
        self._lock = threading.Lock()  # of `_loop` while it is chosen, of `_given` and `_is_over`
        self._given: deque[Outgoing] = deque()
        self._has_room = threading.Event()
        self._has_room.set()
        self._has_closed = threading.Event()

    def forked(self) -> None:
        """In a forked child: a sink that was in use belongs to the parent, its loop and all."""
        super().forked()
        self._lock = threading.Lock()
        if self._loop is None:
            return
        self._has_room = threading.Event()
        self._has_room.set()
        self._has_closed = threading.Event()
        self._has_closed.set()
        self._loop = self._client = None
        self._outbox, self._given = Outbox(), deque()
        text = "is connected by the process that this one was forked from"
        self.failure = SinkError(f"{self._place}: this sink {text}; make one of its own")

    def __repr__(self) -> str:
        return f"MqttSink({self._place}, topic={arguments.shown(self._publication.topic)})"

    # -- the observer ---------------------------------------------------------------------------

    def open(self) -> None:
        """Begin to connect, without waiting for it.

        Raises:
            SinkError: It is closed.
            ConfigError: A TLS file can't be used.
        """
        with self._lock:  # threads may be the first together: one of them connects
            if self._is_over:
                raise self._too_late()
            if self._loop is not None:
                return
            self._loop = running_or_background_loop()
        if self._loop is not running_loop():
            self._here(self._start_behind)
            return
        try:
            self._start()
        except Exception as error:
            self.failure = self._unusable(error)
            raise

    def on_next(self, value: Any) -> None:
        """Take one item: a message, a batch of messages, or a plain value.

        Raises:
            SinkError: It can't be published. Nothing more is accepted after that.
        """
        if self.failure or self._is_over:
            error = self.failure or self._too_late()
            self._disown(value, error)
            raise error.with_traceback(None)
        for each in value if is_batch(value) else (value,):
            try:
                outgoing = self._outgoing(each)
            except Exception as error:  # noqa: BLE001 (of a function of the user's, too)
                self._refuse(each, error, value)
                continue
            if self._loop is None:
                self.open()
            if running_loop() is self._loop:
                self._take(outgoing)
            else:
                self._hand_over(outgoing)
            if self.failure:
                raise self.failure

    def on_error(self, error: Exception) -> None:
        self.error = error
        self.on_completed()
        if not self.is_program:
            shown = escaped(repr(error))
            tell(f"the pipeline into {self._place} failed: {shown}", is_program=False)

    def on_completed(self) -> None:
        """Publish what waits and close; on a loop this continues in the background.

        See `wait_closed`.

        Raises:
            SinkError: On a thread without a loop: something could not be published.
        """
        with self._lock:
            self._is_over = True
            loop = self._loop
        if loop is None:
            return
        is_waiting = running_loop() is None
        self._waiters += is_waiting
        self._here(self._end)
        if is_waiting:
            self._wait_for(self._has_closed)
            if self.failure:
                raise self.failure

    def close(self) -> None:
        """As if the stream had completed. Safe to call more than once.

        Raises:
            SinkError: As in `on_completed`.
        """
        self.on_completed()

    def drain_within(self, seconds: float) -> None:
        """Say what `drain_timeout` is, unless it was given; called by `run`."""
        if isinstance(self._drain_seconds, _Unless):
            self._drain_seconds = _Unless(seconds)

    def hurry(self) -> None:
        """Be done within `drain_timeout`, whatever is left: the run was told to stop."""
        if self._loop is not None:
            self._here(self._hurry)

    async def wait_closed(self) -> None:
        """Return when all is acknowledged, or given up, and the connection closed.

        Raises:
            SinkError: Something could not be published.
        """
        self._waiters += 1
        if self._loop is not None and self._loop is not running_loop():
            waits = asyncio.run_coroutine_threadsafe(self._closed(), self._loop)
            await asyncio.wrap_future(waits)
        else:
            await self._closed()
        if self.failure:
            raise self.failure

    async def _closed(self) -> None:
        if self._closing:
            await asyncio.wait([self._closing])

    def _outgoing(self, value: Any) -> Outgoing:
        message: Message[Any] = value if isinstance(value, Message) else self._enveloped(value)
        return self._publication.of(value, message, is_kept=self.rejected is not None)

    def _refuse(self, value: Any, error: Exception, whole: Any) -> None:
        """Set an item aside, or fail with all that came with it."""
        text = f"{type(error).__name__}: {error}"
        if self.rejected is not None:
            message = value if isinstance(value, Message) else _message_of_plain(value)
            try:
                self._reject(message, text)
            except Exception as cause:  # noqa: BLE001 (the failure names it)
                error, text = cause, f"nor be set aside: {cause}"
            else:
                return
        topic = f" of topic {printable(value.topic)!r}" if isinstance(value, Message) else ""
        failure = SinkError(f"{self._place}: an item{topic} can't be published: {text}")
        failure.__cause__ = error
        self._disown(whole, failure)
        self._fail(failure, is_told=True)
        raise failure

    def _too_late(self) -> SinkError:
        return SinkError(f"{self._place}: this sink is closed; make a new one to publish more")

    # -- from other threads ---------------------------------------------------------------------

    def _here(self, act: Callable[[], object]) -> None:
        """Do it on the loop's thread: now, if this is it.

        Raises:
            SinkError: Its loop is closed.
        """
        loop = self._loop
        if loop is None or loop is running_loop():
            act()
            return
        try:
            loop.call_soon_threadsafe(act)
        except RuntimeError as error:
            raise self._orphaned() from error

    def _orphaned(self) -> SinkError:
        self._has_closed.set()
        self.failure = self.failure or SinkError(f"{self._place}: its asyncio loop has ended")
        return self.failure

    def _hand_over(self, outgoing: Outgoing) -> None:
        """Give it to the loop's thread; wait for room, unless another loop runs on this one.

        Raises:
            SinkError: It was closed meanwhile, or its loop has ended.
        """
        with self._lock:
            is_first = not (self._given or self._is_over)
            if not self._is_over:
                self._given.append(outgoing)
        if is_first:
            self._here(self._take_given)
        elif self._is_over:
            error = self._too_late()
            if outgoing.delivery:
                outgoing.delivery.fail(error)
            raise error
        if running_loop() is None and not self._has_room_for_more:
            self._has_room.clear()
            if not self._has_room_for_more:  # else it may have been told before
                self._wait_for(self._has_room)

    @property
    def _has_room_for_more(self) -> bool:
        outbox = self._outbox
        waiting = len(outbox.waiting) + len(self._given)
        return waiting <= _ROOM and outbox.waiting_bytes <= _ROOM_BYTES

    def _wait_for(self, event: threading.Event) -> None:
        """Wait, as long as the loop runs that will set it.

        Raises:
            SinkError: The loop has ended.
        """
        while not event.wait(_LOOK):
            if self._loop is not None and self._loop.is_closed():
                raise self._orphaned()

    # -- on the loop ----------------------------------------------------------------------------

    def _start(self) -> None:
        if self._loop is None:
            return
        self._connecting.warn_of_plain_password(is_program=self.is_program)
        settings = self._connecting.settings(
            is_durable=self._connecting.client_id is not None,
            session_expiry=_ONE_DAY,
        )
        # Packet ids that an earlier process has left there would swallow messages of this one.
        settings = replace(settings, starts_clean=True)
        self._client = Client(settings, self, self._loop, outbox=self._outbox)
        self._client.start()

    def _start_behind(self) -> None:
        try:
            self._start()
        except Exception as error:  # noqa: BLE001 (a file of TLS, or a warning that is an error)
            self._fail(self._unusable(error))

    def _unusable(self, error: Exception) -> SinkError:
        return _failure(f"{self._place}: can't publish", error)

    def _take_given(self) -> None:
        with self._lock:
            given, self._given = self._given, deque()
        for outgoing in given:
            self._take(outgoing)

    def _take(self, outgoing: Outgoing) -> None:
        """Publish it at the end of the read pass, or in the loop's next turn, with what follows."""
        delivery = outgoing.delivery
        if self.failure:
            if delivery:
                delivery.fail(self.failure)
            return
        if delivery:
            delivery.take(id(self))
        self._outbox.add(outgoing)
        self._this_turn += 1
        if not self._is_scheduled and self._loop:
            self._is_scheduled = True
            soon(self._publish_this_turn, self._loop)
            if len(self._outbox.waiting) > _MOST_WAITING + self._burst:
                text = f"{self._place}: {_MOST_WAITING:,} items wait; the broker takes too few"
                self._fail(SinkError(text), is_told=running_loop() is self._loop)

    def _publish_this_turn(self) -> None:
        if self._this_turn > _BURST:
            self._burst += self._this_turn
        self._is_scheduled, self._this_turn = False, 0
        self.settled()

    def _end(self) -> None:
        if self._closing is None and self._loop:
            self._closing = self._loop.create_task(self._finish())

    def _hurry(self) -> None:
        if self._loop and self._until is None:
            self._until = self._loop.time() + self._drain_seconds
            self._changed.set()

    async def _finish(self) -> None:
        try:
            await self._drain()
            if (left := self._outbox.unsettled) and not self.failure:
                self._fail(SinkError(self._left(left)))
            if self._client:
                await self._client.close(deadline=1.0, has_failed=bool(self.failure or self.error))
        finally:
            self._log.flush()
            self._has_room.set()
            self._has_closed.set()

    async def _drain(self) -> None:
        """Until all is acknowledged; or `drain_timeout` is over since this was told to stop.

        Told or not, also for so long without any progress. Without a connection there is none, and
        the client decides how long it tries, once one has stood.
        """
        loop = asyncio.get_running_loop()
        progress, since = None, loop.time()
        while self._outbox.unsettled and not self.failure:
            self._changed.clear()
            now = loop.time()
            if self._progress != progress or self._is_away:
                progress, since = self._progress, now
            until = since + self._drain_seconds
            if self._until is not None:
                until = min(until, self._until)
            if now >= until:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self._changed.wait()

    @property
    def _progress(self) -> tuple[int, int]:
        return self._outbox.unsettled, self._client.sent if self._client else 0

    @property
    def _is_away(self) -> bool:
        """True while the client tries to connect for as long as it was told to."""
        is_limited = self._connecting.connect_timeout is not None
        return not self._outbox.is_connected and (self._has_stood or is_limited)

    def _left(self, count: int) -> str:
        messages = "1 message was" if count == 1 else f"{count:,} messages were"
        given = f"drain_timeout={self._drain_seconds:g}"
        if self._until is None:
            given = f"no answer for {self._drain_seconds:g} s, {given}"
        reason = f"; {printable(self._reason)}" if self._reason else ""
        return f"{self._place}: {messages} not acknowledged in time ({given}){reason}"

    def _fail(self, failure: SinkError, *, is_told: bool = False) -> None:
        """Publish nothing more; only the first failure counts.

        Args:
            failure: Why.
            is_told: The caller raises it.
        """
        if self.failure:
            return
        self.failure = failure
        if self._loop:
            self._here(partial(self._let_go, failure))
        if self.on_failure:
            self.on_failure(failure)
        elif not is_told and not self._waiters:
            announce(str(failure), is_program=False)

    def _let_go(self, failure: SinkError) -> None:
        for outgoing in self._outbox.clear():
            if outgoing.delivery:
                outgoing.delivery.fail(failure)
        self._changed.set()
        self._has_room.set()
        self._end()

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
        outbox = self._outbox
        try:
            while True:
                if outbox.stored:
                    self._take_stored()
                while outbox.refused and not self.failure:
                    self._broker_refused(*outbox.refused.pop(0))
                if self._client and not self.failure:
                    self._client.publish()
                if not (outbox.stored or outbox.refused):
                    break
        finally:
            self._is_settling = False
        if not outbox.waiting:
            self._burst = 0
        if not self._has_room.is_set() and self._has_room_for_more:
            self._has_room.set()

    def _take_stored(self) -> None:
        stored, self._outbox.stored = self._outbox.stored, []
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
        if self.rejected is not None:
            handed = _Handed(outgoing.delivery) if outgoing.delivery else None
            value = outgoing.item
            message = (
                value
                if isinstance(value, Message)
                else Message(outgoing.topic, outgoing.payload, outgoing.qos, outgoing.retain)
            )
            try:
                self._reject(message.with_delivery(handed), text)
            except Exception as error:  # noqa: BLE001 (the failure names it)
                text = f"{text}; nor can it be set aside: {error}"
            else:
                if handed and self._loop:
                    self._loop.call_soon(handed.let_go)  # when nobody here refers to it
                self._changed.set()
                return
        failure = SinkError(text)
        if outgoing.delivery:
            outgoing.delivery.fail(failure)  # before anybody lets go of it
        self._fail(failure)

    def warn(self, text: str) -> None:
        announce(text, is_program=self.is_program, depth=1)

    def disconnected(self, reason: str) -> None:
        """Its client comes back, and the outbox sends again what was not acknowledged."""
        self._reason = reason
        self._changed.set()
        self._in_vain = 0 if self.rows > self._answered else self._in_vain + 1
        if self._in_vain == _IN_VAIN and (waiting := self._outbox.waiting):
            topic = printable(waiting[0].topic)
            self.warn(
                f"{self._place}: {self._in_vain} connections were lost in a row before it answered "
                f"to a message to {topic!r}: perhaps it may not be published, or is too large"
            )

    def failed(self, error: RxflowError) -> None:
        failure = _failure("can't publish", error)
        if getattr(error, "reason_code", None) is not None and (topics := self._outbox.accused):
            shown = ", ".join(repr(printable(topic)) for topic in topics[:3])
            failure = _failure(f"can't publish to {shown}, the latest first", error)
        self._fail(failure)

    def raised(self, error: Exception) -> None:
        self._fail(self._unusable(error))


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


def _failure(what: str, cause: Exception) -> SinkError:
    failure = SinkError(f"{what}: {cause}")
    failure.__cause__ = cause
    return failure


def _message_of_plain(value: Any) -> Message[Any]:
    """A value without an envelope, in that of the message on its way, if there is one."""
    made_of: Message[Any] | None = on_its_way()
    return made_of.with_payload(value) if made_of else Message("", value)
