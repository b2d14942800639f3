"""The broker in the diagram: what it sends, when, and what it makes of what it is sent."""

import socket
import warnings
from contextlib import contextmanager

import pytest
import reactivex

from rxflow import ConfigError, ConnectError, Message, MqttSink, RxflowWarning, from_mqtt, run_async
from rxflow import operators as ops
from rxflow.testing.broker import packets
from rxflow.testing.broker.session import ProtocolError, Publication, Session
from rxflow.testing.diagrams.durations import DiagramError
from rxflow.testing.marbles import Marbles


@pytest.fixture
def marbles():
    with Marbles() as marbles:
        yield marbles


def keeping(marbles, seen):
    """An observer that keeps when each message came, and what it was."""
    loop = marbles.loop
    began = loop.time()
    return reactivex.Observer(lambda m: seen.append((loop.time() - began, m.with_delivery(None))))


def received(marbles, source, seconds=20):
    """When messages came, and the payload of each with a * if it may have come before."""
    seen = []
    marbles.run(run_async(source, keeping(marbles, seen), seconds=seconds, log=False))
    return [(at, m.payload.decode() + "*" * m.duplicate) for at, m in seen]


@contextmanager
def told():
    """What the user is told, as texts: that a connection is lost, that there is a gap."""
    texts = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RxflowWarning)
        yield texts
    texts.extend(str(warning.message) for warning in caught)


# -- what is published -----------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["auto", "5", "3.1.1"])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_messages_come_in_their_frame_with_every_qos_and_version(marbles, qos, version):
    broker = marbles.mqtt(f"a/b q{qos} : --a-(bc)-")
    source = broker.from_mqtt("a/+", qos=2, version=version)
    expected = {key: Message("a/b", f'"{key}"'.encode(), qos) for key in "abc"}
    marbles.check(source, "--a-(bc) ...", **expected)


def test_values_are_json_and_bytes_go_as_they_are(marbles):
    broker = marbles.mqtt("a : ab", a={"n": 1}, b=b"\0")
    marbles.check(
        broker.from_mqtt("a").pipe(ops.map(lambda m: m.payload)), "ab ...", a=b'{"n":1}', b=b"\0"
    )


def test_a_subscription_gets_what_its_filter_matches_with_the_lower_qos(marbles):
    broker = marbles.mqtt("""
        a/1 q2 : a--
        a/2 q1 : -b-
        b   q2 : --c
    """)
    source = broker.from_mqtt(("a/+", 1), ("a/1", 0)).pipe(ops.map(lambda m: (m.topic, m.qos)))
    marbles.check(source, "ab ...", a=("a/1", 1), b=("a/2", 1))


def test_a_retained_message_is_delivered_to_each_subscription(marbles):
    broker = marbles.mqtt("a q1 r : x---y---")
    late = broker.from_mqtt("a").pipe(ops.map(lambda m: (m.payload, m.retain)))
    x, y = (b'"x"', True), (b'"y"', False)
    marbles.check(late, "x---y ...", x=x, y=y)
    marbles.check(late, "--x-y ...", subs="--^", x=x, y=y)


def test_an_empty_retained_message_forgets_the_one_before(marbles):
    broker = marbles.mqtt("a r : x-y", x=1, y=b"")
    marbles.check(broker.from_mqtt("a", qos=0), "--- 5s ...", subs="---^")


def test_retained_messages_do_not_come_again_after_a_reconnection(marbles):
    broker = marbles.mqtt("""
        a q1 r      : x------
        $connection : ^-!-^--
    """)
    assert received(marbles, broker.from_mqtt("a")) == [(0, '"x"')]
    with told():
        again = received(marbles, broker.from_mqtt("a", client_id=None))
    assert again == [(0, '"x"'), (4, '"x"')]


def test_a_payload_larger_than_the_socket_takes_comes_whole(marbles):
    broker = marbles.mqtt("a q1 : a", a=b"x" * 3_000_000)
    source = broker.from_mqtt("a", max_packet_bytes=4_000_000)
    marbles.check(source.pipe(ops.map(lambda m: len(m.payload))), "a ...", a=3_000_000)


def test_topics_with_qos_retained_messages_and_a_lost_connection_are_lanes_of_one_text(marbles):
    broker = marbles.mqtt(
        """
        sensors/1/temp  q1    : --a-----c---
        sensors/2/temp        : ----b---c---
        sensors/1/state q1 r  : x-----------
        $connection           : ^-----!--^--
        """,
        a=21,
        b=22,
        c=23,
        x="on",
    )
    source = broker.from_mqtt("sensors/+/temp", qos=1)
    assert received(marbles, source) == [(2, "21"), (4, "22"), (9, "23")]
    assert broker.acknowledged("sensors/1/temp") == "--^------^"
    assert broker.acknowledged("sensors/2/temp") == "-"
    assert received(marbles, broker.from_mqtt("sensors/#")) == [
        (0, '"on"'),
        (2, "21"),
        (4, "22"),
        (9, "23"),
    ]


def test_a_failing_check_shows_the_lanes_of_the_broker_that_took_part(marbles):
    unused = marbles.mqtt("unused q1 : -a")
    assert (unused.rows(), unused.published) == ([], [])
    broker = marbles.mqtt("""
        a q1        : --a--b----
        $connection : ^---!--^--
    """)
    source = broker.from_mqtt("a").pipe(ops.map(lambda m: m.payload))
    with pytest.raises(AssertionError) as raised:
        marbles.check(source, "--a--b--...", a=b'"a"', b=b'"b"')
    assert str(raised.value).splitlines()[1:-1] == [
        "            a  --a--b---",
        "  $connection  ^---!--^-",
        "     expected  --a--b--...",
        "       actual  --a----b-",
        "                    ^ at 5s: expected b'\"b\"', got nothing; it came at 7s",
    ]


# -- acknowledging ---------------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [1, 2])
def test_a_message_is_acknowledged_when_it_is_let_go(marbles, qos):
    broker = marbles.mqtt(f"a q{qos} : --a--b")
    sink = marbles.sink(disk="--==")
    marbles.run(run_async(broker.from_mqtt("a", qos=2), sink, seconds=9, log=False))
    assert broker.acknowledged("a") == "----^^"
    assert [(each.at, each.key) for each in broker.acknowledgements] == [(4, "a"), (5, "b")]


def test_acknowledgements_of_another_time_explain_themselves(marbles):
    broker = marbles.mqtt("a q1 : --a")
    marbles.run(run_async(broker.from_mqtt("a"), marbles.sink(), seconds=5, log=False))
    assert broker.acknowledged("a") != "---^"
    assert broker.acknowledged("a").explain("---^").splitlines() == [
        "marbles differ at mark 1 (1 column = 1s)",
        "  expected  ---^",
        "    actual  --^-",
        "              ^ at 2s: expected nothing, got ^; it was expected at 3s",
    ]
    with pytest.raises(DiagramError, match="no '!'"):
        assert broker.acknowledged("a") == "--^!"


def test_no_more_is_in_flight_than_the_client_asked_for(marbles):
    broker = marbles.mqtt("a q1 : (abcd)")
    source = broker.from_mqtt("a", max_pending=2).pipe(ops.delay(3))
    assert [at for at, _ in received(marbles, source)] == [3, 3, 6, 6]


def test_packet_ids_go_round_and_leave_out_those_in_flight():
    session = Session("me", filters={"a": 1})
    session.connected(3, 0xFFFF, lambda _: None)
    for _ in range(2):
        session.offer(Publication("a", b"", 1))
    for packet_id in range(3, 0x10000):
        session.offer(Publication("a", b"", 1))
        session.answered(packets.PUBACK, packet_id)
    session.offer(Publication("a", b"", 1))
    assert list(session.in_flight) == [1, 2, 3]


# -- losing and regaining --------------------------------------------------------------------------


def test_lost_with_two_unacknowledged_both_come_again_and_are_stored_once_acknowledged(marbles):
    broker = marbles.mqtt("""a q1        : --ab-------
                             $connection : ^---!---^--""")
    sink = marbles.sink(disk="--=====----")  # nothing is stored yet when the connection is lost
    source = broker.from_mqtt("a").map(lambda m: [m.payload.decode(), m.duplicate])
    marbles.run(run_async(source, sink, seconds=15, log=False))
    assert sink.stored == [['"a"', False], ['"b"', False], ['"a"', True], ['"b"', True]]
    assert sink.committed == "-------^^"
    assert broker.acknowledged("a") == "--------^"


def test_qos_2_that_is_not_acknowledged_comes_again_with_the_same_packet_id(marbles):
    broker = marbles.mqtt("""
        a q2        : --a------
        $connection : ^--!-^---
    """)
    source = broker.from_mqtt("a", qos=2).pipe(ops.delay(4))
    assert received(marbles, source) == [(6, '"a"')]  # held: the second delivery is the first
    assert broker.acknowledged("a") == "------^"


def test_what_is_published_while_away_waits_but_not_with_qos_0(marbles):
    broker = marbles.mqtt("""
        a q1        : ---b---
        b           : ---c---
        $connection : ^-!--^-
    """)
    assert received(marbles, broker.from_mqtt("+")) == [(5, '"b"')]


def test_a_clean_session_forgets_what_was_not_acknowledged(marbles):
    broker = marbles.mqtt("""
        a q1        : -b------
        $connection : ^-!^----
    """)
    source = broker.from_mqtt("a", client_id=None).pipe(ops.delay(1.5))
    with told() as warned:
        assert received(marbles, source) == [(2.5, '"b"')]
    assert any("possible gap" in text and "1.0 s" in text for text in warned)
    assert broker.acknowledged("a") == "-"


def test_an_attempt_that_fails_is_not_taken_for_a_connection(marbles):
    """Found by this broker: a second loss, of EPIPE and then of the end, counted as one."""
    broker = marbles.mqtt("""
        a           : -
        $connection : ^-! 10s ^--
    """)
    with told() as warned:
        received(marbles, broker.from_mqtt("a", client_id=None))
    assert any("possible gap" in text and "10.0 s" in text for text in warned)


@pytest.mark.parametrize(("expiry", "count"), [(2, 1), (10, 2)])
def test_a_session_is_kept_as_long_as_the_client_asked(marbles, expiry, count):
    broker = marbles.mqtt("""
        a q1        : -b------
        $connection : ^-!---^-
    """)
    source = broker.from_mqtt("a", session_expiry=expiry).pipe(ops.delay(2))
    with told():
        assert len(received(marbles, source)) == count


def test_what_was_let_go_while_away_is_not_acknowledged_on_the_next_connection(marbles):
    """Found by this broker: its PUBACK left on the connection after, for whatever has its id."""
    broker = marbles.mqtt("""
        a q1        : -b---------
        $connection : ^-!---^----
    """)
    assert received(marbles, broker.from_mqtt("a").pipe(ops.delay(2))) == [(3, '"b"'), (8, '"b"*')]
    assert broker.acknowledged("a") == "--------^"


@pytest.mark.parametrize("gap", [*range(1, 40), 59, 60, 61, 100, 1000])
def test_the_connection_is_back_in_the_frame_of_the_diagram(marbles, gap):
    broker = marbles.mqtt(f"""
        a           : -
        $connection : ^-! {gap}s ^-
    """)
    times, loop = [], marbles.loop
    source = broker.from_mqtt("a", on_connect=lambda _: times.append(loop.time()))
    marbles.run(run_async(source, reactivex.Observer(), seconds=gap + 10, log=False))
    assert times == [0, pytest.approx(2 + gap, abs=1e-4)]


def test_where_no_back_off_meets_it_the_first_attempt_after_it_does(marbles):
    broker = marbles.mqtt("""
        a           : -
        $connection : ^-! 200ms ^-
    """)
    times, loop = [], marbles.loop
    source = broker.from_mqtt("a", on_connect=lambda _: times.append(loop.time()))
    marbles.run(run_async(source, reactivex.Observer(), seconds=10, log=False))
    assert times == [0, 2.5]


def test_without_another_gain_the_attempts_follow_the_longest_back_off(marbles):
    broker = marbles.mqtt("""
        a           : -
        $connection : ^-!
    """)
    before = marbles.loop.environment.dice
    assert before(4.0, "another host") == 4.0
    source = broker.from_mqtt("a", connect_timeout=1)
    marbles.run(run_async(source, reactivex.Observer(), seconds=30, log=False))


def test_a_broker_that_is_not_there_yet_is_waited_for(marbles):
    broker = marbles.mqtt("""
        a           : ----a
        $connection : ---^-
    """)
    assert received(marbles, broker.from_mqtt("a", qos=0)) == [(4, '"a"')]
    late = broker.from_mqtt("a", qos=0, connect_timeout=2)
    with pytest.raises(ConnectError, match="within 2 s"):
        received(marbles, late)


@pytest.mark.parametrize(("version", "farewell"), [(4, b""), (5, b"\xe0\x02\x8e\x00")])
def test_the_second_connection_of_a_client_ends_the_first(marbles, version, farewell):
    broker = marbles.mqtt("a : -")
    with calling(broker) as first, calling(broker) as second:
        for client in (first, second):
            client.send(connect(version))
            marbles.scheduler.advance_by(1.0)
        accepted = packets.connack(version, session_present=False)
        assert (first.recv(100), first.recv(100)) == (accepted + farewell, b"")
        assert second.recv(100) == accepted


# -- what clients send -----------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_what_is_published_to_it_is_noted_and_passed_on(marbles, qos):
    broker = marbles.mqtt("a : -")
    source = broker.from_mqtt("b/#", qos=2)
    seen = []

    async def both():
        sink = MqttSink(broker.url, topic="b/1", qos=qos, retain=True)
        pairs = (source, keeping(marbles, seen)), (reactivex.timer(2), sink)
        await run_async(*pairs, seconds=9, log=False)

    marbles.run(both())
    assert broker.published == [(2, Message("b/1", b"0", qos, retain=True))]
    assert seen == [(2, Message("b/1", b"0", qos))]


def test_a_shared_subscription_is_refused(marbles):
    broker = marbles.mqtt("a : -")
    with pytest.raises(ConnectError, match=r"\$share/g/a"):
        received(marbles, broker.from_mqtt("$share/g/a"))


@pytest.mark.parametrize(
    ("sent", "named"),
    [
        (packets.answer(packets.PUBACK, 7), "PUBACK for packet id 7"),
        (packets.answer(packets.PUBCOMP, 7), "PUBCOMP for packet id 7"),
        (packets.packet(packets.UNSUBSCRIBE, b"\0\1\0\1a"), "0xa0"),
    ],
)
def test_what_the_standard_forbids_fails_the_test(marbles, sent, named):
    with pytest.raises(ProtocolError, match=named):
        converse(marbles, b"".join((connect(), sent)))


def test_a_packet_before_connect_fails_the_test(marbles):
    with pytest.raises(ProtocolError, match="before CONNECT"):
        converse(marbles, packets.answer(packets.PUBACK, 7))


def test_a_message_of_qos_2_that_comes_again_is_published_once(marbles):
    message = packets.publish(3, "a", b"1", qos=2, retain=False, packet_id=5)
    again = packets.publish(3, "a", b"1", qos=2, retain=False, packet_id=5, duplicate=True)
    release = packets.answer(packets.PUBREL, 5)
    broker, answer = converse(marbles, connect() + message[:4], message[4:] + again + release)
    assert [m.payload for _, m in broker.published] == [b"1"]
    assert answer == packets.connack(3, session_present=False) + b"".join(
        packets.answer(kind, 5) for kind in (packets.PUBREC, packets.PUBREC, packets.PUBCOMP)
    )


def test_a_ping_is_answered(marbles):
    _, answer = converse(marbles, connect() + packets.packet(packets.PINGREQ))
    assert answer.endswith(packets.packet(packets.PINGRESP))


def test_properties_of_every_kind_are_passed_over():
    data = b"\x01\x01\x0b\x80\x01\x26\0\1k\0\1v\x08\0\2up\x21\0\7"
    body = packets.Body(bytes([len(data)]) + data + b"rest")
    assert body.properties(5) == {0x01: 1, 0x0B: 128, 0x21: 7}
    assert body.rest == b"rest"


def test_a_length_of_which_the_end_is_missing_is_no_packet_yet():
    buffer = bytearray(b"\x30\x80\x80")
    assert list(packets.whole(buffer)) == []
    assert buffer == b"\x30\x80\x80"


def connect(version=4):
    """CONNECT of the client `me`."""
    properties = b"\0" * (version == 5)
    return packets.packet(packets.CONNECT, b"\0\4MQTT%c\2\0\0%b\0\2me" % (version, properties))


def calling(broker):
    """A socket that is connected to a broker."""
    client = socket.socket(socket.AF_UNIX)
    client.connect(broker.url.removeprefix("mqtt+unix://"))
    client.settimeout(0)
    return client


def converse(marbles, *sent):
    """Send bytes to a broker, a second apart, and hang up; what it has answered."""
    broker = marbles.mqtt("a : -")
    with calling(broker) as client:
        for data in sent:
            client.send(data)
            marbles.scheduler.advance_by(1.0)
        answer = client.recv(1000)
    marbles.scheduler.advance_by(1.0)
    return broker, answer


# -- how it is written and used --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "needs a lane"),
        ("$connection : ^", "needs a lane"),
        ("a --b", "a lane is"),
        (": --b", "a lane is"),
        ("a/# : b", "wildcard"),
        ("a q3 : b", "'q3'"),
        ("a r q1 : b", "'r'"),
        ("a : b|", "no end"),
        ("a : b#", "no end"),
        ("a : ^b", "only in"),
        ("a : b\n$connection q1 : ^", "neither"),
        ("a : b\n$connection : x", "only -"),
    ],
)
def test_a_wrong_lane_is_named(marbles, text, named):
    with pytest.raises(DiagramError, match=named):
        marbles.mqtt(text)


def test_a_value_that_no_lane_uses_is_named(marbles):
    with pytest.raises(DiagramError, match="'z'"):
        marbles.mqtt("a : b", b=1, z=2)


def test_a_lane_that_is_not_there_is_named(marbles):
    with pytest.raises(DiagramError, match="no lane 'b'; the lanes are a"):
        marbles.mqtt("a : b").acknowledged("b")


def test_a_subscription_outside_virtual_time_says_how_to_do_it(marbles):
    errors = []
    broker = marbles.mqtt("a : b")
    broker.from_mqtt("a").subscribe(on_error=errors.append)
    assert broker.acknowledgements == []
    assert isinstance(errors[0], ConfigError)
    assert "check, observe or run" in str(errors[0])


def test_the_pipeline_is_that_of_from_mqtt(marbles):
    broker = marbles.mqtt("a q1 : -a")
    marbles.check(from_mqtt(broker.url, "a").pipe(ops.map(lambda m: m.payload)), "-a ...", a=b'"a"')


def test_what_was_observed_before_is_played_before_the_broker_is_asked(marbles):
    broker = marbles.mqtt("a q1 : -a")
    seen = marbles.observe(broker.from_mqtt("a").pipe(ops.map(lambda m: m.payload)), "^---!")
    assert broker.acknowledged("a") == "-^"
    marbles.check(seen, "-a", a=b'"a"')


def test_each_check_begins_the_diagram_anew(marbles):
    broker = marbles.mqtt("a q1 : -a")
    for _ in range(3):
        marbles.check(broker.from_mqtt("a").pipe(ops.map(lambda m: m.qos)), "-a ...", a=1)
        assert broker.acknowledged("a") == "-^"


def test_a_hundred_repetitions_give_the_same():
    outcomes = set()
    for _ in range(100):
        with Marbles() as marbles:
            broker = marbles.mqtt("""
                a q1        : -(ab)-c--d-e----f-
                b q2        : -x---y-z--x-------
                $connection : ^-----!---^--!-^--
            """)
            seen = []
            source = broker.from_mqtt("+", qos=2).pipe(ops.delay(1.5))
            marbles.run(run_async(source, keeping(marbles, seen), seconds=30, log=False))
            outcomes.add(repr((seen, broker.acknowledgements)))
    assert len(outcomes) == 1
