"""A note of each thread that waits for a disk, and of the file, for the warnings of a stall.

A disk that hangs looks like anything else from outside: a loop that doesn't turn, messages that
nobody acknowledges. So whoever is about to warn of that looks here first.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

LASTS: Final = 3.0
"""Seconds of a commit after which it is said; less than those of a stall."""

PATIENCE: Final = 30.0
"""Seconds for which a loop waits for a disk at most, and a sink at its end."""

HANGS: Final = 300.0
"""Seconds of a commit after which its sink has failed."""

lasting: Final[dict[int, str]] = {}
"""The sinks, by the number that tokens know them by, whose commit was said to last; their files."""

_waiting: Final[dict[int, str]] = {}  # by thread


@contextmanager
def waiting_for(file: str) -> Generator[None]:
    """This thread waits for the disk of this file."""
    thread = threading.get_ident()
    _waiting[thread] = file
    try:
        yield
    finally:
        _waiting.pop(thread, None)


def awaited_on(thread: int) -> str | None:
    """The file whose disk this thread waits for, if it does."""
    return _waiting.get(thread)
