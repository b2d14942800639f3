"""One attempt to connect, and the connection that comes of it. Made anew for each."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from rxflow.errors import ConnectError, RxflowError
from rxflow.log import logger, printable
from rxflow.mqtt.link import Link
from rxflow.mqtt.outbox import Limits, Outbox
from rxflow.mqtt.reasons import reason_text
from rxflow.mqtt.settings import Answer, Settings
from rxflow.mqtt.transport import open_wire
from rxflow.mqtt.wire import Receiver, Wire
from rxflow.process.environment import environment_of

if TYPE_CHECKING:
    from rxflow.mqtt._paho import Paho

_TAKEN_OVER: Final = 0x8E
# What a broker says that won't have a message, most often one of QoS 0: it would come again.
_ABOUT_A_MESSAGE: Final = (0x87, 0x90, 0x95, 0x99)
# What no later connection would change, in a DISCONNECT or a SUBACK.
NOT_SUPPORTED: Final = (0x9A, 0x9B, 0x9E, 0xA1, 0xA2)
# Refusals that may be gone at the next attempt; every other is final.
_PASSING: Final = {False: (0x03,), True: (0x80, 0x88, 0x89, 0x97, 0x9F)}  # of 3.1.1, of 5


class Peer(Protocol):
    """The user of a client. All calls come on the loop's thread."""

    def connected(self, connection: Connection) -> None:
        """CONNACK has come; messages may follow before any other call."""
        ...

    def disconnected(self, reason: str) -> None:
        """The connection is lost; another follows."""
        ...

    def failed(self, error: RxflowError) -> None:
        """There will be no other connection."""
        ...

    def raised(self, error: Exception) -> None:
        """`on_next` raised, or another call of the peer's; there will be no other connection."""
        ...

    def settled(self) -> None:
        """The ledger has settled what was dropped so far, the outbox has news, or room again."""
        ...

    def warn(self, text: str) -> None:
        """Tell the user."""
        ...


class Subscriber(Receiver, Protocol):
    """The receiver of a client's messages, on the same thread."""

    def subscribed(self, mid: int, reason_codes: Sequence[int], reason: str) -> None:
        """SUBACK or UNSUBACK has come, with the code for each filter, and the broker's words."""
        ...


class Session(Protocol):
    """The client, whose session goes on over all its connections.

    Attributes:
        is_stopped: True if no more messages are to be handed on.
    """

    settings: Settings
    peer: Peer
    subscriber: Subscriber
    outbox: Outbox | None
    is_stopped: bool

    def accepts(self, answer: Answer) -> bool:
        """CONNACK has come; False if the broker must first forget an older session."""
        ...

    def is_taken_over(self, seconds: float) -> bool:
        """A connection of so many seconds was taken over; True if that happens again and again."""
        ...


class LostError(Exception):
    """This attempt or connection is over; another may follow."""


class NoAnswerError(LostError):
    """The connection ended, or nothing came on it, before CONNACK."""


class WrongVersionError(LostError):
    """The broker does not speak the version that was tried."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the broker does not speak this version of MQTT (reason code {code})")
        self.code = code


class Connection:
    """An attempt until CONNACK has come, then a connection, then the memory of one.

    Args:
        client: Who makes it.
        paho: Speaks for us.
        loop: The thread of everything here but `open_wire`.

    Attributes:
        limits: What CONNACK said.
        began: When it came, by the loop's clock.
        has_worked: True if the connection has done what it is for.
        is_closed: True if the other end closed it, without a word.
        loss: Raises why the connection ended, when it has.
    """

    def __init__(self, client: Session, paho: Paho, loop: asyncio.AbstractEventLoop) -> None:
        self.limits = Answer(0, is_refusal=False)
        self.began = 0.0
        self.has_worked = self.is_closed = False
        self.loss: asyncio.Future[None] = loop.create_future()
        self.settings = client.settings
        self.ledger = client.subscriber.ledger
        self.outbox = client.outbox
        self._answer: asyncio.Future[None] = loop.create_future()
        self._client = client
        self._peer = client.peer
        self._loop = loop
        self._paho = paho
        self._received_before = 0
        self._is_over = False
        self._link = Link(loop, paho, self)

    # -- life -----------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect, up to CONNACK.

        Raises:
            LostError, OSError: Another attempt may succeed.
            ConnectError: No attempt will.
        """
        self._paho.listener = self
        await self._in_thread(self._paho.open)
        if not self._link.begin(is_stopped=self._client.is_stopped):
            raise NoAnswerError("the connection was closed at once")
        try:
            # `wait_for` of 3.11 swallows a late `cancel`.
            async with asyncio.timeout(self.settings.answer_timeout):
                await self._answer
        except TimeoutError as error:
            wait = self.settings.answer_timeout
            raise NoAnswerError(f"no answer to CONNECT within {wait:g} s") from error

    async def _in_thread(self, block: Callable[[], object]) -> None:
        """Run what blocks on a thread of its own.

        Raises:
            OSError: Another attempt may succeed.
            ConnectError: The other end can't be trusted, or does not trust us.
        """
        done: asyncio.Future[None] = self._loop.create_future()
        work = partial(_work, block, done, self._loop, self.end)
        environment_of(self._loop).start(work, "rxflow connect")
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
            raise ConnectError(
                f"{self.settings.address} refused TLS: {explained(error)}"
            ) from error

    def open_wire(self, tcp: socket.socket) -> Wire:
        """Make the wire, on the attempt's thread."""
        if self._is_over:
            tcp.close()
            raise ConnectionAbortedError("closed while connecting")
        wire = open_wire(
            tcp,
            self.settings,
            self._client.subscriber,
            self._link.passed,
            self._loop,
            is_5=self.is_5,
        )
        self._link.wire = wire
        return wire

    def stop(self) -> None:
        """Hand on no more messages; acknowledge and keep alive as before."""
        self._link.stop()

    def interrupt(self) -> None:
        """Hand on nothing behind the message that is on its way. In a signal handler, too."""
        self._link.interrupt()

    async def say_goodbye(self, seconds: float, *, with_will: bool = False) -> None:
        """As `Link.say_goodbye`, within so many seconds, if it stands."""
        if self.is_connected:
            await self._link.say_goodbye(self._loop.time() + seconds, with_will=with_will)

    def end(self) -> None:
        """Close it. Safe to call more than once."""
        self._is_over = True
        self._link.end()

    @property
    def has_received(self) -> bool:
        """True if messages came on it."""
        return self.ledger.received + self.ledger.received0 > self._received_before

    # -- what the broker says -------------------------------------------------------------------

    def answered(self, answer: Answer) -> None:
        if self._answer.done():
            return
        if answer.is_refusal:
            self._give_up(self._refusal(answer))
            return
        if self.is_5 and answer.session_present and not self.settings.is_durable:  # [MQTT-3.2.2-4]
            self._give_up(LostError("the broker goes on with a session after a clean start"))
            return
        if not self._client.accepts(answer):
            self._answer.set_result(None)
            return
        self.limits = answer
        self.began = self._loop.time()
        self._received_before = self.ledger.received + self.ledger.received0
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
        self._tell(partial(self._peer.connected, self))
        if not self._is_over:
            self._link.connected()

    def _say_what_differs(self) -> None:
        """Return how the broker deviates from the request, where nobody would see it."""
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
        code = self._link.connack_code
        why = reason_text(code, answer.reason, answer.server, is_5=self.is_5)
        text = f"{self.settings.address} refused the connection: {why}"
        if code in _PASSING[self.is_5]:
            return LostError(text)
        return ConnectError(text, reason_code=code)

    def closed_by_broker(self, code: int, text: str) -> None:
        text = f"the broker closed the connection: {text}"
        if code == _TAKEN_OVER:
            text = f"another client with the id {self.settings.client_id!r} took the session over"
            if self._client.is_taken_over(self._loop.time() - self.began):
                text = f"{text}, again and again; give each client an id of its own"
                self._give_up(ConnectError(text, reason_code=code))
                return
        is_published = self.outbox is not None and bool(self.outbox.suspects())
        if code in NOT_SUPPORTED or (is_published and code in _ABOUT_A_MESSAGE):
            self._give_up(ConnectError(f"{self.settings.address}: {text}", reason_code=code))
        else:
            self._give_up(LostError(text))

    def subscribed(self, mid: int, reason_codes: Sequence[int], reason: str) -> None:
        self._tell(partial(self._client.subscriber.subscribed, mid, reason_codes, reason))

    def _tell(self, call: Callable[[], None]) -> None:
        """Call the peer from within paho, which takes no exception."""
        try:
            call()
        except Exception as error:  # noqa: BLE001 (a warning turned into an error, say)
            self._peer.raised(error)

    def _give_up(self, error: Exception) -> None:
        """End the attempt, or the connection, whichever is under way; take nothing more from it."""
        self._link.stop()
        for future in (self._answer, self.loss):
            if not future.done():
                future.add_done_callback(_retrieved)  # perhaps nobody waits for it any more
                future.set_exception(error)
                return

    def wants_write(self) -> None:
        # On the attempt's thread this is CONNECT, which `open` writes.
        with contextlib.suppress(RuntimeError):
            if asyncio.get_running_loop() is self._loop:
                self._loop.call_soon(self._link.write)

    # -- what the link says ---------------------------------------------------------------------

    @property
    def keep_alive(self) -> float:
        """Seconds: ours, unless the broker has another wish [MQTT-3.1.2-21]."""
        given = self.limits.keep_alive
        return self.settings.keep_alive if given is None else given

    def lost(self, reason: str, *, is_closed: bool = False) -> None:
        self.is_closed = is_closed
        self._give_up(LostError(reason) if self._answer.done() else NoAnswerError(reason))

    def wrong_version(self, code: int) -> None:
        self._give_up(WrongVersionError(code))

    def raised(self, error: Exception) -> None:
        self._peer.raised(error)

    def settled(self) -> None:
        self._peer.settled()

    # -- what the peer asks for -----------------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        """True from CONNACK to the end of the connection."""
        return not self._is_over and self._answer.done() and not self.loss.done()

    @property
    def is_5(self) -> bool:
        """True on a connection of MQTT 5."""
        return self._paho.is_5

    @property
    def sent(self) -> int:
        """Bytes that the kernel has taken."""
        return self._link.sent

    @property
    def heard(self) -> int:
        """Bytes read, but for answers to pings."""
        return self._link.heard

    @property
    def is_paused(self) -> bool:
        """True while nothing is read, because there is no room for it."""
        return self._link.is_paused

    def settle(self) -> None:
        """As `Client.settle`, where it stands."""
        self._link.settle()

    def subscribe(self, filters: Sequence[tuple[str, int, bool]]) -> int:
        """As `Paho.subscribe`."""
        return self._paho.subscribe(filters)

    def unsubscribe(self, names: Sequence[str]) -> int:
        """As `Paho.unsubscribe`."""
        return self._paho.unsubscribe(names)

    def publish(self) -> None:
        """Send what the outbox has ready."""
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


def explained(error: BaseException) -> str:
    """An error in words, for people."""
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
