"""The settings of a connection, of `from_mqtt` and `MqttSink`, checked while composing."""

from __future__ import annotations

import functools
import os
import re
import secrets
import ssl
from collections.abc import Callable, Mapping
from dataclasses import replace
from inspect import Parameter, iscoroutinefunction, signature
from types import SimpleNamespace
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    TypedDict,
    TypeVar,
    cast,
    get_args,
    get_type_hints,
)

from rxflow import arguments
from rxflow.arguments import check_range, wrong
from rxflow.log import tell
from rxflow.mqtt import address, websocket
from rxflow.mqtt.settings import SILENCE, Settings, Will
from rxflow.mqtt.topics import check_topic

F = TypeVar("F", bound=Callable[..., Any])

VersionOrAuto = Literal["auto", "3.1.1", "5"]

_LONGEST: Final = 65_535
"""Bytes of a string or a payload, and seconds of a keep alive: what two bytes can express."""

_ONE_DAY = 86_400.0
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # [RFC 9110, 5.6.2]
_HEADER_VALUE: Final = re.compile(r"(?:[!-~](?:[ \t!-~]*[!-~])?)?")
_OWN_HEADERS: Final = {"host", "connection", "upgrade"}


class ConnectionOptions(TypedDict, total=False):
    """The settings of a connection, of `from_mqtt`, `MqttSink` and `forget`, with their defaults.

    Attributes:
        username: Wins over that of the URL.
        password: Likewise; or a function that returns it, called before each connection on a thread
            of its own: for tokens that expire. What it raises is told, and tried again. Shown
            nowhere.
        version: "auto" tries 5 on each connection, and 3.1.1 where the broker refuses that, or is
            silent or closes twice. The URL wins.
        keep_alive: Seconds, 0 to 65,535; a dead connection is found within one and a half. 0: off.
        connect_timeout: Seconds until the first connection; then it fails, a stream with a
            `ConnectError`. 0: after one attempt. None: never.
        reconnect_timeout: The same for each later connection that does its work (a SUBACK or a
            message), from the loss of the one before. 0: a lost connection is the end.
        answer_timeout: Seconds that TCP, TLS and the broker's answers may take, each; to SUBSCRIBE,
            without a byte from the broker. Then another connection is tried.
        will: What the broker publishes if this client is lost.
        tls: A context of your own, instead of the files; the default verifies name and chain.
        ca_file: PEM file of the authorities to trust instead of the system's. All files are read
            now, and again at each connection, so they may be renewed while we run.
        cert_file: PEM file of our certificate, where the broker asks for one.
        key_file: PEM file of its key, if that is not in `cert_file`.
        key_password: Of an encrypted key. Nobody is ever asked for it.
        headers: Sent with the request of `ws://` and `wss://`; shown nowhere.
    """

    username: Annotated[str | None, None]
    password: Annotated[str | Callable[[], str] | None, None]
    version: Annotated[VersionOrAuto, "auto"]
    keep_alive: Annotated[int, 30]
    connect_timeout: Annotated[float | None, None]
    reconnect_timeout: Annotated[float | None, None]
    answer_timeout: Annotated[float, SILENCE]
    will: Annotated[Will | None, None]
    tls: Annotated[ssl.SSLContext | None, None]
    ca_file: Annotated[str | os.PathLike[str] | None, None]
    cert_file: Annotated[str | os.PathLike[str] | None, None]
    key_file: Annotated[str | os.PathLike[str] | None, None]
    key_password: Annotated[str | None, None]
    headers: Annotated[Mapping[str, str] | None, None]


_OPTIONS: Final = {
    name: Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=kind)
    for name, hint in get_type_hints(ConnectionOptions, include_extras=True).items()
    for kind, default in [get_args(hint)]
}


def takes_connection(**defaults: Any) -> Callable[[F], F]:
    """Let a function take each of `ConnectionOptions` as `**connection`.

    Its signature and its docstring name them all.

    Args:
        defaults: Those of this function, where they differ; it gets them.
    """
    options = {
        name: option.replace(default=defaults.get(name, option.default))
        for name, option in _OPTIONS.items()
    }

    def decorate(function: F) -> F:
        own = signature(function)
        *parameters, _ = own.parameters.values()
        named = {parameter.name for parameter in parameters} | options.keys()

        @functools.wraps(function)
        def made(*args: Any, **given: Any) -> Any:
            for name in given:
                if name not in named:
                    text = f"{function.__qualname__}() got an unexpected keyword argument {name!r}"
                    raise TypeError(text)
            return function(*args, **{**defaults, **given})

        vars(made)["__signature__"] = own.replace(parameters=[*parameters, *options.values()])
        made.__doc__ = _described(function.__doc__)
        return cast("F", made)

    return decorate


def _described(text: str | None) -> str | None:
    """A docstring with the lines of `ConnectionOptions` in the place of `**connection`."""
    options = ConnectionOptions.__doc__
    if text is None or options is None:  # `python -OO`
        return text
    lines = options.partition("Attributes:\n")[2].rstrip()
    return re.sub(r" *\*\*connection: .*", lambda _: lines, text)


class Options:
    """A URL and `ConnectionOptions`, checked.

    Attributes:
        place: The address of the broker.
        client_id: The one that was given; None: none was.
        connect_timeout: As it was given.

    Raises:
        ConfigError: One of them is wrong; the text names it.
    """

    def __init__(
        self, url: str, options: ConnectionOptions, *, client_id: str | None = None
    ) -> None:
        defaults = {name: option.default for name, option in _OPTIONS.items()}
        given = self._given = SimpleNamespace(**{**defaults, **options})
        self._check_texts(url)
        self.place = address.parse(url, given.username, given.password)
        arguments.one_of("version", given.version, ("auto", *address.VERSIONS))
        if given.version != "auto" and self.place.version is None:
            self.place = replace(self.place, version=given.version)
        check_range("keep_alive", given.keep_alive, 0, _LONGEST)
        arguments.wait("connect_timeout", given.connect_timeout)
        arguments.wait("reconnect_timeout", given.reconnect_timeout)
        check_range("answer_timeout", given.answer_timeout, 0.1, _ONE_DAY)
        if client_id is not None:
            check_client_id(client_id)
        self.client_id = client_id
        self.connect_timeout: float | None = given.connect_timeout
        if self.place.is_websocket:
            websocket.check_installed()
        if given.will is not None:
            _check_will(given.will)
        self._check_tls()
        self._check_headers()

    def _check_texts(self, url: object) -> None:
        given = self._given
        arguments.secret("url", url, is_none_fine=False)
        arguments.secret("username", given.username)
        arguments.secret("key_password", given.key_password)
        if not callable(given.password) or iscoroutinefunction(given.password):
            or_else = " or a plain function to return it"
            arguments.secret("password", given.password, or_else=or_else)

    def _check_tls(self) -> None:
        given, files = self._given, self._files
        if given.tls is not None and not isinstance(given.tls, ssl.SSLContext):
            arguments.refuse("tls", "an ssl.SSLContext or None", given.tls)
        first = next(iter(files), "tls")
        if given.tls and files:
            raise wrong(first, "not come with tls=: a context of your own has its files already")
        for name, path in files.items():
            arguments.path(name, path)
        if given.key_password is not None and given.cert_file is None:
            raise wrong("key_password", "come with a key: give cert_file and key_file")
        if given.key_file is not None and given.cert_file is None:
            raise wrong("key_file", "come with its certificate: give cert_file")
        if (given.tls or files) and not self.place.is_tls:
            scheme = self.place.scheme
            raise wrong(first, f"come with mqtts:// or wss://: {scheme}:// is not encrypted")
        if files:
            try:
                self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
            except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
                raise wrong(
                    "tls", f"have files that can be used: {self._unusable(error)}"
                ) from error

    @property
    def _files(self) -> dict[str, Any]:
        """Those of TLS that were given, by name."""
        files = {name: getattr(self._given, name) for name in ("ca_file", "cert_file", "key_file")}
        return {name: path for name, path in files.items() if path is not None}

    def _check_headers(self) -> None:
        headers: object = self._given.headers
        if headers is None:
            return
        if not self.place.is_websocket:
            scheme = self.place.scheme
            raise wrong("headers", f"come with ws:// or wss://; {scheme}:// has none")
        if not isinstance(headers, Mapping):
            kind = type(headers).__name__
            raise wrong("headers", f"be a mapping of names to values, not {kind}")
        for name, value in cast("Mapping[object, object]", headers).items():
            if not isinstance(name, str) or not _HEADER.fullmatch(name):
                shown = arguments.shown(name)
                raise wrong("headers", f"have names of headers: {shown} can't be the name")
            if name.lower() in _OWN_HEADERS or name.lower().startswith("sec-websocket-"):
                raise wrong("headers", f"not have {name!r}: it belongs to the WebSocket")
            if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
                raise wrong("headers", f"have values of printable ASCII: not so {name!r}")

    def settings(
        self, *, is_durable: bool = False, session_expiry: int = 0, **more: Any
    ) -> Settings:
        """The settings of one subscription.

        Args:
            is_durable: True if the session outlasts the connection.
            session_expiry: Seconds that it does.
            more: Fields of `Settings`.
        """
        given = self._given
        return Settings(
            address=self.place,
            client_id=self.client_id or f"rxflow-{secrets.token_hex(8)}",
            is_given=self.client_id is not None,
            is_durable=is_durable,
            session_expiry=session_expiry if is_durable else 0,
            keep_alive=given.keep_alive,
            connect_timeout=given.connect_timeout,
            reconnect_timeout=given.reconnect_timeout,
            answer_timeout=given.answer_timeout,
            will=given.will,
            tls=self._context,
            headers=dict(given.headers or {}),
            **more,
        )

    def _context(self) -> ssl.SSLContext:
        """For one connection: the files are read again each time.

        Raises:
            ConnectionError: One of them can't be used now, in the middle of being renewed, perhaps.
        """
        if self._given.tls:
            return self._given.tls
        try:
            context = ssl.create_default_context(cafile=self._given.ca_file)
            self._load(context)
        except (OSError, ValueError) as error:
            raise ConnectionError(self._unusable(error)) from error
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        given = self._given
        if given.ca_file:
            context.load_verify_locations(given.ca_file)
        if given.cert_file:
            # Without a password OpenSSL would ask at the terminal, and wait there.
            password = _is_missing if given.key_password is None else (lambda: given.key_password)
            context.load_cert_chain(given.cert_file, given.key_file, password)

    def _unusable(self, error: Exception) -> str:
        return f"can't use {', '.join(map(str, self._files.values()))}: {error}"

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
        or not 1 <= len(client_id.encode(errors="replace")) <= _LONGEST
        or not client_id.isprintable()
    ):
        arguments.refuse("client_id", "1 to 65,535 bytes of printable text", client_id)


def check_publishable(topic: str, name: str = "topic") -> None:
    """Refuse what no broker may accept as the topic of a message.

    Raises:
        ConfigError: It is empty, too long, has a wildcard, or is no text.
    """
    arguments.text(name, topic)
    try:
        encoded = topic.encode()
        check_topic(encoded)
    except ValueError as error:
        shown = arguments.shown(topic)
        raise wrong(name, f"be one to publish to, not {shown}: {error}") from error
    _check_size(name, encoded)


def _check_size(name: str, value: bytes) -> None:
    if len(value) > _LONGEST:
        raise wrong(name, f"be at most {_LONGEST:,} bytes, not {len(value):,}")


def _check_will(will: object) -> None:
    if not isinstance(will, Will):
        arguments.refuse("will", "a Will(topic, payload) or None", will)
    check_publishable(will.topic, "will.topic")
    arguments.qos("will.qos", will.qos)
    arguments.flag("will.retain", will.retain)
    if not isinstance(cast("object", will.payload), bytes):
        arguments.refuse("will.payload", "bytes", will.payload)
    _check_size("will.payload", will.payload)
