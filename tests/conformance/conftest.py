"""Both versions of MQTT, no wait between two connections."""

from __future__ import annotations

import pytest

from rxflow.process.environment import Environment


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next attempt to connect follows at once: no test here is about waiting."""
    monkeypatch.setattr(Environment, "jittered", lambda *_: 0.0)


@pytest.fixture(params=[4, 5], ids=["3.1.1", "5"])
def version(request: pytest.FixtureRequest) -> int:
    """The protocol level: 4 is MQTT 3.1.1."""
    return request.param
