"""Tokens of one delivery for several results, and of several deliveries for one."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock

from rxflow.delivery.token import Account, Token, Uncopied


class Deliveries(Uncopied):
    """The deliveries of several messages behind one result."""

    __slots__ = ("tokens",)

    def __init__(self, tokens: Iterable[Token]) -> None:
        self.tokens = tuple(tokens)

    def take(self, taker: int) -> None:
        for token in self.tokens:
            token.take(taker)

    def store(self, touched: set[Account]) -> None:
        for token in self.tokens:
            token.store(touched)

    def fail(self, error: Exception) -> None:
        for token in self.tokens:
            token.fail(error)


class Spread(Uncopied):
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

    def take(self, taker: int) -> None:
        with self._lock:
            if not self._is_whole:
                self._takers.append(taker)
                return
        self._token.take(taker)

    def store(self, touched: set[Account]) -> None:
        with self._lock:
            if not self._is_whole:
                self._stored += 1
                return
        self._token.store(touched)

    def fail(self, error: Exception) -> None:
        self._token.fail(error)

    def complete(self) -> set[Account]:
        """All that comes of the message has been emitted. Which ledgers should settle then?"""
        touched: set[Account] = set()
        with self._lock:
            self._is_whole = True
            for taker in self._takers:
                self._token.take(taker)
            for _ in range(self._stored):
                self._token.store(touched)
        return touched
