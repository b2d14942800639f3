"""Rows sent to a database by a coroutine: a statement, then COMMIT, and its answer is awaited.

python remote_sink.py URL PORT
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from rxflow import Batch, DurableSink, from_mqtt, run
from rxflow import operators as ops


class Database:
    """A connection to a server that answers `COPY n`, a JSON row a line, by `COMMIT n`."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def insert(self, batch: Batch[Any]) -> None:
        """Insert all of these in one transaction; connect again, and try twice, if it is gone."""
        for is_last in (False, False, True):
            try:
                await self._insert(batch)
            except OSError:
                self._streams = None
                if is_last:
                    raise
                await asyncio.sleep(1)
            else:
                return

    async def _insert(self, batch: Batch[Any]) -> None:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        rows = "".join(f"{json.dumps(message.payload)}\n" for message in batch)
        writer.write(f"COPY {len(batch)}\n{rows}".encode())
        await writer.drain()
        if await reader.readline() != b"COMMIT %d\n" % len(batch):
            raise ConnectionError("the server is gone, or has rolled back")


if __name__ == "__main__":
    url, port = sys.argv[1:]
    source = from_mqtt(url, "numbers", client_id="outside").pipe(ops.decode_json())
    run(source, DurableSink(Database(int(port)).insert))
