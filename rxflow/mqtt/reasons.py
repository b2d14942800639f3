"""The reason codes of MQTT, as words [MQTT 5, 2.4; 3.1.1, 3.2.2.3 and 3.9.3]. Pure."""

from __future__ import annotations

from typing import Final

from rxflow.log import printable

_NAMES: Final = {
    0x00: "success",
    0x04: "disconnect with will message",
    0x10: "no matching subscribers",
    0x11: "no subscription existed",
    0x80: "unspecified error",
    0x81: "malformed packet",
    0x82: "protocol error",
    0x83: "implementation specific error",
    0x84: "unsupported protocol version",
    0x85: "client identifier not valid",
    0x86: "bad user name or password",
    0x87: "not authorized",
    0x88: "server unavailable",
    0x89: "server busy",
    0x8A: "banned",
    0x8B: "server shutting down",
    0x8C: "bad authentication method",
    0x8D: "keep alive timeout",
    0x8E: "session taken over",
    0x8F: "topic filter invalid",
    0x90: "topic name invalid",
    0x91: "packet identifier in use",
    0x92: "packet identifier not found",
    0x93: "receive maximum exceeded",
    0x94: "topic alias invalid",
    0x95: "packet too large",
    0x96: "message rate too high",
    0x97: "quota exceeded",
    0x98: "administrative action",
    0x99: "payload format invalid",
    0x9A: "retain not supported",
    0x9B: "QoS not supported",
    0x9C: "use another server",
    0x9D: "server moved",
    0x9E: "shared subscriptions not supported",
    0x9F: "connection rate exceeded",
    0xA0: "maximum connect time",
    0xA1: "subscription identifiers not supported",
    0xA2: "wildcard subscriptions not supported",
}
_OF_3: Final = {
    1: "unsupported protocol version",
    2: "client identifier not valid",
    3: "server unavailable",
    4: "bad user name or password",
    5: "not authorized",
}


def reason_text(code: int, reason: str = "", server: str = "", *, is_5: bool = True) -> str:
    """A reason code in words, with what the broker added, made printable.

    Args:
        code: As the broker sent it.
        reason: Its reason string.
        server: Its server reference: the address of another broker.
        is_5: False for the return code of a CONNACK of MQTT 3.1.1.
    """
    name = (_NAMES if is_5 else _OF_3).get(code, "unknown")
    text = f"{name} (reason code {code})"
    if reason:
        text = f"{text}: {printable(reason)}"
    if server:
        text = f"{text}; it names another broker: {printable(server)}"
    return text
