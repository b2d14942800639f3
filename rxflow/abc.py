"""What users may implement: the seams of rxflow, each beside what uses it."""

from __future__ import annotations

from rxflow.running.health import Running
from rxflow.sinks.contracts import ExactlyOnceStore, Receipt, Store
from rxflow.sources.feed import Feed

__all__ = ["ExactlyOnceStore", "Feed", "Receipt", "Running", "Store"]
