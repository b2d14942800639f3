"""The log of rxflow: the home of loguru.

A library is silent: `import rxflow` disables its log. `run`, `run_async` and the command line are
the program, and enable it. Without them, what a user must know is an `RxflowWarning`.
"""

from __future__ import annotations

import contextlib
import sys
import time
import warnings
from typing import Final

from loguru import logger

from rxflow import arguments
from rxflow.errors import RxflowWarning

__all__ = [
    "PerSecond",
    "announce",
    "escaped",
    "log_to_terminal",
    "logger",
    "printable",
    "tell",
]

_SHOWN: Final = 200


def printable(text: object) -> str:
    """A text from outside, safe for one line of a log: escaped and cut to 200 characters."""
    shown = _words(text)
    return escaped(shown[:_SHOWN]) + "…" * (len(shown) > _SHOWN)


def escaped(text: object) -> str:
    """The whole text on one line: an error, whose last words say what to do, or a path."""
    shown = _words(text)
    if shown.isprintable():
        return shown
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)


def number_of(count: int, noun: str) -> str:
    """A number with its noun: `1 row`, `2 rows`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _words(text: object) -> str:
    """Return a text, or the text of an error, also where its `__str__` raises."""
    try:
        return str(text)
    except Exception:  # noqa: BLE001 (it must not hide what is being told)
        return f"a {type(text).__name__} without words"


def tell(text: str, *, is_program: bool, depth: int = 0) -> None:
    """Say what the user must know: in the log of a program, else as a warning.

    Args:
        text: One line.
        is_program: Whether it goes to the log.
        depth: Whose line it is: 0 of the caller, 1 of who called that, and so on.
    """
    if is_program:
        logger.opt(depth=depth + 1).warning("{}", text)
    else:
        warnings.warn(text, RxflowWarning, stacklevel=depth + 3)


def announce(text: str, *, is_program: bool, depth: int = 0) -> None:
    """As `tell`, from a callback: a warning that was made an error must not end a connection."""
    with contextlib.suppress(RxflowWarning):
        tell(text, is_program=is_program, depth=depth + 1)


class PerSecond:
    """One log line for each event up to ten a second, above that one summary line a second.

    A second in which a single event is left for the summary logs that event instead.

    Args:
        summary: A loguru format with `{events}`, `{total}` and `{seconds}`.
        level: Of the lines and of the summary.

    Raises:
        ConfigError: The level is none, or an argument no text.
    """

    AT_MOST = 10

    def __init__(self, summary: str, *, level: str = "INFO") -> None:
        arguments.text("summary", summary, is_empty_fine=True)
        arguments.text("level", level)
        try:
            logger.level(level)
        except ValueError as error:
            raise arguments.wrong("level", f"be one of the log: {error}") from error
        self._summary = summary
        self._level = level
        self._since = 0.0
        self._seen = 0  # events of this second
        self._is_busy = False  # the last second had too many to log each
        self._events = self._total = 0  # not logged yet
        self._latest: tuple[str, tuple[object, ...]] = ("", ())  # of these

    def add(self, line: str, *values: object, count: int = 1) -> None:
        """Log `line` with its values, or count it into the summary.

        Args:
            line: A loguru format.
            values: What fills it.
            count: What the event adds to the summary's total.
        """
        now = time.monotonic()
        if now - self._since >= 1.0:
            self._summarise(depth=2)
            self._is_busy = self._seen > self.AT_MOST and now - self._since < 2.0  # noqa: PLR2004
            self._since, self._seen = now, 0
        self._seen += 1
        if self._is_busy or self._seen > self.AT_MOST:
            self._events += 1
            self._total += count
            self._latest = line, values
        else:
            logger.opt(depth=1).log(self._level, line, *values)

    def flush(self) -> None:
        """Log the summary of what is not logged yet, if anything."""
        self._summarise(depth=2)

    def _summarise(self, depth: int) -> None:
        log = logger.opt(depth=depth).log
        if self._events == 1:
            line, values = self._latest
            log(self._level, line, *values)
        elif self._events:
            seconds = round(time.monotonic() - self._since, 1)
            log(
                self._level,
                self._summary,
                events=self._events,
                total=self._total,
                seconds=seconds,
            )
        self._events = self._total = 0
        self._latest = ("", ())


def log_to_terminal() -> None:
    """Log to standard error: time, level, place and message; never the value of a variable."""
    logger.remove()
    logger.add(
        sys.stderr,
        format=(
            "<dim>{time:HH:mm:ss.SSS}</dim> | <level>{level: <7}</level> | "
            "<cyan>{name}</cyan> | {message}"
        ),
        backtrace=False,
        diagnose=False,
    )
