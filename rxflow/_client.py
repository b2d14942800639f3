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
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from rxflow._link import CLOSED, Link
from rxflow._settings import SILENCE, Answer, Settings, open_wire
from rxflow._surroundings import surroundings_of
from rxflow._wire import Wire
from rxflow.delivery import Ledger
from rxflow.errors import ConnectError, RxflowError
from rxflow.log import logger, printable
from rxflow.message import Message

if TYPE_CHECKING:
    from rxflow._paho import Paho

_LONGEST_WAIT: Final = 60.0
_TAKEOVERS: Final = 3
_SHORT: Final = 5.0  # seconds: a connection that ends sooner was hardly one
_TAKEN_OVER: Final = 0x8E
# Refusals that may be gone at the next attempt; every other is final.
_PASSING: Final = {3: (0x03,), 5: (0x80, 0x88, 0x89, 0x97, 0x9F)}


class Peer(Protocol):
    """Whom a client serves: a source or a sink. All calls come on the loop's thread."""

    def connected(self, *, session_present: bool) -> None:
        """CONNACK has come; messages may follow before any other call."""
        ...

    def subscribed(self, mid: int, reason_codes: Sequence[int]) -> None:
        """SUBACK has come, with the code for each filter."""
        ...

    def published(self, mid: int, error: str | None) -> None:
        """The broker has the message (QoS 0: the wire has it), or refused it."""
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
        """The ledger has settled what was dropped so far, or there is room for output again."""
        ...

    def warn(self, text: str) -> None:
        """Tell the user."""
        ...

    def admit(self, topic: bytes) -> str | None:
        """As in `Receiver.admit`."""
        ...


class _Lost(Exception):
    """This attempt or connection is over; another may follow."""


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
    """

    def __init__(
        self,
        settings: Settings,
        peer: Peer,
        ledger: Ledger,
        on_next: Callable[[Message[bytes]], object],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.settings = settings
        self.ledger = ledger
        self.on_next = on_next
        self.max_pending = settings.max_pending
        self.admit = peer.admit
        self.keep_alive: float = settings.keep_alive
        self.session_present = False
        self.receive_maximum = self.maximum_packet_bytes = 0
        self._peer = peer
        self._loop = loop
        self._surroundings = surroundings_of(loop)
        self._paho: Paho | None = None
        self._version = {None: 0, "3.1.1": 3, "5": 5}[settings.address.version]  # 0: not known yet
        self._link: Link | None = None
        self._wire: Wire | None = None  # of the attempt under way
        self._answer: asyncio.Future[None] = loop.create_future()
        self._loss: asyncio.Future[None] = loop.create_future()
        self._takeovers = 0
        self._cut_short = self._received_before = 0
        self._connected_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self._is_stopped = False
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

    async def close(self, *, deadline: float) -> None:
        """Send what is to be sent, say DISCONNECT, and end. Twice is once.

        Args:
            deadline: Seconds that the output may take to leave.
        """
        if not self._is_closing:
            self._is_closing = self._is_stopped = True
            if self._link and self.is_connected:
                await self._link.say_goodbye(self._loop.time() + deadline)
            if self._task:
                self._task.cancel()
        if self._task:
            await asyncio.wait([self._task])  # to await it would swallow a `cancel` of this call

    async def _live(self) -> None:
        try:
            limit = self.settings.connect_timeout
            await self._stay_connected(None if limit is None else self._loop.time() + limit)
        except RxflowError as error:
            self._peer.failed(error)
        except Exception as error:  # noqa: BLE001 (never silent: whatever it is, the peer hears it)
            failure = ConnectError(f"{self.settings.address}: {_reason(error)}")
            failure.__cause__ = error
            self._peer.failed(failure)
        finally:
            self._drop()

    async def _stay_connected(self, until: float | None) -> None:
        """One connection after the other.

        Args:
            until: When the first must stand, by the loop's clock; None: whenever it may.

        Raises:
            ConnectError: No attempt will succeed, or none did in time.
        """
        attempt, reason = 0, ""
        while not self._is_closing:
            try:
                async with asyncio.timeout_at(until if self.settings.connect_timeout else None):
                    await self._connect()
                until = None
                await self._loss
            except TimeoutError as error:
                reason = reason or _reason(error)  # that of the attempt before says more
            except (_Lost, OSError) as error:
                reason = _reason(error)
            finally:
                self._drop()
            if self._is_closing:
                return
            if self._loss.done():
                attempt = self._lost_after(self._loop.time() - self._connected_at, attempt, reason)
                self._peer.disconnected(reason)
            else:
                self._cut_short = 0
            wait = self._wait(attempt)
            attempt += 1
            if until is not None:
                left = until - self._loop.time()
                if left <= 0:
                    raise ConnectError(
                        f"no connection to {self.settings.address} within "
                        f"{self.settings.connect_timeout:g} s: {reason}"
                    )
                wait = min(wait, left)
            self._peer.warn(
                f"no connection to {self.settings.address}: {printable(reason)}; "
                f"next attempt in {wait:.1f} s"
            )
            await asyncio.sleep(wait)

    def _lost_after(self, seconds: float, attempt: int, reason: str) -> int:
        """Count connections that are closed as soon as they stand, with nothing received.

        MQTT 5 can say that another client took the session over; mosquitto 2.0.11 just closes, as
        every broker does on 3.1.1.

        Returns:
            The number of the next attempt: a connection that lasted begins anew.

        Raises:
            ConnectError: It happened again and again, and the client id is a fixed one.
        """
        has_received = self.ledger.received + self.ledger.received0 > self._received_before
        is_cut = reason == CLOSED and seconds < _SHORT and not has_received
        if not is_cut or not self.settings.is_durable:
            self._cut_short = 0
            return 0
        self._cut_short += 1
        if self._cut_short >= _TAKEOVERS:
            raise ConnectError(
                f"{self.settings.address} closed {self._cut_short} connections in a row as soon as "
                f"they stood: most often that is another client with the id "
                f"{self.settings.client_id!r}; give each client an id of its own"
            )
        return attempt

    def _wait(self, attempt: int) -> float:
        longest = min(_LONGEST_WAIT, 2.0**attempt)
        return self._surroundings.jittered(longest, self.settings.address.host)

    # -- connecting -----------------------------------------------------------------------------

    async def _connect(self) -> None:
        """One connection up to its CONNACK, in the version that the broker speaks.

        Raises:
            _Lost, OSError: Another attempt may succeed.
            ConnectError: No attempt will.
        """
        try:
            await self._attempt(self._version or 5)
        except _Lost as error:
            if self._version:
                raise self._final(error) from error
            logger.info(
                "{} does not answer in MQTT 5 ({}); trying 3.1.1",
                self.settings.address,
                printable(error),
            )
        else:
            return
        self._drop()
        try:
            await self._attempt(3)
        except _Lost as error:
            raise self._final(error) from error

    def _final(self, error: _Lost) -> Exception:
        if isinstance(error, _WrongVersion):
            return ConnectError(f"{self.settings.address}: {error}", reason_code=error.code)
        return error

    async def _attempt(self, version: int) -> None:
        paho = self._paho
        if paho is None or paho.version != version:
            from rxflow._paho import Paho  # noqa: PLC0415 (a sixth of the time of `import rxflow`)

            paho = self._paho = Paho(self.settings, version, self, self._open_wire)
        self._answer = self._loop.create_future()
        self._loss = self._loop.create_future()
        link = self._link = Link(self._loop, paho, self)
        link.is_stopped = self._is_stopped
        await self._in_thread(paho.open)
        if self._wire is None:
            raise _Lost("the connection was closed at once")
        link.begin(self._wire)
        try:
            async with asyncio.timeout(SILENCE):  # `wait_for` of 3.11 swallows a late `cancel`
                await self._answer
        except TimeoutError:
            raise _Lost(f"no answer to CONNECT within {SILENCE:g} s") from None
        self._version = version

    def _open_wire(self, tcp: socket.socket) -> Wire:
        """Make the wire of this attempt, on the attempt's thread."""
        if self._is_closing or self._link is None or self._paho is None:
            tcp.close()
            raise ConnectionAbortedError("closed while connecting")
        is_5 = self._paho.version == 5  # noqa: PLR2004 (MQTT 5)
        self._wire = open_wire(tcp, self.settings, self._link, self._loop, version5=is_5)
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
        if answer.keep_alive is not None:
            self.keep_alive = answer.keep_alive  # [MQTT-3.1.2-21]
        self.session_present = answer.session_present
        self.receive_maximum = answer.receive_maximum
        self.maximum_packet_bytes = answer.maximum_packet_bytes
        self._connected_at = self._loop.time()
        self._received_before = self.ledger.received + self.ledger.received0
        logger.info(
            "connected to {} (reason code {}: {})",
            self.settings.address,
            answer.code,
            answer.text,
        )
        self._answer.set_result(None)
        # The ledger first: nothing that was dropped meanwhile is acknowledged on this connection.
        self._tell(partial(self._peer.connected, session_present=answer.session_present))
        if self._link:
            self._link.connected()

    def _refusal(self, answer: Answer) -> Exception:
        # paho gives the codes of MQTT 5 for either version; the wire has seen the broker's own.
        code = self._link.connack_code if self._link else answer.code
        text = f"{self.settings.address} refused the connection: {answer.text} (reason code {code})"
        if self._paho and code in _PASSING[self._paho.version]:
            return _Lost(text)
        return ConnectError(text, reason_code=code)

    def closed_by_broker(self, code: int, text: str) -> None:
        if code != _TAKEN_OVER:
            self._give_up(_Lost(f"the broker closed the connection: {text}"))
            return
        if self._loop.time() - self._connected_at > _LONGEST_WAIT:
            self._takeovers = 0  # those of years don't add up
        self._takeovers += 1
        reason = f"another client with the id {self.settings.client_id!r} took the session over"
        if self._takeovers < _TAKEOVERS:
            self._give_up(_Lost(reason))
        else:
            reason = f"{reason}, {self._takeovers} times; give each client an id of its own"
            self._give_up(ConnectError(reason, reason_code=code))

    def subscribed(self, mid: int, reason_codes: Sequence[int]) -> None:
        self._tell(partial(self._peer.subscribed, mid, reason_codes))

    def published(self, mid: int, error: str | None) -> None:
        self._tell(partial(self._peer.published, mid, error))

    def _tell(self, call: Callable[[], None]) -> None:
        """Call the peer from within paho, which takes no exception."""
        try:
            call()
        except Exception as error:  # noqa: BLE001 (a warning turned into an error, say)
            self._peer.raised(error)

    def _give_up(self, error: Exception) -> None:
        """End the attempt, or the connection, whichever is under way."""
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

    def lost(self, reason: str) -> None:
        self._give_up(_Lost(reason))

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
    def unsent(self) -> int:
        """Bytes of output that the kernel has not taken yet."""
        return self._link.unsent if self._link else 0

    def settle(self) -> None:
        """Settle the ledger, and acknowledge on the connection that stands, if one does."""
        if self._link and self.is_connected:
            self._link.settle()
        else:
            self.ledger.settle()
            self._peer.settled()

    def acknowledge(self, ready: list[int]) -> None:
        """Put acknowledgements into the output; `settle` sends them."""
        if self._link and self.is_connected:
            self._link.acknowledge(ready)

    def complete(self, packet_ids: list[int]) -> None:
        """Likewise for PUBCOMP."""
        if self._link and self.is_connected:
            self._link.complete(packet_ids)

    def subscribe(self, filters: Sequence[tuple[str, int]], *, retained: bool) -> int:
        """As `Paho.subscribe`, on the connection that stands."""
        return self._paho.subscribe(filters, retained=retained) if self._paho else 0

    def publish(self, topic: str, payload: bytes, qos: int, *, retain: bool) -> int:
        """As `Paho.publish`, on the connection that stands."""
        return self._paho.publish(topic, payload, qos, retain=retain) if self._paho else 0


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
