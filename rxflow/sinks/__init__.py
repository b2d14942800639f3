"""The ends of pipelines: sinks that miss nothing acknowledged.

`contracts` says what a store is; `shell` how a sink takes an item, refuses one and fails;
`group_commit` gathers what arrives during a commit, `receipts` has QoS 2 messages stored once only,
and `sink` is the `DurableSink` that they make. `file` is the store of `JsonSink` and
`JsonLinesSink`.
"""

from __future__ import annotations

from rxflow.sinks.file.json import JsonLinesSink, JsonSink
from rxflow.sinks.file.reading import read_rows
from rxflow.sinks.sink import DurableSink

__all__ = ["DurableSink", "JsonLinesSink", "JsonSink", "read_rows"]
