"""A thread for what blocks: in order, and never in the way of the process's end."""

import gc
import subprocess
import sys
import threading
import weakref

import pytest

from rxflow.process import worker as _worker
from rxflow.process.worker import Worker


@pytest.fixture
def worker():
    worker = Worker("rxflow-worker")
    yield worker
    worker.end(10)


def test_what_raises_is_told_and_the_next_is_done(worker, monkeypatch):
    told, done = [], threading.Event()
    monkeypatch.setattr(threading, "excepthook", told.append)
    worker.submit(int, "no number")
    worker.submit(done.set)
    assert done.wait(60)
    assert [each.exc_type for each in told] == [ValueError]


def test_it_may_end_itself(worker):
    worker.submit(worker.end, 10)
    worker._thread.join(60)
    assert not worker._thread.is_alive()


def test_it_ends_when_nobody_has_it_any_more():
    worker = Worker("rxflow-worker")
    thread = worker._thread
    del worker
    gc.collect()
    thread.join(60)
    assert not thread.is_alive()


def test_what_is_done_is_not_held(worker):
    class Held:
        """Something that can be waited for to go."""

    gone = threading.Event()
    held = Held()
    weakref.finalize(held, gone.set)
    worker.submit(lambda held: None, held)
    del held
    assert gone.wait(60)


def test_it_tells_whether_all_is_done(worker):
    goes_on = threading.Event()
    worker.submit(goes_on.wait)
    assert not worker.has_done_all(0)
    goes_on.set()
    assert worker.has_done_all(10)
    worker.end(10)
    assert worker.has_done_all(0)


ENDING = """
import functools, threading
import weakref
from rxflow.process import worker as _worker
_worker._EXIT_SECONDS = {seconds}
worker = _worker.Worker("rxflow-worker")
begun = threading.Event()
def work():
    begun.set()
    {work}
worker.submit(work)
begun.wait()
worker.submit(functools.partial(print, "done", flush=True))
"""


@pytest.mark.parametrize(
    ("work", "seconds", "said"),
    [("threading.main_thread().join()", 30, b"done\n"), ("threading.Event().wait()", 0.1, b"")],
)
def test_at_exit_what_it_was_given_has_some_time_and_no_more(work, seconds, said):
    code = ENDING.format(work=work, seconds=seconds)
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, said, b"")


def test_the_time_at_exit_is_one_for_all(monkeypatch):
    monkeypatch.setattr(_worker, "_EXIT_SECONDS", 0.0)
    goes_on = threading.Event()
    workers = [Worker("rxflow-worker") for _ in range(3)]
    for worker in workers:
        worker.submit(goes_on.wait)
    _worker._finish()
    goes_on.set()
    for worker in workers:
        worker.end(10)
