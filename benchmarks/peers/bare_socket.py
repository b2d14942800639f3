"""A bare socket that decodes PUBLISH in Python and acknowledges each read pass: the limit."""

import socket
import struct
from collections.abc import Callable

from shared import Task, done

READ = 256 * 1024


def main() -> None:
    """Connect, subscribe, count."""
    task = Task.from_arguments()
    seen = 0

    def on_next(_topic: str, _payload: bytes, _qos: int) -> None:
        nonlocal seen
        seen += 1
        if seen == task.count:
            done()

    sock = socket.create_connection(("127.0.0.1", task.port))
    sock.sendall(b"\x10\x11\x00\x04MQTT\x04\x02\x00\x00\x00\x05bench")
    _exactly(sock, 4)
    sock.sendall(b"\x82\x0c\x00\x01\x00\x07bench/#" + bytes([task.qos]))
    _exactly(sock, 5)
    left = b""
    while data := sock.recv(READ):
        left, ids = _decode(left + data, on_next)
        if ids:
            sock.sendall(struct.pack(f"!{len(ids)}I", *ids))


def _exactly(sock: socket.socket, count: int) -> None:
    while count:
        count -= len(sock.recv(count))


def _decode(data: bytes, on_next: Callable[[str, bytes, int], None]) -> tuple[bytes, list[int]]:
    """Hand on every whole PUBLISH; what is left, and the PUBACKs as words."""
    at, end = 0, len(data)
    topics: dict[bytes, str] = {}
    ids: list[int] = []
    while end - at >= 2:  # noqa: PLR2004
        first, length, start = data[at], data[at + 1], at + 2
        if length > 127:  # noqa: PLR2004
            if end - at < 3:  # noqa: PLR2004
                break
            length, start = length & 127 | data[at + 2] << 7, at + 3
        stop = start + length
        if stop > end:
            break
        rest = start + 2 + (data[start] << 8 | data[start + 1])
        name = data[start + 2 : rest]
        topic = topics.get(name)
        if topic is None:
            topic = topics[name] = name.decode()
        qos = first >> 1 & 3
        if qos:
            ids.append(0x40020000 + (data[rest] << 8 | data[rest + 1]))
            rest += 2
        on_next(topic, data[rest:stop], qos)
        at = stop
    return data[at:], ids


if __name__ == "__main__":
    main()
