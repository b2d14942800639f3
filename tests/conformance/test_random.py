"""A broker that keeps to the letter and otherwise does as it likes: nothing is lost or twice."""

from __future__ import annotations

import contextlib
import random
import socket
from collections import Counter
from dataclasses import dataclass, field

import pytest
from battery.sizes import CONFORMANCE_SEEDS
from clients import published, received
from strict import (
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    RECEIVE_MAXIMUM,
    Answer,
    Peer,
    Publish,
    StrictBroker,
    Subscribe,
)


@dataclass
class Broker:
    """Sends messages of each QoS under few packet ids, and keeps what is not acknowledged."""

    dice: random.Random
    sent: list[tuple[int, bytes]] = field(default_factory=list)  # QoS and payload
    waiting: dict[int, tuple[int, bytes]] = field(default_factory=dict)  # by packet id, in order
    released: set[int] = field(default_factory=set)  # PUBREL is sent

    def resume(self, peer: Peer, *, is_first: bool) -> None:
        """Greet, and send again what is not acknowledged [MQTT-4.4.0-1]."""
        peer.connack(session_present=not is_first)
        for packet_id, (qos, payload) in self.waiting.items():
            if packet_id in self.released:
                peer.session.held.add(packet_id)
                peer.answer(PUBREL, packet_id)
            else:
                peer.publish("a", payload, qos, packet_id, duplicate=True)

    def send(self, peer: Peer) -> None:
        qos = self.dice.choice([0, 1, 1, 2, 2])
        free = [each for each in range(1, 7) if each not in self.waiting]
        if not free:
            return
        packet_id = self.dice.choice(free)
        payload = self.dice.choice([b"same", b"%d" % len(self.sent)])
        self.sent.append((qos, payload))
        if qos:
            self.waiting[packet_id] = qos, payload
        peer.publish("a", payload, qos, packet_id)

    def hear(self, peer: Peer) -> None:
        """Take the next answer, and do what it asks for."""
        each = peer.take()
        if isinstance(each, Subscribe):
            peer.grant(each)
            return
        assert isinstance(each, Answer), each
        if each.kind == PUBREC:
            self.released.add(each.packet_id)
            peer.answer(PUBREL, each.packet_id)
        else:
            assert each.kind != PUBCOMP or each.packet_id in self.released
            self.released.discard(each.packet_id)
            del self.waiting[each.packet_id]

    def live(self, peer: Peer, *, is_first: bool, is_last: bool) -> None:
        """One connection, which ends anywhere; the last one ends when all is acknowledged."""
        self.resume(peer, is_first=is_first)
        if is_first:
            self.hear(peer)
        for _ in range(self.dice.randrange(12)):
            if self.waiting and self.dice.random() < 0.5:
                self.hear(peer)
            else:
                self.send(peer)
        if is_last:
            while self.waiting:
                self.hear(peer)
            peer.end()


@pytest.mark.parametrize("seed", range(CONFORMANCE_SEEDS))
def test_over_any_cuts_qos_1_comes_at_least_once_and_qos_2_once(version, seed):
    model = Broker(random.Random(seed))
    count = 6
    scripts = [
        lambda peer, n=n: model.live(peer, is_first=n == 0, is_last=n == count - 1)
        for n in range(count)
    ]
    with StrictBroker(version, *scripts) as broker:
        messages = received(broker, qos=2, client_id="me")
    came = Counter((message.qos, message.payload) for message in messages)
    for each, times in Counter(model.sent).items():
        if each[0] == 2:
            assert came[each] == times, each
        elif each[0] == 1:
            assert came[each] >= times, each
        else:
            assert came[each] <= times, each


@dataclass
class Taker:
    """Takes what a sink publishes, answers when it likes, and is cut off anywhere."""

    dice: random.Random
    messages: list[tuple[int, bytes]] = field(default_factory=list)
    held: set[int] = field(default_factory=set)  # packet ids of QoS 2, until PUBREL
    due: list[tuple[int, int]] = field(default_factory=list)  # answers, in order

    def hear(self, peer: Peer) -> None:
        each = peer.take()
        if isinstance(each, Answer):
            assert each.kind == PUBREL
            self.held.discard(each.packet_id)
            self.due.append((PUBCOMP, each.packet_id))
            return
        assert isinstance(each, Publish), each
        if each.qos < 2 or each.packet_id not in self.held:
            self.messages.append((each.qos, each.payload))
        if each.qos == 2:
            self.held.add(each.packet_id)
        if each.qos:
            self.due.append((PUBACK if each.qos == 1 else PUBREC, each.packet_id))

    def live(self, peer: Peer, count: int, *, is_first: bool, is_last: bool) -> None:
        limits = [(RECEIVE_MAXIMUM, 4)] if peer.version == 5 else []
        peer.connack(*limits, session_present=not is_first)
        self.due.clear()
        for _ in range(self.dice.randrange(1, 3 * count // 4)):
            if self.due and self.dice.random() < 0.5:
                peer.answer(*self.due.pop(0))
            elif not self.is_over(peer, count):
                self.hear(peer)
        if not is_last:
            with contextlib.suppress(OSError):
                peer._connection.shutdown(socket.SHUT_WR)
            peer.rest()  # it may have sent more, of which we have nothing
            return
        while self.due or not self.is_over(peer, count):
            if self.due:
                peer.answer(*self.due.pop(0))
            else:
                self.hear(peer)
        peer.rest()

    def is_over(self, peer: Peer, count: int) -> bool:
        """Nothing may come any more, or not before an answer."""
        session = peer.session
        in_flight = len(session.sent) - len(session.resent or ()) + len(session.released)
        is_all = len(set(self.messages)) >= count and not in_flight
        return is_all or bool(self.due)


@pytest.mark.parametrize("seed", range(CONFORMANCE_SEEDS))
def test_over_any_cuts_a_sink_publishes_all_in_order_and_qos_2_once(version, seed):
    model = Taker(random.Random(seed))
    items = [(model.dice.choice([1, 2]), n) for n in range(30)]
    connections = 5
    scripts = [
        lambda peer, n=n: model.live(
            peer, len(items), is_first=n == 0, is_last=n == connections - 1
        )
        for n in range(connections)
    ]
    with StrictBroker(version, *scripts) as broker:
        report = published(
            broker, *items, topic="a", qos=lambda item: item[0], client_id="me", drain_timeout=20
        )
    assert report.stored == len(items)
    came = Counter(model.messages)
    expected = [(qos, b"[%d,%d]" % (qos, n)) for qos, n in items]
    assert list(dict.fromkeys(model.messages)) == expected  # first deliveries
    assert [each for each in came if each[0] == 2 and came[each] > 1] == []
