"""What the arguments of functions and classes must be, said while composing."""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeGuard

from rxflow.errors import ConfigError

_METHODS = ("on_next", "on_error", "on_completed")


def file_path(name: str, value: object) -> Path:
    """The path of a file, its `~` expanded; refuse what names none."""
    if not isinstance(value, str | os.PathLike):
        raise ConfigError(f"{name}={value!r}: must be a path, a str or a Path")
    given: Any = os.fspath(value)
    if not isinstance(given, str):
        raise ConfigError(f"{name}={value!r}: must be a path of text, not of bytes")
    if "\0" in given or given.endswith(os.sep) or Path(given).name in {"", ".."}:
        raise ConfigError(f"{name}={given!r}: does not name a file")
    expanded = os.path.expanduser(given)  # noqa: PTH111 (a Path takes ./~ for ~)
    if expanded.startswith("~"):
        text = f"{name}={given!r}: there is no such user; for a folder of that name write ./~"
        raise ConfigError(text)
    return Path(expanded)


def text(name: str, value: object, *, is_empty_fine: bool = False) -> None:
    """Refuse what is no text, or empty."""
    if not isinstance(value, str) or not (value or is_empty_fine):
        raise ConfigError(
            f"{name}={value!r}: must be a str{'' if is_empty_fine else ', not empty'}"
        )


def whole(name: str, value: object, least: int, most: int | None = None) -> None:
    """Refuse what is no whole number within these bounds; a bool is none."""
    if (
        not isinstance(value, int)
        or isinstance(value, bool)
        or value < least
        or (most is not None and value > most)
    ):
        bounds = f"at least {least:,}" if most is None else f"from {least:,} to {most:,}"
        raise ConfigError(f"{name}={value!r}: must be a whole number, {bounds}")


def is_number(value: object) -> TypeGuard[float]:
    """True of a number that is one: neither a bool, nor NaN, nor infinite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def more_than_0(name: str, value: object) -> None:
    """Refuse what is no number, or none above 0."""
    if not is_number(value) or value <= 0:
        raise ConfigError(f"{name}={value!r}: must be a number above 0")


def flag(name: str, value: object) -> None:
    """Refuse what is neither True nor False."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name}={value!r}: must be True or False")


def one_of(name: str, value: object, choices: Collection[object]) -> None:
    """Refuse what is none of these."""
    if value not in choices:
        shown = ", ".join(map(repr, choices))
        raise ConfigError(f"{name}={value!r}: must be one of {shown}")


def function(name: str, value: object) -> None:
    """Refuse what can't be called."""
    if not callable(value):
        raise ConfigError(f"{name}={value!r}: must be a function")


def observer(name: str, value: object) -> None:
    """Refuse what is neither None nor an observer."""
    is_one = all(callable(getattr(value, method, None)) for method in _METHODS)
    if value is not None and (isinstance(value, type) or not is_one):
        raise ConfigError(f"{name}={value!r}: must be an observer, such as a JsonLinesSink")
