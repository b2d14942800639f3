"""Finding the holder of a message through the garbage collector, once, for a warning."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Iterable
from types import CellType, FrameType, FunctionType, ModuleType
from typing import Any, Final, cast

from rxflow.delivery import Delivery, Ledger
from rxflow.log import printable
from rxflow.message import Message

_CONTAINERS: Final = (list, tuple, set, deque, dict)
_DEEP: Final = 5  # a list in a list, in a cell, of a function


def described(ledger: Ledger, number: int) -> str:
    """The message of a delivery, and what seems to hold it: `of topic 'a/b' (held by a list)`."""
    found = [o for o in gc.get_objects() if type(o) is Message]
    messages: list[Message[Any]] = [m for m in found if _is(m.delivery, ledger, number)]
    if not messages:
        return ""
    topic = f" of topic {printable(messages[0].topic)!r}"
    mine: set[int] = {id(found), id(messages)}
    holders: list[str] = []
    for message in messages:
        holders += [_named(holder, mine) for holder in _referrers(message, mine)]
    known = [holder for holder in dict.fromkeys(holders) if holder]
    return f"{topic} (held by {', '.join(known[:3])})" if known else topic


def operator_of(message: Message[Any]) -> str:
    """The function of reactivex that keeps this message, such as `combine_latest`; or empty.

    What an operator keeps, its inner functions share: a cell, perhaps with a list in between.
    """
    mine: set[int] = set()
    holders: list[object] = [message]
    for _ in range(_DEEP):
        holders = [each for one in holders for each in _referrers(one, mine)]
        mine.add(id(holders))
        functions = [each for each in holders if isinstance(each, FunctionType)]
        for function in functions:
            if function.__module__.startswith(("reactivex.observable.", "reactivex.operators.")):
                return function.__qualname__.split(".")[0].strip("_")
        holders = [each for each in holders if isinstance(each, (*_CONTAINERS, CellType))]
    return ""


def _is(token: object, ledger: Ledger, number: int) -> bool:
    return isinstance(token, Delivery) and token.ledger is ledger and token.number == number


def _referrers(one: object, mine: set[int]) -> Iterable[object]:
    found = gc.get_referrers(one)
    mine.add(id(found))
    return [each for each in found if id(each) not in mine and not isinstance(each, FrameType)]


def _named(holder: object, mine: set[int]) -> str:
    """Describe a holder for people; of a dict, name its owner."""
    if isinstance(holder, dict):
        for owner in _referrers(cast("object", holder), mine):
            if isinstance(owner, ModuleType):
                return f"a name of the module {owner.__name__}"
            if getattr(owner, "__dict__", None) is holder:
                return f"an attribute of a {type(owner).__name__}"
    if isinstance(holder, CellType):
        return "a name that a function has kept"
    kind = type(holder).__name__
    return f"a {kind}" if isinstance(holder, _CONTAINERS) else f"an attribute of a {kind}"
