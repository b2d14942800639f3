"""Power cuts: a file system in a file, copied in an instant of its writer's life."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from rxflow.sinks.file.format import ARRAY, LINES
from rxflow.sinks.file.store import DurableFile

WRITER = Path(__file__).with_name("file_writer.py")
PATIENCE = 60.0  # of what a machine with much to do may need; nothing passes by being quick


class Kind(NamedTuple):
    """A file system: how to make it, its least size in MiB, how to mount it and its copy."""

    make: tuple[str, ...]
    size: int
    mount: str = "loop"
    mount_copy: str = "loop"


KINDS = {
    "ext4": Kind(("mkfs.ext4", "-q", "-F"), 48),
    "ext4 data=writeback": Kind(
        ("mkfs.ext4", "-q", "-F"), 48, "loop,data=writeback", "loop,data=writeback"
    ),
    "xfs": Kind(("mkfs.xfs", "-q", "-f"), 320, mount_copy="loop,nouuid"),
    "btrfs": Kind(("mkfs.btrfs", "-q", "-f"), 128),  # the copy has its id: Linux 6.7
}


class Disk:
    """A file system in a file, and what a power cut would leave of it.

    Attributes:
        there: Where it is mounted.
        after: Where a copy is mounted meanwhile.
    """

    def __init__(self, folder: Path, kind: Kind) -> None:
        self.there, self.after = folder / "there", folder / "after"
        self._image, self._copy = folder / "disk", folder / "copy"
        self._kind = kind
        for path in (self.there, self.after):
            path.mkdir()
        with self._image.open("wb") as file:
            file.truncate(kind.size * 1024 * 1024)
        call(*kind.make, str(self._image))
        call("mount", "-o", kind.mount, str(self._image), str(self.there))

    def cut(self, process: subprocess.Popen[bytes]) -> bytes:
        """Keep what is on the disk in this instant; return what the process has said by then."""
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        said = process.stdout.read() or b""
        call("cp", "--sparse=always", str(self._image), str(self._copy))
        process.send_signal(signal.SIGCONT)
        return said

    @contextmanager
    def as_it_was(self) -> Iterator[Path]:
        """The disk after that cut."""
        call("mount", "-o", self._kind.mount_copy, str(self._copy), str(self.after))
        try:
            yield self.after
        finally:
            call("umount", str(self.after))

    def close(self) -> None:
        call("umount", str(self.there))


def call(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)


@contextmanager
def mounted(name: str) -> Iterator[Disk]:
    """A disk of this kind; the test is skipped, with the reason, where there can be none."""
    kind = KINDS[name]
    if os.geteuid() != 0 or not shutil.which(kind.make[0]):
        pytest.skip(f"a power cut needs root, loop devices and {kind.make[0]}")
    memory = Path("/dev/shm")  # so that a copy of the image is one of memory
    folder = memory / f"rxflow-{os.getpid()}"
    folder.mkdir()
    try:
        disk = Disk(folder, kind)
    except subprocess.CalledProcessError as error:
        shutil.rmtree(folder)
        pytest.skip(f"no {name} on a loop device here: {error.stderr.decode().strip()}")
    try:
        yield disk
    finally:
        disk.close()
        shutil.rmtree(folder)


def writer(
    path: Path, *control: str, first: int = 0, last: int = 10**9, padding: int = 0, before=()
) -> subprocess.Popen[bytes]:
    """`file_writer.py`, which says each number when its row is on the disk."""
    numbers = map(str, (first, last, padding))
    command = [*before, sys.executable, str(WRITER), str(path), *numbers, *control]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def numbers(path: Path) -> list[int]:
    """Those of the rows in a file, which must be valid."""
    content = path.read_bytes()
    rows = map(json.loads, content.splitlines()) if path.suffix == ".jsonl" else json.loads(content)
    return [row["n"] for row in rows]


def recovered(path: Path) -> list[int]:
    """Those in a file that a sink has opened and left again."""
    layout = LINES if path.suffix == ".jsonl" else ARRAY
    file = DurableFile(path, layout, "append", None)
    file.open()
    file.close()
    return numbers(path)


def found_in(path: Path) -> list[int]:
    """Those in a file and in all that it was rotated to, in order; [] if there is none."""
    folder = path.parent
    rotated = sorted(folder.glob(f"{path.stem}-*{path.suffix}"), key=_sequence)
    last = recovered(path) if path.exists() else []
    return [n for old in rotated for n in numbers(old)] + last


def _sequence(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


def lost_in_cuts(disk: Disk, name: str, cuts: int, *control: str) -> int:
    """How many rows that the writer was sure of are not on the disk after power cuts."""
    lost = 0
    # Short rows: on a quick machine a hundred lives would fill the disk with long ones.
    with writer(disk.there / name, *control, padding=5) as process:
        try:
            os.set_blocking(process.stdout.fileno(), False)
            said = b""
            for _ in range(cuts):
                time.sleep(0.02)  # a moment of its life; no outcome depends on how long it is
                said = said[-1000:] + _line(process)
                said += disk.cut(process)
                acked = int(said[: said.rindex(b"\n")].splitlines()[-1])
                with disk.as_it_was() as folder:
                    there = found_in(folder / name)
                assert there == list(range(len(there)))
                lost += max(0, acked + 1 - len(there))
        finally:
            process.kill()
    return lost


def _line(process: subprocess.Popen[bytes]) -> bytes:
    """What the process says, until that holds a whole line."""
    said, deadline = b"", time.monotonic() + PATIENCE
    while said.count(b"\n") < 2:  # the first may be the end of one
        assert time.monotonic() < deadline
        assert process.poll() is None, said
        said += process.stdout.read() or b""
        time.sleep(0.001)
    return said
