"""An alarm that publishes back: only changes, and only those that last."""

import sys

import reactivex

from rxflow import JsonSink, MqttSink, from_mqtt, run
from rxflow.broker import Broker

SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
STEP = SECONDS / 40

with Broker() as broker:
    # Twelve warm readings, one hot spike, and then it stays hot.
    boiler = reactivex.interval(STEP).map(
        lambda n: {"celsius": 95 if n == 12 or n > 20 else 60},
    )
    alarms = (
        from_mqtt(broker.url, "boiler/temperature")
        .decode_json()
        .map(lambda message: message.payload["celsius"] > 90)
        .distinct_until_changed(lambda message: message.payload)
        .debounce(4 * STEP)
        .distinct_until_changed(lambda message: message.payload)
        .map(lambda message: {"alarm": message.payload})
    )
    heard = from_mqtt(broker.url, "boiler/alarm").decode_json()
    report = run(
        (alarms, MqttSink(broker.url, topic="boiler/alarm", retain=True)),
        (heard, JsonSink("files/alarms.json", existing="rotate")),
        (boiler, MqttSink(broker.url, topic="boiler/temperature")),
        seconds=SECONDS,
    )
    print(report)
