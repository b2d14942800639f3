"""Group commit: on which thread a commit is written."""

import asyncio
import threading

import pytest

from rxflow._read_pass import read_pass
from rxflow.sinks.group import GroupCommit

QUICK, SLOW = 0.0002, 0.02
FEW, MANY = 1, 100


def places(*commits):
    """Where each commit was written, each given by its rows and the seconds that it takes."""

    async def main():
        loop, here = asyncio.get_running_loop(), threading.get_ident()
        now, found, ended = [0.0], [], asyncio.Event()
        loop.time = lambda: now[0]

        def write(rows, tokens):
            del rows, tokens
            now[0] += commits[len(found)][1]
            found.append("loop" if threading.get_ident() == here else "worker")

        group = GroupCommit(write, lambda *_: ended.set())
        for count, _ in commits:
            ended.clear()
            group.add([b"1"] * count, [None] * count)
            await ended.wait()
        group.close()
        return found

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("commits", "expected"),
    [
        ([(FEW, QUICK)], ["worker"]),
        ([(FEW, QUICK), (FEW, QUICK), (FEW, QUICK)], ["worker", "loop", "loop"]),
        ([(FEW, SLOW), (FEW, SLOW)], ["worker", "worker"]),
        ([(FEW, QUICK), (FEW, SLOW), (FEW, QUICK)], ["worker", "loop", "worker"]),
        ([(FEW, SLOW), (FEW, QUICK), (FEW, QUICK)], ["worker", "worker", "loop"]),
        ([(FEW, QUICK), (MANY, QUICK), (FEW, QUICK)], ["worker", "worker", "loop"]),
    ],
)
def test_the_loop_writes_a_few_rows_itself_if_the_disk_was_quick_last_time(commits, expected):
    assert places(*commits) == expected


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

        group = GroupCommit(write, lambda *_: ended.set())
        group.add_one(b"1", None)
        await asyncio.to_thread(is_writing.wait, 10)
        read_pass(decode, asyncio.get_running_loop())
        async with asyncio.timeout(5):
            await ended.wait()
        group.close()
        return committed

    assert asyncio.run(main()) == [b"1", b"2", b"3"]
