"""A source and a sink as users make them, against a `StrictBroker`."""

from __future__ import annotations

import asyncio
from typing import Any

import reactivex
from strict import StrictBroker

from rxflow import MqttSink, Report, from_mqtt, run_async
from rxflow import operators as ops
from rxflow.message import Message


def running(broker: StrictBroker, *pipeline: Any, seconds: float = 20) -> Report:
    """As `run`, but over as soon as the broker has found a slip."""

    async def main() -> Report:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        broker.failed = lambda: loop.is_closed() or loop.call_soon_threadsafe(task.cancel)
        return await run_async(*pipeline, seconds=seconds)

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        raise AssertionError("see what the broker says") from None


def received(
    broker: StrictBroker, *filters: Any, seconds: float = 20, **settings: Any
) -> list[Message[bytes]]:
    """The messages of a source up to one whose payload is `end`, each let go at once."""
    kept: list[Message[bytes]] = []
    source = from_mqtt(broker.url, *(filters or "#"), **settings)
    running(
        broker,
        source.pipe(ops.take_while(lambda message: message.payload != b"end")),
        reactivex.Observer(lambda message: kept.append(message.with_delivery(None))),
        seconds=seconds,
    )
    return kept


def published(broker: StrictBroker, *items: Any, **settings: Any) -> Report:
    """Publish items; the report says how many the broker has."""
    sink = MqttSink(broker.url, **{"topic": "a", **settings})
    return running(broker, reactivex.of(*items), sink)
