"""One MQTT client on one event loop: it connects, stays connected, and hands on what comes.

Keep-alive is ours, because paho's does not see the messages that the wire decodes. Everything here
runs on the loop's thread, save `Paho.open`, which blocks (DNS, TCP, TLS) and has a thread for each
attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from rxflow.delivery import Ledger
from rxflow.errors import ConnectError, RxflowError
from rxflow.log import logger, printable
from rxflow.message import Message
from rxflow.mqtt.link import Link
from rxflow.mqtt.outbox import Limits, Outbox
from rxflow.mqtt.reasons import reason_text
from rxflow.mqtt.settings import Answer, Settings
from rxflow.mqtt.takeovers import ROUNDS, Takeovers
from rxflow.mqtt.transport import open_wire
from rxflow.mqtt.wire import Wire
from rxflow.process.environment import surroundings_of
from rxflow.process.forked import import_before_fork

if TYPE_CHECKING:
    from rxflow.mqtt._paho import Paho

_LONGEST_WAIT: Final = 60.0
_LASTING: Final = 30.0  # seconds: a connection that lasts so long has done its work
_TAKEN_OVER: Final = 0x8E
_GOODBYE: Final = 1.0  # seconds
# What a broker says that won't have a message, most often one of QoS 0: it would come again.
_ABOUT_A_MESSAGE: Final = (0x87, 0x90, 0x95, 0x99)
# What no later connection would change, in a DISCONNECT or a SUBACK.
NOT_SUPPORTED: Final = (0x9A, 0x9B, 0x9E, 0xA1, 0xA2)
# Refusals that may be gone at the next attempt; every other is final.
_PASSING: Final = {False: (0x03,), True: (0x80, 0x88, 0x89, 0x97, 0x9F)}  # of 3.1.1, of 5


class Peer(Protocol):
    """Whom a client serves: a source or a sink. All calls come on the loop's thread."""

    def connected(self, *, session_present: bool) -> None:
        """CONNACK has come; messages may follow before any other call."""
        ...

    def subscribed(self, mid: int, reason_codes: Sequence[int], reason: str) -> None:
        """SUBACK or UNSUBACK has come, with the code for each filter, and the broker's words."""
        ...

    def disconnected(self, reason: str) -> None:
        """The connection is lost; another follows."""
        ...

    def failed(self, error: RxflowError) -> None:
        """There will be no other connection."""
        ...

    def raised(self, error: Exception) -> None:
        """`on_next` raised; there will be no other connection."""
        ...

    def settled(self) -> None:
        """The ledger has settled what was dropped so far, the outbox has news, or room again."""
        ...

    def warn(self, text: str) -> None:
        """Tell the user."""
        ...

    def admit(self, topic: bytes) -> str | None:
        """As in `Receiver.admit`."""
        ...

    def oversized(self, message: Message[bytes], size: int) -> None:
        """As in `Receiver.oversized`."""
        ...


class _Lost(Exception):
    """This attempt or connection is over; another may follow."""


class _NoAnswer(_Lost):
    """The connection ended, or nothing came on it, before CONNACK."""


class _WrongVersion(_Lost):
    """The broker does not speak the version that was tried."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the broker does not speak this version of MQTT (reason code {code})")
        self.code = code


class Client:
    """Connects, stays connected, and hands on what comes.

    Args:
        settings: Where and how.
        peer: Who is served.
        ledger: Where deliveries are recorded.
        on_next: Called with each message, in order.
        loop: The thread of everything here.
        outbox: What is to be published; None: nothing.
    """

    def __init__(  # noqa: PLR0913, PLR0917 (each is one fact)
        self,
        settings: Settings,
        peer: Peer,
        ledger: Ledger,
        on_next: Callable[[Message[bytes]], object],
        loop: asyncio.AbstractEventLoop,
        outbox: Outbox | None = None,
    ) -> None:
        self.settings = settings
        self.ledger = ledger
        self.outbox = outbox
        self.on_next = on_next
        self.max_pending = settings.max_pending
        self.max_pending_bytes = settings.max_pending_bytes
        self.admit = peer.admit
        self.oversized = peer.oversized
        self.keep_alive: float = settings.keep_alive
        self.limits = Answer(0, is_refusal=False)
        self.trouble = ""  # why the last attempt or connection ended
        self._peer = peer
        self._loop = loop
        self._surroundings = surroundings_of(loop)
        self._paho: Paho | None = None
        self._spoke_5: bool | None = None  # on the last connection that stood
        self._link: Link | None = None
        self._wire: Wire | None = None  # of the attempt under way
        self._answer: asyncio.Future[None] = loop.create_future()
        self._loss: asyncio.Future[None] = loop.create_future()
        self._takeovers = Takeovers()
        self._has_stood = False  # ever
        self._is_stale = self._has_wiped = False  # see `Settings.starts_clean`
        self._has_worked = self._is_closed = False  # the connection under way
        self._limit: float | None = None
        self._until: float | None = None  # when a connection must stand, by the loop's clock
        self._received_before = 0
        self._connected_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self._is_stopped = False
        import_before_fork("rxflow.mqtt._paho")  # see `_open`
        self._is_closing = False

    # -- life -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to connect."""
        self._task = self._loop.create_task(self._live())

    def stop(self) -> None:
        """Hand on no more messages; acknowledge and keep alive as before."""
        self._is_stopped = True
        if self._link:
            self._link.stop()

    def interrupt(self) -> None:
        """Hand on nothing behind the message that is on its way. In a signal handler, too."""
        if self._link:
            self._link.interrupt()

    async def close(self, *, deadline: float, has_failed: bool = False) -> None:
        """Send what is to be sent, say DISCONNECT, and end. Twice is once.

        Args:
            deadline: Seconds that the output may take to leave.
            has_failed: The broker shall publish the will, if there is one.
        """
        if not self._is_closing:
            self._is_closing = self._is_stopped = True
            if self._link and self.is_connected:
                with_will = has_failed and self.settings.will is not None
                await self._link.say_goodbye(self._loop.time() + deadline, with_will=with_will)
            if self._task:
                self._task.cancel()
        if self._task:
            await asyncio.wait([self._task])  # to await it would swallow a `cancel` of this call

    async def _live(self) -> None:
        try:
            await self._stay_connected()
        except RxflowError as error:
            self._peer.failed(error)
        except Exception as error:  # noqa: BLE001 (never silent: whatever it is, the peer hears it)
            failure = ConnectError(f"{self.settings.address}: {_reason(error)}")
            failure.__cause__ = error
            self._peer.failed(failure)
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
            is_at_once, has_connected = False, False
            try:
                async with asyncio.timeout_at(self._until if self._limit else None):
                    await self._connect()
                has_connected = True
                await self._loss
            except TimeoutError as error:
                reason = reason or _reason(error)  # that of the attempt before says more
            except ConnectError as error:
                if has_connected or not self._has_stood:
                    raise
                reason = str(error)  # what a connection had yesterday, it may have again tomorrow
            except (_Lost, OSError) as error:
                reason = _reason(error)
            finally:
                self._drop()
            if self._is_closing:
                return
            if has_connected:
                reason, is_at_once = self._lost_after(
                    self._loop.time() - self._connected_at, reason
                )
                if self._has_worked:
                    attempt = self._takeovers.rounds  # a rival may be about to leave
                self._peer.disconnected(reason)
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
        self._peer.warn(
            f"no connection to {self.settings.address}: {printable(reason)}; "
            f"next attempt {f'in {wait:.1f} s' if wait else 'at once'}"
        )
        await asyncio.sleep(wait)

    def _arm(self, limit: float | None) -> None:
        """From now on a connection must stand within so many seconds; None: whenever it may."""
        self._limit = limit
        self._until = None if limit is None else self._loop.time() + limit

    def _lost_after(self, seconds: float, reason: str) -> tuple[str, bool]:
        """A connection has ended; how, in full, and whether to connect again without a wait.

        Raises:
            ConnectError: Another client has the same id.
        """
        if seconds >= _LASTING or self._has_received:
            self.worked()
        is_at_once = self._takeovers.closed(
            seconds, has_worked=self._has_worked, is_closed=self._is_closed
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

    @property
    def _has_received(self) -> bool:
        return self.ledger.received + self.ledger.received0 > self._received_before

    def worked(self) -> None:
        """This connection has done what it is for: back-off and `reconnect_timeout` begin anew."""
        self._has_worked = True
        self._until = None

    def _wait(self, attempt: int) -> float:
        longest = min(_LONGEST_WAIT, 2.0 ** min(attempt, 6))
        return self._surroundings.jittered(longest, self.settings.address.host)

    # -- connecting -----------------------------------------------------------------------------

    async def _connect(self) -> None:
        """One connection up to its CONNACK, in the best version that the broker speaks.

        MQTT 3.1.1 is tried if the broker says that it does not speak 5, or if it is silent or
        closes twice; not on a broker that has spoken 5 before. Each connection tries 5 first.

        Raises:
            _Lost, OSError: Another attempt may succeed.
            ConnectError: No attempt will.
        """
        if self.settings.address.version is not None:
            await self._attempt_only(is_5=self.settings.address.version == "5")
            return
        for nth in (1, 2):
            try:
                await self._attempt(is_5=True)
            except _WrongVersion as error:
                reason = str(error)
                break
            except _NoAnswer as error:
                reason = str(error)
                if self._spoke_5:
                    raise
                if self._spoke_5 is False or isinstance(error.__cause__, TimeoutError) or nth > 1:
                    break
            else:
                return
            self._drop()
        self._drop()
        self._peer.warn(
            f"{self.settings.address} does not answer in MQTT 5 ({printable(reason)}); trying "
            "3.1.1, which has no properties; version='3.1.1' asks for nothing else"
        )
        await self._attempt_only(is_5=False)

    async def _attempt_only(self, *, is_5: bool) -> None:
        try:
            await self._attempt(is_5=is_5)
        except _WrongVersion as error:
            raise ConnectError(
                f"{self.settings.address}: {error}", reason_code=error.code
            ) from error

    async def _attempt(self, *, is_5: bool) -> None:
        await self._open(self.settings, is_5=is_5)
        if self._is_stale:
            # MQTT 3.1.1 has no word for "a new session, and keep it": end the old one first.
            await self._leave()
            await self._open(replace(self.settings, is_durable=False), is_5=is_5)
            await self._leave()
            self._is_stale, self._has_wiped = False, True
            await self._open(self.settings, is_5=is_5)

    async def _leave(self) -> None:
        if self._link:
            await self._link.say_goodbye(self._loop.time() + _GOODBYE)
        self._drop()
        self._paho = None

    async def _open(self, settings: Settings, *, is_5: bool) -> None:
        paho = self._paho
        if paho is None or paho.is_5 != is_5:
            from rxflow.mqtt._paho import Paho  # noqa: PLC0415 (a sixth of the time of `import rxflow`)

            if self._has_stood:
                settings = replace(settings, starts_clean=False)
            paho = self._paho = Paho(settings, self, self._open_wire, is_5=is_5)
        self._answer = self._loop.create_future()
        self._loss = self._loop.create_future()
        self._has_worked = self._is_closed = False
        link = self._link = Link(self._loop, paho, self)
        link.is_stopped = self._is_stopped
        await self._in_thread(paho.open)
        if self._wire is None:
            raise _NoAnswer("the connection was closed at once")
        link.begin(self._wire)
        try:
            # `wait_for` of 3.11 swallows a late `cancel`.
            async with asyncio.timeout(self.settings.answer_timeout):
                await self._answer
        except TimeoutError as error:
            wait = self.settings.answer_timeout
            raise _NoAnswer(f"no answer to CONNECT within {wait:g} s") from error
        self._spoke_5 = is_5

    def _open_wire(self, tcp: socket.socket) -> Wire:
        """Make the wire of this attempt, on the attempt's thread."""
        if self._is_closing or self._link is None or self._paho is None:
            tcp.close()
            raise ConnectionAbortedError("closed while connecting")
        self._wire = open_wire(tcp, self.settings, self._link, self._loop, is_5=self.is_5)
        return self._wire

    def _drop(self) -> None:
        """Forget the connection, if there is one."""
        link, self._link = self._link, None
        wire, self._wire = self._wire, None
        if link:
            link.end()
        if wire:
            wire.end()  # of an attempt that was given up before its link began

    async def _in_thread(self, block: Callable[[], object]) -> None:
        """Run what blocks on a thread of its own.

        Raises:
            OSError: Another attempt may succeed.
            ConnectError: The other end can't be trusted, or does not trust us.
        """
        done: asyncio.Future[None] = self._loop.create_future()
        work = partial(_work, block, done, self._loop, self._drop)
        self._surroundings.start(work, "rxflow connect")
        try:
            await done
        except ssl.SSLCertVerificationError as error:
            raise ConnectError(
                f"{self.settings.address} has a certificate that can't be trusted: "
                f"{error.verify_message}"
            ) from error
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            raise
        except ssl.SSLError as error:
            raise ConnectError(f"{self.settings.address} refused TLS: {_reason(error)}") from error

    # -- what the broker says -------------------------------------------------------------------

    def answered(self, answer: Answer) -> None:
        if self._answer.done():
            return
        if answer.is_refusal:
            self._give_up(self._refusal(answer))
            return
        if self.is_5 and answer.session_present and not self.settings.is_durable:  # [MQTT-3.2.2-4]
            self._give_up(_Lost("the broker goes on with a session after a clean start"))
            return
        if self._finds_stale(answer):
            self._is_stale = True
            self._answer.set_result(None)
            return
        self.keep_alive = self.settings.keep_alive
        if answer.keep_alive is not None:
            self.keep_alive = answer.keep_alive  # [MQTT-3.1.2-21]
        self.limits = answer
        self._connected_at = self._loop.time()
        self._received_before = self.ledger.received + self.ledger.received0
        if not self._has_stood:
            self._has_stood, self._until = True, None
        self._takeovers.accepted(session_present=answer.session_present)
        logger.info(
            "connected to {} (reason code {}: Success{})",
            self.settings.address,
            answer.code,
            f"; {printable(answer.reason)}" if answer.reason else "",
        )
        self._answer.set_result(None)
        self._tell(self._say_what_differs)
        if self.outbox:
            self.outbox.connected(
                Limits(
                    answer.session_present,
                    self.is_5,
                    answer.receive_maximum,
                    answer.maximum_packet_bytes,
                    answer.maximum_qos,
                    answer.has_retain,
                )
            )
        # The ledger first: nothing that was dropped meanwhile is acknowledged on this connection.
        self._tell(partial(self._peer.connected, session_present=answer.session_present))
        if self._link:
            self._link.connected()

    def _finds_stale(self, answer: Answer) -> bool:
        """True where the broker has packet ids of an earlier process, and is to forget them."""
        is_first = self.settings.starts_clean and not (self._has_stood or self.is_5)
        return self._is_stale or (is_first and answer.session_present and not self._has_wiped)

    def _say_what_differs(self) -> None:
        """What the broker does otherwise than it was asked to, and nobody would see."""
        settings, given = self.settings, self.limits
        if given.session_expiry is not None and given.session_expiry < settings.session_expiry:
            self._peer.warn(
                f"{settings.address} keeps the session for {given.session_expiry:,} s while we are "
                f"away, not for {settings.session_expiry:,}"
            )
        if given.client_id and given.client_id != settings.client_id:
            self._peer.warn(
                f"{settings.address} calls this client {printable(given.client_id)!r}, not "
                f"{settings.client_id!r}: it keeps no session under our id"
            )

    def _refusal(self, answer: Answer) -> Exception:
        # paho gives the codes of MQTT 5 for either version; the wire has seen the broker's own.
        code = self._link.connack_code if self._link else answer.code
        why = reason_text(code, answer.reason, answer.server, is_5=self.is_5)
        text = f"{self.settings.address} refused the connection: {why}"
        if code in _PASSING[self.is_5]:
            return _Lost(text)
        return ConnectError(text, reason_code=code)

    def closed_by_broker(self, code: int, text: str) -> None:
        text = f"the broker closed the connection: {text}"
        if code == _TAKEN_OVER:
            text = f"another client with the id {self.settings.client_id!r} took the session over"
            if self._takeovers.said(self._loop.time() - self._connected_at):
                text = f"{text}, again and again; give each client an id of its own"
                self._give_up(ConnectError(text, reason_code=code))
                return
        is_published = self.outbox is not None and bool(self.outbox.suspects())
        if code in NOT_SUPPORTED or (is_published and code in _ABOUT_A_MESSAGE):
            self._give_up(ConnectError(f"{self.settings.address}: {text}", reason_code=code))
        else:
            self._give_up(_Lost(text))

    def subscribed(self, mid: int, reason_codes: Sequence[int], reason: str) -> None:
        self._tell(partial(self._peer.subscribed, mid, reason_codes, reason))

    def _tell(self, call: Callable[[], None]) -> None:
        """Call the peer from within paho, which takes no exception."""
        try:
            call()
        except Exception as error:  # noqa: BLE001 (a warning turned into an error, say)
            self._peer.raised(error)

    def _give_up(self, error: Exception) -> None:
        """End the attempt, or the connection, whichever is under way; take nothing more from it."""
        if self._link:
            self._link.stop()
        for future in (self._answer, self._loss):
            if not future.done():
                future.add_done_callback(_retrieved)  # perhaps nobody waits for it any more
                future.set_exception(error)
                return

    def wants_write(self) -> None:
        # On the attempt's thread this is CONNECT, which `_attempt` writes.
        link = self._link
        with contextlib.suppress(RuntimeError):
            if link and asyncio.get_running_loop() is self._loop:
                self._loop.call_soon(link.write)

    # -- what the link says ---------------------------------------------------------------------

    def lost(self, reason: str, *, is_closed: bool = False) -> None:
        self._is_closed = is_closed
        self._give_up(_Lost(reason) if self._answer.done() else _NoAnswer(reason))

    def wrong_version(self, code: int) -> None:
        self._give_up(_WrongVersion(code))

    def raised(self, error: Exception) -> None:
        self._peer.raised(error)

    def settled(self) -> None:
        self._peer.settled()

    # -- what the peer asks for -----------------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        """True from CONNACK to the end of the connection."""
        return self._link is not None and self._answer.done() and not self._loss.done()

    @property
    def sent(self) -> int:
        """Bytes of this connection that the kernel has taken."""
        return self._link.sent if self._link else 0

    @property
    def is_5(self) -> bool:
        """True on a connection of MQTT 5."""
        return self._paho is not None and self._paho.is_5

    @property
    def session_present(self) -> bool:
        """Whether the broker had the session, when it last answered."""
        return self.limits.session_present

    @property
    def heard(self) -> int:
        """Bytes read on this connection, but for answers to pings."""
        return self._link.heard if self._link else 0

    @property
    def is_paused(self) -> bool:
        """True while nothing is read, because there is no room for it."""
        return self._link is not None and self._link.is_paused

    def settle(self) -> None:
        """Settle the ledger, and acknowledge on the connection that stands, if one does."""
        if self._link and self.is_connected:
            self._link.settle()
        else:
            self.ledger.settle()
            self.ledger.take()  # which nobody can be told
            self._peer.settled()

    def subscribe(self, filters: Sequence[tuple[str, int, bool]]) -> int:
        """As `Paho.subscribe`, on the connection that stands."""
        return self._paho.subscribe(filters) if self._paho else 0

    def unsubscribe(self, names: Sequence[str]) -> int:
        """As `Paho.unsubscribe`, likewise."""
        return self._paho.unsubscribe(names) if self._paho else 0

    def publish(self) -> None:
        """Send what the outbox has ready, on the connection that stands, if one does."""
        if self._link and self.is_connected:
            self._link.publish()


def _work(
    block: Callable[[], object],
    done: asyncio.Future[None],
    loop: asyncio.AbstractEventLoop,
    undo: Callable[[], None],
) -> None:
    error: Exception | None = None
    try:
        block()
    except Exception as caught:  # noqa: BLE001 (handed to whoever waits)
        error = caught

    def settle() -> None:
        if done.cancelled():
            undo()  # closed while connecting
        elif error:
            done.set_exception(error)
        else:
            done.set_result(None)

    try:
        loop.call_soon_threadsafe(settle)
    except RuntimeError:  # the loop is closed: nobody waits
        undo()


def _retrieved(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
