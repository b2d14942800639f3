import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rxflow.errors import SinkError
from rxflow.sinks.file import folder, store
from rxflow.sinks.file.folder import Place
from rxflow.sinks.file.format import ARRAY, LINES
from rxflow.sinks.file.store import DurableFile

LAYOUTS = pytest.mark.parametrize("layout", [ARRAY, LINES], ids=["array", "lines"])


def made(path, layout=ARRAY, existing="append", mode=None):
    return DurableFile(path, layout, existing, mode)


def opened(path, layout=ARRAY, **settings):
    file = made(path, layout, **settings)
    file.open()
    return file


def rows_of(path, layout=ARRAY):
    if layout is ARRAY:
        return json.loads(path.read_bytes())
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@LAYOUTS
def test_two_commits_and_another_opening_append(path, layout):
    file = opened(path, layout)
    file.commit([b"1", b"2"])
    file.commit([b"3"])
    file.close()
    again = opened(path, layout)
    again.commit([b"4"])
    again.close()
    assert rows_of(path, layout) == [1, 2, 3, 4]
    assert (file.rows, file.commits, again.rows) == (3, 2, 1)


def test_an_array_is_valid_json_after_every_commit(path):
    file = opened(path)
    assert path.read_bytes() == b"[\n]\n"
    file.commit([b'{"a":1}'])
    assert path.read_bytes() == b'[\n{"a":1}\n]\n'
    file.commit([b"2", b"3"])
    assert path.read_bytes() == b'[\n{"a":1}\n,2\n,3\n]\n'
    file.close()
    assert file.bytes == len(path.read_bytes()) - len(b"[\n]\n")


def test_no_rows_are_no_commit(path):
    file = opened(path)
    file.commit([])
    assert file.commits == 0
    file.close()


def test_closing_twice_is_closing_once_and_ends_writing(path):
    file = opened(path)
    file.close()
    file.close()
    with pytest.raises(SinkError, match="closed"):
        file.commit([b"1"])


def test_a_commit_is_in_parts_when_it_is_too_large_for_one(path, monkeypatch):
    monkeypatch.setattr(store, "COMMIT_BYTES", 100)
    file = opened(path)
    file.commit([b"%d" % (10**9 + n) for n in range(50)] + [b'"%s"' % (b"x" * 500)])
    file.close()
    assert file.commits > 5
    assert len(rows_of(path)) == 51


def test_folders_are_made(tmp_path):
    path = tmp_path / "a" / "b" / "rows.json"
    opened(path).close()
    assert path.read_bytes() == b"[\n]\n"


def test_the_mode_is_the_umasks_or_as_asked(tmp_path):
    old = os.umask(0o027)
    try:
        opened(tmp_path / "a").close()
        opened(tmp_path / "b", mode=0o666).close()
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o666


# -- what is refused, untouched --------------------------------------------------------------------


FOREIGN = {
    "indented": json.dumps([{"a": 1}, {"a": 2}], indent=2).encode(),
    "indented object": json.dumps({"a": [1, 2]}, indent=2).encode(),
    "text": b"hello\n",
    "binary": bytes(range(256)) * 10,
}


@LAYOUTS
@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("existing", ["append", "rotate"])
def test_a_foreign_file_is_refused_and_left_as_it_is(path, layout, content, existing):
    path.write_bytes(content)
    with pytest.raises(SinkError, match=r"left as it is.*move it") as caught:
        opened(path, layout, existing=existing)
    assert str(path) in str(caught.value)
    assert caught.value.__cause__ is not None
    assert path.read_bytes() == content
    assert sorted(p.name for p in path.parent.iterdir()) == ["rows.json", "rows.json.lock"]


def test_the_other_format_is_foreign(tmp_path):
    lines, array = tmp_path / "lines", tmp_path / "array"
    for path, layout, other in ((lines, LINES, ARRAY), (array, ARRAY, LINES)):
        file = opened(path, layout)
        file.commit([b'{"a":1}'])
        file.close()
        with pytest.raises(SinkError, match="left as it is"):
            opened(path, other)


def test_a_folder_is_refused(path):
    path.mkdir()
    with pytest.raises(SinkError, match="is a folder"):
        opened(path)


def test_a_symbolic_link_is_refused(path, tmp_path):
    target = tmp_path / "target"
    target.write_bytes(b"[\n]\n")
    path.symlink_to(target)
    with pytest.raises(SinkError, match="symbolic link"):
        opened(path)
    assert target.read_bytes() == b"[\n]\n"


def test_a_fifo_is_refused_without_waiting_for_a_writer(path):
    os.mkfifo(path)
    with pytest.raises(SinkError, match="FIFO"):
        opened(path)


def test_a_device_is_refused():
    with pytest.raises(SinkError, match="device"):
        folder._check(Path("/dev/full"), Path("/dev/full").stat())


def test_a_file_with_a_second_name_is_refused(path, tmp_path):
    path.write_bytes(b"[\n]\n")
    os.link(path, tmp_path / "other")
    with pytest.raises(SinkError, match="2 names"):
        opened(path)


def test_what_is_exchanged_between_look_and_opening_is_refused(path, tmp_path, monkeypatch):
    path.write_bytes(b"[\n]\n")
    real, before = os.stat, path.stat()
    os.link(path, tmp_path / "other")
    monkeypatch.setattr(os, "stat", lambda name, **k: before if "dir_fd" in k else real(name, **k))
    with pytest.raises(SinkError, match="2 names"):
        opened(path)


def test_a_symbolic_link_as_lock_is_refused(path, tmp_path):
    (tmp_path / "rows.json.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SinkError, match=r"rows.json.lock.*symbolic link"):
        opened(path)
    assert not (tmp_path / "elsewhere").exists()


def test_a_fifo_as_lock_is_refused(path, tmp_path):
    os.mkfifo(tmp_path / "rows.json.lock")
    with pytest.raises(SinkError, match="FIFO"):
        opened(path)


def test_a_path_through_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SinkError, match="part of the path is a file"):
        opened(tmp_path / "file" / "rows.json")


def test_existing_refuse_refuses_even_ours(path):
    opened(path, existing="refuse").close()
    with pytest.raises(SinkError, match="is there already"):
        opened(path, existing="refuse")


def test_a_second_writer_is_refused_at_once(path):
    first = opened(path)
    with pytest.raises(SinkError, match="locked") as caught:
        opened(path)
    assert isinstance(caught.value.__cause__, BlockingIOError)
    first.commit([b"1"])
    first.close()
    opened(path).close()


WRITER = """
import sys
from pathlib import Path
from rxflow.sinks.file.store import DurableFile
from rxflow.sinks.file.format import ARRAY, LINES
layout = {"ARRAY": ARRAY, "LINES": LINES}[sys.argv[2]]
file = DurableFile(Path(sys.argv[1]), layout, "append", None)
"""


def started(path, code, layout="ARRAY"):
    command = [sys.executable, "-c", WRITER + code, str(path), layout]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE)


def test_a_writer_in_another_process_is_respected(path):
    with started(path, "file.open(); print('open', flush=True); sys.stdin.read()") as other:
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(SinkError, match="locked"):
            opened(path)
        other.stdin.close()
    opened(path).close()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_writes_nothing_and_keeps_nobody_out(path):
    first = opened(path)
    ready, go_on = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go_on[1])
        try:
            first.commit([b'"of the child"'])
        except SinkError as error:
            os.write(ready[1], b"forked" if "was forked from" in str(error) else b"?")
        os.read(go_on[0], 1)  # until the parent is done, or dead
        os._exit(0)
    os.close(ready[1])
    said = os.read(ready[0], 10)
    first.commit([b"1"])
    first.close()
    second = opened(path)  # while the child is alive
    second.close()
    for descriptor in (ready[0], *go_on):
        os.close(descriptor)
    os.waitpid(child, 0)
    assert said == b"forked"
    assert path.read_bytes() == b"[\n1\n]\n"


def test_a_folder_that_is_read_only_says_so(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(SinkError, match="permissions"):
        opened(tmp_path / "rows.json")
    tmp_path.chmod(0o700)


# -- the disk says no ------------------------------------------------------------------------------


@pytest.fixture
def failing(monkeypatch):
    """Let a function of `os` fail from its n-th call on, with an errno."""

    def fail(name, number, after=0, written=0):
        real, calls = getattr(os, name), [0]

        def call(*arguments):
            calls[0] += 1
            if calls[0] <= after:
                return real(*arguments)
            if calls[0] == after + 1 and written:
                return real(arguments[0], arguments[1][:written], arguments[2])
            if number:
                raise OSError(number, os.strerror(number))
            return real(*arguments)

        monkeypatch.setattr(os, name, call)
        return lambda: monkeypatch.setattr(os, name, real)

    return fail


@LAYOUTS
def test_a_short_write_is_continued(path, layout, failing):
    file = opened(path, layout)
    failing("pwrite", 0, written=3)
    file.commit([b'{"a":1}', b"2"])
    file.close()
    assert rows_of(path, layout) == [{"a": 1}, 2]


@LAYOUTS
def test_efbig_rolls_back_and_the_file_goes_on_when_there_is_room(path, layout):
    code = """
import resource
from rxflow.errors import SinkError
file.open()
file.commit([b"1"])
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    file.commit([b'"' + b"x" * 5000 + b'"'])
except SinkError as error:
    print(type(error.__cause__.errno).__name__, error.__cause__.errno, "limit" in str(error))
print(Path(sys.argv[1]).read_bytes())
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
file.commit([b"2"])
"""
    with started(path, code, "ARRAY" if layout is ARRAY else "LINES") as other:
        said = other.stdout.read().decode().splitlines()
    whole = b"[\n1\n]\n" if layout is ARRAY else b"1\n"
    assert said == [f"int {errno.EFBIG} True", repr(whole)]
    assert rows_of(path, layout) == [1, 2]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@LAYOUTS
def test_a_full_disk_rolls_back_and_the_file_goes_on_when_there_is_room(small_disk, layout):
    path = small_disk / "rows.json"
    file = opened(path, layout)
    file.commit([b"1"])
    before = path.read_bytes()
    with pytest.raises(SinkError, match="free some space") as caught:
        file.commit([b'"%s"' % (b"x" * 1000)] * 100)
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert path.read_bytes() == before
    file.commit([b"2"])
    file.close()
    assert rows_of(path, layout) == [1, 2]


def test_a_full_disk_that_allows_no_roll_back_is_recovered_at_the_next_opening(path, failing):
    file = opened(path)
    file.commit([b"1"])
    restore = failing("pwrite", errno.ENOSPC, written=5)
    with pytest.raises(SinkError, match="No space"):
        file.commit([b'"a row"'])
    restore()
    with pytest.raises(SinkError, match="earlier commit failed"):
        file.commit([b"2"])
    file.close()
    again = opened(path)
    again.close()
    assert rows_of(path) == [1]
    assert again.kept.read_bytes() == b',"a r'


def test_after_a_failed_sync_nothing_is_written_any_more(path, failing):
    file = opened(path)
    restore = failing("fdatasync", errno.EIO)
    with pytest.raises(SinkError, match=r"cannot sync it.*check the disk"):
        file.commit([b"1"])
    restore()
    with pytest.raises(SinkError, match="earlier commit failed"):
        file.commit([b"2"])
    assert (file.rows, file.commits, file.bytes) == (0, 0, 0)
    file.close()


def test_after_a_failed_write_nothing_is_written_any_more(path, failing):
    file = opened(path)
    restore = failing("pwrite", errno.EIO)
    with pytest.raises(SinkError, match="cannot write it"):
        file.commit([b"1"])
    restore()
    with pytest.raises(SinkError, match="earlier commit failed"):
        file.commit([b"2"])
    file.close()


def test_a_file_that_cannot_be_made_whole_is_not_left_behind(path, failing):
    failing("fdatasync", errno.ENOSPC)
    with pytest.raises(SinkError, match=r"cannot make it.*free some space"):
        opened(path)
    assert not path.exists()


def test_a_row_is_synced_before_commit_returns(path, monkeypatch):
    synced = []
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (real(fd), synced.append(path.read_bytes())))
    file = opened(path)
    file.commit([b"1"])
    file.close()
    assert synced == [b"[\n]\n", b"[\n1\n]\n"]


def test_macos_flushes_through_the_cache_of_the_disk(monkeypatch):
    asked = []
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(folder.fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(folder.fcntl, "fcntl", lambda fd, what: asked.append((fd, what)))
    folder.flush(7)
    assert asked == [(7, 51)]


# -- somebody meddles ------------------------------------------------------------------------------


def remove(path):
    path.unlink()


def rename(path):
    path.rename(path.with_name("moved"))


def replace(path):
    path.rename(path.with_name("moved"))
    path.write_bytes(path.with_name("moved").read_bytes())


def truncate(path):
    os.truncate(path, 0)


def append(path):
    path.write_bytes(path.read_bytes() + b"mine")


@pytest.mark.parametrize("meddle", [remove, rename, replace, truncate, append])
def test_a_file_that_is_changed_underneath_stops_the_writer(path, meddle):
    file = opened(path)
    file.commit([b"1"])
    meddle(path)
    left = {p.name: p.read_bytes() for p in path.parent.iterdir()}
    for _ in range(2):
        with pytest.raises(SinkError):
            file.commit([b"2"])
    file.close()
    assert {p.name: p.read_bytes() for p in path.parent.iterdir()} == left


# -- recovery --------------------------------------------------------------------------------------


@LAYOUTS
def test_what_recovery_cuts_is_kept_beside(path, layout):
    file = opened(path, layout, mode=0o600)
    file.commit([b'{"a":1}'])
    file.close()
    torn = path.read_bytes()[: -len(layout.ending) or None] + layout.separator + b'{"b":'
    for number in range(2):
        path.write_bytes(torn)
        file = opened(path, layout)
        file.close()
        assert rows_of(path, layout) == [{"a": 1}]
        assert file.kept.read_bytes() == layout.separator + b'{"b":'
        assert file.kept.stat().st_mode & 0o777 == 0o600
        assert len(list(path.parent.glob("rows.json.torn-*"))) == number + 1


def test_torn_files_are_never_overwritten(tmp_path, monkeypatch):
    spot = Place(tmp_path / "rows.json", None)
    monkeypatch.setattr(folder, "_utc", lambda: "20260101T000000Z")
    names = [spot.keep_torn(b"%d" % n, 0o600).name for n in range(3)]
    spot.close()
    assert names[0] == "rows.json.torn-20260101T000000Z"
    assert names[1:] == [f"{names[0]}-1", f"{names[0]}-2"]


def test_nothing_is_cut_when_it_cannot_be_kept(path, failing):
    torn = b'[\n1\n,{"a'
    path.write_bytes(torn)
    failing("fdatasync", errno.ENOSPC)
    with pytest.raises(SinkError, match="cannot recover it"):
        opened(path)
    assert path.read_bytes() == torn
    assert not list(path.parent.glob("*.torn-*"))


# -- rotation --------------------------------------------------------------------------------------


def test_rotate_keeps_the_old_file_under_the_next_number(path):
    for row in (b"1", b"2", b"3"):
        file = opened(path, existing="rotate", mode=0o640 if row == b"1" else None)
        file.commit([row])
        file.close()
    old = sorted(path.parent.glob("rows-*Z-*.json"), key=lambda p: p.name[-11:])
    assert [p.name[-11:] for p in old] == ["000001.json", "000002.json"]
    assert [rows_of(p) for p in [*old, path]] == [[1], [2], [3]]
    assert path.stat().st_mode & 0o777 == 0o640


def test_rotate_does_not_keep_a_file_without_rows(path):
    for _ in range(2):
        opened(path, existing="rotate").close()
    assert not list(path.parent.glob("rows-*"))


def test_rotate_recovers_what_it_keeps(path):
    path.write_bytes(b'[\n1\n,{"a')
    opened(path, existing="rotate").close()
    (old,) = path.parent.glob("rows-*.json")
    assert rows_of(old) == [1]
    assert rows_of(path) == []


def test_a_commit_that_is_interrupted_is_not_passed_over(path, monkeypatch):
    file = opened(path)

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fdatasync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        file.commit([b"1"])
    with pytest.raises(SinkError, match="earlier commit failed"):
        file.commit([b"2"])
    file.close()
