"""The sink's side of exactly once, with a store in memory."""

import asyncio
import threading

import pytest

from rxflow.sinks.contracts import ExactlyOnceStore, Receipt
from rxflow.sinks.group_commit import GroupCommit
from rxflow.sinks.receipts import Receipts


class Book:
    """A ledger: it says what is whole, and is told what was dropped."""

    def __init__(self, *whole):
        self.whole = list(whole)
        self.dropped = []

    def receipts(self, tokens):
        del tokens
        return self.whole

    def released(self, packet_ids):
        self.dropped.extend(packet_ids)


class Memory:
    """Keeps receipts with rows; one call at a time."""

    def __init__(self):
        self.kept = {}
        self.calls = []
        self._alone = threading.Lock()

    def _call(self, *what):
        assert self._alone.acquire(blocking=False), "two calls at a time"
        self.calls.append(what)
        self._alone.release()

    def open(self):
        pass

    def commit(self, rows, receipts=()):
        self._call("commit", *rows)
        for _, session, packet_id, digest in receipts:
            self.kept.setdefault(session, {})[packet_id] = digest

    def receipts(self, session):
        self._call("receipts", session)
        return self.kept.get(session, {})

    def release(self, session, packet_ids):
        self._call("release", session, *packet_ids)
        for packet_id in packet_ids:
            self.kept[session].pop(packet_id, None)

    def forget(self, session):
        self._call("forget", session)
        self.kept.pop(session, None)

    def close(self):
        pass


@pytest.fixture
def store():
    return Memory()


def kept_by(store, failed=None):
    group = GroupCommit(lambda *_: None, lambda *_: None, lambda *_, **__: None)
    return Receipts(store, group, failed or pytest.fail), group


def test_a_store_with_receipts_is_told_by_its_methods(store):
    assert isinstance(store, ExactlyOnceStore)


def test_a_commit_brings_the_receipts_of_what_is_whole(store):
    receipts, _ = kept_by(store)
    assert receipts.attach("s", Book((0, 7, 70), (2, 8, 80))) == {}
    receipts.commit(["a", "b", "c"], [None] * 3)
    assert store.kept == {"s": {7: 70, 8: 80}}


def test_receipts_are_asked_of_whoever_attached_last(store):
    receipts, _ = kept_by(store)
    receipts.attach("s", Book((0, 1, 10)))
    receipts.attach("s", Book((0, 2, 20)))
    receipts.commit(["a"], [None])
    assert store.kept == {"s": {2: 20}}


def test_what_an_earlier_process_left_is_known(store):
    store.kept = {"s": {7: 70}}
    receipts, _ = kept_by(store)
    assert receipts.attach("s", Book()) == {7: 70}


def test_an_id_without_a_receipt_is_released_at_once(store):
    receipts, _ = kept_by(store)
    book = Book()
    receipts.attach("s", book)
    receipts.release("s", [5])
    receipts.release("unknown", [5])
    assert book.dropped == [5]
    assert store.calls == [("receipts", "s")]


def test_a_released_id_is_dropped_between_two_commits(store):
    async def main():
        receipts, group = kept_by(store)
        book = Book((0, 7, 70), (0, 8, 80))
        receipts.attach("s", book)
        receipts.commit(["a"], [None])
        receipts.release("s", [7])
        receipts.release("s", [8])
        group.close()  # which waits for the worker
        return book.dropped

    assert asyncio.run(main()) == [7, 8]
    assert store.kept == {"s": {}}


def test_a_lost_session_is_forgotten_and_its_ids_are_free(store):
    receipts, _ = kept_by(store)
    book = Book((0, 7, 70))
    receipts.attach("s", book)
    receipts.commit(["a"], [None])
    receipts.forget("s")
    assert store.kept == {}
    receipts.release("s", [7])
    assert book.dropped == [7]
    assert store.calls[-1] == ("forget", "s")


def test_what_cannot_be_dropped_fails_the_sink(store, monkeypatch):
    async def main():
        told = asyncio.get_running_loop().create_future()
        receipts, group = kept_by(store, told.set_result)
        receipts.attach("s", Book((0, 7, 70)))
        receipts.commit(["a"], [None])
        receipts.release("s", [7])
        error = await told
        group.close()
        return error

    def fails(session, packet_ids):
        raise OSError("gone")

    monkeypatch.setattr(store, "release", fails)
    assert str(asyncio.run(main())) == "gone"


def test_releases_and_commits_on_two_threads_lose_nothing(store):
    async def main():
        receipts, group = kept_by(store)
        book = Book(*[(0, n, 0) for n in range(200)])
        receipts.attach("s", book)
        receipts.commit(["a"], [None])
        book.whole = [(0, n, 0) for n in range(300, 350)]
        commits = [asyncio.to_thread(receipts.commit, [n], [None]) for n in range(50)]
        for packet_id in range(200):
            receipts.release("s", [packet_id])
        await asyncio.gather(*commits)
        group.close()
        return book.dropped

    assert sorted(asyncio.run(main())) == list(range(200))
    assert sorted(store.kept["s"]) == list(range(300, 350))


def test_a_receipt_says_which_row_of_which_session():
    assert Receipt(0, "s", 7, 70) == (0, "s", 7, 70)
