"""Wrong pipelines of annotated functions, each with what mypy says. Compiled, never run."""

from __future__ import annotations

from reactivex import Observable

from rxflow import operators as ops
from rxflow.flow import Flow
from rxflow.message import Batch, Message


def length(message: Message[bytes]) -> int:
    return len(message.payload)


def half(message: Message[int]) -> float:
    return message.payload / 2


def total(batch: Batch[int]) -> int:
    return sum(batch.payloads)


def of_functions(numbers: Flow[Message[bytes]], stop: Observable[int]) -> None:
    numbers.pipe(ops.map(half))  # mypy: arg-type
    numbers.pipe(ops.map(length), ops.map(total))  # mypy: arg-type
    numbers.pipe(ops.map(length), ops.filter(total), ops.take_until(stop))  # mypy: misc
    numbers.pipe(ops.buffer_with_count("2"))  # mypy: arg-type
    numbers.pipe(ops.take_until(3))  # mypy: arg-type
    numbers.pipe(ops.mop(3))  # mypy: attr-defined
