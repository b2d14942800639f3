"""Everything but PUBLISH is what the standard lets a broker send, or refused with its code."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strict import properties

from rxflow.mqtt.packets import MalformedPacketError, check_packet

SAID = properties((0x1F, "why\ufeff"), (0x26, ("k", "")), (0x26, ("k", "v")))


@pytest.mark.parametrize("is_5", [False, True])
@pytest.mark.parametrize(
    ("first", "body"),
    [
        *((kind, b"\0\1") for kind in (0x40, 0x50, 0x62, 0x70)),
        (0xD0, b""),
        (0x20, b"\0\1"),  # a broker of 3.1.1 that was asked in MQTT 5
    ],
)
def test_what_both_versions_have_is_taken(is_5, first, body):
    check_packet(first, body, is_5=is_5)


@pytest.mark.parametrize(
    ("first", "body"),
    [
        (0x20, b"\0\0"),
        (0x20, b"\1\0"),
        (0x20, b"\0\x05"),
        (0x90, b"\0\1\0\1\2\x80"),
        (0xB0, b"\0\1"),
    ],
)
def test_what_3_1_1_has_is_taken(first, body):
    check_packet(first, body, is_5=False)


@pytest.mark.parametrize(
    ("first", "body"),
    [
        (0x20, b"\1\0\0"),
        (0x20, b"\0\x87" + SAID),
        (0x20, b"\0\0" + properties((0x15, "m"), (0x16, b"\0\xff"), (0x1A, "r"), (0x2A, 1))),
        (0x40, b"\0\1\x10"),
        (0x40, b"\0\1\x87" + SAID),
        (0x62, b"\0\1\x92\0"),
        (0x90, b"\0\1" + SAID + b"\0\x87"),
        (0xB0, b"\0\1" + SAID + b"\x11"),
        (0xE0, b""),
        (0xE0, b"\x8e"),
        (0xE0, b"\x9c" + properties((0x1C, "other"), (0x1F, ""))),
    ],
)
def test_what_mqtt_5_has_is_taken(first, body):
    check_packet(first, body, is_5=True)


@pytest.mark.parametrize(
    ("first", "body", "code", "is_5"),
    [
        (0x00, b"", 0x82, True),
        (0x10, b"", 0x82, True),
        (0x82, b"", 0x82, True),
        (0xA2, b"", 0x82, True),
        (0xC0, b"", 0x82, True),
        (0xE0, b"", 0x82, False),
        (0xF0, b"", 0x82, False),
        (0xF0, b"\x18\0", 0x82, True),
        (0x60, b"\0\1", 0x81, True),
        (0x41, b"\0\1", 0x81, False),
        (0x40, b"\0\0", 0x81, False),
        (0x40, b"\0", 0x81, False),
        (0x40, b"\0\1\0", 0x81, False),
        (0x40, b"\0\1\1", 0x82, True),
        (0x40, b"\0\1\0\0\0", 0x81, True),
        (0x40, b"\0\1\0\5", 0x81, True),
        (0x40, b"\0\1\0\x80\0", 0x81, True),
        (0x40, b"\0\1\0\xff\xff\xff\xff\1", 0x81, True),
        (0x40, b"\0\1\0\3\x1f\0\5", 0x81, True),
        (0x40, b"\0\1\0" + properties((0x21, 1)), 0x82, True),
        (0x40, b"\0\1\0" + properties((0x1F, "a"), (0x1F, "a")), 0x82, True),
        (0x40, b"\0\1\0" + properties((0x1F, b"\xff")), 0x81, True),
        (0x40, b"\0\1\0" + properties((0x26, ("a", "\0"))), 0x81, True),
        (0x90, b"\0\1\0", 0x81, True),
        (0x90, b"\0\1\0\3", 0x82, True),
        (0x90, b"\0\1", 0x81, False),
        (0x90, b"\0\1\3", 0x82, False),
        (0xB0, b"\0\1\0", 0x81, False),
        (0xB0, b"\0\1\0", 0x81, True),
        (0xD0, b"\0", 0x81, True),
        (0x20, b"\0", 0x81, True),
        (0x20, b"\2\0\0", 0x81, True),
        (0x20, b"\0\0", 0x81, True),
        (0x20, b"\0\0\0", 0x81, False),
        (0x20, b"\0\x8e\0", 0x82, True),
        (0x20, b"\0\0" + properties((0x21, 0)), 0x82, True),
        (0x20, b"\0\0" + properties((0x27, 0)), 0x82, True),
        (0x20, b"\0\0" + properties((0x24, 2)), 0x82, True),
        (0x20, b"\0\0\2\x21\0", 0x81, True),
        (0xE0, b"\4", 0x82, True),
        (0xE0, b"\x8b" + properties((0x11, 1)), 0x82, True),
    ],
)
def test_what_no_broker_may_send_is_refused_with_its_code(first, body, code, is_5):
    with pytest.raises(MalformedPacketError) as caught:
        check_packet(first, body, is_5=is_5)
    assert caught.value.code == code


@given(st.integers(0, 255), st.binary(max_size=40), st.booleans())
def test_any_bytes_are_a_packet_or_malformed(first, body, is_5):
    with contextlib.suppress(MalformedPacketError):
        check_packet(first, body, is_5=is_5)
