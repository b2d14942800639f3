"""The state of a subscription: the filters that stand, and those to ask for next. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple, TypeVar

from rxflow.mqtt.sessions import Session

REFUSED: Final = 0x80
_HEADER: Final = 8  # bytes of a SUBSCRIBE or UNSUBSCRIBE: type and length, packet id, no properties
_AROUND: Final = 3  # bytes of a filter besides its name: its length, its options
_PERHAPS_TOO_MANY: Final = (0x80, 0x83, 0x97)  # unspecified, implementation specific, quota

T = TypeVar("T")


class Ask(NamedTuple):
    """A filter of a SUBSCRIBE.

    Attributes:
        retained: Whether to send retained messages if the session has this filter already.
    """

    name: str
    qos: int
    retained: bool


class TooLargeError(ValueError):
    """A filter alone is more than the broker takes in a packet."""


class Subscribing:
    """The filters of one source, over all its connections.

    A subscription stands after its SUBACK, not before [MQTT-3.8.4-1]. So MQTT 5 is asked on every
    connection, which sends no retained message twice; 3.1.1 would send all of them again, so there
    only what has no SUBACK yet is asked for.

    Args:
        wanted: Each topic filter with its QoS.
        session: What is known of the session.
        most: Filters in one packet at most.
    """

    def __init__(self, wanted: Mapping[str, int], session: Session, most: int) -> None:
        self._wanted = wanted
        self._session = session
        self._most = most
        self._unanswered: set[str] = set()  # asked for in this process, without a SUBACK
        self._asked: dict[int, list[Ask]] = {}  # by packet id, on this connection
        self._unheard = 0  # connections in a row that were lost before SUBACK
        self._dropping: dict[int, list[str]] = {}  # likewise, of UNSUBSCRIBE
        # What is written down of an id that the user chose, another program may have changed since.
        self._standing = {} if session.is_given else dict(session.subscribed)

    @property
    def gone(self) -> list[str]:
        """Filters that the session may have and nobody wants any more."""
        return [name for name in self._session.filters if name not in self._wanted]

    @property
    def is_complete(self) -> bool:
        """True when each SUBSCRIBE of this connection has its SUBACK."""
        return not self._asked

    def connected(self, at: datetime, *, session_present: bool, is_5: bool) -> list[Ask]:
        """A connection stands; return what is to be subscribed on it."""
        self._asked.clear()
        self._dropping.clear()
        if not session_present:
            self._standing.clear()
        asks = [
            Ask(name, qos, not session_present or name in self._unanswered)
            for name, qos in self._wanted.items()
            if is_5 or self._standing.get(name) != qos
        ]
        self._session.connected(at, {a.name: a.qos for a in asks}, session_present=session_present)
        return asks

    def subscribe(
        self, asks: Sequence[Ask], send: Callable[[Sequence[Ask]], int], most_bytes: int
    ) -> None:
        """Send as many SUBSCRIBE as the broker's limits ask for.

        Args:
            asks: What to ask for.
            send: Sends one and returns its packet id.
            most_bytes: Of one packet.

        Raises:
            TooLargeError: Not even one filter has room.
        """
        for packet in split(asks, lambda ask: ask.name, self._most, most_bytes):
            self._unanswered.update(ask.name for ask in packet)
            self._asked[send(packet)] = packet

    def answered(self, mid: int, codes: Sequence[int]) -> Iterator[tuple[Ask, int, bool]] | None:
        """SUBACK has come: each filter with its code, and whether to ask for it once more, alone.

        None if this answers nothing that was asked here.

        Raises:
            ValueError: It has not one code for each filter.
        """
        packet = self._asked.pop(mid, None)
        if packet is None:
            return None
        if len(packet) != len(codes):
            raise ValueError(f"a SUBACK with {len(codes)} codes for {len(packet)} filters")
        granted = {a.name: a.qos for a, code in zip(packet, codes, strict=True) if code < REFUSED}
        self._unanswered.difference_update(granted)
        self._standing.update(granted)
        self._session.stands(granted)
        is_alone = len(packet) == 1
        return iter(
            [
                (ask, code, not is_alone and code in _PERHAPS_TOO_MANY)
                for ask, code in zip(packet, codes, strict=True)
            ]
        )

    def alone(self, ask: Ask, send: Callable[[Sequence[Ask]], int]) -> None:
        """Ask for one filter in a packet of its own."""
        self._asked[send([ask])] = [ask]

    def unsubscribe(self, send: Callable[[Sequence[str]], int], most_bytes: int) -> None:
        """Send UNSUBSCRIBE for what is gone; all that is wanted stands by now."""
        for packet in split(self.gone, lambda name: name, self._most, most_bytes):
            self._dropping[send(packet)] = packet

    def unsubscribed(self, mid: int, codes: Sequence[int]) -> list[str]:
        """UNSUBACK has come; return the filters that it answers. What it refuses stays gone.

        Args:
            mid: Its packet id.
            codes: One for each filter; none on MQTT 3.1.1, which knows no refusal.

        Raises:
            ValueError: It has not one code for each filter.
        """
        names = self._dropping.pop(mid, [])
        if codes and names and len(names) != len(codes):
            raise ValueError(f"an UNSUBACK with {len(codes)} codes for {len(names)} filters")
        refused = {name for name, code in zip(names, codes, strict=False) if code >= REFUSED}
        if dropped := [name for name in names if name not in refused]:
            self._session.dropped(dropped)
        return names

    def lost(self) -> int:
        """The connection is lost.

        Returns:
            If a SUBSCRIBE of several filters had no answer, and the one before had none: how many
            filters it may have from now on, for some brokers close if there are too many. Else 0.
        """
        largest = max(map(len, self._asked.values()), default=0)
        self._asked.clear()
        self._dropping.clear()
        self._unheard = self._unheard + 1 if largest > 1 else 0
        if self._unheard < 2:  # noqa: PLR2004 (once is chance)
            return 0
        self._most = largest // 2
        return self._most


def split(
    items: Iterable[T], name: Callable[[T], str], most: int, most_bytes: int
) -> Iterator[list[T]]:
    """Packets of at most so many filters, and bytes.

    Raises:
        TooLargeError: Not even one filter has room; the text names it.
    """
    packet: list[T] = []
    size = _HEADER
    for item in items:
        own = len(name(item).encode()) + _AROUND
        if _HEADER + own > most_bytes:
            raise TooLargeError(name(item))
        if packet and (len(packet) == most or size + own > most_bytes):
            yield packet
            packet, size = [], _HEADER
        packet.append(item)
        size += own
    if packet:
        yield packet
