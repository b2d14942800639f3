"""One client's connection to a broker in a diagram, from the broker's side."""

from __future__ import annotations

import socket
from typing import Final, Protocol

from rxflow.testing.broker import packets
from rxflow.testing.broker.packets import (
    CONNECT,
    DISCONNECT,
    PINGREQ,
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBSCRIBE,
    Body,
    Connect,
    Publish,
    Wish,
)
from rxflow.testing.broker.session import ProtocolError, Publication, Session
from rxflow.testing.virtual.loop import VirtualLoop

_READ: Final = 1 << 18
_TAKEN_OVER: Final = 0x8E


class Owner(Protocol):
    """The broker, as its connections see it."""

    def begun(self, connect: Connect) -> tuple[Session, bool]:
        """The session of a client, and whether it was there."""
        ...

    def grant(self, session: Session, wish: Wish) -> tuple[int, list[Publication]]:
        """Grant a filter: the reason code, and the retained messages that follow."""
        ...

    def acknowledge(self, publication: Publication) -> None:
        """The client has acknowledged this."""
        ...

    def note(self, publish: Publish) -> None:
        """The client has published this."""
        ...

    def ended(self, connection: Connection) -> None:
        """The connection is gone."""
        ...


class Connection:
    """One client's connection, from the broker's side.

    Attributes:
        session: Whose it is, since CONNECT.
        is_over: Set when the diagram begins anew: nothing but the end is of interest.
    """

    def __init__(self, sock: socket.socket, loop: VirtualLoop, broker: Owner) -> None:
        self.session: Session | None = None
        self.is_over = False
        self._sock = sock
        self._loop = loop
        self._broker = broker
        self._version = 0
        self._data = bytearray()
        self._out = bytearray()
        self._received2: set[int] = set()  # packet ids of QoS 2 from the client, until PUBREL
        sock.settimeout(0)
        loop.resources.callback(sock.close)
        loop.add_reader(sock, self._readable)

    def close(self) -> None:
        """Close it. Safe to call more than once."""
        if self._sock.fileno() < 0:
            return
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        self._broker.ended(self)

    def give_way(self) -> None:
        """Another connection has taken the session over [MQTT-3.1.4-3]."""
        if self._version >= packets.VERSION_5:
            self.send(packets.packet(DISCONNECT, bytes([_TAKEN_OVER, 0])))
        self.close()

    def send(self, data: bytes) -> None:
        """Send, now or when the client reads again."""
        self._out += data
        self._flush()

    def _flush(self) -> None:
        try:
            while self._out:
                del self._out[: self._sock.send(self._out)]
        except BlockingIOError:
            self._loop.add_writer(self._sock, self._flush)
        except OSError:
            self.close()
        else:
            self._loop.remove_writer(self._sock)

    def _readable(self) -> None:
        try:
            data = self._sock.recv(_READ)
        except OSError:
            data = b""
        self._data += data
        for first, body in packets.whole(self._data):
            self._take(first, body)
        if not data:
            self.close()

    def _take(self, first: int, body: Body) -> None:  # noqa: C901 (one line for each packet)
        kind = first & 0xF0
        session = self.session
        if kind == DISCONNECT:
            self.close()
        elif self.is_over:
            return
        elif kind == PINGREQ:
            self.send(packets.packet(PINGRESP))
        elif kind == CONNECT:
            self._connect(body)
        elif session is None:
            raise ProtocolError(f"a packet of kind {kind:#x} before CONNECT")
        elif kind == SUBSCRIBE:
            self._subscribe(session, body)
        elif kind in {PUBACK, PUBREC, PUBCOMP}:
            if publication := session.answered(kind, body.number(2)):
                self._broker.acknowledge(publication)
        elif kind == PUBLISH:
            self._receive(packets.read_publish(first, body, self._version))
        elif kind == PUBREL:
            packet_id = body.number(2)
            self._received2.discard(packet_id)
            self.send(packets.answer(PUBCOMP, packet_id))
        else:
            raise ProtocolError(f"a packet of kind {kind:#x}, which this broker does not know")

    def _connect(self, body: Body) -> None:
        connect = packets.read_connect(body)
        self._version = connect.version
        self.session, is_there = self._broker.begun(connect)
        self.send(packets.connack(connect.version, session_present=is_there))
        self.session.connected(connect.version, connect.receive_maximum, self.send)

    def _subscribe(self, session: Session, body: Body) -> None:
        packet_id, wishes = packets.read_subscribe(body, self._version)
        granted = [self._broker.grant(session, wish) for wish in wishes]
        self.send(packets.suback(self._version, packet_id, [code for code, _ in granted]))
        for code, retained in granted:
            for publication in retained:
                session.give(publication, code, retain=True)

    def _receive(self, publish: Publish) -> None:
        """Take a message from the client; one of QoS 2 that it sends again, once."""
        is_again = publish.qos > 1 and publish.packet_id in self._received2
        if not is_again:
            self._broker.note(publish)
        if publish.qos == 1:
            self.send(packets.answer(PUBACK, publish.packet_id))
        elif publish.qos:
            self._received2.add(publish.packet_id)
            self.send(packets.answer(PUBREC, publish.packet_id))
