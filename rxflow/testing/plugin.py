"""The pytest plugin: fixtures `marbles`, `scheduler` and `mqtt_broker`, and a marker for frames.

    @pytest.mark.marbles(frame="10ms", limit="1m")
    def test_burst(marbles):
        marbles.check(marbles.cold("a-b|"), "a-b|")

A test that uses `marbles`, or makes a `Marbles` of its own, fails, too, if something of it is
pending at its end (`Marbles.close` has the list), or if it left a thread behind.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Mapping
from typing import Any, Final

import pytest

from rxflow.broker import Broker
from rxflow.testing.diagrams.diagram import Diagram
from rxflow.testing.marbles import Marbles, Observed
from rxflow.testing.marks import Marks
from rxflow.testing.pending import Pending, watched
from rxflow.testing.subscriptions import Subscriptions
from rxflow.testing.virtual.scheduler import VirtualScheduler

_OURS: Final = "rxflow"  # how the names of our threads begin; each ends with what it belongs to

_made = pytest.StashKey[Marbles]()
_pending = pytest.StashKey[list[Pending]]()


def pytest_configure(config: pytest.Config) -> None:
    """Tell pytest of the marker."""
    config.addinivalue_line(
        "markers",
        "marbles(frame='1s', limit=None): how long a character of a marble diagram is, "
        "and how far a check goes",
    )


@pytest.fixture
def marbles(request: pytest.FixtureRequest) -> Iterator[Marbles]:
    """The marble diagrams of this test, on virtual time; see `rxflow.testing.Marbles`."""
    settings: dict[str, Any] = {}
    for marker in reversed([*request.node.iter_markers("marbles")]):  # the nearest last
        if marker.args or not marker.kwargs.keys() <= {"frame", "limit"}:
            raise pytest.UsageError("the marker is marbles(frame=..., limit=...), both by name")
        settings |= marker.kwargs
    made = request.node.stash[_made] = Marbles(**settings)
    with made.active():
        yield made


@pytest.fixture
def scheduler(marbles: Marbles) -> VirtualScheduler:
    """The scheduler of this test, on virtual time; that of `marbles`."""
    return marbles.scheduler


@pytest.fixture
def mqtt_broker_users() -> Mapping[str, str] | None:
    """Passwords by username for `mqtt_broker`; override it. None lets anyone in."""
    return None


@pytest.fixture
def mqtt_broker(mqtt_broker_users: Mapping[str, str] | None) -> Iterator[Broker]:
    """A real MQTT broker in this process, on a free port: `from_mqtt(mqtt_broker.url, ...)`."""
    with Broker(users=mqtt_broker_users) as broker:
        yield broker


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Know of each `Marbles` that a test and its fixtures make, whether or not they close it."""
    with watched() as pending:
        item.stash[_pending] = pending
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Fail, and not only report, a test that left something pending."""
    threads = {*threading.enumerate()}
    result = yield
    owed = item.stash.get(_pending, [])
    if owed:
        try:
            for each in owed:
                each.check()
            if _made in item.stash:
                item.stash[_made].close()
        except AssertionError as error:
            pytest.fail(str(error), pytrace=False)
        if left := [t.name for t in threading.enumerate() if _is_left(t, threads)]:
            pytest.fail(f"left behind: thread {', thread '.join(left)}", pytrace=False)
    return result


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Show where diagrams or subscriptions differ."""
    if op != "==":
        return None
    text = ""
    if isinstance(left, Subscriptions):
        text = left.explain(right)
    elif isinstance(left, Observed | Marks) and isinstance(right, Diagram | str):
        text = left.explain(right, place="")
    elif isinstance(left, Diagram) and isinstance(right, Diagram):
        text = left.explain(right)
    return text.splitlines() or None


def _is_left(thread: threading.Thread, before: set[threading.Thread]) -> bool:
    return thread not in before and not thread.name.startswith(_OURS)
