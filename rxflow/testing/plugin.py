"""The pytest plugin: fixtures `marbles`, `scheduler` and `mqtt_broker`, and a marker for frames.

    @pytest.mark.marbles(frame="10ms", limit="1m")
    def test_burst(marbles):
        marbles.check(marbles.cold("a-b|"), "a-b|")

A test that uses `marbles` fails, too, if it observed something and compared it with nothing, if a
call of `at` never came, if a task of it failed unseen, or if it left a thread behind.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator, Iterator, Mapping
from typing import Any, Final

import pytest

from rxflow.broker import Broker
from rxflow.testing.diagram import Diagram
from rxflow.testing.marbles import Marbles, Observed
from rxflow.testing.marks import Marks
from rxflow.testing.subscriptions import Subscriptions
from rxflow.testing.virtual_scheduler import VirtualScheduler

_BACKGROUND: Final = "rxflow"  # the loop behind a bare `subscribe`; it lives as long as the process
_GRACE: Final = 1.0  # seconds for threads that are about to end

_threads = pytest.StashKey[set[threading.Thread]]()


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
    request.node.stash[_threads] = set(threading.enumerate())
    made = Marbles(**settings)
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
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Fail, and not only report, a test that left something pending."""
    result = yield
    made = getattr(item, "funcargs", {}).get("marbles")
    if made is not None and _threads in item.stash:
        try:
            made.close()
        except AssertionError as error:
            pytest.fail(str(error), pytrace=False)
        if left := _threads_left(item.stash[_threads]):
            pytest.fail(f"left behind: {', '.join(left)}", pytrace=False)
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


def _threads_left(before: set[threading.Thread]) -> list[str]:
    new = [t for t in threading.enumerate() if t not in before and t.name != _BACKGROUND]
    for thread in new:
        with contextlib.suppress(RuntimeError):  # another thread is about to start it
            thread.join(_GRACE)
    return [f"thread {thread.name}" for thread in new if thread.is_alive()]
