"""What every test has: nothing leaks, and brokers are one argument away."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from brokers import USERS, Authority, Mosquitto, mosquitto_path

GRACE = 20.0
BACKGROUND = "rxflow"
"""The name of the one thread that may outlive a test: the loop behind a bare `subscribe`."""

_DESCRIPTORS = Path("/proc/self/fd")


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    """Fail a test that leaves a thread, a socket or a file behind."""
    threads, files = set(threading.enumerate()), _open_files()
    yield
    left = _threads_left(threads)
    new = {thread.name for thread in set(threading.enumerate()) - threads}
    opened = _files_left(files, has_new_loop=BACKGROUND in new)
    if left or opened:
        pytest.fail(f"leaked threads {left}, files {opened}", pytrace=False)


def _threads_left(before: set[threading.Thread]) -> list[str]:
    deadline = time.monotonic() + GRACE
    new = [t for t in set(threading.enumerate()) - before if t.name != BACKGROUND or not t.daemon]
    for thread in new:
        with contextlib.suppress(RuntimeError):  # another thread is about to start it
            thread.join(max(0.0, deadline - time.monotonic()))
    return [thread.name for thread in new if thread.is_alive()]


def _files_left(before: Counter[str], *, has_new_loop: bool) -> list[str]:
    deadline = time.monotonic() + GRACE
    while (left := _new_files(before, has_new_loop)) and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)  # the thread in the background may be closing it
    return left


def _new_files(before: Counter[str], has_new_loop: bool) -> list[str]:  # noqa: FBT001
    left = _open_files() - before
    # A loop talks to itself over a pair of sockets, which live as long as its thread.
    own = [name for name in left if name.startswith("local socket")] if has_new_loop else []
    return sorted(left - Counter(own[:2]))


def _open_files() -> Counter[str]:
    """What is open, by what it leads to; empty where there is no /proc."""
    if not _DESCRIPTORS.exists():
        return Counter()
    found: Counter[str] = Counter()
    for descriptor in _DESCRIPTORS.iterdir():
        try:
            target = str(descriptor.readlink())
            family = _family(int(descriptor.name)) if target.startswith("socket:") else ""
        except OSError:
            continue  # the folder's own, or closed meanwhile by a thread in the background
        if family:
            found[f"{family} {target}"] += 1
        elif target.startswith("/") and not target.startswith("/dev/"):
            found[target] += 1
    return found


def _family(descriptor: int) -> str:
    copy = socket.socket(fileno=os.dup(descriptor))
    with copy:
        return "local socket" if copy.family == socket.AF_UNIX else "socket"


# -- brokers ---------------------------------------------------------------------------------------


@pytest.fixture
def mqtt_broker_users() -> dict[str, str]:
    """The embedded broker of the plugin, for username and password `wiredflow`."""
    return USERS


@pytest.fixture
def make_mosquitto(tmp_path: Path) -> Iterator[Callable[..., Mosquitto]]:
    """Make a mosquitto with the arguments of `Mosquitto`, running, and killed after the test."""
    if mosquitto_path() is None:
        text = "mosquitto is not installed (Debian: apt-get install mosquitto)"
        pytest.fail(text) if os.environ.get("CI") else pytest.skip(text)
    made: list[Mosquitto] = []

    def make(**settings: Any) -> Mosquitto:
        broker = Mosquitto(tmp_path / f"mosquitto-{len(made)}", **settings)
        made.append(broker)
        broker.start()
        return broker

    yield make
    for broker in made:
        broker.kill()


@pytest.fixture
def mosquitto(make_mosquitto: Callable[..., Mosquitto]) -> Mosquitto:
    """A real mosquitto, for username and password `wiredflow`."""
    return make_mosquitto()


@pytest.fixture
def mosquitto_tls(make_mosquitto: Callable[..., Mosquitto], authority: Authority) -> Mosquitto:
    """One that also listens with TLS; `authority.path` vouches for it."""
    return make_mosquitto(certificate=authority.server)


@pytest.fixture
def mosquitto_websocket(
    make_mosquitto: Callable[..., Mosquitto], authority: Authority
) -> Mosquitto:
    """One that also listens for WebSocket, with TLS and without."""
    return make_mosquitto(certificate=authority.server, with_websocket=True)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate authority, with certificates that are valid, expired, or of another host."""
    return Authority(tmp_path_factory.mktemp("certificates"))
