"""Refuses a Python without the global interpreter lock; imported before anything else.

What is acknowledged is known by reference counts and by appends that nothing interrupts, and none
of that was tried with threads that run at once.
"""

from __future__ import annotations

import sys


def check() -> None:
    """Refuse a free-threaded Python whose lock is off.

    Raises:
        ImportError: It is off.
    """
    is_enabled = getattr(sys, "_is_gil_enabled", None)  # from CPython 3.13 on
    if is_enabled is not None and not is_enabled():
        raise ImportError(
            "rxflow does not run without the global interpreter lock yet: use a Python that has "
            "it, or start this one with PYTHON_GIL=1"
        )


check()
