"""A TCP proxy between a client and its broker, for what networks do."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Self

_LINGER_NOT = struct.pack("ii", 1, 0)  # close by RST


class Proxy:
    """Listens on loopback and passes bytes on to a port there, as a context manager.

    Args:
        port: Of the broker.
        version: Of MQTT, for the URL.
        remembers: Whether `Connection.sent` is of use; it takes memory.

    Attributes:
        url: Where it listens.
        connections: Every connection that a client made, in order.
        is_open: While False, a new connection is closed at once.
    """

    def __init__(self, port: int, *, version: str = "5", remembers: bool = True) -> None:
        self._target = port
        self._remembers = remembers
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self.connections: list[Connection] = []
        self.is_open = True
        self.url = f"mqtt://127.0.0.1:{self._listener.getsockname()[1]}?version={version}"

    @property
    def latest(self) -> Connection:
        return self.connections[-1]

    def __enter__(self) -> Self:
        self._spawn(self._accept)
        return self

    def __exit__(self, *error: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self.connections:
            connection.close()
        for thread in self._threads:
            thread.join()

    def _spawn(self, target, *args) -> None:
        thread = threading.Thread(target=target, args=args, name="proxy", daemon=True)
        with self._lock:
            self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                broker = socket.create_connection(("127.0.0.1", self._target), 1)
            except OSError:
                client.close()
                continue
            broker.settimeout(None)
            connection = Connection(client, broker, remembers=self._remembers)
            self.connections.append(connection)
            if not self.is_open:
                connection.close()
            self._spawn(connection.to_broker)
            self._spawn(connection.to_client)


class Connection:
    """One connection through the proxy, and the faults that it can have."""

    def __init__(
        self, client: socket.socket, broker: socket.socket, *, remembers: bool = True
    ) -> None:
        self._client, self._broker = client, broker
        self._remembers = remembers
        self._flows = threading.Event()
        self._flows.set()
        self._cuts = False
        self._lock = threading.Lock()
        self._sent = bytearray()

    # -- faults ----------------------------------------------------------------------------------

    def reset(self) -> None:
        """RST to both."""
        with self._lock:
            for end in (self._client, self._broker):
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        self.close()

    def cut_inside_a_packet(self) -> None:
        """Of what comes next from the broker, keep the last byte back, and close."""
        self._cuts = True

    @contextlib.contextmanager
    def black_hole(self) -> Iterator[None]:
        """Nothing comes through either way, until the end of the block."""
        self._flows.clear()
        try:
            yield
        finally:
            self._flows.set()

    def half_open(self) -> None:
        """The broker's side is gone; the client hears nothing of it."""
        self._flows.clear()
        self._shut(self._broker)

    # -- what was seen ---------------------------------------------------------------------------

    def sent(self, *kinds: int) -> list[tuple[int, int]]:
        """The kind and packet id of each packet of these kinds that the client sent."""
        found: list[tuple[int, int]] = []
        data, at = bytes(self._sent), 0
        while at + 2 <= len(data):
            first, length, start, shift = data[at], 0, at + 1, 0
            while True:
                length |= (data[start] & 127) << shift
                shift += 7
                start += 1
                if data[start - 1] < 128:
                    break
            if first & 0xF0 in kinds:
                found.append((first & 0xF0, int.from_bytes(data[start : start + 2])))
            at = start + length
        return found

    # -- its life --------------------------------------------------------------------------------

    @property
    def is_alive(self) -> bool:
        """True until either side has closed."""
        return self._client.fileno() >= 0 and self._broker.fileno() >= 0

    def close(self) -> None:
        self._flows.set()
        self._shut(self._client)
        self._shut(self._broker)

    @staticmethod
    def _shut(end: socket.socket) -> None:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)

    def to_broker(self) -> None:
        self._pump(self._client, self._broker, self._sent if self._remembers else bytearray())

    def to_client(self) -> None:
        self._pump(self._broker, self._client, None)

    def _pump(self, source: socket.socket, target: socket.socket, seen: bytearray | None) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                self._flows.wait()
                if seen is not None:
                    seen += data if self._remembers else b""
                elif self._cuts and len(data) > 2:
                    target.sendall(data[:-1])
                    break
                target.sendall(data)
        self._flows.wait()
        self._shut(target)
        self._shut(source)
        with self._lock:
            source.close()
