"""The settings of a client's connections, and the answer in CONNACK."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from rxflow.mqtt.address import Address

SILENCE: Final = 10.0
"""Seconds that TCP, TLS and each answer of the broker may take, unless a setting says otherwise."""

LARGEST: Final = 268_435_460
"""Bytes of a packet, header and all, that MQTT can express."""

MOST_FILTERS: Final = 1_000_000
"""As many topic filters in one SUBSCRIBE as anybody has."""


@dataclass(frozen=True, slots=True)
class Will:
    """A message that the broker publishes if this client is lost without a DISCONNECT.

    Attributes:
        topic: No wildcard.
        payload: Bytes as they are to be sent.
        qos: 0, 1 or 2.
        retain: Whether the broker keeps it for later subscribers.
    """

    topic: str
    payload: bytes = b""
    qos: int = 0
    retain: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a client's connections. Times are seconds.

    Attributes:
        is_given: True if the user chose the client id.
        starts_clean: True if the session of an earlier process is of no use: the first connection
            begins a new one, which those that follow continue.
    """

    address: Address
    client_id: str
    is_durable: bool = False
    session_expiry: int = 0
    keep_alive: int = 30
    connect_timeout: float | None = None
    max_pending: int = 10_000
    max_pending_bytes: int = 64 * 1024 * 1024
    max_packet_bytes: int = 16 * 1024 * 1024
    will: Will | None = None
    tls: Callable[[], ssl.SSLContext] = field(default=ssl.create_default_context, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    answer_timeout: float = SILENCE
    reconnect_timeout: float | None = None
    max_filters: int = MOST_FILTERS
    is_given: bool = False
    starts_clean: bool = False


class Answer(NamedTuple):
    """The limits and texts in the broker's CONNACK [3.2.2.3].

    Attributes:
        code: The reason code, as MQTT 5 numbers them.
        reason: The reason string; empty if there is none.
        server: The server reference, likewise.
        keep_alive: None: ours.
        session_expiry: None: ours.
        client_id: The one that the broker assigned; empty: ours.
    """

    code: int
    is_refusal: bool
    session_present: bool = False
    reason: str = ""
    server: str = ""
    keep_alive: int | None = None
    session_expiry: int | None = None
    client_id: str = ""
    receive_maximum: int = 65_535
    maximum_packet_bytes: int = LARGEST
    maximum_qos: int = 2
    topic_alias_maximum: int = 0
    has_retain: bool = True
    has_wildcards: bool = True
    has_identifiers: bool = True
    has_shared: bool = True
