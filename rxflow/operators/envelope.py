"""The envelope of a result, and the part of an item that an operator may remember.

An item carries messages if it is one, a `Batch`, or what operators make of several: the tuple of a
`zip`, the list of a buffer, the dict of a `to_dict`, a `Notification`, a `Timestamp`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final

from reactivex.notification import OnNext
from reactivex.operators._timeinterval import TimeInterval
from reactivex.operators._timestamp import Timestamp

from rxflow.delivery import Token
from rxflow.message import Batch, Message, joined

_VALUED: Final = (OnNext, Timestamp, TimeInterval)

CARRIERS: Final[frozenset[type]] = frozenset(
    {Message, Batch, tuple, list, dict, set, frozenset, *_VALUED}
)
"""The types of what may carry messages; anything else is a plain value."""


def messages_in(item: Any) -> list[Message[Any]]:
    """The messages that an item carries; of a plain value none."""
    kind: Any = type(item)
    if kind is Message or kind is Batch:
        return [item] if kind is Message else item
    if kind in _VALUED:
        return messages_in(item.value)
    if kind not in CARRIERS:
        return []
    parts: Any = item.values() if kind is dict else item
    if CARRIERS.isdisjoint(map(type, parts)):
        return []
    return [message for part in parts for message in messages_in(part)]


def enveloped(item: Any, result: Any) -> Any:
    """A result in the envelope of the item that it was made of; of a plain value, as it is.

    Of several messages it is the newest one's envelope, with the deliveries of all. A `Message` or
    a `Batch` is its own envelope; made by hand it gets the deliveries.
    """
    kind: Any = type(item)
    if kind not in CARRIERS:
        return result
    made: Any = type(result)
    if made is Message or made is Batch:
        return _delivered(item, result)
    if kind is Message:
        return item.with_payload(result)
    messages = messages_in(item)
    if not messages:
        return result
    return newest(messages).with_delivery(joined(messages)).with_payload(result)


def newest(messages: Iterable[Message[Any]]) -> Message[Any]:
    """The message that came last; a remembered one, without its delivery, only if all are."""
    known = list(messages)
    live = [message for message in known if message.delivery is not None] or known
    return max(reversed(live), key=lambda message: message.received_at)


def _delivered(item: Any, result: Any) -> Any:
    made: list[Message[Any]] = result if type(result) is Batch else [result]
    if not made or any(message.delivery is not None for message in made):
        return result
    delivery = joined(messages_in(item))
    if delivery is None:
        return result
    last = made[-1].with_delivery(delivery)
    return Batch([*made[:-1], last]) if type(result) is Batch else last


def without_delivery(item: Any) -> Any:
    """The same item without deliveries: what an operator may remember."""
    return item if type(item) not in CARRIERS else _undelivered(item)


def exchanged(item: Any, before: Any, after: Any) -> Any:
    """An item in which one message, or batch, stands for another; as it is without that."""
    if item is before:
        return after
    if type(item) is tuple and any(part is before for part in item):
        return tuple([after if part is before else part for part in item])
    return item


def delivery_of(item: Any) -> Token | None:
    """The deliveries of all the messages of an item as one token."""
    return joined(messages_in(item))


def payload_of(item: Any) -> Any:
    """Return the part of an item that is counted and compared: of a message, the payload."""
    kind: Any = type(item)
    if kind is Message:
        return item.payload
    return item.payloads if kind is Batch else item


def by_payload(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, called with payloads."""
    return lambda *items: function(*map(payload_of, items))


def _is_live(item: Any) -> bool:
    messages = messages_in(item)
    return bool(messages) and any(message.delivery is not None for message in messages)


def _undelivered(item: Any) -> Any:
    kind: Any = type(item)
    if kind is Message:
        payload = item.payload
        if type(payload) in CARRIERS and _is_live(payload):
            item = item.with_payload(_undelivered(payload))
        return item if item.delivery is None else item.with_delivery(None)
    if not _is_live(item):
        return item
    if kind is dict:
        return {key: without_delivery(value) for key, value in item.items()}
    if kind is OnNext:
        return OnNext(without_delivery(item.value))
    if kind in _VALUED:
        return replace(item, value=without_delivery(item.value))
    return kind([without_delivery(part) for part in item])
