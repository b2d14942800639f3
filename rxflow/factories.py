"""Several streams made into one: the factories of reactivex, safe for messages.

reactivex's own keep a message until another one takes its place, and with it every acknowledgement.
These are the operators of `rxflow.operators` in another spelling: `merge(a, b)` is
`a.pipe(ops.merge(b))`.
"""

from __future__ import annotations

from typing import Any, TypeVar

from reactivex import Observable

from rxflow import arguments
from rxflow.flow import Flow
from rxflow.operators import OPERATORS

T = TypeVar("T")


def amb(*sources: Observable[T]) -> Flow[T]:
    """Emit what the first of these emits that emits anything, and let the others go.

    Args:
        sources: One observable or more.

    Raises:
        ConfigError: At call time, when one of them is no observable, or none is given.
    """
    first, *others = _checked("amb", sources)
    for other in others:
        first = OPERATORS["amb"](other)(first)
    return _flow("amb", first)


def combine_latest(*sources: Observable[Any]) -> Flow[tuple[Any, ...]]:
    """Emit a tuple of the newest item of each, whenever one of them emits.

    Args:
        sources: One observable or more.

    Raises:
        ConfigError: At call time, when one of them is no observable, or none is given.
    """
    return _of("combine_latest", sources)


def concat(*sources: Observable[T]) -> Flow[T]:
    """Emit what the first emits until it completes, then what the next does, and so on.

    Args:
        sources: One observable or more.

    Raises:
        ConfigError: At call time, when one of them is no observable, or none is given.
    """
    return _of("concat", sources)


def fork_join(*sources: Observable[Any]) -> Flow[tuple[Any, ...]]:
    """Emit one tuple, of the last item of each, when all have completed.

    Args:
        sources: One observable or more.

    Raises:
        ConfigError: At call time, when one of them is no observable, or none is given.
    """
    return _of("fork_join", sources)


def merge(*sources: Observable[T]) -> Flow[T]:
    """Emit what each of these emits, as it comes.

    Args:
        sources: One observable or more.

    Raises:
        ConfigError: At call time, when one of them is no observable, or none is given.
    """
    return _of("merge", sources)


def with_latest_from(source: Observable[Any], *others: Observable[Any]) -> Flow[tuple[Any, ...]]:
    """Emit a tuple of each item of the first, and the newest item of each of the others.

    Args:
        source: What makes it emit.
        others: Whose newest items go with it.

    Raises:
        ConfigError: At call time, when one of them is no observable.
    """
    return _of("with_latest_from", (source, *others))


def zip(*sources: Observable[Any]) -> Flow[tuple[Any, ...]]:
    """Emit a tuple of the first item of each, then of the second of each, and so on.

    Args:
        sources: One observable or more.

    Raises:
        ConfigError: At call time, when one of them is no observable, or none is given.
    """
    return _of("zip", sources)


def _of(name: str, sources: tuple[Observable[Any], ...]) -> Flow[Any]:
    first, *others = _checked(name, sources)
    return _flow(name, OPERATORS[name](*others)(first))


def _flow(name: str, made: Observable[Any]) -> Flow[Any]:
    return Flow(made, label=name)


def _checked(name: str, sources: tuple[Any, ...]) -> tuple[Observable[Any], ...]:
    names = "source and others" if name == "with_latest_from" else "sources"
    if not sources:
        raise arguments.wrong(f"{names} of {name}()", "be one Observable or more, not none")
    for source in sources:
        if not isinstance(source, Observable):
            arguments.refuse(f"{names} of {name}()", "Observables", source)
    return sources
