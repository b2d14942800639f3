"""The declaration of an operator: its changes to reactivex's, and the checks of its arguments.

All that is to be known of an operator stands at its definition, in `@operator(...)`. Changes are
applied in the order of `Layer`, whatever the order that they are named in.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from enum import IntEnum
from operator import attrgetter
from typing import Any, TypeAlias, TypeVar, cast

from reactivex import Observable, abc

from rxflow.errors import ConfigError
from rxflow.operators import checking
from rxflow.operators.operator import Operator, lifted, shown
from rxflow.operators.rejecting import noting
from rxflow.scope import scope_of, within

F = TypeVar("F", bound=Callable[..., Any])

Make: TypeAlias = Callable[..., Any]
"""A function that makes an operator."""


class Layer(IntEnum):
    """The subject of a change; the first is nearest to the operator of reactivex."""

    COMPARING = 0
    """Items are compared, and keys made, by their payloads."""
    OPENING = 1
    """A message whose payload is a stream is that stream."""
    STATE = 2
    """Remembered items have no delivery."""
    RESULT = 3
    """The emitted items, and whether the operator keeps them."""
    END = 4
    """Its behaviour when a time limit ends it, or when it is disposed."""
    BEGINNING = 5
    """When it subscribes to its source."""
    SHARING = 6
    """The scope that it belongs to."""


class Change:
    """A change that makes an operator of reactivex safe for messages."""

    __slots__ = ("_apply", "layer")

    def __init__(self, layer: Layer, apply: Callable[[Make], Make]) -> None:
        self.layer = layer
        self._apply = apply

    def __call__(self, make: Make) -> Make:
        """The same operator, changed."""
        return functools.wraps(make)(self._apply(make))


def change(layer: Layer) -> Callable[[Callable[[Make], Make]], Change]:
    """Declare a change, of the function that makes the operator."""
    return functools.partial(Change, layer)


def changed_source(layer: Layer, change: Callable[[Any], Any]) -> Change:
    """A change of what the operator subscribes to."""

    def apply(make: Make) -> Make:
        def made(*args: Any, **kwargs: Any) -> Callable[[Observable[Any]], Any]:
            operator = make(*args, **kwargs)
            return lambda source: operator(change(source))

        return made

    return Change(layer, apply)


def changed_result(layer: Layer, change: Callable[[Any], Any]) -> Change:
    """A change of what the operator emits."""

    def apply(make: Make) -> Make:
        def made(*args: Any, **kwargs: Any) -> Callable[[Observable[Any]], Any]:
            operator = make(*args, **kwargs)
            return lambda source: change(operator(source))

        return made

    return Change(layer, apply)


def operator(
    *changes: Change,
    called: str | None = None,
    is_single: bool = False,
    is_subscribing: bool = False,
    is_scoped: bool = True,
    is_noting: bool = True,
    **checks: checking.Check,
) -> Callable[[F], F]:
    """Declare an operator: a function that makes one, ours or reactivex's.

    Args:
        changes: What is changed about it.
        called: Its name, if the function has another.
        is_single: No message leaves it twice, or in two results: at most one row comes of it.
        is_subscribing: It subscribes at once, on the thread that `Flow` chooses.
        is_scoped: A scheduler that it is given carries the scope of each subscription.
        is_noting: Functions of the user's are wrapped: their errors name the topic of the message.
        checks: What an argument must be: a function unless something is said of it, and
            `scheduler` a scheduler.

    Raises:
        TypeError: Something is said of an argument that it does not have.
    """

    def declare(make: F) -> F:
        name = called or make.__name__
        taken = inspect.signature(make)
        if odd := checks.keys() - taken.parameters.keys():
            raise TypeError(f"{name} takes no argument {', '.join(sorted(odd))}")
        said = {"scheduler": checking.scheduler, **checks}
        known = {each: said.get(each, checking.function) for each in taken.parameters}
        changed: Make = make
        for each in sorted(changes, key=attrgetter("layer")):
            changed = each(changed)
        if is_scoped and "scheduler" in known:
            changed = _scoped(changed, taken)

        @functools.wraps(make)
        def made(*args: Any, **kwargs: Any) -> Operator[Any, Any]:
            label = [shown(value) for value in args]
            label += [f"{key}={shown(value)}" for key, value in kwargs.items()]
            try:
                bound = taken.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{name}(): {error}{_hint(name, args)}") from None
            try:
                _check(bound, known, is_noting=is_noting)
            except ConfigError as error:
                raise ConfigError(f"{error}{_hint(name, args)}") from None
            return Operator(
                f"{name}({', '.join(label)})",
                changed(*bound.args, **bound.kwargs),
                is_single=is_single,
                is_subscribing=is_subscribing,
            )

        made.__name__ = made.__qualname__ = name
        vars(made)["checks"] = known
        return cast("F", made)

    return declare


def _check(
    bound: inspect.BoundArguments, checks: dict[str, checking.Check], *, is_noting: bool
) -> None:
    """Check what was given, and let the errors of the user's functions name the topic."""
    for name, value in bound.arguments.items():
        parameter, check = bound.signature.parameters[name], checks[name]
        if parameter.kind is parameter.VAR_POSITIONAL:
            for each in value:
                check(name, each)
        elif value is not parameter.default:
            check(name, value)
            if is_noting and check in checking.CALLED and callable(value):
                bound.arguments[name] = noting(value)


def _hint(operator: str, args: tuple[Any, ...]) -> str:
    """Return the advice for an operator that stands in a pipeline without its parentheses."""
    is_source = len(args) == 1 and isinstance(args[0], abc.ObservableBase)
    return f". In a pipeline write ops.{operator}(...), with parentheses" if is_source else ""


def _scoped(make: Make, taken: inspect.Signature) -> Make:
    """The same function; a scheduler that it is given carries the scope of each subscription.

    An operator of reactivex hands its own scheduler on to its source, and with the plain one the
    scope would be lost: no end would reach what is upstream.
    """

    def made(*args: Any, **kwargs: Any) -> Callable[[Observable[Any]], Any]:
        given = taken.bind(*args, **kwargs).arguments
        own = given.get("scheduler")
        if own is None:
            return make(*args, **kwargs)

        def subscribe(
            source: Observable[Any],
            observer: abc.ObserverBase[Any],
            scheduler: abc.SchedulerBase | None = None,
        ) -> abc.DisposableBase:
            operator = make(**{**given, "scheduler": within(scope_of(scheduler), own)})
            return operator(source).subscribe(observer, scheduler=scheduler)

        return lifted(subscribe)

    return made
