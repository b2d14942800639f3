import itertools
import json
import os

import pytest

from rxflow.sinks.file import recovery
from rxflow.sinks.file.format import ARRAY, LINES

SECTOR = 512


def opened(content):
    fd = os.memfd_create("state")
    os.pwrite(fd, content, 0)
    return fd


def repaired(content, layout):
    fd = opened(content)
    try:
        repair = recovery.examine(fd, len(content), layout)
    finally:
        os.close(fd)
    if not repair.is_needed:
        return content
    return content[: repair.end] + repair.patch


def rows_of(content, layout):
    if layout is ARRAY:
        return json.loads(content)
    assert not content or content.endswith(b"\n")
    return [json.loads(line) for line in content.splitlines()]


def file_of(commits, layout):
    content = layout.empty
    for rows in commits:
        content = written(content, rows, layout)[0]
    return content


def written(content, rows, layout):
    at = len(content) - len(layout.ending)
    new = layout.joined([json.dumps(r).encode() for r in rows], is_first=at == len(layout.opening))
    return content[:at] + new, at


def over(before, piece, at):
    """`piece` written at an offset; a gap before it reads as zeros."""
    grown = before.ljust(at, b"\0")
    return grown[:at] + piece + grown[at + len(piece) :]


def torn(before, after, at):
    """What may be left of the write that makes `after` of `before`."""
    new = after[at:]
    for length in range(len(new) + 1):
        prefix = over(before, new[:length], at)
        yield prefix
        yield prefix[: len(before)]  # the size not grown
        yield prefix.ljust(len(after), b"\0")  # the size grown, the data not there
    sectors = range(at // SECTOR, -(-len(after) // SECTOR))
    old = before.ljust(len(after), b"\0")
    for there in itertools.product([False, True], repeat=len(sectors)):
        state = bytearray(old)
        for number, is_there in zip(sectors, there, strict=True):
            if is_there:
                part = slice(number * SECTOR, (number + 1) * SECTOR)
                state[part] = after[part]
        yield bytes(state)


ROWS = [
    [{"n": "0"}],
    [1, 22],
    [{"text": "é" * 40, "m": [1, {"a": None}]}, "x", True],
    [{"big": "b" * 700}, {"big": "c" * 900}, 123],
    [12345],
]
FIRST = [[12345], [1], [{"a": "b" * 1300}, 7], ["é" * 20, [], {}], [None]]


def histories():
    for first in FIRST:
        yield [first]
    for count in range(2, len(ROWS) + 1):
        yield ROWS[:count]


def lost_or_wrong(layout, recover):
    """Over all torn states of all histories: how many keep not exactly what they should."""
    wrong = 0
    for *acked, last in histories():
        before = file_of(acked, layout)
        after, at = written(before, last, layout)
        known = [row for rows in acked for row in rows]
        for state in torn(before, after, at):
            kept = rows_of(recover(state, layout), layout)
            wrong += (
                kept[: len(known)] != known or kept[len(known) :] != last[: len(kept) - len(known)]
            )
    return wrong


@pytest.mark.parametrize("layout", [ARRAY, LINES], ids=["array", "lines"])
def test_no_torn_write_loses_a_committed_row_or_leaves_half_a_row(layout):
    assert lost_or_wrong(layout, repaired) == 0


@pytest.mark.parametrize("layout", [ARRAY, LINES], ids=["array", "lines"])
def test_a_repaired_file_needs_no_repair(layout):
    before = file_of(ROWS[:3], layout)
    after, at = written(before, ROWS[3], layout)
    for state in torn(before, after, at):
        once = repaired(state, layout)
        assert repaired(once, layout) == once


def test_with_a_comma_behind_each_row_torn_writes_lose_rows():
    """The negative control: that format must rewrite the end of the last committed row."""
    lost = 0
    before, after = b'[\n{"a":1}\n]\n', b'[\n{"a":1},\n{"b":2}\n]\n'
    for state in torn(before, after, len(b'[\n{"a":1}')):
        line = state.split(b"\n")[1]
        whole = line in {b'{"a":1}', b'{"a":1},'} and state.count(b"\n") > 1
        lost += not whole
    assert lost > 0


@pytest.mark.parametrize("layout", [ARRAY, LINES], ids=["array", "lines"])
def test_without_the_cut_torn_files_are_invalid(layout):
    """The negative control: torn states are not valid by themselves."""
    broken = 0
    before = file_of(ROWS[:2], layout)
    after, at = written(before, ROWS[2], layout)
    for state in torn(before, after, at):
        try:
            rows_of(state, layout)
        except (ValueError, AssertionError):
            broken += 1
    assert broken > 100


@pytest.mark.parametrize("content", [b"", b"[", b"\0\0\0\0", b"[\0\0\0", b"\0" * 4096])
def test_a_file_torn_while_it_was_made_is_made_again(content):
    assert repaired(content, ARRAY) == b"[\n]\n"


@pytest.mark.parametrize(
    "content", [b"[\n", b"[\n]", b"[\n1\n", b"[\n\0\0", b'[\n{"a', b"[\n]\n\0"]
)
def test_a_torn_first_commit_leaves_an_empty_array(content):
    assert repaired(content, ARRAY) == b"[\n]\n"


FOREIGN_ARRAYS = {
    "indented": json.dumps([{"a": 1}, {"a": 2}], indent=2).encode(),
    "tabs": b'[\n\t{"a":1}\n]\n',
    "commas behind": b'[\n{"a":1},\n{"a":2}\n]\n',
    "one line": b'[{"a":1}]',
    "empty": b"[]",
    "empty line": b"[\n\n]\n",
    "spread": b'[\n{"a":\n1}\n]\n',
    "spread, cut": b'[\n{"a":\n1}\n,{"b":',
    "an object": b'{"a":1}\n',
    "text": b"hello\n",
    "text in it": b"[\nhello",
    "binary": b"[\n\x7fELF\x01\x02\0\0\0\x03\0\0",
    "binary start": b"SQLite format 3\0\x10\0\x01",
    "zeros, then more": b"\0" * 4096 + b"x",
    "changed": b'[\n{"a":1}\n, oops\n,{"b":2}\n]\n',
    "a hole with text": b'[\n{"a":\0\0\0"b"}\n]\n',
}


@pytest.mark.parametrize("content", FOREIGN_ARRAYS.values(), ids=FOREIGN_ARRAYS)
def test_what_is_not_our_array_is_foreign(content):
    with pytest.raises(recovery.Foreign):
        repaired(content, ARRAY)


FOREIGN_LINES = {
    "an array": b'[\n{"a":1}\n]\n',
    "indented": b'{\n  "a": 1\n}\n',
    "text": b"hello\nworld\n",
    "text, cut": b"hello",
    "a word": b"nothing",
    "csv": b"1\n2,3\n4,5\n",
    "binary": b"SQLite format 3\0\x10\0\x01",
    "png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    "zeros, then binary": b"\0" * 512 + b"\x01\x02",
    "changed": b'{"a":1}\noops\n{"b":2}\n',
}


@pytest.mark.parametrize("content", FOREIGN_LINES.values(), ids=FOREIGN_LINES)
def test_what_are_not_json_lines_is_foreign(content):
    with pytest.raises(recovery.Foreign):
        repaired(content, LINES)


def test_json_lines_of_a_person_are_kept_as_they_are():
    content = b'{"a": 1}\r\n\n{"b": 2}'
    assert repaired(content, LINES) == content + b"\n"


def test_a_number_without_a_line_break_may_be_half_a_number():
    assert repaired(b"1\n12", LINES) == b"1\n"


@pytest.fixture
def small(monkeypatch):
    """Commits of 256 bytes, so that a small file is larger than what is read of it."""
    monkeypatch.setattr(recovery, "COMMIT_BYTES", 256)
    monkeypatch.setattr(recovery, "_WINDOW", 512)
    monkeypatch.setattr(recovery, "_BLOCK", 64)


@pytest.mark.parametrize("layout", [ARRAY, LINES], ids=["array", "lines"])
@pytest.mark.parametrize("size", [10, 200, 3000])
def test_a_row_larger_than_the_window_is_recovered(small, layout, size):
    before = file_of([[{"n": n, "pad": "p" * 40}] for n in range(60)], layout)
    after, at = written(before, [{"big": "b" * size}], layout)
    known = rows_of(before, layout)
    for state in torn(before, after, at):
        kept = rows_of(repaired(state, layout), layout)
        assert kept[:60] == known


@pytest.mark.parametrize("layout", [ARRAY, LINES], ids=["array", "lines"])
def test_only_the_first_line_and_the_end_of_a_large_file_are_read(small, layout):
    content = bytearray(file_of([[{"n": n, "pad": "p" * 40}] for n in range(60)], layout))
    content[1000:1004] = b"oops"
    assert repaired(bytes(content), layout) == content


@pytest.mark.parametrize("layout", [ARRAY, LINES], ids=["array", "lines"])
def test_a_large_file_with_a_foreign_first_line_is_foreign(small, layout):
    content = file_of([[{"n": n, "pad": "p" * 100}] for n in range(60)], layout)
    content = content.replace(b'{"n": 0', b"oops000", 1)
    with pytest.raises(recovery.Foreign, match="does not begin"):
        repaired(content, layout)


@pytest.mark.parametrize("layout", [ARRAY, LINES], ids=["array", "lines"])
def test_more_than_a_commit_is_never_cut(small, layout):
    content = bytearray(file_of([[{"n": n, "pad": "p" * 40}] for n in range(60)], layout))
    content[-450] = 0
    with pytest.raises(recovery.Foreign, match="more than one commit"):
        repaired(bytes(content), layout)


def test_a_first_row_of_many_blocks_is_read_whole(small):
    content = file_of([[{"n": "x" * 300}], *[[n] for n in range(400)]], ARRAY)
    assert repaired(content, ARRAY) == content
