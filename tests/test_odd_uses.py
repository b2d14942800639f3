"""A hundred wrong or odd uses, and what must come of each: an error, or an outcome, that helps.

Nothing hangs, nothing ends well with nothing done, nothing is acknowledged and lost. A row is what
is done and what must come. Composing rows need no more than a call; the others run.
"""

# ruff: noqa: PLW0108 (what a row calls stands below it)

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from queue import Empty, Queue
from typing import Any, NamedTuple

import pytest
import reactivex
from reactivex.scheduler import NewThreadScheduler
from reactivex.subject import Subject

import rxflow
from rxflow import (
    ConfigError,
    ConnectError,
    DecodeError,
    Flow,
    JsonSink,
    Message,
    MqttSink,
    SinkError,
    Will,
    from_mqtt,
    read_rows,
    run,
    run_async,
)
from rxflow import operators as ops
from rxflow.broker import Broker

HANGS = 60  # seconds in which nothing came: a hang, on however busy a machine
NEVER = Flow(reactivex.never(), label="never")
HOST = "mqtt://h"


async def later(*_):
    """A coroutine function where a function is expected."""


def many(*_):
    """A generator function where a function is expected."""
    yield


def boom(*_):
    raise OSError("boom")


# -- while composing -------------------------------------------------------------------------------

COMPOSING: dict[str, tuple[Callable[[], object], str]] = {
    # Pipelines.
    "an operator without ()": (lambda: NEVER.pipe(ops.share), r"ops\.share\("),
    "map itself": (lambda: NEVER.pipe(ops.map), r"ops\.map\("),
    "an operator of reactivex without ()": (
        lambda: NEVER.pipe(reactivex.operators.map),
        r"ops\.map\(",
    ),
    "start_with itself": (lambda: NEVER.pipe(ops.start_with), r"ops\.start_with\("),
    "an operator without () on a plain observable": (
        lambda: reactivex.never().pipe(ops.count),
        r"ops\.count\(",
    ),
    "a sink as an operator": (lambda: NEVER.pipe(JsonSink("a")), r"run\(observable, sink\)"),
    "a sink class as an operator": (lambda: NEVER.pipe(JsonSink), r"run\(observable, sink\)"),
    "None as an operator": (lambda: NEVER.pipe(None), "functions.*None"),
    "a list of operators": (lambda: NEVER.pipe([ops.share()]), "functions.*list|functions.*share"),
    "an observable as an operator": (lambda: NEVER.pipe(NEVER), "functions"),
    "an operator after partition": (
        lambda: NEVER.pipe(ops.partition(bool), ops.map(len)),
        "must each follow an Observable.*list",
    ),
    "a value as a mapper": (lambda: ops.map(5), "mapper must be a function, not 5"),
    "None as a predicate": (lambda: ops.filter(None), "predicate must be a function, not None"),
    "async def in map": (lambda: ops.map(later), "coroutine function.*ensure_future"),
    "async def in filter": (lambda: ops.filter(later), "coroutine function"),
    "async def in flat_map": (lambda: ops.flat_map(later), "coroutine function.*ensure_future"),
    "async def in do_action": (lambda: ops.do_action(later), "coroutine function"),
    "async def in finally_action": (lambda: ops.finally_action(later), "coroutine function"),
    "async def in scan": (lambda: ops.scan(later, 0), "coroutine function"),
    "async def in on_connect": (
        lambda: from_mqtt(HOST, "a", on_connect=later),
        "on_connect.*coroutine function",
    ),
    "async def as a topic": (lambda: MqttSink(HOST, topic=later), "topic.*coroutine function"),
    "async def in subscribe": (lambda: NEVER.subscribe(later), "on_next.*coroutine function"),
    "a generator function in map": (lambda: ops.map(many), "generator function.*flat_map"),
    "a generator function in filter": (lambda: ops.filter(many), "generator function"),
    "a sink class in subscribe": (lambda: NEVER.subscribe(JsonSink), r"make one, JsonSink\("),
    "a sink class as rejected": (lambda: ops.map(len, rejected=JsonSink), r"make one, JsonSink\("),
    "a path as rejected": (lambda: ops.decode_json(rejected="bad.json"), "JsonLinesSink"),
    "a loop as a scheduler": (lambda: ops.delay(1, scheduler=asyncio), "scheduler must be"),
    "a count as text": (lambda: ops.take("3"), "count must be a whole number.*'3'"),
    "a count of a division": (lambda: ops.buffer_with_count(10 / 5), "whole number.*2.0"),
    "a time as text": (lambda: ops.debounce("1s"), "seconds.*'1s'"),
    "a time of nothing": (lambda: ops.buffer_with_time(0), "more than 0"),
    "a list of observables": (lambda: rxflow.merge([NEVER, NEVER]), r"merge\(\)"),
    # Runs.
    "run without a sink": (lambda: run(NEVER), "an observable and a sink"),
    "run of nothing": (run, "an observable and a sink"),
    "run with a path": (lambda: run(NEVER, "rows.json"), "no sink is 'rows.json'"),
    "run with print": (lambda: run(NEVER, print), "no sink is"),
    "run with a sink class": (lambda: run(NEVER, JsonSink), "make one"),
    "run the wrong way round": (lambda: run(JsonSink("a"), NEVER), "no Observable is"),
    "run with a list of pairs": (lambda: run([(NEVER, JsonSink("a"))]), "an observable and a sink"),
    "seconds=0": (lambda: run(NEVER, JsonSink("a"), seconds=0), "seconds must be.*0"),
    "seconds as text": (lambda: run(NEVER, JsonSink("a"), seconds="8"), "seconds must be.*'8'"),
    "seconds as a timedelta": (
        lambda: run(NEVER, JsonSink("a"), seconds=timedelta(seconds=8)),
        "seconds must be a number.*timedelta",
    ),
    "drain_timeout=None": (
        lambda: run(NEVER, JsonSink("a"), drain_timeout=None),
        "drain_timeout must be.*None",
    ),
    "log='DEBUG'": (lambda: run(NEVER, JsonSink("a"), log="DEBUG"), "log must be True or False"),
    # Where the broker is.
    "a host without a scheme": (lambda: from_mqtt("localhost", "a"), "scheme://host"),
    "a host and port without a scheme": (lambda: from_mqtt("localhost:1883", "a"), "scheme://host"),
    "http://": (lambda: from_mqtt("http://h", "a"), "http.*mqtt"),
    "tcp://, as paho writes it elsewhere": (lambda: from_mqtt("tcp://h", "a"), "tcp.*mqtt"),
    "one slash": (lambda: from_mqtt("mqtt:/h", "a"), "scheme://host"),
    "a topic in the URL": (lambda: from_mqtt("mqtt://h/a", "a"), "topics are arguments"),
    "an IPv6 address without brackets": (lambda: from_mqtt("mqtt://::1", "a"), "brackets"),
    "a port of letters": (lambda: from_mqtt("mqtt://h:mqtt", "a"), "'mqtt' is not a port"),
    "a password with a slash": (lambda: from_mqtt("mqtt://u:a/b@h", "a"), "%2F"),
    "a broker as a URL": (lambda: from_mqtt(5, "a"), "url must be a str, not int"),
    "a password without a user": (lambda: from_mqtt(HOST, "a", password="p"), "username"),
    "a port as an argument": (lambda: from_mqtt("h", 1883), "scheme://host"),
    # Topics.
    "no topic": (lambda: from_mqtt(HOST), "topics must be one"),
    "a list of topics": (lambda: from_mqtt(HOST, ["a", "b"]), "an argument of its own"),
    "an empty topic": (lambda: from_mqtt(HOST, ""), "empty"),
    "/#/": (lambda: from_mqtt(HOST, "/#/"), "last"),
    "sport+": (lambda: from_mqtt(HOST, "sport+"), "alone in their level"),
    "sport#": (lambda: from_mqtt(HOST, "sport#"), "alone in their level"),
    "a shared subscription without a group": (lambda: from_mqtt(HOST, "$share//a"), "a group"),
    "a shared subscription without a filter": (lambda: from_mqtt(HOST, "$share/g"), "topic filter"),
    "qos as text": (lambda: from_mqtt(HOST, "a", qos="1"), "qos must be 0, 1 or 2, not '1'"),
    "qos=True": (lambda: from_mqtt(HOST, "a", qos=True), "qos must be 0, 1 or 2, not True"),
    "a topic as bytes": (lambda: from_mqtt(HOST, b"a"), "topics must be"),
    "half a surrogate pair in a topic": (lambda: from_mqtt(HOST, "\ud800"), "surrogate"),
    # Publishing.
    "a wildcard to publish to": (lambda: MqttSink(HOST, topic="a/#"), "wildcard"),
    "retain='no'": (lambda: MqttSink(HOST, topic="a", retain="no"), "retain must be True or False"),
    "a will as a dict": (
        lambda: MqttSink(HOST, topic="a", will={"topic": "a"}),
        "will must be a Will",
    ),
    "a will of text": (
        lambda: from_mqtt(HOST, "a", will=Will("a", "bye")),
        "payload must be bytes",
    ),
    # Files.
    "no path": (lambda: JsonSink(""), "path must be"),
    "a folder's path": (lambda: JsonSink("rows/"), "path must be"),
    "a path of bytes": (lambda: JsonSink(b"rows.json"), "path must be"),
    "an open file": (lambda: JsonSink(sys.stdout), "path must be"),
    "existing='overwrite'": (lambda: JsonSink("a", existing="overwrite"), "'append'.*'rotate'"),
    "a mode as text": (lambda: JsonSink("a", mode="640"), "0o640"),
    # The embedded broker.
    "a broker for everybody": (lambda: Broker(host="0.0.0.0"), "this machine"),
    "a broker's port as text": (lambda: Broker(port="1883"), "port must be a whole number"),
    "the URL of a broker that was not entered": (lambda: Broker().url, "enter it first"),
}


@pytest.mark.parametrize("name", COMPOSING)
def test_while_composing_a_wrong_use_is_refused(name, tmp_path, monkeypatch):
    do, text = COMPOSING[name]
    monkeypatch.chdir(tmp_path)
    threads = threading.active_count()
    with pytest.raises(ConfigError, match=text):
        do()
    assert not list(tmp_path.iterdir())
    assert threading.active_count() == threads


def test_positional_settings_of_decode_json_name_the_operator():
    with pytest.raises(TypeError, match=r"decode_json\(\)"):
        ops.decode_json(JsonSink("a"))


RIGHT_AFTER_ALL: dict[str, Callable[[], object]] = {
    "pipe of nothing": lambda: NEVER.pipe(),
    "a leading slash": lambda: from_mqtt(HOST, "/a"),
    "an empty level": lambda: from_mqtt(HOST, "a//b"),
    "$SYS and #": lambda: from_mqtt(HOST, "$SYS/#", "#"),
    "an IPv6 address": lambda: from_mqtt("mqtt://[::1]:1883", "a"),
    "a percent-encoded password": lambda: from_mqtt("mqtt://u:p%2Fq%40@h", "a"),
    "an @ in a password": lambda: from_mqtt("mqtt://u:p@q@h", "a"),
    "a scheme in capitals": lambda: from_mqtt("MQTT://H", "a"),
    "a final dot": lambda: from_mqtt("mqtt://h.", "a"),
    "a str subclass": lambda: from_mqtt(type("Url", (str,), {})(HOST), "a"),
    "a class as a mapper": lambda: ops.map(str),
    "a builtin as a mapper": lambda: ops.map(len),
    "a timedelta in an operator": lambda: ops.delay(timedelta(seconds=1)),
    "a Path": lambda: JsonSink(Path("rows.json")),
}


@pytest.mark.parametrize("name", RIGHT_AFTER_ALL)
def test_what_only_looks_wrong_is_taken(name):
    assert RIGHT_AFTER_ALL[name]() is not None


# -- what runs -------------------------------------------------------------------------------------


class Kit:
    """What a use needs: a folder, files, brokers."""

    def __init__(self, request: pytest.FixtureRequest, folder: Path) -> None:
        self._request = request
        self.folder = folder
        self.path = folder / "rows.json"
        self.closing = contextlib.ExitStack()

    @property
    def url(self) -> str:
        return self._request.getfixturevalue("mqtt_broker").url.replace(
            "//", "//wiredflow:wiredflow@"
        )

    @property
    def tls(self) -> Any:
        return self._request.getfixturevalue("mosquitto_tls")

    @property
    def marbles(self) -> Any:
        return self._request.getfixturevalue("marbles")

    def coroutine(self, *_: object) -> Any:
        made = later()
        self.closing.callback(made.close)
        return made

    def store(self, *items: Any, by: Any = None, path: Path | None = None) -> list[Any]:
        """Store items, through operators; what is in the file then."""
        sink = JsonSink(path or self.path)
        quiet(reactivex.of(*items).pipe(*(by or ())), sink)
        return list(read_rows(sink.path))

    def in_virtual_time(
        self, *operators: Any, text: str = "t q1 : -a-b---"
    ) -> tuple[Any, Any, Any]:
        """Run a pipeline from a broker to a file: the report, the broker, and what is stored."""
        broker = self.marbles.mqtt("t q1 : -a-b---")
        sink = self.marbles.sink()
        flow = broker.from_mqtt("t").pipe(ops.decode_json(), *operators)
        report = self.marbles.run(run_async(flow, sink, seconds=8, log=False))
        return report, broker, sink.stored

    def listening(self, answer: bytes) -> str:
        """The address of a server that gives each client this answer, and closes."""
        listener = socket.create_server(("127.0.0.1", 0))

        def serve() -> None:
            with contextlib.suppress(OSError):
                for _ in range(10):
                    connection, _ = listener.accept()
                    with connection:
                        connection.settimeout(5)
                        with contextlib.suppress(OSError):
                            connection.recv(1000)
                            connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()

        def close() -> None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            thread.join()

        self.closing.callback(close)
        return f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def kit(request, tmp_path, monkeypatch) -> Iterator[Kit]:
    monkeypatch.chdir(tmp_path)
    made = Kit(request, tmp_path)

    def hangs(*_: object) -> None:
        raise AssertionError(f"nothing came within {HANGS} seconds")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(HANGS)
    with made.closing:
        yield made
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def quiet(*pipelines: Any, **settings: Any) -> Any:
    return run(*pipelines, **{"log": False, "seconds": 20, **settings})


def script(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A program of a user's."""
    command = [sys.executable, "-W", "default", "-c", text]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=HANGS, check=False
    )


# Errors: what is done, the error, and what it says.
FAILING: dict[str, tuple[Callable[[Kit], object], type[BaseException], str]] = {
    # What functions of the user's do.
    "a mapper with two parameters": (
        lambda kit: kit.store(1, by=[ops.map(lambda a, b: a)]),
        TypeError,
        "missing 1 required positional argument",
    ),
    "a mapper that returns a coroutine": (
        lambda kit: kit.store(1, by=[ops.map(kit.coroutine)]),
        SinkError,
        "coroutine",
    ),
    "a flat_map that returns a coroutine": (
        lambda kit: kit.store(1, by=[ops.flat_map(lambda _: later())]),
        TypeError,
        "ensure_future|coroutine",
    ),
    "a flat_map that returns a number": (
        lambda kit: kit.store(1, by=[ops.flat_map(lambda _: 5)]),
        TypeError,
        "int|iterable|stream",
    ),
    "a mapper that raises": (
        lambda kit: kit.store(1, by=[ops.map(boom)]),
        OSError,
        "boom",
    ),
    "a mapper that raises StopIteration": (
        lambda kit: kit.store(1, by=[ops.map(lambda _: next(iter(())))]),
        rxflow.RxflowError,
        "raised StopIteration",
    ),
    "sys.exit in a mapper": (
        lambda kit: kit.store(1, by=[ops.map(lambda _: sys.exit(3))]),
        SystemExit,
        "3",
    ),
    "KeyboardInterrupt in a mapper": (
        lambda kit: kit.store(1, by=[ops.map(interrupted)]),
        KeyboardInterrupt,
        "",
    ),
    "a cancelled future": (
        lambda kit: kit.store(1, by=[ops.flat_map(lambda _: cancelled())]),
        rxflow.RxflowError,
        "cancelled",
    ),
    "an error that can't be printed": (
        lambda kit: kit.store(1, by=[ops.map(unspeakable)]),
        RuntimeError,
        "",
    ),
    # What JSON doesn't hold.
    "bytes that are no JSON": (lambda kit: kit.store(b"\xff\x00"), SinkError, "JSON"),
    "a lone surrogate": (lambda kit: kit.store("\ud800"), SinkError, "surrogate|UTF-8|utf-8"),
    "a complex number": (lambda kit: kit.store(1j), SinkError, "complex.*rejected="),
    "an error as a value": (lambda kit: kit.store(OSError("x")), SinkError, "OSError.*map it"),
    "asyncio.run in a mapper": (
        lambda kit: kit.store(1, by=[ops.map(nested)]),
        RuntimeError,
        "running event loop",
    ),
    "a full disk": (lambda kit: on_a_disk(kit, "xxxxxxxx"), SinkError, "space"),
    "a queue that is full": (
        lambda kit: kit.store(1, by=[ops.map(lambda _: Queue(0).get_nowait())]),
        Empty,
        "",
    ),
    "an object": (lambda kit: kit.store(object()), SinkError, "object"),
    "a function": (lambda kit: kit.store(len), SinkError, "builtin|function"),
    "a generator": (lambda kit: kit.store(many()), SinkError, "generator"),
    "a list that holds itself": (lambda kit: kit.store(circular()), SinkError, "JSON|recursion"),
    "a payload that is no JSON": (
        lambda kit: kit.in_virtual_time(ops.map(lambda m: m.with_payload(b"{")), ops.decode_json()),
        DecodeError,
        "topic t",
    ),
    # Runs and loops.
    "run within a coroutine": (
        lambda kit: asyncio.run(within_coroutine(kit)),
        ConfigError,
        "await run_async",
    ),
    "run within a run": (
        lambda kit: kit.store(1, by=[ops.map(lambda _: kit.store(2))]),
        ConfigError,
        "await run_async",
    ),
    "a sink that was closed": (
        lambda kit: [quiet(reactivex.of(1), sink) for sink in [JsonSink(kit.path)] * 2],
        SinkError,
        "is closed; make a new sink|closed",
    ),
    "one sink for two pipelines": (
        lambda kit: quiet(*[(reactivex.of(1), JsonSink(kit.path))] * 2),
        ConfigError,
        "merge",
    ),
    "two sinks of one file": (
        lambda kit: quiet(*[(reactivex.of(1), JsonSink(kit.path)) for _ in range(2)]),
        SinkError,
        "lock|another sink",
    ),
    "two runs in one loop with one file": (
        lambda kit: asyncio.run(twice_at_once(kit)),
        SinkError,
        "lock|another sink",
    ),
    "one source for two pipelines": (
        lambda kit: quiet(*both_of(from_mqtt(nowhere(), "a"), kit)),
        ConfigError,
        r"share\(\)",
    ),
    "an error on another thread": (
        lambda kit: quiet(reactivex.create(fail_elsewhere), JsonSink(kit.path), seconds=None),
        OSError,
        "gone",
    ),
    # Files.
    "a folder where the file should be": (
        lambda kit: kit.store(1, path=kit.folder),
        SinkError,
        "directory|folder|not a file",
    ),
    "a file where a folder should be": (
        lambda kit: kit.store(1, path=filled(kit.folder / "x", "[]") / "rows.json"),
        SinkError,
        "x",
    ),
    "a symlink": (lambda kit: kit.store(1, path=link(kit)), SinkError, "symbolic link"),
    "/dev/null": (lambda kit: kit.store(1, path=Path(os.devnull)), SinkError, "not a file|null"),
    "/dev/full": (lambda kit: kit.store(1, path=Path("/dev/full")), SinkError, "full"),
    "a file of another program": (
        lambda kit: kit.store(1, path=filled(kit.path, "name,value\n")),
        SinkError,
        "rows.json",
    ),
    "JSON of another program": (
        lambda kit: kit.store(1, path=filled(kit.path, '{"a": 1}')),
        SinkError,
        "rows.json",
    ),
    "a file that must not be there": (
        lambda kit: quiet(reactivex.of(1), JsonSink(existing(kit), existing="refuse")),
        SinkError,
        "rows.json",
    ),
    "reading what is not there": (lambda kit: list(read_rows(kit.path)), SinkError, "rows.json"),
    "reading a folder": (lambda kit: list(read_rows(kit.folder)), SinkError, "file|directory"),
    "reading another program's file": (
        lambda kit: list(read_rows(filled(kit.path, "name,value\n"))),
        SinkError,
        "rows.json",
    ),
    # Brokers.
    "nobody listens": (
        lambda kit: quiet(from_mqtt(nowhere(), "a", connect_timeout=0), JsonSink(kit.path)),
        ConnectError,
        "refused",
    ),
    "nobody listens, to publish": (
        lambda kit: quiet(reactivex.of(1), MqttSink(nowhere(), topic="a", connect_timeout=0)),
        SinkError,
        "refused|published",
    ),
    "a host that doesn't exist": (
        lambda kit: quiet(
            from_mqtt("mqtt://nowhere.invalid", "a", connect_timeout=0), JsonSink(kit.path)
        ),
        ConnectError,
        "nowhere.invalid",
    ),
    "a server of HTTP": (
        lambda kit: quiet(
            from_mqtt(f"mqtt://{kit.listening(HTTP)}", "a", connect_timeout=0), JsonSink(kit.path)
        ),
        ConnectError,
        "",
    ),
    "a server that hangs up": (
        lambda kit: quiet(
            from_mqtt(f"mqtt://{kit.listening(b'')}", "a", connect_timeout=0), JsonSink(kit.path)
        ),
        ConnectError,
        "clos|lost|ended",
    ),
    "TLS where the broker has none": (
        lambda kit: quiet(
            from_mqtt(f"mqtts://{kit.listening(HTTP)}", "a", connect_timeout=0), JsonSink(kit.path)
        ),
        ConnectError,
        "TLS|SSL|tls|ssl",
    ),
    "a WebSocket where the broker has none": (
        lambda kit: quiet(
            from_mqtt(f"ws://{kit.listening(HTTP)}", "a", connect_timeout=0), JsonSink(kit.path)
        ),
        ConnectError,
        "WebSocket|400",
    ),
    "a wrong password": (
        lambda kit: quiet(
            from_mqtt(kit.url.replace(":wiredflow@", ":wrong@"), "a"), JsonSink(kit.path)
        ),
        ConnectError,
        "(?i)bad user|password|not authori",
    ),
    "a CA file that is missing": (
        lambda kit: quiet(from_mqtt("mqtts://h", "a", ca_file="missing.pem"), JsonSink(kit.path)),
        ConfigError,
        "missing.pem",
    ),
    "a CA file that is none": (
        lambda kit: quiet(
            from_mqtt("mqtts://h", "a", ca_file=filled(kit.folder / "ca.pem", "x")),
            JsonSink(kit.path),
        ),
        ConfigError,
        "ca.pem",
    ),
    "a certificate of nobody that is trusted": (
        lambda kit: quiet(from_mqtt(kit.tls.tls_url, "a", connect_timeout=0), JsonSink(kit.path)),
        ConnectError,
        "certificate",
    ),
    "no TLS where the broker has nothing else": (
        lambda kit: quiet(
            from_mqtt(f"mqtt://127.0.0.1:{kit.tls.tls_port}", "a", connect_timeout=0),
            JsonSink(kit.path),
        ),
        ConnectError,
        "clos|lost|reset|TLS",
    ),
    "sys.exit in on_connect": (
        lambda kit: quiet(
            from_mqtt(kit.url, "a", on_connect=lambda _: sys.exit(3)), JsonSink(kit.path)
        ),
        SystemExit,
        "3",
    ),
    "run in on_connect": (
        lambda kit: quiet(
            from_mqtt(kit.url, "a", on_connect=lambda _: kit.store(1)), JsonSink(kit.path)
        ),
        ConfigError,
        "await run_async",
    ),
    "an error in on_connect": (
        lambda kit: quiet(from_mqtt(kit.url, "a", on_connect=boom), JsonSink(kit.path)),
        OSError,
        "boom",
    ),
    "a topic function that returns a wildcard": (
        lambda kit: quiet(reactivex.of(1), MqttSink(nowhere(), topic=lambda _: "a/#")),
        SinkError,
        "wildcard",
    ),
    "a topic function that returns None": (
        lambda kit: quiet(reactivex.of(1), MqttSink(nowhere(), topic=lambda _: None)),
        SinkError,
        "topic",
    ),
    "a topic function that raises": (
        lambda kit: quiet(reactivex.of(1), MqttSink(nowhere(), topic=boom)),
        SinkError,
        "boom",
    ),
    "a payload that JSON doesn't hold": (
        lambda kit: quiet(reactivex.of(object()), MqttSink(nowhere(), topic="a")),
        SinkError,
        "object",
    ),
    "a broker that is entered twice": (
        lambda kit: [each.__enter__() for each in [kit.closing.enter_context(Broker())]],
        ConfigError,
        "running already",
    ),
}

HTTP = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"


def nested(_):
    made = later()
    try:
        asyncio.run(made)
    finally:
        made.close()


def on_a_disk(kit, disk):
    broker, sink = kit.marbles.mqtt("t q1 : -a-b---"), kit.marbles.sink(disk=disk)
    flow = broker.from_mqtt("t").pipe(ops.decode_json())
    try:
        kit.marbles.run(run_async(flow, sink, seconds=8, log=False))
    finally:
        assert not broker.acknowledgements  # nobody has them


def interrupted(_):
    raise KeyboardInterrupt


def cancelled():
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    return future


def unspeakable(_):
    class Unspeakable(RuntimeError):
        def __str__(self):
            raise ValueError("no words")

        __repr__ = __str__

    raise Unspeakable


def circular():
    made: list[Any] = []
    made.append(made)
    return {"a": made}


async def within_coroutine(kit):
    kit.store(1)


async def twice_at_once(kit):
    pipelines = [(NEVER, JsonSink(kit.path)) for _ in range(2)]
    runs = [run_async(*each, seconds=0.5, log=False) for each in pipelines]
    results = await asyncio.gather(*runs, return_exceptions=True)
    raise next(each for each in results if isinstance(each, BaseException))


def both_of(flow, kit):
    return [(flow, JsonSink(kit.folder / f"{n}.json")) for n in range(2)]


def fail_elsewhere(observer, _=None):
    threading.Thread(target=lambda: observer.on_error(OSError("gone"))).start()


def filled(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def existing(kit) -> Path:
    kit.store(1)
    return kit.path


def nowhere() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"mqtt://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("name", FAILING)
def test_a_wrong_use_ends_in_an_error_that_says_why(kit, name):
    do, error, text = FAILING[name]
    with pytest.raises(error, match=text or None) as caught:
        do(kit)
    assert "wiredflow@" not in str(caught.value.args)
    if kit.path.exists() and kit.path.read_text().startswith("["):
        json.loads(kit.path.read_text())  # what was stored before is whole


class Pair(NamedTuple):
    a: int
    b: int


EXACT = '[\n{"a": 1.10}\n]\n'
HUGE = f"[\n{2**70}\n]\n"

# Outcomes: what is done, and what comes.
FINE: dict[str, tuple[Callable[[Kit], object], object]] = {
    "a mapper that returns None": (lambda kit: kit.store(1, by=[ops.map(lambda _: None)]), [None]),
    "NaN": (lambda kit: kit.store(float("nan"), float("inf")), [None, None]),
    "a huge integer": (lambda kit: kit.store(2**70) and kit.path.read_text(), HUGE),
    "a set": (lambda kit: kit.store({1}), [[1]]),
    "a Decimal": (lambda kit: kit.store(Decimal("1.5")), ["1.5"]),
    "keys that are numbers": (lambda kit: kit.store({1: 2}), [{"1": 2}]),
    "a named tuple": (lambda kit: kit.store(Pair(1, 2)), [[1, 2]]),
    "bytes that are JSON": (lambda kit: kit.store(b'{"a": 1.10}') and kit.path.read_text(), EXACT),
    "None": (lambda kit: kit.store(None), [None]),
    "an empty stream": (lambda kit: kit.store(), []),
    "a payload that is changed afterwards": (lambda kit: changed_afterwards(kit), [{"a": 1}]),
    "time.sleep in a mapper": (
        lambda kit: kit.store(1, by=[ops.map(lambda n: time.sleep(0.01) or n)]),
        [1],
    ),
    "one observable run twice": (
        lambda kit: [kit.store(1), kit.store(2)],
        [[1], [1, 2]],
    ),
    "run in a thread": (lambda kit: in_thread(lambda: kit.store(1)), [1]),
    "run_async in a running loop, as in Jupyter": (lambda kit: asyncio.run(as_task(kit)), [1]),
    "run_async cancelled by a time limit": (lambda kit: asyncio.run(timed_out(kit)), [1]),
    "a folder that is missing": (lambda kit: kit.store(1, path=kit.folder / "a/b/rows.json"), [1]),
    "an empty file": (lambda kit: kit.store(1, path=filled(kit.path, "")), [1]),
    "dispose within on_next": (lambda kit: disposed_within(), [1]),
    "subscribe within on_next": (lambda kit: subscribed_within(), [1, 2]),
    "threads that share a sink": (lambda kit: from_threads(kit), list(range(8))),
    "a sink twice closed": (lambda kit: closed_twice(kit), [1]),
    "a sink after an error in the with block": (lambda kit: broken_block(kit), [1]),
    "first() of a source": (
        lambda kit: kit.in_virtual_time(ops.first())[2],
        ["a"],
    ),
    "messages that are kept in a list": (lambda kit: kept_in_a_list(kit), (["a", "b"], 2)),
    "payloads that are kept in a list": (lambda kit: payloads_kept(kit), (["a", "b"], 2)),
    "a message that is copied": (
        lambda kit: kit.in_virtual_time(ops.map(lambda m: Message(m.topic, m.payload)))[2],
        ["a", "b"],
    ),
    "a task in flat_map": (lambda kit: kit.store(1, by=[ops.flat_map(task)]), [2]),
    "a future of a thread pool in flat_map": (lambda kit: pooled(kit), [2]),
    "a generator function in flat_map": (
        lambda kit: kit.store(2, by=[ops.flat_map(lambda n: (n for _ in range(n)))]),
        [2, 2],
    ),
    "a scheduler of threads for a bare subscribe": (lambda kit: on_a_thread(kit), [b"1"]),
    "one source in two loops, one after the other": (
        lambda kit: [asyncio.run(for_a_while(source)) for source in [NEVER] * 2],
        [0, 0],
    ),
    "a queue between a thread and a pipeline": (lambda kit: from_a_thread(kit), [0, 1, 2]),
    "everything is filtered": (lambda kit: counts(kit, ops.filter(lambda _: False)), (2, 0, 2, 0)),
    "an error after the first": (lambda kit: after_an_error(kit), (["a"], ["a"])),
    "publishing from threads without a loop": (lambda kit: published_from_threads(kit), 8),
    "a pipeline that feeds itself": (lambda kit: fed_back(kit), True),
}


def task(n):
    async def next_one():
        return n + 1

    return asyncio.ensure_future(next_one())


def pooled(kit):
    with ThreadPoolExecutor(1) as pool:
        return kit.store(1, by=[ops.flat_map(lambda n: pool.submit(lambda: n + 1))])


def on_a_thread(kit):
    seen, ended = [], threading.Event()
    quiet(reactivex.of(b"1"), MqttSink(kit.url, topic="a", retain=True))
    from_mqtt(kit.url, "a").pipe(ops.first()).subscribe(
        lambda m: seen.append(m.payload), print, ended.set, scheduler=NewThreadScheduler()
    )
    assert ended.wait(HANGS)
    return seen


async def for_a_while(source):
    report = await run_async(source, rxflow.JsonSink("while.json"), seconds=0.05, log=False)
    return report.stored


def from_a_thread(kit):
    subject = Subject()

    def give():
        for n in range(3):
            subject.on_next(n)
        subject.on_completed()

    def begin(observer, scheduler=None):
        subscription = subject.subscribe(observer)
        threading.Thread(target=give).start()
        return subscription

    quiet(reactivex.create(begin), JsonSink(kit.path))
    return list(read_rows(kit.path))


def changed_afterwards(kit):
    value = {"a": 1}
    sink = JsonSink(kit.path)
    subject = Subject()
    subject.subscribe(sink)
    subject.on_next(value)
    value["a"] = 2
    subject.on_completed()
    return list(read_rows(kit.path))


def in_thread(function):
    results = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


async def as_task(kit):
    task = asyncio.ensure_future(run_async(reactivex.of(1), JsonSink(kit.path), log=False))
    await task
    return list(read_rows(kit.path))


async def timed_out(kit):
    flow = rxflow.concat(reactivex.of(1), NEVER)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.2):
            await run_async(flow, JsonSink(kit.path), log=False)
    return list(read_rows(kit.path))


def link(kit) -> Path:
    there = kit.folder / "there.json"
    there.write_text("")
    here = kit.folder / "link.json"
    here.symlink_to(there)
    return here


def disposed_within():
    seen, subject = [], Subject()
    subscription = Flow(subject, label="x").subscribe(
        lambda n: (seen.append(n), subscription.dispose())
    )
    subject.on_next(1)
    subject.on_next(2)
    return seen


def subscribed_within():
    seen, done = [], threading.Event()
    inner = Flow(reactivex.of(2), label="inner")
    outer = Flow(reactivex.of(1), label="outer")
    outer.subscribe(lambda n: (seen.append(n), inner.subscribe(seen.append, on_completed=done.set)))
    done.wait(HANGS)
    return seen


def from_threads(kit):
    with JsonSink(kit.path) as sink:
        lock = threading.Lock()

        def give(n):
            with lock:
                sink.on_next(n)

        threads = [threading.Thread(target=give, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return sorted(read_rows(kit.path))


def closed_twice(kit):
    with JsonSink(kit.path) as sink:
        sink.on_next(1)
        sink.close()
    sink.close()
    return list(read_rows(kit.path))


def broken_block(kit):
    with contextlib.suppress(OSError), JsonSink(kit.path) as sink:
        sink.on_next(1)
        boom()
    return list(read_rows(kit.path))


def kept_in_a_list(kit):
    kept = []
    report, broker, stored = kit.in_virtual_time(ops.do_action(kept.append))
    assert report.stored + report.unacknowledged >= 2
    return stored, len(broker.acknowledgements) + report.unacknowledged


def payloads_kept(kit):
    kept = []
    _, broker, stored = kit.in_virtual_time(ops.do_action(lambda m: kept.append(m.payload)))
    return stored, len(broker.acknowledgements)


def counts(kit, *operators):
    report, _, _ = kit.in_virtual_time(*operators)
    return report.received, report.stored, report.filtered, report.unacknowledged


def after_an_error(kit):
    broker, sink = kit.marbles.mqtt("t q1 : -a-b---"), kit.marbles.sink()

    def only_a(message):
        return message if message.payload == "a" else boom()

    flow = broker.from_mqtt("t").pipe(ops.decode_json(), ops.map(only_a))
    with contextlib.suppress(OSError):
        kit.marbles.run(run_async(flow, sink, seconds=8, log=False))
    return sink.stored, [each.key for each in broker.acknowledgements]


def published_from_threads(kit):
    sink = MqttSink(kit.url, topic="a")
    threads = [threading.Thread(target=sink.on_next, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sink.close()
    return sink.rows


def fed_back(kit):
    """Each message is published again to the topic that it came from, and ends with the run."""
    first = MqttSink(kit.url, topic="a")
    flow = from_mqtt(kit.url, "a", on_connect=lambda _: (first.on_next(0), first.on_completed()))
    report = quiet(flow.pipe(ops.take(5)), MqttSink(kit.url, topic="a"))
    return report.stored == 5


@pytest.mark.parametrize("name", FINE)
def test_an_odd_use_has_an_outcome_that_helps(kit, name):
    do, expected = FINE[name]
    assert do(kit) == expected


# -- programs --------------------------------------------------------------------------------------

PROGRAMS: dict[str, tuple[str, int, str]] = {
    "subscribe without on_error": (
        """
        Flow(reactivex.of(1), label="x").pipe(ops.map(lambda n: 1 / 0)).subscribe(print)
        """,
        0,
        "ZeroDivisionError",
    ),
    "the end of the interpreter while a pipeline runs": (
        """
        sink = JsonSink("rows.json")
        Flow(reactivex.of(1, 2), label="x").pipe(ops.concat(reactivex.never())).subscribe(sink)
        sys.exit(4)
        """,
        4,
        "",
    ),
    "run_async that nobody awaits": (
        """
        run_async(reactivex.of(1), JsonSink("rows.json"))
        """,
        0,
        "never awaited",
    ),
    "two processes with one file": (
        """
        with JsonSink("rows.json") as sink:
            sink.on_next(1)
            child = subprocess.run(
                [sys.executable, "-c", "import rxflow; rxflow.JsonSink('rows.json').open()"],
                capture_output=True, text=True,
            )
            sys.stderr.write(child.stderr)
        """,
        0,
        "SinkError.*lock",
    ),
    "a name of two lines": (
        """
        run(reactivex.of(1), JsonSink("rows.json"), name="one\\ntwo")
        """,
        0,
        r"finished one\\ntwo: received 1",
    ),
}
HEAD = """
import asyncio, subprocess, sys, time
import reactivex
from rxflow import Flow, JsonSink, operators as ops, run, run_async
"""


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_ends_and_says_why(tmp_path, name):
    text, status, said = PROGRAMS[name]
    lines = "\n".join(line.removeprefix("        ") for line in text.splitlines())
    done = script(HEAD + lines, tmp_path)
    assert done.returncode == status, done.stderr
    assert re.search(said, done.stderr.replace("\n", " ")), done.stderr
    rows = tmp_path / "rows.json"
    if rows.exists():
        json.loads(rows.read_text())


def test_there_are_a_hundred():
    rows = [COMPOSING, RIGHT_AFTER_ALL, FAILING, FINE, PROGRAMS]
    assert sum(map(len, rows)) >= 150
