from __future__ import annotations

import pytest
from reactivex.subject import Subject
from streams import Source, on_completed, on_error, on_next, seen, seen_and_used, store

from rxflow import operators as ops
from rxflow.errors import ConfigError, DecodeError
from rxflow.message import Message


def decoded(_, source):
    return source.pipe(ops.decode_json())


def failed(item, **settings):
    errors, source = [], Subject()
    source.pipe(ops.decode_json(**settings)).subscribe(on_error=errors.append)
    source.on_next(item)
    return errors[0]


def test_nothing_and_the_end_and_an_error_pass():
    assert seen(decoded) == []
    assert seen(decoded, on_completed(3)) == [(3, "completed", None)]
    assert seen(decoded, on_error(3, OSError("x"))) == [(3, "OSError", "x")]


def test_each_payload_becomes_its_value_in_its_envelope():
    events = on_next(1, Message("a", b'{"n": 1}', 1)), on_next(2, Message("b", b"[]"))
    assert seen(decoded, *events) == [
        (1, "next", Message("a", {"n": 1}, 1)),
        (2, "next", Message("b", [])),
    ]


def test_plain_bytes_and_text_become_plain_values():
    assert [v for _, _, v in seen(decoded, on_next(1, b"1"), on_next(2, '"ä"'))] == [1, "ä"]


def test_disposed_early_it_lets_the_source_go():
    assert seen_and_used(decoded, on_next(9, b"1"), disposed=4) == ([], 4)


def test_what_is_not_json_is_a_decode_error_that_names_topic_and_reason():
    error = failed(Message("home/\n", b"{"))
    assert isinstance(error, DecodeError)
    assert error.topic == "home/\n"
    assert str(error).startswith(r"topic home/\n: not JSON")


@pytest.mark.parametrize("item", [b"nan", b"\xff", b"[" * 2000, "\ud800", b""])
def test_whatever_bytes_come_the_answer_is_a_decode_error(item):
    assert isinstance(failed(item), DecodeError)


def test_a_payload_that_is_too_long_says_so():
    assert "6 bytes, above max_payload_bytes=5" in str(failed(b'"1234"', max_payload_bytes=5))


def test_text_is_measured_in_bytes():
    assert isinstance(failed('"ää"', max_payload_bytes=5), DecodeError)


def test_an_integer_beyond_64_bits_is_refused_on_request():
    assert isinstance(failed(b"[99999999999999999999999]", exact_integers=True), DecodeError)


@pytest.mark.parametrize("item", [3, None, Message("t", {"n": 1}), [b"1"]])
def test_what_is_neither_bytes_nor_text_is_a_decode_error_that_names_the_type(item):
    kind = type(item.payload if isinstance(item, Message) else item).__name__
    assert f"neither bytes nor text, but {kind}" in str(failed(item))


def test_with_rejected_it_is_set_aside_with_its_delivery_and_the_stream_goes_on():
    aside, records, got, source = Subject(), [], [], Source()
    aside.subscribe(records.append)
    source.pipe(ops.decode_json(rejected=aside)).subscribe(
        lambda m: (got.append(m.payload), store(m))
    )
    source.receive(1, b"{")
    source.receive(2, b"2")
    assert got == [2]
    assert source.settled() == []
    store(records.pop())
    assert source.settled() == [1, 2]


@pytest.mark.parametrize("bad", [0, -1, 1.5, True])
def test_a_limit_out_of_range_is_refused_at_call_time(bad):
    with pytest.raises(ConfigError, match="max_payload_bytes must be"):
        ops.decode_json(max_payload_bytes=bad)
