"""Deliveries: what was received, what became of it, and what may be acknowledged.

A `Delivery` is the token that a message carries. CPython's reference counts are the ledger: when
the last reference to a token is gone, that delivery is settled, as *stored* if a sink said so
before it let go, else as *let go*. `Ledger` turns settled deliveries into acknowledgements, in the
order in which they were received [MQTT-4.6.0-2] and only on the connection they came by.

A delivery knows its packet id and no more; this package knows no message and no socket.
"""

from rxflow.delivery.exactly_once import Journal
from rxflow.delivery.ledger import Ledger
from rxflow.delivery.spread import Deliveries, Spread
from rxflow.delivery.token import QOS2, Account, Delivery, Token

__all__ = [
    "QOS2",
    "Account",
    "Deliveries",
    "Delivery",
    "Journal",
    "Ledger",
    "Spread",
    "Token",
]
