"""One connection on its loop: when to read, write and acknowledge, and whether it lives."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from rxflow.delivery import Ledger
from rxflow.errors import CANCELLING, interrupted
from rxflow.mqtt.outbox import Outbox
from rxflow.mqtt.packets import DISCONNECT
from rxflow.mqtt.wire import CONNACK, HELD_BACK, MalformedPacketError, Wire
from rxflow.process.environment import environment_of
from rxflow.process.read_pass import read_pass

if TYPE_CHECKING:
    from rxflow.mqtt._paho import Paho

CLOSED: Final = "the broker closed the connection"
# With bytes of ours unread, that is a reset.
_CLOSES: Final = (os.strerror(errno.ECONNRESET), os.strerror(errno.EPIPE))

_WITH_WILL: Final = 0x04
_TICK: Final = 0.05
_SLOW_TICK: Final = 0.5
_PAUSE: Final = 0.005
_PUBLISHED_AT_ONCE: Final = 256 * 1024  # bytes
_REFUSED_VERSION: Final = (0x01, 0x84)


class Owner(Protocol):
    """The part of a connection that its link needs."""

    outbox: Outbox | None

    @property
    def ledger(self) -> Ledger:
        """The ledger's owner: its deliveries come on this link."""
        ...

    @property
    def keep_alive(self) -> float:
        """Seconds; 0: never mind."""
        ...

    def lost(self, reason: str, *, is_closed: bool = False) -> None:
        """The connection can't go on; `is_closed`: the other end closed it, without a word."""
        ...

    def wrong_version(self, code: int) -> None:
        """CONNACK refuses the version of MQTT."""
        ...

    def raised(self, error: Exception) -> None:
        """`on_next` raised."""
        ...

    def settled(self) -> None:
        """The ledger has settled what was dropped so far."""
        ...


class Link:
    """A wire and a paho client on one loop. All but the heartbeat runs on the loop's thread.

    Args:
        loop: The thread of everything here.
        paho: Speaks for us on this connection.
        owner: Who hears of it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, paho: Paho, owner: Owner) -> None:
        self.ledger = owner.ledger
        self.outbox = owner.outbox
        self.wire: Wire | None = None
        self.ticked = loop.time()
        self._loop = loop
        self._environment = environment_of(loop)
        self._paho = paho
        self._owner = owner
        self._is_reading = self._is_writing = False
        self._is_leaving = False
        self._pinged = 0.0
        self._ticking: asyncio.TimerHandle | None = None

    @property
    def sent(self) -> int:
        """Bytes of output that the kernel has taken."""
        return self.wire.output.sent if self.wire else 0

    @property
    def heard(self) -> int:
        """Bytes read on this connection, but for answers to pings."""
        return self.wire.heard if self.wire else 0

    @property
    def is_paused(self) -> bool:
        """True while nothing is read because `max_pending` is reached."""
        return self.wire is not None and not self._is_reading

    @property
    def connack_code(self) -> int:
        """The reason code of CONNACK as the broker sent it; -1 before."""
        return self.wire.connack_code if self.wire else -1

    # -- life -----------------------------------------------------------------------------------

    def begin(self, *, is_stopped: bool) -> bool:
        """Send CONNECT and read what comes; False if there is no wire any more.

        Args:
            is_stopped: Hand on no messages.
        """
        wire = self.wire
        if wire is None:
            return False
        wire.outbox = self.outbox
        wire.awaits_connack = True
        if is_stopped:
            wire.stop()
        self._start_reading()
        self.write()
        return True

    def connected(self) -> None:
        """CONNACK has come: keep alive and settle from now on."""
        self._environment.watch(self)
        self._tick()

    def stop(self) -> None:
        """Hand on no more messages; acknowledge and keep alive as before."""
        if self.wire:
            self.wire.stop()
        self._stop_reading()

    async def say_goodbye(self, until: float, *, with_will: bool = False) -> None:
        """DISCONNECT, and wait for the broker to close, until this time of the loop.

        With a will, MQTT 5 has a reason code that asks for it [MQTT-3.1.2-10, 3.14.2.1]; on 3.1.1
        the broker publishes it when there is no DISCONNECT.

        Closing with bytes unread makes the kernel reset the connection, which can take away our
        last acknowledgements before the broker has read them.
        """
        self.stop()
        self._acknowledge()
        self._is_leaving = True
        self._environment.forget(self)
        wire = self.wire
        if not with_will:
            self._paho.disconnect()
        elif wire and self._paho.is_5:
            wire.output.add(bytes([DISCONNECT, 2, _WITH_WILL, 0]))
        self.write()
        if with_will and wire and not wire.output.unsent:
            wire.output.shut()
        while wire and self._loop.time() < until and (wire.output.unsent or not wire.discard()):  # noqa: ASYNC110
            await asyncio.sleep(_PAUSE)

    def end(self) -> None:
        """Close the connection. Safe to call more than once."""
        self._environment.forget(self)
        if self._ticking:
            self._ticking.cancel()
        wire, self.wire = self.wire, None
        if wire:
            if self._is_reading:
                self._loop.remove_reader(wire.fileno())
            if self._is_writing:
                self._loop.remove_writer(wire.fileno())
            wire.end()
            if wire.outbox:
                wire.outbox.disconnected(wire.output.sent)
        self._is_reading = self._is_writing = False

    # -- reading --------------------------------------------------------------------------------

    def _start_reading(self) -> None:
        if self.wire and not self._is_reading and not self.wire.has_ended:
            self._is_reading = True
            self.wire.expect()
            self._loop.add_reader(self.wire.fileno(), self._readable)

    def _stop_reading(self) -> None:
        if self.wire and self._is_reading:
            self._is_reading = False
            self._loop.remove_reader(self.wire.fileno())

    def _readable(self) -> None:
        """One pass: read, decode and hand on, settle, acknowledge."""
        wire = self.wire
        if wire and not wire.is_paused and not wire.has_ended:
            self._pass(wire, wire.read)

    def _resume(self) -> None:
        wire = self.wire
        if wire is None:
            return
        wire.go_on()
        if not wire.is_paused and not wire.has_ended:
            self._pass(wire, wire.decode)  # first what was read before the pause

    def _pass(self, wire: Wire, decode: Callable[[], None]) -> None:
        try:
            read_pass(decode, self._loop, wire)
        except MalformedPacketError as error:
            self._leave(error.code)
            self._owner.lost(f"the broker broke the protocol: {error}")
            return
        except Exception as error:  # noqa: BLE001 (a subscriber's exception goes up to us)
            self._owner.raised(error)
            return
        except CANCELLING as error:
            # Of a function of the user's; asyncio would tell of it, and let the message go.
            self._owner.raised(interrupted(error))
            return
        if wire.has_passed and self.wire is wire:
            self.passed(0)
        if self.ledger.has_news or wire.output.unsent or (self.outbox and self.outbox.has_news):
            self.settle()
        if self.wire is not wire:
            return
        if wire.is_paused:
            self._stop_reading()
        elif wire.has_more:
            self._loop.call_soon(self._readable)

    def passed(self, first: int) -> None:
        """Let paho read the packet that the wire has passed through to it."""
        wire = self.wire
        if wire is None:
            return
        if first & 0xF0 == CONNACK and wire.connack_code in _REFUSED_VERSION:
            self._owner.wrong_version(wire.connack_code)
            return
        try:
            while wire.has_passed and self.wire is wire:
                if not self._paho.read():
                    self._lost(wire.trouble)
                    return
        except Exception as error:  # noqa: BLE001 (whatever paho makes of a malformed packet)
            self._owner.lost(f"the broker broke the protocol: {error!r}")

    def _leave(self, code: int) -> None:
        """Close at once; on MQTT 5 say why [4.13]: 3.1.1 has no word that keeps the will."""
        wire = self.wire
        if wire and self._paho.is_5:
            self._acknowledge()
            wire.output.add(bytes([DISCONNECT, 2, code, 0]))
            wire.output.try_flush()
        self.end()  # so that nothing follows it [MQTT-3.14.4-1]

    def _lost(self, trouble: str) -> None:
        """The stream has ended, or can't be written to any more."""
        reason = f"connection lost: {trouble}" if trouble else CLOSED
        self._owner.lost(reason, is_closed=not trouble or trouble in _CLOSES)

    # -- acknowledging and writing --------------------------------------------------------------

    def settle(self) -> None:
        """Acknowledge what may be, send it, and go on reading if there is room again."""
        self.ledger.settle()
        self._acknowledge()
        self._flush()
        self._owner.settled()
        wire = self.wire
        if wire and wire.is_paused and wire.has_room:
            wire.is_paused = False
            self._start_reading()
            self._loop.call_soon(self._resume)

    def _acknowledge(self) -> None:
        """Put into the output what the ledger has ready."""
        ready, completed = self.ledger.take()
        if self.wire and not self._is_leaving:  # [MQTT-3.14.4-1]
            self.wire.output.acknowledge(ready, completed)

    def publish(self) -> None:
        """Send what the outbox has ready, as far as the kernel and the broker take it."""
        outbox, wire = self.outbox, self.wire
        while (
            outbox
            and wire
            and not self._is_leaving
            and outbox.is_ready
            and wire.output.unsent < _PUBLISHED_AT_ONCE
        ):
            wire.output.put(lambda at: outbox.packets(at, _PUBLISHED_AT_ONCE))
            self._flush()
            if self.wire is not wire:
                break

    def write(self) -> None:
        """Send what paho has prepared."""
        if self.wire:
            self._paho.write()
            self._flush()

    def _flush(self) -> None:
        wire = self.wire
        if wire is None:
            return
        try:
            wire.output.flush()
        except OSError as error:
            self._lost(error.strerror or str(error))
            return
        if self.outbox:
            self.outbox.written(wire.output.sent)
        unsent = wire.output.unsent
        if bool(unsent) != self._is_writing:
            self._is_writing = bool(unsent)
            if self._is_writing:
                self._loop.add_writer(wire.fileno(), self._flush)
            else:
                self._loop.remove_writer(wire.fileno())
                self._owner.settled()  # a sink may have waited for room
        if unsent > HELD_BACK:
            self._stop_reading()
        elif not (self._is_reading or wire.is_paused):
            self._start_reading()

    # -- keeping alive --------------------------------------------------------------------------

    def _tick(self) -> None:
        """Keep alive, and settle what timers and other threads let go."""
        self.ticked = self._loop.time()
        if self.wire:
            self.settle()
            self._keep_alive(self.ticked)
            wait = _TICK if self.ledger.unsettled else _SLOW_TICK
            self._ticking = self._loop.call_later(wait, self._tick)

    def _keep_alive(self, now: float) -> None:
        """PINGREQ after half a keep-alive without traffic; no byte for a whole one after it: lost.

        While reading is paused no answer can be seen: then TCP_USER_TIMEOUT finds a dead peer.
        """
        wire, keep_alive = self.wire, self._owner.keep_alive
        if wire is None or not keep_alive or self._is_leaving:
            return
        is_waiting = self._is_reading and self._pinged > wire.last_read
        is_quiet = now - wire.last_read >= keep_alive / 2
        if is_waiting and now - self._pinged >= keep_alive:
            self._owner.lost(f"no sign of the broker for {now - wire.last_read:.0f} s")
        elif self._is_reading and wire.unfinished_for >= 1.5 * keep_alive:
            self._owner.lost(f"a packet stopped in its middle for {wire.unfinished_for:.0f} s")
        elif now - wire.output.last_write >= keep_alive / 2 or (is_quiet and not is_waiting):
            if not is_waiting:
                self._pinged = now
            wire.output.ping()
            self._flush()

    def blocked(self) -> float:
        """For how many seconds the loop has been blocked. On any thread."""
        return self._loop.time() - self.ticked - _SLOW_TICK

    def interrupt(self) -> None:
        """End the read pass under way behind the message it is at. On any thread, in a signal."""
        if wire := self.wire:
            wire.is_stopped = True

    def breathe(self) -> None:
        """Let the loop have its turn between two messages, each of which takes long."""
        self.interrupt()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._resume)

    def beat(self) -> None:
        """Keep alive from the heartbeat's thread, while user code blocks the loop."""
        wire, now = self.wire, self._loop.time()
        keep_alive = 0 if self._is_leaving else self._owner.keep_alive
        if wire and keep_alive and now - wire.output.last_write >= keep_alive * 0.6:
            wire.output.ping()
            wire.output.try_flush()
