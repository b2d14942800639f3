"""C1, C2, C4, C17: what crashes, disks and people do to a file, and the controls.

Each test that nothing is lost stands beside one that takes the safeguard away and finds a loss.
"""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from battery.power import call, numbers, recovered, writer
from battery.sizes import FULL, PATIENCE, only_in_full
from sinks.file import test_recovery as test_tear

from rxflow.errors import SinkError
from rxflow.sinks.file import folder
from rxflow.sinks.file.format import ARRAY, LINES
from rxflow.sinks.file.store import DurableFile

CRASHES = Path(__file__).with_name("file_crashes.py")
PAIRS = 4_000 if FULL else 12
KILLS = 200 if FULL else 10
CUTS = 100 if FULL else 3
FAILING_CALLS = range(1, 11 if FULL else 4)
HISTORY = 24 if FULL else 8
SUFFIXES = pytest.mark.parametrize("suffix", [".json", ".jsonl"])


# -- C1: torn writes -------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [ARRAY, LINES], ids=["array", "lines"])
def test_of_a_long_history_no_torn_write_loses_a_row(layout, monkeypatch):
    commits = [[{"n": n, "pad": "p" * (n * 37 % 900)}, n] for n in range(HISTORY)]
    histories = [commits[: n + 1] for n in range(HISTORY)]
    monkeypatch.setattr(test_tear, "histories", lambda: histories)
    assert test_tear.lost_or_wrong(layout, test_tear.repaired) == 0


# The controls, a trailing comma and no cut, are in tests/sinks/file/test_recovery.py.


# -- C2: kill -9 -----------------------------------------------------------------------------------


def killed(path, kills, recover, *control, large=60_000):
    """Kill a writer many times; how often the file was broken, and which rows it lost."""
    broken, lost, known = 0, set(), []
    for kill in range(kills):
        first = known[-1] + 1 if known else 0
        padding = large + kill * 1_000 if kill % 2 else 0
        with writer(path, *control, first=first, padding=padding) as process:
            acked = [int(process.stdout.readline()) for _ in range(2 + kill % 5)]
            process.send_signal(signal.SIGKILL)
            acked += [int(line) for line in process.stdout if line.endswith(b"\n")]
        known += acked
        try:
            found = recover(path)
        except ValueError:
            broken += 1
            return broken, set(known)
        lost |= set(known) - set(found)
        assert found == list(range(len(found)))
        known = found
    return broken, lost


@SUFFIXES
def test_kill_9_loses_no_committed_row(tmp_path, suffix):
    assert killed(tmp_path / f"rows{suffix}", KILLS, recovered) == (0, set())


@only_in_full
def test_a_file_that_is_truncated_before_each_row_is_broken_by_a_kill(tmp_path):
    for attempt in range(10 * KILLS):
        path = tmp_path / f"{attempt}.json"
        broken, lost = killed(path, KILLS, numbers, "trailing-comma", large=5_000_000)
        if broken or lost:
            return
    pytest.fail("no kill broke it")


def crashes(folder, *control):
    """What `file_crashes.py` counts."""
    command = [sys.executable, str(CRASHES), str(folder), str(PAIRS), *control]
    environment = {**os.environ, "PYTHONPATH": str(CRASHES.parents[1])}
    run = subprocess.run(
        command, stdout=subprocess.PIPE, check=True, env=environment, timeout=PATIENCE * 20
    )
    return json.loads(run.stdout)


def test_a_crash_between_two_steps_of_making_recovering_or_rotating_loses_no_row(tmp_path):
    outcome = crashes(tmp_path)
    sys.stdout.write(f"{outcome}\n")
    assert outcome["trials"] > 200
    assert outcome["wrong"] == []


@only_in_full
def test_when_it_is_rotated_by_copying_a_crash_leaves_rows_twice(tmp_path):
    assert crashes(tmp_path, "copytruncate")["wrong"] != []


# -- C4: the disk says no --------------------------------------------------------------------------
# No space (tmpfs) and too large (RLIMIT_FSIZE) are in tests/sinks/file/test_store.py.


def failing(path, call_name, number, *control):
    """What a writer says whose n-th call of this kind fails with EIO, and the next are fine."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed (Debian: apt-get install strace)")
    inject = f"inject={call_name}:error=EIO:when={number}"
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call_name}", "-e", inject]
    with writer(path, *control, last=20, before=strace) as process:
        return process.stdout.read().decode().splitlines()


@pytest.mark.parametrize("number", FAILING_CALLS)
@pytest.mark.parametrize("call_name", ["fdatasync", "pwrite64"])
def test_after_an_error_of_the_disk_nothing_more_is_said_to_be_stored(tmp_path, call_name, number):
    path = tmp_path / "rows.json"
    *acked, error = failing(path, call_name, number)
    assert error.startswith("SinkError")
    assert "Input/output error" in error
    assert acked == [str(n) for n in range(number - 2 + (number == 1))]  # the first made the file
    if number > 1:
        assert set(map(int, acked)) <= set(recovered(path))


def test_a_writer_that_goes_on_after_a_failed_sync_is_told_that_all_is_well(tmp_path):
    said = failing(tmp_path / "rows.json", "fdatasync", 3, "retry")
    assert said[:2] == ["0", "2"]  # row 1 failed, and the next sync says nothing of it


def test_a_file_system_that_is_read_only_says_so(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting needs root")
    try:
        call("mount", "-o", "remount,ro", str(folder))
        with pytest.raises(SinkError, match="can be written") as caught:
            DurableFile(folder / "rows.json", ARRAY, "append", None).open()
        assert caught.value.__cause__.errno == errno.EROFS
    finally:
        call("umount", str(folder))


def test_a_folder_that_may_not_be_written_says_so(tmp_path):
    tmp_path.chmod(0o555)
    child = os.fork()
    if child == 0:
        if os.geteuid() == 0:
            os.setresuid(65_534, 65_534, 65_534)
        try:
            DurableFile(tmp_path / "rows.json", ARRAY, "append", None).open()
        except SinkError as error:
            os._exit(0 if "check the permissions" in str(error) else 2)
        os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    tmp_path.chmod(0o755)


# -- C17: somebody meddles -------------------------------------------------------------------------
# A second writer, rm, mv, truncate, symbolic links, FIFOs and foreign content are in
# tests/sinks/file/test_store.py; these are the controls.


@pytest.fixture
def careless(tmp_path, monkeypatch):
    """A file with a row, open, whose writer does not look whether it is still there."""
    monkeypatch.setattr(folder.Place, "is_still", lambda *_: True)
    file = DurableFile(tmp_path / "rows.json", ARRAY, "append", None)
    file.open()
    file.commit([b'{"n":0}'])
    yield file
    file.close()


def test_without_the_look_rows_vanish_with_a_removed_file(careless):
    careless.path.unlink()
    careless.commit([b'{"n":1}'])
    assert careless.rows == 2
    assert not careless.path.exists()


def test_without_the_look_copytruncate_leaves_a_hole(careless):
    os.truncate(careless.path, 0)
    careless.commit([b'{"n":1}'])
    assert careless.path.read_bytes().startswith(b"\0")


def test_when_the_lock_is_lost_the_writer_stops(tmp_path):
    file = DurableFile(tmp_path / "rows.json", ARRAY, "append", None)
    file.open()
    file.commit([b"1"])
    (tmp_path / "rows.json.lock").unlink()
    for _ in range(2):
        with pytest.raises(SinkError, match=r"lock was lost|earlier commit"):
            file.commit([b"2"])
    file.close()
    assert file.path.read_bytes() == b"[\n1\n]\n"


def test_without_the_look_at_the_lock_two_write_one_file(tmp_path, monkeypatch):
    monkeypatch.setattr(folder.Place, "is_locked", lambda _: True)
    first = DurableFile(tmp_path / "rows.json", ARRAY, "append", None)
    first.open()
    (tmp_path / "rows.json.lock").unlink()
    second = DurableFile(tmp_path / "rows.json", ARRAY, "append", None)
    second.open()
    first.commit([b"1"])
    second._size = first._size
    second.commit([b"2"])
    first.close()
    second.close()
    assert json.loads(first.path.read_bytes()) == [2]
