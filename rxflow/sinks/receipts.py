"""The sink's side of exactly once: it asks for receipts, and has them written with the rows."""

from __future__ import annotations

import threading
from asyncio import AbstractEventLoop, get_running_loop
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

from rxflow.delivery import Token
from rxflow.delivery.exactly_once import Attached
from rxflow.process.forked import tell_in_child
from rxflow.sinks.contracts import ExactlyOnceStore, Receipt
from rxflow.sinks.group_commit import GroupCommit

T = TypeVar("T")

_WRITING: Final = "writing its receipts"


class _Session:
    __slots__ = ("attached", "stored")

    def __init__(self, attached: Attached, stored: set[int]) -> None:
        self.attached = attached
        self.stored = stored  # packet ids whose receipts the store has


class Receipts:
    """The receipts of QoS 2 messages in a store that the broker has not yet released.

    Args:
        store: Keeps them.
        group: Commits into it; its worker makes all calls.
        failed: Called on the loop with what could not be dropped.
    """

    def __init__(
        self, store: ExactlyOnceStore[Any], group: GroupCommit, failed: Callable[[Exception], None]
    ) -> None:
        self._store = store
        self._group = group
        self._failed = failed
        self._sessions: dict[str, _Session] = {}
        self._releases: deque[tuple[str, list[int]]] = deque()
        self._is_dropping = False
        self.forked()
        tell_in_child(self)

    def forked(self) -> None:
        """In a forked child another thread may have held the lock, which that one never frees."""
        self._alone = threading.Lock()  # rows that come on a thread without a loop need no worker

    def attach(self, session: str, ledger: Attached) -> dict[int, int]:
        """Keep receipts of this session from now on.

        To be called on an open sink, before the first message of a connection.

        Args:
            session: Names the broker and the client id.
            ledger: Knows what the deliveries of this session are.

        Returns:
            The digest of each message that is stored and not released, by its packet id.

        Raises:
            SinkError: The store can't be read or written.
        """
        known = dict(self._call(partial(self._store.receipts, session)))
        self._sessions.pop(session, None)
        self._sessions[session] = _Session(ledger, set(known))
        return known

    def forget(self, session: str) -> None:
        """The broker forgot this session. To be called before the first message of the new one.

        Raises:
            SinkError: The store can't be written.
        """
        self._call(partial(self._store.forget, session))
        if found := self._sessions.get(session):
            found.stored.clear()

    def release(self, session: str, packet_ids: list[int]) -> None:
        """PUBREL came: drop these, durably, and then tell the ledger. On the loop's thread.

        A sink that is closed tells nothing: the broker asks again, and the next sink answers.
        """
        found = self._sessions.get(session)
        if found is None:
            return
        if found.stored.isdisjoint(packet_ids):
            found.attached.released(packet_ids)  # filtered, or not among these rows
            return
        self._releases.append((session, packet_ids))
        if not self._is_dropping:
            self._is_dropping = True
            loop = get_running_loop()
            self._group.behind(lambda: self._drop_on_worker(loop))

    def commit(self, rows: Sequence[Any], tokens: Sequence[Token | None]) -> None:
        """Make rows durable, with the receipts of those that are all of a QoS 2 message."""
        with self._alone:
            self._drop()
            receipts = self._claimed(tokens)
            if not receipts:
                self._store.commit(rows)
                return
            self._store.commit(rows, receipts)
            for receipt in receipts:
                self._sessions[receipt.session].stored.add(receipt.packet_id)

    def close(self) -> None:
        """Nothing is told any more."""
        self._sessions.clear()
        self._releases.clear()

    def _claimed(self, tokens: Sequence[Token | None]) -> list[Receipt]:
        found = [
            Receipt(row, name, packet_id, digest)
            for name, session in list(self._sessions.items())
            for row, packet_id, digest in session.attached.receipts(tokens)
        ]
        found.sort()
        return found

    def _drop(self) -> None:
        """Drop what was released by now, each session's at once."""
        by_session: dict[str, list[int]] = {}
        for _ in range(len(self._releases)):
            name, packet_ids = self._releases.popleft()
            by_session.setdefault(name, []).extend(packet_ids)
        for name, packet_ids in by_session.items():
            self._store.release(name, packet_ids)
            if found := self._sessions.get(name):
                found.stored.difference_update(packet_ids)
                found.attached.released(packet_ids)

    def _drop_on_worker(self, loop: AbstractEventLoop) -> None:
        """Unless a commit did it on its way."""
        self._is_dropping = False
        try:
            with self._alone:
                self._drop()
        except Exception as error:  # noqa: BLE001 (a store of the user's)
            with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
                loop.call_soon_threadsafe(self._failed, error)

    def _call(self, act: Callable[[], T]) -> T:
        def alone() -> T:
            with self._alone:
                return act()

        return self._group.call(alone, _WRITING)
