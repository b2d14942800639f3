"""A broker that does what a diagram says: `marbles.mqtt`.

It listens on a socket of its own in the file system and is served by the virtual loop, so what
`from_mqtt` makes of it is the pipeline of production: the same client, messages, ledger,
back-pressure and session rules.

    sensors/1/temp  q1   : --a-----c---     topic, QoS (q0 unless said), and what is published when
    sensors/1/state q1 r : x-----------     r: kept by the broker, for each subscription
    $connection          : ^-----!--^--     ^ it can be reached, ! every connection is lost

Without a `$connection` lane it can be reached from the beginning. After a `!` the client comes back
with the back-off of production, whose dice are loaded: of the waits that could come, they choose
those that meet the next `^`; where none does (a gap between 1 and 1.5 s, say), the first after it.
"""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, cast
from urllib.parse import quote

from reactivex import Observable, abc

from rxflow import arguments, codec
from rxflow.errors import ConfigError
from rxflow.flow import Flow
from rxflow.message import Message
from rxflow.mqtt import from_mqtt
from rxflow.mqtt.topics import matcher
from rxflow.process.environment import running_loop
from rxflow.testing.broker.connection import Connection
from rxflow.testing.broker.lanes import CONNECTION, Lane, lanes
from rxflow.testing.broker.packets import Connect, Publish, Wish
from rxflow.testing.broker.session import Publication, Session
from rxflow.testing.diagrams.durations import MICROSECOND, DiagramError, nanoseconds
from rxflow.testing.diagrams.events import Event
from rxflow.testing.diagrams.rendering import Row
from rxflow.testing.marks import Marks
from rxflow.testing.pending import Pending, Place
from rxflow.testing.virtual.clock import SECOND, Phase
from rxflow.testing.virtual.loop import VirtualLoop

_REFUSED: Final = 0x80


class Acknowledgement(NamedTuple):
    """PUBACK or PUBREC as the broker got it.

    Attributes:
        at: Seconds since the diagram began.
        topic: Of the message.
        key: Of its marble.
    """

    at: float
    topic: str
    key: str


class _OnLoop(Observable[Message[bytes]]):
    """The same observable, but nowhere else than on the broker's loop."""

    def __init__(self, flow: Flow[Message[bytes]], loop: VirtualLoop) -> None:
        super().__init__()
        self._inner = flow.inner
        self._loop = loop

    def _subscribe_core(
        self,
        observer: abc.ObserverBase[Message[bytes]],
        scheduler: abc.SchedulerBase | None = None,
    ) -> abc.DisposableBase:
        if running_loop() is not self._loop:
            raise ConfigError(
                "a broker in a diagram lives in virtual time: subscribe by check, observe or run, "
                "in an async test too: marbles.run(run_async(...)), without await"
            )
        return self._inner._subscribe_core(observer, scheduler)  # noqa: SLF001


def _is_pair(topic: object) -> bool:
    return isinstance(topic, tuple) and len(cast("tuple[Any, ...]", topic)) == 2  # noqa: PLR2004


class DiagramBroker:
    """See above. Closed with its loop. A part of `Marbles`: each check begins it anew.

    Args:
        loop: Serves it.
        text: The lanes.
        values: The payload of each key: bytes as they are, everything else as JSON. Without any, a
            key is itself, as JSON.
        frame: Of the lanes.
        settle: Plays what is to be played before anything is asked.
        pending: What the test owes; None: nobody asks.

    Attributes:
        url: For `rxflow.from_mqtt` and `rxflow.MqttSink`.

    Raises:
        DiagramError: The text breaks a rule.
    """

    def __init__(  # noqa: PLR0913 (the last three by name)
        self,
        loop: VirtualLoop,
        text: str,
        values: Mapping[str, Any],
        *,
        frame: str | int = "1s",
        settle: Callable[[], object] = lambda: None,
        pending: Pending | None = None,
    ) -> None:
        self._pending = pending or Pending()
        self._lanes = lanes(text, values, frame)
        self._frame = nanoseconds(frame, "frame")
        self._loop = loop
        self._clock = loop.clock
        self._settle = settle
        self._clients = 0
        self._set: list[abc.DisposableBase] = []
        self._connections: list[Connection] = []
        self._left: list[Connection] = []  # of earlier checks, which still say goodbye
        folder = tempfile.mkdtemp(prefix="rxflow-")
        loop.resources.callback(shutil.rmtree, folder)
        self._path = str(Path(folder, "broker"))
        self.url = f"mqtt+unix://{quote(self._path)}"
        self._listener = socket.socket(socket.AF_UNIX)
        loop.resources.callback(self._listener.close)
        loop.at_finish.callback(self._close)
        self._listener.settimeout(0)
        self._listener.bind(self._path)
        self._listener.listen()
        loop.add_reader(self._listener, self._accept)
        environment = loop.environment
        name, place = self._lanes[0].topic, Place.of_caller()
        self._debt = self._pending.add(
            lambda: f"the broker of {name}: nobody connected, and nobody asked [{place}]",
            is_part=True,
        )
        self._other_dice, environment.dice = environment.dice, self._dice
        self.begin()

    def begin(self) -> None:
        """Forget everything, and let the lanes begin now."""
        for handle in self._set:
            handle.dispose()
        for connection in self._connections:
            connection.is_over = True
        self._left += self._connections
        self._connections = []
        self._began = self._clock.microseconds
        self._acknowledgements: list[Acknowledgement] = []
        self._published: list[tuple[float, Message[bytes]]] = []
        self._retained: dict[str, Publication] = {}
        self._sessions: dict[str, Session] = {}
        self._has_served = False
        self._lost_at: dict[str, float] = {}
        self._regained: list[float] = []
        self._is_reachable = all(lane.topic != CONNECTION for lane in self._lanes)
        self._set = [self._at(lane, e) for lane in self._lanes for e in lane.diagram.events]

    def _at(self, lane: Lane, event: Event) -> abc.DisposableBase:
        due = self._began + event.time // MICROSECOND
        if lane.topic != CONNECTION:
            phase = Phase.UNSUBSCRIBE if lane.is_retained else Phase.PUBLISH
            return self._clock.at(due, partial(self._publish, lane, event), phase)
        is_gained = event.kind == "subscribed"
        if is_gained:
            self._regained.append(due / SECOND)
        return self._clock.at(due, partial(self._reach, is_gained=is_gained), Phase.UNSUBSCRIBE)

    @property
    def length(self) -> int:
        """The last time that the lanes speak of, in nanoseconds."""
        return max(lane.diagram.length for lane in self._lanes)

    def rows(self) -> list[Row]:
        """The lanes, for the picture of a failure, if somebody connected."""
        lanes = self._lanes if self._has_served else []
        return [Row(lane.topic, lane.diagram.events) for lane in lanes]

    # -- what a test asks for -------------------------------------------------------------------

    def from_mqtt(self, *topics: str | tuple[str, int], **settings: Any) -> Flow[Message[bytes]]:
        """As `rxflow.from_mqtt`, from this broker, with the same arguments but for the URL.

        Without `client_id` it gets one of its own, so that its session outlives a `!`; with
        `client_id=None` the session is clean.
        """
        default = settings.get("qos", 1)
        if any(topic[1] if _is_pair(topic) else default for topic in topics):
            self._clients += 1
            settings.setdefault("client_id", f"diagram-{self._clients}")
        try:
            flow = from_mqtt(self.url, *topics, **settings)
        except ConfigError:
            self._debt.pay()
            raise
        names = ", ".join(topic if isinstance(topic, str) else topic[0] for topic in topics)
        on_loop = Flow(_OnLoop(flow, self._loop), label=f"from_mqtt {names}")
        on_loop.is_single = flow.is_single
        return on_loop

    def acknowledged(self, topic: str) -> Marks:
        """When messages of a topic were acknowledged: `broker.acknowledged(topic) == "--^---^"`.

        Raises:
            DiagramError: No lane has this topic.
        """
        arguments.text("topic", topic)
        self._debt.pay()
        topics = [lane.topic for lane in self._lanes if lane.topic != CONNECTION]
        if topic not in topics:
            raise DiagramError(f"no lane {topic!r}; the lanes are {', '.join(topics)}")
        times = [round(a.at * SECOND) for a in self.acknowledgements if a.topic == topic]
        return Marks([time * MICROSECOND for time in times], self._frame, self._pending)

    @property
    def acknowledgements(self) -> list[Acknowledgement]:
        """Each PUBACK and PUBREC that came, in order."""
        self._settle()
        self._debt.pay()
        return self._acknowledgements

    @property
    def published(self) -> list[tuple[float, Message[bytes]]]:
        """The messages that clients have published to it, each with its time in seconds."""
        self._settle()
        self._debt.pay()
        return self._published

    # -- the lanes ------------------------------------------------------------------------------

    @property
    def _seconds(self) -> float:
        return (self._clock.microseconds - self._began) / SECOND

    def _publish(self, lane: Lane, event: Event) -> None:
        payload = event.value if isinstance(event.value, bytes) else codec.encode(event.value)
        publication = Publication(lane.topic, payload, lane.qos, event.key or "")
        self.route(publication, retain=lane.is_retained)

    def route(self, publication: Publication, *, retain: bool) -> None:
        """Keep it if it is to be kept, and offer it to every session."""
        if retain and publication.payload:
            self._retained[publication.topic] = publication
        elif retain:
            self._retained.pop(publication.topic, None)  # [MQTT-3.3.1-10]
        for session in self._sessions.values():
            session.offer(publication)

    def _reach(self, *, is_gained: bool) -> None:
        """The connection lane says that it can be reached, or that every connection is lost."""
        self._is_reachable = is_gained
        if not is_gained:
            for connection in self._connections[:]:
                connection.close()

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        self._debt.pay()
        if self._is_reachable:
            self._connections.append(Connection(sock, self._loop, self))
        else:
            sock.close()  # not refused before: paho leaks a socket that can't connect

    def _close(self) -> None:
        for connection in [*self._connections, *self._left]:
            connection.close()
        self._loop.remove_reader(self._listener)
        self._listener.close()

    def _dice(self, longest: float, host: str) -> float:
        """The wait before the next attempt, of those that production could have drawn."""
        if host != self._path:
            return self._other_dice(longest, host)
        now = self._loop.time()
        gap = min((time - now for time in self._regained if time > now), default=None)
        if self._is_reachable or gap is None:
            return longest
        sum_, next_ = longest, longest
        while sum_ < gap:
            next_ = min(2 * next_, 60.0)
            sum_ += next_
        return longest * max(0.5, gap / sum_)

    # -- what connections say -------------------------------------------------------------------

    def begun(self, connect: Connect) -> tuple[Session, bool]:
        """The session of a client, and whether it was there. A second connection ends the first."""
        self._has_served = True
        client_id = connect.client_id
        for other in self._connections[:]:
            if other.session and other.session.client_id == client_id:
                other.give_way()
        old = self._sessions.get(client_id)
        gone_for = self._loop.time() - self._lost_at.get(client_id, 0.0)
        is_there = old is not None and not connect.is_clean and gone_for <= old.expiry
        session = old if old is not None and is_there else Session(client_id)
        session.expiry = connect.expiry
        self._sessions[client_id] = session
        return session, is_there

    def ended(self, connection: Connection) -> None:
        """A connection is gone, and with it the session that does not outlive it."""
        if connection in self._left:
            self._left.remove(connection)
            return
        self._connections.remove(connection)
        if session := connection.session:
            session.disconnected()
            self._lost_at[session.client_id] = self._loop.time()
            if not session.expiry:
                self._sessions.pop(session.client_id, None)

    def grant(self, session: Session, wish: Wish) -> tuple[int, list[Publication]]:
        """Grant a filter: the reason code, and the retained messages that follow."""
        if wish.filter.startswith("$share/"):
            return _REFUSED, []
        is_new = wish.filter not in session.filters
        session.filters[wish.filter] = wish.qos
        if wish.handling == 0 or (wish.handling == 1 and is_new):  # [MQTT-3.3.1-9]
            matches = matcher([wish.filter])
            return wish.qos, [p for p in self._retained.values() if matches(p.topic)]
        return wish.qos, []

    def acknowledge(self, publication: Publication) -> None:
        """Note it down."""
        found = Acknowledgement(self._seconds, publication.topic, publication.key)
        self._acknowledgements.append(found)

    def note(self, publish: Publish) -> None:
        """A client has published: note it down and pass it on."""
        message = Message(publish.topic, publish.payload, publish.qos, publish.retain)
        self._published.append((self._seconds, message))
        publication = Publication(publish.topic, publish.payload, publish.qos)
        self.route(publication, retain=publish.retain)
