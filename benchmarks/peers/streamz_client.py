"""streamz, fed by paho: its own MQTT source polls a queue at QoS 0 and acknowledges before it."""

import json
import time

import paho.mqtt.client as mqtt
from shared import Task, done, fahrenheit
from streamz import Stream


def main() -> None:
    """The whole job."""
    task = Task.from_arguments()
    seen = 0
    rows = open(task.path, "a", encoding="utf-8")  # noqa: PTH123, SIM115

    def on_connect(client: mqtt.Client, *_: object) -> None:
        client.subscribe("bench/#", task.qos)

    def on_message(_: mqtt.Client, __: object, message: mqtt.MQTTMessage) -> None:
        nonlocal seen
        payloads.emit(message.payload)
        seen += 1
        if seen == task.count:
            rows.flush()
            done()

    payloads = Stream()
    (
        payloads.map(json.loads)
        .filter(lambda value: value["celsius"] > -40)  # noqa: PLR2004
        .map(fahrenheit)
        .map(json.dumps)
        .sink(lambda row: rows.write(row + "\n"))
    )
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.on_connect = on_connect
    client.on_message = on_message
    client.connect("127.0.0.1", task.port)
    client.loop_start()
    time.sleep(120)


if __name__ == "__main__":
    main()
