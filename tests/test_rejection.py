from datetime import UTC, datetime

import pytest

from rxflow import codec
from rxflow.message import Message
from rxflow.rejection import rejection


class Broken:
    def __repr__(self):
        raise RuntimeError


def test_a_record_says_topic_payload_error_and_time():
    message = Message("a/b", b"{oops", received_at=datetime(2026, 1, 2, 3, tzinfo=UTC))
    assert rejection(message, "not JSON").payload == {
        "topic": "a/b",
        "payload": "{oops",
        "error": "not JSON",
        "time": "2026-01-02T03:00:00+00:00",
    }


def test_a_record_travels_in_the_envelope_with_the_delivery():
    token = object()
    record = rejection(Message("a", b"x", 1, delivery=token), "no")
    assert record.delivery is token
    assert (record.topic, record.qos) == ("a", 1)


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        ({"a": 1}, '{"a":1}'),
        ("text\ud800", "text\\ud800"),
        ({1}, "[1]"),
        (1j, "1j"),
        (bytearray(b"b"), "b"),
    ],
)
def test_a_record_shows_any_payload(payload, shown):
    assert rejection(Message("a", payload), "no").payload["payload"] == shown


def test_a_record_is_always_json():
    for payload in (b"\xff", Broken(), "\ud800", 2**90):
        codec.encode(rejection(Message("\ud800", payload), "err \udfff").payload)
