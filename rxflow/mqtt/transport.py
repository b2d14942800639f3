"""The wire on a fresh connection: TCP as it should be, TLS, WebSocket."""

from __future__ import annotations

import socket
import sys
from asyncio import AbstractEventLoop
from collections.abc import Callable

from rxflow.mqtt.settings import Settings
from rxflow.mqtt.websocket import WebSocket
from rxflow.mqtt.wire import Receiver, Stream, Wire
from rxflow.process.environment import environment_of
from rxflow.process.forked import close_in_child


class Plain:
    """A TCP socket as a `Stream`."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.recv = sock.recv
        self.send = sock.send
        self.close = sock.close
        self.fileno = sock.fileno
        self.settimeout = sock.settimeout

    def pending(self) -> int:
        return 0

    def do_handshake(self) -> None:
        return


def open_wire(  # noqa: PLR0913 (each is one fact)
    sock: socket.socket,
    settings: Settings,
    receiver: Receiver,
    passed: Callable[[int], object],
    loop: AbstractEventLoop,
    *,
    is_5: bool,
) -> Wire:
    """Make the wire on a fresh connection: TLS and WebSocket as the address says.

    Args:
        sock: TCP, or of a Unix socket.
        settings: How to connect.
        receiver: Who gets the messages.
        passed: As for `Wire`.
        loop: Whose time and date the wire goes by.
        is_5: True on MQTT 5.

    Raises:
        OSError: A file of TLS can't be used now.
    """
    address = settings.address
    if not address.is_unix:
        _tune(sock, settings.keep_alive)
    stream: Stream = Plain(sock)
    close_in_child(sock)
    if address.is_tls:
        # Made for each connection: certificates are renewed while we run.
        stream = secured = settings.tls().wrap_socket(
            sock, server_hostname=address.tls_name, do_handshake_on_connect=False
        )
        close_in_child(secured)  # which has taken the descriptor over
    if address.is_websocket:
        stream = WebSocket(
            stream, address.host, address.port, address.target, headers=settings.headers
        )
    return Wire(
        stream,
        receiver,
        passed,
        is_5=is_5,
        max_packet_bytes=settings.max_packet_bytes,
        max_pending=settings.max_pending,
        max_pending_bytes=settings.max_pending_bytes,
        now=environment_of(loop).utc,
        clock=loop.time,
    )


def _tune(tcp: socket.socket, keep_alive: int) -> None:
    tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if sys.platform == "linux" and keep_alive:
        # While reading is paused no PINGRESP is seen; the kernel finds a dead peer for us.
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, keep_alive * 1500)
