"""SUBSCRIBE, and what a source does with what the broker sends on it, by the letter."""

from __future__ import annotations

import threading

import pytest
import reactivex
from clients import received, running
from strict import (
    CONNACK,
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    REASON,
    SUBACK,
    SUBSCRIPTION_ID,
    UNSUBACK,
    USER,
    Answer,
    Connect,
    Disconnect,
    StrictBroker,
    Subscribe,
    Unsubscribe,
    packet,
    properties,
    text,
)

from rxflow import ConfigError, ConnectError, JsonLinesSink, from_mqtt, read_rows
from rxflow import operators as ops

ODD_TEXT = "\ufeffa☃\U0001f600\u0001\x1b[0m"


def served(version, script, *filters, first=None, **settings):
    """What a source receives from a script, to which the subscription is granted."""

    def whole(peer):
        peer.connack()
        peer.suback()
        script(peer)
        peer.end()

    with StrictBroker(version, *(first or ()), whole) as broker:
        return received(broker, *filters, **settings)


# -- SUBSCRIBE -------------------------------------------------------------------------------------


def test_each_filter_is_asked_for_as_it_is_with_its_qos(version):
    filters = [
        ("+", 0),
        ("$share/g/a/+/b", 1),
        ("#", 2),
        (ODD_TEXT, 1),
        ("/", 2),
        ("x" * 65_535, 0),
    ]
    asked: list[tuple[str, int]] = []

    def script(peer):
        peer.connack()
        asked.extend(peer.suback().filters)
        while len(asked) < len(filters):
            asked.extend(peer.suback().filters)
        peer.end()

    with StrictBroker(version, script) as broker:
        received(broker, *filters)
    assert [(name, options & 3) for name, options in asked] == filters
    if version == 5:  # all but the QoS is as on 3.1.1, save how retained messages are asked for
        assert all(not options & 0b1100_1100 for _, options in asked)


def test_a_source_without_a_filter_is_refused_while_composing():
    with pytest.raises(ConfigError, match="topics"):
        from_mqtt("mqtt://h")


@pytest.mark.parametrize("granted", [0, 1])
def test_a_lower_qos_than_was_asked_for_is_taken(version, granted):
    def script(peer):
        peer.connack()
        peer.suback(granted)
        peer.publish("a", b"1", granted, 9)
        if granted:
            assert peer.expect(Answer) == Answer(PUBACK, 9, 0, {})
        peer.end()

    with StrictBroker(version, script) as broker:
        assert len(received(broker, qos=2)) == 1


@pytest.mark.parametrize("refused", [0, 1, 2])
def test_the_filter_that_is_refused_is_told_by_its_place(version, refused):
    codes = [1, 1, 1]
    codes[refused] = 0x80 if version == 4 else 0x87

    def script(peer):
        peer.connack()
        while isinstance(asked := peer.take(), Subscribe):  # perhaps one by one at last
            peer.grant(asked, *(codes[names.index(name)] for name, _ in asked.filters))

    names = ["first", "second", "third"]
    with StrictBroker(version, script) as broker, pytest.raises(ConnectError) as caught:
        received(broker, *names)
    assert repr(names[refused]) in str(caught.value)
    assert caught.value.reason_code == codes[refused]


def test_an_answer_to_another_subscribe_is_not_taken_for_ours(version):
    stood = threading.Event()
    stood_early: list[bool] = []

    def script(peer):
        peer.connack()
        asked = peer.expect(Subscribe)
        peer.send(peer.of(SUBACK, asked.packet_id + 1, b"\1"))
        peer.publish("a", b"x", 1, 1)
        peer.expect(Answer)  # so the SUBACK before it has been read
        stood_early.append(stood.is_set())
        peer.send(peer.of(SUBACK, asked.packet_id, b"\1"))
        peer.end()

    with StrictBroker(version, script) as broker:
        received(broker, on_connect=lambda _: stood.set())
    assert stood_early == [False]
    assert stood.is_set()


def test_messages_may_come_before_the_answer_to_subscribe(version):
    def script(peer):
        peer.connack()
        asked = peer.expect(Subscribe)
        peer.publish("a", b"x", 1, 1)
        peer.send(peer.of(SUBACK, asked.packet_id, b"\1"))
        peer.end()

    with StrictBroker(version, script) as broker:
        assert [message.payload for message in received(broker)] == [b"x"]


def test_what_is_no_longer_asked_for_is_unsubscribed_as_it_was_asked_for(tmp_path, version):
    """The second run continues the session that the output keeps, with other filters."""
    left: list[object] = []

    def first(peer):
        peer.connack()
        peer.suback()
        peer.end()

    def second(peer):
        peer.connack(session_present=True)
        while not any(isinstance(each, Unsubscribe) for each in left):
            left.append(each := peer.take())
            if isinstance(each, Subscribe):
                peer.grant(each)
        gone = left[-1]
        peer.send(peer.of(UNSUBACK, gone.packet_id, b"\0" * len(gone.filters) * (version == 5)))
        peer.session.requests.discard(gone.packet_id)
        peer.end()

    with StrictBroker(version, first, second) as broker:
        for filters in (("a/+", ODD_TEXT, "end"), ("end",)):
            source = from_mqtt(broker.url, *filters)
            ended = source.pipe(ops.take_while(lambda message: message.payload != b"end"))
            running(broker, ended, JsonLinesSink(tmp_path / "a.jsonl"))
    (gone,) = [each for each in left if isinstance(each, Unsubscribe)]
    assert sorted(gone.filters) == sorted(["a/+", ODD_TEXT])


def test_messages_may_come_in_one_piece_with_connack(version):
    """As they do where the broker has kept the session."""

    def cut(peer):
        peer.connack()
        peer.suback()

    def again(peer):
        peer.expect(Connect)
        peer.session.begin(session_present=True, limits={})
        peer.session.owed.extend([(PUBACK, 1), (PUBREC, 2)])
        peer.session.held.add(2)
        none = b"\0" * (version == 5)
        peer.send(
            packet(CONNACK, b"\1\0" + none)
            + packet(0x32, text("a") + b"\0\1" + none + b"1")
            + packet(0x34, text("a") + b"\0\2" + none + b"2")
        )
        assert [peer.expect_answer().packet_id for _ in range(2)] == [1, 2]
        peer.end()

    with StrictBroker(version, cut, again) as broker:
        messages = received(broker, qos=2, client_id="me")
    assert [message.payload for message in messages] == [b"1", b"2"]


def test_a_second_answer_to_subscribe_disturbs_nobody(version):
    def script(peer):
        peer.connack()
        asked = peer.suback()
        peer.send(peer.of(SUBACK, asked.packet_id, b"\1"))
        peer.publish("a", b"x", 1, 1)
        assert peer.expect_answer() == Answer(PUBACK, 1, 0, {})
        peer.end()

    with StrictBroker(version, script) as broker:
        assert len(received(broker)) == 1


def test_a_broker_may_grant_more_than_was_asked_for(version):
    def script(peer):
        peer.connack()
        peer.suback(2)
        peer.publish("a", b"x", 2, 1)
        assert peer.expect_answer() == Answer(PUBREC, 1, 0, {})
        peer.answer(PUBREL, 1)
        assert peer.expect_answer() == Answer(PUBCOMP, 1, 0, {})
        peer.end()

    with StrictBroker(version, script) as broker:
        assert len(received(broker, qos=0)) == 1


def test_what_the_broker_refuses_to_unsubscribe_is_asked_for_again_and_never_handed_on(tmp_path):
    asked: list[list[str]] = []

    def first(peer):
        peer.connack()
        peer.suback()
        peer.end()

    def refuses(peer):
        peer.connack(session_present=True)
        while isinstance(each := peer.take(), Subscribe):
            peer.grant(each)
        assert isinstance(each, Unsubscribe)
        asked.append(each.filters)
        peer.send(peer.of(UNSUBACK, each.packet_id, b"\x87" * len(each.filters)))
        peer.session.requests.discard(each.packet_id)
        peer.publish("gone", b'"gone"', 0)
        peer.end()

    with StrictBroker(5, first, refuses, refuses) as broker:
        for filters in (("gone", "end"), ("end",), ("end",)):
            source = from_mqtt(broker.url, *filters)
            ended = source.pipe(ops.take_while(lambda message: message.payload != b"end"))
            running(broker, ended, JsonLinesSink(tmp_path / "a.jsonl"))
    assert asked == [["gone"], ["gone"]]
    assert list(read_rows(tmp_path / "a.jsonl")) == []


@pytest.mark.parametrize("codes", [(0,), (0, 0, 0), (0, 0x42)])
def test_an_answer_to_unsubscribe_that_does_not_answer_each_filter_is_none(tmp_path, codes):
    def first(peer):
        peer.connack()
        peer.suback()
        peer.end()

    def hostile(peer):
        peer.connack(session_present=True)
        while isinstance(each := peer.take(), Subscribe):
            peer.grant(each)
        peer.send(peer.of(UNSUBACK, each.packet_id, bytes(codes)))
        peer.publish("end", b"end", 0)
        assert peer.rest() in ([], [Disconnect(0x82, {})])

    def good(peer):
        peer.connack(session_present=True)
        while isinstance(each := peer.take(), Subscribe):
            peer.grant(each)
        assert sorted(each.filters) == ["a", "b"]
        peer.end()

    with StrictBroker(5, first, hostile, good) as broker:
        for filters in (("a", "b", "end"), ("end",)):
            source = from_mqtt(broker.url, *filters)
            ended = source.pipe(ops.take_while(lambda message: message.payload != b"end"))
            running(broker, ended, JsonLinesSink(tmp_path / "a.jsonl"))


# -- acknowledging ---------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [0, 1, 2])
def test_each_message_is_answered_as_its_own_qos_says(version, asked):
    def script(peer):
        for packet_id, qos in ((0, 0), (5, 1), (6, 2)):
            peer.publish("a", b"x", qos, packet_id)
        assert peer.expect(Answer) == Answer(PUBACK, 5, 0, {})
        assert peer.expect(Answer) == Answer(PUBREC, 6, 0, {})
        peer.answer(PUBREL, 6)
        assert peer.expect(Answer) == Answer(PUBCOMP, 6, 0, {})

    assert len(served(version, script, qos=asked)) == 3


def test_a_message_that_nobody_has_a_use_for_is_answered_like_any_other(version):
    def script(peer):
        peer.publish("a", b"not json", 1, 1)
        peer.publish("a", b"{}", 2, 2)
        assert peer.expect(Answer) == Answer(PUBACK, 1, 0, {})
        assert peer.expect(Answer) == Answer(PUBREC, 2, 0, {})
        peer.answer(PUBREL, 2)
        assert peer.expect(Answer) == Answer(PUBCOMP, 2, 0, {})
        peer.publish("a", b'"end"', 0)
        assert peer.rest() == [Disconnect(0, {})]

    def whole(peer):
        peer.connack()
        peer.suback()
        script(peer)

    with StrictBroker(version, whole) as broker:
        source = from_mqtt(broker.url, "a").pipe(
            ops.decode_json(rejected=reactivex.Observer()),
            ops.filter(lambda message: message.payload == "end"),
            ops.take(1),
        )
        running(broker, source, reactivex.Observer())


@pytest.mark.parametrize("qos", [1, 2])
def test_answers_come_in_the_order_of_the_messages_however_late_each_is_let_go(version, qos):
    def script(peer):
        peer.connack()
        peer.suback()
        for packet_id in (9, 3, 65_535, 1):
            peer.publish("a", b"%d" % packet_id, qos, packet_id)
        answers = [peer.expect(Answer) for _ in range(4)]
        assert [answer.packet_id for answer in answers] == [9, 3, 65_535, 1]
        peer.end()

    held: list[object] = []

    def hold(message):
        held.append(message)
        if message.payload == b"1":
            held.reverse()
            while held:
                held.pop(0)

    with StrictBroker(version, script) as broker:
        source = from_mqtt(broker.url, "#", qos=2).pipe(
            ops.take_while(lambda message: message.payload != b"end")
        )
        running(broker, source, reactivex.Observer(hold))


def test_a_packet_id_that_was_acknowledged_is_a_new_message_whatever_dup_says(version):
    def script(peer):
        for payload, duplicate in ((b"1", False), (b"2", True), (b"2", True), (b"3", False)):
            peer.publish("a", payload, 1, 7, duplicate=duplicate)
            assert peer.expect(Answer) == Answer(PUBACK, 7, 0, {})

    payloads = [message.payload for message in served(version, script)]
    assert payloads == [b"1", b"2", b"2", b"3"]


@pytest.mark.parametrize("duplicate", [False, True])
def test_a_qos_2_message_that_comes_again_before_its_release_is_answered_and_not_handed_on(
    version, duplicate
):
    def script(peer):
        peer.publish("a", b"1", 2, 7)
        assert peer.expect(Answer) == Answer(PUBREC, 7, 0, {})
        peer.publish("a", b"1", 2, 7, duplicate=duplicate)
        assert peer.expect(Answer) == Answer(PUBREC, 7, 0, {})
        peer.answer(PUBREL, 7)
        assert peer.expect(Answer) == Answer(PUBCOMP, 7, 0, {})

    assert [message.payload for message in served(version, script, qos=2)] == [b"1"]


def test_after_its_release_a_qos_2_packet_id_is_a_new_message(version):
    def script(peer):
        for duplicate in (False, True, False):
            peer.publish("a", b"1", 2, 7, duplicate=duplicate)
            assert peer.expect(Answer) == Answer(PUBREC, 7, 0, {})
            peer.answer(PUBREL, 7)
            assert peer.expect(Answer) == Answer(PUBCOMP, 7, 0, {})

    assert [message.payload for message in served(version, script, qos=2)] == [b"1"] * 3


def test_a_release_of_what_was_never_sent_is_answered_all_the_same(version):
    def script(peer):
        peer.session.held.add(9)
        peer.answer(PUBREL, 9)
        answer = peer.expect(Answer)
        assert (answer.kind, answer.packet_id) == (PUBCOMP, 9)
        assert answer.reason in ({0} if version == 4 else {0, 0x92})

    assert served(version, script, qos=2) == []


@pytest.mark.parametrize("session_present", [True, False])
def test_a_qos_2_message_is_handed_on_once_in_a_session_and_again_in_a_new_one(
    version, session_present
):
    def cut(peer):
        peer.connack()
        peer.suback()
        peer.publish("a", b"1", 2, 7)
        assert peer.expect(Answer) == Answer(PUBREC, 7, 0, {})

    def again(peer):
        peer.connack(session_present=session_present)
        if not session_present:
            peer.suback()
        peer.session.owed.append((PUBREC, 7))
        peer.session.owed.clear()
        peer.publish("a", b"1", 2, 7, duplicate=session_present)
        assert peer.expect_answer() == Answer(PUBREC, 7, 0, {})
        peer.answer(PUBREL, 7)
        assert peer.expect_answer() == Answer(PUBCOMP, 7, 0, {})
        peer.end()

    with StrictBroker(version, cut, again) as broker:
        messages = received(broker, qos=2, client_id="me")
    assert [message.payload for message in messages] == [b"1"] * (1 if session_present else 2)


def test_a_release_that_comes_again_on_the_next_connection_is_answered_there(version):
    def cut(peer):
        peer.connack()
        peer.suback()
        peer.publish("a", b"1", 2, 7)
        peer.expect(Answer)
        peer.answer(PUBREL, 7)

    def again(peer):
        peer.connack(session_present=True)
        peer.session.held.add(7)
        peer.answer(PUBREL, 7)
        answer = peer.expect_answer()
        assert (answer.kind, answer.packet_id) == (PUBCOMP, 7)
        peer.end()

    with StrictBroker(version, cut, again) as broker:
        assert len(received(broker, qos=2, client_id="me")) == 1


def test_what_was_not_acknowledged_before_a_cut_is_answered_once_on_the_next_connection(version):
    def cut(peer):
        peer.connack()
        peer.suback()
        for packet_id in (1, 2, 3):
            peer.publish("a", b"%d" % packet_id, 1, packet_id)
        peer.expect(Answer)

    def again(peer):
        peer.connack(session_present=True)
        for packet_id in (2, 3):
            peer.publish("a", b"%d" % packet_id, 1, packet_id, duplicate=True)
        assert [peer.expect_answer().packet_id for _ in range(2)] == [2, 3]
        peer.end()

    with StrictBroker(version, cut, again) as broker:
        received(broker, client_id="me")


def test_a_full_window_delays_messages_and_nothing_else():
    """Receive Maximum 1: the PUBACK that opens it, PUBCOMP and pings leave as ever."""

    def script(peer):
        for packet_id in (1, 2, 3):
            peer.publish("a", b"x", 2, packet_id)
            assert peer.expect(Answer) == Answer(PUBREC, packet_id, 0, {})
            peer.answer(PUBREL, packet_id)
            assert peer.expect(Answer) == Answer(PUBCOMP, packet_id, 0, {})

    assert len(served(5, script, qos=2, max_pending=1)) == 3


# -- what a message says ---------------------------------------------------------------------------


@pytest.mark.parametrize("topic", ["a", "/", "//", " ", ODD_TEXT, "$SYS/x", "x" * 65_535])
def test_a_topic_is_handed_on_letter_by_letter(version, topic):
    def script(peer):
        peer.publish(topic, b"x", 1, 1)
        assert peer.expect(Answer) == Answer(PUBACK, 1, 0, {})

    (message,) = served(version, script, "#", "$SYS/#")
    assert message.topic == topic


@pytest.mark.parametrize("retain", [False, True])
@pytest.mark.parametrize("payload", [b"", b"\0", b"x" * 200_000])
def test_a_payload_may_be_anything_and_retain_is_told(version, payload, retain):
    def script(peer):
        peer.publish("a", payload, 0, retain=retain)

    (message,) = served(version, script)
    assert (message.payload, message.retain) == (payload, retain)


def test_what_a_publisher_says_beside_its_payload_is_handed_on_unaltered():
    def script(peer):
        pairs = (
            (USER, ("k", "")), (USER, (ODD_TEXT, "v")), (0x01, 1), (0x02, 60), (0x03, ODD_TEXT),
            (USER, ("k", "")), (0x08, "answers/" + ODD_TEXT), (0x09, b"\0\xff"),
            (SUBSCRIPTION_ID, 1), (SUBSCRIPTION_ID, 268_435_455),
        )  # fmt: skip
        peer.publish("a", b"x", 1, 1, pairs=pairs)
        peer.expect(Answer)

    (message,) = served(5, script)
    told = message.properties
    assert told.user == (("k", ""), (ODD_TEXT, "v"), ("k", ""))
    assert (told.content_type, told.response_topic) == (ODD_TEXT, "answers/" + ODD_TEXT)
    assert (told.correlation_data, told.expiry, told.is_text) == (b"\0\xff", 60, True)
    assert told.subscription_ids == (1, 268_435_455)


def test_what_the_broker_says_beside_its_answers_disturbs_nobody():
    said = properties((REASON, "why\n" + ODD_TEXT), (USER, ("k", "\x1b[31m")), (USER, ("k", "")))

    def script(peer):
        peer.connack()
        asked = peer.expect(Subscribe)
        body = asked.packet_id.to_bytes(2) + said + b"\2"
        peer.send(packet(SUBACK, body))
        peer.session.requests.clear()
        peer.publish("a", b"1", 2, 7)
        assert peer.expect(Answer) == Answer(PUBREC, 7, 0, {})
        peer.answer(PUBREL, 7, 0, *said)
        assert peer.expect(Answer) == Answer(PUBCOMP, 7, 0, {})
        peer.end()

    with StrictBroker(5, script) as broker:
        assert len(received(broker, qos=2)) == 1


@pytest.mark.parametrize("rest", [(), (0x00,), (0x92,), (0x00, 0)])
def test_a_release_may_have_two_three_or_four_bytes(rest):
    def script(peer):
        peer.publish("a", b"1", 2, 7)
        assert peer.expect(Answer) == Answer(PUBREC, 7, 0, {})
        peer.answer(PUBREL, 7, *rest)
        assert peer.expect(Answer).kind == PUBCOMP

    assert len(served(5, script, qos=2)) == 1


def test_an_answer_to_no_unsubscribe_disturbs_nobody(version):
    def script(peer):
        peer.send(peer.of(UNSUBACK, 77, b"\0" * (version == 5)))

    assert served(version, script) == []


# -- in the store ----------------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [1, 2])
def test_a_message_is_answered_when_its_row_is_durable(tmp_path, version, qos):
    path = tmp_path / "rows.jsonl"
    rows: list[object] = []

    def script(peer):
        peer.connack()
        peer.suback()
        peer.publish("a", b"1", qos, 7)
        peer.expect(Answer)
        rows.extend(read_rows(path))
        peer.end()

    with StrictBroker(version, script) as broker:
        source = from_mqtt(broker.url, "#", qos=2).pipe(
            ops.take_while(lambda message: message.payload != b"end"), ops.decode_json()
        )
        running(broker, source, JsonLinesSink(path))
    assert rows == [1]
