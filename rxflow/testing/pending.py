"""The debts of a test: things it made that took no part, comparisons it never asserted.

Each `Marbles` has its own; `watched` has all that are made within it, for those that nobody closes.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
import weakref
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Final, NamedTuple, Self

from rxflow.errors import RxflowWarning

_HERE: Final = str(Path(__file__).parent) + os.sep


class Place(NamedTuple):
    """File and line of the test that called."""

    file: str
    line: int

    @classmethod
    def of_caller(cls) -> Self:
        """The innermost line that is not of this package."""
        frame = sys._getframe(1)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        while frame.f_back and frame.f_code.co_filename.startswith(_HERE):
            frame = frame.f_back
        return cls(frame.f_code.co_filename, frame.f_lineno)

    def __str__(self) -> str:
        path, folder = Path(self.file), Path.cwd()
        shown = path.relative_to(folder) if path.is_relative_to(folder) else path.name
        return f"{shown}:{self.line}"


class Debt:
    """One thing that is owed, until it is paid."""

    __slots__ = ("_among", "is_part", "said")

    def __init__(self, among: dict[Debt, None], said: Callable[[], str], *, is_part: bool) -> None:
        self._among = among
        self.said = said
        self.is_part = is_part
        among[self] = None

    def pay(self) -> None:
        """It is not owed any more. Safe to call more than once."""
        self._among.pop(self, None)


class Pending:
    """The list of debts, in their order. It must not refer to its `Marbles`."""

    def __init__(self) -> None:
        self._owed: dict[Debt, None] = {}
        if _watching:
            _watching[-1].append(self)

    def add(self, said: Callable[[], str], *, is_part: bool = False) -> Debt:
        """Something is owed.

        Args:
            said: What to say of it at the end of the test; empty if it is not owed after all.
            is_part: It is a source, a broker or a sink; anything else that is owed is said first.
        """
        return Debt(self._owed, said, is_part=is_part)

    def compared(self, text: str) -> None:
        """Two things were compared and differ: a test that goes on has asserted nothing."""
        place = Place.of_caller()
        self.add(lambda: f"not equal, and the test went on: write assert, or != [{place}]\n{text}")

    def clear(self) -> None:
        """The test has failed already."""
        self._owed.clear()

    def check(self) -> None:
        """Forget everything, and fail if anything was owed.

        Raises:
            AssertionError: It says what, and names the line of the test.
        """
        __tracebackhide__ = True
        owed = sorted(self._owed, key=lambda debt: debt.is_part)
        self.clear()
        for debt in owed:
            if text := debt.said():
                raise AssertionError(text)

    def warn(self) -> None:
        """As `check`, where nobody would see what is raised."""
        try:
            self.check()
        except AssertionError as error:
            warnings.warn(f"Marbles was never closed: {error}", RxflowWarning, stacklevel=2)


_watching: Final[list[list[Pending]]] = []


@contextlib.contextmanager
def watched() -> Generator[list[Pending]]:
    """All that is made within; whoever asked for it checks it."""
    made: list[Pending] = []
    _watching.append(made)
    try:
        yield made
    finally:
        _watching.remove(made)


def warn_at_the_end(of: object, pending: Pending) -> None:
    """Say what is owed when an object is gone, unless somebody watches."""
    if not _watching:
        weakref.finalize(of, pending.warn)
