"""Callbacks deferred to the end of the read pass: the commit of all that it brought.

The next turn of the loop would do, but takes 13 us to come, of 90 that a message on its own needs
without a disk.
"""

from __future__ import annotations

import threading
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from rxflow.process.forked import tell_in_child

Act = Callable[[], object]


class Carrier(Protocol):
    """The component that hands on messages, one after the other.

    Attributes:
        message: The one that is on its way through a pipeline now; None between two.
    """

    message: Any


class _UnderWay(threading.local):
    """The read pass of this thread.

    Attributes:
        acts: What waits for its end; the same object as long as it is the same pass, and None while
            there is none.
        carrier: Who hands on its messages.
    """

    acts: deque[Act] | None = None
    carrier: Carrier | None = None

    def forked(self) -> None:
        """In a forked child nobody ends the pass that it was forked in."""
        self.acts = None


under_way: Final = _UnderWay()
tell_in_child(under_way)


def read_pass(decode: Act, loop: AbstractEventLoop, carrier: Carrier | None = None) -> None:
    """Decode what was read, then do what has been put off until then.

    Args:
        decode: Hands on each message.
        loop: Does in its next turn what an exception leaves undone.
        carrier: Knows which message is on its way meanwhile.

    Raises:
        Exception: What one of them raised.
    """
    acts = under_way.acts = deque[Act]()
    under_way.carrier = carrier
    try:
        decode()
        under_way.acts = None
        while acts:
            acts.popleft()()
    finally:
        under_way.acts = under_way.carrier = None
        for act in acts:
            loop.call_soon(act)


def on_its_way() -> Any:
    """The message that is on its way through a pipeline on this thread now, or None.

    What an operator of reactivex itself makes of a message has lost its envelope. What reaches a
    sink meanwhile was made of this one, and carries its delivery.
    """
    carrier = under_way.carrier
    return carrier.message if carrier else None


def soon(act: Act, loop: AbstractEventLoop) -> None:
    """Do it at the end of the read pass that is under way on this thread, else in the next turn."""
    acts = under_way.acts
    if acts is None:
        loop.call_soon(act)
    else:
        acts.append(act)
