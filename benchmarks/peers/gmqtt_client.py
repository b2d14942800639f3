"""gmqtt: count only."""

import asyncio
from typing import Any

import gmqtt
from gmqtt.mqtt.constants import MQTTv50, MQTTv311
from shared import Task, done


async def main() -> None:
    """Receive what comes."""
    task = Task.from_arguments()
    seen = 0
    client = gmqtt.Client("bench")

    def on_connect(*_: Any) -> None:
        client.subscribe("bench/#", qos=task.qos)

    def on_message(*_: Any) -> int:
        nonlocal seen
        seen += 1
        if seen == task.count:
            done()
        return 0

    client.on_connect = on_connect
    client.on_message = on_message
    version = MQTTv50 if task.version == 5 else MQTTv311  # noqa: PLR2004
    await client.connect("127.0.0.1", task.port, version=version)
    await asyncio.sleep(120)


if __name__ == "__main__":
    asyncio.run(main())
