"""Messages in their envelopes, and batches of them."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from datetime import UTC, datetime

import pytest
from ledgers import Linked

from rxflow.delivery import Delivery
from rxflow.message import EPOCH, Batch, Message, joined
from rxflow.properties import Properties

NOW = datetime(2026, 1, 2, tzinfo=UTC)


class Recorder:
    """A ledger, and what it acknowledged."""

    def __init__(self):
        self.acknowledged = []
        self.ledger = Linked(self.acknowledged.extend)

    def message(self, number, payload=b""):
        return Message("t", payload, 1, delivery=Delivery(self.ledger, number))

    def settled(self):
        self.ledger.settle()
        return self.acknowledged


def full(delivery=None):
    properties = Properties(content_type="text/plain")
    return Message("t", b"p", 1, True, True, properties, NOW, delivery)  # noqa: FBT003


def test_a_message_made_by_hand_has_an_empty_envelope():
    message = Message("t", b"p")
    assert (message.qos, message.retain, message.duplicate) == (0, False, False)
    assert (message.properties, message.received_at) == (Properties(), EPOCH)
    assert message.delivery is None


def test_with_payload_keeps_the_envelope_and_the_delivery():
    recorder = Recorder()
    message = full(Delivery(recorder.ledger, 1))
    made = message.with_payload({"n": 1})
    assert made == Message("t", {"n": 1}, 1, True, True, message.properties)  # noqa: FBT003
    assert made.received_at is message.received_at
    assert made.delivery is message.delivery


def test_with_delivery_replaces_the_delivery_only():
    recorder = Recorder()
    message = full(Delivery(recorder.ledger, 1))
    freed = message.with_delivery(None)
    assert freed == message
    assert (freed.delivery, freed.received_at) == (None, NOW)


@pytest.mark.parametrize(
    "made",
    [
        full().with_payload(full().payload),
        full().with_delivery(None),
        copy.copy(full()),
        copy.deepcopy(full()),
        pickle.loads(pickle.dumps(full())),
    ],
)
def test_each_way_of_making_a_message_fills_every_slot(made):
    for slot in Message.__slots__:
        assert getattr(made, slot) == getattr(full(), slot), slot


@pytest.mark.parametrize(
    "other",
    [
        Message("u", b"p"),
        Message("t", b"q"),
        Message("t", b"p", 1),
        Message("t", b"p", retain=True),
        Message("t", b"p", duplicate=True),
        Message("t", b"p", properties=Properties(expiry=1)),
        "t",
    ],
)
def test_messages_differ_when_anything_compared_differs(other):
    assert Message("t", b"p") != other


def test_equality_ignores_the_time_and_the_delivery():
    recorder = Recorder()
    one, other = recorder.message(1), Message("t", b"", 1, received_at=NOW)
    assert one == other
    assert hash(one) == hash(other)


def test_a_message_has_no_other_attribute():
    with pytest.raises(AttributeError):
        Message("t", b"p").other = 1  # type: ignore[attr-defined]


def test_a_copy_is_the_message_itself():
    message = full()
    assert copy.copy(message) is message


def test_a_deep_copy_shares_the_delivery_but_not_the_payload():
    recorder = Recorder()
    message = recorder.message(7, {"n": [1]})
    twin = copy.deepcopy(message)
    assert twin == message
    assert twin.payload["n"] is not message.payload["n"]
    assert twin.delivery is message.delivery
    del message
    assert recorder.settled() == []
    del twin
    assert recorder.settled() == [7]


def test_a_deep_copy_of_a_batch_settles_each_delivery_once():
    recorder = Recorder()
    batch = Batch([recorder.message(1), recorder.message(2)])
    twin = copy.deepcopy(batch)
    del batch
    assert recorder.settled() == []
    del twin
    assert recorder.settled() == [1, 2]


def test_as_a_field_of_a_dataclass_it_survives_asdict():
    @dataclasses.dataclass
    class Holder:
        message: Message

    recorder = Recorder()
    holder = Holder(recorder.message(3))
    made = dataclasses.asdict(holder)
    assert made["message"].delivery is holder.message.delivery
    del holder, made
    assert recorder.settled() == [3]


def test_a_pickled_message_has_no_delivery():
    recorder = Recorder()
    message = full(Delivery(recorder.ledger, 1))
    back = pickle.loads(pickle.dumps(message))
    assert (back, back.received_at, back.delivery) == (message, NOW, None)


def test_repr_names_topic_qos_and_flags():
    assert repr(Message("t", b"p")) == "Message('t', b'p', qos=0)"
    assert repr(full()) == "Message('t', b'p', qos=1, retain, duplicate)"


@pytest.mark.parametrize("payload", [b"x" * 77, b"x" * 78, b"\n" * 1000, "é" * 1000, [0] * 1000])
def test_repr_shows_at_most_80_characters_of_the_payload(payload):
    around = len(repr(Message("t", 0))) - 1
    shown = repr(Message("t", payload))
    assert len(shown) - around <= 80
    assert "\n" not in shown
    assert ("…" in shown) == (len(repr(payload)) > 80)


def test_a_batch_is_a_list_of_its_messages():
    batch = Batch([Message("a", 1), Message("b", 2), Message("a", 3)])
    assert batch == [Message("a", 1), Message("b", 2), Message("a", 3)]
    assert (batch.payloads, batch.topics) == ([1, 2, 3], ["a", "b", "a"])


def test_a_result_of_a_batch_is_in_the_newest_envelope_with_every_delivery():
    recorder = Recorder()
    batch = Batch([recorder.message(1), Message("u", 0, received_at=NOW, delivery=None)])
    batch.insert(1, recorder.message(2))
    result = batch.with_payload("sum")
    assert (result, result.received_at) == (Message("u", "sum"), NOW)
    del batch
    assert recorder.settled() == []
    del result
    assert recorder.settled() == [1, 2]


def test_joined_makes_no_more_of_none_or_one_delivery_than_it_is():
    recorder = Recorder()
    one = recorder.message(1)
    assert joined([]) is None
    assert joined([Message("t", 0)]) is None
    assert joined([Message("t", 0), one]) is one.delivery
