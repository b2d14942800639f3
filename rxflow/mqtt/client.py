"""One MQTT client on one event loop: it connects, stays connected, and hands on what comes.

Keep-alive is ours, because paho's does not see the messages that the wire decodes. Everything here
runs on the loop's thread, save `Paho.open`, which blocks (DNS, TCP, TLS) and has a thread for each
attempt. What lives for one connection only stands in `Connection`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from rxflow.delivery import Ledger
from rxflow.errors import ConnectError, RxflowError
from rxflow.log import printable
from rxflow.message import Message
from rxflow.mqtt.connection import (
    Connection,
    LostError,
    NoAnswerError,
    Peer,
    Subscriber,
    WrongVersionError,
    explained,
)
from rxflow.mqtt.outbox import Outbox
from rxflow.mqtt.settings import Answer, Settings
from rxflow.mqtt.takeovers import ROUNDS, Takeovers
from rxflow.mqtt.topics import check_topic
from rxflow.process.environment import environment_of
from rxflow.process.forked import import_before_fork

if TYPE_CHECKING:
    from rxflow.mqtt._paho import Paho

_LONGEST_WAIT: Final = 60.0
_LASTING: Final = 30.0  # seconds: a connection that lasts so long has done its work
_GOODBYE: Final = 1.0  # seconds


class _Unsubscribed:
    """Gets what a broker sends though nothing was subscribed: drops it, and acknowledges none."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.ledger.close()

    def on_next(self, message: Message[bytes]) -> None:
        """It is dropped."""

    def admit(self, topic: bytes) -> str:
        return check_topic(topic)

    def oversized(self, message: Message[bytes], size: int) -> None:
        """Likewise."""

    def subscribed(self, mid: int, reason_codes: Sequence[int], reason: str) -> None:
        """Nothing was asked for."""


class Client:
    """Connects, stays connected, and hands on what comes.

    Args:
        settings: Where and how.
        peer: Who is served.
        loop: The thread of everything here.
        subscriber: Who gets messages; None: nobody subscribes to any.
        outbox: What is to be published; None: nothing.
    """

    def __init__(
        self,
        settings: Settings,
        peer: Peer,
        loop: asyncio.AbstractEventLoop,
        *,
        subscriber: Subscriber | None = None,
        outbox: Outbox | None = None,
    ) -> None:
        self.settings = settings
        self.peer = peer
        self.subscriber = subscriber or _Unsubscribed()
        self.outbox = outbox
        self.is_stopped = False
        self.trouble = ""  # why the last attempt or connection ended
        self._loop = loop
        self._paho: Paho | None = None
        self._spoke_5: bool | None = None  # on the last connection that stood
        self._connection: Connection | None = None
        self._takeovers = Takeovers()
        self._has_stood = False  # ever
        self._is_stale = self._has_wiped = False  # see `Settings.starts_clean`
        self._limit: float | None = None
        self._until: float | None = None  # when a connection must stand, by the loop's clock
        self._task: asyncio.Task[None] | None = None
        import_before_fork("rxflow.mqtt._paho")  # see `_open`
        self._is_closing = False

    # -- life -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to connect."""
        self._task = self._loop.create_task(self._live())

    def stop(self) -> None:
        """Hand on no more messages; acknowledge and keep alive as before."""
        self.is_stopped = True
        if self._connection:
            self._connection.stop()

    def interrupt(self) -> None:
        """Hand on nothing behind the message that is on its way. In a signal handler, too."""
        if self._connection:
            self._connection.interrupt()

    async def close(self, *, deadline: float, has_failed: bool = False) -> None:
        """Send what is to be sent, say DISCONNECT, and end. Safe to call more than once.

        Args:
            deadline: Seconds that the output may take to leave.
            has_failed: The broker shall publish the will, if there is one.
        """
        if not self._is_closing:
            self._is_closing = self.is_stopped = True
            if self._connection:
                with_will = has_failed and self.settings.will is not None
                await self._connection.say_goodbye(deadline, with_will=with_will)
            if self._task:
                self._task.cancel()
        if self._task:
            await asyncio.wait([self._task])  # to await it would swallow a `cancel` of this call

    async def _live(self) -> None:
        try:
            await self._stay_connected()
        except RxflowError as error:
            self.peer.failed(error)
        except Exception as error:  # noqa: BLE001 (never silent: whatever it is, the peer hears it)
            failure = ConnectError(f"{self.settings.address}: {explained(error)}")
            failure.__cause__ = error
            self.peer.failed(failure)
        finally:
            self._drop()

    async def _stay_connected(self) -> None:
        """One connection after the other.

        Raises:
            ConnectError: No attempt will succeed, or none did in time.
        """
        self._arm(self.settings.connect_timeout)
        attempt, reason = 0, ""
        while not self._is_closing:
            is_at_once, connection = False, None
            try:
                async with asyncio.timeout_at(self._until if self._limit else None):
                    connection = await self._connect()
                await connection.loss
            except TimeoutError as error:
                reason = reason or explained(error)  # that of the attempt before says more
            except ConnectError as error:
                if connection or not self._has_stood:
                    raise
                reason = str(error)  # what a connection had yesterday, it may have again tomorrow
            except (LostError, OSError) as error:
                reason = explained(error)
            finally:
                self._drop()
            if self._is_closing:
                return
            if connection:
                reason, is_at_once = self._lost(connection, reason)
                if connection.has_worked:
                    attempt = self._takeovers.rounds  # a rival may be about to leave
                self.peer.disconnected(reason)
                if self._until is None:
                    self._arm(self.settings.reconnect_timeout)
            else:
                self._takeovers.refused()
            wait = 0.0 if is_at_once else self._wait(attempt)
            attempt += not is_at_once
            await self._pause(wait, reason)

    async def _pause(self, wait: float, reason: str) -> None:
        """Say that there is no connection, and wait for the next attempt.

        Raises:
            ConnectError: The time for it is over.
        """
        self.trouble = reason
        if self._until is not None:
            left = self._until - self._loop.time()
            if left <= 0:
                raise ConnectError(
                    f"no connection to {self.settings.address} within {self._limit:g} s: {reason}"
                )
            wait = min(wait, left)
        self.peer.warn(
            f"no connection to {self.settings.address}: {printable(reason)}; "
            f"next attempt {f'in {wait:.1f} s' if wait else 'at once'}"
        )
        await asyncio.sleep(wait)

    def _arm(self, limit: float | None) -> None:
        """From now on a connection must stand within so many seconds; None: whenever it may."""
        self._limit = limit
        self._until = None if limit is None else self._loop.time() + limit

    def _lost(self, connection: Connection, reason: str) -> tuple[str, bool]:
        """A connection has ended; how, in full, and whether to connect again without a wait.

        Raises:
            ConnectError: Another client has the same id.
        """
        seconds = self._loop.time() - connection.began
        if seconds >= _LASTING or connection.has_received:
            connection.has_worked, self._until = True, None
        is_at_once = self._takeovers.closed(
            seconds, has_worked=connection.has_worked, is_closed=connection.is_closed
        )
        if not self.settings.is_durable:
            return reason, False  # nobody has the id of such a session
        if self._takeovers.rounds >= ROUNDS:
            raise ConnectError(
                f"{self.settings.address} closes each connection of client id "
                f"{self.settings.client_id!r} soon, and accepts the next at once, with the "
                "session: another client has the same id; give each client an id of its own"
            )
        if self._takeovers.closed_in_a_row > 1:
            reason = (
                f"{reason} {seconds:.1f} s after it stood; the broker restarts or does not like "
                f"what it got, or another client has the id {self.settings.client_id!r}"
            )
        return reason, is_at_once

    def worked(self) -> None:
        """The connection has done what it is for: back-off and `reconnect_timeout` begin anew."""
        self._until = None
        if self._connection:
            self._connection.has_worked = True

    def _wait(self, attempt: int) -> float:
        longest = min(_LONGEST_WAIT, 2.0 ** min(attempt, 6))
        return environment_of(self._loop).jittered(longest, self.settings.address.host)

    # -- connecting -----------------------------------------------------------------------------

    async def _connect(self) -> Connection:
        """One connection up to its CONNACK, in the best version that the broker speaks.

        MQTT 3.1.1 is tried if the broker says that it does not speak 5, or if it is silent or
        closes twice; not on a broker that has spoken 5 before. Each connection tries 5 first.

        Raises:
            LostError, OSError: Another attempt may succeed.
            ConnectError: No attempt will.
        """
        if self.settings.address.version is not None:
            return await self._attempt_only(is_5=self.settings.address.version == "5")
        for nth in (1, 2):
            try:
                return await self._attempt(is_5=True)
            except WrongVersionError as error:
                reason = str(error)
                break
            except NoAnswerError as error:
                reason = str(error)
                if self._spoke_5:
                    raise
                if self._spoke_5 is False or isinstance(error.__cause__, TimeoutError) or nth > 1:
                    break
            self._drop()
        self._drop()
        self.peer.warn(
            f"{self.settings.address} does not answer in MQTT 5 ({printable(reason)}); trying "
            "3.1.1, which has no properties; version='3.1.1' asks for nothing else"
        )
        return await self._attempt_only(is_5=False)

    async def _attempt_only(self, *, is_5: bool) -> Connection:
        try:
            return await self._attempt(is_5=is_5)
        except WrongVersionError as error:
            raise ConnectError(
                f"{self.settings.address}: {error}", reason_code=error.code
            ) from error

    async def _attempt(self, *, is_5: bool) -> Connection:
        connection = await self._open(self.settings, is_5=is_5)
        if self._is_stale:
            # MQTT 3.1.1 has no word for "a new session, and keep it": end the old one first.
            await self._leave(connection)
            wiping = await self._open(replace(self.settings, is_durable=False), is_5=is_5)
            await self._leave(wiping)
            self._is_stale, self._has_wiped = False, True
            connection = await self._open(self.settings, is_5=is_5)
        return connection

    async def _leave(self, connection: Connection) -> None:
        await connection.say_goodbye(_GOODBYE)
        self._drop()
        self._paho = None

    async def _open(self, settings: Settings, *, is_5: bool) -> Connection:
        paho = self._paho
        if paho is None or paho.is_5 != is_5:
            from rxflow.mqtt._paho import Paho  # noqa: PLC0415 (a sixth of the time of `import rxflow`)

            if self._has_stood:
                settings = replace(settings, starts_clean=False)
            paho = self._paho = Paho(settings, is_5=is_5)
        connection = self._connection = Connection(self, paho, self._loop)
        await connection.open()
        self._spoke_5 = is_5
        return connection

    def _drop(self) -> None:
        """Forget the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection:
            connection.end()

    # -- what the connection says ---------------------------------------------------------------

    def accepts(self, answer: Answer) -> bool:
        is_first = self.settings.starts_clean and not (self._has_stood or self._speaks_5)
        if self._is_stale or (is_first and answer.session_present and not self._has_wiped):
            self._is_stale = True  # the broker has packet ids of an earlier process
            return False
        if not self._has_stood:
            self._has_stood, self._until = True, None
        self._takeovers.accepted(session_present=answer.session_present)
        return True

    @property
    def _speaks_5(self) -> bool:
        return self._paho is not None and self._paho.is_5

    def is_taken_over(self, seconds: float) -> bool:
        return self._takeovers.said(seconds)

    # -- what the peer asks for -----------------------------------------------------------------

    @property
    def connection(self) -> Connection | None:
        """The one that stands, if one does."""
        connection = self._connection
        return connection if connection and connection.is_connected else None

    @property
    def sent(self) -> int:
        """Bytes of this connection that the kernel has taken."""
        return self._connection.sent if self._connection else 0

    def publish(self) -> None:
        """Send what the outbox has ready, on the connection that stands, if one does."""
        if connection := self.connection:
            connection.publish()

    def settle(self) -> None:
        """Settle the ledger, and acknowledge on the connection that stands, if one does."""
        if connection := self.connection:
            connection.settle()
        else:
            self.subscriber.ledger.settle()
            self.subscriber.ledger.take()  # which nobody can be told
            self.peer.settled()
