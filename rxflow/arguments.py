"""Checks of arguments: each function refuses a wrong value while composing.

Every refusal is a `ConfigError` of one form, made here: `qos must be 0, 1 or 2, not 3`.
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Collection
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NoReturn, TypeGuard, cast

from reactivex import abc, typing

from rxflow.errors import ConfigError

LONGEST: Final = 1_000_000_000
"""Seconds that a setting may last, some thirty years: a timer takes no more."""

_METHODS: Final = ("on_next", "on_error", "on_completed")
_SHOWN: Final = 80


def wrong(name: str, rule: str) -> ConfigError:
    """A refusal that shows no value, since it is secret, or right by itself: `name must rule`."""
    return ConfigError(f"{name} must {rule}")


def refuse(name: str, right: str, value: object) -> NoReturn:
    """Refuse a value, which is shown.

    Raises:
        ConfigError: `name must be right, not value`.
    """
    raise wrong(name, f"be {right}, not {shown(value)}")


def shown(value: object) -> str:
    """A value of the user's, short and on one line, whatever its `repr` does."""
    try:
        if inspect.isroutine(value):
            return f"{value.__module__}.{value.__qualname__}"
        text = repr(value[:_SHOWN] if isinstance(value, str | bytes) else value)
    except Exception:  # noqa: BLE001 (of a class of the user's)
        text = f"a {type(value).__name__}"
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def secret(name: str, value: object, *, or_else: str = "", is_none_fine: bool = True) -> None:
    """Refuse what is no text, and show nothing of it."""
    if not isinstance(value, str) and not (value is None and is_none_fine):
        raise wrong(name, f"be a str{or_else}, not {type(value).__name__}")


def text(name: str, value: object, *, is_empty_fine: bool = False) -> None:
    """Refuse what is no text, or empty."""
    if not isinstance(value, str) or not (value or is_empty_fine):
        refuse(name, "a str" if is_empty_fine else "a str that is not empty", value)


def path(name: str, value: object) -> None:
    """Refuse what can't be the path of a file."""
    given: Any = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(given, str) or not given or "\0" in given:
        refuse(name, "a str or a Path", value)


def file_path(name: str, value: object) -> Path:
    """The path of a file, its `~` expanded; refuse what names none."""
    path(name, value)
    given = os.fspath(cast("str | os.PathLike[str]", value))
    if given.endswith(os.sep) or Path(given).name in {"", ".."}:
        refuse(name, "the path of a file", value)
    expanded = os.path.expanduser(given)  # noqa: PTH111 (a Path takes ./~ for ~)
    if expanded.startswith("~"):
        right = "the path of a file; there is no such user (for a folder of that name write ./~)"
        refuse(name, right, value)
    return Path(expanded)


def one_of(name: str, value: object, choices: Collection[object]) -> None:
    """Refuse what is none of these, by type and value: True is not 1."""
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        *others, last = map(repr, choices)
        refuse(name, f"{', '.join(others)} or {last}" if others else last, value)


def qos(name: str, value: object) -> None:
    """Refuse what is no quality of service."""
    if not isinstance(value, int) or isinstance(value, bool) or value not in range(3):
        refuse(name, "0, 1 or 2", value)


def flag(name: str, value: object) -> None:
    """Refuse what is neither True nor False."""
    if not isinstance(value, bool):
        refuse(name, "True or False", value)


def is_number(value: object) -> TypeGuard[float]:
    """True of a number that is one: neither a bool, nor NaN, nor infinite."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return isinstance(value, int) or math.isfinite(value)


def more_than_0(name: str, value: object) -> None:
    """Refuse what is no number, or none above 0."""
    if not is_number(value) or value <= 0:
        refuse(name, "a number above 0", value)


def check_range(name: str, value: object, least: float, most: float | None = None) -> None:
    """Refuse a number out of bounds, or what is none; between whole bounds, one that is not whole.

    Args:
        name: Of the argument.
        value: What was given.
        least: The lower bound.
        most: The upper bound; None: there is none.
    """
    is_whole = isinstance(least, int) and isinstance(most, int | None)
    given: Any = value
    if (
        is_number(value)
        and (isinstance(value, int) or not is_whole)
        and given >= least
        and (most is None or given <= most)
    ):
        return
    bounds = f"{least:,} or more" if most is None else f"from {least:,} to {most:,}"
    refuse(name, f"{'a whole number' if is_whole else 'a number'}, {bounds}", value)


def at_least_one(name: str, value: object) -> None:
    """Refuse what is no whole number from 1 on."""
    check_range(name, value, 1)


def wait(
    name: str, value: Any, *, least: float = 0, is_zero_fine: bool = True, is_none_fine: bool = True
) -> None:
    """Refuse what is no number of seconds that a timer can take, or too small a one."""
    given: object = value
    if given is None and is_none_fine:
        return
    is_fine = is_number(given) and least <= given <= LONGEST
    if not is_fine or not (value or is_zero_fine):
        low = "above 0" if not is_zero_fine else f"from {least:g}"
        ending = ", or None" if is_none_fine else ""
        refuse(name, f"a number of seconds {low} to {LONGEST:,}{ending}", value)


def seconds(name: str, value: typing.RelativeTime, *, is_zero_fine: bool = False) -> timedelta:
    """A duration in seconds; refuse what is negative, not finite, or no number at all."""
    given: Any = value
    number = given.total_seconds() if isinstance(given, timedelta) else given
    if not is_number(number) or number < 0 or not (number or is_zero_fine):
        least = "0 or more" if is_zero_fine else "more than 0"
        refuse(name, f"a number of seconds, {least}", given)
    try:
        return timedelta(seconds=number)
    except OverflowError as error:
        most = int(timedelta.max.total_seconds())
        raise wrong(name, f"be at most {most:,} seconds, not {shown(given)}") from error


def function(name: str, value: object, *, or_else: str = "", is_stream_fine: bool = False) -> None:
    """Refuse what can't be called, or is a coroutine function: nobody would await what it makes.

    Args:
        name: Of the argument.
        value: What was given.
        or_else: What is right as well, for the text.
        is_stream_fine: A generator function is right: what it makes is iterated over.
    """
    if not callable(value):
        refuse(name, f"a function{or_else}", value)
    if isinstance(value, type) and hasattr(value, "on_next"):
        refuse(name, f"a function{or_else}: make one, {value.__name__}(...)", value)
    if _is_made_by(inspect.iscoroutinefunction, value):
        raise wrong(
            name,
            f"be a plain function{or_else}, not the coroutine function {shown(value)}: nothing "
            "would await it. In a pipeline, "
            "flat_map(lambda item: asyncio.ensure_future(function(item))) does",
        )
    if _is_made_by(inspect.isasyncgenfunction, value) or (
        not is_stream_fine and _is_made_by(inspect.isgeneratorfunction, value)
    ):
        raise wrong(
            name,
            f"be a plain function{or_else}, not the generator function {shown(value)}: nothing "
            "would run it. In a pipeline, "
            "flat_map emits each item of a list that a function returns",
        )


def _is_made_by(test: Any, value: Any) -> bool:
    """Whether this, or the `__call__` of this object, is a function of such a kind."""
    return test(value) or (not isinstance(value, type) and test(getattr(value, "__call__", None)))  # noqa: B004


def observer(name: str, value: object) -> None:
    """Refuse what is neither None nor an observer."""
    if value is not None and not is_observer(value):
        right = "an observer, such as a JsonLinesSink"
        if isinstance(value, type) and hasattr(value, "on_next"):
            right = f"an observer: make one, {value.__name__}(...)"
        refuse(name, right, value)


def is_observer(value: object) -> bool:
    """True of an instance that has the methods of an observer."""
    return not isinstance(value, type) and all(
        callable(getattr(value, method, None)) for method in _METHODS
    )


def observable(name: str, value: object) -> None:
    """Refuse what is no observable."""
    if not isinstance(value, abc.ObservableBase):
        refuse(name, "an Observable", value)


def operator(name: str, value: object) -> None:
    """Refuse what can't be one of those of `pipe`."""
    if is_observer(value) or (isinstance(value, type) and hasattr(value, "on_next")):
        advice = "A pipeline ends by run(observable, sink) or subscribe(sink)"
        raise wrong(name, f"be functions, not the sink {shown(value)}. {advice}")
    if isinstance(value, abc.ObservableBase) or not callable(value):
        refuse(name, "functions, such as ops.map(function)", value)
