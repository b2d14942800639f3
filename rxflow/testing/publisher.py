"""A publisher that knows which of its numbered messages the broker has acknowledged."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final, Self

from rxflow import arguments
from rxflow.delivery import Account
from rxflow.message import Message
from rxflow.mqtt import MqttSink

_STEP: Final = 0.01
_PATIENCE: Final = 30.0


class _Receipt:
    """Stands in a message's place for its delivery: a sink marks it when the broker has it."""

    __slots__ = ("_acknowledged", "_number")

    def __init__(self, number: int, acknowledged: Callable[[int], None]) -> None:
        self._number = number
        self._acknowledged = acknowledged

    def take(self, taker: int) -> None:
        """Nothing is owed."""

    def store(self, touched: set[Account]) -> None:
        del touched  # no ledger is behind it
        self._acknowledged(self._number)

    def fail(self, error: Exception) -> None:
        """The sink itself says so."""


class NumberedPublisher:
    """Publishes message after message from a thread of its own, as a context manager.

    Args:
        url: As for `rxflow.MqttSink`.
        topic: Where to publish.
        payload: Makes the bytes of a message from its number.
        first: The number of the first message.
        rate: Messages a second; the attribute may be changed while it runs.
        most: How many to publish in all; None: until `stop`.
        settings: As for `rxflow.MqttSink`: `qos`, `username` ...

    Attributes:
        published: How many were given to the sink. Not more than some hundred ahead of the broker.
        acknowledged: The numbers that the broker has acknowledged, in the order in which it did.
    """

    def __init__(  # noqa: PLR0913 (each is one fact)
        self,
        url: str,
        topic: str,
        *,
        payload: Callable[[int], bytes],
        first: int = 0,
        rate: float = 1000.0,
        most: int | None = None,
        **settings: Any,
    ) -> None:
        arguments.text("topic", topic)
        arguments.function("payload", payload)
        arguments.check_range("first", first, -(1 << 63), 1 << 63)
        arguments.more_than_0("rate", rate)
        if most is not None:
            arguments.check_range("most", most, 0)
        MqttSink(url, topic=topic, **settings)  # which checks its own; it is not opened
        self.rate = rate
        self.published = 0
        self.acknowledged: list[int] = []
        self._topic = topic
        self._payload = payload
        self._first = first
        self._most = most
        self._make_sink = lambda: MqttSink(
            url, topic=topic, drain_timeout=_PATIENCE, connect_timeout=_PATIENCE, **settings
        )
        self._is_stopped = threading.Event()
        self._error: BaseException | None = None
        self._moved = (0, 0.0)  # how many were acknowledged when that last changed, and when
        self._thread = threading.Thread(target=self._run, name="rxflow publisher", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_stopped.set()
        self._thread.join()

    def stop(self) -> None:
        """Publish no more, and return when all is acknowledged. Safe to call more than once.

        Raises:
            SinkError: The broker did not acknowledge all of it within 30 s.
        """
        self._is_stopped.set()
        self.wait()

    def wait(self) -> None:
        """Return when `most` are published and acknowledged.

        Raises:
            SinkError: As for `stop`; also, that it acknowledged nothing for 30 s.
        """
        self._thread.join()
        self.check()

    def check(self) -> None:
        """Raise what ended it early, if anything did."""
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            asyncio.run(self._publish())
        except BaseException as error:  # noqa: BLE001 (raised where it is waited for)
            self._error = error

    async def _publish(self) -> None:
        sink = self._make_sink()
        sink.open()
        numbers = self._numbers()
        loop = asyncio.get_running_loop()
        owed, last = 0.0, loop.time()
        is_over = False
        while not is_over and not self._is_stopped.is_set() and not sink.failure:
            now = loop.time()
            if self._is_stuck(now):
                break
            owed, last = owed + (now - last) * self.rate, now
            window = 500 - (self.published - len(self.acknowledged))
            for _ in range(min(int(owed), max(0, window))):
                number = next(numbers, None)
                if number is None:
                    is_over = True
                    break
                receipt = _Receipt(number, self.acknowledged.append)
                sink.on_next(Message(self._topic, self._payload(number), delivery=receipt))
                self.published += 1
            owed = min(owed - int(owed), 1.0) if window > 0 else 1.0
            await asyncio.sleep(_STEP)
        sink.close()
        await sink.wait_closed()

    def _is_stuck(self, now: float) -> bool:
        """True when the broker, which has some, has acknowledged nothing for 30 s."""
        count, since = self._moved
        if count != len(self.acknowledged) or count == self.published:
            self._moved = (len(self.acknowledged), now)
            return False
        return now - since > _PATIENCE

    def _numbers(self) -> Iterator[int]:
        number = self._first
        while self._most is None or number < self._first + self._most:
            yield number
            number += 1
