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

from rxflow.arguments import (
    at_least,
    at_least_one,
    flag,
    function,
    is_observer,
    observable,
    observer,
    refuse,
    seconds,
    text,
)
from rxflow.errors import ConfigError
from rxflow.operators.rejecting import noting

Check: TypeAlias = Callable[[str, Any], object]


def anything(name: str, value: object) -> None:
    """Refuse nothing: it is a value for the stream, and None is one."""


def _streaming(name: str, value: object) -> None:
    function(name, value, is_stream_fine=True)


def _function_or_streamed(name: str, value: Any) -> None:
    if callable(value):
        _streaming(name, value)
    elif not isinstance(value, Iterable | abc.ObservableBase) and not is_future(value):
        refuse(name, "a function, an Observable, a future or an iterable", value)


def _function_or_none(name: str, value: object) -> None:
    if value is not None:
        function(name, value, or_else=" or None")


def _at_least_zero(name: str, value: Any) -> None:
    at_least(0, name, value)


def _wait(name: str, value: Any) -> None:
    seconds(name, value, is_zero_fine=True)


def _time(name: str, value: Any) -> None:
    if not isinstance(value, datetime):
        _wait(name, value)
    elif value.tzinfo is None:
        refuse(name, "a datetime with its time zone, such as datetime.now(UTC)", value)


def _stream(name: str, value: Any) -> None:
    if not is_future(value) and not isinstance(value, abc.ObservableBase):
        refuse(name, "an Observable or a future", value)


def _stream_or_function(name: str, value: Any) -> None:
    if not isinstance(value, abc.ObservableBase):
        function(name, value, or_else=" or an Observable")


def _stream_or_wait(name: str, value: Any) -> None:
    if not isinstance(value, abc.ObservableBase):
        seconds(name, value)


def _stream_or_iterable(name: str, value: Any) -> None:
    if not isinstance(value, Iterable) and not isinstance(value, abc.ObservableBase):
        refuse(name, "an Observable or an iterable", value)


def _iterable(name: str, value: Any) -> None:
    if not isinstance(value, Iterable):
        refuse(name, "an iterable", value)


def _observer_or_function(name: str, value: Any) -> None:
    if not is_observer(value):
        function(name, value, or_else=" or an observer")


def _scheduler(name: str, value: Any) -> None:
    if not isinstance(value, abc.SchedulerBase):
        refuse(name, "a scheduler", value)


def _subject(name: str, value: Any) -> None:
    if not isinstance(value, abc.ObservableBase) or not is_observer(value):
        refuse(name, "a Subject", value)


def _whole(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        refuse(name, "a whole number", value)


def _name(name: str, value: Any) -> None:
    text(name, value)


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
        "right_duration_mapper",
        "subject_factory",
        "subject_mapper",
        "throttle_duration_mapper",
        "timeout_duration_mapper",
    ),
    _streaming: ("project",),
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
    flag: ("exact_integers", "has_default", "inclusive"),
}

_CHECKS: Final = {name: check for check, names in _BY_NAME.items() for name in names}

_OWN: Final[dict[str, dict[str, Check]]] = {
    "buffer_with_count": {"count": at_least_one, "skip": at_least_one},
    "buffer_with_time_or_count": {"count": at_least_one},
    "debounce": {"duetime": _wait},
    "do": {"on_next": _observer_or_function},
    "expand": {"mapper": _streaming},
    "flat_map": {"mapper": _function_or_streamed},
    "flat_map_indexed": {"mapper_indexed": _function_or_streamed},
    "flat_map_latest": {"mapper": _streaming},
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
    _streaming,
    _function_or_none,
    _function_or_streamed,
    _observer_or_function,
    _stream_or_function,
}
_NAMES_ITSELF: Final = {"filter", "map"}


def uncalled(operator: str) -> ConfigError:
    """Of an operator that was put into a pipeline as it is, without its parentheses."""
    return ConfigError(f"operators must be called: write ops.{operator}(...)")


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
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{operator}(): {error}{_hint(operator, args)}") from None
        for name, value in bound.arguments.items():
            parameter = signature.parameters[name]
            if parameter.kind is parameter.VAR_POSITIONAL:
                for each in value:
                    checks[name](name, each)
            elif value is not parameter.default:
                try:
                    checks[name](name, value)
                except ConfigError as error:
                    raise ConfigError(f"{error}{_hint(operator, args)}") from None
                if checks[name] in _CALLED and callable(value) and operator not in _NAMES_ITSELF:
                    bound.arguments[name] = noting(value)
        return make(*bound.args, **bound.kwargs)

    return made


def _hint(operator: str, args: tuple[Any, ...]) -> str:
    """What is to be added where an operator stands in a pipeline without its parentheses."""
    is_source = len(args) == 1 and isinstance(args[0], abc.ObservableBase)
    return f". In a pipeline write ops.{operator}(...), with parentheses" if is_source else ""
