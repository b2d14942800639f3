import json

import pytest

from rxflow.errors import SinkError
from rxflow.sinks import JsonLinesSink, JsonSink, read_rows

SINKS = pytest.mark.parametrize("sink", [JsonSink, JsonLinesSink])


@SINKS
def test_rows_are_read_back_while_the_sink_is_open(path, sink):
    values = [{"a": "é\n"}, [1], "x", None, 1.5, [[]]]
    with sink(path) as target:
        assert list(read_rows(path)) == []
        for n, value in enumerate(values):
            target.on_next(value)
            assert list(read_rows(path)) == values[: n + 1]


@SINKS
def test_rows_that_come_while_reading_do_not_disturb(path, sink):
    with sink(path) as target:
        for n in range(3):
            target.on_next(n)
        reading = read_rows(path)
        assert next(reading) == 0
        target.on_next(3)
        assert list(reading)[:2] == [1, 2]


@SINKS
def test_of_a_torn_commit_only_whole_rows_are_read(path, sink):
    with sink(path) as target:
        target.on_next({"n": 1})
        target.on_next({"n": 22})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert list(read_rows(path)) in ([], [{"n": 1}], [{"n": 1}, {"n": 22}])
        path.write_bytes(whole[:length].ljust(len(whole), b"\0"))
        assert list(read_rows(path)) in ([], [{"n": 1}], [{"n": 1}, {"n": 22}])


def test_a_last_line_without_a_line_break_is_read_if_it_is_whole(path):
    path.write_bytes(b'{"a": 1}\n\n{"b": 2}')
    assert list(read_rows(path)) == [{"a": 1}, {"b": 2}]
    path.write_bytes(b"1\n12")
    assert list(read_rows(path)) == [1]


@pytest.mark.parametrize(
    "content",
    [
        json.dumps([{"a": 1}], indent=2).encode(),
        b"hello\n",
        b'[\n{"a":1}\noops\n]\n',
        b'{"a":1}\noops\n{"b":1}\n',
        b"\x89PNG\r\n\x1a\n\0\0",
    ],
)
def test_a_foreign_file_is_an_error_and_never_a_short_answer(path, content):
    path.write_bytes(content)
    with pytest.raises(SinkError, match="can't be read"):
        list(read_rows(path))


def test_no_file_and_a_folder_are_errors(path, tmp_path):
    with pytest.raises(SinkError, match="does not exist"):
        list(read_rows(path))
    with pytest.raises(SinkError, match="not a file"):
        list(read_rows(tmp_path))


def test_a_reader_that_stops_early_leaves_nothing_open(path):
    with JsonSink(path) as target:
        target.on_next(1)
        target.on_next(2)
    reading = read_rows(str(path))
    assert next(reading) == 1
    reading.close()
