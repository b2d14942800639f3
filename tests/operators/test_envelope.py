from __future__ import annotations

import copy
from concurrent.futures import Future
from datetime import UTC, datetime

import pytest
from ledgers import Linked
from reactivex import operators as rx
from reactivex.notification import OnNext
from reactivex.operators._timestamp import Timestamp
from streams import Source, store

from rxflow import operators as ops
from rxflow.delivery import Delivery, Ledger, Spread
from rxflow.message import Batch, Message
from rxflow.operators.envelope import enveloped, messages_in, without_delivery

LEDGER = Ledger()


def made(n: int) -> Message[int]:
    return Message(
        f"t{n}", n, 1, received_at=datetime(2026, 1, n, tzinfo=UTC), delivery=Delivery(LEDGER, n)
    )


CONTAINERS = {
    "message": lambda m: m,
    "batch": lambda m: Batch([m]),
    "tuple": lambda m: (1, m),
    "list": lambda m: [m, "plain"],
    "dict": lambda m: {"k": m},
    "set": lambda m: {m},
    "notification": OnNext,
    "timestamp": lambda m: Timestamp(m, datetime(2026, 1, 1, tzinfo=UTC)),
    "tuple of a batch": lambda m: (Batch([m]), 2),
}


@pytest.mark.parametrize("hold", CONTAINERS.values(), ids=CONTAINERS)
def test_what_is_remembered_has_no_delivery_and_is_otherwise_the_same(hold):
    item = hold(made(1))
    kept = without_delivery(item)
    assert type(kept) is type(item)
    assert str(kept) == str(item)
    assert [m.delivery for m in messages_in(kept)] == [None]
    assert messages_in(item)[0].delivery is not None


@pytest.mark.parametrize("hold", CONTAINERS.values(), ids=CONTAINERS)
def test_a_result_travels_in_the_envelope_of_what_carries_messages(hold):
    result = enveloped(hold(message := made(1)), "new")
    assert (result.topic, result.payload) == ("t1", "new")
    assert result.delivery is message.delivery


@pytest.mark.parametrize("plain", [1, (1, 2), [3], {"k": 4}, {5}, OnNext(6), [], None])
def test_plain_values_have_no_envelope(plain):
    assert without_delivery(plain) is plain
    assert enveloped(plain, "new") == "new"


def test_the_envelope_is_that_of_the_newest_that_has_a_delivery():
    old, new = made(1), made(2)
    assert enveloped((new, old), 0).topic == "t2"
    assert enveloped((old, without_delivery(new)), 0).topic == "t1"


def test_a_batch_made_by_hand_carries_the_deliveries_in_its_last_message():
    message = made(1)
    first, last = enveloped(message, Batch([Message("a", 1), Message("b", 2)]))
    assert (first.delivery, last.delivery) == (None, message.delivery)


def test_a_copy_of_a_spread_message_shares_its_delivery():
    spread = Spread(made(1).delivery)
    assert copy.copy(spread) is copy.deepcopy(spread) is spread


def test_a_sink_that_fails_over_a_row_fails_the_source():
    failures = []
    ledger = Linked(print, failed=failures.append)
    Spread(Delivery(ledger, 1)).fail(error := OSError("full"))
    assert failures == [error]


MAKING = {
    "tuple": lambda message: (message, 1),
    "list": lambda message: [message],
    "dict, the message first": lambda message: {"message": message, "n": 1},
    "dict, the message last": lambda message: {"n": 1, "message": message},
    "tuple in a tuple": lambda message: (1, (2, message)),
}


@pytest.mark.parametrize("module", [ops, rx])
@pytest.mark.parametrize("make", MAKING.values(), ids=MAKING)
def test_of_what_a_map_made_with_messages_in_it_nothing_is_remembered(make, module):
    source = Source()
    source.pipe(module.map(make), ops.pairwise()).subscribe(lambda pair: store(pair[1]))
    for packet_id in (1, 2, 3):
        source.receive(packet_id)
    assert source.settled() == [1, 2, 3]


def test_the_future_of_a_stream_of_ours_holds_its_last_message_without_a_delivery():
    source = Source()
    future = source.pipe(ops.to_future(Future))
    source.receive(1)
    source.receive(2)
    assert source.settled() == [1, 2]
    source.complete()
    assert future.result().payload == 2
