"""Events at instants: the parts of a diagram."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

Kind = Literal["next", "any", "error", "completed", "subscribed", "unsubscribed", "marked"]


class Event(NamedTuple):
    """Something at an instant.

    Attributes:
        time: Nanoseconds from zero; whole microseconds.
        kind: `next` an item · `any` an item of whatever value · `error` · `completed` ·
            `subscribed`, written `^` · `unsubscribed`, written `!` · `marked`, an instant of
            `Marks`, written `^` as well.
        value: Of an item its value, of an error the exception (or its class).
        key: How it was written; empty if it was observed.
    """

    time: int
    kind: Kind
    value: Any = None
    key: str = ""
