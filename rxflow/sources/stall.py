"""Noticing that a stream has stopped because what it received is neither stored nor filtered."""

from __future__ import annotations

import gc
from typing import Any, Final

from rxflow.delivery import Ledger
from rxflow.log import printable
from rxflow.message import Message
from rxflow.process.disk import lasting
from rxflow.sources.holders import operator_of

STILL: Final = 5.0
"""Seconds without a message received or settled, while some are held, until it is said."""

QUIET: Final = 0.1
"""Seconds of the same after which cycles of references are looked for, that may hold them."""

_YOUNG: Final = 1  # the generations that cost next to nothing to look through
_OFTEN: Final = 3  # a few may be anybody's


class Stall:
    """Watches one ledger; says once that it stalls, and again after it has moved.

    Args:
        ledger: Whose deliveries to watch.
        advice: What to do about it.
    """

    def __init__(self, ledger: Ledger, advice: str) -> None:
        self._ledger = ledger
        self._advice = advice
        self._state = (0, 0)
        self._since = 0.0
        self._is_told = False
        self._look_after = QUIET
        self._has_looked = False
        self._freed = 0  # how often looking for cycles let go of messages

    def notice(self, now: float) -> str | None:
        """Return the text to tell the user, if any.

        Args:
            now: Seconds on any clock that does not go back.
        """
        ledger = self._ledger
        state = (ledger.received, ledger.unsettled)
        if state != self._state or not ledger.unsettled:
            self._state, self._since, self._is_told = state, now, False
            self._has_looked = False
        elif not self._is_told and now - self._since >= STILL:
            self._is_told = True
            if not self._ledger.takers.keys().isdisjoint(lasting):
                return None  # it is a disk, and its sink has said so
            gc.collect()  # what nobody holds but a cycle of references is let go by that
            if not ledger.has_news:
                return self._text(now - self._since)
        elif not self._has_looked and now - self._since >= self._look_after:
            return self._look()
        return None

    def _look(self) -> str | None:
        """Let go of what nobody holds but a young cycle of references; say so when it is usual.

        With a small window in flight such messages would hold up everything until the collector
        happens to run. Where messages are held on purpose it is looked for less and less often.
        """
        self._has_looked = True
        gc.collect(_YOUNG)
        if not self._ledger.has_news:
            self._look_after = min(2 * self._look_after, STILL)
            return None
        self._look_after = QUIET
        self._freed += 1
        return _CYCLES if self._freed == _OFTEN else None

    def _text(self, seconds: float) -> str:
        oldest = self._oldest()
        topic = f"; the oldest is of topic {printable(oldest.topic)!r}" if oldest else ""
        since = f", received at {oldest.received_at:%H:%M:%S} UTC" if oldest else ""
        count = self._ledger.unsettled
        held = "1 message is held" if count == 1 else f"{count:,} messages are held"
        return (
            f"stalled for {seconds:.0f} s: {held}, "
            f"neither stored nor filtered{topic}{since}{_blamed(oldest)}. "
            "Buffers, windows, debounce, delay and your own lists hold messages, and "
            f"acknowledgements go in order. {self._advice}"
        )

    def _oldest(self) -> Message[Any] | None:
        """The oldest message that is held. A search through all objects: once for each stall.

        To note it down for each message would cost every message, and this one is rare.
        """
        messages: list[Message[Any]] = [o for o in gc.get_objects() if type(o) is Message]
        held = [message for message in messages if self._ledger.holds(message.delivery)]
        return min(held, key=_number, default=None)


_CYCLES: Final = (
    "messages are held by nothing but cycles of references, and acknowledged only when those are "
    "looked for: most often a function keeps an exception that it caught, as in "
    "`except ValueError as error: last = error`; keep its text instead, or `del last` at the end"
)


_REMEMBERING: Final = ("combine_latest", "fork_join", "with_latest_from")


def _blamed(message: Message[Any] | None) -> str:
    """Name the operator that keeps it, if that can be found out."""
    name = operator_of(message) if message else ""
    if name in _REMEMBERING:
        return f"; it is kept by {name} of reactivex itself: use rxflow.{name}, which keeps none"
    return f"; it is kept by {name}" if name else ""


def _number(message: Message[Any]) -> int:
    return getattr(message.delivery, "number", 0)
