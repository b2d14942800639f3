"""What users may implement: the seams of rxflow, each beside what uses it."""

from __future__ import annotations

from rxflow.sinks.contracts import ExactlyOnceStore, Receipt, Store

__all__ = ["ExactlyOnceStore", "Receipt", "Store"]
