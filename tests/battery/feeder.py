"""A broker that sends as fast as the socket takes it, and never stops."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
from typing import Self

_AT_ONCE = 64 * 1024


class EndlessBroker:
    """Serves one subscriber after the other with PUBLISH of QoS 1, as a context manager.

    It ignores Receive Maximum and keeps no message: packet ids go round, acknowledged or not.
    MQTT 3.1.1.

    Args:
        count: How many to send in all; then it is silent. None: without end.
        payload_bytes: Length of each payload, a JSON string.

    Attributes:
        connections: How many there were.
        sent: PUBLISH packets that went into the socket.
        acknowledged: PUBACKs that came.
    """

    def __init__(self, *, count: int | None, payload_bytes: int = 100) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.1)
        self._count = count
        self._payload = b'"' + b"x" * (payload_bytes - 2) + b'"'
        self._is_stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feeder", daemon=True)
        self.connections = self.sent = self.acknowledged = 0
        self.url = f"mqtt://127.0.0.1:{self._listener.getsockname()[1]}?version=3.1.1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_stopped.set()
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        while not self._is_stopped.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = self._listener.accept()
                self.connections += 1
                with connection, contextlib.suppress(ConnectionError):
                    self._serve(connection)

    def _chunk(self, left: int) -> tuple[bytes, int]:
        name = b"battery/n"
        length = 2 + len(name) + 2 + len(self._payload)
        digits = bytearray()
        while True:
            length, digit = divmod(length, 128)
            digits.append(digit | (0x80 if length else 0))
            if not length:
                break
        head = b"\x32" + bytes(digits) + struct.pack("!H", len(name)) + name
        packet = len(head) + 2 + len(self._payload)
        number = min(max(1, _AT_ONCE // packet), left)
        ids = ((self.sent + n) % 65_535 + 1 for n in range(number))
        return b"".join(head + struct.pack("!H", i) + self._payload for i in ids), number

    def _serve(self, connection: socket.socket) -> None:
        connection.setblocking(False)  # noqa: FBT003 (the socket's own)
        received, out, in_out, is_subscribed = bytearray(), bytearray(), 0, False
        with selectors.DefaultSelector() as selector:
            selector.register(connection, selectors.EVENT_READ)
            while not self._is_stopped.is_set():
                if not out and is_subscribed:
                    self.sent += in_out
                    left = _AT_ONCE if self._count is None else self._count - self.sent
                    chunk, in_out = self._chunk(left) if left > 0 else (b"", 0)
                    out += chunk
                wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if out else 0)
                selector.modify(connection, wanted)
                for _, events in selector.select(0.1):
                    if events & selectors.EVENT_READ:
                        data = connection.recv(_AT_ONCE)
                        if not data:
                            return
                        received += data
                        for answer in self._answers(received):
                            out += answer
                            is_subscribed = is_subscribed or answer[0] == 0x90
                    if events & selectors.EVENT_WRITE:
                        with contextlib.suppress(BlockingIOError):
                            del out[: connection.send(out)]

    def _answers(self, data: bytearray):
        """What the whole packets in it ask for; they are taken out of it."""
        at = 0
        while at + 2 <= len(data):
            length, start = data[at + 1], at + 2
            if length > 127:
                if start >= len(data):
                    break
                length, start = length & 127 | data[start] << 7, start + 1
            if start + length > len(data):
                break
            kind = data[at] & 0xF0
            if kind == 0x40:
                self.acknowledged += 1
            elif kind == 0x10:
                yield b"\x20\2\0\0"
            elif kind == 0x80:
                yield b"\x90\3" + data[start : start + 2] + b"\1"
            elif kind == 0xC0:
                yield b"\xd0\0"
            at = start + length
        del data[:at]
