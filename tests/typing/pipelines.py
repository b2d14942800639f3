"""What pyright must know of a pipeline, lambdas and all. Compiled by the tests, never run."""

# mypy: ignore-errors
# It can't infer a lambda's argument in `pipe`; what it can is in `annotated.py`.

from __future__ import annotations

from typing import Any, assert_type

import reactivex
from reactivex import GroupedObservable, Observable

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


def of_lambdas_in_a_row(numbers: Flow[Message[bytes]]) -> None:
    lengths = ops.map(length)
    assert_type(numbers.pipe(lengths, ops.map(lambda m: m.payload / 2)), Observable[Message[float]])
    assert_type(
        numbers.pipe(
            ops.decode_json(),
            ops.map(lambda m: float(m.payload["celsius"])),
            ops.filter(lambda m: m.payload > 2),
            ops.distinct_until_changed(lambda m: m.payload),
            ops.buffer_with_count(3),
            ops.map(lambda batch: sum(batch.payloads) / len(batch)),
            ops.map(lambda m: {"mean": m.payload, "topic": m.topic}),
        ),
        Observable[Message[dict[str, float | str]]],
    )
    assert_type(
        numbers.pipe(
            ops.scan(lambda total, m: total + len(m.payload), 0), ops.map(lambda m: m.payload > 9)
        ),
        Observable[Message[bool]],
    )
    assert_type(
        numbers.pipe(
            ops.flat_map(lambda m: reactivex.of(*m.payload)), ops.map(lambda m: m.payload + 1)
        ),
        Observable[Message[int]],
    )


def of_groups(numbers: Flow[Message[bytes]]) -> None:
    assert_type(
        numbers.pipe(ops.group_by(lambda m: m.topic)),
        Observable[GroupedObservable[str, Message[bytes]]],
    )
    assert_type(
        numbers.pipe(
            ops.group_by(lambda m: m.topic),
            ops.flat_map(lambda group: group.pipe(ops.buffer_with_count(2))),
            ops.map(lambda batch: b"".join(batch.payloads)),
        ),
        Observable[Message[bytes]],
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


def double(number: int) -> int:
    return 2 * number


def of_plain_values(numbers: Flow[int], texts: Flow[str]) -> None:
    numbers.pipe(ops.map(lambda n: n + 1))
    assert_type(numbers.pipe(ops.buffer_with_count(2)), Observable[list[int]])
    assert_type(numbers.pipe(ops.share(), ops.to_list()), Observable[list[int]])
    assert_type(texts.pipe(ops.decode_json()), Observable[Any])
    assert_type(numbers.pipe(ops.map(lambda n: n + 1), ops.count()), Observable[int])
    assert_type(reactivex.interval(1).pipe(ops.map(double), ops.count()), Observable[int])
    assert_type(reactivex.interval(1).pipe(ops.map(double), ops.average()), Observable[float])


def of_one_value_of_many(numbers: Flow[Message[int]]) -> None:
    assert_type(numbers.pipe(ops.count()), Observable[Message[int]])
    assert_type(numbers.pipe(ops.count(lambda m: m.payload > 2)), Observable[Message[int]])
    assert_type(numbers.pipe(ops.buffer_with_count(2), ops.count()), Observable[Message[int]])
    assert_type(
        numbers.pipe(ops.map(lambda m: m.payload / 2), ops.average()), Observable[Message[float]]
    )
