"""The address of a broker: the URL of `from_mqtt`, parsed. Pure.

    mqtt://host     1883     mqtts://host     8883 (TLS)
    ws://host/mqtt    80     wss://host/mqtt   443 (TLS)
    mqtt+unix:///run/mosquitto.sock         a Unix socket on this machine

`scheme://[user[:password]@]host[:port][/path][?version=3.1.1|5]`; what is special in a URL is
percent-encoded in user, password and the path of a Unix socket, which is absolute. The path of a
WebSocket is sent as it is given, `/mqtt` where there is none, and so is what else stands behind the
`?`: a gateway may want a token there. No error text and no `repr` here shows a credential.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, Literal, cast, final
from urllib.parse import quote, unquote_to_bytes

from rxflow.arguments import wrong
from rxflow.errors import ConfigError, ConnectError

Scheme = Literal["mqtt", "mqtts", "ws", "wss", "mqtt+unix"]
Version = Literal["3.1.1", "5"]

PORTS: Final[dict[str, int]] = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
UNIX: Final = "mqtt+unix"
VERSIONS: Final[tuple[Version, ...]] = ("3.1.1", "5")

_THIS_MACHINE: Final = {"localhost", "127.0.0.1", "::1"}  # one broker listens on all of them
_LAST_PORT: Final = 65_535
_LONGEST_SOCKET: Final = 103  # bytes of its path that Linux and macOS both take
_LONGEST: Final = 65_535  # bytes of a string in MQTT [MQTT-1.5.4]

_URL: Final = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://"
    r"(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?(?P<fragment>#.*)?"
)
_HOST: Final = re.compile(r"(?P<host>\[[^\[\]]+\]|[^:\[\]]*)(?::(?P<port>[^:]*))?")


@final
class Secret:
    """A text that neither `repr`, `str` nor `vars` shows, or a function that gives it each time."""

    __slots__ = ("_text",)

    def __init__(self, text: str | Callable[[], str]) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself. Not for logs.

        Raises:
            ConnectionError: The function raised; it may not at another time.
            ConnectError: What it returned can't be a password.
        """
        if isinstance(self._text, str):
            return self._text
        try:
            text = self._text()
        except Exception as error:
            raised = f"{type(error).__name__}: {error}"
            raise ConnectionError(f"the function given as password raised {raised}") from error
        if not isinstance(cast("object", text), str):
            kind = type(text).__name__
            raise ConnectError(f"the function given as password returned {kind}, not str")
        try:
            _check_credentials("", text)
        except ConfigError as error:
            raise ConnectError(f"what the function returned can't be sent: {error}") from None
        return text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __repr__(self) -> str:
        return "***"


@dataclass(frozen=True, slots=True)
class Address:
    """A broker, and who we are to it. `str` and `repr` hide the credentials.

    Attributes:
        scheme: mqtt, mqtts, ws, wss or mqtt+unix.
        host: A name or an IP address, without brackets; the path of a Unix socket.
        port: Of the URL, or the scheme's own; 0 for a Unix socket.
        path: Of the WebSocket; empty where there is none.
        query: What follows its `?`, without `version`; it may hold a token.
        version: Of MQTT, if the URL fixes it.
        username: None if there is none; an empty one is sent.
        password: None if there is none.
    """

    scheme: Scheme
    host: str
    port: int
    path: str = ""
    version: Version | None = None
    username: str | None = field(default=None, repr=False)
    password: Secret | None = field(default=None, repr=False)
    query: Secret | None = field(default=None, repr=False)

    @property
    def is_tls(self) -> bool:
        """True if the connection is encrypted."""
        return self.scheme in {"mqtts", "wss"}

    @property
    def is_websocket(self) -> bool:
        """True if MQTT travels in WebSocket frames."""
        return self.scheme in {"ws", "wss"}

    @property
    def is_unix(self) -> bool:
        """True if `host` is the path of a Unix socket."""
        return self.scheme == UNIX

    @property
    def tls_name(self) -> str:
        """The name that the certificate must have: without a final dot [RFC 6066, 3]."""
        return self.host.removesuffix(".")

    @property
    def target(self) -> str:
        """Of the WebSocket, what is asked for: path and query. Not for logs."""
        return f"{self.path}?{self.query.reveal()}" if self.query else self.path

    @property
    def is_loopback(self) -> bool:
        """True if what is sent there never leaves this machine."""
        if self.is_unix:
            return True
        try:
            address = ipaddress.ip_address(self.host)
        except ValueError:
            name = self.host.rstrip(".")
            return name == "localhost" or name.endswith(".localhost")  # RFC 6761, 6.3
        mapped = getattr(address, "ipv4_mapped", None)
        return (mapped or address).is_loopback

    @property
    def place(self) -> str:
        """Names the broker, however its host was written: one place, one broker."""
        if self.is_unix:
            return self.host
        host = self.host.rstrip(".")
        with contextlib.suppress(ValueError):
            host = str(ipaddress.ip_address(host))
        return f"{'localhost' if host in _THIS_MACHINE else host}:{self.port}"

    @property
    def anonymous(self) -> Address:
        """The same, without credentials."""
        return replace(self, username=None, password=None)

    def __str__(self) -> str:
        masked = "***@" * (self.username is not None or self.password is not None)
        if self.is_unix:
            return f"{self.scheme}://{masked}{quote(self.host)}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{masked}{host}:{self.port}{self.path}"


def parse(
    url: str, username: str | None = None, password: str | Callable[[], str] | None = None
) -> Address:
    """Take a broker's URL apart.

    Args:
        url: See above.
        username: Wins over that of the URL.
        password: Wins over that of the URL; or a function that returns it, for each connection.

    Raises:
        ConfigError: Something in it is wrong or unknown; the text names it, credentials masked.
    """
    parts = _URL.fullmatch(url)
    if parts is None or any(not c.isprintable() or c == " " for c in url):
        raise _wrong(
            url, "expected scheme://host without white space, such as mqtt://localhost:1883"
        )
    scheme = cast("Scheme", parts["scheme"].lower())
    if scheme not in PORTS and scheme != UNIX:
        known = "mqtt, mqtts, ws, wss and mqtt+unix"
        raise _wrong(url, f"unknown scheme {scheme!r}; known are {known}")
    if "@" in parts["path"] or "@" in (parts["query"] or "") or "@" in (parts["fragment"] or ""):
        raise _wrong(url, "'@' after the host; in credentials, write / as %2F, ? as %3F, # as %23")
    if parts["fragment"] is not None:
        raise _wrong(url, "a broker's URL has no '#'")
    credentials, _, place = parts["authority"].rpartition("@")
    if scheme == UNIX:
        host, port, path = _socket_path(url, place, parts["path"]), 0, ""
    else:
        host, port = _place(url, place)
        port = PORTS[scheme] if port is None else port
        path = _path(url, parts["path"], is_websocket=scheme in {"ws", "wss"})
    own_username, own_password = _credentials(url, credentials)
    username = own_username if username is None else username
    password = own_password if password is None else password
    _check_credentials(username, password)
    version, query = _options(url, parts["query"], is_websocket=scheme in {"ws", "wss"})
    return Address(
        scheme=scheme,
        host=host,
        port=port,
        path=path,
        version=version,
        username=username,
        password=None if password is None else Secret(password),
        query=Secret(query) if query else None,
    )


def _wrong(url: str, problem: str) -> ConfigError:
    # Whatever stands before the last '@' may be a password that nobody encoded.
    masked = re.sub(r"^([A-Za-z][A-Za-z0-9+.-]*://)?.*@", r"\1***@", url, flags=re.DOTALL)
    shown = masked.partition("?")[0]
    return wrong("url", f"name a broker: {problem}, in {shown!r}")


def _socket_path(url: str, place: str, path: str) -> str:
    if place or path in {"", "/"}:
        raise _wrong(
            url, "a Unix socket is an absolute path, as in mqtt+unix:///run/mosquitto.sock"
        )
    try:
        decoded = unquote_to_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise _wrong(url, "the percent-encoded path is not UTF-8") from error
    if len(decoded.encode()) > _LONGEST_SOCKET or "\0" in decoded:
        raise _wrong(url, f"a Unix socket has a path of at most {_LONGEST_SOCKET} bytes")
    return decoded


def _place(url: str, place: str) -> tuple[str, int | None]:
    parts = _HOST.fullmatch(place)
    if parts is None:
        raise _wrong(url, "an IPv6 address stands in brackets, as in mqtt://[::1]:1883")
    return _host(url, parts["host"]), _port(url, parts["port"])


def _host(url: str, host: str) -> str:
    if not host:
        raise _wrong(url, "the host is missing")
    if host.startswith("["):
        inner = host[1:-1].replace("%25", "%", 1)  # a zone, RFC 6874
        try:
            ipaddress.IPv6Address(inner)
        except ValueError as error:
            raise _wrong(url, f"{host} is not an IPv6 address") from error
        return inner
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise _wrong(url, f"{host!r} is not a host name") from error
    if not re.fullmatch(r"[\w.-]+", host):
        raise _wrong(url, f"{host!r} is not a host name")
    return host.lower()


def _port(url: str, port: str | None) -> int | None:
    if port is None:
        return None
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= _LAST_PORT:
        raise _wrong(url, f"{port!r} is not a port from 1 to {_LAST_PORT}")
    return int(port)


def _path(url: str, path: str, *, is_websocket: bool) -> str:
    if is_websocket:
        return path or "/mqtt"
    if path.strip("/"):
        raise _wrong(url, "only ws:// and wss:// have a path; topics are arguments of their own")
    return ""


def _options(
    url: str, query: str | None, *, is_websocket: bool
) -> tuple[Version | None, str | None]:
    """The version, and of a WebSocket all that is not ours."""
    if query is None:
        return None, None
    found: Version | None = None
    others: list[str] = []
    for option in query.split("&"):
        key, _, value = option.partition("=")
        if key != "version" and is_websocket:
            others.append(option)
            continue
        if key != "version" or found is not None:
            shown = key if re.fullmatch(r"\w{1,40}", key) else "…"
            raise _wrong(url, f"the only option is version, once; got {shown!r}")
        if value not in VERSIONS:
            raise _wrong(url, f"version is 3.1.1 or 5, not {value!r}")
        found = value
    return found, "&".join(others)


def _credentials(url: str, credentials: str) -> tuple[str | None, str | None]:
    if not credentials:
        return None, None
    username, colon, password = credentials.partition(":")
    try:
        decoded = unquote_to_bytes(username).decode(), unquote_to_bytes(password).decode()
    except UnicodeDecodeError:
        decoded = None  # and raised outside, so that no context holds the bytes
    if decoded is None:
        raise _wrong(url, "the percent-encoded credentials are not UTF-8")
    return decoded[0], decoded[1] if colon else None


def _check_credentials(username: str | None, password: str | Callable[[], str] | None) -> None:
    if password is not None and username is None:  # [MQTT-3.1.2-22]
        raise wrong("password", "come with a username; username='' is one")
    for name, value in (("username", username), ("password", password)):
        if not isinstance(value, str):
            continue
        size = len(value.encode(errors="replace"))
        has_surrogate = any("\ud800" <= c <= "\udfff" for c in value)
        if size > _LONGEST or has_surrogate or (name == "username" and "\0" in value):
            ending = ", without U+0000" if name == "username" else ""
            raise wrong(name, f"be at most {_LONGEST:,} bytes of UTF-8{ending}")
