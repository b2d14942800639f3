"""A broker that keeps to the letter and otherwise does as it likes: nothing is lost or twice."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
from battery.sizes import CONFORMANCE_SEEDS
from clients import received
from strict import PUBCOMP, PUBREC, PUBREL, Answer, Peer, StrictBroker, Subscribe


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
