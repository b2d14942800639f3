"""An MQTT broker inside this process, for demos and tests: `with Broker() as broker: ...`.

It listens on the loopback interface only, speaks MQTT 3.1.1, and forgets everything when it stops.
It is no judge of durability and no production broker: it keeps sessions in memory, and serves
thousands of messages a second where mosquitto serves a hundred thousand.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import secrets
import socket
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Any, Final, Self, cast, final

from rxflow import arguments
from rxflow.errors import ConfigError, ConnectError
from rxflow.process.forked import close_in_child, tell_in_child

_HOSTS: Final = {"127.0.0.1": "127.0.0.1", "localhost": "127.0.0.1", "::1": "::1"}
_LAST_PORT: Final = 65_535
_PATIENCE: Final = 15.0  # seconds, for start and for stop
_BACKLOG: Final = 128


@final
class Broker:
    """The embedded broker, as a context manager for `with` and for `async with`.

    It runs on a thread and an event loop of its own. It can be entered again after it stopped, but
    not while it runs.

    Args:
        users: Passwords by username. None lets anyone in.
        port: 0 takes a free one, anew each time it starts.
        host: 127.0.0.1, ::1 or localhost.

    Raises:
        ConfigError: At call time, when an argument is wrong, or when amqtt is not installed.
        ConnectError: On entering, when the port is not free.
    """

    def __init__(
        self,
        *,
        users: Mapping[str, str] | None = None,
        port: int = 0,
        host: str = "127.0.0.1",
    ) -> None:
        arguments.text("host", host)
        arguments.check_range("port", port, 0, _LAST_PORT)
        if host not in _HOSTS:
            arguments.refuse("host", "127.0.0.1, ::1 or localhost: this machine", host)
        if users is not None:
            _check_users(users)
        self._accounts = _Accounts(users)
        self._wanted = _HOSTS[host], port
        self._serve = _import_serve()
        self._run: _Run | None = None
        tell_in_child(self)

    def forked(self) -> None:
        """In a forked child it is stopped: the one that runs is the parent's."""
        self._run = None

    @property
    def url(self) -> str:
        """The URL at which it listens, for `from_mqtt`.

        Raises:
            ConfigError: It does not run.
        """
        host = self._wanted[0]
        return f"mqtt://{f'[{host}]' if ':' in host else host}:{self.port}?version=3.1.1"

    @property
    def port(self) -> int:
        """The port it listens on.

        Raises:
            ConfigError: It does not run.
        """
        if self._run is None:
            raise ConfigError("the broker is not running; enter it first: with Broker() as broker")
        return self._run.port

    def __enter__(self) -> Self:
        run = self._started()
        try:
            run.ready.result(_PATIENCE)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        run, self._run = self._run, None
        if run is not None:
            run.stop()
            run.thread.join(_PATIENCE)

    async def __aenter__(self) -> Self:
        run = self._started()
        try:
            async with asyncio.timeout(_PATIENCE):
                await asyncio.wrap_future(run.ready)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        run, self._run = self._run, None
        if run is None:
            return
        run.stop()
        try:
            await asyncio.wait([asyncio.wrap_future(run.done)], timeout=_PATIENCE)
        finally:
            run.thread.join(_PATIENCE if run.done.done() else 0)

    def __repr__(self) -> str:
        state = self.url if self._run is not None else "stopped"
        return f"<Broker {state}>"

    def _started(self) -> _Run:
        if self._run is not None:
            raise ConfigError("the broker is running already; make a second one")
        host, port = self._wanted
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        except OSError as error:
            raise ConnectError(
                f"the embedded broker can't listen on {host}:{port}: {error.strerror}"
            ) from error
        close_in_child(listener)
        self._run = run = _Run(listener, self._serve, self._accounts)
        return run


def _check_users(users: object) -> None:
    if not isinstance(users, Mapping):
        raise arguments.wrong("users", "be passwords by username, such as {'name': 'password'}")
    if not users:
        raise arguments.wrong("users", "have one user or more; leave it out to let anyone in")
    for name, password in cast("Mapping[Any, Any]", users).items():
        if not isinstance(name, str) or not isinstance(password, str):  # and shows no password
            raise arguments.wrong("users", "have a str for each username and each password")


_Serve = Callable[
    [socket.socket, "_Accounts", asyncio.Event, Callable[[], object]], Coroutine[None, None, None]
]


def _import_serve() -> _Serve:
    try:
        from rxflow.broker import _amqtt  # noqa: PLC0415 (an extra, and 0.2 s: only when asked for)
    except ModuleNotFoundError as error:
        raise ConfigError(
            "the embedded broker needs amqtt: pip install 'rxflow-mqtt[broker]'"
        ) from error
    _amqtt.silence()
    return _amqtt.serve


class _Accounts:
    """Usernames and keyed digests of their passwords; the passwords themselves are not kept."""

    __slots__ = ("_digests", "_key")

    def __init__(self, users: Mapping[str, str] | None) -> None:
        self._key = secrets.token_bytes()
        self._digests = (
            None if users is None else {name: self._digest(users[name]) for name in users}
        )

    def admit(self, username: str | None, password: str | None) -> bool:
        """Compare in the same time, whatever is wrong."""
        if self._digests is None:
            return True
        known = self._digests.get(username or "")
        expected = self._key if known is None else known
        is_same = hmac.compare_digest(self._digest(password or ""), expected)
        return is_same and known is not None and password is not None

    def _digest(self, password: str) -> bytes:
        return hashlib.blake2b(
            password.encode(errors="surrogatepass"), key=self._key, digest_size=32
        ).digest()


class _Run:
    """One life of the broker: its thread and its loop."""

    def __init__(self, listener: socket.socket, serve: _Serve, accounts: _Accounts) -> None:
        self.port: int = listener.getsockname()[1]
        self.ready: Future[None] = Future()
        self.done: Future[None] = Future()
        self.ready.set_running_or_notify_cancel()  # neither can be cancelled by who waits
        self.done.set_running_or_notify_cancel()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._life = partial(serve, listener, accounts, self._stop, self._is_ready)
        self.thread = threading.Thread(target=self._main, name="rxflow-broker", daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Ask it to end. Any thread, any number of times."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended
            self._loop.call_soon_threadsafe(self._stop.set)

    def _is_ready(self) -> None:
        self.ready.set_result(None)

    def _main(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._life())
        except Exception as error:  # noqa: BLE001 (raised where the broker was entered)
            if not self.ready.done():
                self.ready.set_exception(error)
        finally:
            self.done.set_result(None)
