"""Operators alone, on plain numbers: rxflow's, reactivex's own, and a generator that does the same.

Prints JSON: for each operator, the median cost of an item in nanoseconds, of each of the three.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import reactivex
from reactivex import operators as rx
from reactivex.disposable import Disposable
from reactivex.scheduler.eventloop import AsyncIOScheduler

from rxflow import operators as ours

COUNT = 100_000
BATCH = 100
KEYS = 100

Operators = Callable[[Any], Callable[[Any], Any]]


def grouped(ops: Any) -> Callable[[Any], Any]:
    """A buffer for each of many keys."""

    def apply(source: Any) -> Any:
        return source.pipe(
            ops.group_by(lambda n: n % KEYS),
            ops.flat_map(lambda group: group.pipe(ops.buffer_with_count(BATCH))),
        )

    return apply


OPERATORS: dict[str, Operators] = {
    "map": lambda ops: ops.map(lambda n: n + 1),
    "filter": lambda ops: ops.filter(lambda n: n >= 0),
    "scan": lambda ops: ops.scan(lambda total, n: total + n, 0),
    "take_until": lambda ops: ops.take_until(reactivex.never()),
    "buffer_with_count": lambda ops: ops.buffer_with_count(BATCH),
    "buffer_with_time_or_count": lambda ops: ops.buffer_with_time_or_count(60.0, BATCH),
    "debounce": lambda ops: ops.debounce(60.0),
    "group_by + buffer": grouped,
    "share, two subscribers": lambda ops: ops.share(),
}


def batched(items: Iterable[int]) -> Iterator[list[int]]:
    """Lists of `BATCH` items."""
    items = iter(items)
    while batch := list(itertools.islice(items, BATCH)):
        yield batch


def by_key(items: Iterable[int]) -> Iterator[list[int]]:
    """The same for each key."""
    batches: defaultdict[int, list[int]] = defaultdict(list)
    for n in items:
        batch = batches[n % KEYS]
        batch.append(n)
        if len(batch) == BATCH:
            yield batch
            batches[n % KEYS] = []


GENERATORS: dict[str, Callable[[Iterable[int]], Iterable[Any]]] = {
    "map": lambda items: (n + 1 for n in items),
    "filter": lambda items: (n for n in items if n >= 0),
    "scan": itertools.accumulate,
    "take_until": lambda items: (n for n in items),
    "buffer_with_count": batched,
    "group_by + buffer": by_key,
}


class Source(reactivex.Observable[int]):
    """Calls `on_next`, and nothing else, when it is told to."""

    def _subscribe_core(self, observer: Any, scheduler: Any = None) -> Disposable:
        del scheduler
        self._observer = observer
        return Disposable()

    def emit(self, count: int) -> None:
        """So many numbers, and the end."""
        on_next = self._observer.on_next
        for n in range(count):
            on_next(n)
        self._observer.on_completed()


def ignore(_: Any) -> None:
    """Take an item."""


def timed(work: Callable[[int], Any], count: int) -> float:
    """Nanoseconds of CPU an item, of this thread: others on the machine don't count."""
    began = time.thread_time_ns()
    work(count)
    return (time.thread_time_ns() - began) / count


def generated(name: str, count: int) -> None:
    """Pull every item through the generator."""
    for item in GENERATORS[name](range(count)):
        ignore(item)


async def main(rounds: int, scale: float) -> None:
    """Measure in turn, `rounds` times."""
    count = max(1_000, int(COUNT * scale))
    scheduler = AsyncIOScheduler(asyncio.get_running_loop())
    found: defaultdict[str, defaultdict[str, list[float]]]
    found = defaultdict(lambda: defaultdict(list))
    for _ in range(rounds):
        for name, make in OPERATORS.items():
            for whose, ops in (("rxflow", ours), ("reactivex", rx)):
                source = Source()
                pipeline = source.pipe(make(ops))
                for _ in range(1 + name.startswith("share")):
                    pipeline.subscribe(ignore, scheduler=scheduler)
                found[name][whose].append(timed(source.emit, count))
                await asyncio.sleep(0)  # the loop forgets timers that were cancelled
            if name in GENERATORS:
                cost = timed(functools.partial(generated, name), count)
                found[name]["generator"].append(cost)
    medians = {
        name: {whose: statistics.median(costs) for whose, costs in each.items()}
        for name, each in found.items()
    }
    print(json.dumps(medians))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
