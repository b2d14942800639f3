"""aiomqtt, hand-written: `async for` over its messages, a file that stays open."""

import asyncio
import json

import aiomqtt
from shared import Task, done, fahrenheit


async def main() -> None:
    """Do what the command line says: `receive` or `job`."""
    task = Task.from_arguments()
    seen = 0
    with open(task.path, "a", encoding="utf-8") as rows:  # noqa: ASYNC230, PTH123
        async with aiomqtt.Client("127.0.0.1", task.port) as client:
            await client.subscribe("bench/#", qos=task.qos)
            async for message in client.messages:
                if task.mode == "job":
                    value = json.loads(message.payload)
                    if value["celsius"] > -40:  # noqa: PLR2004
                        rows.write(json.dumps(fahrenheit(value)) + "\n")
                seen += 1
                if seen == task.count:
                    rows.flush()
                    done()


if __name__ == "__main__":
    asyncio.run(main())
