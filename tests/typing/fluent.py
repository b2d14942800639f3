"""The fluent methods, lambdas and all, as pyright and mypy must know them. Never run."""

from __future__ import annotations

from typing import Any, assert_type

from rxflow.flow import Flow
from rxflow.message import Batch, Message


def of_messages(numbers: Flow[Message[bytes]], stop: Flow[int]) -> None:
    assert_type(numbers.map(lambda m: len(m.payload)), Flow[Message[int]])
    assert_type(numbers.map(lambda m: m.with_payload(1)), Flow[Message[int]])
    assert_type(numbers.decode_json(), Flow[Message[Any]])
    assert_type(numbers.filter(lambda m: m.payload > b"2"), Flow[Message[bytes]])
    assert_type(numbers.count(lambda m: m.topic == "a"), Flow[Message[int]])
    assert_type(numbers.buffer_with_count(2), Flow[Batch[bytes]])
    assert_type(numbers.buffer_with_time(2.0), Flow[Batch[bytes]])
    batches = numbers.buffer_with_time_or_count(2.0, 2)
    assert_type(batches.map(lambda batch: len(batch.payloads)), Flow[Message[int]])
    settled = numbers.share().distinct_until_changed(lambda m: m.payload).debounce(1.0)
    assert_type(settled.skip(1).take(2).take_until(stop), Flow[Message[bytes]])


def of_plain_values(numbers: Flow[int]) -> None:
    assert_type(numbers.map(lambda number: number / 2).count(), Flow[int])
    assert_type(numbers.buffer_with_count(2), Flow[list[int]])
