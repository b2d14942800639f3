"""The parts of every operator of rxflow: a subscribe function, and a label that shows it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar, cast, overload

from reactivex import Observable, abc
from reactivex.disposable import Disposable
from reactivex.internal import noop
from reactivex.observer import AutoDetachObserver

from rxflow.message import Batch, Message

A = TypeVar("A")
B = TypeVar("B")
P = TypeVar("P")
T = TypeVar("T")
S = TypeVar("S", contravariant=True)  # noqa: PLC0105 (one letter, as in every generic here)
R = TypeVar("R", covariant=True)  # noqa: PLC0105

Same: TypeAlias = Callable[[Observable[T]], Observable[T]]

Subscribe: TypeAlias = Callable[
    [Observable[Any], abc.ObserverBase[Any], abc.SchedulerBase | None], abc.DisposableBase
]

_SHOWN: Final = 40


class Transform(Protocol[S, R]):
    """An operator, as `Flow.pipe` takes it anywhere but at the end of a pipeline.

    Typed by the items and not by the observables: so a lambda's argument is inferred from what the
    operator before it emits.
    """

    def __call__(self, source: Observable[S], /) -> Observable[R]: ...


class Made(Protocol[A, B]):  # pyright: ignore[reportInvalidTypeVarUse]  # invariant: `self` tells
    """The type of an operator that makes a B of each A; of messages, it makes messages.

    The messages first, and no type variable in the last: that is what lets pyright infer lambdas
    along a `Flow.pipe`.
    """

    @overload
    def __call__(
        self: Made[Message[Any], Message[P]], source: Observable[A], /
    ) -> Observable[Message[P]]: ...
    @overload
    def __call__(
        self: Made[Message[Any], P], source: Observable[A], /
    ) -> Observable[Message[P]]: ...
    @overload
    def __call__(
        self: Made[Batch[Any], Message[P]], source: Observable[A], /
    ) -> Observable[Message[P]]: ...
    @overload
    def __call__(self: Made[Batch[Any], P], source: Observable[A], /) -> Observable[Message[P]]: ...
    @overload
    def __call__(self: Made[Observable[Any], P], source: Observable[A], /) -> Observable[P]: ...
    @overload
    def __call__(self, source: Observable[A], /) -> Observable[Any]: ...


class _Unknown:
    """A type that nothing has but `Any`."""


class Reduced(Protocol[R]):
    """The type of an operator that makes one R of all items; of messages, it makes a message.

    Typed by the source alone: no function of the user's says what the items are. Where nobody
    knows, they are plain values, since a message is always known for one.
    """

    @overload
    def __call__(self, source: Observable[_Unknown], /) -> Observable[R]: ...
    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload]
        self, source: Observable[Message[Any]], /
    ) -> Observable[Message[R]]: ...
    @overload
    def __call__(self, source: Observable[Batch[Any]], /) -> Observable[Message[R]]: ...
    @overload
    def __call__(self, source: Observable[Any], /) -> Observable[R]: ...


class Operator(Generic[S, R]):
    """An operator as `pipe` takes it, that can say what it is.

    Attributes:
        label: Its name and arguments, for people: `buffer_with_time_or_count(1.0, 100)`.
        is_subscribing: True if it subscribes at once, on the thread that `Flow` chooses.
        is_single: True if no message can leave it twice, or in two results.
    """

    __slots__ = ("_apply", "is_single", "is_subscribing", "label")

    def __init__(
        self,
        label: str,
        apply: Callable[[S], R],
        *,
        is_single: bool = False,
        is_subscribing: bool = False,
    ) -> None:
        self.label = label
        self.is_single = is_single
        self.is_subscribing = is_subscribing
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


def direct(subscribe: Subscribe) -> Callable[[Observable[Any]], Observable[Any]]:
    """As `lifted`, for an operator that emits by `observer.on_next(...)`, looked up each time."""

    def subscribed(
        source: Observable[Any],
        observer: abc.ObserverBase[Any],
        scheduler: abc.SchedulerBase | None = None,
    ) -> abc.DisposableBase:
        emitter = _Emitter(observer)
        upstream = subscribe(source, cast("abc.ObserverBase[Any]", emitter), scheduler)

        def dispose() -> None:
            emitter.on_next = noop
            upstream.dispose()

        return Disposable(dispose)

    return lifted(subscribed)


class _Emitter:
    """An observer without the call in which reactivex looks whether it has ended already.

    reactivex puts an `AutoDetachObserver` around each observer. Here `on_next` is what that would
    pass on to, and nothing after an error or a dispose; after completion upstream emits nothing.
    """

    __slots__ = ("_observer", "on_completed", "on_next")

    def __init__(self, observer: abc.ObserverBase[Any]) -> None:
        self._observer = observer
        self.on_next = unwrapped(observer)
        self.on_completed = observer.on_completed

    def on_error(self, error: Exception) -> None:
        self.on_next = noop
        self._observer.on_error(error)


def unwrapped(observer: abc.ObserverBase[T]) -> Callable[[T], object]:
    """Its `on_next`, without the wrapper of reactivex, which passes on nothing after the end."""
    if isinstance(observer, AutoDetachObserver):
        return observer._on_next  # noqa: SLF001 (it wraps this)  # pyright: ignore[reportPrivateUsage]
    return observer.on_next


def name_of(operator: object) -> str:
    """Return the name of an operator; one of reactivex itself as `rx.map`.

    reactivex names neither its operators nor what makes them: it is found among what they enclose.
    """
    if isinstance(operator, Operator):
        return cast("Operator[Any, Any]", operator).label
    module = str(getattr(operator, "__module__", ""))
    name = str(getattr(operator, "__qualname__", type(operator).__name__))
    if not module.startswith("reactivex."):
        return name
    if not module.startswith("reactivex.internal."):
        return f"rx.{name.split('.', maxsplit=1)[0].rstrip('_')}"
    enclosed = [cell.cell_contents for cell in getattr(operator, "__closure__", None) or ()]
    parts = [each for some in enclosed for each in (some if type(some) is tuple else (some,))]
    makers = [str(each.__name__) for each in parts if _is_of_reactivex(each)]
    return f"rx.{makers[-1].rstrip('_')}" if makers else name


def _is_of_reactivex(value: object) -> bool:
    return callable(value) and str(getattr(value, "__module__", "")).startswith(
        "reactivex.operators."
    )


def shown(value: object) -> str:
    """An argument, as the label of its operator shows it."""
    if isinstance(value, str | bytes | int | float | None):
        text = repr(value)
    else:
        text = getattr(value, "label", None) or getattr(value, "__name__", type(value).__name__)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
