"""Group commit: for which commits the loop waits, and for how long."""

import asyncio
import threading

import pytest

from rxflow.process.read_pass import read_pass
from rxflow.sinks import group_commit as group_module
from rxflow.sinks.group_commit import GroupCommit

QUICK, SLOW, LATE = 0.0002, 0.02, 0.03
FEW, MANY = 1, 100


def nothing(*_):
    """A commit lasts, and nobody minds."""


def ways(*commits):
    """How the loop learned of each commit, given by its rows and the seconds that it took."""

    async def main():
        loop, here = asyncio.get_running_loop(), threading.get_ident()
        now, written, found, ended = [0.0], [], [], asyncio.Event()
        loop.time = lambda: now[0]

        def write(rows, tokens):
            del rows, tokens
            assert threading.get_ident() != here
            now[0] += commits[len(written)][1]
            written.append(True)
            if commits[len(written) - 1][1] == LATE:
                assert goes_on.wait(60)

        def settled(*_):
            found.append("waited" if is_starting else "was told")
            ended.set()

        def start(loop):
            nonlocal is_starting
            is_starting = True
            real(loop)
            is_starting = False
            goes_on.set()

        is_starting, goes_on = False, threading.Event()
        group = GroupCommit(write, settled, nothing)
        real, group._start = group._start, start
        for count, _ in commits:
            ended.clear()
            goes_on.clear()
            group.add([b"1"] * count, [None] * count)
            await ended.wait()
        group.close()
        return found

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("commits", "expected"),
    [
        ([(FEW, SLOW), (FEW, SLOW)], ["was told"] * 2),
        ([(FEW, QUICK), (MANY, LATE)], ["was told"] * 2),
        ([(FEW, QUICK), (FEW, LATE), (FEW, LATE)], ["was told"] * 3),
    ],
)
def test_the_loop_goes_on_while_a_slow_disk_writes(commits, expected):
    assert ways(*commits) == expected


def test_for_a_few_rows_on_a_quick_disk_the_loop_waits(monkeypatch):
    monkeypatch.setattr(group_module, "_QUICK", 10.0)
    assert ways((FEW, QUICK), (FEW, QUICK), (FEW, QUICK)) == ["was told", "waited", "waited"]


def test_rows_behind_a_flush_in_the_middle_of_a_read_pass_are_committed_too():
    async def main():
        is_writing, may_go_on, committed = threading.Event(), threading.Event(), []
        ended = asyncio.Event()

        def write(rows, tokens):
            del tokens
            is_writing.set()
            may_go_on.wait(10)
            committed.extend(rows)

        def decode():
            group.add_one(b"2", None)  # a commit is under way: nothing needs to be begun
            may_go_on.set()
            group.flush()
            ended.clear()
            group.add_one(b"3", None)

        group = GroupCommit(write, lambda *_: ended.set(), nothing)
        group.add_one(b"1", None)
        await asyncio.to_thread(is_writing.wait, 10)
        read_pass(decode, asyncio.get_running_loop())
        async with asyncio.timeout(5):
            await ended.wait()
        group.close()
        return committed

    assert asyncio.run(main()) == [b"1", b"2", b"3"]
