"""One table of what each argument of an operator must be; it is said while composing.

By name, since a name means the same in every operator of reactivex, save the few that `_OWN` lists.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final, TypeAlias

from reactivex import abc
from reactivex.internal import is_future

from rxflow.errors import ConfigError
from rxflow.operators.arguments import (
    at_least,
    at_least_one,
    function,
    observable,
    observer,
    seconds,
)
from rxflow.operators.setting_aside import noting

Check: TypeAlias = Callable[[str, Any], object]


def anything(name: str, value: object) -> None:
    """Refuse nothing: it is a value for the stream, and None is one."""


def _function_or_streamed(name: str, value: Any) -> None:
    if not callable(value) and not isinstance(value, Iterable):
        _stream(name, value)


def _function_or_none(name: str, value: object) -> None:
    if value is not None:
        function(name, value)


def _at_least_zero(name: str, value: Any) -> None:
    at_least(0, name, value)


def _wait(name: str, value: Any) -> None:
    seconds(name, value, is_zero_fine=True)


def _time(name: str, value: Any) -> None:
    if not isinstance(value, datetime):
        _wait(name, value)
    elif value.tzinfo is None:
        raise ConfigError(f"{name}={value!r}: must say its time zone, as datetime.now(UTC) does")


def _stream(name: str, value: Any) -> None:
    if not is_future(value):
        observable(name, value)


def _stream_or_function(name: str, value: Any) -> None:
    if not callable(value):
        observable(name, value)


def _stream_or_wait(name: str, value: Any) -> None:
    if not isinstance(value, abc.ObservableBase):
        seconds(name, value)


def _stream_or_iterable(name: str, value: Any) -> None:
    if not isinstance(value, Iterable):
        observable(name, value)


def _iterable(name: str, value: Any) -> None:
    if not isinstance(value, Iterable):
        raise ConfigError(f"{name}={value!r}: must be something to iterate over")


def _observer_or_function(name: str, value: Any) -> None:
    if not callable(value):
        observer(name, value)


def _scheduler(name: str, value: Any) -> None:
    if not isinstance(value, abc.SchedulerBase):
        raise ConfigError(f"{name}={value!r}: must be a scheduler")


def _subject(name: str, value: Any) -> None:
    observable(name, value)
    observer(name, value)


def _kind(kind: type, text: str) -> Check:
    def check(name: str, value: Any) -> None:
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ConfigError(f"{name}={value!r}: must be {text}")

    return check


_whole: Final = _kind(int, "a whole number")
_name: Final = _kind(str, "a name")
_truth: Final = _kind(bool, "True or False")

_BY_NAME: Final[dict[Check, tuple[str, ...]]] = {
    anything: ("default_value", "initial_value", "key", "seed", "value"),
    function: (
        "accumulator",
        "action",
        "closing_mapper",
        "comparer",
        "condition",
        "delay_duration_mapper",
        "duration_mapper",
        "element_mapper",
        "future_ctor",
        "key_mapper",
        "left_duration_mapper",
        "mapper",
        "mapper_indexed",
        "on_completed",
        "on_error",
        "on_next",
        "predicate",
        "predicate_indexed",
        "project",
        "right_duration_mapper",
        "subject_factory",
        "subject_mapper",
        "throttle_duration_mapper",
        "timeout_duration_mapper",
    ),
    at_least_one: ("max_concurrent", "max_payload_bytes", "step"),
    _at_least_zero: ("buffer_size", "count", "index", "repeat_count", "retry_count", "skip"),
    _whole: ("start", "stop"),
    seconds: ("timespan", "window_duration"),
    _wait: ("duration", "timeshift", "window"),
    _time: ("duetime", "end_time", "start_time"),
    _stream: ("args", "other", "others", "right_source", "second"),
    observable: ("boundaries", "first_timeout", "openings", "right", "sources"),
    _stream_or_function: ("handler", "subscription_delay"),
    _stream_or_wait: ("sampler",),
    _scheduler: ("scheduler",),
    _subject: ("subject",),
    observer: ("rejected",),
    _name: ("prop",),
    _truth: ("exact_integers", "has_default", "inclusive"),
}

_CHECKS: Final = {name: check for check, names in _BY_NAME.items() for name in names}

_OWN: Final[dict[str, dict[str, Check]]] = {
    "buffer_with_count": {"count": at_least_one, "skip": at_least_one},
    "buffer_with_time_or_count": {"count": at_least_one},
    "debounce": {"duetime": _wait},
    "do": {"on_next": _observer_or_function},
    "flat_map": {"mapper": _function_or_streamed},
    "flat_map_indexed": {"mapper_indexed": _function_or_streamed},
    "group_by_until": {"element_mapper": _function_or_none},
    "sequence_equal": {"second": _stream_or_iterable},
    "start_with": {"args": anything},
    "throttle_with_timeout": {"duetime": _wait},
    "window_with_count": {"count": at_least_one, "skip": at_least_one},
    "window_with_time_or_count": {"count": at_least_one},
    "zip_with_iterable": {"second": _iterable},
    "zip_with_list": {"second": _iterable},
}

_CALLED: Final = {
    function,
    _function_or_none,
    _function_or_streamed,
    _observer_or_function,
    _stream_or_function,
}
_NAMES_ITSELF: Final = {"filter", "map"}


def check_of(operator: str, parameter: str) -> Check:
    """What an argument is checked by; a KeyError for one that the tables don't know."""
    return _OWN.get(operator, {}).get(parameter) or _CHECKS[parameter]


def checked(operator: str, make: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, which refuses bad arguments, and whose errors name the topic.

    The error that a function of the user's raises over a message goes where reactivex sends it,
    with the message's topic added as a note.
    """
    signature = inspect.signature(make)
    checks = {name: check_of(operator, name) for name in signature.parameters}

    @functools.wraps(make)
    def made(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            parameter = signature.parameters[name]
            if parameter.kind is parameter.VAR_POSITIONAL:
                for each in value:
                    checks[name](name, each)
            elif value is not parameter.default:
                checks[name](name, value)
                if checks[name] in _CALLED and callable(value) and operator not in _NAMES_ITSELF:
                    bound.arguments[name] = noting(value)
        return make(*bound.args, **bound.kwargs)

    return made
