"""What a marble check costs on top of its pipeline, and how long an hour in virtual time takes.

Goals: 0.3 ms and 50 ms. Exits with 1 if one is missed; the median of many rounds counts.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import reactivex
from reactivex.subject import Subject

from rxflow import operators as ops
from rxflow import run_async
from rxflow.testing import Marbles

ROUNDS: Final = 500
HOURS: Final = 20
CHECK_MS: Final = 0.3
HOUR_MS: Final = 50.0


def flushed(source: Any, end: Any) -> Any:
    """The pipeline of the first page of `docs/testing.md`."""
    return source.pipe(ops.buffer_with_count(2), ops.take_until(end))


def check() -> None:
    """A whole test: diagrams, virtual time, comparison."""
    marbles = Marbles()
    source = marbles.hot("-a-b-c-d--|", name="sensor")
    pipeline = flushed(source, reactivex.timer(6))
    marbles.check(pipeline, "---x--(y|)", x=["a", "b"], y=["c"])
    assert source.subscriptions == "^-----!"


def pipeline_alone() -> None:
    """The same items through the same pipeline, by hand."""
    source, end, seen = Subject[str](), Subject[int](), list[Any]()
    subscription = flushed(source, end).subscribe(seen.append)
    for item in "abc":
        source.on_next(item)
    end.on_next(0)
    subscription.dispose()


def hour() -> None:
    """`run_async` with a tick each minute, each stored."""
    with Marbles() as marbles:
        sink = marbles.sink()
        marbles.run(run_async(reactivex.interval(60), sink, seconds=3630, log=False))
        assert sink.rows == 60  # noqa: PLR2004 (minutes)


def milliseconds(function: Callable[[], None], rounds: int) -> float:
    """The median; the first round, which imports, does not count."""
    function()
    took: list[float] = []
    for _ in range(rounds):
        began = time.perf_counter()
        function()
        took.append(time.perf_counter() - began)
    return statistics.median(took) * 1000


def main() -> int:
    """Measure and print."""
    whole, alone = milliseconds(check, ROUNDS), milliseconds(pipeline_alone, ROUNDS)
    an_hour = milliseconds(hour, HOURS)
    print(f"a check          {whole:8.3f} ms")
    print(f"its pipeline     {alone:8.3f} ms")
    print(f"on top           {whole - alone:8.3f} ms, goal {CHECK_MS:g}")
    print(f"a virtual hour   {an_hour:8.1f} ms, goal {HOUR_MS:g}")
    return int(whole - alone >= CHECK_MS or an_hour >= HOUR_MS)


if __name__ == "__main__":
    sys.exit(main())
