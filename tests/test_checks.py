"""Each wrong argument of sinks, readers, the broker and the kill harness is said at call time."""

from __future__ import annotations

import inspect
import math
from pathlib import Path

import pytest
import reactivex

from rxflow import JsonLinesSink, JsonSink, read_rows
from rxflow.broker import Broker
from rxflow.errors import ConfigError
from rxflow.log import PerSecond
from rxflow.mqtt.forgetting import forget, forget_kept
from rxflow.testing import assert_no_loss

NO_PATH = [None, 7, True, b"rows", "", ".", "..", "/", "rows/", "a\0b", "~nobody-of-this-name/rows"]
NO_TEXT = [None, 7, b"a", ""]
NO_FLAG = [None, 0, 1, "no"]
NO_NUMBER = [None, "1", True, math.nan, math.inf, 0, -1]
NO_FUNCTION = [7, "f", [print]]
NO_OBSERVER = [7, "a", print, JsonSink, reactivex.Observer, object()]

SINK = {
    "path": NO_PATH,
    "existing": [None, True, "overwrite", ["append"]],
    "mode": ["600", True, -1, 0o1000, 0o440, 6.0],
    "rejected": [*NO_OBSERVER, JsonLinesSink("rows.json")],
    "default": NO_FUNCTION,
}
URL, CLIENT = "mqtt://127.0.0.1", "one"
CONNECTING = {
    "url": [None, 7, "", "http://host", b"mqtt://host"],
    "username": [7, b"a"],
    "password": [7, b"a"],
    "version": [None, 5, "4"],
    "keep_alive": [None, "1", True, -1, 65_536],
    "connect_timeout": ["1", True, math.nan, -1],
    "reconnect_timeout": ["1", True, math.nan, -1],
    "answer_timeout": [None, "1", True, math.nan, 0],
    "will": ["a", b"a"],
    "tls": [True, "ca.pem"],
    "ca_file": [7, ""],
    "cert_file": [7, ""],
    "key_file": [7, ""],
    "key_password": [7, b"a"],
    "headers": [7, "a: b"],
}
TABLE = [
    (JsonSink, {"path": "rows.json"}, SINK),
    (JsonLinesSink, {"path": "rows.json"}, SINK),
    (read_rows, {}, {"path": NO_PATH}),
    (
        Broker,
        {},
        {
            "users": [{}, [], "a", 7, {"a": 1}, {1: "a"}, {"a": None}, ("a", "b")],
            "port": [None, True, "1883", 1883.0, -1, 65_536, math.nan],
            "host": [None, 7, "", "0.0.0.0", ["localhost"], b"localhost"],
        },
    ),
    (
        forget,
        {"url": URL, "client_id": CLIENT},
        {
            **CONNECTING,
            "client_id": [None, 7, "", b"a", "a\n", "a" * 65_536],
            "path": NO_PATH[1:],
        },
    ),
    (forget_kept, {"url": URL, "path": Path("rows.json.client")}, {**CONNECTING, "path": NO_PATH}),
    (
        assert_no_loss,
        {"command": "pipeline.py", "path": "rows.json", "url": URL, "topic": "a"},
        {
            "command": [None, 7, "", [], [7], b"a"],
            "path": NO_PATH,
            "url": [*NO_TEXT, "http://host"],
            "topic": [*NO_TEXT, "a/#"],
            "qos": [None, True, 0, 3, "1", 1.0],
            "kills": [None, True, -1, "1", 1.0],
            "seconds_between_kills": [None, 1, (1,), (2, 1), (-1, 1), (0, math.inf), ("0", 1)],
            "stop_signal": [None, "TERM", 0, 1000],
            "rate": NO_NUMBER,
            "seed": ["1", True, 1.5, -1],
            "payload": NO_FUNCTION,
            "number": NO_FUNCTION,
            "read": NO_FUNCTION,
            "exactly_once": NO_FLAG,
            "in_order": NO_FLAG,
            "patience": NO_NUMBER,
            "publisher": [],
        },
    ),
    (PerSecond, {"summary": ""}, {"summary": [None, 7], "level": [None, "LOUD", 7]}),
]


def cases():
    for call, given, wrong in TABLE:
        for name, values in wrong.items():
            for number, value in enumerate(values):
                yield pytest.param(call, given, name, value, id=f"{call.__name__}-{name}-{number}")


@pytest.mark.parametrize(("call", "given", "name", "value"), [*cases()])
def test_a_wrong_argument_is_a_config_error_that_names_it(call, given, name, value):
    with pytest.raises(ConfigError, match=name.replace("client_id", "client.id")):
        call(**(given | {name: value}))


@pytest.mark.parametrize(("call", "given", "wrong"), TABLE, ids=lambda each: "")
def test_every_argument_is_in_the_table(call, given, wrong):
    assert set(inspect.signature(call).parameters) == set(wrong)
    assert set(given) <= set(wrong)


def test_a_setting_of_the_publisher_is_checked_before_anything_is_started():
    with pytest.raises(ConfigError, match="keep_alive"):
        assert_no_loss("pipeline.py", "rows.json", url=URL, topic="a", keep_alive=-1)


@pytest.mark.parametrize("rows", [None, True, 0, -1, 1.5, "10"])
def test_most_queued_is_a_whole_number_from_1_on(rows):
    with pytest.raises(ConfigError, match="max_queued"):
        JsonSink("rows.json").max_queued = rows


def test_the_home_of_a_path_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with JsonSink("~/rows.json") as sink:
        sink.on_next(1)
    assert sink.path == tmp_path / "rows.json"
    assert list(read_rows("~/rows.json")) == [1]


def test_a_folder_of_that_name_is_written_with_a_dot(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with JsonSink("./~/rows.json"):
        assert (tmp_path / "~" / "rows.json").exists()


def test_no_password_is_in_an_error_of_the_broker():
    with pytest.raises(ConfigError) as caught:
        Broker(users={"name": b"c4nary"})
    assert "c4nary" not in str(caught.value)
