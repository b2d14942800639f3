"""The tutorial in one call: integers over MQTT, into a JSON file, broker included."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import reactivex
from reactivex import operators as rx
from reactivex.subject import Subject

from rxflow import operators as ops
from rxflow.broker import Broker
from rxflow.mqtt import Connected, MqttSink, from_mqtt
from rxflow.running.report import Report
from rxflow.running.run import run
from rxflow.sinks import JsonSink, read_rows

NAME = "my_custom_name"
TOPIC = "/demo/integers"
USER = PASSWORD = "wiredflow"  # noqa: S105 (the tutorial's own, on loopback)


def demo(path: Path, *, seconds: float, rate: float) -> tuple[Report, list[Any]]:
    """Run the tutorial: a broker, a publisher of integers, and a pipeline into a fresh file.

    Args:
        path: The file; an older one is renamed.
        seconds: How long the pipeline runs; > 0.
        rate: Messages a second; > 0.

    Returns:
        The report, and the first rows of the file.
    """
    with Broker(users={USER: PASSWORD}) as broker:
        subscribed: Subject[Connected] = Subject()
        numbers = from_mqtt(
            broker.url, TOPIC, username=USER, password=PASSWORD, on_connect=subscribed.on_next
        )
        published = subscribed.pipe(
            rx.take(1),
            rx.flat_map(lambda _: reactivex.timer(0.0, 1 / rate)),
            rx.map(lambda n: {"Generated number": str(n)}),
        )
        report = run(
            (numbers.pipe(ops.decode_json()), JsonSink(path, existing="rotate")),
            (published, MqttSink(broker.url, topic=TOPIC, username=USER, password=PASSWORD)),
            name=NAME,
            seconds=seconds,
        )
    return report, list(itertools.islice(read_rows(path), 3))
