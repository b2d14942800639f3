"""A connection on its loop: what it sends, and when no more."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from datetime import UTC, datetime
from types import SimpleNamespace

from rxflow.delivery import Ledger
from rxflow.mqtt.link import Link
from rxflow.mqtt.transport import Plain
from rxflow.mqtt.wire import Wire


class Paho:
    """What a link asks of paho, without paho."""

    is_5 = True

    def __init__(self) -> None:
        self.wire = None
        self.ready = b""

    def disconnect(self):
        self.ready = b"\xe0\0"

    def write(self):
        self.wire.send(self.ready)
        self.ready = b""


def test_nothing_leaves_behind_disconnect_however_late_it_is_ready():
    """A commit that ends late, a journal: what they let go has no connection any more."""

    async def main() -> bytes:
        loop = asyncio.get_running_loop()
        ours, peer = socket.socketpair()
        peer.settimeout(5)
        ours.settimeout(0)
        outbox = SimpleNamespace(
            is_ready=True,
            has_news=True,
            packets=lambda *_: b"\x30\3\0\1a",
            written=lambda _: None,
            disconnected=lambda _: None,
        )
        ledger = Ledger()
        owner = SimpleNamespace(
            ledger=ledger,
            outbox=outbox,
            keep_alive=1,
            lost=print,
            settled=lambda: None,
        )
        paho = Paho()
        link = Link(loop, paho, owner)
        paho.wire = Wire(
            Plain(ours),
            SimpleNamespace(ledger=ledger, on_next=print),
            link.passed,
            is_5=True,
            max_packet_bytes=1000,
            max_pending=10,
            max_pending_bytes=1000,
            now=lambda: datetime.now(UTC),
        )
        link.wire = paho.wire
        link.begin(is_stopped=False)
        leaving = loop.create_task(link.say_goodbye(loop.time() + 5))
        await asyncio.sleep(0)
        ledger.open2(1)
        ledger.release(2)
        link.publish()
        link.settle()
        peer.shutdown(socket.SHUT_WR)
        await leaving
        link.end()
        with contextlib.closing(peer):
            return peer.recv(100)

    assert asyncio.run(main()) == b"\xe0\0"
