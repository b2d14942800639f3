"""The sinks that users make: `JsonSink` and `JsonLinesSink`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Final, Protocol, get_args

from reactivex import abc

from rxflow import arguments, codec
from rxflow.errors import ConfigError
from rxflow.sinks.contracts import ExactlyOnceStore
from rxflow.sinks.file.format import ARRAY, LINES, Layout
from rxflow.sinks.file.store import DurableFile, Existing
from rxflow.sinks.rows import json_row
from rxflow.sinks.sink import DurableSink

_PERMISSIONS: Final = range(0o1000)
_OWNER: Final = 0o600


class JsonFile(ExactlyOnceStore[bytes], Protocol):
    """A store that is a file: a `DurableFile`, or one on a disk of a marble test."""

    path: Path

    @property
    def bytes(self) -> int:
        """By how many it grew, durably."""
        ...


class FileSink(DurableSink):
    """A sink whose store is a file of JSON rows.

    Args:
        file: The file, not opened.
        rejected: As of `JsonSink`.
        default: As of `JsonSink`.

    Attributes:
        path: The file, as it was given; a `~` was expanded.
    """

    _WHERE = "the disk"
    _CHECK = "check the disk, then start again: opening recovers the file"
    _ADVICE = "map it to a value that JSON has, give default=, or reject it with rejected="

    def __init__(
        self,
        file: JsonFile,
        rejected: abc.ObserverBase[Any] | None = None,
        default: codec.Default | None = None,
    ) -> None:
        super().__init__(file, name=str(file.path), encode=json_row(default), rejected=rejected)
        self.path: Path = file.path

    @property
    def session_path(self) -> Path:
        return self.path

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    @property
    def bytes(self) -> int:
        """Bytes by which the file grew, durably."""
        return self._store.bytes


class JsonSink(FileSink):
    r"""Append each item to a JSON array that is valid JSON after every commit.

    One row a line. A message's row is its payload; bytes that are JSON are stored digit for digit.
    A batch from a buffer is stored as its messages, a message whose payload is a list as one row.
    A message is acknowledged only after its row is on the disk. After a crash the next sink
    recovers the file, and copies what was torn to `<path>.torn-<UTC>`.

    Making a sink does no I/O: the file is opened by `open`, at the first item, or on completion.

    Args:
        path: The file; `~` is the home, missing folders are made. Beside it stays `<path>.lock`.
        existing: What to do with a file of ours that is there: `"append"` to it, `"refuse"` it, or
            `"rotate"` it to `name-<UTC>-<number>.json` and begin a new one.
        mode: Permission bits of a new file, like 0o640; None leaves them to the umask.
        rejected: Gets a record (see `rxflow.rejection`) of each item that JSON can't hold; without
            it such an item fails the sink. It is not completed by this sink.
        default: Asked for what JSON has no form for, as by `json.dumps` and `orjson.dumps`: returns
            what to store instead, or raises TypeError. numpy, Decimal, sets, models of pydantic and
            others need none, see `rxflow.codec.encode`.

    Raises:
        ConfigError: At call time: a setting is wrong, or this is Windows.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        existing: Existing = "append",
        mode: int | None = None,
        rejected: abc.ObserverBase[Any] | None = None,
        default: codec.Default | None = None,
    ) -> None:
        file = _file(ARRAY, path, existing, mode)
        super().__init__(file, _observer(rejected, file), _default(default))


class JsonLinesSink(FileSink):
    """Append each item to a file of JSON lines (NDJSON): each row and a line break.

    Otherwise the same as `JsonSink`, with the same arguments.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        existing: Existing = "append",
        mode: int | None = None,
        rejected: abc.ObserverBase[Any] | None = None,
        default: codec.Default | None = None,
    ) -> None:
        file = _file(LINES, path, existing, mode)
        super().__init__(file, _observer(rejected, file), _default(default))


def _file(
    layout: Layout, path: str | os.PathLike[str], existing: Existing, mode: int | None
) -> DurableFile:
    """The file of these settings, not opened.

    Raises:
        ConfigError: One of them is wrong.
    """
    if sys.platform == "win32":
        raise ConfigError("rxflow's files need Linux or macOS; on Windows, run it under WSL")
    file = arguments.file_path("path", path)
    arguments.one_of("existing", existing, get_args(Existing))
    if mode is not None and (type(mode) is not int or mode not in _PERMISSIONS):
        arguments.refuse("mode", "permission bits, such as 0o640", mode)
    if mode is not None and mode & _OWNER != _OWNER:
        right = "permission bits with which its owner can open it again, such as 0o640"
        raise arguments.wrong("mode", f"be {right}, not 0o{mode:o}")
    return DurableFile(file, layout, existing, mode)


def _observer(
    rejected: abc.ObserverBase[Any] | None, file: DurableFile
) -> abc.ObserverBase[Any] | None:
    arguments.observer("rejected", rejected)
    if getattr(rejected, "path", None) == file.path:
        raise arguments.wrong("rejected", f"have a file of its own, not {str(file.path)!r} too")
    return rejected


def _default(default: codec.Default | None) -> codec.Default | None:
    if default is not None:
        arguments.function("default", default)
    return default
