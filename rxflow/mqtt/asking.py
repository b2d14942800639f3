"""SUBSCRIBE on one connection: until every filter stands, and those that are gone do not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from rxflow.errors import ConnectError
from rxflow.log import logger, printable
from rxflow.mqtt.connection import NOT_SUPPORTED, Connection
from rxflow.mqtt.reasons import reason_text
from rxflow.mqtt.settings import Settings
from rxflow.mqtt.subscribing import REFUSED, Ask, Subscribing, TooLargeError
from rxflow.mqtt.topics import is_shared


class Asker(Protocol):
    """The source that asks.

    Attributes:
        has_stood: True once the whole subscription has stood.
    """

    settings: Settings
    has_stood: bool

    def stands(self, connection: Connection) -> None:
        """Every filter has its SUBACK."""
        ...

    def fail(self, error: Exception) -> None:
        """No other connection would do."""
        ...

    def warn(self, text: str) -> None:
        """Tell the user."""
        ...


class Asking:
    """The conversation about a subscription. Made anew for each connection.

    Args:
        source: Who asks.
        subscribing: What stands and what doesn't, over all connections.
        connection: The one that stands.
        loop: The thread of everything here.
    """

    def __init__(
        self,
        source: Asker,
        subscribing: Subscribing,
        connection: Connection,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._source = source
        self._settings = source.settings
        self._subscribing = subscribing
        self._connection = connection
        self._loop = loop
        self._patience: asyncio.TimerHandle | None = None  # with a broker that owes a SUBACK

    def begin(self, asks: Sequence[Ask]) -> None:
        """Ask for these; without any, all stands already."""
        if not asks:
            self._all_answered()
            return
        limit = self._connection.limits.maximum_packet_bytes
        try:
            self._subscribing.subscribe(asks, self._connection.subscribe, limit)
        except TooLargeError as error:
            self._source.fail(
                ConnectError(
                    f"{self._settings.address}: the topic filter {printable(error)!r} is larger "
                    f"than the broker takes (Maximum Packet Size {limit:,} bytes)"
                )
            )
            return
        self._await_answer()

    def stop(self) -> None:
        """Wait for no answer any more."""
        patience, self._patience = self._patience, None
        if patience:
            patience.cancel()

    def _await_answer(self) -> None:
        """Without SUBACK and without a byte for as long, this connection is none."""
        self.stop()
        wait = self._settings.answer_timeout
        self._patience = self._loop.call_later(wait, self._judge_silence, self._connection.heard)

    def _judge_silence(self, before: int) -> None:
        if self._connection.heard > before or self._connection.is_paused:
            self._await_answer()  # it may be on its way, or lie unread behind messages
        else:
            wait = self._settings.answer_timeout
            self._connection.lost(f"no answer to SUBSCRIBE within {wait:g} s")

    def subscribed(self, mid: int, reason_codes: Sequence[int], reason: str) -> None:
        """SUBACK or UNSUBACK has come."""
        try:
            if names := self._subscribing.unsubscribed(mid, reason_codes):
                self._unsubscribed(names, reason_codes, reason)
                return
            answers = self._subscribing.answered(mid, reason_codes)
        except ValueError as error:
            self._connection.lost(f"the broker broke the protocol: {error}")
            return
        if answers is None:
            return
        for ask, code, may_ask_again in answers:
            if code >= REFUSED and may_ask_again:
                self._subscribing.alone(ask, self._connection.subscribe)
            elif code >= REFUSED:
                self._refused(ask, code, reason)
                return
            elif code < ask.qos:
                logger.warning("{!r}: QoS {} asked for, {} granted", ask.name, ask.qos, code)
        if self._subscribing.is_complete:
            self._all_answered()
        else:
            self._await_answer()

    def _refused(self, ask: Ask, code: int, reason: str) -> None:
        text = (
            f"{self._settings.address} refused to subscribe {printable(ask.name)!r}: "
            f"{reason_text(code, reason)}"
        )
        # Rights change: a refusal is final only before it ever stood.
        if self._source.has_stood and code not in NOT_SUPPORTED:
            self._connection.lost(text)
        else:
            self._source.fail(ConnectError(text, reason_code=code))

    def _unsubscribed(self, names: list[str], codes: Sequence[int], reason: str) -> None:
        shown = printable(", ".join(names))
        if refusals := [code for code in codes if code >= REFUSED]:
            why = reason_text(refusals[0], reason)
            self._source.warn(f"{self._settings.address} refused to unsubscribe {shown}: {why}")
        else:
            logger.info("unsubscribed from {}", shown)

    def _all_answered(self) -> None:
        """Every filter stands: say so, and let go of those that nobody wants any more."""
        self.stop()
        limit = self._connection.limits.maximum_packet_bytes
        try:
            self._subscribing.unsubscribe(self._connection.unsubscribe, limit)
        except TooLargeError as error:
            text = f"the broker can't be told to unsubscribe {printable(error)!r}: too large"
            self._source.warn(text)
        self._source.stands(self._connection)


def impossible(names: Sequence[str], connection: Connection) -> str | None:
    """Return the feature of the filters that this broker does not support, if any [3.2.2.3]."""
    limits = connection.limits
    for name in names:
        if is_shared(name) and not limits.has_shared:
            return f"{name!r} can't be subscribed: the broker has no shared subscriptions"
        if not limits.has_wildcards and ("+" in name or "#" in name):
            return f"{name!r} can't be subscribed: the broker has no wildcards"
    return None
