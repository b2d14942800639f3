"""What `from_mqtt` and `MqttSink` are told about a connection, checked while composing."""

from __future__ import annotations

import re
import secrets
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any, Final, Literal, cast

from rxflow import _websocket, address
from rxflow._settings import MOST_FILTERS, SILENCE, Settings, Will
from rxflow.errors import ConfigError
from rxflow.log import tell
from rxflow.topics import check_topic

VersionOrAuto = Literal["auto", "3.1.1", "5"]

_LONGEST_KEEP_ALIVE = 65_535
_LONGEST_TOPIC = 65_535
_ONE_DAY = 86_400.0
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # [RFC 9110, 5.6.2]
_HEADER_VALUE: Final = re.compile(r"(?:[!-~](?:[ \t!-~]*[!-~])?)?")
_OWN_HEADERS: Final = {"host", "connection", "upgrade"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Connecting:
    """The settings of a connection that source and sink share; see `from_mqtt` for each.

    Raises:
        ConfigError: One of them is wrong; the text names it.
    """

    url: str = field(repr=False)
    username: str | None = field(repr=False)
    password: str | Callable[[], str] | None = field(repr=False)
    version: VersionOrAuto
    client_id: str | None
    keep_alive: int
    connect_timeout: float | None
    drain_timeout: float
    will: Will | None
    tls: ssl.SSLContext | None
    ca_file: str | None
    cert_file: str | None
    key_file: str | None
    answer_timeout: float = SILENCE
    reconnect_timeout: float | None = None
    key_password: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] | None = field(default=None, repr=False)
    place: address.Address = field(init=False)

    def __post_init__(self) -> None:
        self._check_texts()
        place = address.parse(self.url, self.username, self.password)
        if self.version not in {"auto", *address.VERSIONS}:
            raise ConfigError(f"version: 'auto', '3.1.1' or '5', not {self.version!r}")
        if self.version != "auto" and place.version is None:
            place = replace(place, version=self.version)
        object.__setattr__(self, "place", place)
        check_range("keep_alive", self.keep_alive, 0, _LONGEST_KEEP_ALIVE)
        check_range("drain_timeout", self.drain_timeout, 0, float("inf"))
        for name in ("connect_timeout", "reconnect_timeout"):
            if getattr(self, name) is not None:
                check_range(name, getattr(self, name), 0, float("inf"))
        check_range("answer_timeout", self.answer_timeout, 0.1, _ONE_DAY)
        if self.client_id is not None:
            check_client_id(self.client_id)
        if place.is_websocket:
            _websocket.check_installed()
        if self.will is not None:
            _check_will(self.will)
        self._check_tls()
        self._check_headers()

    def _check_texts(self) -> None:
        for name in ("url", "username", "password", "key_password"):
            value = getattr(self, name)
            if name == "password" and callable(value) and not iscoroutinefunction(value):
                continue
            if not isinstance(value, str) and (value is not None or name == "url"):
                kinds = "a text, or a function that returns one" if name == "password" else "a text"
                raise ConfigError(f"{name}: {kinds}, not a {_kind(value)}")

    def _check_tls(self) -> None:
        if self.tls is not None and not isinstance(cast("object", self.tls), ssl.SSLContext):
            raise ConfigError(f"tls: an ssl.SSLContext, not {self.tls!r}")
        given = [
            name for name in ("ca_file", "cert_file", "key_file") if getattr(self, name) is not None
        ]
        if self.tls and given:
            raise ConfigError(f"{given[0]}: a context of your own (tls=) has its files already")
        for name in given:
            if not isinstance(getattr(self, name), str | Path):
                raise ConfigError(f"{name}: a path, not {getattr(self, name)!r}")
        if self.key_password is not None and self.cert_file is None:
            raise ConfigError("key_password: there is no key; give key_file and cert_file")
        if self.key_file is not None and self.cert_file is None:
            raise ConfigError("key_file: a key needs its certificate; give cert_file")
        if (self.tls or given) and not self.place.is_tls:
            name = "tls" if self.tls else given[0]
            raise ConfigError(f"{name}: {self.place.scheme}:// is not encrypted; use mqtts://")
        if given:
            try:
                self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
            except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
                raise ConfigError(f"tls: {self._unusable(error)}") from error

    def _check_headers(self) -> None:
        headers = cast("object", self.headers)
        if headers is None:
            return
        if not self.place.is_websocket:
            raise ConfigError(f"headers: {self.place.scheme}:// has none; use ws:// or wss://")
        if not isinstance(headers, Mapping):
            raise ConfigError(f"headers: a mapping of names to values, not a {_kind(headers)}")
        for name, value in cast("Mapping[object, object]", headers).items():
            if not isinstance(name, str) or not _HEADER.fullmatch(name):
                raise ConfigError(f"headers: {name!r} can't be the name of a header")
            if name.lower() in _OWN_HEADERS or name.lower().startswith("sec-websocket-"):
                raise ConfigError(f"headers: {name!r} belongs to the WebSocket itself")
            if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
                raise ConfigError(f"headers: {name!r}: the value is not a text of printable ASCII")

    def settings(  # noqa: PLR0913 (each is one fact)
        self,
        client_id: str | None,
        *,
        is_durable: bool = False,
        session_expiry: int = 0,
        max_pending: int = 10_000,
        max_pending_bytes: int = 64 * 1024 * 1024,
        max_packet_bytes: int = 16 * 1024 * 1024,
        max_filters: int = MOST_FILTERS,
    ) -> Settings:
        """The settings of one subscription."""
        return Settings(
            address=self.place,
            client_id=client_id or f"rxflow-{secrets.token_hex(8)}",
            is_durable=is_durable,
            session_expiry=session_expiry if is_durable else 0,
            keep_alive=self.keep_alive,
            connect_timeout=self.connect_timeout,
            max_pending=max_pending,
            max_pending_bytes=max_pending_bytes,
            max_packet_bytes=max_packet_bytes,
            will=self.will,
            tls=self._context,
            answer_timeout=self.answer_timeout,
            reconnect_timeout=self.reconnect_timeout,
            max_filters=max_filters,
            is_given=client_id is not None,
            headers=dict(self.headers or {}),
        )

    def _context(self) -> ssl.SSLContext:
        """For one connection: the files are read again each time.

        Raises:
            ConnectionError: One of them can't be used now, in the middle of being renewed, perhaps.
        """
        if self.tls:
            return self.tls
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            self._load(context)
        except (OSError, ValueError) as error:
            raise ConnectionError(self._unusable(error)) from error
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        if self.ca_file:
            context.load_verify_locations(self.ca_file)
        if self.cert_file:
            # Without a password OpenSSL would ask at the terminal, and wait there.
            password = self.key_password
            given = _is_missing if password is None else (lambda: password)
            context.load_cert_chain(self.cert_file, self.key_file, given)

    def _unusable(self, error: Exception) -> str:
        files = ", ".join(str(f) for f in (self.ca_file, self.cert_file, self.key_file) if f)
        return f"can't use {files}: {error}"

    def warn_of_plain_password(self, *, is_program: bool) -> None:
        """Say once for each subscription that the password can be read on the way."""
        if self.place.password is not None and not self.place.is_tls and not self.place.is_loopback:
            scheme = "wss" if self.place.is_websocket else "mqtts"
            tell(
                f"{self.place}: the password goes over the network as plain text; use {scheme}://",
                is_program=is_program,
            )


def _is_missing() -> str:
    raise ValueError("the key is encrypted; give key_password=")


def _kind(value: object) -> str:
    return type(value).__name__


def check_range(name: str, value: float, least: float, most: float) -> None:
    """Refuse a number out of bounds, or what is none; between whole bounds, one that is not whole.

    Raises:
        ConfigError: It names the argument, its bounds and the value.
    """
    is_whole = isinstance(least, int) and isinstance(most, int)
    number = cast("Any", value)  # whatever the caller's types say
    if not isinstance(number, int if is_whole else (int, float)) or not least <= number <= most:
        kind = "a whole number " * is_whole
        raise ConfigError(f"{name}: {kind}from {least:,} to {most:,}, not {value!r}")


def check_client_id(client_id: str) -> None:
    """Refuse an id that no broker can take [MQTT-3.1.3-4].

    Raises:
        ConfigError: It is empty, too long, or not plain text.
    """
    if (
        not isinstance(cast("object", client_id), str)
        or not 1 <= len(client_id.encode(errors="replace")) <= 65_535  # noqa: PLR2004
        or not client_id.isprintable()
    ):
        shown = repr(client_id)[:80]
        raise ConfigError(f"client_id: 1 to 65,535 bytes of printable text, not {shown}")


def check_publishable(topic: str) -> None:
    """Refuse what no broker may accept as the topic of a message.

    Raises:
        ConfigError: It is empty, too long, has a wildcard, or is no text.
    """
    if not isinstance(cast("object", topic), str):
        raise ConfigError(f"topic: a text, not {topic!r}")
    try:
        name = topic.encode()
        check_topic(name)
        if len(name) > _LONGEST_TOPIC:
            raise ValueError(f"{len(name):,} bytes are more than {_LONGEST_TOPIC:,}")  # noqa: TRY301
    except ValueError as error:
        raise ConfigError(f"topic: {topic[:80]!r} can't be published to: {error}") from error


def _check_will(will: Will) -> None:
    if not isinstance(cast("object", will), Will):
        raise ConfigError(f"will: a Will(topic, payload), not a {_kind(will)}")
    try:
        check_publishable(will.topic)
        check_range("qos", will.qos, 0, 2)
    except ConfigError as error:
        raise ConfigError(f"will: {error}") from error
    if not isinstance(cast("object", will.payload), bytes):
        raise ConfigError(f"will: payload: bytes, not {will.payload!r}")
    if not isinstance(cast("object", will.retain), bool):
        raise ConfigError(f"will: retain: True or False, not {will.retain!r}")
