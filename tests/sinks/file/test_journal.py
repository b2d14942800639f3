import errno
import json
import os

import pytest

from rxflow.errors import SinkError
from rxflow.sinks.contracts import Receipt
from rxflow.sinks.file import journal, store
from rxflow.sinks.file.format import ARRAY, LINES
from rxflow.sinks.file.store import DurableFile

LAYOUTS = pytest.mark.parametrize("layout", [ARRAY, LINES], ids=["array", "lines"])


def opened(path, layout=ARRAY, existing="append"):
    file = DurableFile(path, layout, existing, None)
    file.open()
    return file


def claimed(first, *packet_ids, session="s"):
    """Receipts of one row for each of these ids; the digest is ten times the id."""
    return [Receipt(first + n, session, i, 10 * i) for n, i in enumerate(packet_ids)]


def rows_of(path, layout=ARRAY):
    content = path.read_bytes()
    return json.loads(content) if layout is ARRAY else [json.loads(x) for x in content.splitlines()]


def journal_of(path):
    return path.with_name(f"{path.name}.inflight")


def kept(path, layout=ARRAY, session="s", **settings):
    """What a new process finds committed."""
    file = opened(path, layout, **settings)
    try:
        return file.receipts(session)
    finally:
        file.close()


@LAYOUTS
def test_what_is_committed_and_not_released_is_known_to_the_next_process(path, layout):
    file = opened(path, layout)
    assert file.receipts("s") == {}
    file.commit([b"1", b"2", b"3"], claimed(0, 7, 8, 9))
    file.release("s", [8])
    assert file.receipts("s") == {7: 70, 9: 90}
    file.close()
    assert kept(path, layout) == {7: 70, 9: 90}
    assert kept(path, layout, session="other") == {}


def test_without_a_session_no_journal_is_made(path):
    file = opened(path)
    file.commit([b"1"])
    file.close()
    assert not journal_of(path).exists()


def test_a_released_id_may_be_that_of_another_message(path):
    file = opened(path)
    file.commit([b"1"], claimed(0, 7))
    file.release("s", [7])
    file.commit([b"2"], claimed(0, 8))
    file.commit([b"3"], [Receipt(0, "s", 7, 71)])
    file.close()
    assert kept(path) == {8: 80, 7: 71}


def test_an_id_that_is_in_no_row_can_be_released(path):
    file = opened(path)
    file.receipts("s")
    file.release("s", [5])
    file.release("unknown", [5])
    file.close()
    assert kept(path) == {}


@LAYOUTS
def test_an_id_counts_as_committed_only_if_its_row_is_in_the_file(path, layout):
    """At every byte: of the journal with no row written, of the rows with the journal whole."""
    file = opened(path, layout)
    file.receipts("s")
    file.commit([b'"old"'], claimed(0, 1))
    before, noted = path.read_bytes(), journal_of(path).read_bytes()
    file.commit([b'"a"', b'{"b":1}', b'"c"'], claimed(0, 2, 3, 4))
    after, whole = path.read_bytes(), journal_of(path).read_bytes()
    file.close()
    states = [(before, whole[:n]) for n in range(len(noted), len(whole) + 1)]
    at = len(before) - len(layout.ending)
    states += [(before[:at] + after[at:n], whole) for n in range(at, len(after) + 1)]
    for number, (rows, noted) in enumerate(states):
        place = path.with_name(f"{number}") / path.name
        place.parent.mkdir()
        place.write_bytes(rows)
        journal_of(place).write_bytes(noted)
        committed = kept(place, layout)
        assert rows_of(place, layout)[1:] == ["a", {"b": 1}, "c"][: len(committed) - 1]
        assert list(committed) == [1, 2, 3, 4][: len(committed)]
        assert kept(place, layout) == committed


def test_what_did_not_count_once_never_counts_when_other_rows_stand_there(path):
    file = opened(path)
    file.receipts("s")
    before = path.read_bytes()
    file.commit([b'"a"'], claimed(0, 2))
    file.close()
    path.write_bytes(before)
    again = opened(path)
    again.commit([b'"another, and longer"'])
    again.close()
    assert kept(path) == {}


@pytest.mark.parametrize("name", ["ENOSPC", "EIO"])
def test_rows_that_failed_do_not_count(path, monkeypatch, name):
    file = opened(path)
    file.receipts("s")
    file.commit([b"1"], claimed(0, 1))
    real = os.pwrite

    def pwrite(fd, data, at):
        if data.startswith(b",2"):
            raise OSError(getattr(errno, name), name)
        return real(fd, data, at)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(SinkError):
        file.commit([b"2"], claimed(0, 2))
    if name == "ENOSPC":
        file.commit([b'"much longer than the other"'])
    file.close()
    assert kept(path) == {1: 10}


def test_rows_that_failed_do_not_count_though_releases_came_before(path, monkeypatch):
    file = opened(path)
    file.commit([b"1"], claimed(0, 1))
    file.release("s", [1])
    real = os.pwrite

    def pwrite(fd, data, at):
        if data.startswith(b",2"):
            raise OSError(errno.ENOSPC, "full")
        return real(fd, data, at)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(SinkError):
        file.commit([b"2"], claimed(0, 2))
    file.close()
    assert kept(path) == {}


def test_when_the_journal_cannot_be_written_no_row_is(path, monkeypatch):
    file = opened(path)
    file.receipts("s")
    before = path.read_bytes()

    def fail(fd):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(journal, "flush", fail)
    for claims in (claimed(0, 1), []):
        with pytest.raises(SinkError):
            file.commit([b"1"], claims)
    assert path.read_bytes() == before
    file.close()


def test_a_lost_session_empties_the_journal_of_its_own_ids(path):
    file = opened(path)
    file.commit([b"1", b"2"], claimed(0, 1) + claimed(1, 1, session="t"))
    file.forget("s")
    file.forget("unknown")
    file.commit([b"3"], claimed(0, 6))
    file.close()
    assert kept(path) == {6: 60}
    assert kept(path, session="t") == {1: 10}


def test_a_commit_in_parts_claims_each_row_where_it_ends(path, monkeypatch):
    monkeypatch.setattr(store, "COMMIT_BYTES", 40)
    file = opened(path)
    file.receipts("s")
    file.commit([b"%d" % (10**9 + n) for n in range(20)], claimed(0, *range(1, 21)))
    assert file.commits > 3
    file.close()
    assert list(kept(path)) == list(range(1, 21))
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b",1000000010")])
    assert list(kept(path)) == list(range(1, 21))  # what once counted is not asked again


def test_after_a_rotation_what_is_in_the_old_file_still_counts(path):
    file = opened(path)
    file.receipts("s")
    file.commit([b"1"], claimed(0, 1))
    file.close()
    assert kept(path, existing="rotate") == {1: 10}
    assert kept(path) == {1: 10}


def test_a_file_that_was_taken_away_does_not_have_its_rows(path):
    file = opened(path)
    file.receipts("s")
    file.commit([b"1"], claimed(0, 1))
    file.close()
    path.rename(path.with_name("elsewhere"))
    assert kept(path) == {}


def test_a_long_journal_is_made_anew(path, monkeypatch):
    monkeypatch.setattr(journal, "_LONG", 500)
    file = opened(path)
    file.receipts("s")
    for n in range(100):
        file.commit([b"%d" % n], claimed(0, n + 1))
        file.release("s", [n + 1] if n < 99 else [])
    assert journal_of(path).stat().st_size < 1000
    file.close()
    assert kept(path) == {100: 1000}
    assert not journal_of(path).with_name("rows.json.inflight.new").exists()


@pytest.mark.parametrize("content", [b"", b"hello\n", b"[1]\n", b"00000000 [1]\n"])
def test_a_foreign_journal_is_refused_and_left_as_it_is(path, content):
    journal_of(path).write_bytes(content)
    with pytest.raises(SinkError, match="not a journal"):
        opened(path)
    assert journal_of(path).read_bytes() == content


def test_a_symbolic_link_as_journal_is_refused(path):
    journal_of(path).symlink_to(path.with_name("target"))
    with pytest.raises(SinkError, match="symbolic link"):
        opened(path)


def test_the_journal_has_the_mode_of_the_file(path):
    file = DurableFile(path, ARRAY, "append", 0o600)
    file.open()
    file.receipts("s")
    file.close()
    assert journal_of(path).stat().st_mode & 0o777 == 0o600


def test_what_a_killed_process_wrote_is_synced_before_it_counts(path, monkeypatch):
    file = opened(path)
    file.receipts("s")
    file.commit([b"1"], claimed(0, 1))
    file.close()
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (real(fd), synced.append(os.fstat(fd).st_ino)))
    kept(path)
    assert path.stat().st_ino in synced


def test_a_closed_journal_says_so(path):
    file = opened(path)
    file.close()
    with pytest.raises(SinkError, match="closed"):
        file.receipts("s")


# -- a file that was moved aside -------------------------------------------------------------------


def journalled(path):
    """A sink's file in which the row of one QoS 2 message is, not released; left as by a kill."""
    file = opened(path)
    file.receipts("s")
    file.commit([b"1"], [Receipt(0, "s", 7, 70)])
    file.close()


def known(path, existing):
    file = opened(path, existing=existing)
    ids = file.receipts("s")
    file.close()
    return ids, file.inflight.unknown


def test_what_stands_in_a_file_that_was_refused_is_known_when_it_was_moved(path):
    journalled(path)
    content = path.read_bytes()
    with pytest.raises(SinkError, match="is there already"):
        opened(path, existing="refuse")
    assert path.read_bytes() == content
    path.rename(path.with_name("old.json"))
    assert known(path, "refuse") == ({7: 70}, 0)


def test_a_message_whose_row_was_torn_comes_again_after_a_refusal(path):
    journalled(path)
    path.write_bytes(path.read_bytes()[:3])
    with pytest.raises(SinkError, match="is there already"):
        opened(path, existing="refuse")
    path.unlink()
    assert known(path, "refuse") == ({}, 0)


def test_of_a_file_that_is_gone_it_is_said_how_many_may_come_again(path):
    journalled(path)
    path.rename(path.with_name("old.json"))
    assert known(path, "append") == ({}, 1)
    assert known(path, "append") == ({}, 0)
