"""paho, hand-written as in its tutorials: `loop_start`, a callback, a file that stays open."""

import json
import os
import time
from typing import Any

import paho.mqtt.client as mqtt
from shared import Task, done, fahrenheit


def main() -> None:
    """Do what the command line says: `receive`, `job` or `job-sync`."""
    task = Task.from_arguments()
    seen = 0
    rows = open(task.path, "a", encoding="utf-8")  # noqa: PTH123, SIM115

    def on_connect(client: mqtt.Client, *_: object) -> None:
        client.subscribe("bench/#", task.qos)

    def receive(_: mqtt.Client, __: object, ___: mqtt.MQTTMessage) -> None:
        nonlocal seen
        seen += 1
        if seen == task.count:
            done()

    def job(_: mqtt.Client, __: object, message: mqtt.MQTTMessage) -> None:
        nonlocal seen
        value: dict[str, Any] = json.loads(message.payload)
        if value["celsius"] > -40:  # noqa: PLR2004
            rows.write(json.dumps(fahrenheit(value)) + "\n")
        if task.mode == "job-sync":
            rows.flush()
            os.fdatasync(rows.fileno())
        seen += 1
        if seen == task.count:
            rows.flush()
            done()

    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2,
        protocol=mqtt.MQTTv5 if task.version == 5 else mqtt.MQTTv311,  # noqa: PLR2004
    )
    client.on_connect = on_connect
    client.on_message = receive if task.mode == "receive" else job
    client.connect("127.0.0.1", task.port)
    client.loop_start()
    time.sleep(120)


if __name__ == "__main__":
    main()
