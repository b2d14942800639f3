"""The feeder in Python, for machines without a C compiler; `feeder.c` says what it does and prints.

It keeps up with everything but the fastest readers: where it is used, the table says so.
"""

from __future__ import annotations

import os
import selectors
import socket
import sys
import time
from typing import Final

_IDS: Final = 65_535
_READ: Final = 256 * 1024
_LONGEST: Final = 120.0


class Feed:
    """The command line, and the packets that it asks for."""

    def __init__(self, arguments: list[str]) -> None:
        given = dict(each.split("=") for each in arguments)
        self.qos = int(given.get("qos", 1))
        self.count = int(given.get("count", 100_000))
        self.window = int(given.get("window", 5_000))
        self.size = int(given.get("size", 100))
        self.topics = int(given.get("topics", 1))
        self.properties = int(given.get("properties", 0))
        self.clients = int(given.get("clients", 1))
        self.port = int(given.get("port", 0))
        self.version = 4  # once a CONNECT has come, what it says
        self.ring = memoryview(b"")
        self.length = 0

    def make_ring(self) -> None:
        """One PUBLISH after the other, all of the same length, with the packet ids 1 ... 65,535."""
        packets = [self._packet(number) for number in range(max(_IDS, self.topics))]
        self.length = len(packets[0])
        self.ring = memoryview(b"".join(packets))

    def _packet(self, number: int) -> bytes:
        topic = "bench/kitchen" if self.topics == 1 else f"bench/{number % self.topics:07d}"
        body = _text(topic)
        if self.qos:
            body += (number % _IDS + 1).to_bytes(2)
        if self.version == 5:  # noqa: PLR2004
            pairs = (
                b"\x26" + _text(f"name{n}") + _text(f"value{n}") for n in range(self.properties)
            )
            extra = b"".join(pairs)
            body += bytes([len(extra)]) + extra
        start = '"p":"' if self.size < 70 else '"sensor":"kitchen","celsius":21.5,"ok":1,"pad":"'  # noqa: PLR2004
        head = f'{{"n":{1_000_000 + number},{start}'.encode()
        body += head + b"x" * (self.size - len(head) - 2) + b'"}'
        fixed, rest = bytearray([0x30 | self.qos << 1]), len(body)
        while True:
            fixed.append(rest & 127 | (128 if rest > 127 else 0))  # noqa: PLR2004
            rest >>= 7
            if not rest:
                return bytes(fixed) + body


def _text(text: str) -> bytes:
    return len(text).to_bytes(2) + text.encode()


class Client:
    """One connection: what was read and not parsed, what was sent, what was acknowledged."""

    def __init__(self, feed: Feed, sock: socket.socket, count: int) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(0.0)
        self.sock = sock
        self.is_gone = self.is_subscribed = self.is_full = False
        self.position = self.acked = 0
        self.control = bytearray()
        self.latency: list[float] = []
        self._feed = feed
        self._count = count
        self._read = b""
        self._sent_at = 0.0

    def receive(self) -> None:
        """Read and answer what the other side says."""
        try:
            data = self.sock.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.is_gone = not data
        data, at = self._read + data, 0
        while len(data) - at >= 2:  # noqa: PLR2004
            rest, start = data[at + 1], at + 2
            if rest > 127:  # noqa: PLR2004
                if len(data) - at < 3:  # noqa: PLR2004
                    break
                rest, start = rest & 127 | data[at + 2] << 7, at + 3
            if start + rest > len(data):
                break
            self._packet(data[at] >> 4, data[start : start + rest])
            at = start + rest
        self._read = data[at:]

    def _packet(self, kind: int, body: bytes) -> None:
        is_new = self._feed.version == 5  # noqa: PLR2004
        match kind:
            case 1:
                self._feed.version = body[6]
                self.control += b"\x20\3\0\0\0" if body[6] == 5 else b"\x20\2\0\0"  # noqa: PLR2004
            case 2:
                self.is_subscribed = True
            case 8:
                answer = body[:2] + b"\0" * is_new + bytes([self._feed.qos])
                self.control += bytes([0x90, len(answer)]) + answer
                self.is_subscribed = True
            case 4 | 7:
                self.acked += 1
                self.latency.append((time.monotonic() - self._sent_at) * 1e6)
            case 5:
                self.control += b"\x62\2" + body[:2]
            case 12:
                self.control += b"\xd0\0"
            case 14:
                self.is_gone = True

    def transmit(self) -> None:
        """Send what may be sent, whole packets of one kind before the other."""
        self.is_full = False
        length, ring = self._feed.length, self._feed.ring
        while not self.is_full and not self.is_gone:
            is_between = not length or self.position % length == 0
            if is_between and self.control:
                del self.control[: self._send(memoryview(bytes(self.control)))]
                continue
            most = self._allowed() if length else 0
            if most <= 0:
                return
            at = self.position % len(ring)
            if self.control:
                most = length - self.position % length
            self._sent_at = time.monotonic()
            self.position += self._send(
                ring[at : at + min(most, _READ // length * length or length)]
            )

    def _allowed(self) -> int:
        feed = self._feed
        most = min(self._count, self.acked + feed.window) if feed.qos else self._count
        size = most * feed.length - self.position
        is_little = size < feed.window // 8 * feed.length and self.position % feed.length == 0
        return 0 if feed.qos and most < self._count and is_little else size

    def _send(self, data: memoryview) -> int:
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.is_gone = True
            return 0
        self.is_full = sent < len(data)
        return sent


class Feeder:
    """All clients, and the door they come by."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._clients: list[Client] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        self._has_begun = self._has_ended = False
        if feed.port:
            self._adopt(socket.create_connection(("127.0.0.1", feed.port)))
            self._clients[0].control += b"\x10\x12\0\4MQTT\4\2\0\0\0\6feeder"
        else:
            self._door = socket.create_server(("127.0.0.1", 0))
            self._selector.register(self._door, selectors.EVENT_READ)
            _say("port", self._door.getsockname()[1])

    def _adopt(self, sock: socket.socket) -> None:
        feed, number = self._feed, len(self._clients)
        share = feed.count // feed.clients + (number < feed.count % feed.clients)
        self._clients.append(Client(feed, sock, share))
        self._selector.register(sock, selectors.EVENT_READ, self._clients[-1])

    def run(self) -> None:
        """Until everybody has left, or standard input closes, or it takes too long."""
        until = time.monotonic() + _LONGEST
        while time.monotonic() < until:
            for client in self._clients:
                client.transmit()
                self._watch(client)
            self._look()
            if self._has_ended and all(client.is_gone for client in self._clients):
                return
            for key, _ in self._selector.select(1.0):
                if key.fileobj == sys.stdin.fileno():
                    if not os.read(sys.stdin.fileno(), 1):
                        return
                elif key.data is None:
                    self._adopt(self._door.accept()[0])
                else:
                    key.data.receive()

    def _watch(self, client: Client) -> None:
        if client.is_gone:
            if client.sock.fileno() >= 0:
                self._selector.unregister(client.sock)
                client.sock.close()
        else:
            writes = selectors.EVENT_WRITE if client.is_full else 0
            self._selector.modify(client.sock, selectors.EVENT_READ | writes, client)

    def _look(self) -> None:
        feed, clients = self._feed, self._clients
        subscribed = sum(client.is_subscribed for client in clients)
        if not self._has_begun and subscribed == feed.clients:
            self._has_begun = True
            feed.make_ring()
            _say("begin", time.monotonic())
            for client in clients:
                client.transmit()
                self._watch(client)
        acked = sum(client.acked for client in clients)
        sent = sum(client.position // feed.length for client in clients) if feed.length else 0
        if self._has_begun and not self._has_ended and (acked if feed.qos else sent) >= feed.count:
            self._has_ended = True
            times = sorted(clients[0].latency) if feed.window == 1 and feed.qos else [0.0]
            p50, p99 = (times[len(times) * part // 100] for part in (50, 99))
            _say("end", time.monotonic(), acked, p50, p99)


def _say(*words: object) -> None:
    print(*words, flush=True)


if __name__ == "__main__":
    Feeder(Feed(sys.argv[1:])).run()
