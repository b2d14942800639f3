"""MQTT as an observable: `from_mqtt`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final, Unpack, cast

from reactivex import abc
from reactivex.disposable import Disposable

from rxflow import arguments
from rxflow.arguments import check_range, wrong
from rxflow.errors import ConfigError
from rxflow.flow import Flow
from rxflow.log import logger, tell
from rxflow.message import Message
from rxflow.mqtt.options import ConnectionOptions, Options, takes_connection
from rxflow.mqtt.sessions import ClientIds
from rxflow.mqtt.settings import MOST_FILTERS, Settings
from rxflow.mqtt.source import Connected, Source, Subscription
from rxflow.mqtt.topics import check_filter, matcher, overlap
from rxflow.scope import Scope
from rxflow.sources.source import at_home

Filter = str | tuple[str, int]

_ONE_DAY: Final = 86_400


@takes_connection()
def from_mqtt(  # noqa: PLR0913 (each is one fact)
    url: str,
    *topics: Filter,
    qos: int = 1,
    client_id: str | None = None,
    clean_start: bool | None = None,
    session_expiry: int = _ONE_DAY,
    max_filters_per_subscribe: int | None = None,
    max_pending: int = 10_000,
    max_pending_bytes: int = 64 * 1024 * 1024,
    max_packet_bytes: int = 16 * 1024 * 1024,
    rejected: abc.ObserverBase[Any] | None = None,
    drain_timeout: float = 5.0,
    on_connect: Callable[[Connected], object] | None = None,
    **connection: Unpack[ConnectionOptions],
) -> Flow[Message[bytes]]:
    """The messages of some topics, as an observable.

    Cold: each subscription is a connection, which lasts over disconnects: it comes back with
    back-off and jitter (1 to 60 s) and subscribes again if the broker forgot the session. A second
    subscription while the first lives is a `ConfigError` in the stream, unless every filter is of
    QoS 0 and there is no `client_id`: put `share()` behind it. Messages come on the thread of the
    running asyncio loop, or of rxflow's background loop.

    A message is acknowledged when its last reference is gone, in the order received. At
    `max_pending` unacknowledged ones reading stops, and goes on at half.

    Args:
        url: `mqtt://`, `mqtts://` (TLS), `ws://` or `wss://` (extra `websocket`), with
            `user:password@` and `?version=3.1.1` or `5` where wanted; or `mqtt+unix:///path`. Path
            and query of a WebSocket are sent as given; without a path it is `/mqtt`.
        topics: Topic filters, at least one: `+`, `#` and `$share/group/filter` included; a pair
            `(filter, qos)` has a QoS of its own. Of filters that overlap, a broker may deliver a
            message once for each [MQTT 5, 3.3.4]. What comes under a topic that none of them
            matches is passed on: some brokers rename what they deliver.
        qos: 0, 1 or 2, the most that the broker may use.
        client_id: Names the session. Without it the session is clean, save under
            `run(..., JsonSink(path))`, which keeps an id in `<path>.client`. That session belongs
            to the output and the broker: other topics are subscribed in it, those that are gone
            are unsubscribed. Several sources of a run at one broker continue the sessions with
            which they have the most topics in common, then in the order of their making.
        clean_start: True forgets what the broker kept for this id; None: False if there is an id.
        session_expiry: Seconds that the broker shall keep the session while we are away (MQTT 5).
        max_filters_per_subscribe: Most topic filters that one SUBSCRIBE asks for, where a broker
            takes no more (8 at AWS). None: all at once; half as many when the connection was lost
            twice before the answer.
        max_pending: Most messages of QoS 1 and 2 that are read and not settled.
        max_pending_bytes: Most bytes of these; one that is larger is read when no other is held.
            Those of up to `max_pending_bytes / max_pending` bytes are counted only.
        max_packet_bytes: Of a larger message only the topic is read. It is rejected, or the stream
            fails; its error names topic and size.
        rejected: An observer, usually a `JsonLinesSink`, for messages that are too large;
            without its payload. None: the stream fails with a `DecodeError`.
        drain_timeout: Seconds that deliveries may take to settle after the end of the stream.
        on_connect: Called on the stream's thread each time that the subscription stands. What it
            raises fails the stream.
        **connection: Any of `ConnectionOptions`, by name.

    Returns:
        A `Flow`: an Observable that has rxflow's operators as methods too.

    Raises:
        ConfigError: A setting is wrong, or a file of TLS can't be used; at call time.
    """
    options = Options(url, connection, client_id=client_id)
    place = options.place
    arguments.wait("drain_timeout", drain_timeout, is_none_fine=False)
    filters = _filters(topics, qos)
    check_range("session_expiry", session_expiry, 0, 0xFFFF_FFFF)
    check_range("max_pending", max_pending, 1, 1 << 31)
    if max_filters_per_subscribe is not None:
        check_range("max_filters_per_subscribe", max_filters_per_subscribe, 1, MOST_FILTERS)
    check_range("max_pending_bytes", max_pending_bytes, 1, 1 << 50)
    check_range("max_packet_bytes", max_packet_bytes, 16, 268_435_455)
    arguments.observer("rejected", rejected)
    _check_clean_start(clean_start, client_id)
    _check_hook(on_connect)
    matches = matcher(name for name, _ in filters)
    is_qos0 = all(qos == 0 for _, qos in filters)
    latest: Source | None = None
    owner = object()

    def sessions(scope: Scope | None) -> ClientIds | None:
        """The file that records the session of this source, if there is one."""
        is_lasting = (client_id is not None or not is_qos0) and not clean_start
        return scope.context.client_ids if scope and is_lasting else None

    def settings(kept: ClientIds | None) -> Settings:
        is_lasting = kept is not None or client_id is not None
        if not is_lasting and not is_qos0:
            logger.info("no client_id: what is published while we are away will not come")
        return options.settings(
            is_durable=is_lasting and not clean_start,
            session_expiry=session_expiry,
            max_pending=max_pending,
            max_pending_bytes=max_pending_bytes,
            max_packet_bytes=max_packet_bytes,
            max_filters=max_filters_per_subscribe or MOST_FILTERS,
        )

    def begin(
        observer: abc.ObserverBase[Message[bytes]],
        scope: Scope | None,
        loop: asyncio.AbstractEventLoop,
    ) -> abc.DisposableBase:
        nonlocal latest
        if scope and scope.is_over:
            return Disposable()
        is_alone = latest is None or latest.has_ended
        if not is_alone and not (is_qos0 and client_id is None):
            raise ConfigError(
                f"{place}: subscribed twice at the same time, and each subscription would be a "
                "connection of its own; put share() after from_mqtt"
            )
        is_program = bool(scope and scope.context.is_program)
        kept = sessions(scope)
        chosen = settings(kept)
        if scope and any(_is_rival(other, chosen) for other in scope.context.sources):
            raise ConfigError(
                f"{place}: two sources with one client id would throw each other off; put share() "
                "after one from_mqtt, or give each a client_id of its own"
            )
        options.warn_of_plain_password(is_program=is_program)
        _warn_of_overlap(filters, is_program=is_program)
        source = Source(
            chosen,
            Subscription(filters, matches, on_connect, rejected),
            observer,
            loop,
            scope,
            drain_timeout=drain_timeout,
            sessions=kept,
            owner=owner,
        )
        earlier, latest = latest, source
        if scope:
            scope.context.adopt(rejected)
        source.start(earlier if is_alone else None)
        return Disposable(source.dispose)

    flow = Flow(at_home(begin), label=f"from_mqtt {place}")
    flow.is_single = True
    return flow


def _warn_of_overlap(filters: tuple[tuple[str, int], ...], *, is_program: bool) -> None:
    """Say that exactly once is not to be had: each delivery has a packet id of its own."""
    wild = [(name, qos) for name, qos in filters if "+" in name or "#" in name]
    for name, qos in wild:
        for other, others_qos in filters:
            if other != name and max(qos, others_qos) > 1 and overlap(name, other):
                tell(
                    f"{name!r} and {other!r} overlap: a broker may deliver a message once for each "
                    "[MQTT 5, 3.3.4], at QoS 2 too, and it is stored as often; ask for one, "
                    "or drop what comes twice (`distinct`)",
                    is_program=is_program,
                )
                return


def _check_hook(on_connect: object) -> None:
    if on_connect is not None:
        arguments.function("on_connect", on_connect)


def _check_clean_start(clean_start: object, client_id: str | None) -> None:
    if clean_start is not None:
        arguments.one_of("clean_start", clean_start, (True, False, None))
    if clean_start is False and client_id is None:
        raise wrong("clean_start=False", "come with a client_id: it names the session")


def _is_rival(other: object, settings: Settings) -> bool:
    return (
        isinstance(other, Source)
        and not other.has_ended
        and other.settings.client_id == settings.client_id
        and str(other.settings.address) == str(settings.address)
    )


def _filters(topics: Iterable[Filter], qos: int) -> tuple[tuple[str, int], ...]:
    pairs = tuple(_pair(topic, qos) for topic in topics)
    if not pairs:
        raise wrong("topics", "be one topic filter or more, '#' for all, not none")
    for name, each in pairs:
        check_filter(name)
        arguments.qos(f"topics: qos of {arguments.shown(name)}" if each is not qos else "qos", each)
    return pairs


def _pair(topic: Any, qos: int) -> tuple[str, int]:
    if isinstance(topic, str):
        return topic, qos
    is_pair = isinstance(topic, tuple) and len(cast("tuple[Any, ...]", topic)) == 2  # noqa: PLR2004
    if not is_pair or not isinstance(topic[0], str):
        right = "topic filters, or pairs (filter, qos), each an argument of its own"
        arguments.refuse("topics", right, topic)
    return cast("tuple[str, int]", topic)
