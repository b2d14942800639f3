"""Durations as diagrams write them, and the integer nanoseconds they are inside."""

from __future__ import annotations

import re
from typing import Final

from rxflow.errors import ConfigError

MICROSECOND: Final = 1_000
SECOND: Final = 1_000_000_000

PATTERN: Final = r"(?P<number>[0-9]+(?:\.[0-9]+)?)(?P<unit>us|ms|s|m|h)"

_UNITS: Final = {
    "us": MICROSECOND,
    "ms": 1_000_000,
    "s": SECOND,
    "m": 60 * SECOND,
    "h": 3600 * SECOND,
}
_DURATION: Final = re.compile(PATTERN)
_LONGEST: Final = 1_000_000 * _UNITS["h"]  # a century; a scheduler's calendar ends in the year 9999


class DiagramError(ConfigError):
    """A marble diagram, or what belongs to it, is wrong; the text points at the character."""


def from_parts(number: str, unit: str) -> int:
    """Nanoseconds of a number and its unit.

    Raises:
        DiagramError: It is finer than a microsecond, which a scheduler would round.
    """
    whole, _, fraction = number.partition(".")
    scale = 10 ** len(fraction)
    scaled = int(whole + fraction) * _UNITS[unit]
    if scaled % (scale * MICROSECOND):
        raise DiagramError(f"{number}{unit} is finer than 1us")
    if scaled > scale * _LONGEST:
        raise DiagramError(f"{number}{unit} is longer than a century")
    return scaled // scale


def nanoseconds(text: str | int, name: str = "duration") -> int:
    """Parse `"10ms"` to nanoseconds; an int is returned as it is.

    Args:
        text: The duration.
        name: What it is called in an error.

    Raises:
        DiagramError: It is no duration, or finer than a microsecond.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        if text < 0:
            raise DiagramError(f"{name} must be 0 or more nanoseconds, not {text}")
        if text % MICROSECOND:
            raise DiagramError(f"{name} must be whole microseconds, not {text}ns")
        return text
    given: object = text
    match = _DURATION.fullmatch(given.strip()) if isinstance(given, str) else None
    if match is None:
        raise DiagramError(f"{name} must be a duration, such as '10ms' or '1.5s', not {text!r}")
    return from_parts(match["number"], match["unit"])


def written(time: int) -> str:
    """Nanoseconds as a diagram writes them: `90s`, `1.5s`, `20ms`, `1h`; exact."""
    for unit in ("h", "m", "s", "ms", "us"):
        length = _UNITS[unit]
        if time and time % length == 0:
            return f"{time // length}{unit}"
        if time >= length and unit in {"s", "ms"}:
            whole, rest = divmod(time, length)
            digits = str(rest).rjust(len(str(length)) - 1, "0").rstrip("0")
            return f"{whole}.{digits}{unit}"
    return "0s"
