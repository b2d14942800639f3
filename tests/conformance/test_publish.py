"""What a sink publishes, and what it makes of the answers, by the letter."""

from __future__ import annotations

import pytest
import reactivex
from clients import published, running
from strict import (
    MAXIMUM_PACKET,
    MAXIMUM_QOS,
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    REASON,
    RECEIVE_MAXIMUM,
    RETAIN_AVAILABLE,
    TOPIC_ALIAS_MAXIMUM,
    USER,
    Answer,
    Disconnect,
    Publish,
    StrictBroker,
    properties,
)

from rxflow import ConfigError, MqttSink, SinkError, from_mqtt
from rxflow import operators as ops

ODD_TEXT = "\ufeffa☃\U0001f600\u0001\x1b[0m"
QOS = pytest.mark.parametrize("qos", [0, 1, 2])


def taken(version, count, *items, **settings) -> list[Publish]:
    """What a broker that takes everything gets of some items."""
    messages: list[Publish] = []

    def script(peer):
        peer.connack()
        messages.extend(peer.take_message() for _ in range(count))
        assert peer.rest() == [Disconnect(0, {})]

    with StrictBroker(version, script) as broker:
        published(broker, *items, **settings)
    return messages


# -- PUBLISH ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("retain", [False, True])
@QOS
def test_an_item_is_a_publish_with_its_topic_qos_and_retain(version, qos, retain):
    (message,) = taken(version, 1, b"x", qos=qos, retain=retain, topic=ODD_TEXT)
    assert (message.topic, message.payload) == (ODD_TEXT, b"x")
    assert (message.qos, message.retain, message.duplicate) == (qos, retain, False)
    assert bool(message.packet_id) == bool(qos)
    assert message.properties == {}


@pytest.mark.parametrize("size", [0, 1, 110, 130, 16_370, 16_390, 2_097_140, 2_097_160])
def test_a_payload_of_any_size_has_the_shortest_length(version, size):
    (message,) = taken(version, 1, b"x" * size, qos=1)
    assert len(message.payload) == size


@pytest.mark.parametrize("topic", ["", "+", "a/#", "a+", "a\0b", "\ud800", "x" * 65_536])
def test_what_is_no_topic_is_refused_while_composing(topic):
    with pytest.raises(ConfigError, match="topic"):
        MqttSink("mqtt://h", topic=topic)


@pytest.mark.parametrize("topic", ["", "+", "a/#", "a\0b", "\ud800", "x" * 65_536])
def test_what_a_function_makes_of_an_item_is_no_topic_either(version, topic):
    with StrictBroker(version) as broker, pytest.raises(SinkError, match="topic"):
        published(broker, 1, topic=lambda _: topic)


def test_the_dup_flag_of_a_message_that_came_is_not_passed_on(version):
    def source_side(peer):
        peer.connack()
        peer.suback()
        peer.publish("a", b"x", 1, 9, duplicate=True)
        assert peer.expect(Answer) == Answer(PUBACK, 9, 0, {})
        peer.end()

    def sink_side(peer):
        peer.connack()
        assert not peer.take_message().duplicate
        peer.rest()

    with StrictBroker(version, source_side) as one, StrictBroker(version, sink_side) as other:
        source = from_mqtt(one.url, "#").pipe(ops.take_while(lambda m: m.payload != b"end"))
        running(one, source, MqttSink(other.url, topic="b"))


# -- packet ids ------------------------------------------------------------------------------------


@QOS
def test_messages_in_flight_have_packet_ids_of_their_own(version, qos):
    def script(peer):
        peer.connack()
        messages = [peer.expect(Publish) for _ in range(50)]
        if qos:
            assert len({message.packet_id for message in messages}) == 50
        for message in messages:
            peer.complete(message)
        peer.rest()

    with StrictBroker(version, script) as broker:
        assert published(broker, *range(50), qos=qos).stored == 50


# -- the flows -------------------------------------------------------------------------------------


def test_qos_1_is_stored_by_its_puback_and_not_before(version):
    def script(peer):
        peer.connack()
        first, second = peer.expect(Publish), peer.expect(Publish)
        peer.complete(second)
        peer.complete(first)
        peer.rest()

    with StrictBroker(version, script) as broker:
        assert published(broker, 1, 2).stored == 2


@pytest.mark.parametrize("answered", [False, True])
def test_qos_2_is_stored_by_its_pubcomp_and_not_by_its_pubrec(version, answered):
    def script(peer):
        peer.connack()
        message = peer.expect(Publish)
        peer.answer(PUBREC, message.packet_id)
        assert peer.expect(Answer) == Answer(PUBREL, message.packet_id, 0, {})
        if answered:
            peer.answer(PUBCOMP, message.packet_id)
        peer.rest()

    with StrictBroker(version, script) as broker:
        if answered:
            assert published(broker, 1, qos=2).stored == 1
        else:
            with pytest.raises(SinkError, match="not acknowledged"):
                published(broker, 1, qos=2, drain_timeout=0.3)


def test_releases_leave_in_the_order_of_the_pubrecs(version):
    def script(peer):
        peer.connack()
        ids = [peer.expect(Publish).packet_id for _ in range(4)]
        for packet_id in (ids[2], ids[0], ids[3], ids[1]):
            peer.answer(PUBREC, packet_id)
        released = [peer.expect(Answer).packet_id for _ in range(4)]
        assert released == [ids[2], ids[0], ids[3], ids[1]]
        for packet_id in ids:
            peer.answer(PUBCOMP, packet_id)
        peer.rest()

    with StrictBroker(version, script) as broker:
        assert published(broker, 1, 2, 3, 4, qos=2).stored == 4


@pytest.mark.parametrize("rest", [(0,), (0x10,), (0, 0)])
@pytest.mark.parametrize("qos", [1, 2])
def test_answers_may_have_two_three_or_four_bytes(qos, rest):
    def script(peer):
        peer.connack()
        message = peer.expect(Publish)
        if qos == 1:
            peer.answer(PUBACK, message.packet_id, *rest)
        else:
            peer.answer(PUBREC, message.packet_id, *rest)
            assert peer.expect(Answer) == Answer(PUBREL, message.packet_id, 0, {})
            peer.answer(PUBCOMP, message.packet_id, 0, *rest[1:])
        peer.rest()

    with StrictBroker(5, script) as broker:
        assert published(broker, 1, qos=qos).stored == 1


@pytest.mark.parametrize("qos", [1, 2])
def test_answers_may_say_why_in_any_letters(qos):
    said = properties((REASON, "why\n" + ODD_TEXT), (USER, ("k", "\x1b[31m")), (USER, ("k", "")))

    def script(peer):
        peer.connack((REASON, ODD_TEXT))
        message = peer.expect(Publish)
        if qos == 1:
            peer.answer(PUBACK, message.packet_id, 0, *said)
        else:
            peer.answer(PUBREC, message.packet_id, 0, *said)
            assert peer.expect(Answer) == Answer(PUBREL, message.packet_id, 0, {})
            peer.answer(PUBCOMP, message.packet_id, 0, *said)
        peer.rest()

    with StrictBroker(5, script) as broker:
        assert published(broker, 1, qos=qos).stored == 1


@pytest.mark.parametrize("code", [0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99])
@pytest.mark.parametrize("qos", [1, 2])
def test_a_refused_message_is_over_and_never_released(qos, code):
    def script(peer):
        peer.connack()
        message = peer.expect(Publish)
        peer.answer(PUBACK if qos == 1 else PUBREC, message.packet_id, code)
        assert peer.rest() == [Disconnect(0, {})]

    with StrictBroker(5, script) as broker, pytest.raises(SinkError, match="'a'"):
        published(broker, 1, qos=qos)


def test_an_answer_to_nothing_disturbs_nobody(version):
    def script(peer):
        peer.connack()
        message = peer.expect(Publish)
        peer.answer(PUBACK, 4242)
        peer.answer(PUBCOMP, 4243)
        peer.complete(message)
        peer.rest()

    with StrictBroker(version, script) as broker:
        assert published(broker, 1).stored == 1


# -- limits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 2, 5])
@pytest.mark.parametrize("qos", [1, 2])
def test_no_more_is_in_flight_than_the_receive_maximum_says(qos, window):
    def script(peer):  # `strict` sees to the window all the time
        peer.connack((RECEIVE_MAXIMUM, window))
        waiting = [peer.expect(Publish) for _ in range(window)]
        peer.hears_nothing(0.2)
        for message in waiting:
            peer.answer(PUBACK if qos == 1 else PUBREC, message.packet_id)
        peer.serve(20 - (window if qos == 1 else 0))
        peer.rest()

    with StrictBroker(5, script) as broker:
        assert published(broker, *range(20), qos=qos).stored == 20


def test_a_refused_qos_2_message_makes_room_in_the_window(tmp_path):
    def script(peer):
        peer.connack((RECEIVE_MAXIMUM, 1))
        message = peer.expect(Publish)
        peer.answer(PUBREC, message.packet_id, 0x87)
        peer.take_message()
        peer.rest()

    refused: list[object] = []
    with StrictBroker(5, script) as broker:
        published(broker, 1, 2, qos=2, rejected=reactivex.Observer(refused.append))
    assert len(refused) == 1


def test_a_full_window_delays_no_release():
    def script(peer):
        peer.connack((RECEIVE_MAXIMUM, 2))
        first, second = peer.expect(Publish), peer.expect(Publish)
        for message in (first, second):
            peer.answer(PUBREC, message.packet_id)
            assert peer.expect(Answer) == Answer(PUBREL, message.packet_id, 0, {})
        peer.hears_nothing(0.2)  # a PUBREC makes no room yet
        peer.answer(PUBCOMP, first.packet_id)
        third = peer.expect(Publish)
        peer.answer(PUBCOMP, second.packet_id)
        peer.complete(third)
        peer.rest()

    with StrictBroker(5, script) as broker:
        assert published(broker, 1, 2, 3, qos=2).stored == 3


@pytest.mark.parametrize("granted", [0, 1])
def test_no_message_has_a_higher_qos_than_the_broker_takes(granted):
    def script(peer):
        peer.connack((MAXIMUM_QOS, granted))
        peer.rest()

    with StrictBroker(5, script) as broker, pytest.raises(SinkError, match="QoS"):
        published(broker, 1, qos=2, drain_timeout=20)


def test_no_message_is_retained_where_the_broker_keeps_none():
    def script(peer):
        peer.connack((RETAIN_AVAILABLE, 0))
        peer.rest()

    with StrictBroker(5, script) as broker, pytest.raises(SinkError, match="etain"):
        published(broker, 1, retain=True, drain_timeout=20)


def test_no_packet_is_larger_than_the_broker_takes():
    def script(peer):
        peer.connack((MAXIMUM_PACKET, 100))
        peer.rest()

    with StrictBroker(5, script) as broker, pytest.raises(SinkError, match="100"):
        published(broker, b"x" * 100, drain_timeout=20)


def test_a_packet_that_just_fits_is_sent():
    def script(peer):
        peer.connack((MAXIMUM_PACKET, 100), (TOPIC_ALIAS_MAXIMUM, 10))
        assert peer.take_message().size == 100
        peer.rest()

    with StrictBroker(5, script) as broker:
        assert published(broker, b"x" * 92).stored == 1


# -- over a reconnect ------------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [1, 2])
def test_what_was_not_acknowledged_is_sent_again_first_and_in_its_order(version, qos):
    def cut(peer):
        peer.connack()
        messages = [peer.expect(Publish) for _ in range(5)]
        peer.complete(messages[1])

    def again(peer):
        peer.connack(session_present=True)
        payloads = []
        while len(payloads) < 4:
            message = peer.expect(Publish)
            assert message.duplicate
            payloads.append(message.payload)
        assert payloads == [b"0", b"2", b"3", b"4"]
        for message in list(peer.session.sent.values()):
            peer.complete(message)
        peer.rest()

    with StrictBroker(version, cut, again) as broker:
        assert published(broker, *range(5), qos=qos, client_id="me").stored == 5


def test_after_its_pubrec_only_the_release_is_sent_again(version):
    ids: list[int] = []

    def cut(peer):
        peer.connack()
        ids.append(peer.expect(Publish).packet_id)
        peer.answer(PUBREC, ids[0])
        peer.expect(Answer)

    def again(peer):
        peer.connack(session_present=True)
        assert peer.expect(Answer) == Answer(PUBREL, ids[0], 0, {})
        peer.answer(PUBCOMP, ids[0])
        assert peer.rest() == [Disconnect(0, {})]

    with StrictBroker(version, cut, again) as broker:
        assert published(broker, 1, qos=2, client_id="me").stored == 1


def test_a_release_that_the_broker_does_not_know_any_more_is_over():
    """Not an error while a session is taken up again [MQTT 5, 3.7.2.1]: PUBREC had taken it."""

    def cut(peer):
        peer.connack()
        peer.answer(PUBREC, peer.expect(Publish).packet_id)
        peer.expect(Answer)

    def again(peer):
        peer.connack(session_present=True)
        peer.answer(PUBCOMP, peer.expect(Answer).packet_id, 0x92)
        assert peer.rest() == [Disconnect(0, {})]

    with StrictBroker(5, cut, again) as broker:
        assert published(broker, 1, qos=2, client_id="me").stored == 1


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("client_id", [None, "me"])
@pytest.mark.parametrize("qos", [1, 2])
def test_in_a_new_session_what_was_not_acknowledged_is_a_new_message(
    version, qos, client_id, released
):
    def cut(peer):
        peer.connack()
        message = peer.expect(Publish)
        if released and qos == 2:
            peer.answer(PUBREC, message.packet_id)
            peer.expect(Answer)

    def again(peer):
        peer.connack()
        assert not peer.take_message().duplicate
        assert peer.rest() == [Disconnect(0, {})]

    with StrictBroker(version, cut, again) as broker:
        assert published(broker, 1, qos=qos, client_id=client_id).stored == 1


@pytest.mark.parametrize("qos", [1, 2])
def test_nothing_is_sent_again_on_the_same_connection(version, qos):
    def script(peer):
        peer.connack()
        messages = [peer.expect(Publish) for _ in range(3)]
        peer.hears_pings(2)
        for message in messages:
            peer.complete(message)
        peer.rest()

    with StrictBroker(version, script) as broker:
        assert published(broker, 1, 2, 3, qos=qos, keep_alive=1, drain_timeout=20).stored == 3


def test_a_refused_message_is_not_sent_again_on_the_next_connection():
    refused: list[object] = []

    def cut(peer):
        peer.connack()
        first, _ = peer.expect(Publish), peer.expect(Publish)
        peer.answer(PUBACK, first.packet_id, 0x87)

    def again(peer):
        peer.connack(session_present=True)
        assert peer.take_message().payload == b"2"
        peer.rest()

    with StrictBroker(5, cut, again) as broker:
        published(broker, 1, 2, client_id="me", rejected=reactivex.Observer(refused.append))
    assert len(refused) == 1


def test_what_the_window_of_a_new_connection_does_not_take_waits():
    def cut(peer):
        peer.connack()
        for _ in range(5):
            peer.expect(Publish)

    def again(peer):
        peer.connack((RECEIVE_MAXIMUM, 2), session_present=True)
        first, second = peer.expect(Publish), peer.expect(Publish)
        peer.hears_nothing(0.2)
        peer.complete(first)
        peer.complete(second)
        peer.serve(3)
        peer.rest()

    with StrictBroker(5, cut, again) as broker:
        assert published(broker, *range(5), client_id="me").stored == 5


# -- what a sink receives --------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_message_that_comes_to_a_sink_is_left_to_the_broker_and_disturbs_nobody(version, qos):
    """The broker may have kept a subscription of this id from another life."""

    def script(peer):
        peer.connack()
        message = peer.expect(Publish)
        peer.publish("stray", b"x", qos, 5)
        peer.complete(message)
        assert peer.rest() == [Disconnect(0, {})]

    with StrictBroker(version, script) as broker:
        assert published(broker, 1, client_id="me").stored == 1
