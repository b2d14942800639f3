"""Inside an asyncio program: a pipeline is a coroutine like any other."""

import asyncio
import sys

import reactivex

from rxflow import JsonSink, MqttSink, from_mqtt, run_async
from rxflow import operators as ops
from rxflow.broker import Broker

SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0


async def main() -> None:
    async with Broker() as broker, asyncio.TaskGroup() as tasks:
        events = from_mqtt(broker.url, "events").pipe(ops.decode_json())
        pipeline = tasks.create_task(
            run_async(events, JsonSink("files/events.json", existing="rotate"), seconds=SECONDS)
        )
        clicks = reactivex.interval(SECONDS / 10).pipe(ops.map(lambda n: {"click": n}))
        tasks.create_task(
            run_async(clicks, MqttSink(broker.url, topic="events"), seconds=SECONDS * 0.9)
        )
        while not pipeline.done():
            await asyncio.sleep(SECONDS / 4)
            print("the rest of the program goes on")
    print(pipeline.result())


asyncio.run(main())
