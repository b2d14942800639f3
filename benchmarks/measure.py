"""One measurement: a feeder, a subject, and what the subject needed for what the feeder sent."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, Self

from feeders import Feed, Feeders
from mosquitto import Mosquitto

LONGEST: Final = 90.0
_POLL: Final = 0.02
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class MissedError(Exception):
    """It could not be measured; the text says why."""


@dataclass(frozen=True)
class Subject:
    """A program to measure.

    Attributes:
        name: In the table.
        command: Its command line for a port, a feed and a path to write to.
        environment: What it needs in its environment.
        is_silent: True if it says nothing, writes to that path and ends when it is done.
        leaves_rows: True if it must leave a row for each message there.
        without: Why it can't be measured here; empty if it can.
    """

    name: str
    command: Callable[[int, Feed, Path], list[str]] = lambda *_: []
    environment: dict[str, str] = field(default_factory=dict)
    is_silent: bool = False
    leaves_rows: bool = False
    without: str = ""


@dataclass(frozen=True)
class Figures:
    """What one measurement gave.

    Attributes:
        rate: Messages a second, from the first byte sent to the last acknowledgement at QoS 1 and
            2, at QoS 0 until the subject has dealt with the last message.
        cpu_us: CPU time for a message, in microseconds, of all threads, in user and kernel.
        peak_mb: Most memory that was ever in use (VmHWM), in MB.
        extra: What else the feeder (p50 and p99, in microseconds) or the subject said.
    """

    rate: float
    cpu_us: float
    peak_mb: float
    extra: dict[str, float]


class Talk:
    """What a process says, line by line: a word and its values."""

    def __init__(self, process: subprocess.Popen[str], name: str) -> None:
        self._process = process
        self._name = name
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        if process.stdout:
            threading.Thread(target=self._read, args=(process.stdout,), daemon=True).start()

    def _read(self, lines: IO[str]) -> None:
        with contextlib.suppress(ValueError):
            for line in lines:
                self._lines.put(line)
        self._lines.put("")

    def wait(self, word: str, until: float) -> list[str]:
        """The values after `word`, once it is said; of a silent one, the time when it ends.

        Raises:
            MissedError: It is too late, or the process has ended.
        """
        if not self._process.stdout:
            return self._wait_ended(until)
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                raise MissedError(f"{self._name} was not done in {LONGEST:.0f} s") from None
            if not line:
                raise MissedError(f"{self._name} ended too early")
            first, *values = line.split()
            if first == word:
                return values

    def _wait_ended(self, until: float) -> list[str]:
        try:
            self._process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise MissedError(f"{self._name} was not done in {LONGEST:.0f} s") from None
        return [str(time.monotonic())]


class Usage:
    """CPU time and peak memory of a process, watched until it ends."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")
        self._has_ended = threading.Event()
        self.cpu_seconds = self.peak_mb = 0.0
        self.look()

    def look(self) -> None:
        """Take what is known now; of a process that is gone, keep what was known."""
        with contextlib.suppress(OSError, IndexError, ValueError):
            fields = (self._folder / "stat").read_text().rpartition(")")[2].split()
            status = (self._folder / "status").read_text()
            self.peak_mb = int(status.partition("VmHWM:")[2].split()[0]) / 1000
            self.cpu_seconds = (int(fields[11]) + int(fields[12])) / _TICKS

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def _watch(self) -> None:
        while not self._has_ended.wait(_POLL):
            self.look()

    def __exit__(self, *_: object) -> None:
        self._has_ended.set()


@contextlib.contextmanager
def running(
    command: list[str], environment: dict[str, str] | None = None, output: IO[str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A process that is killed with the block; its output is ours, or goes to a file."""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=output or subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | (environment or {}),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def measure(
    subject: Subject,
    feed: Feed,
    feeders: Feeders,
    path: Path,
    broker: Mosquitto | None = None,
) -> Figures:
    """Run a subject against a feeder of its own, or behind a broker into which that publishes.

    Raises:
        MissedError: It did not get to the end, or not with every row.
    """
    until = time.monotonic() + LONGEST
    with contextlib.ExitStack() as stack:
        if broker is None:
            feeder = Talk(stack.enter_context(running(feeders.command(feed))), "the feeder")
            port = int(feeder.wait("port", until)[0])
        else:
            port = broker.port
        output = stack.enter_context(path.open("w")) if subject.is_silent else None
        command = subject.command(port, feed, path)
        process = stack.enter_context(running(command, subject.environment, output))
        talk = Talk(process, subject.name)
        if broker is not None:
            broker.wait_subscribed(until)
            feeder = Talk(stack.enter_context(running(feeders.command(feed, port))), "the feeder")
        began = float(feeder.wait("begin", until)[0])
        with Usage(process.pid) as usage:
            before = usage.cpu_seconds
            if feed.qos and broker is None:
                said, acknowledged, *percentiles = map(float, feeder.wait("end", until))
                if acknowledged != feed.count:
                    raise MissedError(f"{acknowledged:.0f} of {feed.count} were acknowledged")
                extra = dict(zip(("p50", "p99"), percentiles, strict=True))
            else:
                said, extra = _done(talk.wait("done", until))
            usage.look()
        if subject.leaves_rows:
            if feed.qos and broker is None:
                talk.wait("done", until)
            _check_rows(path, feed.count)
    cpu_us = (usage.cpu_seconds - before) / feed.count * 1e6
    return Figures(feed.count / (said - began), cpu_us, usage.peak_mb, extra)


def _done(values: list[str]) -> tuple[float, dict[str, float]]:
    pairs = (value.partition("=") for value in values[1:])
    return float(values[0]), {name: float(figure) for name, _, figure in pairs}


def _check_rows(path: Path, count: int) -> None:
    """A fast run that lost a row is no run."""
    text = path.read_bytes()
    rows = text.count(b"\n") - 2
    if rows != count or not text.endswith(b"\n]\n"):
        raise MissedError(f"{rows} of {count} rows were stored")
