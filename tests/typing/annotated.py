"""Pipelines of annotated functions: mypy checks these too. Compiled by the tests, never run."""

from __future__ import annotations

from typing import Any, assert_type

import reactivex
from reactivex import Observable

from rxflow import operators as ops
from rxflow.flow import Flow
from rxflow.message import Batch, Message


def length(message: Message[bytes]) -> int:
    return len(message.payload)


def half(message: Message[int]) -> float:
    return message.payload / 2


def is_long(message: Message[int]) -> bool:
    return message.payload > 9


def total(batch: Batch[int]) -> int:
    return sum(batch.payloads)


def of_functions(numbers: Flow[Message[bytes]], stop: Observable[int]) -> None:
    assert_type(numbers.pipe(ops.map(length)), Observable[Message[int]])
    assert_type(numbers.pipe(ops.map(length), ops.map(half)), Observable[Message[float]])
    lengths = numbers.pipe(ops.map(length), ops.filter(is_long), ops.take_until(stop))
    assert_type(lengths, Observable[Message[int]])
    # mypy can't follow a buffer among other operators; so that is a pipe of its own.
    batches = lengths.pipe(ops.buffer_with_count(2))
    assert_type(batches, Observable[Batch[int]])
    assert_type(batches.pipe(ops.map(total)), Observable[Message[int]])
    assert_type(numbers.pipe(ops.decode_json()), Observable[Message[Any]])
    assert_type(lengths.pipe(ops.count()), Observable[Message[int]])


def double(number: int) -> int:
    return 2 * number


def of_plain_values() -> None:
    assert_type(reactivex.interval(1).pipe(ops.map(double), ops.count()), Observable[int])
