"""Many sensors, one connection, two files: every reading in one, the hot ones in the other."""

import sys

import reactivex

from rxflow import JsonLinesSink, JsonSink, MqttSink, from_mqtt, run
from rxflow.broker import Broker

SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0

with Broker() as broker:
    readings = reactivex.interval(SECONDS / 25).map(
        lambda n: {"sensor": n % 3, "celsius": 20 + n},
    )
    sensors = (
        from_mqtt(broker.url, "sensors/+/temperature")
        .decode_json()
        .map(lambda message: {"topic": message.topic, **message.payload})
        .share()  # one connection for both files; a message is acknowledged when both have it
    )
    report = run(
        (sensors, JsonLinesSink("files/all.jsonl", existing="rotate")),
        (
            sensors.filter(lambda message: float(message.payload["celsius"]) > 30),
            JsonSink("files/hot.json", existing="rotate"),
        ),
        (
            readings,
            MqttSink(broker.url, topic=lambda row: f"sensors/{row['sensor']}/temperature"),
        ),
        seconds=SECONDS,
    )
    print(report)
