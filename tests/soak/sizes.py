"""How long the soaks are. `make soak` runs the whole; a number here makes it shorter.

    make soak RXFLOW_SOAK_KILLS=50 RXFLOW_SOAK_CUTS=50 RXFLOW_SOAK_HOURS=0.05 \\
        RXFLOW_SOAK_FAULT_SECONDS=8
"""

from __future__ import annotations

import os

import pytest

KILLS = int(os.environ.get("RXFLOW_SOAK_KILLS", "1000"))  # S1, for each QoS
CUTS = int(os.environ.get("RXFLOW_SOAK_CUTS", "2000"))  # S2, for each file system
CUTS_A_FILE = 25  # then a new one, for it grows
HOURS = float(os.environ.get("RXFLOW_SOAK_HOURS", "24"))  # S3
FAULT_SECONDS = float(os.environ.get("RXFLOW_SOAK_FAULT_SECONDS", "30"))  # S3, one fault in so many
RATE = 500.0  # S3, messages a second

only_in_soaks = pytest.mark.skipif(
    os.environ.get("RXFLOW_SOAK") != "1", reason="takes hours: make soak"
)
