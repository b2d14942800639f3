"""The publication of an item: its topic, its QoS, its retain flag and its bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from rxflow import arguments, codec
from rxflow.message import Message
from rxflow.mqtt.options import check_publishable
from rxflow.mqtt.outbox import Outgoing, head_of

_MOST_TOPICS: Final = 10_000  # whose bytes are remembered


class Publication:
    """Makes what is published of each item.

    Args:
        topic, qos, retain: As of `MqttSink`: a value, or a function of the item.

    Raises:
        ConfigError: One of them is wrong.
    """

    def __init__(
        self,
        topic: str | Callable[[Any], str],
        qos: int | Callable[[Any], int],
        retain: bool | Callable[[Any], bool],  # noqa: FBT001 (a setting of the three)
    ) -> None:
        _check("topic", topic, check_publishable)
        _check("qos", qos, _check_qos)
        _check("retain", retain, _check_retain)
        self.topic = topic
        self._qos = qos
        self._retain = retain
        self._heads: dict[str, bytes] = {}  # topics that were found to be sound

    def of(self, value: Any, message: Message[Any], *, is_kept: bool) -> Outgoing:
        """Make what is published of an item.

        Args:
            value: The item; what the functions are asked about.
            message: The same in its envelope.
            is_kept: Whether it is needed when the broker refuses it.

        Raises:
            Exception: It can't be published, or a function raised.
        """
        topic, qos, retain, payload = self.topic, self._qos, self._retain, message.payload
        if callable(topic):
            topic = topic(value)
        head = self._heads.get(topic)
        if head is None:
            head = self._head(topic)
        if callable(qos):
            qos = qos(value)
            _check_qos(qos)
        if callable(retain):
            retain = retain(value)
            if retain not in (True, False):  # 0 and 1 of a function are fine
                _check_retain(retain)
            retain = bool(retain)
        if type(payload) is not bytes:
            is_raw = isinstance(payload, bytes | bytearray | memoryview)
            payload = bytes(payload) if is_raw else codec.compact(codec.encode(payload))
        kept = value if is_kept else None
        return Outgoing(topic, head, payload, qos, retain, message.delivery, kept)

    def _head(self, topic: str) -> bytes:
        check_publishable(topic)
        if len(self._heads) >= _MOST_TOPICS:
            self._heads = {}
        head = self._heads[topic] = head_of(topic.encode())
        return head


def _check(name: str, value: Any, check: Callable[[Any], None]) -> None:
    """Check a setting that may be a function of the item."""
    if callable(value):
        arguments.function(name, value)
    else:
        check(value)


def _check_qos(qos: Any) -> None:
    arguments.qos("qos", qos)


def _check_retain(retain: Any) -> None:
    arguments.flag("retain", retain)
