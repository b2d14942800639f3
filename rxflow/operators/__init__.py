"""Every operator of reactivex under its own name, safe for messages, and rxflow's own.

`OPERATORS` is the one table: what this module exports and the fluent methods of `Flow` come from
it. An operator that reactivex does right is taken over; one that holds items gets a gate in front,
so that the end of time doesn't discard them; one that shares its source belongs to the whole run;
the rest is ours, by family, in the files beside this one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from reactivex import operators as rx

# Their types; what they are stands in the table.
from reactivex.operators import *  # noqa: F403  # pyright: ignore[reportWildcardImportFromLibrary]

from rxflow.operators.buffers import (
    buffer_with_count,
    buffer_with_time,
    buffer_with_time_or_count,
)
from rxflow.operators.decoding import decode_json
from rxflow.operators.ending import take_until, take_until_with_time, take_with_time
from rxflow.operators.holding import held
from rxflow.operators.mapping import map
from rxflow.operators.operator import Operator, labelled
from rxflow.operators.sharing import share, shared
from rxflow.operators.watching import do

_OURS: Final[tuple[Callable[..., Any], ...]] = (
    buffer_with_count,
    buffer_with_time,
    buffer_with_time_or_count,
    decode_json,
    do,
    map,
    share,
    take_until,
    take_until_with_time,
    take_with_time,
)

_HELD: Final = (
    "average",
    "buffer",
    "buffer_toggle",
    "buffer_when",
    "count",
    "debounce",
    "last",
    "last_or_default",
    "max",
    "max_by",
    "min",
    "min_by",
    "reduce",
    "sum",
    "take_last",
    "take_last_buffer",
    "take_last_with_time",
    "throttle_with_mapper",
    "throttle_with_timeout",
    "to_dict",
    "to_iterable",
    "to_list",
    "to_set",
    "window",
    "window_toggle",
    "window_when",
    "window_with_count",
    "window_with_time",
    "window_with_time_or_count",
)

_SHARED: Final = ("multicast", "publish", "publish_value", "replay")


def _table() -> dict[str, Callable[..., Operator[Any, Any]]]:
    made: dict[str, Callable[..., Any]] = {name: getattr(rx, name) for name in rx.__all__}
    made |= {name: held(made[name]) for name in _HELD}
    made |= {name: shared(made[name]) for name in _SHARED}
    made |= {make.__name__: make for make in _OURS}
    return {name: labelled(name, make) for name, make in made.items()}


OPERATORS: Final = _table()
"""Name -> function, for every operator."""

globals().update(OPERATORS)

__all__ = ["decode_json"]
__all__ += rx.__all__
