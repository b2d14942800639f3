"""The sink that publishes: `MqttSink`."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Unpack

from reactivex import abc

from rxflow import arguments
from rxflow.background import running_or_background_loop
from rxflow.errors import SinkError
from rxflow.log import announce, escaped, printable, tell
from rxflow.message import Message
from rxflow.mqtt.options import ConnectionOptions, Options, takes_connection
from rxflow.mqtt.outbox import Outgoing
from rxflow.mqtt.publication import Publication
from rxflow.mqtt.publisher import Publisher, failed_by
from rxflow.process.environment import running_loop
from rxflow.process.read_pass import on_its_way
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
        rejected: An observer, usually a `JsonLinesSink`, for messages that can't be published;
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
        self._options = Options(url, connection, client_id=client_id)
        arguments.wait("drain_timeout", drain_timeout, is_none_fine=False)
        self._place = self._options.place
        self._publication = Publication(topic, qos, retain)
        super().__init__(str(self._place), rejected)
        self.drain_seconds = drain_timeout
        self.commits = self.bytes = 0  # of files, which this sink has none of
        self._publisher: Publisher | None = None
        self._is_over = False
        self._waiters = 0  # those that will be told of a failure
        # For other threads than the loop's:
        self._lock = threading.Lock()  # of `_publisher`, `_given` and `_is_over`
        self._given: deque[Outgoing] = deque()
        self._has_room = threading.Event()
        self._has_room.set()
        self._has_closed = threading.Event()

    def forked(self) -> None:
        """In a forked child: a sink that was in use belongs to the parent, its loop and all."""
        super().forked()
        self._lock = threading.Lock()
        if self._publisher is None:
            return
        self._has_room = threading.Event()
        self._has_room.set()
        self._has_closed = threading.Event()
        self._has_closed.set()
        self._publisher, self._given = None, deque()
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
            if self._publisher is not None:
                return
            publisher = Publisher(self, self._options, running_or_background_loop())
            self._publisher = publisher
        if publisher.loop is not running_loop():
            self._here(partial(self._start_behind, publisher), publisher)
            return
        try:
            publisher.start()
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
            publisher = self._publisher or self._opened()
            if running_loop() is publisher.loop:
                publisher.take(outgoing)
            else:
                self._hand_over(outgoing, publisher)
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
            publisher = self._publisher
        if publisher is None:
            return
        is_waiting = running_loop() is None
        self._waiters += is_waiting
        self._here(publisher.end, publisher)
        if is_waiting:
            self._wait_for(self._has_closed, publisher)
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
        if isinstance(self.drain_seconds, _Unless):
            self.drain_seconds = _Unless(seconds)

    def hurry(self) -> None:
        """Be done within `drain_timeout`, whatever is left: the run was told to stop."""
        if publisher := self._publisher:
            self._here(publisher.hurry, publisher)

    async def wait_closed(self) -> None:
        """Return when all is acknowledged, or given up, and the connection closed.

        Raises:
            SinkError: Something could not be published.
        """
        self._waiters += 1
        if publisher := self._publisher:
            if publisher.loop is running_loop():
                await publisher.closed()
            else:
                waits = asyncio.run_coroutine_threadsafe(publisher.closed(), publisher.loop)
                await asyncio.wrap_future(waits)
        if self.failure:
            raise self.failure

    @property
    def rows(self) -> int:
        """Messages that the broker has acknowledged."""
        return self._publisher.rows if self._publisher else 0

    def _opened(self) -> Publisher:
        self.open()
        if self._publisher is None:
            raise self._too_late()
        return self._publisher

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
                error, text = cause, f"rejected= failed too: {cause}"
            else:
                return
        topic = f" of topic {printable(value.topic)!r}" if isinstance(value, Message) else ""
        failure = SinkError(f"{self._place}: an item{topic} can't be published: {text}")
        failure.__cause__ = error
        self._disown(whole, failure)
        self.fail(failure, is_told=True)
        raise failure

    def _too_late(self) -> SinkError:
        return SinkError(f"{self._place}: this sink is closed; make a new one to publish more")

    # -- from other threads ---------------------------------------------------------------------

    def _here(self, act: Callable[[], object], publisher: Publisher) -> None:
        """Do it on the loop's thread: now, if this is it.

        Raises:
            SinkError: Its loop is closed.
        """
        if publisher.loop is running_loop():
            act()
            return
        try:
            publisher.loop.call_soon_threadsafe(act)
        except RuntimeError as error:
            raise self._orphaned() from error

    def _orphaned(self) -> SinkError:
        self._has_closed.set()
        self.failure = self.failure or SinkError(f"{self._place}: its asyncio loop has ended")
        return self.failure

    def _hand_over(self, outgoing: Outgoing, publisher: Publisher) -> None:
        """Give it to the loop's thread; wait for room, unless another loop runs on this one.

        Raises:
            SinkError: It was closed meanwhile, or its loop has ended.
        """
        with self._lock:
            is_first = not (self._given or self._is_over)
            if not self._is_over:
                self._given.append(outgoing)
        if is_first:
            self._here(partial(self._take_given, publisher), publisher)
        elif self._is_over:
            error = self._too_late()
            if outgoing.delivery:
                outgoing.delivery.fail(error)
            raise error
        if running_loop() is None and not self._has_room_for_more:
            self._has_room.clear()
            if not self._has_room_for_more:  # else it may have been told before
                self._wait_for(self._has_room, publisher)

    @property
    def _has_room_for_more(self) -> bool:
        if self._publisher is None:
            return True
        outbox = self._publisher.outbox
        waiting = len(outbox.waiting) + len(self._given)
        return waiting <= _ROOM and outbox.waiting_bytes <= _ROOM_BYTES

    def _wait_for(self, event: threading.Event, publisher: Publisher) -> None:
        """Wait, as long as the loop runs that will set it.

        Raises:
            SinkError: The loop has ended.
        """
        while not event.wait(_LOOK):
            if publisher.loop.is_closed():
                raise self._orphaned()

    # -- on the loop ----------------------------------------------------------------------------

    def _start_behind(self, publisher: Publisher) -> None:
        try:
            publisher.start()
        except Exception as error:  # noqa: BLE001 (a file of TLS, or a warning that is an error)
            self.fail(self._unusable(error))

    def _unusable(self, error: Exception) -> SinkError:
        return failed_by(f"{self._place}: can't publish", error)

    def _take_given(self, publisher: Publisher) -> None:
        with self._lock:
            given, self._given = self._given, deque()
        for outgoing in given:
            publisher.take(outgoing)

    def fail(self, failure: SinkError, *, is_told: bool = False) -> None:
        """Publish nothing more; only the first failure counts.

        Args:
            failure: Why.
            is_told: The caller raises it.
        """
        if self.failure:
            return
        self.failure = failure
        if publisher := self._publisher:
            self._here(partial(self._give_up, publisher, failure), publisher)
        if self.on_failure:
            self.on_failure(failure)
        elif not is_told and not self._waiters:
            announce(str(failure), is_program=False)

    def _give_up(self, publisher: Publisher, failure: SinkError) -> None:
        publisher.give_up(failure)
        self._has_room.set()

    def reject(self, message: Message[Any], reason: str) -> None:
        self._reject(message, reason)

    def settled(self) -> None:
        """Wake who waits for room, if there is some."""
        if not self._has_room.is_set() and self._has_room_for_more:
            self._has_room.set()

    def ended(self) -> None:
        """Wake who waits for anything."""
        self._has_room.set()
        self._has_closed.set()


def _message_of_plain(value: Any) -> Message[Any]:
    """A value without an envelope, in that of the message on its way, if there is one."""
    made_of: Message[Any] | None = on_its_way()
    return made_of.with_payload(value) if made_of else Message("", value)
