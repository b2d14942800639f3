"""Where pipelines end: files that miss nothing acknowledged.

From the disk up: `layout` says how rows stand in a file, `tear` tells what a crash left from what
somebody else wrote, `place` opens and locks, `durable` commits; `group` gathers what arrives during
a commit, `item` makes rows of items, `observer` is what Rx sees, and `files` what users make.
`reading` reads back.
"""

from __future__ import annotations

from rxflow.sinks.file.json import JsonLinesSink, JsonSink
from rxflow.sinks.file.reading import read_rows

__all__ = ["JsonLinesSink", "JsonSink", "read_rows"]
