import json
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

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
    [(1j, "complex"), ({"a": {1j}}, "complex"), (object(), "object"), ({(1, 2): 3}, "dict")],
)
def test_encode_names_the_type_that_json_has_not(value, name):
    with pytest.raises(TypeError, match=name):
        codec.encode(value)


class Colour(Enum):
    RED = "red"


class Reading(NamedTuple):
    t: float
    h: int


@dataclass
class Point:
    x: int
    y: Decimal


@pytest.mark.parametrize(
    ("value", "row"),
    [
        ({1}, b"[1]"),
        (frozenset({1}), b"[1]"),
        (deque([1, 2]), b"[1,2]"),
        (Reading(21.5, 40), b"[21.5,40]"),
        ({"at": {"r": Reading(1, 2)}}, b'{"at":{"r":[1,2]}}'),
        (Decimal("1.10"), b'"1.10"'),
        (Colour.RED, b'"red"'),
        ({Colour.RED: 1}, b'{"red":1}'),
        ({1: 2, 2.5: 3, None: 5}, b'{"1":2,"2.5":3,"null":5}'),
        ({1: {"a": {2}}}, b'{"1":{"a":[2]}}'),
        (MappingProxyType({"a": 1}), b'{"a":1}'),
        (Point(1, Decimal(2)), b'{"x":1,"y":"2"}'),
        (2**64, b"18446744073709551616"),
        (-(2**70), b"-1180591620717411303424"),
        ({"a": [2**70, {3}, "x"]}, b'{"a":[1180591620717411303424,[3],"x"]}'),
        ({2**70: 1}, b'{"1180591620717411303424":1}'),
        (Reading(2**70, 1), b"[1180591620717411303424,1]"),
        (Point(2**70, Decimal(2)), b'{"x":1180591620717411303424,"y":"2"}'),
    ],
)
def test_what_orjson_refuses_is_written_as_most_libraries_do(value, row):
    assert codec.encode(value) == row
    assert codec.decode(row) is not None


def test_arrays_and_numbers_of_numpy_are_arrays_and_numbers():
    numpy = pytest.importorskip("numpy", reason="numpy is optional")
    made = {
        "a": numpy.arange(4).reshape(2, 2),
        "turned": numpy.arange(4).reshape(2, 2).T,
        "text": numpy.array(["a", "b"]),
        "f": numpy.float64(1.5),
        "f32": numpy.float32(0.5),
        "i": numpy.int16(3),
        "b": numpy.bool_(True),  # noqa: FBT003
    }
    assert codec.decode(codec.encode(made)) == {
        "a": [[0, 1], [2, 3]],
        "turned": [[0, 2], [1, 3]],
        "text": ["a", "b"],
        "f": 1.5,
        "f32": 0.5,
        "i": 3,
        "b": True,
    }


def test_a_struct_of_msgspec_is_written_by_its_fields_names_and_all():
    msgspec = pytest.importorskip("msgspec", reason="msgspec is optional")

    class Struct(msgspec.Struct, rename="camel", tag=True):
        room_number: int
        when: datetime

    row = codec.encode([Struct(1, datetime(2026, 1, 2, tzinfo=UTC))])
    assert row == b'[{"type":"Struct","roomNumber":1,"when":"2026-01-02T00:00:00Z"}]'


def test_a_model_of_pydantic_is_written_as_it_writes_itself():
    pydantic = pytest.importorskip("pydantic", reason="pydantic is optional")

    class Model(pydantic.BaseModel):
        t: Decimal
        tags: set[str]

    assert codec.encode({"m": Model(t="1.10", tags={"a"})}) == b'{"m":{"t":"1.10","tags":["a"]}}'


def test_a_class_of_attrs_is_written_by_its_fields():
    attrs = pytest.importorskip("attrs", reason="attrs is optional")

    @attrs.define
    class Room:
        name: str
        taken: set[int]

    assert codec.encode(Room("a", {1})) == b'{"name":"a","taken":[1]}'


def test_default_is_asked_first_for_what_json_has_no_form_for():
    def as_a_number(value):
        if isinstance(value, Decimal):
            return float(value)
        raise TypeError(value)

    assert codec.encode([Decimal("1.10"), {2}, 3], as_a_number) == b"[1.1,[2],3]"


def test_what_default_does_not_know_either_is_named():
    def refuse(value):
        raise TypeError("no idea")

    with pytest.raises(TypeError, match="complex"):
        codec.encode([1j], refuse)


def test_what_default_raises_is_told():
    def fail(value):
        raise LookupError("no such unit")

    with pytest.raises(TypeError, match="no such unit"):
        codec.encode(1j, fail)


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
