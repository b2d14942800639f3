"""How much memory this process has."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

_STATM = Path("/proc/self/statm")


def grown_by(act: Callable[[], object]) -> int:
    """By how many bytes of RAM the process grows while `act` runs."""
    if not _STATM.exists():
        pytest.skip("needs /proc")
    before = _resident()
    act()
    return _resident() - before


def _resident() -> int:
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
