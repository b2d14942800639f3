"""The ledger of deliveries: what was received, what became of it, what may be acknowledged.

A `Delivery` is the token that a message carries. CPython's reference counts are the ledger: when
the last reference to a token is gone, that delivery is settled, as *stored* if a sink said so
before it let go, else as *let go*. `Ledger` turns settled deliveries into acknowledgements, in the
order in which they were received [MQTT-4.6.0-2] and only on the connection they came by.

A delivery knows its packet id and no more; this module knows no message and no socket.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NoReturn, Protocol, SupportsIndex, runtime_checkable

QOS2: Final = 0x10000
"""Added to the packet id of a QoS 2 delivery wherever one int stands for both."""


class Token(Protocol):
    """What a message carries of its delivery, and what a sink does with it."""

    def take(self, taker: int) -> None:
        """A sink, known by this number, has taken it and owes it a `store` or a `fail`."""
        ...

    def store(self, touched: set[Ledger]) -> None:
        """Mark as stored by one sink; add to `touched` each ledger that should settle then."""
        ...

    def fail(self, error: Exception) -> None:
        """Say that a sink could not store this: its ledger acknowledges nothing more."""
        ...


@runtime_checkable
class Journal(Protocol):
    """Where it is written down which QoS 2 messages are stored and not yet released: a sink."""

    def attach(self, session: str, ledger: Ledger) -> dict[int, int]:
        """From now on keep those of this session; those kept so far, packet id -> digest."""
        ...

    def forget(self, session: str) -> None:
        """Drop all of this session; durable when it returns."""
        ...

    def release(self, session: str, packet_ids: list[int]) -> None:
        """Drop these; when that is durable, call the ledger's `released`, on any thread."""
        ...


class _Uncopied:
    """A token is one thing: a copy of its message shares it, and it can't be pickled."""

    __slots__ = ()

    def __copy__(self) -> _Uncopied:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> _Uncopied:
        return self

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        text = "a delivery belongs to its connection and can't be pickled; send the payload instead"
        raise TypeError(text)


class Delivery(_Uncopied):
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

    def __init__(self, ledger: Ledger, packet: int) -> None:
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

    def store(self, touched: set[Ledger]) -> None:
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


class Unacknowledged(_Uncopied):
    """Stands for every QoS 0 delivery of one ledger: counted, never acknowledged."""

    __slots__ = ("_ledger",)

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def take(self, taker: int) -> None:
        """It is owed nothing."""

    def store(self, touched: set[Ledger]) -> None:
        del touched  # nothing to acknowledge
        self._ledger.stored0 += 1

    def fail(self, error: Exception) -> None:
        self._ledger.fail(error)


class Deliveries(_Uncopied):
    """The deliveries of several messages behind one result."""

    __slots__ = ("tokens",)

    def __init__(self, tokens: Iterable[Token]) -> None:
        self.tokens = tuple(tokens)

    def take(self, taker: int) -> None:
        for token in self.tokens:
            token.take(taker)

    def store(self, touched: set[Ledger]) -> None:
        for token in self.tokens:
            token.store(touched)

    def fail(self, error: Exception) -> None:
        for token in self.tokens:
            token.fail(error)


class Ledger:
    """The deliveries of one subscription of a source, over all its connections.

    Only the thread that runs the subscription calls its methods; tokens may be dropped anywhere.

    Args:
        acknowledge: Called with what may be acknowledged now, in order: packet ids, those of QoS 2
            with `QOS2` added. Everything that one `settle` frees comes in one call.
        wake: Called by a sink, on any thread, after it let go of stored deliveries; it should see
            to it that `settle` runs soon on the subscription's own thread.
        failed: Called with the error of a sink that could not store.
        complete: Called with packet ids that a journal has dropped, on any thread; see `keep`.

    Attributes:
        stored: Deliveries of QoS 1 and 2 that a sink stored.
        let_go: Those that an operator dropped.
        received0: Deliveries of QoS 0; `stored0` of these a sink stored.
        owed: How many of these a sink has taken and not stored yet, once for each sink.
        takers: The sinks that have taken any of them, each with a bit of its own.
        is_single: True if at most one row comes of a message, whoever holds it.
        unclaimed: Called once, on any thread, with the number of a QoS 2 delivery that was stored
            and can't count as such, because somebody else holds it.
        needed: How many sinks must have stored a delivery for it to be stored: one, unless the
            pipeline was abandoned.
        opened: How many numbers were given to deliveries, and to those that came again.
        heavy: Bytes of the large ones that are not settled.
        queue: Packet ids in the order received, from the first that is not resolved.
        newly_stored, newly_let_go: The numbers of what was dropped since the last `settle`.
    """

    def __init__(
        self,
        acknowledge: Callable[[list[int]], None],
        wake: Callable[[], None],
        failed: Callable[[Exception], None],
        complete: Callable[[list[int]], None] | None = None,
    ) -> None:
        self.newly_stored: deque[int] = deque()
        self.newly_let_go: deque[int] = deque()
        self.wake = wake
        self.received0 = 0
        self.stored = self.stored0 = 0
        self.let_go = 0
        self.owed = 0
        self.takers: dict[int, int] = {}
        self.needed = 1
        self.unacknowledged = Unacknowledged(self)
        self._acknowledge = acknowledge
        self._failed = failed
        self.released = complete or _ignore
        self.is_single = False
        self.unclaimed: Callable[[int], None] | None = None
        self._journal: Journal | None = None
        self._session = ""
        self._digests2: dict[int, int] = {}  # number of QoS 2 -> digest, until settled
        self._releasing: list[int] = []  # packet ids whose PUBREL came in this pass
        self._held_up: set[int] = set()  # those whose PUBCOMP waits for the journal
        self._is_closed = False
        self.has_failed = False
        self._thread = threading.get_ident()
        self.opened = 0
        self._repeats = 0  # numbers of messages that had come before, which have no delivery
        self._resolved = 0  # those and what is settled
        self._first = 0  # number of the first delivery of this connection that is not resolved
        self.queue: deque[int] = deque()
        self._fates: dict[int, bool] = {}  # settled out of order: may it be acknowledged?
        self._numbers2: dict[int, int] = {}  # packet id of QoS 2 -> number, until settled
        self._ids2: dict[int, int] = {}  # and back
        self._done2: dict[int, int] = {}  # those settled, their PUBREL not seen -> digest
        self._older2: set[int] = set()  # packet ids of both from before this connection
        self._adopted: dict[int, int] = {}  # number on an older connection -> number on this one
        self._weights: dict[int, int] = {}  # number of a large one -> bytes, until settled
        self.heavy = 0  # bytes of all these
        _ledgers.add(self)

    # -- what the connection says -------------------------------------------------------------

    def connected(self, *, session_present: bool) -> None:
        """Begin a connection. Older deliveries are never acknowledged on it by packet id."""
        self.queue.clear()
        self._fates.clear()
        self._adopted.clear()
        self._releasing.clear()
        self._held_up.clear()  # their PUBREL comes again [MQTT-4.4.0-1]
        self._first = self.opened
        self.settle()
        if not session_present:
            self._numbers2.clear()
            self._ids2.clear()  # before `forget`: no commit may claim an id of the lost session
            self._digests2.clear()
            self._done2.clear()
            if self._journal:
                self._journal.forget(self._session)
        self._older2 = {*self._done2, *self._numbers2}

    def keep(self, journal: Journal, session: str) -> None:
        """Have it written down which QoS 2 messages are stored, and take up what was.

        To be called before the first connection.

        Args:
            journal: The sink that stores them.
            session: Names the broker and the client id.

        Raises:
            SinkError: The journal can't be written.
        """
        self._journal, self._session = journal, session
        self._done2 = journal.attach(session, self)

    def open2(self, packet_id: int, digest: int = 0, *, duplicate: bool = True) -> Delivery | None:
        """Record the arrival of a QoS 2 message; None if this very message is here already.

        A message of QoS 2 that comes again before its PUBREL is the same message
        [MQTT-4.3.3-10]: it is not delivered twice, only answered on the new connection. A packet id
        alone does not make it the same: a broker that was killed may come back with an older state,
        in which the id is free, and somebody else may have gone on with the session meanwhile. So
        the digest must be the same, and on another connection DUP must be set [MQTT-3.3.1-1]: of a
        broker that leaves it out when it sends again, a message may come twice, but none is lost.

        Args:
            packet_id: Names it until PUBREL.
            digest: Of its topic and payload.
            duplicate: Its DUP flag.
        """
        earlier = self._numbers2.get(packet_id)
        if earlier is not None:
            if self._digests2[earlier] == digest:
                if earlier >= self._first or earlier in self._adopted:
                    return None  # twice on this connection
                if duplicate:
                    self._repeat(packet_id, earlier)
                    return None
        elif (done := self._done2.get(packet_id)) is not None:
            if done == digest and (duplicate or packet_id not in self._older2):
                self._repeat(packet_id, None)
                return None
            del self._done2[packet_id]
            if self._journal:
                self._journal.release(self._session, [packet_id])
        delivery = Delivery(self, packet_id + QOS2)
        number = delivery.number
        self._older2.discard(packet_id)
        self._numbers2[packet_id] = number  # of an earlier message that had it nothing is answered
        self._ids2[number] = packet_id
        self._digests2[number] = digest
        return delivery

    def _repeat(self, packet_id: int, earlier: int | None) -> None:
        """Answer on this connection what came on another, now or when that is settled."""
        number = self.opened
        self.heavy -= self._weights.pop(number, 0)
        self.opened += 1
        self._repeats += 1
        self._resolved += 1
        self.queue.append(packet_id + QOS2)
        if packet_id in self._done2:
            self._fates[number] = True
            self._acknowledge_in_order([])
        elif earlier is not None:
            self._adopted[earlier] = number

    def weigh(self, size: int, most: int) -> bool:
        """Note down that the next delivery is a large one; False if there is no room for it.

        One that is larger than `most` has room when no other is held.

        Args:
            size: Its bytes.
            most: Bytes that all that are noted down may have together.
        """
        number = self.opened
        self.heavy -= self._weights.pop(number, 0)
        if self.heavy and self.heavy + size > most:
            self.settle()
            if self.heavy and self.heavy + size > most:
                return False
        self._weights[number] = size
        self.heavy += size
        return True

    def release(self, packet_id: int) -> bool:
        """Forget a QoS 2 packet id: its PUBREL came. True if PUBCOMP may follow at once."""
        self._done2.pop(packet_id, None)
        self._older2.discard(packet_id)
        self._numbers2.pop(packet_id, None)  # of a broker that did not wait for its PUBREC
        if self._journal is None:
            return True
        self._releasing.append(packet_id)
        return False

    def completed(self, packet_ids: list[int]) -> list[int]:
        """Those of these whose PUBREL came on this connection, and waits for its PUBCOMP."""
        ready = [packet_id for packet_id in packet_ids if packet_id in self._held_up]
        self._held_up.difference_update(ready)
        return ready

    def receipts(self, tokens: Sequence[Token | None]) -> list[tuple[int, int, int]]:
        """The QoS 2 deliveries of this ledger that nobody holds any more but this list.

        One that is held elsewhere may yet become another row: only the commit that holds the last
        reference may say that the message is stored, unless `is_single`. On any thread.

        Returns:
            Of each its last index in the list, its packet id, and its digest.
        """
        found: list[tuple[int, int, int]] = []
        last, others = _Held(tokens).of(self)
        if not self.is_single:
            for number in others:
                del last[number]
            if self.unclaimed and (held := [n for n in others if n in self._ids2]):
                unclaimed, self.unclaimed = self.unclaimed, None
                unclaimed(min(held))
        for number, index in last.items():
            packet_id, digest = self._ids2.get(number), self._digests2.get(number)
            if packet_id is None or digest is None:
                continue  # not of QoS 2, or of a session that is lost
            if self._numbers2.get(packet_id) == number:
                found.append((index, packet_id, digest))
        return found

    # -- what becomes of deliveries -------------------------------------------------------------

    def settle(self) -> None:
        """Resolve every delivery dropped since the last call, and acknowledge what is in order."""
        if self._releasing and self._journal:
            packet_ids, self._releasing = self._releasing, []
            self._held_up.update(packet_ids)
            self._journal.release(self._session, packet_ids)
        stored = _taken(self.newly_stored) if self.newly_stored else []
        let_go = _taken(self.newly_let_go) if self.newly_let_go else []
        if stored or let_go:
            self._resolve(stored, let_go)

    def _resolve(self, stored: list[int], let_go: list[int]) -> None:
        may_stored = not self.has_failed
        may_let_go = may_stored and not self._is_closed
        self._resolved += len(stored) + len(let_go)
        self.stored += len(stored)
        if self._weights:
            for number in (*stored, *let_go):
                self.heavy -= self._weights.pop(number, 0)
        if not self._is_closed:
            self.let_go += len(let_go)
        ready: list[int] = []
        if self._are_next(stored + let_go) and (may_let_go or not let_go):
            ready = [self.queue.popleft() for _ in range(len(stored) + len(let_go))]
            self._first += len(ready)
        else:
            for number in stored:
                self._decide(number, may=may_stored)
            for number in let_go:
                self._decide(number, may=may_let_go)
        self._acknowledge_in_order(ready)

    def _are_next(self, numbers: list[int]) -> bool:
        """Whether they are the first that are not resolved, in any order, and none of QoS 2."""
        # Each number comes once, so so many from the first on are all of them.
        first = self._first
        return not self._ids2 and min(numbers) == first and max(numbers) < first + len(numbers)

    def _decide(self, number: int, *, may: bool) -> None:
        """Note down what becomes of a delivery when all before it are resolved."""
        if number in self._ids2:
            may = self._settle2(number, may=may)
        if number < self._first:
            number = self._adopted.pop(number, -1)
        if number >= self._first:
            self._fates[number] = may

    def _settle2(self, number: int, *, may: bool) -> bool:
        """Whether PUBREC may follow: the id may have been released, or be another message's now."""
        packet_id, digest = self._ids2.pop(number), self._digests2.pop(number)
        if self._numbers2.get(packet_id) != number:
            return False
        del self._numbers2[packet_id]
        if may:
            self._done2[packet_id] = digest
        return may

    def _acknowledge_in_order(self, ready: list[int]) -> None:
        """Acknowledge these, and what is settled behind them."""
        queue, fates, first = self.queue, self._fates, self._first
        while fates and (may := fates.pop(first, None)) is not None:
            packet = queue.popleft()
            first += 1
            if may:
                ready.append(packet)
        self._first = first
        if ready and not self.has_failed:
            self._acknowledge(ready)

    # -- the end ----------------------------------------------------------------------------------

    @property
    def received(self) -> int:
        """Deliveries of QoS 1 and 2."""
        return self.opened - self._repeats

    @property
    def unsettled(self) -> int:
        """Those of QoS 1 and 2 that are still held by somebody."""
        return self.opened - self._resolved

    @property
    def has_news(self) -> bool:
        """True if `settle` has something to do."""
        return bool(self.newly_stored or self.newly_let_go or self._releasing)

    @property
    def left(self) -> int:
        """Deliveries that are not stored and that no operator let go: left to the broker."""
        return self.received - self.stored - self.let_go

    def bit_of(self, taker: int) -> int:
        """The bit of a sink that has taken none before."""
        return self.takers.setdefault(taker, 1 << len(self.takers))

    def holds(self, token: object) -> bool:
        """Whether this is the token of a delivery of ours that must be settled."""
        return isinstance(token, Delivery) and token.ledger is self

    def close(self) -> None:
        """From now on acknowledge only what is stored. Called before the first reference drops.

        On any thread: on another one, what was let go and is not settled yet is not acknowledged.
        """
        if threading.get_ident() == self._thread:
            self.settle()
        self._is_closed = True

    def abandon(self) -> None:
        """Close; and of several sinks, each must have stored what is to be acknowledged.

        Called before a pipeline is disposed that has not ended by itself: what one sink has stored,
        an operator may still have held for another.
        """
        self.close()
        self.needed = max(1, len(self.takers))

    def fail(self, error: Exception) -> None:
        """From now on acknowledge nothing, and tell the source why. The first error counts."""
        if self.has_failed:
            return
        self.close()
        self.has_failed = True
        self._failed(error)

    def disown(self) -> None:
        """Acknowledge nothing, whatever happens: this is a copy in a forked child."""
        self.newly_stored.clear()
        self.newly_let_go.clear()
        self._is_closed = self.has_failed = True

    def finish(self) -> None:
        """Acknowledge what is stored behind deliveries that nobody will settle in time."""
        self.settle()
        last, self._is_closed = self._first + len(self.queue), True
        ready = [
            packet
            for number, packet in zip(range(self._first, last), self.queue, strict=True)
            if self._fates.pop(number, False)
        ]
        self.queue.clear()
        self._first = self.opened
        if ready and not self.has_failed:
            self._acknowledge(ready)


def _ignore(_: object) -> None:
    """Nobody waits for a journal."""


def _taken(numbers: deque[int]) -> list[int]:
    """Those that are there now; other threads append meanwhile."""
    return [numbers.popleft() for _ in range(len(numbers))]


def _references(items: Sequence[object]) -> list[int]:
    return [sys.getrefcount(item) for item in items]


_BY_COUNTING: Final = _references([object()])[0] - 1


class _Held:
    """Which tokens of a list nobody holds but that list, or results that nobody else holds."""

    def __init__(self, tokens: Sequence[Token | None]) -> None:
        self._tokens = tokens
        self._references: dict[int, int] = {}
        self._places: Counter[int] = Counter()
        self._count(tokens)

    def _count(self, tokens: Sequence[Token | None]) -> None:
        references = _references(tokens)
        for index in range(len(tokens)):  # what enumerates would hold a reference itself
            token = tokens[index]
            key = id(token)
            self._references[key] = references[index] - _BY_COUNTING
            self._places[key] += 1
            if isinstance(token, Deliveries) and self._places[key] == 1:
                self._count(token.tokens)

    def of(self, ledger: Ledger) -> tuple[dict[int, int], set[int]]:
        """Those of a ledger: number -> last index in the list; and which others hold, too."""
        last: dict[int, int] = {}
        others: set[int] = set()
        for index, token in enumerate(self._tokens):
            for number, is_ours in self._numbers(token, ledger, is_ours=True):
                last[number] = index
                if not is_ours:
                    others.add(number)
        return last, others

    def _numbers(
        self, token: Token | None, ledger: Ledger, *, is_ours: bool
    ) -> Iterator[tuple[int, bool]]:
        """The numbers behind a token, and whether nobody else holds them.

        Not a function within `of`: one that calls itself is a cycle, which would hold the list.
        """
        key = id(token)
        is_ours = is_ours and self._references[key] == self._places[key]
        if isinstance(token, Deliveries):
            for inner in token.tokens:
                yield from self._numbers(inner, ledger, is_ours=is_ours)
        elif isinstance(token, Delivery) and token.ledger is ledger:
            yield token.number, is_ours


_ledgers: weakref.WeakSet[Ledger] = weakref.WeakSet()


def _close_all() -> None:
    """A forked child has copies of the tokens, but not the connection."""
    for ledger in list(_ledgers):
        ledger.disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_all)
