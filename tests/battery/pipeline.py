"""The pipeline that the battery kills: MQTT to a JSON file, with its safeguards or without.

    python pipeline.py URL FILE [--qos 1] [--careless] ...

It prints one JSON line at its end.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from pathlib import Path

from reactivex import operators as rx

from rxflow import JsonLinesSink, JsonSink, from_mqtt, run
from rxflow import operators as ops
from rxflow.sinks.file.store import DurableFile

parser = argparse.ArgumentParser()
parser.add_argument("url")
parser.add_argument("path")
parser.add_argument("--topic", default="battery/n")
parser.add_argument("--qos", type=int, default=1)
parser.add_argument("--max-pending", type=int, default=10_000)
parser.add_argument("--keep-alive", type=int, default=30)
parser.add_argument("--max-packet-bytes", type=int, default=1024 * 1024)
parser.add_argument("--count", type=int, help="complete after so many messages")
parser.add_argument("--commit-seconds", type=float, default=0.0, help="before each write")
parser.add_argument("--row-seconds", type=float, default=0.0, help="behind each row written")
parser.add_argument("--room", type=int, help="bytes that the file may grow by")
parser.add_argument("--rotate", action="store_true", help="each life begins a new file")
parser.add_argument("--step-seconds", type=float, default=0.0, help="in each step of opening")
parser.add_argument("--slow-while", type=Path, help="while this exists, a commit takes its time")
parser.add_argument("--unbounded", action="store_true", help="read however much waits")
parser.add_argument("--careless", action="store_true", help="acknowledge before the commit")
arguments = parser.parse_args()

peak = 0
commit = DurableFile.commit


def slow_commit(file, rows, *more):
    if arguments.commit_seconds:
        time.sleep(arguments.commit_seconds)
    if arguments.slow_while and arguments.slow_while.exists():
        time.sleep(0.2)
    commit(file, rows, *more)
    if arguments.row_seconds:
        time.sleep(arguments.row_seconds * len(rows))


def watch(message):
    global peak  # noqa: PLW0603 (one figure of one process)
    if message.delivery is not None:
        peak = max(peak, message.delivery.ledger.unsettled)


def slowed(step):
    def call(*args, **options):
        time.sleep(arguments.step_seconds)
        return step(*args, **options)

    return call


DurableFile.commit = slow_commit
if arguments.step_seconds:  # a kill finds the file half recovered, half made, half rotated
    for name in ("rename", "fsync", "ftruncate"):
        setattr(os, name, slowed(getattr(os, name)))
if arguments.room:
    size = Path(arguments.path).stat().st_size + arguments.room
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
source = from_mqtt(
    arguments.url,
    (arguments.topic, arguments.qos),
    username="wiredflow",
    password="wiredflow",
    max_pending=1 << 31 if arguments.unbounded else arguments.max_pending,
    keep_alive=arguments.keep_alive,
    max_pending_bytes=1 << 50 if arguments.unbounded else 64 << 20,
    max_packet_bytes=arguments.max_packet_bytes,
    rejected=JsonLinesSink(f"{arguments.path}.rejected"),
)
operators = [ops.do_action(watch)]
if arguments.count:
    operators.append(ops.take(arguments.count))
if arguments.careless:
    operators.append(rx.map(lambda message: message.with_delivery(None)))
sink = JsonSink(arguments.path, existing="rotate" if arguments.rotate else "append")
if arguments.unbounded:
    sink.max_queued = 1 << 31
report = run(source.pipe(*operators), sink, log=False, drain_timeout=20)
# Not `ru_maxrss`, which begins with that of the process that started this one.
peak_of_memory_kb = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
print(  # noqa: T201 (a program)
    json.dumps(
        {
            "received": report.received,
            "stored": report.stored,
            "peak": peak,
            "rss_mb": peak_of_memory_kb / 1024,
        }
    )
)
