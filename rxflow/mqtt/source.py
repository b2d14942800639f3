"""One subscription of `from_mqtt`: from the first CONNECT to the last acknowledgement."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from reactivex import abc

from rxflow.errors import ConnectError, DecodeError, RxflowError, SinkError
from rxflow.log import announce, logger, printable
from rxflow.message import Message
from rxflow.mqtt.asking import Asking, impossible
from rxflow.mqtt.client import Client
from rxflow.mqtt.connection import Connection
from rxflow.mqtt.sessions import ClientIds, Session
from rxflow.mqtt.settings import Settings
from rxflow.mqtt.subscribing import Subscribing
from rxflow.mqtt.topics import check_topic, matcher
from rxflow.operators.operator import unwrapped
from rxflow.process.environment import environment_of
from rxflow.rejection import rejection
from rxflow.scope import Scope
from rxflow.sources import source as sources
from rxflow.sources.holders import described

_NOTED_EVERY: Final = 60.0  # seconds: how exactly it is known when a session had a connection
_FEW: Final = 5  # filters that a line names
_ADVICE: Final = (
    "A window larger than max_pending, or than the broker's limit of messages in flight, never "
    "fills: make it smaller or timed, raise max_pending and the broker's limit, or subscribe with "
    "QoS 0"
)


@dataclass(frozen=True, slots=True)
class Connected:
    """The argument of `on_connect`, which is called each time that the subscription stands.

    Attributes:
        session_present: True if the broker kept the session: messages missed meanwhile will come.
        reconnects: 0 the first time.
    """

    session_present: bool
    reconnects: int


@dataclass(frozen=True, slots=True)
class Subscription:
    """The filters and hooks of a source's subscription.

    Attributes:
        filters: Each topic filter with its QoS.
        matches: Whether a topic is one of them.
        on_connect: Called when the subscription stands.
        rejected: Gets messages that are too large; None: the stream fails.
    """

    filters: tuple[tuple[str, int], ...]
    matches: Callable[[str], bool]
    on_connect: Callable[[Connected], object] | None
    rejected: abc.ObserverBase[Any] | None = None


class Source(sources.Source[bytes]):
    """A connection, its ledger, and the observer that they feed. Lives on one loop's thread.

    Args:
        settings: Where and how to connect.
        subscription: What to ask for.
        observer: Gets the messages.
        loop: The thread of everything here.
        scope: The scope that it was subscribed in, if any.
        drain_timeout: Seconds that deliveries may take to settle when the subscription ends.
        sessions: Where this source wants its session written down, if it does: then its client id
            is the one found there.
    """

    def __init__(  # noqa: PLR0913 (each is one fact)
        self,
        settings: Settings,
        subscription: Subscription,
        observer: abc.ObserverBase[Message[bytes]],
        loop: asyncio.AbstractEventLoop,
        scope: Scope | None,
        *,
        drain_timeout: float,
        sessions: ClientIds | None = None,
        owner: object = None,
    ) -> None:
        super().__init__(observer, loop, scope, drain_timeout=drain_timeout, advice=_ADVICE)
        self._sessions = sessions
        self._owner = owner
        self.settings = settings
        self._subscription = subscription
        self._connects = 0
        self._lost_at: float | None = None
        self.has_stood = False
        self._session = Session(settings.client_id, str(settings.address.anonymous), is_given=True)
        self._subscribing = self._subscribing_anew()
        self._is_gone: Callable[[str], bool] = _not_gone
        self._noted_at = 0.0
        self._asking: Asking | None = None  # on the connection that stands
        self._has_strayed = False
        self._has_qos2_journal = False
        self.on_next: Callable[[Message[bytes]], object] = unwrapped(observer)  # it stops by itself
        self._client = Client(settings, self, loop, subscriber=self)

    # -- life -----------------------------------------------------------------------------------

    def start(self, after: sources.Source[Any] | None) -> None:
        if self._sessions:
            filters = dict(self._subscription.filters)
            given = self.settings.client_id if self.settings.is_given else None
            self._sessions.want(self._owner, self.settings.address, filters, given)
        if self._sessions and (after is None or after.closed.done()):
            self._loop.call_soon(self._begin)  # when the other sources have said what they want
        else:
            super().start(after)

    def _begin(self) -> None:
        if self.has_ended:
            return
        try:
            self._take_up_session()
        except SinkError as error:
            self.fail(error)
            return
        self._client.start()

    def _take_up_session(self) -> None:
        if self._sessions:
            session = self._session = self._sessions.claim(self._owner)
            self.settings = replace(self.settings, client_id=session.client_id)
            self._client.settings = self.settings
            self._subscribing = self._subscribing_anew()
            if gone := self._subscribing.gone:
                self._is_gone = matcher(gone)
        has_qos2 = any(qos == 2 for _, qos in self._subscription.filters)  # noqa: PLR2004
        journal = self._context.journal
        if journal and has_qos2 and self.settings.is_durable:
            session = f"{self.settings.client_id} {self.settings.address.place}"
            self.ledger.keep(
                journal,
                session,
                is_single=self._context.is_single,
                unclaimed=self._tell_of_unclaimed,
            )
            self._has_qos2_journal = True
        if has_qos2 and self._context.is_run:
            self._tell_what_qos2_is()

    def _tell_what_qos2_is(self) -> None:
        """At the start of a run: exactly once, or at least once and why."""
        if not self.settings.is_durable:
            why = "at least once: without a client id the broker keeps no session"
        elif not self._has_qos2_journal:
            why = "at least once: no sink of this run keeps receipts, as one JsonSink does"
        elif not self._context.is_single:
            why = (
                "exactly once for messages that nothing else keeps when their row is stored, else "
                "at least once: more than one row may come of a message here"
            )
        else:
            why = "exactly once"
        logger.info("QoS 2 of {} is {}", self.settings.address, why)

    def _tell_of_unclaimed(self, number: int) -> None:
        """On the thread of a commit, at the first row that can't count as all of its message."""
        what = described(self.ledger, number)
        text = (
            f"QoS 2 is at least once in this run: a message{what} was stored while something else "
            "still has it, so more rows may come of it. If the process ends before it is let go, "
            "it comes again, and is stored twice. Keep what you need of a message, not the message"
        )
        self._here(lambda: self.warn(text))

    def _subscribing_anew(self) -> Subscribing:
        filters = dict(self._subscription.filters)
        return Subscribing(filters, self._session, self.settings.max_filters)

    def interrupt(self) -> None:
        """A signal has come, and will end this: what was read and is not on its way can wait."""
        self._client.interrupt()

    def settle(self) -> None:
        self._client.settle()

    @property
    def _is_settling(self) -> bool:
        return self._client.connection is not None

    def _stop_receiving(self) -> None:
        self._stop_asking()
        self._client.stop()

    def _close(self) -> None:
        self.on_next = sources.ignore
        super()._close()

    async def _say_goodbye(self, *, has_failed: bool) -> None:
        if self._client.connection:
            self._note_connection()
        await self._client.close(deadline=1.0, has_failed=has_failed)

    @property
    def unreached(self) -> str | None:
        """The broker, and why there is no connection, while there has been none and is wanted."""
        if self.has_ended or self._connects or self._has_been_reached():
            return None
        return f"{self.settings.address}: {self._client.trouble or 'no answer so far'}"

    @property
    def has_connected(self) -> bool:
        """True once a connection has stood."""
        return self._connects > 0

    def _has_been_reached(self) -> bool:
        """Whether an earlier subscription of this run had a connection to the same broker."""
        return any(
            isinstance(other, Source)
            and other.has_connected
            and other.settings.address.place == self.settings.address.place
            for other in self._context.sources
        )

    # -- what the client says -------------------------------------------------------------------

    def connected(self, connection: Connection) -> None:
        session_present = connection.limits.session_present
        self.ledger.connected(session_present=session_present)
        self._connects += 1
        self.connected_at = connection.began
        if not session_present:
            self._report_gap()
        elif self._has_qos2_journal and not self._session.has_been:
            self._tell_of_another_output()
        self._lost_at = None
        names = [name for name, _ in self._subscription.filters]
        if (problem := impossible(names, connection)) is not None:
            self.fail(ConnectError(f"{self.settings.address}: {problem}"))
            return
        self._noted_at = self._loop.time()
        asks = self._subscribing.connected(
            self._utc(), session_present=session_present, is_5=connection.is_5
        )
        if self._connects == 1:
            self._tell_of_unused_sessions()
        self._asking = Asking(self, self._subscribing, connection, self._loop)
        self._asking.begin(asks)

    def _utc(self) -> datetime:
        return environment_of(self._loop).utc()

    def _stop_asking(self) -> None:
        if self._asking:
            self._asking.stop()

    def _tell_of_another_output(self) -> None:
        """Warn of a session that another output may have used, at QoS 2."""
        self.warn(
            f"{self.settings.address} has a session of client id {self.settings.client_id!r}, and "
            "this output is not known to have had it; if another output had, don't go back to "
            "that one: its journal of QoS 2 may take a new message for an equal older one; "
            "give each output a client id of its own, or end the session first: rxflow forget"
        )

    def _report_gap(self) -> None:
        """The broker has no session of ours: if there was one, say what that means."""
        last = self._session.last_connected
        if self._lost_at is not None:
            away = f"in the {self._loop.time() - self._lost_at:.1f} s without connection"
        elif not self.settings.is_durable or not self._session.has_been:
            return
        elif last is None:
            away = "since its last connection"
        else:
            away = f"since its last connection, {_ago(self._utc() - last)} ago,"
        who = f" of client id {self._session.client_id!r}" if self._lost_at is None else ""
        self.warn(
            f"possible gap: {self.settings.address} forgot the session{who}; what was published "
            f"{away} will not be delivered"
        )

    def _tell_of_unused_sessions(self) -> None:
        for session in self._sessions.unused() if self._sessions else []:
            names = printable(", ".join(session.filters[:_FEW])) or "none known"
            last = session.last_connected
            when = f"last connected {_ago(self._utc() - last)} ago" if last else "not used lately"
            path = self._sessions.path.with_suffix("") if self._sessions else ""
            self.warn(
                f"{path}.client: no source of this run has taken up the session of client id "
                f"{session.client_id!r} at {session.broker} (topics: {names}; {when}), for which "
                "that broker may go on queueing messages; if nobody needs them: rxflow forget "
                f"{session.broker} --client-id {session.client_id} --output {path}"
            )

    def subscribed(self, mid: int, reason_codes: Sequence[int], reason: str) -> None:
        if self._asking:
            self._asking.subscribed(mid, reason_codes, reason)

    def stands(self, connection: Connection) -> None:
        """Every filter has its SUBACK."""
        self.has_stood = True
        self._client.worked()
        names = ", ".join(name for name, _ in self._subscription.filters)
        logger.info("subscribed to {}", printable(names))
        hook = self._subscription.on_connect
        if hook is None:
            return
        try:
            hook(Connected(connection.limits.session_present, self._connects - 1))
        except Exception as error:  # noqa: BLE001 (the user's function)
            self.fail(error)

    def _note_connection(self, *, is_lost: bool = False) -> None:
        """Write down that the session has a connection, or had one until now."""
        self._noted_at = self._loop.time()
        self._session.seen(self._utc(), is_lost=is_lost)

    def disconnected(self, reason: str) -> None:
        del reason  # the client logs it
        self.connected_at = None
        self._stop_asking()
        if self._lost_at is None:
            self._lost_at = self._loop.time()
        if most := self._subscribing.lost():
            logger.info("no answer to SUBSCRIBE; from now on {} filters in one at most", most)
        self._note_connection(is_lost=True)

    def failed(self, error: RxflowError) -> None:
        self.fail(error)

    def settled(self) -> None:
        if self._client.connection and self._loop.time() - self._noted_at >= _NOTED_EVERY:
            self._note_connection()
        super().settled()

    def warn(self, text: str) -> None:
        announce(text, is_program=self._context.is_program, depth=1)

    def admit(self, topic: bytes) -> str | None:
        name = check_topic(topic)
        if self._subscription.matches(name):
            return name
        if self._is_gone(name):
            logger.info("dropped: messages to {!r}, unsubscribed since", printable(name))
            return None
        if not self._has_strayed:
            # Some brokers rename what they deliver: RabbitMQ turns '.' into '/', EMQX has filters
            # of its own. It came on our subscription, so somebody downstream must decide.
            self._has_strayed = True
            logger.warning(
                "{} delivers topics that no filter matches, as {!r}; they are passed on",
                self.settings.address,
                printable(name),
            )
        return name

    def oversized(self, message: Message[bytes], size: int) -> None:
        text = (
            f"a message of {size:,} bytes of topic {printable(message.topic)!r} is larger than "
            f"max_packet_bytes={self.settings.max_packet_bytes:,}"
        )
        if self._subscription.rejected is None:
            raise DecodeError(
                f"{text}: raise that, or reject such messages with from_mqtt(rejected=...)",
                topic=message.topic,
            )
        self._subscription.rejected.on_next(rejection(message, text))


def _not_gone(_: str) -> bool:
    return False


def _ago(gone: timedelta) -> str:
    """Roughly how long: 40 s, 5 min, 3 h, 12 days."""
    seconds = max(0.0, gone.total_seconds())
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
