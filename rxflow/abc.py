"""The seams of rxflow, for users to implement."""

from __future__ import annotations

from rxflow.running.health import Running
from rxflow.sinks.contracts import ExactlyOnceStore, Receipt, Store
from rxflow.sources.feed import Feed

__all__ = ["ExactlyOnceStore", "Feed", "Receipt", "Running", "Store"]
