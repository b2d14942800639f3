"""What every operator of rxflow is made of: a subscribe function, and a label that shows it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final, Generic, TypeAlias, TypeVar

from reactivex import Observable, abc

S = TypeVar("S", contravariant=True)  # noqa: PLC0105 (one letter, as in every generic here)
R = TypeVar("R", covariant=True)  # noqa: PLC0105

Subscribe: TypeAlias = Callable[
    [Observable[Any], abc.ObserverBase[Any], abc.SchedulerBase | None], abc.DisposableBase
]

_SHOWN: Final = 40


class Operator(Generic[S, R]):
    """An operator as `pipe` takes it, that can say what it is.

    Attributes:
        label: Its name and arguments, for people: `buffer_with_time_or_count(1.0, 100)`.
    """

    __slots__ = ("_apply", "label")

    def __init__(self, label: str, apply: Callable[[S], R]) -> None:
        self.label = label
        self._apply = apply

    def __call__(self, source: S, /) -> R:
        return self._apply(source)

    def __repr__(self) -> str:
        return self.label


def lifted(subscribe: Subscribe) -> Callable[[Observable[Any]], Observable[Any]]:
    """An operator from what happens when its result is subscribed to."""

    def apply(source: Observable[Any]) -> Observable[Any]:
        return Observable(functools.partial(subscribe, source))

    return apply


def labelled(name: str, make: Callable[..., Any]) -> Callable[..., Operator[Any, Any]]:
    """The same function, whose operators carry a label."""

    @functools.wraps(make)
    def named(*args: Any, **kwargs: Any) -> Operator[Any, Any]:
        shown = [_shown(value) for value in args]
        shown += [f"{key}={_shown(value)}" for key, value in kwargs.items()]
        return Operator(f"{name}({', '.join(shown)})", make(*args, **kwargs))

    named.__name__ = named.__qualname__ = name
    return named


def _shown(value: object) -> str:
    if isinstance(value, str | bytes | int | float | None):
        text = repr(value)
    else:
        text = getattr(value, "label", None) or getattr(value, "__name__", type(value).__name__)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
