"""A broker's session of one client: the sender of QoS 1 and 2 [MQTT-4.3, 4.4].

Pure: it is told what comes and asks for bytes to be sent; it knows no socket and no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from rxflow.mqtt.topics import matcher
from rxflow.testing.broker import packets
from rxflow.testing.broker.packets import PUBACK, PUBCOMP, PUBREC, PUBREL

_LAST_ID: Final = 0xFFFF


class ProtocolError(AssertionError):
    """The client did what the standard forbids."""


@dataclass(frozen=True, slots=True)
class Publication:
    """A message as it was published.

    Attributes:
        key: That of its marble, or empty.
    """

    topic: str
    payload: bytes
    qos: int
    key: str = ""


@dataclass(slots=True)
class _Sending:
    """A message of QoS 1 or 2 on its way: until PUBACK, or until PUBREC and then PUBCOMP."""

    publication: Publication
    qos: int
    retain: bool
    is_received: bool = False  # PUBREC has come: only PUBREL may be sent


@dataclass(slots=True)
class Session:
    """One client's subscriptions and what it has not acknowledged.

    Attributes:
        client_id: Whose it is.
        expiry: Seconds that it outlives its connection.
        filters: The QoS granted to each filter.
        in_flight: What was sent and not acknowledged, by packet id, in order.
        waiting: What may not be sent yet.
    """

    client_id: str
    expiry: float = 0.0
    filters: dict[str, int] = field(default_factory=dict[str, int])
    in_flight: dict[int, _Sending] = field(default_factory=dict[int, _Sending])
    waiting: deque[_Sending] = field(default_factory=deque[_Sending])
    _send: Callable[[bytes], object] | None = None
    _version: int = 0
    _receive_maximum: int = _LAST_ID
    _last_id: int = 0

    # -- the connection -------------------------------------------------------------------------

    def connected(
        self, version: int, receive_maximum: int, send: Callable[[bytes], object]
    ) -> None:
        """Send again what is not acknowledged, in order, with the same ids [MQTT-4.4.0-1]."""
        self._version, self._receive_maximum, self._send = version, receive_maximum, send
        for packet_id, sending in self.in_flight.items():
            if sending.is_received:
                send(packets.answer(PUBREL, packet_id))
            else:
                self._publish(sending, packet_id, duplicate=True)
        self._send_waiting()

    def disconnected(self) -> None:
        """Keep what is owed; what is QoS 0 is gone."""
        self._send = None

    # -- messages -------------------------------------------------------------------------------

    def offer(self, publication: Publication) -> None:
        """A message was published: send it, if it is wanted, once and as well as any filter."""
        granted = [q for name, q in self.filters.items() if matcher([name])(publication.topic)]
        if granted:
            self.give(publication, max(granted), retain=False)

    def give(self, publication: Publication, granted: int, *, retain: bool) -> None:
        """Send a message with the QoS that publisher and subscriber both want."""
        qos = min(publication.qos, granted)
        sending = _Sending(publication, qos, retain)
        if qos:
            self.waiting.append(sending)
            self._send_waiting()
        elif self._send:
            self._publish(sending, 0, duplicate=False)

    def _send_waiting(self) -> None:
        """Send while the client's Receive Maximum allows it [MQTT-3.3.4-9]."""
        while self._send and self.waiting and len(self.in_flight) < self._receive_maximum:
            sending = self.waiting.popleft()
            packet_id = self._next_id()
            self.in_flight[packet_id] = sending
            self._publish(sending, packet_id, duplicate=False)

    def _next_id(self) -> int:
        while True:
            self._last_id = self._last_id % _LAST_ID + 1
            if self._last_id not in self.in_flight:
                return self._last_id

    def _publish(self, sending: _Sending, packet_id: int, *, duplicate: bool) -> None:
        if self._send:
            self._send(
                packets.publish(
                    self._version,
                    sending.publication.topic,
                    sending.publication.payload,
                    qos=sending.qos,
                    retain=sending.retain,
                    duplicate=duplicate,
                    packet_id=packet_id,
                )
            )

    # -- acknowledgements -----------------------------------------------------------------------

    def answered(self, kind: int, packet_id: int) -> Publication | None:
        """PUBACK, PUBREC or PUBCOMP has come.

        Returns:
            The message that this acknowledges: with PUBACK, or with PUBREC.

        Raises:
            ProtocolError: There is nothing to be answered so.
        """
        sending = self.in_flight.get(packet_id)
        if sending is None or _owed(sending) != kind:
            name = {PUBACK: "PUBACK", PUBREC: "PUBREC", PUBCOMP: "PUBCOMP"}[kind]
            raise ProtocolError(
                f"{name} for packet id {packet_id}, which waits for none: it was acknowledged "
                "twice, too early, or on the wrong connection"
            )
        if kind == PUBREC:
            sending.is_received = True
            if self._send:
                self._send(packets.answer(PUBREL, packet_id))
            return sending.publication
        del self.in_flight[packet_id]
        self._send_waiting()
        return sending.publication if kind == PUBACK else None


def _owed(sending: _Sending) -> int:
    """Return the packet that must come next."""
    if sending.qos == 1:
        return PUBACK
    return PUBCOMP if sending.is_received else PUBREC
