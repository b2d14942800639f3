"""Scripts for a `ScriptedBroker` that serve one client politely, so that no test waits for it."""

from __future__ import annotations

from collections.abc import Callable

from scripted import DISCONNECT, PINGREQ, Conversation


def until_disconnect(conversation: Conversation) -> list[int]:
    """The kinds of all packets up to DISCONNECT, on which a broker closes, or to the end."""
    kinds: list[int] = []
    try:
        while not kinds or kinds[-1] != DISCONNECT:
            kind = conversation.read()[0] & 0xF0
            if kind == PINGREQ:
                conversation.send(b"\xd0\x00")
            else:
                kinds.append(kind)
    except ConnectionError:
        pass
    return kinds


def serve(*packets: bytes, kinds: list[int] | None = None) -> Callable[[Conversation], None]:
    """A script: accept a subscriber, send these, note the kinds of what comes back."""

    def script(conversation: Conversation) -> None:
        conversation.accept()
        conversation.accept_subscription()
        conversation.send(b"".join(packets))
        (kinds if kinds is not None else []).extend(until_disconnect(conversation))

    return script
