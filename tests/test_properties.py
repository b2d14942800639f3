"""The properties of an MQTT 5 PUBLISH."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties as PahoProperties

from rxflow.properties import NONE, Properties, parse

TEXT = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=300)
PROPERTIES = st.builds(
    Properties,
    user=st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple),
    content_type=st.none() | TEXT,
    response_topic=st.none() | st.sampled_from(["a", "a/b"]),
    correlation_data=st.none() | st.binary(max_size=300),
    expiry=st.none() | st.integers(0, 2**32 - 1),
    is_text=st.booleans(),
    subscription_ids=st.lists(st.integers(1, 268_435_455), max_size=3).map(tuple),
)


def packed(properties):
    """As paho writes them, without the length in front."""
    made = PahoProperties(PacketTypes.PUBLISH)
    if properties.user:
        made.UserProperty = list(properties.user)
    if properties.content_type is not None:
        made.ContentType = properties.content_type
    if properties.response_topic is not None:
        made.ResponseTopic = properties.response_topic
    if properties.correlation_data is not None:
        made.CorrelationData = properties.correlation_data
    if properties.expiry is not None:
        made.MessageExpiryInterval = properties.expiry
    if properties.is_text:
        made.PayloadFormatIndicator = 1
    if properties.subscription_ids:
        made.SubscriptionIdentifier = list(properties.subscription_ids)
    raw = made.pack()
    return raw[next(at for at, byte in enumerate(raw) if byte < 0x80) + 1 :]


@given(PROPERTIES)
def test_what_paho_writes_is_read_back(properties):
    assert parse(packed(properties)) == properties


def test_no_bytes_are_no_properties():
    assert parse(b"") is NONE


def test_names_that_come_twice_keep_their_order():
    twice = (("b", "1"), ("a", "2"), ("b", "3"))
    assert parse(packed(Properties(user=twice))).user == twice


def test_the_same_short_bytes_are_read_once():
    raw = packed(Properties(content_type="application/json"))
    assert parse(raw) is parse(bytes(bytearray(raw)))


def test_long_bytes_are_not_remembered():
    raw = packed(Properties(content_type="x" * 300))
    assert parse(raw) == parse(raw)
    assert parse(raw) is not parse(raw)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"\x02\x00\x00\x00", "middle"),
        (b"\x03\x00\x02a", "middle"),
        (b"\x03\x00", "middle"),
        (b"\x26\x00\x01a", "middle"),
        (b"\x01", "middle"),
        (b"\x0b", "middle"),
        (b"\x01\x02", "payload format 2"),
        (b"\x0b\x00", "identifier 0"),
        (b"\x0b\x80\x80\x80\x80\x01", "more than four"),
        (b"\x03\x00\x01\xff", "decode"),
        (b"\x03\x00\x01\x00", r"U\+0000"),
        (b"\x08\x00\x01+", "wildcard"),
        (b"\x08\x00\x03a/#", "wildcard"),
        (b"\x01\x00\x01\x00", "0x01 twice"),
        (b"\x03\x00\x00\x03\x00\x00", "0x03 twice"),
        (b"\x23\x00\x01", "0x23 is not allowed"),
        (b"\x11\x00\x00\x00\x00", "0x11 is not allowed"),
        (b"\xff", "0xff is not allowed"),
    ],
)
def test_malformed_properties_are_refused(raw, reason):
    with pytest.raises(ValueError, match=reason):
        parse(raw)


@given(st.binary(max_size=40))
def test_any_bytes_are_properties_or_a_value_error(raw):
    with contextlib.suppress(ValueError):
        assert isinstance(parse(raw), Properties)
