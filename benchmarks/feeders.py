"""What the feeder is to send, and the program that sends it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent


@dataclass(frozen=True)
class Feed:
    """What the feeder sends.

    Attributes:
        qos: 0, 1 or 2.
        count: Messages, of all clients together.
        window: Most messages in flight for each client at QoS 1 and 2; with 1 it times each.
        size: Bytes of a payload, 20 or more.
        topics: Among how many topics the messages take turns.
        properties: User properties of each message under MQTT 5, up to 3.
        clients: Connections to wait for.
        version: 4 for MQTT 3.1.1 or 5: what the subject is to speak.
    """

    qos: int = 1
    count: int = 400_000
    window: int = 5_000
    size: int = 100
    topics: int = 1
    properties: int = 0
    clients: int = 1
    version: int = 4


class Feeders:
    """The feeder: of C where a compiler is, made at the first use, else of Python.

    Args:
        folder: Where to keep what is compiled.
        in_python: True for that of Python in any case.
    """

    def __init__(self, folder: Path, *, in_python: bool = False) -> None:
        compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
        self.kind = "Python"
        self._program = [sys.executable, str(HERE / "feeder.py")]
        if compiler and sys.platform == "linux" and not in_python:
            program, source = folder / "feeder", HERE / "feeder.c"
            if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
                subprocess.run([compiler, "-O2", "-o", program, source], check=True)
            self.kind, self._program = "C", [str(program)]

    def command(self, feed: Feed, port: int = 0) -> list[str]:
        """Its command line; with a port it publishes to the broker there."""
        words = [f"{name}={value}" for name, value in vars(feed).items() if name != "version"]
        return [*self._program, *words, *([f"port={port}"] if port else [])]
