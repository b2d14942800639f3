"""Group commit: on which thread a commit is written."""

import asyncio
import threading

import pytest

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
