"""The output of one connection: whole packets, paho's and ours, through one buffer."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from typing import Protocol

from rxflow.delivery import QOS2
from rxflow.mqtt.packets import PUBACK, PUBCOMP, PUBREC


class Sending(Protocol):
    """Bytes out: see `Stream`."""

    def send(self, data: bytes | bytearray | memoryview, /) -> int: ...
    def fileno(self) -> int: ...


class Output:
    """A buffer in front of a stream. Used by one thread; the heartbeat may ping and flush.

    Args:
        stream: Takes the bytes.
        clock: Seconds, for `last_write`.

    Attributes:
        sent: Bytes that the kernel has taken.
        lock: Of the buffer and of the stream.
        last_write: When the kernel took some.
    """

    def __init__(self, stream: Sending, clock: Callable[[], float]) -> None:
        self.sent = 0
        self.lock = threading.Lock()
        self.last_write = clock()
        self._stream = stream
        self._clock = clock
        self._waiting = bytearray()

    @property
    def unsent(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return len(self._waiting)

    def add(self, data: bytes | bytearray) -> int:
        """Append whole packets; return their bytes."""
        with self.lock:
            self._waiting += data
        return len(data)

    def put(self, make: Callable[[int], bytes | bytearray]) -> None:
        """Append what `make` returns when told how many bytes came before."""
        with self.lock:
            self._waiting += make(self.sent + len(self._waiting))

    def acknowledge(self, ready: list[int], completed: list[int]) -> None:
        """Append PUBACK for packet ids of QoS 1, PUBREC for those of QoS 2, in this order.

        Args:
            ready: Packet ids, those of QoS 2 with `QOS2` added.
            completed: Packet ids of which PUBCOMP is due.
        """
        if completed:
            self.add(_packets(PUBCOMP, completed))
        if not ready:
            return
        if max(ready) < QOS2:
            self.add(_packets(PUBACK, ready))
            return
        first, second = PUBACK << 24 | 2 << 16, (PUBREC << 24 | 2 << 16) - QOS2
        words = [(first if packet < QOS2 else second) + packet for packet in ready]
        self.add(struct.pack(f"!{len(words)}I", *words))

    def ping(self) -> None:
        """Append a PINGREQ."""
        self.add(b"\xc0\x00")

    def flush(self) -> None:
        """Send what can be sent now.

        Raises:
            OSError: The connection is gone.
        """
        if not self._waiting:
            return
        with self.lock:
            try:
                while self._waiting:
                    count = self._stream.send(self._waiting)
                    del self._waiting[:count]
                    self.sent += count
                    self.last_write = self._clock()
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                pass

    def try_flush(self) -> None:
        """As `flush`, from another thread: what goes wrong, the loop will see for itself."""
        with contextlib.suppress(OSError):
            self.flush()

    def shut(self) -> None:
        """Send nothing more; the peer sees the end, and what it sends can still be read."""
        with (
            contextlib.suppress(OSError),
            socket.socket(fileno=os.dup(self._stream.fileno())) as copy,
        ):
            copy.shutdown(socket.SHUT_WR)


def _packets(kind: int, packet_ids: list[int]) -> bytearray:
    """A packet of this kind for each packet id; without a loop, as there may be thousands."""
    count = len(packet_ids)
    ids = struct.pack(f"!{count}H", *packet_ids)
    packets = bytearray(bytes([kind, 2, 0, 0]) * count)
    packets[2::4], packets[3::4] = ids[::2], ids[1::2]
    return packets
