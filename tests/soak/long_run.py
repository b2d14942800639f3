"""What a long run needs: a pipeline that can be watched, and a file that is read as it grows."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

PIPELINE = Path(__file__).parents[1] / "battery" / "pipeline.py"
PATIENCE = 120.0  # of what must come; nothing passes by being quick


class Sample(NamedTuple):
    """What a process took at some time."""

    hours: float
    rss_mb: float
    descriptors: int
    threads: int


class Life:
    """A pipeline, in one process after the other.

    Args:
        url: Its broker.
        path: Its file.
        options: As for `pipeline.py`.
    """

    def __init__(self, url: str, path: Path, *options: str) -> None:
        self.path = path
        self.rows = GrowingRows(path)
        self.slow = path.with_name(f"{path.name}.slow")
        self.ends = 0
        self._command = [sys.executable, str(PIPELINE), url, str(path), *options]
        self._command += ["--slow-while", str(self.slow)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        with self.path.with_name(f"{self.path.name}.said").open("ab") as said:
            self._process = subprocess.Popen([*self._command, *options], stdout=said, stderr=said)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self.ends += 1

    def fill_its_disk(self, room: int) -> None:
        """Restart it with so much room; return when it has failed for want of more."""
        self.kill()
        self.start("--room", str(room))
        assert self._process is not None
        assert self._process.wait(PATIENCE) == 1
        self.ends += 1

    def check(self) -> None:
        """It runs, and what it writes is valid so far."""
        assert self._process is not None
        assert self._process.poll() is None, f"{self.path} ended by itself: {self.last_words}"
        self.rows.update()

    @property
    def last_words(self) -> str:
        return self.path.with_name(f"{self.path.name}.said").read_text()[-2000:]

    def lack(self, acknowledged: set[int]) -> str:
        """What is missing, and how it came to be."""
        missing = sorted(acknowledged - self.rows.numbers)
        return (
            f"{self.path}: {len(missing)} from {missing[0]} to {missing[-1]}; read up to byte "
            f"{self.rows.at} of {self.path.stat().st_size}; it said last: {self.last_words}"
        )

    def sample(self, began: float) -> Sample:
        """What it takes just now, at a time counted from `began` by the monotonic clock."""
        assert self._process is not None
        process = Path("/proc") / str(self._process.pid)
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        return Sample(
            (time.monotonic() - began) / 3600,
            int(status["VmRSS"].split()[0]) / 1024,
            len([*(process / "fd").iterdir()]),
            int(status["Threads"]),
        )

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(PATIENCE)

    def end(self) -> None:
        """SIGKILL, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class GrowingRows:
    """The rows of a JSON array that grows, each line read once, by the standard library.

    What stands in a whole line is never written again: a process that is killed leaves its bytes in
    the system's memory, and recovery keeps each whole row.

    Attributes:
        numbers: Those read since the last `forget`.
        count: How many rows with a number there were in all.
        again: How many of these had a number that was there already.
        at: Up to which byte it is read.
    """

    def __init__(self, path: Path) -> None:
        self.numbers: set[int] = set()
        self.count = self.again = 0
        self._path = path
        self.at = 0

    def update(self) -> None:
        """Read on."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            if not self.at:
                assert file.read(2) in {b"[\n", b""}
                self.at = 2
            file.seek(self.at)
            content = file.read()
        for line in content.splitlines(keepends=True):
            try:
                row = json.loads(line.removeprefix(b",")) if line.endswith(b"\n") else None
            except ValueError:
                row = None
            if row is None:
                return  # the end, or a commit that is just being written: read again
            self.at += len(line)
            if isinstance(row, dict):  # else it is of a flood
                self.again += row["n"] in self.numbers
                self.numbers.add(row["n"])
                self.count += 1

    def forget(self) -> None:
        """What was read so far is in order."""
        self.numbers.clear()

    def check_end(self) -> None:
        """The whole file is an array, now that nobody writes it."""
        self.update()
        assert self._path.read_bytes()[self.at :] == b"]\n"


def until(is_so: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Wait for it, but not for ever."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def slope(samples: list[Sample]) -> float:
    """MB of memory an hour, by least squares."""
    hours = [sample.hours for sample in samples]
    middle = sum(hours) / len(hours)
    mean = sum(sample.rss_mb for sample in samples) / len(samples)
    with contextlib.suppress(ZeroDivisionError):
        return sum((s.hours - middle) * (s.rss_mb - mean) for s in samples) / sum(
            (hour - middle) ** 2 for hour in hours
        )
    return 0.0
