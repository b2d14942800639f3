"""MQTT in WebSocket frames by the letter, from a server that knows nothing but RFC 6455."""

from __future__ import annotations

import base64
import hashlib
import re
import socket

import pytest
import reactivex
from clients import received, running
from strict import (
    PUBACK,
    Answer,
    Disconnect,
    Peer,
    StrictBroker,
    packet,
    text,
)

from rxflow import MqttSink

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CONTINUED, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


class Framed:
    """A connection whose bytes travel in frames, as a `Peer` uses one.

    Args:
        plain: TCP.
        size: Bytes of a frame of ours; 0: as it comes.
    """

    def __init__(self, plain: socket.socket, size: int) -> None:
        self._plain, self._size = plain, size
        self.settimeout, self.shutdown = plain.settimeout, plain.shutdown
        self.request = self._until(b"\r\n\r\n").decode()
        key = re.search(r"(?i)sec-websocket-key: (.*)\r\n", self.request)
        assert key
        accept = base64.b64encode(hashlib.sha1(key[1].encode() + GUID).digest())
        plain.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
        )

    def _until(self, end: bytes) -> bytes:
        data = b""
        while not data.endswith(end):
            data += self._exactly(1)
        return data

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            chunk = self._plain.recv(count - len(data))
            if not chunk:
                raise ConnectionError("closed by the client")
            data += chunk
        return data

    def recv(self, _: int) -> bytes:
        """The payload of the next frame, which must be binary, whole and masked [MQTT-6.0.0-1]."""
        try:
            first, second = self._exactly(2)
        except ConnectionError:
            return b""
        if first == 0x80 | CLOSE:
            return b""
        if first == 0x80 | PONG:
            self._exactly((second & 0x7F) + 4)
            return self.recv(_)
        assert first == 0x80 | BINARY, f"a frame of {first:#x} [MQTT-6.0.0-1]"
        assert second & 0x80, "a frame that is not masked"
        length = second & 0x7F
        if length > 125:
            length = int.from_bytes(self._exactly(2 if length == 126 else 8))
        mask, data = self._exactly(4), self._exactly(length)
        return bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))

    def sendall(self, data: bytes) -> None:
        size = self._size or len(data)
        for at in range(0, len(data), size):
            self.send_frame(BINARY, data[at : at + size])

    def send_in_fragments(self, data: bytes) -> None:
        """One message in frames of three bytes, with a ping in the middle."""
        starts = range(0, len(data), 3)
        for at in starts:
            is_last = at == starts[-1]
            self.send_frame(CONTINUED if at else BINARY, data[at : at + 3], is_last=is_last)
            if at == 3:
                self.send_frame(PING, b"?")

    def send_frame(self, kind: int, data: bytes, *, is_last: bool = True) -> None:
        length = len(data)
        encoded = bytes([length]) if length < 126 else b"\x7e" + length.to_bytes(2)
        self._plain.sendall(bytes([is_last << 7 | kind]) + encoded + data)


def framed(script, size: int):
    """The script with a `Peer` behind frames, and with those frames."""

    def whole(plain: Peer) -> None:
        frames = Framed(plain._connection, size)
        script(Peer(frames, plain.version, plain.session), frames)  # type: ignore[arg-type]

    return whole


def over_websocket(broker: StrictBroker) -> StrictBroker:
    broker.url = broker.url.replace("mqtt://", "ws://").replace("?", "/mqtt?")
    return broker


@pytest.mark.parametrize("size", [1, 7, 0])
def test_packets_may_lie_across_frames_and_together_in_one(version, size):
    def script(peer, frames):
        offered = re.search(r"(?i)sec-websocket-protocol: (.*)\r\n", frames.request)
        assert offered
        assert "mqtt" in [name.strip() for name in offered[1].split(",")]  # [MQTT-6.0.0-3]
        peer.connack()
        peer.suback()
        for packet_id in (1, 2, 3):
            peer.session.owed.append((PUBACK, packet_id))
        none = b"\0" * (version == 5)
        messages = [
            packet(0x32, text("a") + n.to_bytes(2) + none + b"x" * 300 * n) for n in (1, 2, 3)
        ]
        frames.sendall(b"".join(messages))
        for packet_id in (1, 2, 3):
            assert peer.expect(Answer) == Answer(PUBACK, packet_id, 0, {})
        assert peer.end() == [Disconnect(0, {})]

    with over_websocket(StrictBroker(version, framed(script, size))) as broker:
        sizes = [len(message.payload) for message in received(broker)]
    assert sizes == [300, 600, 900]


def test_a_message_of_websocket_may_come_in_fragments(version):
    def script(peer, frames):
        peer.connack()
        peer.suback()
        none = b"\0" * (version == 5)
        frames.send_in_fragments(packet(0x30, text("a") + none + b"1" * 10) * 2)
        peer.end()

    with over_websocket(StrictBroker(version, framed(script, 0))) as broker:
        assert [message.payload for message in received(broker)] == [b"1" * 10] * 2


def test_a_sink_publishes_in_binary_frames(version):
    def script(peer, _):
        peer.connack()
        assert len(peer.take_message().payload) == 200_000
        assert peer.rest() == [Disconnect(0, {})]

    with over_websocket(StrictBroker(version, framed(script, 0))) as broker:
        running(broker, reactivex.of(b"x" * 200_000), MqttSink(broker.url, topic="a"))


def test_a_frame_of_text_ends_the_connection_and_another_serves(version):
    left: list[object] = []

    def hostile(peer, frames):
        peer.connack()
        peer.suback()
        frames.send_frame(TEXT, b"end")
        peer.publish("end", b"end", 0)
        left.extend(peer.rest())

    def good(peer, _):
        peer.connack()
        peer.suback()
        peer.publish("a", b"good", 0)
        peer.end()

    scripts = framed(hostile, 0), framed(good, 0)
    with over_websocket(StrictBroker(version, *scripts)) as broker:
        assert [message.payload for message in received(broker)] == [b"good"]
    assert left == []
