"""The kill harness: is anything missing that the broker acknowledged?

A publisher sends numbered messages and writes down which of them the broker acknowledged. Meanwhile
your pipeline, a process of its own, is killed and started again. At the end the file is read by the
standard library, and each acknowledged number must be there: the oracle of Jepsen's "set" test.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from rxflow import arguments
from rxflow.errors import SinkError
from rxflow.log import number_of
from rxflow.mqtt import MqttSink
from rxflow.sinks.file.reading import read_rows
from rxflow.testing.publisher import NumberedPublisher

Command = str | os.PathLike[str] | Sequence[str] | Callable[[], Sequence[str]]

_POLL: Final = 0.02
_WARM_UP_RATE: Final = 20.0
_SHOWN: Final = 10
_EARLY: Final = 3  # one SIGKILL of so many comes while the pipeline is still starting
_LAST_WORDS: Final = 2000


@dataclass(frozen=True, slots=True)
class Outcome:
    """The counts of a trial.

    Attributes:
        published: Messages sent after the pipeline stood.
        acknowledged: Of these, those that the broker acknowledged to the publisher.
        stored: Rows of them in the file, each number once.
        lost: Numbers acknowledged and not in the file.
        duplicates: Rows beyond the first of their number.
        unexpected: Rows that nobody published, as they stand in the file.
        disordered: Numbers whose first row comes behind that of a later number.
        kills: How often the process was ended before it was done.
        torn: After how many of these the file was no whole JSON before the next start.
        seconds: From the first start to the last end.
    """

    published: int
    acknowledged: int
    stored: int
    lost: tuple[int, ...]
    duplicates: int
    unexpected: tuple[Any, ...]
    disordered: tuple[int, ...]
    kills: int
    torn: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {self.published:,} published, {self.acknowledged:,} acknowledged,"
            f" {self.stored:,} stored, {len(self.lost):,} lost, {self.duplicates:,} duplicates, "
            f"{len(self.unexpected):,} unexpected, {len(self.disordered):,} out of order, "
            f"{self.torn} times torn; {self.seconds:.1f} s"
        )


def assert_no_loss(  # noqa: PLR0913 (a trial has as many conditions)
    command: Command,
    path: str | os.PathLike[str],
    *,
    url: str,
    topic: str,
    qos: int = 1,
    kills: int = 10,
    seconds_between_kills: tuple[float, float] = (0.1, 0.7),
    stop_signal: signal.Signals = signal.SIGKILL,
    rate: float = 1000.0,
    seed: int | None = None,
    payload: Callable[[int], bytes] | None = None,
    number: Callable[[Any], int] | None = None,
    read: Callable[[], Iterable[Any]] | None = None,
    exactly_once: bool = False,
    in_order: bool = False,
    patience: float = 30.0,
    **publisher: Any,
) -> Outcome:
    """Kill your pipeline again and again; assert that nothing acknowledged is missing.

    Use it on your own pipeline, broker and disk. The pipeline must survive its own death: a fixed
    `client_id` (`run(..., JsonSink(path))` keeps one by itself), QoS 1 or 2, and a broker that
    queues as much as comes while it is away (mosquitto: `max_queued_messages 0`).

    The command is started; once the first message is in the file, the publisher begins. The process
    is ended `kills` times at random instants, a third of them while it is still starting, and after
    each the file must be whole again and grow. At the end the process may drain, gets SIGTERM, and
    the file is read.

    Args:
        command: What runs the pipeline: a Python script, an argument list, or a function that
            makes one for each start. The broker, topic and file are the command's own business.
        path: The file that it writes: a JSON array, or a row a line. Rows that are there
            beforehand are left out of account.
        url: The broker, for the publisher; settings of `rxflow.MqttSink`, such as `username`, may
            follow as further arguments.
        topic: What to publish to.
        qos: Of the publisher, 1 or 2. At QoS 0 the broker acknowledges nothing.
        kills: How often to end the process; 0 is a plain run.
        seconds_between_kills: Least and most seconds from the moment that the restarted pipeline
            stores again to its next end.
        stop_signal: How to end it. Any other than SIGKILL is sent only once it runs, and it must
            then exit with status 0, within `patience`.
        rate: Messages a second.
        seed: Of the random instants; None: others each time. It is part of a failure's text.
        payload: Makes a message from its number; None: `{"n": 17}`.
        number: Finds the number in a row; None: `row["n"]`. A row without one is unexpected.
        read: Reads what is stored, if that is not in one file; nothing is then said of validity.
        exactly_once: Assert that no number is there twice (for QoS 2).
        in_order: Assert that numbers first appear in the order in which they were published.
        patience: Seconds that a start, and the last messages, may take.
        publisher: Settings of the publisher, see `url`.

    Returns:
        What was counted, if all is as it should be.

    Raises:
        AssertionError: It is not; the text says what, and names the figures.
        ConfigError: An argument is wrong; before anything is started.
        SinkError: The publisher could not publish.
    """
    place = arguments.file_path("path", path)
    _check_command(command)
    arguments.secret("url", url, is_none_fine=False)
    arguments.text("topic", topic)
    arguments.check_range("qos", qos, 1, 2)
    arguments.check_range("kills", kills, 0)
    _check_pause(seconds_between_kills)
    arguments.one_of("stop_signal", stop_signal, list(signal.Signals))
    arguments.more_than_0("rate", rate)
    arguments.wait("patience", patience, is_zero_fine=False, is_none_fine=False)
    if seed is not None:
        arguments.check_range("seed", seed, 0)
    for name, value in (("payload", payload), ("number", number), ("read", read)):
        if value is not None:
            arguments.function(name, value)
    for name, value in (("exactly_once", exactly_once), ("in_order", in_order)):
        arguments.flag(name, value)
    MqttSink(url, topic=topic, qos=qos, **publisher)  # which checks its own; it is not opened
    seed = random.SystemRandom().getrandbits(32) if seed is None else seed
    stored = _Stored(place, number or _number, read)
    with tempfile.TemporaryFile() as words:
        process = _Process(command, words)
        publishing = NumberedPublisher(
            url,
            topic,
            payload=payload or _payload,
            first=stored.next_number,
            rate=_WARM_UP_RATE,
            qos=qos,
            **publisher,
        )
        trial = _Trial(process, publishing, stored, stop_signal, patience)
        try:
            outcome = trial.run(
                kills=kills,
                rate=rate,
                pause=seconds_between_kills,
                instants=random.Random(seed),  # noqa: S311 (not for secrets)
            )
        except AssertionError as error:
            error.add_note(f"seed={seed}; the process said last:\n{process.last_words}")
            raise
        finally:
            process.kill()
    wrong = _wrong(outcome, exactly_once=exactly_once, in_order=in_order)
    if wrong:
        text = f"{'; '.join(wrong)}\n{outcome}; seed={seed}"
        raise AssertionError(text)
    return outcome


def _check_command(command: object) -> None:
    if isinstance(command, str | os.PathLike):
        arguments.file_path("command", command)
        return
    parts: Any = command
    is_list = isinstance(command, list | tuple) and bool(parts)
    if callable(command):
        arguments.function("command", command)
    elif not (is_list and all(isinstance(part, str | os.PathLike) for part in parts)):
        right = "a script, a list of arguments, or a function that makes one"
        arguments.refuse("command", right, command)


def _check_pause(pause: object) -> None:
    bounds: Any = pause
    is_pair = isinstance(pause, tuple | list) and len(bounds) == 2  # noqa: PLR2004
    if not (is_pair and all(map(arguments.is_number, bounds)) and 0 <= bounds[0] <= bounds[1]):
        arguments.refuse("seconds_between_kills", "a pair, the least and the most", pause)


def _wrong(outcome: Outcome, *, exactly_once: bool, in_order: bool) -> list[str]:
    wrong: list[str] = []
    if outcome.lost:
        wrong.append(
            f"lost {number_of(len(outcome.lost), 'acknowledged message')}: {_some(outcome.lost)} "
            "(is the session kept: a fixed client_id, and a broker that queues without a limit?)"
        )
    if outcome.unexpected:
        shown = _some([repr(row)[:80] for row in outcome.unexpected])
        wrong.append(f"{number_of(len(outcome.unexpected), 'row')} that nobody published: {shown}")
    if exactly_once and outcome.duplicates:
        wrong.append(f"{number_of(outcome.duplicates, 'row')} stored twice")
    if in_order and outcome.disordered:
        wrong.append(f"out of order: {_some(outcome.disordered)}")
    return wrong


def _some(values: Sequence[object]) -> str:
    more = f", and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
    return ", ".join(str(value) for value in values[:_SHOWN]) + more


def _payload(number: int) -> bytes:
    return b'{"n": %d}' % number


def _number(row: Any) -> int:
    return row["n"]


class _Trial:
    """One pipeline, one publisher, and what is stored."""

    def __init__(
        self,
        process: _Process,
        publisher: NumberedPublisher,
        stored: _Stored,
        stop_signal: signal.Signals,
        patience: float,
    ) -> None:
        self._process = process
        self._publisher = publisher
        self._stored = stored
        self._stop_signal = stop_signal
        self._patience = patience
        self._torn = 0

    def run(
        self, *, kills: int, rate: float, pause: tuple[float, float], instants: random.Random
    ) -> Outcome:
        began = time.monotonic()
        self._process.start()
        with self._publisher:
            self._grow("after its first start")
            # What came before this row was published when nobody had subscribed yet.
            first = min(self._stored.ours)
            self._publisher.rate = rate
            time.sleep(instants.uniform(*pause))
            for kill in range(1, kills + 1):
                self._end(kill)
                self._process.start()
                if kill % _EARLY or self._stop_signal != signal.SIGKILL:
                    self._grow(f"after kill {kill}")
                time.sleep(instants.uniform(*pause))
            self._publisher.stop()
            expected = {n for n in self._publisher.acknowledged if n >= first}
            self._drain(expected)
        self._process.stop(signal.SIGTERM, self._patience)
        return self._outcome(first, expected, kills, time.monotonic() - began)

    def _end(self, kill: int) -> None:
        if self._stop_signal == signal.SIGKILL:
            self._process.kill()
        else:
            status = self._process.stop(self._stop_signal, self._patience)
            if status != 0:
                name = self._stop_signal.name
                text = f"exit status {status} after {name} {kill}, expected 0"
                raise AssertionError(text)
        if not self._stored.is_whole:
            self._torn += 1

    def _grow(self, when: str) -> None:
        """Wait until more is stored than before, in a file that is whole."""
        before = len(self._stored.ours)
        what = f"nothing was stored within {self._patience:g} s {when}"
        self._wait(what, lambda: len(self._stored.ours) > before)

    def _drain(self, expected: set[int]) -> None:
        """Wait until everything is there, or for so long nothing more has come."""
        with contextlib.suppress(_PatienceError):
            while missing := len(expected - set(self._stored.numbers)):
                self._wait("", lambda n=missing: len(expected - set(self._stored.numbers)) < n)
        time.sleep(_POLL * 10)  # a duplicate may follow

    def _wait(self, what: str, is_so: Callable[[], bool]) -> None:
        """Read what is stored until something is so. A growing file may not be whole at once."""
        deadline = time.monotonic() + self._patience
        while not (self._stored.update() and is_so()):
            self._publisher.check()
            if (status := self._process.status) is not None:
                text = f"the process ended by itself, with exit status {status}"
                raise AssertionError(text)
            if time.monotonic() > deadline:
                why = f"; {self._stored.problem}" if self._stored.problem else ""
                raise _PatienceError(what + why)
            time.sleep(_POLL)

    def _outcome(self, first: int, expected: set[int], kills: int, seconds: float) -> Outcome:
        stored = self._stored
        stored.update_or_fail()
        numbers = stored.numbers
        counts = Counter(numbers)
        latest, disordered = -1, list[int]()
        for number in counts:  # in the order of their first row
            if number < latest:
                disordered.append(number)
            latest = max(latest, number)
        published = range(stored.next_number, stored.next_number + self._publisher.published)
        nobodys = [row for row, n in zip(stored.rows, numbers, strict=True) if n not in published]
        return Outcome(
            published=published.stop - first,
            acknowledged=len(expected),
            stored=len(counts),
            lost=tuple(sorted(expected - set(counts))),
            duplicates=len(numbers) - len(counts),
            unexpected=tuple(nobodys),
            disordered=tuple(disordered),
            kills=kills,
            torn=self._torn,
            seconds=seconds,
        )


class _PatienceError(AssertionError):
    """Something took too long."""


class _Process:
    """The user's pipeline."""

    def __init__(self, command: Command, words: IO[bytes]) -> None:
        self._command = command
        self._words = words
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def status(self) -> int | None:
        """The exit status; None while it runs."""
        return self._process.poll() if self._process else None

    @property
    def last_words(self) -> str:
        """The end of what all its lives wrote to standard output and error."""
        size = self._words.seek(0, os.SEEK_END)
        self._words.seek(max(0, size - _LAST_WORDS))
        return self._words.read().decode(errors="replace")

    def start(self) -> None:
        command = self._command
        if callable(command):
            command = command()
        if isinstance(command, str | os.PathLike):
            command = [sys.executable, os.fspath(command)]
        self._process = subprocess.Popen(  # noqa: S603 (what the user asked for)
            [*command], stdin=subprocess.DEVNULL, stdout=self._words, stderr=self._words
        )

    def kill(self) -> None:
        """SIGKILL, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self, number: signal.Signals, patience: float) -> int:
        """End it with a signal, and return its exit status."""
        if self._process is None:
            return 0
        self._process.send_signal(number)
        try:
            return self._process.wait(patience)
        except subprocess.TimeoutExpired:
            text = f"still running {patience:g} s after {number.name}"
            raise AssertionError(text) from None


class _Stored:
    """The rows that the pipeline has stored since the trial began."""

    def __init__(
        self,
        path: Path,
        number: Callable[[Any], int],
        read: Callable[[], Iterable[Any]] | None,
    ) -> None:
        self.problem = ""
        self.rows: list[Any] = []
        self.numbers: list[int] = []
        self._path = path
        self._number = number
        self._read = read
        self._skipped = 0
        self.next_number = 0
        if read is not None or path.exists():
            self.update_or_fail()
            self.next_number = max([-1, *self.numbers]) + 1
            self._skipped = len(self.rows)
            self.rows, self.numbers = [], []

    @property
    def ours(self) -> list[int]:
        """Numbers of this trial."""
        return [number for number in self.numbers if number >= self.next_number]

    @property
    def is_whole(self) -> bool:
        """True if it can be read just now, as it is."""
        return self.update()

    def update(self) -> bool:
        """Read it; False if it is not whole just now."""
        try:
            rows = list(self._read() if self._read else _strictly(self._path))
        except FileNotFoundError as error:
            self.problem = str(error)
            return False
        except ValueError as error:
            self.problem = f"{self._path} is not valid: {error}"
            return False
        self.problem = ""
        self.rows = rows[self._skipped :]
        self.numbers = [self._number_of(row) for row in self.rows]
        return True

    def update_or_fail(self) -> None:
        """Read it, now that nobody writes; compare what `read_rows` makes of it."""
        if not self.update():
            raise AssertionError(self.problem)
        if self._read is not None or not _is_of_rxflow(self._path):
            return
        try:
            count = sum(1 for _ in read_rows(self._path))
        except SinkError as error:
            raise AssertionError(str(error)) from error
        if count != self._skipped + len(self.rows):
            text = (
                f"read_rows finds {number_of(count, 'row')}, json {self._skipped + len(self.rows)}"
            )
            raise AssertionError(text)

    def _number_of(self, row: Any) -> int:
        try:
            return int(self._number(row))
        except (LookupError, TypeError, ValueError):
            return -1


def _strictly(path: Path) -> list[Any]:
    """The rows of a JSON array, or of JSON lines, as the standard library reads them.

    Raises:
        ValueError: It is not valid, or not to its end.
    """
    text = path.read_bytes()
    if text.startswith(b"[") and (text.startswith(b"[\n") or not text.endswith(b"\n")):
        return json.loads(text)
    if text and not text.endswith(b"\n"):
        raise ValueError("the last line is not whole")
    return [json.loads(line) for line in text.splitlines()]


def _is_of_rxflow(path: Path) -> bool:
    """True of an array as `JsonSink` writes it, and of lines."""
    text = path.read_bytes()
    indented = text.startswith((b"[\n ", b"[\n\t"))
    return text.endswith(b"\n") and not indented
