"""What every subject in Python shares: its task, the computed field, and how it says "done"."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Task:
    """What to do; the command line of a subject, in this order."""

    mode: str
    port: int
    qos: int
    count: int
    version: int
    path: str
    extra: int

    @classmethod
    def from_arguments(cls) -> Task:
        """The task of this process."""
        mode, port, qos, count, version, path, extra = sys.argv[1:]
        return cls(mode, int(port), int(qos), int(count), int(version), path, int(extra))


def fahrenheit(value: dict[str, Any]) -> dict[str, Any]:
    """The row of the whole job: what came, without its padding, and one computed field."""
    return {
        "n": value["n"],
        "sensor": value["sensor"],
        "celsius": value["celsius"],
        "fahrenheit": value["celsius"] * 1.8 + 32,
    }


def done(**figures: float) -> None:
    """Say that every message was dealt with, and when."""
    shown = " ".join(f"{name}={value}" for name, value in figures.items())
    print(f"done {time.monotonic():.6f} {shown}", flush=True)
