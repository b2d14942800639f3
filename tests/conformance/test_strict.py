"""The broker by the letter finds each slip of a client; else it could vouch for nothing."""

from __future__ import annotations

import pytest
from strict import (
    MAXIMUM_PACKET,
    MAXIMUM_QOS,
    PUBACK,
    PUBCOMP,
    PUBREL,
    RECEIVE_MAXIMUM,
    RETAIN_AVAILABLE,
    Answer,
    Publish,
    Reader,
    Session,
    Subscribe,
    decode,
    properties,
    text,
)


def connect(flags: int, payload: bytes, *, version: int = 5, more: bytes = b"\0") -> bytes:
    return text("MQTT") + bytes([version, flags]) + b"\0\1" + more * (version == 5) + payload


@pytest.mark.parametrize(
    ("first", "body", "cited"),
    [
        (0x10, connect(3, text("a")), "3.1.2-3"),
        (0x10, text("MQIsdp") + b"\3\2\0\1" + text("a"), "3.1.2-1"),
        (0x10, connect(0, text(""), version=4), "3.1.3-7"),
        (0x10, connect(0x0A, text("a")), "3.1.2-13"),
        (0x10, connect(0x22, text("a")), "3.1.2-15"),
        (0x10, connect(0x1E, text("a") + b"\0" + text("t") + text("")), "3.1.2-14"),
        (0x10, connect(6, text("a") + b"\0" + text("t/#") + text("")), "3.3.2-2"),
        (0x10, connect(0x42, text("a") + text("p"), version=4), "3.1.2-22"),
        (0x10, connect(2, text("a") + b"x"), "too many"),
        (0x10, connect(0xC2, text("a") + text("u")), "in the middle"),
        (0x10, connect(2, text(b"a\0")), "1.5.4-2"),
        (0x10, connect(2, text("a"), more=properties((0x21, 0))), "Receive Maximum 0"),
        (0x10, connect(2, text("a"), more=properties((0x21, 1), (0x21, 1))), "twice"),
        (0x10, connect(2, text("a"), more=properties((0x23, 1))), "property 0x23"),
        (0x11, connect(2, text("a")), "2.2.2-1"),
        (0x36, text("a") + b"\0\1\0", "3.3.1-4"),
        (0x38, text("a") + b"\0", "3.3.1-2"),
        (0x32, text("a") + b"\0\0\0", "2.2.1-3"),
        (0x30, text("a/+") + b"\0", "3.3.2-2"),
        (0x30, text("") + b"\0", "4.7.3-1"),
        (0x30, text("a") + b"\x80\0", "1.5.5-1"),
        (0x30, text("a"), "in the middle"),
        (0x30, text("a") + properties((0x0B, 1)), "property 0xb"),
        (0x60, b"\0\1", "2.2.2-1"),
        (0x40, b"\0\1\x92", "reason 0x92"),
        (0x80, b"\0\1\0" + text("a") + b"\0", "2.2.2-1"),
        (0x82, b"\0\1\0", "3.8.3-2"),
        (0x82, b"\0\1\0" + text("a") + b"\x40", "3.8.3-5"),
        (0x82, b"\0\1\0" + text("$share/g/a") + b"\4", "3.8.3-4"),
        (0xA2, b"\0\1\0", "3.10.3-2"),
        (0xC0, b"\0", "too many"),
        (0xE0, b"\x8e", "reason 0x8e"),
        (0xF0, b"\x18\0", "4.12.0-7"),
    ],
)
def test_a_slip_in_a_packet_is_found_and_cited(first, body, cited):
    with pytest.raises(AssertionError) as caught:
        decode(first, body, 5)
    assert cited in str(caught.value)


def test_half_a_surrogate_pair_is_no_text():
    with pytest.raises(UnicodeDecodeError):
        decode(0x30, text(b"\xed\xa0\x80") + b"\0", 5)


def test_reserved_bits_and_properties_are_none_of_3_1_1():
    for body in (b"\0\1" + text("a") + b"\x10", b"\0\1\0" + text("a") + b"\1"):
        with pytest.raises(AssertionError):
            decode(0x82, body, 4)
    with pytest.raises(AssertionError):
        decode(0x40, b"\0\1\0", 4)


def message(packet_id=1, payload=b"x", qos=1, *, retain=False, duplicate=False):
    return Publish("a", payload, qos, retain, duplicate, packet_id, {}, 10)


def after(*seen, limits=None, again=False):
    """A session that has seen these packets, and perhaps a reconnect."""
    session = Session()
    session.begin(session_present=False, limits=limits or {})
    for each in seen:
        session.saw(each)
    if again:
        session.begin(session_present=True, limits={})
    return session


@pytest.mark.parametrize(
    ("session", "slip", "cited"),
    [
        (after(limits={MAXIMUM_QOS: 0}), message(), "3.2.2-11"),
        (after(limits={RETAIN_AVAILABLE: 0}), message(retain=True), "3.2.2-14"),
        (after(limits={MAXIMUM_PACKET: 9}), message(), "3.2.2-15"),
        (after(message(), limits={RECEIVE_MAXIMUM: 1}), message(2), "3.3.4-7"),
        (after(message()), message(), "4.4.0-1"),
        (after(), message(duplicate=True), "4.3.2-2"),
        (after(message(), again=True), message(), "3.3.1-1"),
        (after(message(), again=True), message(payload=b"y", duplicate=True), "2.2.1-3"),
        (after(message(), again=True), message(2), "4.4.0-1"),
        (after(message(), message(2), again=True), message(2, duplicate=True), "4.6.0-1"),
        (after(message()), Subscribe(1, [("a", 0)], {}), "2.2.1-3"),
        (after(Subscribe(1, [("a", 0)], {})), message(), "2.2.1-3"),
        (after(), Answer(PUBACK, 1, 0, {}), "4.6.0-2"),
        (after(), Answer(PUBREL, 1, 0, {}), "without PUBREC"),
        (after(), Answer(PUBCOMP, 1, 0, {}), "without PUBREL"),
    ],
)
def test_a_slip_in_the_order_of_packets_is_found_and_cited(session, slip, cited):
    with pytest.raises(AssertionError) as caught:
        session.saw(slip)
    assert cited in str(caught.value)


def test_answers_out_of_order_are_found():
    session = after()
    session.owed.extend([(PUBACK, 1), (PUBACK, 2)])
    session.saw(Answer(PUBACK, 2, 0, {}))
    with pytest.raises(AssertionError, match=r"4\.6\.0-2"):
        session.saw(Answer(PUBACK, 1, 0, {}))


def test_a_publish_after_its_pubrec_is_found():
    session = after(message(qos=2))
    session.released.append(session.sent.pop(1).packet_id)
    with pytest.raises(AssertionError, match=r"4\.3\.3-6"):
        session.saw(message(qos=2, duplicate=True))


def test_a_length_has_four_bytes_at_most():
    with pytest.raises(AssertionError):
        Reader(b"\xff\xff\xff\xff\1", 5).varying()
