"""The delivery of a message that became several: stored once all of them are."""

from __future__ import annotations

from threading import Lock
from typing import Any

from rxflow.delivery import Ledger, Token


class Spread:
    """One delivery behind the results of a stream, which is whole when the stream has completed.

    A stream that is cut off has emitted a part of its message. What sinks take and store of it is
    told to the delivery only when the stream completes: until then the message counts as not
    stored, and where the ledger is closed by then, the broker will send it again.
    """

    __slots__ = ("_is_whole", "_lock", "_stored", "_takers", "_token")

    def __init__(self, token: Token) -> None:
        self._token = token
        self._is_whole = False
        self._takers: list[int] = []
        self._stored = 0
        self._lock = Lock()  # a sink may store on a thread of its own

    def __copy__(self) -> Spread:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Spread:
        return self

    def take(self, taker: int) -> None:
        with self._lock:
            if not self._is_whole:
                self._takers.append(taker)
                return
        self._token.take(taker)

    def store(self, touched: set[Ledger]) -> None:
        with self._lock:
            if not self._is_whole:
                self._stored += 1
                return
        self._token.store(touched)

    def fail(self, error: Exception) -> None:
        self._token.fail(error)

    def complete(self) -> set[Ledger]:
        """All that comes of the message has been emitted. Which ledgers should settle then?"""
        touched: set[Ledger] = set()
        with self._lock:
            self._is_whole = True
            for taker in self._takers:
                self._token.take(taker)
            for _ in range(self._stored):
                self._token.store(touched)
        return touched
