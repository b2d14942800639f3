"""Ends of a run that come when something has happened, not when some time is over."""

from __future__ import annotations

import itertools
import os
import signal
from typing import Any

from rxflow import operators as ops


def stop(*_: object) -> None:
    """Tell the `run` of this process to end, as Ctrl-C does."""
    os.kill(os.getpid(), signal.SIGINT)


def stop_after(count: int) -> Any:
    """Pass items on; the last of so many tells the run to end."""
    seen = itertools.count(1)
    return ops.do_action(lambda _: next(seen) == count and stop())
