"""What rxflow takes from the process, and how a loop answers for itself."""

import asyncio
import threading
from datetime import UTC, datetime

import pytest

from rxflow.process import heartbeat
from rxflow.process.environment import Environment, environment_of


@pytest.fixture
def loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def test_a_loop_without_environment_of_its_own_has_the_real_ones(loop):
    assert type(environment_of(loop)) is Environment
    loop.environment = "something else of that name"
    assert type(environment_of(loop)) is Environment


def test_a_loop_may_bring_its_own(loop):
    loop.environment = Environment()
    assert environment_of(loop) is loop.environment


def test_the_date_is_that_of_the_clock():
    before = datetime.now(UTC)
    assert before <= Environment().utc() <= datetime.now(UTC)


def test_the_wait_before_an_attempt_is_between_half_and_all_of_the_longest():
    waits = [Environment().jittered(4.0, "host") for _ in range(100)]
    assert 2.0 <= min(waits) < max(waits) <= 4.0


def test_what_blocks_has_a_daemon_thread_of_its_own():
    found, done = [], threading.Event()

    def work():
        found.append(threading.current_thread())
        done.set()

    Environment().start(work, "rxflow at work")
    assert done.wait(60)
    found[0].join(10)
    assert (found[0].name, found[0].daemon) == ("rxflow at work", True)


def test_a_worker_is_one_thread_that_keeps_the_order():
    worker, seen = Environment().worker("rxflow-worker"), []
    for number in range(100):
        worker.submit(lambda number=number: seen.append((number, threading.get_ident())))
    worker.end(10)
    worker.end(10)
    assert [number for number, _ in seen] == list(range(100))
    assert len({thread for _, thread in seen}) == 1


def test_the_heartbeat_watches_a_connection_until_it_is_forgotten(monkeypatch):
    class Link:
        def __init__(self):
            self.has_beaten = threading.Event()

        def blocked(self):
            return 0.0

        def beat(self):
            self.has_beaten.set()

        def breathe(self):
            pass

    monkeypatch.setattr(heartbeat, "_PERIOD", 0.001)
    link = Link()
    Environment().watch(link)
    assert link.has_beaten.wait(60)
    Environment().forget(link)
    Environment().forget(link)
