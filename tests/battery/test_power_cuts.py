"""C3: the power is cut; and what a power cut could take away if a step were left out."""

import os
import stat
from functools import partial

import pytest
from battery.power import lost_in_cuts, mounted
from battery.sizes import CUTS, only_in_full

from rxflow.sinks.file import folder
from rxflow.sinks.file.format import ARRAY
from rxflow.sinks.file.store import DurableFile

SUFFIXES = pytest.mark.parametrize("suffix", [".json", ".jsonl"])


@pytest.fixture
def disk():
    with mounted("ext4") as disk:
        yield disk


@SUFFIXES
def test_a_power_cut_loses_no_committed_row(disk, suffix):
    assert lost_in_cuts(disk, f"rows{suffix}", CUTS) == 0


@SUFFIXES
def test_a_power_cut_loses_no_file_of_those_that_were_rotated(disk, suffix):
    assert lost_in_cuts(disk, f"rows{suffix}", CUTS, "rotate") == 0


@only_in_full
def test_on_another_file_system_a_power_cut_loses_no_committed_row():
    with mounted("xfs") as disk:
        assert lost_in_cuts(disk, "rows.json", 20) == 0


class Names:
    """Watches whether the names of a folder are on the disk."""

    def __init__(self, monkeypatch):
        self.pending = set()
        for name in ("open", "rename", "fsync"):
            watched = partial(getattr(self, name), getattr(os, name))
            monkeypatch.setattr(os, name, watched)

    def open(self, real, name, flags, *arguments, **options):
        if flags & os.O_CREAT and not str(name).endswith(".lock"):  # which may come and go
            self.pending.add(name)
        return real(name, flags, *arguments, **options)

    def rename(self, real, old, new, **options):
        self.pending.add(new)
        real(old, new, **options)

    def fsync(self, real, fd):
        real(fd)
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            self.pending.clear()


def names_not_durable(path, names):
    """Names that a cut could take away when the first rows of a file are said to be stored."""
    found = set()
    for _ in range(2):  # the second rotates
        file = DurableFile(path, ARRAY, "rotate", None)
        file.open()
        file.receipts("session")
        file.commit([b"1"])
        found |= names.pending
        file.close()
    return found


def test_a_row_is_stored_when_the_name_of_its_file_is_too(tmp_path, monkeypatch):
    # Most file systems write the names with the file; POSIX does not promise it.
    assert names_not_durable(tmp_path / "rows.json", Names(monkeypatch)) == set()


def test_without_the_sync_of_the_folder_names_are_not_durable(tmp_path, monkeypatch):
    monkeypatch.setattr(folder.Place, "flush_folder", lambda _: None)
    assert "rows.json" in names_not_durable(tmp_path / "rows.json", Names(monkeypatch))


def test_without_the_sync_a_power_cut_loses_rows(disk):
    assert lost_in_cuts(disk, "rows.json", 3, "no-sync") > 0
