"""paho, through its public names only: CONNECT, SUBSCRIBE, and their answers.

The socket that paho is given is a `Wire`, which does the rest; `rxflow.mqtt.client` decides when to
connect, to read and to write.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any, Final, Protocol

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from rxflow.mqtt.reasons import reason_text
from rxflow.mqtt.settings import Answer, Settings
from rxflow.mqtt.wire import Wire

_NO_PORT: Final = 1  # of a Unix socket: paho looks at it only to refuse 0
# What Answer calls the properties of CONNACK.
_PROPERTIES: Final = {
    "ReasonString": "reason",
    "ServerReference": "server",
    "ServerKeepAlive": "keep_alive",
    "SessionExpiryInterval": "session_expiry",
    "AssignedClientIdentifier": "client_id",
    "ReceiveMaximum": "receive_maximum",
    "MaximumPacketSize": "maximum_packet_bytes",
    "MaximumQoS": "maximum_qos",
    "TopicAliasMaximum": "topic_alias_maximum",
    "RetainAvailable": "has_retain",
    "WildcardSubscriptionAvailable": "has_wildcards",
    "SubscriptionIdentifierAvailable": "has_identifiers",
    "SharedSubscriptionAvailable": "has_shared",
}


class _Wrapping:
    """A stand-in for an SSL context: paho takes it, and it makes the wire its socket.

    `check_hostname` tells paho that nothing is left to check; the real context inside does that.
    """

    check_hostname = True

    def __init__(self, of: Paho) -> None:
        self._of = of

    def wrap_socket(self, tcp: socket.socket, **_: object) -> Wire:
        return self._of.listener.open_wire(tcp)


class Listener(Protocol):
    """The connection under way, which hears what the broker answers out of `Paho.read`."""

    def open_wire(self, tcp: socket.socket) -> Wire:
        """Make the wire on a fresh TCP connection. Called on the thread of `Paho.open`."""
        ...

    def wants_write(self) -> None:
        """`Paho.write` has something to write. Also called on the thread of `Paho.open`."""
        ...

    def answered(self, answer: Answer) -> None: ...

    def subscribed(self, mid: int, reason_codes: Sequence[int], reason: str) -> None:
        """SUBACK or UNSUBACK, with the broker's words."""
        ...

    def closed_by_broker(self, code: int, text: str) -> None: ...


class Paho:
    """A paho client of one version of MQTT, for one connection after the other.

    Args:
        settings: How to connect.
        is_5: False for MQTT 3.1.1.

    Attributes:
        listener: The connection under way, to be set before `open`.
    """

    listener: Listener

    def __init__(self, settings: Settings, *, is_5: bool) -> None:
        self.is_5 = is_5
        client = self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=settings.client_id,
            clean_session=None if self.is_5 else not settings.is_durable,
            protocol=paho.MQTTv5 if self.is_5 else paho.MQTTv311,
            transport="unix" if settings.address.is_unix else "tcp",
            reconnect_on_failure=False,
        )
        client.connect_timeout = settings.answer_timeout
        wrapping: Any = _Wrapping(self)
        client.tls_set_context(wrapping)
        address = self._address = settings.address
        if settings.will:
            will = settings.will
            client.will_set(will.topic, will.payload, will.qos, will.retain)
        client.on_socket_register_write = self._on_register_write
        client.on_connect = self._on_connect
        client.on_subscribe = client.on_unsubscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        properties = None
        if self.is_5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = settings.session_expiry
            properties.ReceiveMaximum = min(settings.max_pending, 65_535)
            # No MaximumPacketSize: a broker drops what is larger without a word, and calls it sent
            # [MQTT-3.1.2-24, 3.1.2-25]. The wire says what came, and does not keep it.
        # MQTT 3.1.1 has clean_session instead, and paho refuses to be told both.
        clean: Any = paho.MQTT_CLEAN_START_FIRST_ONLY
        if self.is_5 and not (settings.is_durable and settings.starts_clean):
            clean = not settings.is_durable
        client.connect_async(
            address.host,
            address.port or _NO_PORT,
            settings.keep_alive,
            clean_start=clean,
            properties=properties,
        )

    # -- what is asked of it --------------------------------------------------------------------

    def open(self) -> None:
        """Connect and prepare CONNECT. Blocks: the password's function, DNS, TCP, TLS, WebSocket.

        Raises:
            OSError: It can't be reached; an `ssl.SSLError` if it can't be trusted.
            ConnectError: The password can't be one.
        """
        address = self._address
        if address.username is not None:
            password = address.password.reveal() if address.password else None
            self._client.username_pw_set(address.username, password)
        self._client.reconnect()

    def read(self) -> bool:
        """Read the packets that the wire has passed through; False if that was the end."""
        return self._client.loop_read() == MQTTErrorCode.MQTT_ERR_SUCCESS

    def write(self) -> None:
        """Put what is to be written into the wire."""
        self._client.loop_write()

    def disconnect(self) -> None:
        """Prepare DISCONNECT; the next `write` closes the wire behind it."""
        self._client.disconnect()

    def subscribe(self, filters: Sequence[tuple[str, int, bool]]) -> int:
        """Prepare SUBSCRIBE.

        Args:
            filters: Topic filters with the QoS asked for, and whether to send retained messages
                also if the session has this filter already, which 3.1.1 always does.

        Returns:
            The packet id that `Listener.subscribed` will name.
        """
        topics: list[Any] = [(name, qos) for name, qos, _ in filters]
        if self.is_5:
            topics = [
                (name, SubscribeOptions(qos, retainHandling=0 if retained else 1))
                for name, qos, retained in filters
            ]
        _, mid = self._client.subscribe(topics)
        return mid or 0

    def unsubscribe(self, names: Sequence[str]) -> int:
        """Prepare UNSUBSCRIBE; `Listener.subscribed` will name the packet id that this returns."""
        _, mid = self._client.unsubscribe(list(names))
        return mid or 0

    # -- what paho says -------------------------------------------------------------------------

    def _on_register_write(self, *_: object) -> None:
        self.listener.wants_write()

    def _on_connect(
        self, _client: object, _data: object, flags: Any, code: ReasonCode, properties: Any
    ) -> None:
        said = vars(properties) if properties is not None else {}
        named = {ours: said[theirs] for theirs, ours in _PROPERTIES.items() if theirs in said}
        self.listener.answered(
            Answer(code.value, code.is_failure, session_present=flags.session_present, **named)
        )

    def _on_subscribe(
        self, _client: object, _data: object, mid: int, codes: Sequence[Any], properties: Any
    ) -> None:
        reason = getattr(properties, "ReasonString", "")
        self.listener.subscribed(mid, [code.value for code in codes], reason)

    def _on_disconnect(
        self, _client: object, _data: object, flags: Any, code: ReasonCode, properties: Any
    ) -> None:
        # Everything else ends in a failed read, and the wire knows why.
        if flags.is_disconnect_packet_from_server:
            said = vars(properties) if properties is not None else {}
            reason, server = said.get("ReasonString", ""), said.get("ServerReference", "")
            self.listener.closed_by_broker(code.value, reason_text(code.value, reason, server))
