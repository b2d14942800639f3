"""A spool folder as a source: each file is an item; it is deleted when its row is durable.

python spool_feed.py FOLDER PATH
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rxflow import Flow, JsonSink, Message, from_feed, run


class SpoolFeed:
    """The files of a folder, by name. Whoever writes one renames it to `*.json` when it is whole.

    Args:
        folder: Where they are.
        seconds: Between two looks; None: it ends when all that is there has been read.
    """

    def __init__(self, folder: Path, seconds: float | None) -> None:
        self._folder = folder
        self._seconds = seconds
        self._paths: list[Path] = []

    async def read(self, emit: Callable[[bytes, int], None]) -> None:
        while True:
            for path in sorted(set(self._folder.glob("*.json")) - set(self._paths)):
                self._paths.append(path)
                emit(path.read_bytes(), len(self._paths) - 1)
                await asyncio.sleep(0)  # here it is paused
            if self._seconds is None:
                return
            await asyncio.sleep(self._seconds)

    def acknowledge(self, positions: Sequence[int]) -> None:
        for position in positions:
            self._paths[position].unlink()

    async def close(self) -> None:
        """Nothing is open."""


def from_spool(folder: Path, seconds: float | None = 0.2) -> Flow[Message[bytes]]:
    """The content of each file that comes into a folder."""
    return from_feed(lambda: SpoolFeed(folder, seconds), label=str(folder))


if __name__ == "__main__":
    spool, rows = map(Path, sys.argv[1:])
    run(from_spool(spool), JsonSink(rows))
