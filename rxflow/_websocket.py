"""MQTT over WebSocket: the framing under the wire [MQTT-6.0.0-1]. The home of wsproto."""

from __future__ import annotations

import contextlib
from importlib.util import find_spec
from typing import TYPE_CHECKING

from rxflow.errors import ConfigError, ConnectError

if TYPE_CHECKING:
    from wsproto import WSConnection

    from rxflow._wire import Stream


def check_installed() -> None:
    """Say while composing that the extra is missing.

    Raises:
        ConfigError: wsproto can't be imported.
    """
    if find_spec("wsproto") is None:
        raise ConfigError("ws:// and wss:// need the extra: pip install 'rxflow[websocket]'")


class WebSocket:
    """A stream of bytes in binary frames, over another stream.

    Args:
        stream: TCP or TLS.
        host: For the Host header.
        port: Likewise.
        path: What the broker listens on, commonly `/mqtt`.
    """

    def __init__(self, stream: Stream, host: str, port: int, path: str) -> None:
        from wsproto import ConnectionType, WSConnection  # noqa: PLC0415 (an extra)

        self._stream = stream
        self._connection: WSConnection = WSConnection(ConnectionType.CLIENT)
        self._host = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._path = path
        self._raw = bytearray()
        self._read = bytearray()
        self._is_over = False

    def do_handshake(self) -> None:
        """Upgrade the connection; blocks up to the stream's timeout.

        Raises:
            ConnectError: The server refuses.
        """
        from wsproto.events import AcceptConnection, RejectConnection, Request  # noqa: PLC0415

        self._stream.do_handshake()
        request = Request(host=self._host, target=self._path, subprotocols=["mqtt"])
        raw = self._connection.send(request)
        while raw:
            raw = raw[self._stream.send(raw) :]
        while True:
            data = self._stream.recv(65_536)
            if not data:
                raise ConnectionResetError("the server closed during the WebSocket handshake")
            self._connection.receive_data(data)
            for event in self._connection.events():
                if isinstance(event, AcceptConnection):
                    self._take_events()
                    return
                if isinstance(event, RejectConnection):
                    raise ConnectError(
                        f"the server refused the WebSocket at {self._path}: "
                        f"status {event.status_code}"
                    )

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
        from wsproto.events import BytesMessage, CloseConnection, Ping  # noqa: PLC0415

        for event in self._connection.events():
            if isinstance(event, BytesMessage):
                self._read += event.data
            elif isinstance(event, Ping):
                self._raw += self._connection.send(event.response())
            elif isinstance(event, CloseConnection):
                self._is_over = True
            else:
                raise ConnectionAbortedError("a WebSocket frame that is not binary [MQTT-6.0.0-1]")

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Take all of `data` once what was taken before is on its way.

        Raises:
            BlockingIOError: Nothing was taken.
        """
        from wsproto.events import BytesMessage  # noqa: PLC0415

        self._flush()
        self._raw += self._connection.send(BytesMessage(data=bytes(data)))
        with contextlib.suppress(BlockingIOError):
            self._flush()
        return len(data)

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
