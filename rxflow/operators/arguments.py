"""What the arguments of an operator must be, said while composing."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

from reactivex import abc, typing

from rxflow.errors import ConfigError


def at_least_one(name: str, value: int) -> None:
    """Refuse what is no whole number from 1 on."""
    at_least(1, name, value)


def at_least(least: int, name: str, value: object) -> None:
    """Refuse what is no whole number, or too small a one."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name}={value!r}: must be a whole number, at least {least}")


def seconds(name: str, value: typing.RelativeTime, *, is_zero_fine: bool = False) -> timedelta:
    """A duration in seconds; refuse what is negative, not finite, or no number at all."""
    given: Any = value
    number = given.total_seconds() if isinstance(given, timedelta) else given
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    if not is_number or not math.isfinite(number) or number < 0 or not (number or is_zero_fine):
        least = "at least 0" if is_zero_fine else "more than 0"
        raise ConfigError(f"{name}={given!r}: must be seconds, {least}")
    try:
        return timedelta(seconds=number)
    except OverflowError as error:
        raise ConfigError(f"{name}={given!r}: is more seconds than there are") from error


def function(name: str, value: object) -> None:
    """Refuse what can't be called."""
    if not callable(value):
        raise ConfigError(f"{name}={value!r}: must be a function")


def observer(name: str, value: object) -> None:
    """Refuse what is neither None nor an observer."""
    if value is not None and not callable(getattr(value, "on_next", None)):
        raise ConfigError(f"{name}={value!r}: must be an observer, such as a JsonLinesSink")


def observable(name: str, value: object) -> None:
    """Refuse what is no observable."""
    if not isinstance(value, abc.ObservableBase):
        raise ConfigError(f"{name}={value!r}: must be an Observable or a future")
