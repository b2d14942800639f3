"""The sinks that users make: `JsonSink` and `JsonLinesSink`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Final, get_args

from reactivex import abc

from rxflow.errors import ConfigError
from rxflow.sinks.durable import DurableFile, Existing
from rxflow.sinks.layout import ARRAY, LINES, Layout
from rxflow.sinks.observer import FileSink

_PERMISSIONS: Final = range(0o1000)


class JsonSink(FileSink):
    r"""Append each item to a JSON array that is valid JSON after every commit.

    One row a line. A message's row is its payload; bytes that are JSON are stored digit for digit.
    A batch from a buffer is stored as its messages, a message whose payload is a list as one row.
    A message is acknowledged only after its row is on the disk. After a crash the next sink
    recovers the file, and copies what was torn to `<path>.torn-<UTC>`.

    Making a sink does no I/O: the file is opened by `open`, at the first item, or on completion.

    Args:
        path: The file; missing folders are made. Beside it stays `<path>.lock`.
        existing: What to do with a file of ours that is there: `"append"` to it, `"refuse"` it, or
            `"rotate"` it to `name-<UTC>-<number>.json` and begin a new one.
        mode: Permission bits of a new file, like 0o640; None leaves them to the umask.
        rejected: Gets a record (see `rxflow.rejection`) of each item that JSON can't hold; without
            it such an item fails the sink. It is not completed by this sink.

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
    ) -> None:
        super().__init__(_file(ARRAY, path, existing, mode), _observer(rejected))


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
    ) -> None:
        super().__init__(_file(LINES, path, existing, mode), _observer(rejected))


def _file(
    layout: Layout, path: str | os.PathLike[str], existing: Existing, mode: int | None
) -> DurableFile:
    """The file of these settings, not opened.

    Raises:
        ConfigError: One of them is wrong.
    """
    if sys.platform == "win32":
        raise ConfigError("rxflow's files need Linux or macOS. On Windows, run it under WSL.")
    try:
        text = str(Path(path))
    except TypeError as error:
        raise ConfigError(f"path={path!r} is no path") from error
    if "\0" in text or Path(text).name in {"", ".."}:
        raise ConfigError(f"path={path!r} does not name a file")
    if existing not in get_args(Existing):
        raise ConfigError(f'existing={existing!r}: use "append", "refuse" or "rotate"')
    if mode is not None and (type(mode) is not int or mode not in _PERMISSIONS):
        raise ConfigError(f"mode={mode!r}: use permission bits like 0o640")
    return DurableFile(Path(text), layout, existing, mode)


def _observer(rejected: abc.ObserverBase[Any] | None) -> abc.ObserverBase[Any] | None:
    if rejected is not None and not callable(getattr(rejected, "on_next", None)):
        raise ConfigError(f"rejected={rejected!r} is no observer: use a JsonLinesSink")
    return rejected
