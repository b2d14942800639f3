"""A forked child of a process with pipelines has its own, and leaves the parent's alone."""

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import traceback
from collections import deque
from contextlib import suppress

import pytest
import reactivex
from scripted import PINGREQ, Conversation, ScriptedBroker, publish

from rxflow import JsonSink, MqttSink, SinkError, from_mqtt, run
from rxflow import operators as ops
from rxflow.broker import Broker
from rxflow.process import forked
from rxflow.process.forked import close_in_child, import_before_fork
from rxflow.process.read_pass import under_way

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


def in_child(act):
    """Call it in a forked child, and fail with what it raises there."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover (coverage is the parent's)
        os.close(out)
        try:
            signal.alarm(60)
            act()
        except BaseException:  # noqa: BLE001 (nothing of the test may go on here)
            os.write(into, traceback.format_exc().encode())
        finally:
            os._exit(0)
    os.close(into)
    with os.fdopen(out, "rb") as file:
        said = file.read().decode()
    os.waitpid(child, 0)
    assert not said, said


def told(count=1, *, then=lambda conversation: None):
    """Send so many messages, then do something, then wait for the end."""

    def script(conversation: Conversation) -> None:
        conversation.accept()
        conversation.accept_subscription()
        for number in range(1, count + 1):
            conversation.send(publish("a", b"%d" % number, 1, number))
        then(conversation)
        with suppress(AssertionError):
            conversation.read_to_end()

    return script


class Connected:
    """A pipeline of this process that has received a message, and goes on."""

    def __init__(self, url, client_id="parent"):
        self.flow = from_mqtt(url, "a", client_id=client_id)
        self.seen = []
        self._has_seen = threading.Condition()
        self._subscription = self.flow.subscribe(self._see)
        self.wait_for(1)

    def _see(self, message):
        with self._has_seen:
            self.seen.append(message.payload)
            self._has_seen.notify()

    def wait_for(self, count):
        with self._has_seen:
            assert self._has_seen.wait_for(lambda: len(self.seen) >= count, 10)

    def close(self):
        self._subscription.dispose()


def test_a_child_keeps_its_own_connection_alive_though_its_parent_has_one_too():
    def script(conversation):
        conversation.accept()
        conversation.accept_subscription()
        conversation.send(publish("b", b"1", 0))
        while conversation.read()[0] != PINGREQ:
            pass
        os.write(into, b"-")

    def block(_):
        assert os.read(out, 1) == b"-"  # the loop of the child stands still meanwhile

    out, into = os.pipe()
    with ScriptedBroker(told()) as parents, ScriptedBroker(script) as childs:
        connected = Connected(parents.url)
        own = from_mqtt(childs.url, "b", keep_alive=1).pipe(ops.do_action(block), ops.take(1))
        in_child(lambda: run(own, reactivex.Observer(), log=False))
        connected.close()
    os.close(out)
    os.close(into)


def test_the_parents_connection_outlives_its_child():
    forked = threading.Event()

    def then(conversation):
        assert forked.wait(60)
        conversation.send(publish("a", b"2", 1, 2))

    with ScriptedBroker(told(then=then)) as broker:
        connected = Connected(broker.url)
        in_child(lambda: None)
        forked.set()
        connected.wait_for(2)
        connected.close()
    assert connected.seen == [b"1", b"2"]


def test_what_the_parent_subscribes_to_the_child_may_too(tmp_path):
    def store():
        run(connected.flow.pipe(ops.take(1)), JsonSink(tmp_path / "rows.json"), log=False)

    with Broker() as broker:
        reactivex.of(1).subscribe(MqttSink(broker.url, topic="a", retain=True))
        connected = Connected(broker.url, None)
        in_child(store)
        connected.close()
    assert json.loads((tmp_path / "rows.json").read_bytes()) == [1]


def test_a_read_pass_of_the_parent_is_none_of_the_childs():
    def look():
        assert under_way.acts is None

    under_way.acts = deque()
    try:
        in_child(look)
        assert under_way.acts is not None
    finally:
        under_way.acts = None


def test_a_sink_that_the_parent_made_is_good_in_the_child_until_it_is_opened(tmp_path):
    def store():
        async def main():
            sink.on_next(1)
            sink.on_completed()
            await sink.wait_closed()

        asyncio.run(main())

    sink = JsonSink(tmp_path / "rows.json")
    with sink._group._lock, sink._receipts._alone:  # as another thread may have them
        in_child(store)
    assert json.loads(sink.path.read_bytes()) == [1]


def test_a_sink_that_the_parent_has_open_refuses_in_the_child_and_says_why(tmp_path):
    def store():
        async def main():
            sink.on_next(2)
            sink.on_completed()
            with pytest.raises(SinkError, match="was forked from"):
                await sink.wait_closed()

        asyncio.run(main())

    async def main():
        sink.open()
        sink.on_next(1)
        await asyncio.sleep(0)
        in_child(store)
        sink.on_completed()
        await sink.wait_closed()

    sink = JsonSink(tmp_path / "rows.json")
    asyncio.run(main())
    assert json.loads(sink.path.read_bytes()) == [1]


def test_a_publishing_sink_that_the_parent_uses_refuses_in_the_child():
    def use():
        with pytest.raises(SinkError, match="was forked from; make one of its own"):
            sink.on_next(2)
        sink.close()

    with Broker() as broker:
        sink = MqttSink(broker.url, topic="a")
        sink.on_next(1)
        in_child(use)
        sink.close()
    assert sink.rows == 1


def test_a_broker_that_the_parent_runs_is_none_in_the_child():
    def use():
        with broker:
            assert broker.port != port
        assert repr(broker) == "<Broker stopped>"

    with Broker() as broker:
        port = broker.port
        in_child(use)
        reactivex.of(1).subscribe(MqttSink(broker.url, topic="a"))


PARENT = """
import os, sys, threading
from rxflow import from_mqtt
seen = threading.Event()
subscription = from_mqtt(sys.argv[1], "a").subscribe(lambda message: seen.set())
seen.wait()
if os.fork():
    threading.Event().wait()
print("forked", flush=True)
sys.stdin.readline()
os._exit(0)
"""


def test_a_broker_sees_that_the_parent_is_gone_though_its_child_lives():
    has_ended = threading.Event()

    def script(conversation):
        told()(conversation)
        has_ended.set()

    with ScriptedBroker(script) as broker:
        command = [sys.executable, "-W", "ignore", "-c", PARENT, broker.url]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(command, text=True, **pipes) as parent:
            assert parent.stdout.readline() == "forked\n"
            parent.kill()
            assert has_ended.wait(60)
            parent.stdin.close()  # which ends the child


def test_a_child_says_nothing_on_a_connection_with_tls(authority):
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(authority.server.chain, authority.server.key)
    server.num_tickets = 0  # which nobody reads, so that the close would be a reset
    client = ssl.create_default_context(cafile=str(authority.path))
    ours, theirs = socket.socketpair()
    heard = []

    def listen():
        with server.wrap_socket(theirs, server_side=True) as secured:
            while data := secured.recv(100):
                heard.append(data)

    thread = threading.Thread(target=listen)
    thread.start()
    with client.wrap_socket(ours, server_hostname="localhost") as secured:
        close_in_child(secured)
        secured.send(b"before")
        in_child(lambda: None)
        secured.send(b"after")
    thread.join(60)
    assert b"".join(heard) == b"beforeafter"


def test_what_a_thread_may_be_importing_is_imported_before_the_fork(tmp_path, monkeypatch):
    (tmp_path / "imported_late.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(forked, "_late", set())
    import_before_fork("imported_late")
    assert "imported_late" not in sys.modules

    def act():
        assert "imported_late" in sys.modules

    in_child(act)
