"""A CSV file by a function: it appends a batch, and returns when that is on the disk.

python csv_sink.py URL PATH
"""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path
from typing import Any

from rxflow import Batch, DurableSink, from_mqtt, run
from rxflow import operators as ops


def csv_sink(path: Path) -> DurableSink:
    """Make a sink that appends `topic,n`; what a crash has torn is cut off at the first batch."""
    is_whole = False

    def mend() -> None:
        nonlocal is_whole
        if path.exists() and not is_whole:
            content = path.read_bytes()
            os.truncate(path, content.rfind(b"\n") + 1)
        is_whole = True

    def append(batch: Batch[Any]) -> None:
        mend()
        with path.open("a", newline="") as file:
            csv.writer(file).writerows((m.topic, m.payload["n"]) for m in batch)
            file.flush()
            os.fsync(file.fileno())

    return DurableSink(append, name=str(path))


if __name__ == "__main__":
    url, where = sys.argv[1:]
    source = from_mqtt(url, "numbers", client_id="outside").pipe(ops.decode_json())
    run(source, csv_sink(Path(where)))
