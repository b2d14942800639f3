"""A sink that fails, end to end: nothing further is acknowledged, and a restart resumes."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from scripted import (
    DISCONNECT,
    PUBACK,
    PUBREC,
    PUBREL,
    Conversation,
    ScriptedBroker,
    packet,
    publish,
)
from serving import until_disconnect

from rxflow import JsonSink, SinkError, from_mqtt, run, run_async
from rxflow import operators as ops
from rxflow.sinks.file import store


def failing(error: int) -> Callable[..., None]:
    def call(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    return call


def lengthen(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"]\n")


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"[\n]\n")
    other.rename(path)


# What happens behind the first commit, and which rows stand in the file at the end.
MEDDLING: dict[str, tuple[Callable[[Path, pytest.MonkeyPatch], object], list[int]]] = {
    "EIO of a sync": (
        lambda _, patch: patch.setattr(store, "flush", failing(errno.EIO)),
        [1, 2, 3],
    ),
    "EIO of a write": (
        lambda _, patch: patch.setattr(store, "write_all", failing(errno.EIO)),
        [1, 2, 3],
    ),
    "no space": (
        lambda _, patch: patch.setattr(store, "write_all", failing(errno.ENOSPC)),
        [1, 2, 3],
    ),
    "file too large": (
        lambda _, patch: patch.setattr(store, "write_all", failing(errno.EFBIG)),
        [1, 2, 3],
    ),
    "rm": (lambda path, _: path.unlink(), [2, 3]),
    "mv": (lambda path, _: path.rename(path.with_name("elsewhere")), [2, 3]),
    "another file in its place": (lambda path, _: replace(path), [2, 3]),
    "truncated to nothing": (lambda path, _: os.truncate(path, 0), [2, 3]),
    "truncated in the middle": (lambda path, _: os.truncate(path, 3), [2, 3]),
    "longer": (lambda path, _: lengthen(path), [1, 2, 3]),
    "the lock removed": (lambda path, _: path.with_name("rows.json.lock").unlink(), [1, 2, 3]),
}


def first_life(path: Path, qos: int, act: Callable[[], object], kinds: list[int]):
    """One message is stored; then something happens, and two more come."""

    def script(conversation: Conversation) -> None:
        conversation.accept()
        conversation.accept_subscription(qos)
        conversation.send(publish("a", b"1", qos, 1))
        conversation.expect(PUBACK if qos == 1 else PUBREC)
        if qos == 2:
            conversation.send(packet(PUBREL | 2, b"\0\1"))
            conversation.expect(0x70)
        act()
        conversation.send(publish("a", b"2", qos, 2) + publish("a", b"3", qos, 3))
        kinds.extend(until_disconnect(conversation))

    return script


def second_life(qos: int, answered: list[int], is_over: threading.Event):
    """The broker sends again what was not acknowledged, and it is."""

    def script(conversation: Conversation) -> None:
        conversation.accept(session_present=True)
        conversation.accept_subscription(qos)
        for number in (2, 3):
            conversation.send(publish("a", b"%d" % number, qos, number, flags=8))
        answered.extend(conversation.packet_ids(PUBACK if qos == 1 else PUBREC, 2))
        is_over.set()
        until_disconnect(conversation)

    return script


async def until_over(source, sink: JsonSink, is_over: threading.Event) -> None:
    running = asyncio.ensure_future(run_async(source, sink, log=False))
    assert await asyncio.to_thread(is_over.wait, 20)
    running.cancel()
    await asyncio.wait([running])


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("case", MEDDLING)
def test_when_the_sink_fails_nothing_more_is_acknowledged_and_a_restart_resumes(
    tmp_path, monkeypatch, case, qos
):
    path = tmp_path / "rows.json"
    meddle, expected = MEDDLING[case]
    before, answered, is_over = [], [], threading.Event()

    def source(url: str):
        return from_mqtt(url, "a", qos=qos, client_id="me")

    with monkeypatch.context() as patch:
        script = first_life(path, qos, lambda: meddle(path, patch), before)
        with ScriptedBroker(script) as broker, pytest.raises(SinkError):
            run(source(broker.url), JsonSink(path), seconds=20, log=False)
    assert before == [DISCONNECT]
    with ScriptedBroker(second_life(qos, answered, is_over)) as broker:
        asyncio.run(until_over(source(broker.url), JsonSink(path), is_over))
    assert answered == [2, 3]
    assert json.loads(path.read_bytes()) == expected


def test_a_second_run_of_one_file_is_refused_before_it_takes_the_session_over(tmp_path):
    path = tmp_path / "rows.json"
    with JsonSink(path), socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"mqtt://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(SinkError, match="locked"):
            run(from_mqtt(url, "a"), JsonSink(path), seconds=5, log=False)
        listener.settimeout(0.2)
        with pytest.raises(TimeoutError):
            listener.accept()


def test_a_sink_that_goes_on_after_a_failure_is_found_out(tmp_path, monkeypatch):
    path = tmp_path / "rows.json"
    monkeypatch.setattr("rxflow.sinks.file.folder.Place.is_still", lambda *_: True)
    kinds: list[int] = []
    with ScriptedBroker(first_life(path, 1, path.unlink, kinds)) as broker:
        source = from_mqtt(broker.url, "a", client_id="me").pipe(ops.take(3))
        run(source, JsonSink(path), seconds=20, log=False)
    assert PUBACK in kinds
    assert not path.exists()
