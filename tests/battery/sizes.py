"""How much of the battery is run: a little in `make test`, all of it in `make crash`."""

from __future__ import annotations

import os
from typing import TypeVar

import pytest

T = TypeVar("T")

FULL = os.environ.get("RXFLOW_CRASH") == "1"


def _size(small: T, full: T) -> T:
    return full if FULL else small


KILLS = _size(10, 60)  # C5, C6
CUTS = _size(3, 100)  # C3
CONTROL_KILLS = _size(3, 20)  # until the first loss
NETWORK_FAULTS = _size(2, 15)  # C7
KEEP_ALIVE = _size(1, 4)  # C7, C15, seconds
BLACK_HOLE = _size(2.5, 9.0)  # C7, seconds: longer than 1.5 keep-alives
BROKER_RESTARTS = _size(2, 8)  # C8
DISK_FULL = _size(2, 12)  # C10, times
OVERLOAD_SECONDS = _size(0.8, 20.0)  # C11
STOPS = _size(1, 10)  # C16, of SIGTERM and SIGINT each
EXAMPLES = _size(150, 3_000)  # C19
STEPS = _size(30, 50)  # C19
PIPELINES = _size(250, 50_000)  # at the end nothing is lost; 250 a test
FUZZ_EXAMPLES = _size(150, 5_000)
CONFORMANCE_SEEDS = _size(6, 1_000)  # of brokers that keep to the letter, on each version
MANY = _size(25_000, 1_000_000)  # messages of QoS 1 through a slow sink
ROW_SECONDS = _size(0.00004, 0.0001)  # of that sink, a tenth of rxflow's own rate

# How long the tests wait for what must come. Not a measure: nothing passes by being quick.
PATIENCE = 30.0

only_in_full = pytest.mark.skipif(not FULL, reason="takes its time: make crash")
