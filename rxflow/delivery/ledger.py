"""The ledger: what may be acknowledged, in which order, and how many are held. No I/O."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from rxflow.delivery.exactly_once import ExactlyOnce, Journal
from rxflow.delivery.token import QOS2, Delivery, Token, Unacknowledged
from rxflow.process.forked import tell_in_child


class Ledger:
    """The deliveries of one subscription of a source, over all its connections.

    Only the thread that runs the subscription calls its methods; tokens may be dropped anywhere.

    What it finds ready it collects; whoever settles it takes that. Of an error it keeps the first.

    Args:
        wake: Called on any thread when there is something to settle: by a sink that let go of
            stored deliveries, by a journal, and on failure. It should see to it that `settle` runs
            soon on the subscription's own thread.

    Attributes:
        stored: Deliveries of QoS 1 and 2 that a sink stored.
        let_go: Those that an operator dropped.
        received0: Deliveries of QoS 0; `stored0` of these a sink stored.
        owed: How many of these a sink has taken and not stored yet, once for each sink.
        takers: The sinks that have taken any of them, each with a bit of its own.
        needed: How many sinks must have stored a delivery for it to be stored: one, unless the
            pipeline was abandoned.
        opened: How many numbers were given to deliveries, and to those that came again.
        heavy: Bytes of the large ones that are not settled.
        queue: Packet ids in the order received, from the first that is not resolved.
        failure: Why nothing more is acknowledged; None: it is.
        ready: What may be acknowledged on this connection, in order, and is not taken yet: packet
            ids, those of QoS 2 with `QOS2` added.
        newly_stored, newly_let_go: The numbers of what was dropped since the last `settle`.
    """

    def __init__(self, wake: Callable[[], None] = lambda: None) -> None:
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
        self._qos2 = ExactlyOnce()
        self._is_closed = False
        self.failure: Exception | None = None
        self._thread = threading.get_ident()
        self.opened = 0
        self._repeats = 0  # numbers of messages that had come before, which have no delivery
        self._resolved = 0  # those and what is settled
        self._first = 0  # number of the first delivery of this connection that is not resolved
        self.queue: deque[int] = deque()
        self.ready: list[int] = []
        self._fates: dict[int, bool] = {}  # settled out of order: may it be acknowledged?
        self._adopted: dict[int, int] = {}  # number on an older connection -> number on this one
        self._weights: dict[int, int] = {}  # number of a large one -> bytes, until settled
        self.heavy = 0  # bytes of all these
        tell_in_child(self)

    # -- what the connection says -------------------------------------------------------------

    def connected(self, *, session_present: bool) -> None:
        """Begin a connection. Older deliveries are never acknowledged on it by packet id."""
        self.queue.clear()
        self._fates.clear()
        self._adopted.clear()
        self._first = self.opened
        self._qos2.interrupted()
        self.settle()
        self.ready.clear()
        self._qos2.connected(session_present=session_present)

    def keep(
        self,
        journal: Journal,
        session: str,
        *,
        is_single: bool = False,
        unclaimed: Callable[[int], None] | None = None,
    ) -> None:
        """Have a journal record which QoS 2 messages are stored, and take up what it has.

        To be called before the first connection.

        Args:
            journal: The sink that stores them.
            session: Names the broker and the client id.
            is_single: True if at most one row comes of a message, whoever holds it.
            unclaimed: Called once, on any thread, with the number of a delivery that was stored and
                can't count as such, because somebody else holds it.

        Raises:
            SinkError: The journal can't be written.
        """
        self._qos2.keep(journal, session, self, is_single=is_single, unclaimed=unclaimed)

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
        earlier = self._qos2.waiting(packet_id, digest)
        if earlier is not None:
            if earlier >= self._first or earlier in self._adopted:
                return None  # twice on this connection
            if duplicate:
                self._adopted[earlier] = self._repeat(packet_id)
                return None
        elif self._qos2.is_done(packet_id, digest, duplicate=duplicate):
            self._fates[self._repeat(packet_id)] = True
            self._collect_in_order()
            return None
        delivery = Delivery(self, packet_id + QOS2)
        self._qos2.begin(delivery.number, packet_id, digest)
        return delivery

    def _repeat(self, packet_id: int) -> int:
        """Number on this connection what came on another, to be answered when that is settled."""
        number = self.opened
        self.heavy -= self._weights.pop(number, 0)
        self.opened += 1
        self._repeats += 1
        self._resolved += 1
        self.queue.append(packet_id + QOS2)
        return number

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

    def release(self, packet_id: int) -> None:
        """Forget a QoS 2 packet id: its PUBREL came. PUBCOMP follows, once the journal has it."""
        self._qos2.release(packet_id)

    def receipts(self, tokens: Sequence[Token | None]) -> list[tuple[int, int, int]]:
        """The QoS 2 deliveries of this ledger that nobody holds any more but this list.

        One that is held elsewhere may yet become another row: only the commit that holds the last
        reference may say that the message is stored, unless `is_single`. On any thread.

        Returns:
            Of each its last index in the list, its packet id, and its digest.
        """
        return self._qos2.receipts(tokens, self)

    def released(self, packet_ids: list[int]) -> None:
        """The journal has dropped these; called by it on any thread."""
        if self._qos2.released(packet_ids):
            self.wake()

    # -- what becomes of deliveries -------------------------------------------------------------

    def settle(self) -> None:
        """Resolve every delivery dropped since the last call, and collect what is in order."""
        self._qos2.drop()
        stored = _taken(self.newly_stored) if self.newly_stored else []
        let_go = _taken(self.newly_let_go) if self.newly_let_go else []
        if stored or let_go:
            self._resolve(stored, let_go)

    def _resolve(self, stored: list[int], let_go: list[int]) -> None:
        may_stored = self.failure is None
        may_let_go = may_stored and not self._is_closed
        self._resolved += len(stored) + len(let_go)
        self.stored += len(stored)
        if self._weights:
            for number in (*stored, *let_go):
                self.heavy -= self._weights.pop(number, 0)
        if not self._is_closed:
            self.let_go += len(let_go)
        if self._are_next(stored + let_go) and (may_let_go or not let_go):
            count = len(stored) + len(let_go)
            self._first += count
            packets = [self.queue.popleft() for _ in range(count)]
            if self.failure is None:
                self.ready += packets
        else:
            for number in stored:
                self._decide(number, may=may_stored)
            for number in let_go:
                self._decide(number, may=may_let_go)
        self._collect_in_order()

    def _are_next(self, numbers: list[int]) -> bool:
        """Whether they are the first that are not resolved, in any order, and none of QoS 2."""
        # Each number comes once, so so many from the first on are all of them.
        first = self._first
        return not self._qos2.open and min(numbers) == first and max(numbers) < first + len(numbers)

    def _decide(self, number: int, *, may: bool) -> None:
        """Note down what becomes of a delivery when all before it are resolved."""
        if number in self._qos2.open:
            may = self._qos2.settle(number, may=may)
        if number < self._first:
            number = self._adopted.pop(number, -1)
        if number >= self._first:
            self._fates[number] = may

    def _collect_in_order(self) -> None:
        """Deliveries that are settled, though an older one is not resolved yet."""
        queue, fates, first = self.queue, self._fates, self._first
        while fates and (may := fates.pop(first, None)) is not None:
            packet = queue.popleft()
            first += 1
            if may and self.failure is None:
                self.ready.append(packet)
        self._first = first

    def take(self) -> tuple[list[int], list[int]]:
        """Take the packet ids to acknowledge, and those to complete by PUBCOMP; in order, once."""
        ready, self.ready = self.ready, []
        return ready, self._qos2.take()

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
        """True if `settle` or `take` has something to do."""
        return bool(self.newly_stored or self.newly_let_go or self.ready or self._qos2.has_news)

    @property
    def left(self) -> int:
        """Deliveries that are neither stored nor filtered: the broker keeps them."""
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

    def abandon(self, sinks: int = 1) -> None:
        """Close; and of several sinks, each must have stored what is to be acknowledged.

        Called before a pipeline is disposed that has not ended by itself: what one sink has stored,
        an operator may still have held for another.

        Args:
            sinks: So many there are at least; those that have taken something are known.
        """
        self.close()
        self.needed = max(sinks, len(self.takers))

    def fail(self, error: Exception) -> None:
        """From now on acknowledge nothing, and wake the source. The first error counts."""
        if self.failure is None:
            self.close()
            self.failure = error
            self.wake()

    def forked(self) -> None:
        """In a forked child, which has the tokens but no connection: acknowledge nothing."""
        self.newly_stored.clear()
        self.newly_let_go.clear()
        self.ready.clear()
        self._is_closed = True
        self.failure = self.failure or RuntimeError("the connection is the parent's")

    def finish(self) -> None:
        """Collect what is stored behind deliveries that nobody will settle in time."""
        self.settle()
        self._is_closed = True
        for number, packet in enumerate(self.queue, self._first):
            if self._fates.pop(number, False) and self.failure is None:
                self.ready.append(packet)
        self.queue.clear()
        self._first = self.opened


def _taken(numbers: deque[int]) -> list[int]:
    """Those that are there now; other threads append meanwhile."""
    return [numbers.popleft() for _ in range(len(numbers))]
