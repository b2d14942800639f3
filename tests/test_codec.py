import json
from datetime import UTC, datetime

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxflow import codec

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def nested(depth):
    return b"[" * depth + b"]" * depth


@given(values)
def test_what_is_decoded_can_be_encoded_and_decoded_again(value):
    row = codec.encode(codec.decode(json.dumps(value).encode()))
    assert b"\n" not in row
    assert codec.decode(row) == value


def test_encode_writes_a_datetime():
    assert codec.encode(datetime(2026, 1, 2, tzinfo=UTC)) == b'"2026-01-02T00:00:00+00:00"'


@pytest.mark.parametrize(
    ("value", "name"),
    [({1}, "set"), ({"a": {1}}, "set"), (object(), "object"), ({1: 2}, "dict"), (2**70, "int")],
)
def test_encode_names_the_type_that_json_has_not(value, name):
    with pytest.raises(TypeError, match=name):
        codec.encode(value)


def test_encode_refuses_a_fragment_with_a_line_break():
    with pytest.raises(ValueError, match="line break"):
        codec.encode({"a": orjson.Fragment(b"[1,\n2]")})


def test_embed_keeps_every_digit():
    raw = b'{"n": 123456789012345678901234567890, "f": 1.10, "n": 1}'
    assert codec.embed(raw) == raw


def test_embed_puts_a_value_on_one_line():
    raw = b' \r\n{"a":\r\n\t"x\\ny"}\n '
    assert codec.embed(raw) == b'{"a":  \t"x\\ny"}'


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" \n",
        b"hello",
        b"NaN",
        b'{"a":Infinity}',
        b"1 2",
        b'1}, {"injected": true',
        b"\xff",
        b'"\xed\xa0\x80"',
        b"\xef\xbb\xbf{}",
        b"[1,]",
        b"1e400",
        nested(255),
        nested(1000),
        nested(5000),
    ],
)
def test_what_is_not_json_is_refused_with_a_short_reason(raw):
    for read in (codec.embed, codec.decode):
        with pytest.raises(ValueError, match=r"not JSON|deep") as caught:
            read(raw)
        assert len(str(caught.value)) < 120


@pytest.mark.parametrize("raw", [nested(254), b'{"a":' * 254 + b"1" + b"}" * 254])
def test_what_is_nested_254_deep_can_be_written_again(raw):
    assert codec.encode(codec.decode(raw)) == raw == codec.embed(raw)


def test_many_brackets_that_are_not_deep_are_no_reason_to_refuse():
    raw = json.dumps([[i] for i in range(300)] + ["[" * 500]).encode()
    assert len(codec.decode(raw)) == 301


@pytest.mark.parametrize("digits", [str(2**64), str(-(2**63) - 1), "1" + "0" * 40, "9" * 308])
def test_exact_integers_refuses_what_64_bits_do_not_hold(digits):
    with pytest.raises(ValueError, match="beyond 64 bits") as caught:
        codec.decode(f'{{"n":[{digits}]}}'.encode(), exact_integers=True)
    assert len(str(caught.value)) < 80


@pytest.mark.parametrize(
    "raw",
    [
        b"18446744073709551615",
        b"-9223372036854775808",
        b'"123456789012345678901234567890"',
        b"1234567890123456789012345.5",
        b"12345678901234567890123e5",
    ],
)
def test_exact_integers_lets_everything_else_pass(raw):
    assert codec.decode(raw, exact_integers=True) == codec.decode(raw)


@given(values)
def test_every_beginning_of_a_json_text_is_cut_short(value):
    text = json.dumps(value, ensure_ascii=False).encode()
    assert all(codec.is_cut_short(text[:length]) for length in range(len(text)))


@pytest.mark.parametrize(
    "text",
    [b"hello", b"not", b"{name", b'{"a" 1', b"[section]", b"\xff{", b"{}", b'"a"', b"true", b"1 2"],
)
def test_what_no_rest_makes_json_is_not_cut_short(text):
    assert not codec.is_cut_short(text)


@pytest.mark.parametrize(
    ("raw", "record"),
    [(b"\xc3\xa9\n", {"payload": "é\n"}), (b"\xff\x00", {"payload_base64": "/wA="})],
)
def test_a_refused_payload_is_kept_as_text_or_base64(raw, record):
    assert codec.text_or_base64(raw) == record
