"""The items of a pipeline: a message in its envelope, and a batch of messages."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeVar, final

from rxflow.delivery import Deliveries, Token
from rxflow.properties import NONE, Properties, parse

P = TypeVar("P", covariant=True)  # noqa: PLC0105 (one letter, as in every generic here)
Q = TypeVar("Q")
T = TypeVar("T")

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_SHOWN: Final = 80

_new = object.__new__


@final
class Message(Generic[P]):
    """A payload and its envelope. Read-only: `with_payload` makes the next one.

    Equality compares everything but `received_at` and the delivery. A copy shares the delivery;
    a pickled message has none.

    Attributes:
        topic: Where it was published; no wildcard.
        payload: Bytes as received, or what an operator made of them.
        qos: 0, 1 or 2: that of this delivery.
        retain: True if the broker kept the message from before the subscription.
        duplicate: True if the broker says that it may have sent it before.
        properties: Of MQTT 5; all empty under 3.1.1.
        received_at: When its bytes were read, by this machine's clock, in UTC; one instant for all
            messages of a read. 1970-01-01 for a message that was made by hand.
    """

    __slots__ = (
        "_properties",
        "delivery",
        "duplicate",
        "payload",
        "qos",
        "received_at",
        "retain",
        "topic",
    )

    topic: Final[str]
    payload: Final[P]
    qos: Final[int]
    retain: Final[bool]
    duplicate: Final[bool]
    received_at: Final[datetime]
    delivery: Final[Token | None]

    def __init__(  # noqa: PLR0913, PLR0917 (an envelope has as many fields as MQTT gives it)
        self,
        topic: str,
        payload: P,
        qos: int = 0,
        retain: bool = False,  # noqa: FBT001, FBT002 (positional: a third of the cost)
        duplicate: bool = False,  # noqa: FBT001, FBT002
        properties: Properties | bytes = NONE,
        received_at: datetime = EPOCH,
        delivery: Token | None = None,
    ) -> None:
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.duplicate = duplicate
        self._properties = properties
        self.received_at = received_at
        self.delivery = delivery

    @property
    def properties(self) -> Properties:
        """Of MQTT 5; all empty under 3.1.1."""
        known = self._properties
        if isinstance(known, bytes):  # as received, and found to be sound
            known = self._properties = parse(known)
        return known

    def with_payload(self, payload: Q) -> Message[Q]:
        """The same envelope and delivery around another payload."""
        # What `__init__` would do: each operator that makes something of a message comes here.
        made: Any = _new(Message)
        made.topic = self.topic
        made.payload = payload
        made.qos = self.qos
        made.retain = self.retain
        made.duplicate = self.duplicate
        made._properties = self._properties  # noqa: SLF001 (its constructor is here)
        made.received_at = self.received_at
        made.delivery = self.delivery
        return made

    def with_delivery(self, delivery: Token | None) -> Message[P]:
        """The same message, carrying another delivery; with None it holds up no acknowledgement."""
        return Message(
            self.topic,
            self.payload,
            self.qos,
            self.retain,
            self.duplicate,
            self._properties,
            self.received_at,
            delivery,
        )

    def _compared(self) -> tuple[object, ...]:
        return self.topic, self.payload, self.qos, self.retain, self.duplicate, self.properties

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message):
            return NotImplemented
        theirs: Message[Any] = other
        return self._compared() == theirs._compared()

    def __hash__(self) -> int:
        return hash((self.topic, self.payload))

    def __reduce__(self) -> tuple[Any, ...]:
        envelope = (*self._compared(), self.received_at)
        return Message, envelope

    def __copy__(self) -> Message[P]:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Message[P]:
        return self.with_payload(deepcopy(self.payload, memo))

    def __repr__(self) -> str:
        payload = repr(self.payload)
        if len(payload) > _SHOWN:
            payload = f"{payload[: _SHOWN - 1]}…"
        flags = ", retain" * self.retain + ", duplicate" * self.duplicate
        return f"Message({self.topic!r}, {payload}, qos={self.qos}{flags})"


class Batch(list[Message[Q]]):
    """A list of messages, emitted by a buffer; never empty."""

    __slots__ = ()

    @property
    def payloads(self) -> list[Q]:
        """Each message's payload, in order."""
        return [message.payload for message in self]

    @property
    def topics(self) -> list[str]:
        """Each message's topic, in order; one that came twice is here twice."""
        return [message.topic for message in self]

    def with_payload(self, payload: T) -> Message[T]:
        """A result of all, in the envelope of the newest, with the deliveries of each."""
        return self[-1].with_delivery(joined(self)).with_payload(payload)


def joined(messages: Iterable[Message[Any]]) -> Token | None:
    """The deliveries of several messages as one token; None if none has any."""
    tokens = [message.delivery for message in messages if message.delivery is not None]
    if len(tokens) > 1:
        return Deliveries(tokens)
    return tokens[0] if tokens else None
