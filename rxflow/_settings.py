"""How a client connects, what it is answered, and the wire that follows from it."""

from __future__ import annotations

import socket
import ssl
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, NamedTuple

from rxflow._websocket import WebSocket
from rxflow._wire import Plain, Receiver, Stream, Wire
from rxflow.address import Address

SILENCE: Final = 5.0
"""Seconds that TCP, TLS and the broker's answer to CONNECT may take, each."""


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes if this client is lost without a DISCONNECT.

    Attributes:
        topic: No wildcard.
        payload: Bytes as they are to be sent.
        qos: 0, 1 or 2.
        retain: Whether the broker keeps it for later subscribers.
    """

    topic: str
    payload: bytes = b""
    qos: int = 0
    retain: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """How a client connects. Times are seconds."""

    address: Address
    client_id: str
    is_durable: bool = False
    session_expiry: int = 0
    keep_alive: int = 30
    connect_timeout: float | None = None
    max_pending: int = 10_000
    max_packet_bytes: int = 1024 * 1024
    will: Will | None = None
    tls: ssl.SSLContext | None = field(default=None, repr=False)


class Answer(NamedTuple):
    """What CONNACK said."""

    code: int
    text: str
    is_refusal: bool
    session_present: bool
    keep_alive: int | None
    receive_maximum: int
    maximum_packet_bytes: int


def open_wire(
    tcp: socket.socket, settings: Settings, receiver: Receiver, *, version5: bool
) -> Wire:
    """Make the wire on a fresh TCP connection: TLS and WebSocket as the address says."""
    address = settings.address
    tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if sys.platform == "linux" and settings.keep_alive:
        # While reading is paused no PINGRESP is seen; the kernel finds a dead peer for us.
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, settings.keep_alive * 1500)
    stream: Stream = Plain(tcp)
    if address.is_tls:
        context = settings.tls or ssl.create_default_context()
        stream = context.wrap_socket(
            tcp, server_hostname=address.host, do_handshake_on_connect=False
        )
    if address.is_websocket:
        stream = WebSocket(stream, address.host, address.port, address.path)
    return Wire(
        stream,
        receiver,
        version5=version5,
        max_packet_bytes=settings.max_packet_bytes,
        now=lambda: datetime.now(UTC),
    )
