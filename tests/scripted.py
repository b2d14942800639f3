"""A broker that does what a test says, packet by packet: for what no real broker does on cue."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Self

CONNECT, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 0x10, 0x30, 0x40, 0x50, 0x60, 0x70
SUBSCRIBE, UNSUBSCRIBE, PINGREQ, DISCONNECT = 0x80, 0xA0, 0xC0, 0xE0


def publish(topic: str, payload: bytes = b"1", qos: int = 1, packet_id: int = 1, flags: int = 0):
    """The bytes of a PUBLISH of MQTT 3.1.1."""
    name = topic.encode(errors="surrogateescape")
    identifier = packet_id.to_bytes(2) if qos else b""
    return packet(PUBLISH | qos << 1 | flags, len(name).to_bytes(2) + name + identifier + payload)


def packet(first: int, body: bytes) -> bytes:
    """One packet of any kind."""
    length, encoded = len(body), bytearray()
    while True:
        length, digit = divmod(length, 128)
        encoded.append(digit | (0x80 if length else 0))
        if not length:
            return bytes([first]) + bytes(encoded) + body


class Conversation:
    """One connection, from the broker's side. Every wait ends after a minute."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._connection.settimeout(60)
        self.connect = b""

    def accept(self, *, session_present: bool = False, version: int = 3) -> None:
        """Read CONNECT, answer CONNACK."""
        _, self.connect = self.expect(CONNECT)
        self.send(packet(0x20, bytes([session_present, 0]) + b"\0" * (version == 5)))

    def accept_subscription(self, *codes: int, version: int = 3) -> None:
        """Read SUBSCRIBE, answer SUBACK."""
        _, body = self.expect(SUBSCRIBE)
        answer = body[:2] + b"\0" * (version == 5) + bytes(codes or (1,))
        self.send(packet(0x90, answer))

    def expect(self, kind: int) -> tuple[int, bytes]:
        """The next packet that is no PINGREQ; it must be of this kind."""
        while True:
            first, body = self.read()
            if first & 0xF0 == PINGREQ:
                self.send(b"\xd0\x00")
                continue
            assert first & 0xF0 == kind, f"expected {kind:#x}, got {first:#x} {body!r}"
            return first, body

    def packet_ids(self, kind: int, count: int) -> list[int]:
        """Those of the next packets, all of this kind."""
        return [int.from_bytes(self.expect(kind)[1][:2]) for _ in range(count)]

    def send(self, data: bytes) -> None:
        """Send bytes, whole packets or not."""
        self._connection.sendall(data)

    def read(self) -> tuple[int, bytes]:
        """The next packet. ConnectionError at the end of the stream."""
        first = self._exactly(1)[0]
        length = shift = 0
        while True:
            digit = self._exactly(1)[0]
            length |= (digit & 127) << shift
            shift += 7
            if digit < 128:
                return first, self._exactly(length)

    def read_to_end(self) -> list[int]:
        """The kinds of all packets until the client closes."""
        kinds: list[int] = []
        try:
            while True:
                kinds.append(self.read()[0] & 0xF0)
        except ConnectionError:
            return kinds

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            chunk = self._connection.recv(count - len(data))
            if not chunk:
                raise ConnectionError("closed by the client")
            data += chunk
        return data


class ScriptedBroker:
    """Listens on loopback; each connection gets the next script, which runs to its end.

    What a script raises, an assertion among it, is raised at the end of the `with` block.
    """

    def __init__(self, *scripts: Callable[[Conversation], object]) -> None:
        self._scripts = scripts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(60)
        self._error: BaseException | None = None
        self._is_leaving = False
        self._thread = threading.Thread(target=self._run, name="scripted broker", daemon=True)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"mqtt://127.0.0.1:{self.port}?version=3.1.1"

    def leave(self) -> None:
        """Run no script that has not begun."""
        self._is_leaving = True
        socket.create_connection(("127.0.0.1", self.port)).close()

    def _run(self) -> None:
        try:
            for script in self._scripts:
                connection, _ = self._listener.accept()
                if self._is_leaving:
                    connection.close()
                    return
                with connection:
                    script(Conversation(connection))
        except BaseException as error:  # noqa: BLE001 (raised in the test's own thread)
            self._error = error

    def join(self) -> None:
        """Wait until the last script has ended."""
        self._thread.join(90)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._thread.join(90)
        self._listener.close()
        if self._error is not None:
            raise self._error
        assert kind is not None or not self._thread.is_alive(), "the script did not end"
