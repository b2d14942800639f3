"""Reading rows back, also while a sink is writing them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from rxflow import arguments, codec
from rxflow.errors import SinkError
from rxflow.log import escaped
from rxflow.sinks.file.folder import explained
from rxflow.sinks.file.format import ARRAY, LINES, Layout
from rxflow.sinks.file.recovery import Foreign, check_bad_line, examine, whole_row


def read_rows(path: str | os.PathLike[str]) -> Iterator[Any]:
    """The rows of a `JsonSink` or `JsonLinesSink` file, in order; read as they are asked for.

    The file may be growing: rows are whole, and end before a commit that is just being written, or
    that a crash has torn. Integers beyond 64 bits become floats.

    Args:
        path: The file; `~` is the home.

    Raises:
        ConfigError: At call time: the path names no file.
        SinkError: At the first row: there is no such file. On the way: it is not a file of such a
            sink, or damaged.
    """
    return _rows(arguments.file_path("path", path))


def _rows(named: Path) -> Iterator[Any]:
    with explained(named, "read it"), os.fdopen(_opened(named), "rb") as file:
        layout = ARRAY if file.read(len(ARRAY.opening)) == ARRAY.opening else LINES
        first = at = len(layout.opening)
        file.seek(at)
        for line in file:
            is_first = at == first
            row = whole_row(line, layout, is_first=is_first)
            if row is None:
                try:
                    _check_end(file, line, layout, is_first=is_first)
                except Foreign as error:
                    text = f"{escaped(named)} can't be read after byte {at}: {error}"
                    raise SinkError(text) from error
                return
            at += len(line)
            if not layout.is_blank(row):
                yield codec.decode(row)


def _opened(path: Path) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise SinkError(f"{escaped(path)} does not exist: no sink has made it yet") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise SinkError(f"{escaped(path)} is not a file")
    return fd


def _check_end(file: BinaryIO, line: bytes, layout: Layout, *, is_first: bool) -> None:
    """Refuse to stop at a line that neither the ending, nor a commit, nor a crash explains."""
    if line == layout.ending:
        return
    if is_first:
        examine(file.fileno(), os.fstat(file.fileno()).st_size, layout)
    else:
        check_bad_line(line, layout)
