"""The embedded broker, for demos and tests."""

from __future__ import annotations

from rxflow.broker.embedded import Broker

__all__ = ["Broker"]
