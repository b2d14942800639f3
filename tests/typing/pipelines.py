"""What a type checker must know of a pipeline. Compiled by the tests, never run."""

from __future__ import annotations

from typing import Any, assert_type

from reactivex import Observable

from rxflow import operators as ops
from rxflow.flow import Flow
from rxflow.message import Batch, Message


def of_messages(numbers: Flow[Message[bytes]], stop: Observable[int]) -> None:
    assert_type(numbers.pipe(ops.decode_json()), Observable[Message[Any]])
    assert_type(numbers.pipe(ops.map(lambda m: len(m.payload))), Observable[Message[int]])
    assert_type(numbers.pipe(ops.map(lambda m: m.payload)), Observable[Message[bytes]])
    assert_type(numbers.pipe(ops.map(lambda m: m.with_payload(1))), Observable[Message[int]])
    assert_type(numbers.pipe(ops.buffer_with_count(2)), Observable[Batch[bytes]])
    assert_type(numbers.pipe(ops.buffer_with_time(2.0)), Observable[Batch[bytes]])
    assert_type(numbers.pipe(ops.take_until(stop)), Observable[Message[bytes]])
    assert_type(
        numbers.pipe(
            ops.filter(lambda m: m.topic != "noise"),
            ops.decode_json(),
            ops.map(lambda m: {"n": int(m.payload["n"]), "topic": m.topic}),
            ops.buffer_with_time_or_count(1.0, 100),
            ops.take_until(stop),
        ),
        Observable[Batch[dict[str, int | str]]],
    )


def of_batches(batches: Flow[Batch[int]]) -> None:
    assert_type(batches.pipe(ops.map(lambda b: sum(b.payloads))), Observable[Message[int]])
    assert_type(batches.pipe(ops.map(lambda b: b[-1])), Observable[Message[int]])


def length(message: Message[bytes]) -> int:
    return len(message.payload)


def half(message: Message[int]) -> float:
    return message.payload / 2


def of_functions(numbers: Flow[Message[bytes]]) -> None:
    assert_type(numbers.pipe(ops.map(length), ops.map(half)), Observable[Message[float]])


def of_plain_values(numbers: Flow[int], texts: Flow[str]) -> None:
    numbers.pipe(ops.map(lambda n: n + 1))
    assert_type(numbers.pipe(ops.buffer_with_count(2)), Observable[list[int]])
    assert_type(numbers.pipe(ops.share(), ops.to_list()), Observable[list[int]])
    assert_type(texts.pipe(ops.decode_json()), Observable[Any])
