"""QoS 2: the same message is known again until its PUBREL, by this process and by the next."""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol, runtime_checkable

from rxflow.delivery.spread import Deliveries
from rxflow.delivery.token import Account, Delivery, Token


class Attached(Protocol):
    """The receiver of a session's messages: its ledger."""

    def receipts(self, tokens: Sequence[Token | None]) -> list[tuple[int, int, int]]:
        """As in `Ledger.receipts`."""
        ...

    def released(self, packet_ids: list[int]) -> None:
        """These are dropped for good: PUBCOMP may follow. Called on any thread."""
        ...


@runtime_checkable
class Journal(Protocol):
    """Records which QoS 2 messages are stored and not yet released: a sink."""

    def attach(self, session: str, ledger: Attached) -> dict[int, int]:
        """From now on keep those of this session; those kept so far, packet id -> digest."""
        ...

    def forget(self, session: str) -> None:
        """Drop all of this session; durable when it returns."""
        ...

    def release(self, session: str, packet_ids: list[int]) -> None:
        """Drop these; when that is durable, call the ledger's `released`, on any thread."""
        ...


class ExactlyOnce:
    """The QoS 2 messages of one ledger whose PUBREL has not come, by packet id.

    Attributes:
        open: The packet id and the digest of each that is not settled, by its number.
    """

    def __init__(self) -> None:
        self.open: dict[int, tuple[int, int]] = {}
        self._is_single = False
        self._unclaimed: Callable[[int], None] | None = None
        self._journal: Journal | None = None
        self._session = ""
        self._numbers: dict[int, int] = {}  # packet id -> number, until settled
        self._done: dict[int, int] = {}  # packet ids of those settled -> digest
        self._older: set[int] = set()  # packet ids of both from before this connection
        self._releasing: list[int] = []  # packet ids whose PUBREL came in this pass
        self._held_up: set[int] = set()  # those whose PUBCOMP waits for the journal
        self._dropped: deque[list[int]] = deque()  # by the journal, on any thread
        self._is_telling = False  # the journal, which may answer at once
        self._completed: list[int] = []  # packet ids whose PUBCOMP may leave

    def keep(
        self,
        journal: Journal,
        session: str,
        attached: Attached,
        *,
        is_single: bool,
        unclaimed: Callable[[int], None] | None,
    ) -> None:
        """As `Ledger.keep`."""
        self._journal, self._session = journal, session
        self._is_single, self._unclaimed = is_single, unclaimed
        self._done = journal.attach(session, attached)

    # -- what the connection says -------------------------------------------------------------

    def interrupted(self) -> None:
        """A new connection begins: each PUBREL comes again on it [MQTT-4.4.0-1]."""
        self._releasing.clear()
        self._held_up.clear()
        self._completed.clear()

    def connected(self, *, session_present: bool) -> None:
        """And has its CONNACK."""
        if not session_present:
            self._numbers.clear()
            self.open.clear()  # before `forget`: no commit may claim an id of the lost session
            self._done.clear()
            if self._journal:
                self._journal.forget(self._session)
        self._older = {*self._done, *self._numbers}

    def waiting(self, packet_id: int, digest: int) -> int | None:
        """The number of this very message, if it has come and is not settled."""
        number = self._numbers.get(packet_id)
        is_same = number is not None and self.open[number][1] == digest
        return number if is_same else None

    def is_done(self, packet_id: int, digest: int, *, duplicate: bool) -> bool:
        """Whether this very message was settled; another one takes its packet id over."""
        done = self._done.get(packet_id)
        if done is None:
            return False
        if done == digest and (duplicate or packet_id not in self._older):
            return True
        del self._done[packet_id]
        self._tell([packet_id])
        return False

    def begin(self, number: int, packet_id: int, digest: int) -> None:
        """A message has come; nothing is answered of an earlier one that had its packet id."""
        self._older.discard(packet_id)
        self.open[number] = packet_id, digest
        self._numbers[packet_id] = number

    def release(self, packet_id: int) -> None:
        """As `Ledger.release`."""
        self._done.pop(packet_id, None)
        self._older.discard(packet_id)
        self._numbers.pop(packet_id, None)  # of a broker that did not wait for its PUBREC
        (self._releasing if self._journal else self._completed).append(packet_id)

    # -- what becomes of them -----------------------------------------------------------------

    def settle(self, number: int, *, may: bool) -> bool:
        """Whether PUBREC may follow: the id may have been released, or be another message's now."""
        packet_id, digest = self.open.pop(number)
        if self._numbers.get(packet_id) != number:
            return False
        del self._numbers[packet_id]
        if may:
            self._done[packet_id] = digest
        return may

    @property
    def has_news(self) -> bool:
        """True if `drop` has something to do, or has done it."""
        return bool(self._releasing or self._dropped or self._completed)

    def drop(self) -> None:
        """Have the journal drop what was released, and complete what it has dropped."""
        if self._releasing:
            packet_ids, self._releasing = self._releasing, []
            self._held_up.update(packet_ids)
            self._tell(packet_ids)
        while self._dropped:
            # Of those whose PUBREL came on another connection it comes again.
            ready = [each for each in self._dropped.popleft() if each in self._held_up]
            self._held_up.difference_update(ready)
            self._completed += ready

    def _tell(self, packet_ids: list[int]) -> None:
        if self._journal:
            self._is_telling = True
            try:
                self._journal.release(self._session, packet_ids)
            finally:
                self._is_telling = False

    def released(self, packet_ids: list[int]) -> bool:
        """The journal has dropped these; True if nobody is about to `drop`. On any thread."""
        self._dropped.append(packet_ids)
        return not self._is_telling

    def take(self) -> list[int]:
        """Take the packet ids that are completed; each once."""
        completed, self._completed = self._completed, []
        return completed

    def receipts(
        self, tokens: Sequence[Token | None], ledger: Account
    ) -> list[tuple[int, int, int]]:
        """As `Ledger.receipts`, of this ledger."""
        found: list[tuple[int, int, int]] = []
        last, others = _Held(tokens).of(ledger)
        if not self._is_single:
            for number in others:
                del last[number]
            if self._unclaimed and (held := [number for number in others if number in self.open]):
                unclaimed, self._unclaimed = self._unclaimed, None
                unclaimed(min(held))
        for number, index in last.items():
            # None: not of QoS 2, or of a session that is lost.
            if (opened := self.open.get(number)) and self._numbers.get(opened[0]) == number:
                found.append((index, *opened))
        return found


def _references(items: Sequence[object]) -> list[int]:
    return [sys.getrefcount(item) for item in items]


_BY_COUNTING: Final = _references([object()])[0] - 1


class _Held:
    """The tokens of a list that only that list holds, or results that nobody else holds."""

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

    def of(self, ledger: Account) -> tuple[dict[int, int], set[int]]:
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
        self, token: Token | None, ledger: Account, *, is_ours: bool
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
