"""Pipelines that are wrong, each with what pyright says of it. Compiled by the tests, never run."""

# mypy: ignore-errors

from __future__ import annotations

from rxflow import MqttSink, from_mqtt
from rxflow import operators as ops
from rxflow.flow import Flow
from rxflow.message import Batch, Message


def total(batch: Batch[int]) -> int:
    return sum(batch.payloads)


def half(message: Message[int]) -> float:
    return message.payload / 2


def of_messages(numbers: Flow[Message[bytes]]) -> None:
    numbers.pipe(ops.map(lambda m: m.payload["n"]))  # reportCallIssue, reportArgumentType
    numbers.pipe(ops.map(lambda m: m.topics))  # reportAttributeAccessIssue
    numbers.pipe(
        ops.map(lambda m: len(m.payload)),
        ops.map(lambda m: m.payload.x),  # reportAttributeAccessIssue
    )
    numbers.pipe(ops.map(half))  # reportArgumentType
    numbers.pipe(ops.map(total))  # reportArgumentType
    numbers.pipe(ops.buffer_with_count("2"))  # reportArgumentType
    numbers.pipe(ops.buffer_with_time())  # reportCallIssue
    numbers.pipe(
        ops.buffer_with_count(2),
        ops.map(lambda batch: batch.payload),  # reportAttributeAccessIssue
    )
    numbers.pipe(ops.mop(half))  # reportAttributeAccessIssue


def of_options() -> None:
    from_mqtt("mqtt://h", "a", keep_alive="30")  # reportArgumentType
    from_mqtt("mqtt://h", "a", keepalive=30)  # reportCallIssue
    MqttSink("mqtt://h", topic="a", version="4")  # reportArgumentType
