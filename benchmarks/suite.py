"""Rounds: every entry of a section in turn, over and over, and the median of each."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from feeders import Feed, Feeders
from measure import Figures, MissedError, Subject, measure
from mosquitto import PROGRAM, mosquitto


@dataclass(frozen=True)
class Entry:
    """A subject and what it is fed.

    Attributes:
        subject: Who.
        feed: What it gets.
        prepare: Called with the path before each round; None takes a fresh path.
        broker: Lines of mosquitto's configuration, to run behind one; None for the feeder alone.
    """

    subject: Subject
    feed: Feed
    prepare: Callable[[Path], None] | None = None
    broker: tuple[str, ...] | None = None

    def scaled(self, scale: float) -> Entry:
        """The same with more or fewer messages."""
        feed = self.feed
        if scale == 1 or feed.topics > 1:
            return self
        count = max(feed.clients * 200, int(feed.count * scale))
        return replace(self, feed=replace(feed, count=count))


@dataclass(frozen=True)
class Section:
    """What is compared with each other; the first entry is what the others are compared with.

    Attributes:
        key: Its name on the command line, and for the goals.
        title: In the table.
        entries: In the order of the table.
        by: What is compared: `rate`, `cpu_us` or `p50`.
        note: A sentence under the title.
        times: So many times as many rounds, for what differs much from one to the next.
    """

    key: str
    title: str
    entries: tuple[Entry, ...]
    by: str = "rate"
    note: str = ""
    times: int = 1


@dataclass(frozen=True)
class Result:
    """What became of an entry: medians, or why there are none."""

    name: str
    median: Figures | None
    why: str = ""
    spread: float = 0.0


class Rounds:
    """Runs sections.

    Args:
        feeders: What feeds them.
        folder: For what the subjects write; on the disk whose speed counts.
        rounds: How often each entry is measured.
        scale: More or fewer messages than the sections say.
    """

    def __init__(self, feeders: Feeders, folder: Path, rounds: int, scale: float) -> None:
        self._feeders = feeders
        self._folder = folder
        self._rounds = rounds
        self._scale = scale
        self._fresh = 0

    def run(self, section: Section) -> list[Result]:
        """Every entry in turn, `rounds` times."""
        measured: list[list[Figures]] = [[] for _ in section.entries]
        missed = [self._reason(entry) for entry in section.entries]
        for number in range(self._rounds * section.times):
            print(f"{section.key}: round {number + 1}", file=sys.stderr, flush=True)
            for at, entry in enumerate(section.entries):
                if missed[at]:
                    continue
                try:
                    measured[at].append(self._measure(entry.scaled(self._scale)))
                except MissedError as error:
                    missed[at] = str(error)
        names = (entry.subject.name for entry in section.entries)
        return [_result(*each) for each in zip(names, measured, missed, strict=True)]

    @staticmethod
    def _reason(entry: Entry) -> str:
        if entry.broker is not None and not PROGRAM:
            return "mosquitto is not installed"
        return entry.subject.without

    def _measure(self, entry: Entry) -> Figures:
        self._fresh += 1
        path = self._folder / f"{self._fresh}" / "rows.json"
        if entry.prepare:
            path = self._folder / entry.subject.name.replace(" ", "-") / "rows.json"
        path.parent.mkdir(exist_ok=True)
        if entry.prepare:
            entry.prepare(path)
        behind = nullcontext() if entry.broker is None else mosquitto(path.parent, *entry.broker)
        with behind as broker:
            figures = measure(entry.subject, entry.feed, self._feeders, path, broker)
        if not entry.prepare:
            _remove(path.parent)
        return figures


def _remove(folder: Path) -> None:
    for each in sorted(folder.rglob("*"), reverse=True):
        if each.is_dir():
            each.rmdir()
        else:
            each.unlink()
    folder.rmdir()


def _result(name: str, measured: list[Figures], missed: str) -> Result:
    if missed or not measured:
        return Result(name, None, missed)
    rates = sorted(each.rate for each in measured)
    median = Figures(
        rate=statistics.median(rates),
        cpu_us=statistics.median(each.cpu_us for each in measured),
        peak_mb=statistics.median(each.peak_mb for each in measured),
        extra={
            name: statistics.median(each.extra[name] for each in measured)
            for name in measured[0].extra
        },
    )
    return Result(name, median, spread=(rates[-1] - rates[0]) / median.rate)
