"""MQTT over WebSocket: the framing under the wire [MQTT-6.0.0-1]. The home of wsproto."""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from rxflow.errors import ConfigError, ConnectError

if TYPE_CHECKING:
    from wsproto import WSConnection

    from rxflow.mqtt.wire import Stream

_BLOCKED: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_FRAME: Final = 64 * 1024
_UNSENT: Final = 2 * _FRAME  # of a server that pings and does not read
_SERVER_ERROR: Final = 500

HANDSHAKE: Final = 5.0
"""Seconds that the request and its answer may take together."""


def check_installed() -> None:
    """Say while composing that the extra is missing.

    Raises:
        ConfigError: wsproto can't be imported.
    """
    if find_spec("wsproto") is None:
        raise ConfigError("ws:// and wss:// need the extra: pip install 'rxflow-mqtt[websocket]'")


class WebSocket:
    """A stream of bytes in binary frames, over another stream.

    Args:
        stream: TCP or TLS.
        host: For the Host header.
        port: Likewise.
        target: Path and query, of which no error shows the query.
        headers: Sent along with the request.
        clock: Seconds, for the handshake's limit.
    """

    def __init__(  # noqa: PLR0913 (each is one fact)
        self,
        stream: Stream,
        host: str,
        port: int,
        target: str,
        *,
        headers: Mapping[str, str] = MappingProxyType({}),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        from wsproto import ConnectionType, WSConnection  # noqa: PLC0415 (an extra)

        self._stream = stream
        self._connection: WSConnection = WSConnection(ConnectionType.CLIENT)
        self._host = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._target = target
        self._path = target.partition("?")[0]
        self._headers = headers
        self._clock = clock
        self._raw = bytearray()  # framed, and not sent yet
        self._framed = 0  # bytes of the caller's that are in `_raw`
        self._read = bytearray()
        self._is_over = False

    def do_handshake(self) -> None:
        """Upgrade the connection; blocks up to the stream's timeout.

        Raises:
            ConnectError: The server refuses, or speaks something else.
            ConnectionError: It may accept at another time.
        """
        from wsproto.events import AcceptConnection, RejectConnection, Request  # noqa: PLC0415
        from wsproto.utilities import RemoteProtocolError  # noqa: PLC0415

        self._stream.do_handshake()
        until = self._clock() + HANDSHAKE
        headers = [(name.encode(), value.encode()) for name, value in self._headers.items()]
        request = Request(
            host=self._host, target=self._target, subprotocols=["mqtt"], extra_headers=headers
        )
        raw = self._connection.send(request)
        while raw:
            self._wait_no_longer_than(until)
            raw = raw[self._stream.send(raw) :]
        while True:
            self._wait_no_longer_than(until)
            data = self._stream.recv(65_536)
            if not data:
                raise ConnectionResetError("the server closed during the WebSocket handshake")
            try:
                self._connection.receive_data(data)
            except RemoteProtocolError:  # whose text may hold what was sent: ours, of an echo
                raise ConnectError(f"no WebSocket server at {self._path}") from None
            for event in self._connection.events():
                if isinstance(event, AcceptConnection):
                    self._take_events()
                    return
                if isinstance(event, RejectConnection):
                    raise self._refusal(event.status_code)

    def _wait_no_longer_than(self, until: float) -> None:
        """Each single byte would have the stream's own timeout."""
        left = until - self._clock()
        if left <= 0:
            raise TimeoutError(f"no answer to the WebSocket request within {HANDSHAKE:g} s")
        self._stream.settimeout(left)

    def _refusal(self, status: int) -> Exception:
        text = f"the server refused the WebSocket at {self._path}: status {status}"
        # What a proxy says while the broker behind it restarts.
        return ConnectionRefusedError(text) if status >= _SERVER_ERROR else ConnectError(text)

    def recv(self, size: int) -> bytes:
        while not self._read:
            if self._is_over:
                return b""
            data = self._stream.recv(size)
            self._connection.receive_data(data or None)
            self._take_events()
            if not data:
                self._is_over = True
        taken = bytes(self._read[:size])
        del self._read[:size]
        return taken

    def _take_events(self) -> None:
        from wsproto.events import BytesMessage, CloseConnection, Ping, Pong  # noqa: PLC0415

        for event in self._connection.events():
            if isinstance(event, BytesMessage):
                self._read += event.data
            elif isinstance(event, Ping):
                if len(self._raw) > _UNSENT:
                    continue  # not every ping must be answered [RFC 6455, 5.5.3]
                self._raw += self._connection.send(event.response())
                with contextlib.suppress(*_BLOCKED):
                    self._flush()
            elif isinstance(event, CloseConnection):
                self._is_over = True
            elif not isinstance(event, Pong):
                raise ConnectionAbortedError("a WebSocket frame that is not binary [MQTT-6.0.0-1]")

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Send the beginning of `data`, as one frame; say how much when all of that has left.

        Raises:
            BlockingIOError: Not yet; to be called again with the same beginning. With TLS below it
                is an `ssl.SSLWantWriteError`.
            ConnectionResetError: The server has closed.
        """
        from wsproto.events import BytesMessage  # noqa: PLC0415

        if self._is_over:  # wsproto would raise, and show what is to be sent: a password, perhaps
            raise ConnectionResetError("the server closed the WebSocket")
        if not self._framed:
            self._flush()
            frame = bytes(data[:_FRAME])
            self._raw += self._connection.send(BytesMessage(data=frame))
            self._framed = len(frame)
        self._flush()
        sent, self._framed = self._framed, 0
        return sent

    def _flush(self) -> None:
        while self._raw:
            del self._raw[: self._stream.send(self._raw)]

    def close(self) -> None:
        self._stream.close()

    def fileno(self) -> int:
        return self._stream.fileno()

    def settimeout(self, seconds: float | None) -> None:
        self._stream.settimeout(seconds)

    def pending(self) -> int:
        return len(self._read) + self._stream.pending()
