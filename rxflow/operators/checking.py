"""The checks of operators' arguments; `@operator(...)` names one for each."""

# Those of `arguments` that fit an operator are had here too.
# ruff: noqa: PLC0414

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeAlias

from reactivex import abc
from reactivex.internal import is_future

from rxflow.arguments import at_least_one as at_least_one
from rxflow.arguments import check_range, is_observer, refuse
from rxflow.arguments import flag as flag
from rxflow.arguments import function as function
from rxflow.arguments import observable as observable
from rxflow.arguments import observer as observer
from rxflow.arguments import seconds as seconds
from rxflow.arguments import text as text
from rxflow.errors import ConfigError

Check: TypeAlias = Callable[[str, Any], object]

at_least_zero: Final = partial(check_range, least=0)
wait: Final = partial(seconds, is_zero_fine=True)
streaming: Final = partial(function, is_stream_fine=True)


def anything(name: str, value: object) -> None:
    """Refuse nothing: it is a value for the stream, and None is one."""


def whole(name: str, value: Any) -> None:
    """Refuse what is no whole number."""
    if not isinstance(value, int) or isinstance(value, bool):
        refuse(name, "a whole number", value)


def time(name: str, value: Any) -> None:
    """Refuse what is neither a duration nor a point in time."""
    if not isinstance(value, datetime):
        wait(name, value)
    elif value.tzinfo is None:
        refuse(name, "a datetime with its time zone, such as datetime.now(UTC)", value)


def stream(name: str, value: Any) -> None:
    """Refuse what is neither an observable nor a future."""
    if not is_future(value) and not isinstance(value, abc.ObservableBase):
        refuse(name, "an Observable or a future", value)


def stream_or_function(name: str, value: Any) -> None:
    """Refuse what is neither an observable nor a function."""
    if not isinstance(value, abc.ObservableBase):
        function(name, value, or_else=" or an Observable")


def stream_or_wait(name: str, value: Any) -> None:
    """Refuse what is neither an observable nor a duration."""
    if not isinstance(value, abc.ObservableBase):
        seconds(name, value)


def stream_or_iterable(name: str, value: Any) -> None:
    """Refuse what has no items."""
    if not isinstance(value, Iterable | abc.ObservableBase):
        refuse(name, "an Observable or an iterable", value)


def iterable(name: str, value: Any) -> None:
    """Refuse what can't be iterated over."""
    if not isinstance(value, Iterable):
        refuse(name, "an iterable", value)


def function_or_none(name: str, value: object) -> None:
    """Refuse what is neither a function nor None."""
    if value is not None:
        function(name, value, or_else=" or None")


def function_or_streamed(name: str, value: Any) -> None:
    """Refuse what neither makes a stream nor is what `flat_map` takes for one."""
    if callable(value):
        streaming(name, value)
    elif not isinstance(value, Iterable | abc.ObservableBase) and not is_future(value):
        refuse(name, "a function, an Observable, a future or an iterable", value)


def observer_or_function(name: str, value: Any) -> None:
    """Refuse what takes no items."""
    if not is_observer(value):
        function(name, value, or_else=" or an observer")


def scheduler(name: str, value: Any) -> None:
    """Refuse what is no scheduler."""
    if not isinstance(value, abc.SchedulerBase):
        refuse(name, "a scheduler", value)


def subject(name: str, value: Any) -> None:
    """Refuse what is no subject."""
    if not isinstance(value, abc.ObservableBase) or not is_observer(value):
        refuse(name, "a Subject", value)


CALLED: Final[frozenset[Check]] = frozenset(
    {
        function,
        streaming,
        function_or_none,
        function_or_streamed,
        observer_or_function,
        stream_or_function,
    }
)
"""Checks of what is, or may be, a function of the user's."""


def uncalled(operator: str) -> ConfigError:
    """Of an operator that was put into a pipeline as it is, without its parentheses."""
    return ConfigError(f"operators must be called: write ops.{operator}(...)")
