"""The sink that publishes: `MqttSink`."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from reactivex import abc

from rxflow import codec
from rxflow._client import Client
from rxflow._compose import Connecting, VersionOrAuto, check_publishable, check_range
from rxflow._forked import tell_in_child
from rxflow._settings import Will
from rxflow._surroundings import running_loop
from rxflow.background import running_or_background_loop
from rxflow.delivery import Ledger, Token
from rxflow.errors import RxflowError, SinkError
from rxflow.log import PerSecond, announce, escaped, printable, tell
from rxflow.message import Message
from rxflow.rejection import rejection
from rxflow.sinks import item

_HIGH: Final = 1024 * 1024
_IN_FLIGHT: Final = 1000
_HEADER: Final = 10  # of a PUBLISH: type and length, of the topic too, packet id, no properties
_ONE_DAY: Final = 86_400
_MOST_WAITING: Final = 100_000


class _Outgoing(NamedTuple):
    topic: str
    payload: bytes
    qos: int
    retain: bool
    delivery: Token | None


class MqttSink(abc.ObserverBase[Any]):
    """Publishes each item it is given: a message's payload, or a plain value.

    Bytes go as they are, everything else as JSON; of a batch, each message. A message is stored, as
    far as its own acknowledgement is concerned, when the broker has acknowledged it (QoS 0: when it
    is written). It connects at the first item or at `open`, and keeps what comes until it is
    connected: up to 100,000 items, then it fails. On a thread without an asyncio loop it works
    behind, on rxflow's background loop; there `on_next` waits while 1,000 items wait, and
    `on_completed` until all is acknowledged.

    Args:
        url: As for `from_mqtt`, and so are all settings that are not named here.
        topic: Where to publish; or a function of the item.
        qos: 0, 1 or 2; or a function of the item.
        retain: Whether the broker keeps it for later subscribers; or a function of the item.
        drain_timeout: Seconds that the last items may take to be acknowledged at the end.
        rejected: An observer, usually a `JsonLinesSink`, to set aside what can't be published;
            without it that is a `SinkError`.

    Raises:
        ConfigError: A setting is wrong; at call time.
    """

    def __init__(  # noqa: PLR0913 (a connection has as many settings as MQTT gives it)
        self,
        url: str,
        *,
        topic: str | Callable[[Any], str],
        qos: int | Callable[[Any], int] = 1,
        retain: bool | Callable[[Any], bool] = False,
        username: str | None = None,
        password: str | None = None,
        version: VersionOrAuto = "auto",
        client_id: str | None = None,
        keep_alive: int = 30,
        connect_timeout: float | None = None,
        drain_timeout: float = 5.0,
        will: Will | None = None,
        tls: ssl.SSLContext | None = None,
        ca_file: str | None = None,
        cert_file: str | None = None,
        key_file: str | None = None,
        rejected: abc.ObserverBase[Any] | None = None,
    ) -> None:
        self._connecting = Connecting(
            url=url,
            username=username,
            password=password,
            version=version,
            client_id=client_id,
            keep_alive=keep_alive,
            connect_timeout=connect_timeout,
            drain_timeout=drain_timeout,
            will=will,
            tls=tls,
            ca_file=ca_file,
            cert_file=cert_file,
            key_file=key_file,
        )
        self._place = self._connecting.place
        if not callable(topic):
            check_publishable(topic)
        if not callable(qos):
            check_range("qos", qos, 0, 2)
        self._topic = topic
        self._qos = qos
        self._retain = retain
        self.rejected = rejected
        self.is_program = False
        self.failure: SinkError | None = None
        self.error: Exception | None = None
        self.on_failure: Callable[[SinkError], object] | None = None
        self.rows = 0
        self.commits = self.bytes = 0  # of files, which this sink has none of
        self._log = PerSecond("published {events} more messages in {seconds} s")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: Client | None = None
        self._waiting: deque[_Outgoing] = deque()
        self._sent: dict[int, _Outgoing] = {}
        self._is_over = False
        self._closing: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._waiters = 0  # those that will be told of a failure
        # For threads without a loop:
        self._has_room = threading.Event()
        self._has_room.set()
        self._has_closed = threading.Event()
        tell_in_child(self)

    def forked(self) -> None:
        """In a forked child: a sink that was in use belongs to the parent, its loop and all."""
        if self._loop is None:
            return
        self._has_room = threading.Event()
        self._has_room.set()
        self._has_closed = threading.Event()
        self._has_closed.set()
        self._loop = self._client = None
        self._waiting, self._sent = deque(), {}
        text = "is connected by the process that this one was forked from"
        self.failure = SinkError(f"{self._place}: this sink {text}; make one of its own")

    # -- the observer ---------------------------------------------------------------------------

    def open(self) -> None:
        """Begin to connect, without waiting for it.

        Raises:
            SinkError: It is closed.
            ConfigError: A TLS file can't be used.
        """
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
            _disown(value, error)
            raise error.with_traceback(None)
        for each in value if item.is_batch(value) else [value]:
            try:
                outgoing = self._outgoing(each)
            except Exception as error:  # noqa: BLE001 (of a function of the user's, too)
                self._refuse(each, error, value)
                continue
            self.open()
            if running_loop() is None:
                self._has_room.wait()
            self._here(partial(self._take, outgoing))
            if self.failure:
                raise self.failure

    def on_error(self, error: Exception) -> None:
        self.error = error
        self.on_completed()
        if not self.is_program:
            shown = escaped(repr(error))
            tell(f"the pipeline into {self._place} failed: {shown}", is_program=False)

    def on_completed(self) -> None:
        """Publish what waits and close; on a loop that goes on behind (see `wait_closed`).

        Raises:
            SinkError: On a thread without a loop: something could not be published.
        """
        self._is_over = True
        if self._loop is None:
            return
        is_waiting = running_loop() is None
        self._waiters += is_waiting
        self._here(self._end)
        if is_waiting:
            self._has_closed.wait()
            if self.failure:
                raise self.failure

    def close(self) -> None:
        """As if the stream had completed. Twice is once.

        Raises:
            SinkError: As in `on_completed`.
        """
        self.on_completed()

    async def wait_closed(self) -> None:
        """Return when all is acknowledged, or `drain_timeout` is over, and the connection closed.

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

    def _outgoing(self, value: Any) -> _Outgoing:
        payload, delivery = (
            (value.payload, value.delivery) if isinstance(value, Message) else (value, None)
        )
        topic, qos = _resolve(self._topic, value), _resolve(self._qos, value)
        check_publishable(topic)
        check_range("qos", qos, 0, 2)
        is_raw = isinstance(payload, bytes | bytearray | memoryview)
        raw = bytes(payload) if is_raw else codec.compact(codec.encode(payload))
        return _Outgoing(topic, raw, qos, bool(_resolve(self._retain, value)), delivery)

    def _refuse(self, value: Any, error: Exception, whole: Any) -> None:
        """Set an item aside, or fail with all that came with it."""
        text = f"{type(error).__name__}: {error}"
        if self.rejected is not None:
            message = value if isinstance(value, Message) else Message("", value)
            try:
                self.rejected.on_next(rejection(message, text))
            except Exception as cause:  # noqa: BLE001 (the failure names it)
                error, text = cause, f"nor be set aside: {cause}"
            else:
                return
        topic = f" of topic {printable(value.topic)!r}" if isinstance(value, Message) else ""
        failure = SinkError(f"{self._place}: an item{topic} can't be published: {text}")
        failure.__cause__ = error
        _disown(whole, failure)
        self._fail(failure, is_told=True)
        raise failure

    def _too_late(self) -> SinkError:
        return SinkError(f"{self._place}: this sink is closed; make a new one to publish more")

    # -- on the loop ----------------------------------------------------------------------------

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
            self._has_closed.set()
            self.failure = self.failure or SinkError(f"{self._place}: its asyncio loop has ended")
            raise self.failure from error

    def _start(self) -> None:
        if self._loop is None:
            return
        self._connecting.warn_of_plain_password(is_program=self.is_program)
        settings = self._connecting.settings(
            self._connecting.client_id,
            is_durable=self._connecting.client_id is not None,
            session_expiry=_ONE_DAY,
        )
        ledger = Ledger(lambda _: None, lambda: None, lambda _: None)
        self._client = Client(settings, self, ledger, lambda _: None, self._loop)
        self._client.start()

    def _start_behind(self) -> None:
        try:
            self._start()
        except Exception as error:  # noqa: BLE001 (a file of TLS, or a warning that is an error)
            self._fail(self._unusable(error))

    def _unusable(self, error: Exception) -> SinkError:
        return _failure(f"{self._place}: can't publish", error)

    def _take(self, outgoing: _Outgoing) -> None:
        if self.failure:
            if outgoing.delivery:
                outgoing.delivery.fail(self.failure)
            return
        if outgoing.delivery:
            outgoing.delivery.take(id(self))
        self._waiting.append(outgoing)
        self._publish_waiting()
        if len(self._waiting) > _MOST_WAITING:
            self._fail(
                SinkError(f"{self._place}: {_MOST_WAITING:,} items wait; it takes less than comes"),
                is_told=running_loop() is self._loop,
            )
        elif len(self._waiting) > _IN_FLIGHT:
            self._has_room.clear()

    def _publish_waiting(self) -> None:
        client = self._client
        while (
            self._waiting
            and client
            and client.is_connected
            and client.unsent < _HIGH
            and len(self._sent) < min(client.receive_maximum, _IN_FLIGHT)
        ):
            outgoing = self._waiting[0]
            size = len(outgoing.topic.encode()) + len(outgoing.payload) + _HEADER
            if size > client.maximum_packet_bytes:
                self._fail(
                    SinkError(
                        f"{self._place}: a message of {size:,} bytes to {outgoing.topic!r} is "
                        f"larger than the broker takes, {client.maximum_packet_bytes:,}"
                    )
                )
                return
            try:
                mid = client.publish(
                    outgoing.topic, outgoing.payload, outgoing.qos, retain=outgoing.retain
                )
            except ValueError as error:  # paho's own limits
                self._fail(_failure(f"can't publish to {outgoing.topic!r}", error))
                return
            self._sent[mid] = self._waiting.popleft()
        if len(self._waiting) <= _IN_FLIGHT // 2:
            self._has_room.set()

    def _end(self) -> None:
        if self._closing is None and self._loop:
            self._closing = self._loop.create_task(self._finish())

    async def _finish(self) -> None:
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._connecting.drain_timeout):
                    while (self._waiting or self._sent) and not self.failure:
                        self._changed.clear()
                        await self._changed.wait()
            if (left := len(self._waiting) + len(self._sent)) and not self.failure:
                text = f"{self._place}: {left} messages were not acknowledged in time"
                self._fail(SinkError(text))
            if self._client:
                await self._client.close(deadline=1.0)
        finally:
            self._log.flush()
            self._has_room.set()
            self._has_closed.set()

    def _fail(self, failure: SinkError, *, is_told: bool = False) -> None:
        """Publish nothing more. `is_told`: the caller raises it.

        Only the first failure counts.
        """
        if self.failure:
            return
        self.failure = failure
        if self._loop:
            self._here(partial(self._let_go, failure))
        if self.on_failure:
            self.on_failure(failure)
        elif not is_told and not self._waiters:
            tell(str(failure), is_program=False)

    def _let_go(self, failure: SinkError) -> None:
        held = [*self._sent.values(), *self._waiting]
        for outgoing in held:
            if outgoing.delivery:
                outgoing.delivery.fail(failure)
        self._sent.clear()
        self._waiting.clear()
        self._changed.set()
        self._has_room.set()
        self._end()

    # -- what the client says -------------------------------------------------------------------

    def connected(self, *, session_present: bool) -> None:
        if not session_present and self._connecting.client_id is not None:
            self._send_anew()
        self._publish_waiting()

    def _send_anew(self) -> None:
        """The broker forgot a session that should have lasted, and what it had of QoS 2 with it.

        paho would only release that [MQTT-4.3.3-4], and the broker say that it is done: lost.
        """
        forgotten = [mid for mid, outgoing in self._sent.items() if outgoing.qos == 2]  # noqa: PLR2004
        for mid in reversed(forgotten):
            self._waiting.appendleft(self._sent.pop(mid))

    def published(self, mid: int, error: str | None) -> None:
        outgoing = self._sent.pop(mid, None)
        if outgoing is None:
            return
        if error:
            self._sent[mid] = outgoing  # fails with the others, before anybody lets go of it
            self._fail(SinkError(f"{self._place} refused a message to {outgoing.topic!r}: {error}"))
            return
        self.rows += 1
        shown = outgoing.payload[:200].decode(errors="replace")
        self._log.add("sent {} to {}", printable(shown), printable(outgoing.topic))
        touched: set[Ledger] = set()
        if outgoing.delivery:
            outgoing.delivery.store(touched)
        del outgoing
        for ledger in touched:
            ledger.wake()
        self._changed.set()
        self._publish_waiting()

    def warn(self, text: str) -> None:
        announce(text, is_program=self.is_program, depth=1)

    def subscribed(self, mid: int, reason_codes: Sequence[int], reason: str) -> None:
        """A sink subscribes to nothing."""

    def disconnected(self, reason: str) -> None:
        """Its client comes back, and sends again what was not acknowledged.

        Not so what was of QoS 0: the client forgets it. What of it was never written waits again.
        """
        del reason
        unwritten = [mid for mid, outgoing in self._sent.items() if outgoing.qos == 0]
        for mid in reversed(unwritten):
            self._waiting.appendleft(self._sent.pop(mid))

    def failed(self, error: RxflowError) -> None:
        self._fail(_failure("can't publish", error))

    def raised(self, error: Exception) -> None:
        self._fail(self._unusable(error))

    def settled(self) -> None:
        self._publish_waiting()

    def admit(self, topic: bytes) -> str | None:
        del topic  # a sink receives nothing


def _failure(what: str, cause: Exception) -> SinkError:
    failure = SinkError(f"{what}: {cause}")
    failure.__cause__ = cause
    return failure


def _disown(value: Any, failure: SinkError) -> None:
    """Say of each message that it was not published, before anybody lets go of it."""
    for token in item.tokens(value):
        token.fail(failure)


def _resolve(setting: Any, item: Any) -> Any:
    return setting(item) if callable(setting) else setting
