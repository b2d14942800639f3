"""Commits numbered rows and prints each number when its row is on the disk, or so it says.

python file_writer.py FILE FIRST LAST PADDING [CONTROL]

A control takes a safeguard away: `no-sync`, `trailing-comma`, or `retry` (go on after an error).
`rotate` is none: each ten rows begin a new file.
"""

import os
import sys
from pathlib import Path

from rxflow.errors import SinkError
from rxflow.sinks.file import folder, store
from rxflow.sinks.file.format import ARRAY, LINES
from rxflow.sinks.file.store import DurableFile


class TrailingComma:
    """As tutorials do it: back over the end, a comma, the row, the end again."""

    def __init__(self, path):
        self.path = path

    def open(self):
        if not self.path.exists():
            self.path.write_bytes(b"[]")

    def commit(self, rows):
        with self.path.open("rb+") as file:
            file.seek(-1, os.SEEK_END)
            file.truncate()
            file.write((b"," if file.tell() > 1 else b"") + b",".join(rows))
            file.flush()
            file.write(b"]")
            file.flush()
            os.fsync(file.fileno())


path, numbers = Path(sys.argv[1]), range(int(sys.argv[2]), int(sys.argv[3]))
padding = b"x" * int(sys.argv[4])
control = sys.argv[5] if len(sys.argv) > 5 else ""
layout = LINES if path.suffix == ".jsonl" else ARRAY
file = DurableFile(path, layout, "rotate" if control == "rotate" else "append", None)
if control == "trailing-comma":
    file = TrailingComma(path)
if control == "no-sync":
    folder.flush = store.flush = os.fsync = lambda fd: None


def say(what):
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def write():
    file.open()
    for number in numbers:
        if control == "rotate" and number % 10 == 9:
            file.close()
            file.open()
        try:
            file.commit([b'{"n":%d,"pad":"%s"}' % (number, padding)])
        except SinkError:
            if control != "retry":
                raise
            file._is_sound, file._size = True, os.fstat(file._fd).st_size
        else:
            say(number)


try:
    write()
except SinkError as error:
    say(f"SinkError {error}")
