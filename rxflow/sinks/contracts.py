"""The store of a sink, which makes rows durable: a seam."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

Row = TypeVar("Row", contravariant=True)  # noqa: PLC0105 (what it is a row of is the store's)


class Receipt(NamedTuple):
    """Says that a row of a commit is all of one QoS 2 message.

    Attributes:
        row: Its index in the commit.
        session: Names broker and client id.
        packet_id: Names the message until the broker releases it.
        digest: Of topic and payload, so that another message with that id is told from it.
    """

    row: int
    session: str
    packet_id: int
    digest: int


@runtime_checkable
class Store(Protocol[Row]):
    """A store makes rows durable. One call at a time, never on the loop's thread.

    Any exception that a method raises is a `SinkError` of its sink, with that exception as cause.
    """

    def open(self) -> None:
        """Connect, lock, recover: whatever comes before the first commit."""
        ...

    def commit(self, rows: Sequence[Row], /) -> None:
        """Make all of these durable before this returns; if it raises, none is acknowledged.

        After an error the sink has failed, and `close` follows.
        """
        ...

    def close(self) -> None:
        """Let go of everything. Called once `open` was, and after an error, too."""
        ...


@runtime_checkable
class ExactlyOnceStore(Protocol[Row]):
    """A store that keeps receipts with the rows: what is stored once at QoS 2 is stored once only.

    A receipt is durable if, and only if, its row is: both go into one transaction.
    """

    def open(self) -> None:
        """As of `Store`."""
        ...

    def commit(self, rows: Sequence[Row], receipts: Sequence[Receipt] = (), /) -> None:
        """As of `Store`, with the receipts of these rows, each row's at most once."""
        ...

    def receipts(self, session: str, /) -> Mapping[int, int]:
        """Return what of a session is stored and not released: packet id -> digest."""
        ...

    def release(self, session: str, packet_ids: Sequence[int], /) -> None:
        """Drop these receipts, durably: the broker may use the packet ids again."""
        ...

    def forget(self, session: str, /) -> None:
        """Drop all receipts of a session, durably: the broker has forgotten it."""
        ...

    def close(self) -> None:
        """As of `Store`."""
        ...
