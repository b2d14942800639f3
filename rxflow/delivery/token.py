"""The token that a message carries of its delivery."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, NoReturn, Protocol, Self, SupportsIndex

QOS2: Final = 0x10000
"""Added to the packet id of a QoS 2 delivery wherever one int stands for both."""


class Token(Protocol):
    """The part of its delivery that a message carries, for sinks to store or fail."""

    def take(self, taker: int) -> None:
        """A sink, known by this number, has taken it and owes it a `store` or a `fail`."""
        ...

    def store(self, touched: set[Account]) -> None:
        """Mark as stored by one sink; add to `touched` each ledger that should settle then."""
        ...

    def fail(self, error: Exception) -> None:
        """Say that a sink could not store this: its ledger acknowledges nothing more."""
        ...


class Account(Protocol):
    """A ledger, as its tokens and a sink see it; see `Ledger` for the attributes."""

    opened: int
    queue: deque[int]
    owed: int
    takers: dict[int, int]
    needed: int
    stored0: int
    newly_stored: deque[int]
    newly_let_go: deque[int]

    def bit_of(self, taker: int) -> int:
        """The bit of a sink that has taken none before."""
        ...

    def fail(self, error: Exception) -> None:
        """From now on acknowledge nothing."""
        ...

    @property
    def wake(self) -> Callable[[], None]:
        """Call it, on any thread, after letting go of stored deliveries: it settles soon."""
        ...


class Uncopied:
    """A token is one thing: a copy of its message shares it, and it can't be pickled."""

    __slots__ = ()

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        text = "a delivery belongs to its connection and can't be pickled; send the payload instead"
        raise TypeError(text)


class Delivery(Uncopied):
    """One delivery of QoS 1 or 2. Settled when the last reference to it is gone.

    `Wire.decode` does itself what `__init__` does: the call is a third of the cost.

    Args:
        ledger: Records its arrival.
        packet: Its packet id, for QoS 2 with `QOS2` added.

    Attributes:
        ledger: The same.
        number: Its place in the order of all deliveries of this ledger.
        owed: How many rows of it sinks have taken and not stored yet.
        stored: How many rows of it are stored.
        sinks: Which sinks have taken it, a bit for each.
    """

    __slots__ = ("ledger", "number", "owed", "sinks", "stored")

    def __init__(self, ledger: Account, packet: int) -> None:
        self.ledger = ledger
        self.number = number = ledger.opened
        ledger.opened = number + 1
        ledger.queue.append(packet)
        self.owed = self.stored = self.sinks = 0

    def take(self, taker: int) -> None:
        ledger = self.ledger
        self.owed += 1
        ledger.owed += 1
        self.sinks |= ledger.takers.get(taker) or ledger.bit_of(taker)

    def store(self, touched: set[Account]) -> None:
        ledger = self.ledger
        self.owed -= 1
        self.stored += 1
        ledger.owed -= 1
        touched.add(ledger)

    def fail(self, error: Exception) -> None:
        self.ledger.fail(error)

    def __del__(self) -> None:
        # May run on any thread, in the middle of anything: append, and nothing else.
        ledger = self.ledger
        needed = ledger.needed
        if self.stored and self.owed <= 0 and (needed < 2 or self.sinks.bit_count() >= needed):  # noqa: PLR2004
            ledger.newly_stored.append(self.number)
        else:
            ledger.newly_let_go.append(self.number)


class Unacknowledged(Uncopied):
    """Stands for every QoS 0 delivery of one ledger: counted, never acknowledged."""

    __slots__ = ("_ledger",)

    def __init__(self, ledger: Account) -> None:
        self._ledger = ledger

    def take(self, taker: int) -> None:
        """It is owed nothing."""

    def store(self, touched: set[Account]) -> None:
        del touched  # nothing to acknowledge
        self._ledger.stored0 += 1

    def fail(self, error: Exception) -> None:
        self._ledger.fail(error)
