"""The sink that publishes: `MqttSink`."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from reactivex import abc

from rxflow import codec
from rxflow._client import Client
from rxflow._compose import Connecting, VersionOrAuto, check_range
from rxflow._settings import Will
from rxflow.background import running_loop, running_or_background_loop
from rxflow.delivery import Ledger, Token
from rxflow.errors import ConfigError, RxflowError, RxflowWarning, SinkError
from rxflow.log import PerSecond, printable
from rxflow.message import Message
from rxflow.rejection import rejection
from rxflow.topics import check_topic

_HIGH: Final = 1024 * 1024
_IN_FLIGHT: Final = 1000
_MOST_WAITING: Final = 100_000


class _Outgoing(NamedTuple):
    topic: str
    payload: bytes
    qos: int
    retain: bool
    delivery: Token | None


class MqttSink(abc.ObserverBase[Any]):
    """Publishes each item it is given: a message's payload, or a plain value.

    Bytes go as they are, everything else as JSON. A message is stored, as far as its own
    acknowledgement is concerned, when the broker has acknowledged it (QoS 0: when it is written).
    It connects at the first item or at `open`, and keeps what comes until it is connected.

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
        if isinstance(topic, str):
            _check_publishable(topic)
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

    # -- the observer ---------------------------------------------------------------------------

    def open(self) -> None:
        """Begin to connect, without waiting for it."""
        if self._loop is None:
            self._loop = running_or_background_loop()
            self._here(self._start)

    def on_next(self, value: Any) -> None:
        if self.failure:
            raise self.failure
        try:
            outgoing = self._outgoing(value)
        except (ValueError, TypeError) as error:
            self._refuse(value, error)
            return
        self.open()
        self._here(lambda: self._take(outgoing))

    def on_error(self, error: Exception) -> None:
        self.error = error
        self.on_completed()
        if not self.is_program:
            text = f"the pipeline into {self._place} failed: {error!r}"
            warnings.warn(text, RxflowWarning, stacklevel=2)

    def on_completed(self) -> None:
        self._is_over = True
        if self._loop:
            self._here(self._end)

    def close(self) -> None:
        """As if the stream had completed. Does not wait; `wait_closed` does."""
        self.on_completed()

    async def wait_closed(self) -> None:
        """Return when all is acknowledged, or `drain_timeout` is over, and the connection closed.

        Raises:
            SinkError: Something could not be published.
        """
        if self._closing:
            await asyncio.wait([self._closing])
        if self.failure:
            raise self.failure

    def _outgoing(self, value: Any) -> _Outgoing:
        payload, delivery = (
            (value.payload, value.delivery) if isinstance(value, Message) else (value, None)
        )
        topic, qos = _resolve(self._topic, value), _resolve(self._qos, value)
        _check_publishable(topic)
        check_range("qos", qos, 0, 2)
        raw = payload if isinstance(payload, bytes) else codec.encode(payload)
        return _Outgoing(topic, raw, qos, bool(_resolve(self._retain, value)), delivery)

    def _refuse(self, value: Any, error: Exception) -> None:
        if self.rejected is not None:
            message = value if isinstance(value, Message) else Message("", value)
            self.rejected.on_next(rejection(message, str(error)))
            return
        topic = f" from {value.topic!r}" if isinstance(value, Message) else ""
        failure = SinkError(f"{self._place}: can't publish an item{topic}: {error}")
        failure.__cause__ = error
        self._fail(failure)
        raise failure

    # -- on the loop ----------------------------------------------------------------------------

    def _here(self, act: Callable[[], object]) -> None:
        """Do it on the loop's thread: now, if this is it."""
        loop = self._loop
        if loop is None or loop is running_loop():
            act()
        else:
            loop.call_soon_threadsafe(act)

    def _start(self) -> None:
        if self._loop is None or self._client or self._is_over:
            return
        self._connecting.warn_of_plain_password(is_program=self.is_program)
        settings = self._connecting.settings(
            self._connecting.client_id, is_durable=self._connecting.client_id is not None
        )
        ledger = Ledger(lambda _: None, lambda: None, lambda _: None)
        self._client = Client(settings, self, ledger, lambda _: None, self._loop)
        self._client.start()

    def _take(self, outgoing: _Outgoing) -> None:
        if outgoing.delivery:
            outgoing.delivery.take(id(self))
        self._waiting.append(outgoing)
        self._publish_waiting()
        if len(self._waiting) > _MOST_WAITING:
            self._fail(
                SinkError(f"{self._place}: {_MOST_WAITING:,} items wait; it takes less than comes")
            )

    def _publish_waiting(self) -> None:
        client = self._client
        while (
            self._waiting
            and client
            and client.is_connected
            and client.unsent < _HIGH
            and len(self._sent) < min(client.receive_maximum, _IN_FLIGHT)
        ):
            outgoing = self._waiting.popleft()
            mid = client.publish(
                outgoing.topic, outgoing.payload, outgoing.qos, retain=outgoing.retain
            )
            self._sent[mid] = outgoing

    def _end(self) -> None:
        if self._closing is None and self._loop:
            self._closing = self._loop.create_task(self._finish())

    async def _finish(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._connecting.drain_timeout):
                while (self._waiting or self._sent) and not self.failure:
                    self._changed.clear()
                    await self._changed.wait()
        if (left := len(self._waiting) + len(self._sent)) and not self.failure:
            self._fail(SinkError(f"{self._place}: {left} messages were not acknowledged in time"))
        if self._client:
            await self._client.close(deadline=1.0)
        self._log.flush()

    def _fail(self, failure: SinkError) -> None:
        if self.failure:
            return
        self.failure = failure
        held = [*self._sent.values(), *self._waiting]
        for outgoing in held:
            if outgoing.delivery:
                outgoing.delivery.fail(failure)
        self._sent.clear()
        self._waiting.clear()
        self._changed.set()
        if self.on_failure:
            self.on_failure(failure)
        self._end()

    # -- what the client says -------------------------------------------------------------------

    def connected(self, *, session_present: bool) -> None:
        del session_present
        self._publish_waiting()

    def published(self, mid: int, error: str | None) -> None:
        outgoing = self._sent.pop(mid, None)
        if outgoing is None:
            return
        if error:
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

    def subscribed(self, mid: int, reason_codes: Sequence[int]) -> None:
        """A sink subscribes to nothing."""

    def disconnected(self, reason: str) -> None:
        """Its client comes back, and sends again what was not acknowledged."""

    def failed(self, error: RxflowError) -> None:
        failure = SinkError(f"can't publish: {error}")
        failure.__cause__ = error
        self._fail(failure)

    def raised(self, error: Exception) -> None:
        """A sink receives nothing."""

    def settled(self) -> None:
        self._publish_waiting()

    def admit(self, topic: bytes) -> str | None:
        del topic  # a sink receives nothing


def _resolve(setting: Any, item: Any) -> Any:
    return setting(item) if callable(setting) else setting


def _check_publishable(topic: str) -> None:
    """Refuse what no broker may accept as a topic."""
    try:
        check_topic(topic.encode())
    except ValueError as error:
        raise ConfigError(f"topic: {topic[:80]!r} can't be published to: {error}") from error
