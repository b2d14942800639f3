"""Whether another client has the same id, told from the way in which connections end. Pure.

A broker that lets a second client with the id in closes the first connection [MQTT-3.1.4-3], and
MQTT 5 says why; 3.1.1 can't, and mosquitto 2.0.11 doesn't. But a broker that restarts refuses
connections, and one whose session was taken over accepts the next at once, with the session. So a
connection that is closed soon after it did its work is followed by another without any wait; if
that one is accepted with the session, and is closed soon too, this is one round of a fight. Between
rounds the client waits as always, for the other one may be about to leave, as in a rolling update.
"""

from __future__ import annotations

from typing import Final

SHORT: Final = 30.0
"""Seconds: a connection that lasts longer is nobody's rival."""

_FOUGHT: Final = 5.0
"""Seconds: a rival comes back at once; a network that fails does so whenever it likes."""

ROUNDS: Final = 3
"""So many rounds are no coincidence."""

_REASONS: Final = 3  # so many times that the broker says so are none either
_FORGOTTEN_AFTER: Final = 60.0  # seconds: those of years don't add up


class Takeovers:
    """The rounds that one client has seen."""

    def __init__(self) -> None:
        self.rounds = 0
        self.closed_in_a_row = 0
        self._said = 0
        self._is_probe = False  # the attempt or connection under way came without a wait
        self._is_proof = False  # and was accepted, with the session

    def accepted(self, *, session_present: bool) -> None:
        """CONNACK has come."""
        self._is_proof = self._is_probe and session_present

    def refused(self) -> None:
        """An attempt has failed: a broker that refuses is one that restarts."""
        if self._is_probe:
            self.rounds = 0
        self._is_probe = self._is_proof = False

    def said(self, seconds: float) -> bool:
        """The broker says that the session was taken over; True if that is enough.

        Args:
            seconds: How long the connection lasted.
        """
        if seconds > _FORGOTTEN_AFTER:
            self._said = 0
        self._said += 1
        return self._said >= _REASONS

    def closed(self, seconds: float, *, has_worked: bool, is_closed: bool) -> bool:
        """A connection has ended; True if the next attempt shall come without a wait.

        Args:
            seconds: How long it lasted.
            has_worked: Whether something was done on it.
            is_closed: Whether the other end closed it, without a word.
        """
        is_round = self._is_proof and is_closed and seconds < _FOUGHT
        if seconds > _FORGOTTEN_AFTER:
            self.rounds = 0
        self.closed_in_a_row = self.closed_in_a_row + 1 if is_closed and seconds < SHORT else 0
        if is_closed:
            self.rounds += is_round
        else:  # a network that fails; a rival makes the broker close
            self.rounds = max(0, self.rounds - 1)
        was_probe, self._is_probe, self._is_proof = self._is_probe, False, False
        self._is_probe = is_closed and has_worked and seconds < SHORT and not was_probe
        return self._is_probe
