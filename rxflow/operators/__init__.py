"""Every operator of reactivex under its own name, safe for messages, and rxflow's own.

Each is declared where it is defined: those of reactivex in `adopted`, ours by family in the files
beside this one. What this module exports, and the fluent methods of `Flow`, come from there.
"""

# A star import is what tells type checkers of each operator.
# ruff: noqa: F403

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from rxflow.operators import (
    adopted,
    beginning,
    buffers,
    decoding,
    ending,
    flattening,
    grouping,
    mapping,
    reducing,
    scheduling,
    sharing,
    watching,
    windows,
)
from rxflow.operators.adopted import *
from rxflow.operators.beginning import *
from rxflow.operators.buffers import *
from rxflow.operators.decoding import *
from rxflow.operators.ending import *
from rxflow.operators.flattening import *
from rxflow.operators.grouping import *
from rxflow.operators.mapping import *
from rxflow.operators.operator import Operator
from rxflow.operators.reducing import *
from rxflow.operators.scheduling import *
from rxflow.operators.sharing import *
from rxflow.operators.watching import *
from rxflow.operators.windows import *

_FAMILIES: Final = (
    adopted,
    beginning,
    buffers,
    decoding,
    ending,
    flattening,
    grouping,
    mapping,
    reducing,
    scheduling,
    sharing,
    watching,
    windows,
)

OPERATORS: Final[dict[str, Callable[..., Operator[Any, Any]]]] = {
    name: vars(family)[name] for family in _FAMILIES for name in family.__all__
}
"""Name -> function, for every operator."""

globals().update(__all__=[*OPERATORS])
