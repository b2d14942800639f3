"""The outbox: which packets it makes of what is published, and what becomes of each message.

The model at the end is the receiver of MQTT, over connections that break at any byte.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rxflow.mqtt.outbox import MOST_IN_FLIGHT, Limits, Outbox, Outgoing, head_of
from rxflow.mqtt.packets import PUBACK, PUBCOMP, PUBREC, MalformedPacketError
from rxflow.testing.broker import packets
from rxflow.testing.broker.packets import PUBREL

FRESH = Limits(session_present=False)
KEPT = Limits(session_present=True)
FRESH5 = Limits(session_present=False, is_5=True)
KEPT5 = Limits(session_present=True, is_5=True)


def outgoing(payload, qos=1, *, topic="a", retain=False):
    return Outgoing(topic, head_of(topic.encode()), payload, qos, retain, None)


def connected(*payloads, qos=1, limits=FRESH):
    outbox = Outbox()
    for payload in payloads:
        outbox.add(outgoing(payload, qos))
    outbox.connected(limits)
    return outbox


def sent(outbox, *, room=1 << 20):
    """What it sends now: of PUBLISH payload, packet id and whether DUP is set; of PUBREL the id."""
    version = 5 if outbox._limits.is_5 else 4
    found = []
    for first, body in packets.whole(outbox.packets(0, room)):
        if first & 0xF0 == PUBREL:
            assert first == 0x62
            found.append(body.number(2))
            continue
        publish = packets.read_publish(first, body, version)
        found.append((publish.payload, publish.packet_id, bool(first & 8)))
    return found


def stored(outbox):
    payloads = [each.payload for each in outbox.stored]
    outbox.stored.clear()
    return payloads


def refused(outbox):
    texts = [text for _, text in outbox.refused]
    outbox.refused.clear()
    return texts


# -- what is sent, and again -----------------------------------------------------------------------


def test_what_was_not_acknowledged_is_sent_again_before_what_is_new():
    outbox = connected(b"1", b"2", b"3")
    assert sent(outbox) == [(b"1", 1, False), (b"2", 2, False), (b"3", 3, False)]
    outbox.answered(PUBACK, 2)
    outbox.disconnected(0)
    outbox.add(outgoing(b"4"))
    outbox.connected(KEPT)
    assert sent(outbox) == [(b"1", 1, True), (b"3", 3, True), (b"4", 4, False)]
    assert stored(outbox) == [b"2"]


@pytest.mark.parametrize("qos", [1, 2])
def test_without_its_session_all_is_sent_once_as_new(qos):
    outbox = connected(b"1", b"2", qos=qos)
    sent(outbox)
    outbox.disconnected(0)
    outbox.connected(FRESH)
    assert sent(outbox) == [(b"1", 3, False), (b"2", 4, False)]


def test_what_the_broker_had_received_is_only_released_again():
    outbox = connected(b"1", b"2", b"3", qos=2)
    sent(outbox)
    outbox.answered(PUBREC, 2)
    outbox.answered(PUBREC, 1)
    assert sent(outbox) == [2, 1]
    outbox.disconnected(0)
    outbox.connected(KEPT)
    assert sent(outbox) == [2, 1, (b"3", 3, True)]


def test_what_the_broker_had_received_and_forgot_is_sent_again_in_its_place():
    outbox = connected(b"1", b"2", b"3", qos=2)
    sent(outbox)
    outbox.answered(PUBREC, 2)
    sent(outbox)
    outbox.disconnected(0)
    outbox.connected(FRESH)
    assert sent(outbox) == [(b"1", 4, False), (b"2", 5, False), (b"3", 6, False)]
    assert stored(outbox) == []


def test_what_had_to_wait_for_room_keeps_its_place_on_the_next_connection():
    outbox = connected(b"1", b"2", b"3")
    sent(outbox)
    outbox.disconnected(0)
    outbox.connected(KEPT._replace(receive_maximum=1))
    assert sent(outbox) == [(b"1", 1, True)]
    outbox.disconnected(0)
    outbox.add(outgoing(b"4"))
    outbox.connected(KEPT)
    assert [payload for payload, *_ in sent(outbox)] == [b"1", b"2", b"3", b"4"]


def test_an_answer_to_what_was_sent_on_an_earlier_connection_counts():
    outbox = connected(b"1", b"2", b"3", qos=2)
    sent(outbox)
    outbox.disconnected(0)
    outbox.connected(KEPT._replace(receive_maximum=1))
    outbox.answered(PUBREC, 2)  # before it was sent again
    assert sent(outbox) == [2]
    outbox.answered(PUBCOMP, 2)
    assert sent(outbox) == [(b"1", 1, True)]
    outbox.disconnected(0)
    outbox.connected(FRESH)
    assert [payload for payload, *_ in sent(outbox)] == [b"1", b"3"]
    assert stored(outbox) == [b"2"]


def test_what_was_received_before_it_was_sent_again_is_sent_once_when_the_session_is_lost():
    outbox = connected(b"1", b"2", qos=2)
    sent(outbox)
    outbox.disconnected(0)
    outbox.connected(KEPT._replace(receive_maximum=1))
    sent(outbox)
    outbox.answered(PUBREC, 2)
    outbox.disconnected(0)
    outbox.connected(FRESH)
    assert [payload for payload, *_ in sent(outbox)] == [b"1", b"2"]


def test_qos_0_is_stored_when_its_last_byte_has_left():
    outbox = connected(b"1", b"2", qos=0)
    size = len(outbox.packets(100, 1 << 20)) // 2
    outbox.written(100 + size - 1)
    assert stored(outbox) == []
    outbox.written(100 + size)
    assert stored(outbox) == [b"1"]


def test_qos_0_that_has_not_left_when_the_connection_breaks_waits_in_its_place():
    outbox = Outbox()
    for number in range(6):
        outbox.add(outgoing(b"%d" % number, number % 2))
    outbox.connected(FRESH)
    size = len(outbox.packets(0, 1 << 20)) // 6
    outbox.disconnected(size * 2)
    outbox.connected(KEPT)
    assert [payload for payload, *_ in sent(outbox)] == [b"1", b"2", b"3", b"4", b"5"]


def test_no_more_is_in_flight_than_the_broker_wants():
    outbox = connected(*(b"%d" % n for n in range(5)), limits=FRESH._replace(receive_maximum=2))
    assert [payload for payload, *_ in sent(outbox)] == [b"0", b"1"]
    assert not outbox.is_ready
    outbox.answered(PUBACK, 1)
    assert outbox.is_ready
    assert [payload for payload, *_ in sent(outbox)] == [b"2"]


def test_a_message_of_qos_2_is_in_flight_until_pubcomp():
    outbox = connected(b"1", b"2", qos=2, limits=FRESH._replace(receive_maximum=1))
    sent(outbox)
    outbox.answered(PUBREC, 1)
    assert sent(outbox) == [1]
    outbox.answered(PUBCOMP, 1)
    assert sent(outbox) == [(b"2", 2, False)]


def test_a_broker_that_wants_any_number_gets_a_thousand():
    outbox = connected(*[b""] * 2 * MOST_IN_FLIGHT)
    assert len(sent(outbox)) == MOST_IN_FLIGHT


def test_packet_ids_go_round_and_leave_out_those_in_use():
    outbox = connected(b"first")
    sent(outbox)
    for number in range(65_534):
        outbox.add(outgoing(b""))
        ((_, packet_id, _),) = sent(outbox)
        assert packet_id == number + 2
        outbox.answered(PUBACK, packet_id)
    outbox.add(outgoing(b"next"))
    assert sent(outbox) == [(b"next", 2, False)]


@pytest.mark.parametrize("size", [0, 120, 121, 122, 123, 124, 125, 16_370, 16_390, 2_097_160])
@pytest.mark.parametrize("limits", [FRESH, FRESH5])
def test_every_length_is_encoded(size, limits):
    outbox = connected(b"x" * size, limits=limits)
    ((payload, packet_id, _),) = sent(outbox)
    assert (len(payload), packet_id) == (size, 1)


def test_no_more_is_made_at_once_than_there_is_room_for():
    outbox = connected(*[b"x" * 100] * 10)
    assert len(sent(outbox, room=250)) == 3
    assert len(sent(outbox)) == 7


def test_what_waits_is_counted_in_bytes():
    outbox = Outbox()
    outbox.add(outgoing(b"x" * 97))
    assert outbox.waiting_bytes == 100
    outbox.connected(FRESH)
    sent(outbox)
    assert outbox.waiting_bytes == 0
    outbox.disconnected(0)
    assert outbox.waiting_bytes == 100
    assert len(outbox.clear()) == 1
    assert (outbox.waiting_bytes, outbox.unsettled) == (0, 0)


def test_what_is_forgotten_is_returned_whatever_its_state():
    outbox = connected(b"1", b"2", qos=2, limits=FRESH5)
    outbox.add(outgoing(b"3", 0))
    sent(outbox)
    outbox.answered(PUBREC, 1)
    outbox.answered(PUBREC, 2, b"\x87")
    outbox.add(outgoing(b"4"))
    assert sorted(each.payload for each in outbox.clear()) == [b"1", b"2", b"3", b"4"]


# -- what the broker refuses -----------------------------------------------------------------------


def test_a_refused_message_is_not_stored_and_frees_its_packet_id():
    outbox = connected(b"1", limits=FRESH5)
    sent(outbox)
    outbox.answered(PUBACK, 1, b"\x87\0")
    assert refused(outbox) == ["not authorized (reason code 135)"]
    assert stored(outbox) == []
    assert outbox.unsettled == 0


def test_a_message_that_is_refused_with_pubrec_is_not_released():
    outbox = connected(b"1", qos=2, limits=FRESH5)
    sent(outbox)
    outbox.answered(PUBREC, 1, b"\x97")
    assert refused(outbox) == ["quota exceeded (reason code 151)"]
    assert sent(outbox) == []
    outbox.disconnected(0)
    outbox.connected(KEPT5)
    assert sent(outbox) == []


def test_the_reason_string_is_in_the_reason():
    outbox = connected(b"1", limits=FRESH5)
    sent(outbox)
    user = b"\x26\0\1k\0\1v"
    outbox.answered(PUBACK, 1, b"\x83\x0d\x1f\0\3why" + user)
    assert refused(outbox) == ["implementation specific error (reason code 131): why"]


def test_no_matching_subscribers_is_no_refusal():
    outbox = connected(b"1", limits=FRESH5)
    sent(outbox)
    outbox.answered(PUBACK, 1, b"\x10")
    assert stored(outbox) == [b"1"]


def test_an_unknown_packet_id_at_pubcomp_is_a_refusal():
    outbox = connected(b"1", qos=2, limits=FRESH5)
    sent(outbox)
    outbox.answered(PUBREC, 1)
    sent(outbox)
    outbox.answered(PUBCOMP, 1, b"\x92")
    assert refused(outbox) == ["packet identifier not found (reason code 146)"]


def test_but_not_of_what_is_released_again_as_the_broker_had_completed_it():
    outbox = connected(b"1", qos=2, limits=FRESH5)
    sent(outbox)
    outbox.answered(PUBREC, 1)
    sent(outbox)
    outbox.disconnected(0)
    outbox.connected(KEPT5)
    assert sent(outbox) == [1]
    outbox.answered(PUBCOMP, 1, b"\x92")
    assert stored(outbox) == [b"1"]


@pytest.mark.parametrize(
    ("message", "limits", "named"),
    [
        (outgoing(b"1", 2), FRESH5._replace(maximum_qos=1), "no QoS above 1 (Maximum QoS)"),
        (outgoing(b"1", 1), FRESH5._replace(maximum_qos=0), "no QoS above 0 (Maximum QoS)"),
        (outgoing(b"1", 0, retain=True), FRESH5._replace(keeps_retained=False), "Retain Available"),
        (outgoing(b"x" * 10), FRESH5._replace(maximum_packet_bytes=17), "18 bytes are larger"),
        (outgoing(b"x" * 130), FRESH5._replace(maximum_packet_bytes=138), "139 bytes are larger"),
    ],
)
def test_what_connack_forbids_is_never_sent(message, limits, named):
    outbox = connected(limits=limits)
    outbox.add(message)
    outbox.add(outgoing(b"ok", 0))
    assert [payload for payload, *_ in sent(outbox)] == [b"ok"]
    (text,) = refused(outbox)
    assert named in text


@pytest.mark.parametrize(
    ("message", "limits"),
    [
        (outgoing(b"1", 1), FRESH5._replace(maximum_qos=1)),
        (outgoing(b"1", 0), FRESH5._replace(keeps_retained=False)),
        (outgoing(b"x" * 10), FRESH5._replace(maximum_packet_bytes=18)),
        (outgoing(b"x" * 130), FRESH5._replace(maximum_packet_bytes=139)),
    ],
)
def test_what_connack_just_allows_is_sent(message, limits):
    outbox = connected(limits=limits)
    outbox.add(message)
    assert len(sent(outbox)) == 1
    assert refused(outbox) == []


def test_a_payload_beyond_what_mqtt_has_is_refused():
    class Huge(bytes):
        def __len__(self):
            return 1 << 28

    outbox = connected(Huge())
    assert sent(outbox) == []
    assert "larger than the broker takes" in refused(outbox)[0]


# -- answers out of place --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [PUBACK, PUBCOMP])
def test_an_answer_for_an_id_that_is_not_in_use_is_nothing(kind):
    outbox = connected(b"1")
    sent(outbox)
    outbox.answered(kind, 7)
    assert (stored(outbox), outbox.unsettled, outbox.has_news) == ([], 1, False)


@pytest.mark.parametrize(
    ("limits", "answer"), [(FRESH, b"\x62\2\0\7"), (FRESH5, b"\x62\3\0\7\x92")]
)
def test_a_pubrec_for_an_id_that_is_not_in_use_is_released(limits, answer):
    outbox = connected(limits=limits)
    outbox.answered(PUBREC, 7)
    assert outbox.packets(0, 100) == answer


def test_a_second_puback_is_nothing():
    outbox = connected(b"1")
    sent(outbox)
    outbox.answered(PUBACK, 1)
    outbox.answered(PUBACK, 1)
    assert stored(outbox) == [b"1"]


def test_a_second_pubrec_is_released_again():
    outbox = connected(b"1", qos=2)
    sent(outbox)
    outbox.answered(PUBREC, 1)
    outbox.answered(PUBREC, 1)
    assert sent(outbox) == [1, 1]
    outbox.answered(PUBCOMP, 1)
    assert stored(outbox) == [b"1"]
    assert outbox.unsettled == 0


@pytest.mark.parametrize(("qos", "kind"), [(2, PUBACK), (1, PUBREC), (1, PUBCOMP), (2, PUBCOMP)])
def test_an_answer_of_the_wrong_kind_breaks_the_protocol(qos, kind):
    outbox = connected(b"1", qos=qos)
    sent(outbox)
    with pytest.raises(MalformedPacketError, match="packet id 1, which waits for"):
        outbox.answered(kind, 1)
    assert (stored(outbox), outbox.unsettled) == ([], 1)


def test_the_latest_topics_of_this_connection_are_the_suspects():
    outbox = connected()
    for topic, qos in (("a", 0), ("b", 0), ("b", 0), ("c", 1), ("d", 1)):
        outbox.add(outgoing(b"", qos, topic=topic))
    sent(outbox)
    outbox.written(12)
    outbox.answered(PUBACK, 1)
    assert outbox.suspects() == ["d", "b", "a"]


# -- against a model of the receiver ---------------------------------------------------------------


class Receiver:
    """A broker as the standard wants it, over all connections [MQTT-4.3, 4.4].

    Args:
        at_once: Hands a message of QoS 2 on at PUBLISH (method B), else at PUBREL (method A).
    """

    def __init__(self, *, at_once):
        self.at_once = at_once
        self.delivered = []
        self.declined = set()  # refused once: what it takes on a later connection is out of order
        self.pending = {}  # packet id -> number, of QoS 2, until PUBREL
        self.sending = {}  # packet id -> number, in this session, of QoS 1 and 2
        self.ids = {}  # the other way round
        self.buffer = bytearray()
        self.answers = []
        self.begin(limits=FRESH)

    def begin(self, *, limits):
        self.limits = limits
        if not limits.session_present:
            self.pending, self.sending, self.ids = {}, {}, {}
        self.buffer.clear()
        self.answers.clear()
        self.seen = []  # numbers of PUBLISH on this connection
        self.owed = set()  # packet ids of this connection: Receive Maximum

    def read(self, data, refuse):
        self.buffer += data
        for first, body in packets.whole(self.buffer):
            if first & 0xF0 == PUBREL:
                packet_id = body.number(2)
                number = self.pending.pop(packet_id, None)
                if number is not None and not self.at_once:
                    self.delivered.append(number)
                unknown = number is None and self.limits.is_5
                self.answers.append((PUBCOMP, packet_id, b"\x92" * unknown))
            else:
                self.publish(first, body, refuse)

    def publish(self, first, body, refuse):
        publish = packets.read_publish(first, body, 5 if self.limits.is_5 else 4)
        number, packet_id = int(publish.payload), publish.packet_id
        assert not self.seen or number > self.seen[-1], "out of order on this connection"
        self.seen.append(number)
        if not publish.qos:
            self.delivered.append(number)
            return
        is_duplicate = bool(first & 8)
        if is_duplicate and packet_id in self.sending:
            assert self.sending[packet_id] == number, "the id of another message"
        assert self.ids.setdefault(number, packet_id) == packet_id, "another id for a message"
        self.sending[packet_id] = number
        self.owed.add(packet_id)
        assert len(self.owed) <= self.limits.receive_maximum
        code = b"\x87" if refuse(number) and self.limits.is_5 else b""
        if code:
            self.declined.add(number)
        if publish.qos == 1:
            if not code:
                self.delivered.append(number)
            self.answers.append((PUBACK, packet_id, code))
            return
        if packet_id in self.pending:
            assert is_duplicate, "an id that is in use"
            code = b""
        elif not code:
            self.pending[packet_id] = number
            if self.at_once:
                self.delivered.append(number)
        self.answers.append((PUBREC, packet_id, code))

    def answered(self, kind, packet_id, code):
        if kind != PUBREC or code:
            self.owed.discard(packet_id)


class Publishing(RuleBasedStateMachine):
    """Messages, connections that break at any byte, sessions that are kept or lost."""

    def __init__(self):
        super().__init__()
        self.outbox = Outbox()
        self.receiver = Receiver(at_once=False)
        self.is_first = True
        self.qos = {}
        self.kernel = bytearray()  # given to the connection, and not taken by the kernel yet
        self.flying = bytearray()  # taken, and not arrived
        self.given = self.written = 0
        self.stored, self.refused = [], []
        self.losses = 0
        self.bad = set()

    @property
    def is_up(self):
        return self.outbox.is_connected

    @rule(at_once=st.booleans())
    @precondition(lambda self: self.is_first and not self.receiver.seen)
    def method(self, at_once):
        self.receiver.at_once = at_once

    @rule(levels=st.lists(st.integers(0, 2), min_size=1, max_size=4), is_bad=st.integers(0, 9))
    def publish(self, levels, is_bad):
        for qos in levels:
            number = len(self.qos) + 1
            self.qos[number] = qos
            if not is_bad:
                self.bad.add(number)
            self.outbox.add(outgoing(b"%d" % number, qos))

    @rule(kept=st.booleans(), is_5=st.booleans(), window=st.sampled_from([1, 2, 3, 65_535]))
    @precondition(lambda self: not self.is_up)
    def connect(self, kept, is_5, window):
        kept = kept and not self.is_first
        self.losses += not (kept or self.is_first)
        self.is_first = False
        limits = Limits(session_present=kept, is_5=is_5, receive_maximum=window)
        self.receiver.begin(limits=limits)
        self.kernel.clear()
        self.flying.clear()
        self.given = self.written = 0
        self.outbox.connected(limits)

    def write(self, room):
        made = self.outbox.packets(self.given, room)
        self.given += len(made)
        self.kernel += made

    def flush(self, count):
        count = min(count, len(self.kernel))
        self.flying += self.kernel[:count]
        del self.kernel[:count]
        self.written += count
        self.outbox.written(self.written)

    def arrive(self, count):
        data = self.flying[:count]
        del self.flying[:count]
        self.receiver.read(data, self.bad.__contains__)

    def answer(self, count):
        for kind, packet_id, code in self.receiver.answers[:count]:
            self.receiver.answered(kind, packet_id, code)
            self.outbox.answered(kind, packet_id, code)
        del self.receiver.answers[:count]

    @rule(turns=st.lists(st.tuples(*[st.integers(0, 120)] * 2, st.integers(0, 9)), max_size=6))
    @precondition(lambda self: self.is_up)
    def exchange(self, turns):
        for flushed, arrived, answered in turns:
            self.write(1 << 20)
            self.flush(flushed)
            self.arrive(arrived)
            self.answer(answered)
            self.take()

    @rule(
        has_arrived=st.booleans(),
        kept=st.booleans(),
        is_5=st.booleans(),
        window=st.sampled_from([1, 2, 3, 65_535]),
    )
    @precondition(lambda self: self.is_up)
    def cut(self, has_arrived, **limits):
        """The broker may have read what was on its way; its answers are lost."""
        if has_arrived:
            self.arrive(len(self.flying))
        self.outbox.disconnected(self.written)
        self.connect(**limits)

    @invariant()
    def take(self):
        self.stored += [int(each.payload) for each in self.outbox.stored]
        self.refused += [int(each.payload) for each, _ in self.outbox.refused]
        self.outbox.stored.clear()
        self.outbox.refused.clear()
        settled = [*self.stored, *self.refused]
        assert len(set(settled)) == len(settled), "settled twice"
        delivered = set(self.receiver.delivered)
        assert all(n in delivered or not self.qos[n] for n in self.stored), "stored, and lost"

    def teardown(self):
        if not self.is_up:
            self.connect(kept=True, is_5=True, window=2)
        for _ in range(10_000):
            if not (self.outbox.unsettled or self.flying or self.receiver.answers):
                break
            self.write(1 << 20)
            self.flush(len(self.kernel))
            self.arrive(len(self.flying))
            self.answer(len(self.receiver.answers))
            self.take()
        assert sorted([*self.stored, *self.refused]) == sorted(self.qos), "not settled"
        delivered = self.receiver.delivered
        in_order = [n for n in delivered if n not in self.receiver.declined]
        for qos in range(3):
            of_qos = [n for n in in_order if self.qos[n] == qos]
            firsts = list(dict.fromkeys(of_qos))
            assert firsts == sorted(firsts), "first deliveries out of order"
            if qos != 1:  # a lost session can't tell what had arrived
                most = 1 + self.losses * (qos == 2)
                assert all(of_qos.count(n) <= most for n in firsts), "more than once"
        if self.receiver.at_once:
            firsts = list(dict.fromkeys(n for n in in_order if self.qos[n]))
            assert firsts == sorted(firsts), "first deliveries out of order among QoS 1 and 2"
        if not self.losses:
            twice = {n for n in delivered if self.qos[n] == 2 and delivered.count(n) > 1}
            assert not twice, "QoS 2 twice"
            assert not {n for n in delivered if self.qos[n] == 2} & set(self.refused)


Publishing.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestAgainstAModelOfTheReceiver = Publishing.TestCase
