"""Averages over batches of at most a second or ten readings; the last, short batch counts too."""

import sys
from statistics import mean

import reactivex

from rxflow import Batch, JsonSink, MqttSink, from_mqtt, run
from rxflow.broker import Broker

SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0


def average(batch: Batch[float]) -> dict[str, float]:
    return {"mean": mean(batch.payloads), "readings": len(batch)}


with Broker() as broker:
    readings = reactivex.interval(SECONDS / 25).map(lambda n: {"celsius": 20 + n % 7})
    averages = (
        from_mqtt(broker.url, "room/temperature")
        .decode_json()
        .map(lambda message: float(message.payload["celsius"]))
        .buffer_with_time_or_count(1.0, 10)
        .map(average)
        .take_until(reactivex.timer(SECONDS))
    )
    report = run(
        (averages, JsonSink("files/averages.json", existing="rotate")),
        (readings, MqttSink(broker.url, topic="room/temperature")),
        seconds=SECONDS + 1,
    )
    print(report)
