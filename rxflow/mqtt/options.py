"""What `from_mqtt` and `MqttSink` are told about a connection, checked while composing."""

from __future__ import annotations

import re
import secrets
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from inspect import iscoroutinefunction
from typing import Final, Literal, cast

from rxflow import arguments
from rxflow.arguments import check_range
from rxflow.errors import ConfigError
from rxflow.log import tell
from rxflow.mqtt import address, websocket
from rxflow.mqtt.settings import MOST_FILTERS, SILENCE, Settings, Will
from rxflow.mqtt.topics import check_topic

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
        arguments.one_of("version", self.version, ("auto", *address.VERSIONS))
        if self.version != "auto" and place.version is None:
            place = replace(place, version=self.version)
        object.__setattr__(self, "place", place)
        check_range("keep_alive", self.keep_alive, 0, _LONGEST_KEEP_ALIVE)
        arguments.wait("drain_timeout", self.drain_timeout, is_none_fine=False)
        arguments.wait("connect_timeout", self.connect_timeout)
        arguments.wait("reconnect_timeout", self.reconnect_timeout)
        check_range("answer_timeout", self.answer_timeout, 0.1, _ONE_DAY)
        if self.client_id is not None:
            check_client_id(self.client_id)
        if place.is_websocket:
            websocket.check_installed()
        if self.will is not None:
            _check_will(self.will)
        self._check_tls()
        self._check_headers()

    def _check_texts(self) -> None:
        arguments.secret("url", self.url, is_none_fine=False)
        for name in ("username", "key_password"):
            arguments.secret(name, getattr(self, name))
        if not callable(self.password) or iscoroutinefunction(self.password):
            arguments.secret("password", self.password, or_else=" or a plain function to return it")

    def _check_tls(self) -> None:
        if self.tls is not None and not isinstance(cast("object", self.tls), ssl.SSLContext):
            arguments.refuse("tls", "an ssl.SSLContext or None", self.tls)
        given = [
            name for name in ("ca_file", "cert_file", "key_file") if getattr(self, name) is not None
        ]
        if self.tls and given:
            raise ConfigError(f"{given[0]}: a context of your own (tls=) has its files already")
        for name in given:
            arguments.path(name, getattr(self, name))
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
            scheme = self.place.scheme
            raise ConfigError(f"headers must come with ws:// or wss://; {scheme}:// has none")
        if not isinstance(headers, Mapping):
            kind = type(headers).__name__
            raise ConfigError(f"headers must be a mapping of names to values, not {kind}")
        for name, value in cast("Mapping[object, object]", headers).items():
            if not isinstance(name, str) or not _HEADER.fullmatch(name):
                shown = arguments.shown(name)
                raise ConfigError(f"headers must have names of headers: {shown} can't be the name")
            if name.lower() in _OWN_HEADERS or name.lower().startswith("sec-websocket-"):
                raise ConfigError(f"headers must not have {name!r}: it belongs to the WebSocket")
            if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
                raise ConfigError(f"headers must have values of printable ASCII: not so {name!r}")

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
        arguments.refuse("client_id", "1 to 65,535 bytes of printable text", client_id)


def check_publishable(topic: str) -> None:
    """Refuse what no broker may accept as the topic of a message.

    Raises:
        ConfigError: It is empty, too long, has a wildcard, or is no text.
    """
    arguments.text("topic", topic)
    try:
        name = topic.encode()
        check_topic(name)
        if len(name) > _LONGEST_TOPIC:
            raise ValueError(f"{len(name):,} bytes are more than {_LONGEST_TOPIC:,}")  # noqa: TRY301
    except ValueError as error:
        shown = arguments.shown(topic)
        raise ConfigError(f"topic must be one to publish to, not {shown}: {error}") from error


def _check_will(will: Will) -> None:
    if not isinstance(cast("object", will), Will):
        arguments.refuse("will", "a Will(topic, payload) or None", will)
    try:
        check_publishable(will.topic)
        arguments.qos("qos", will.qos)
        arguments.flag("retain", will.retain)
        if not isinstance(cast("object", will.payload), bytes):
            arguments.refuse("payload", "bytes", will.payload)
        if len(will.payload) > _LONGEST_TOPIC:
            text = f"payload must be at most 65,535 bytes, not {len(will.payload):,}"
            raise ConfigError(text)  # noqa: TRY301 (as its neighbours do)
    except ConfigError as error:
        raise ConfigError(f"will: {error}") from error
