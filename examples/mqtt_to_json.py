"""The tutorial: integers that come over MQTT, kept in a JSON file for ten seconds."""

import sys

import reactivex

from rxflow import JsonSink, MqttSink, from_mqtt, run
from rxflow import operators as ops
from rxflow.broker import Broker
from rxflow.log import log_to_terminal

SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
TOPIC, USER, PASSWORD = "/demo/integers", "wiredflow", "wiredflow"

log_to_terminal()
with Broker(users={USER: PASSWORD}) as broker:
    generated = reactivex.interval(min(1.0, SECONDS / 5)).pipe(
        ops.map(lambda n: {"Generated number": str(n)})
    )
    numbers = from_mqtt(broker.url, TOPIC, username=USER, password=PASSWORD)
    run(
        (numbers.pipe(ops.decode_json()), JsonSink("files/my_custom_name.json", existing="rotate")),
        (generated, MqttSink(broker.url, topic=TOPIC, username=USER, password=PASSWORD)),
        name="my_custom_name",
        seconds=SECONDS,
    )
