"""The embedded broker, seen through paho and bare sockets."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import socket
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from rxflow.broker import Broker
from rxflow.broker import embedded as module
from rxflow.errors import ConfigError, ConnectError

CANARY = "c4nary"
REFUSED = b"\x20\x02\x00\x05"
ACCEPTED = b"\x20\x02\x00\x00"


def connack(broker, username=None, password=None, client="c"):
    with socket.create_connection((urlsplit(broker.url).hostname, broker.port), 5) as raw:
        raw.sendall(connect(username, password, client))
        answer = raw.recv(4)
        if answer != ACCEPTED:
            assert raw.recv(1) == b""  # and it hangs up
        return answer


def connect(username, password, client):
    fields = [text.encode() for text in (client, username, password) if text is not None]
    body = b"".join(len(field).to_bytes(2) + field for field in fields)
    flags = 2 | 128 * (username is not None) | 64 * (password is not None)
    head = b"\x00\x04MQTT\x04" + bytes([flags]) + b"\x00\x3c"
    return b"\x10" + bytes([len(head + body)]) + head + body


def listeners(port):
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            address, state = line.split()[1], line.split()[3]
            if state == "0A" and address.endswith(f":{port:04X}"):
                found.append(address)
    return found


def test_it_delivers_what_is_published(mqtt_broker):
    arrived, subscribed = queue.SimpleQueue(), threading.Event()
    client = Client(CallbackAPIVersion.VERSION2)
    client.username_pw_set("wiredflow", "wiredflow")
    client.on_message = lambda *args: arrived.put((args[2].topic, args[2].payload))
    client.on_connect = lambda *args: client.subscribe("/demo/#", 1)
    client.on_subscribe = lambda *args: subscribed.set()
    client.connect("127.0.0.1", mqtt_broker.port)
    client.loop_start()
    try:
        assert subscribed.wait(60)
        client.publish("/demo/integers", b"1", 1).wait_for_publish(5)
        assert arrived.get(timeout=5) == ("/demo/integers", b"1")
    finally:
        client.disconnect()
        client.loop_stop()
        client._reset_sockets()  # the pair that paho's thread talks to itself over


@pytest.mark.parametrize(
    ("username", "password", "answer"),
    [
        ("wiredflow", "wiredflow", ACCEPTED),
        ("wiredflow", "wrong", REFUSED),
        ("wiredflow", "", REFUSED),
        ("wiredflow", None, REFUSED),
        ("nobody", "wiredflow", REFUSED),
        (None, None, REFUSED),
    ],
)
def test_it_admits_only_its_users(mqtt_broker, username, password, answer):
    assert connack(mqtt_broker, username, password) == answer


def test_without_users_it_admits_anyone():
    with Broker() as broker:
        assert connack(broker) == ACCEPTED
        assert connack(broker, "anyone", "anything") == ACCEPTED


def test_its_url_fixes_the_version_it_speaks(mqtt_broker):
    assert mqtt_broker.url == f"mqtt://127.0.0.1:{mqtt_broker.port}?version=3.1.1"
    assert repr(mqtt_broker) == f"<Broker {mqtt_broker.url}>"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "0100007F"),
        ("localhost", "0100007F"),
        ("::1", "00000000000000000000000001000000"),
    ],
)
def test_it_listens_on_the_loopback_interface_only(host, address):
    with Broker(host=host) as broker:
        assert listeners(broker.port) == [f"{address}:{broker.port:04X}"]
        assert connack(broker) == ACCEPTED


@pytest.mark.skipif(sys.platform != "linux", reason="Linux: all of 127/8 is this machine")
def test_a_second_address_of_this_machine_is_refused(mqtt_broker):
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", mqtt_broker.port), 5)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "", "example.org", "127.0.0.2"])
def test_any_other_host_is_refused(host):
    with pytest.raises(ConfigError, match=f"host.*{host!r}"):
        Broker(host=host)


@pytest.mark.parametrize("port", [-1, 65_536])
def test_an_impossible_port_is_refused(port):
    with pytest.raises(ConfigError, match=f"port must be.*{port}"):
        Broker(port=port)


def test_users_without_a_user_are_refused():
    with pytest.raises(ConfigError, match="users must"):
        Broker(users={})


def test_a_busy_port_is_a_connect_error_that_names_it(mqtt_broker):
    second = Broker(port=mqtt_broker.port)
    with pytest.raises(ConnectError, match=f"127.0.0.1:{mqtt_broker.port}"), second:
        pass
    assert repr(second) == "<Broker stopped>"


def test_without_amqtt_it_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "amqtt", None)
    for name in [name for name in sys.modules if name.startswith("amqtt.")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "rxflow.broker._amqtt", raising=False)
    monkeypatch.delattr("rxflow.broker._amqtt", raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'rxflow-mqtt\[broker\]'"):
        Broker()


def test_it_comes_back_at_the_port_it_was_given():
    with Broker() as first:
        port = first.port
    broker = Broker(port=port)
    for _ in range(2):
        with broker:
            assert broker.port == port
            assert connack(broker) == ACCEPTED
    with pytest.raises(ConfigError, match="not running"):
        _ = broker.url


def test_it_is_entered_once_at_a_time(mqtt_broker):
    with pytest.raises(ConfigError, match="running already"):
        mqtt_broker.__enter__()
    assert connack(mqtt_broker, "wiredflow", "wiredflow") == ACCEPTED


def test_stopping_twice_is_stopping_once():
    broker = Broker()
    broker.__exit__(None, None, None)
    with broker:
        pass
    broker.__exit__(None, None, None)


def test_stopping_drops_the_clients_that_are_still_there():
    with Broker() as broker:
        silent = socket.create_connection(("127.0.0.1", broker.port), 5)
        known = socket.create_connection(("127.0.0.1", broker.port), 5)
        known.sendall(connect(None, None, "c"))
        assert known.recv(4) == ACCEPTED
    for client in (silent, known):
        with client:
            assert hung_up(client)


def test_stopping_in_the_middle_of_a_flood_ends():
    publish = b"\x32\x06\x00\x01a\x00\x01x"  # QoS 1: each asks for an answer that nobody reads
    with Broker() as broker:
        client = socket.create_connection(("127.0.0.1", broker.port), 5)
        client.sendall(connect(None, None, "c"))
        assert client.recv(4) == ACCEPTED
        client.settimeout(0)
        for _ in range(1000):
            with contextlib.suppress(BlockingIOError):
                client.send(publish * 100)
    client.close()


def hung_up(client):
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def test_a_client_that_speaks_no_mqtt_harms_nobody(mqtt_broker):
    with socket.create_connection(("127.0.0.1", mqtt_broker.port), 5) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\n\r\n" * 20)
    assert connack(mqtt_broker, "wiredflow", "wiredflow") == ACCEPTED


def test_a_fault_inside_the_broker_drops_that_client_only(mqtt_broker, monkeypatch):
    def fail(*args):
        raise RuntimeError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(module._Accounts, "admit", fail)
        with socket.create_connection(("127.0.0.1", mqtt_broker.port), 5) as client:
            client.sendall(connect("wiredflow", "wiredflow", "c"))
            assert hung_up(client)
    assert connack(mqtt_broker, "wiredflow", "wiredflow") == ACCEPTED


def test_async_with_serves_and_leaves_no_task():
    async def main():
        async with Broker(users={"u": "p"}) as broker:
            assert await asyncio.to_thread(connack, broker, "u", "p") == ACCEPTED
            assert await asyncio.to_thread(connack, broker, "u", "x") == REFUSED
        await broker.__aexit__(None, None, None)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_a_cancelled_start_leaves_nothing(monkeypatch):
    async def never_ready(listener, accounts, stop, ready):
        with listener:
            await stop.wait()

    async def main():
        start = asyncio.ensure_future(broker.__aenter__())
        await asyncio.sleep(0)  # it has begun, and waits for its thread
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start

    broker = Broker()
    monkeypatch.setattr(broker, "_serve", never_ready)

    asyncio.run(main())
    assert repr(broker) == "<Broker stopped>"


def test_a_failing_start_is_raised_where_it_was_entered(monkeypatch):
    async def fail(*args):
        args[0].close()
        raise RuntimeError("broken")

    broker = Broker()
    monkeypatch.setattr(broker, "_serve", fail)
    with pytest.raises(RuntimeError, match="broken"), broker:
        pass


def test_no_password_is_kept_or_logged(caplog, capfd):
    caplog.set_level(logging.DEBUG)
    users = {"u": CANARY}
    with Broker(users=users) as broker:
        assert connack(broker, "u", CANARY) == ACCEPTED
        assert connack(broker, "u", f"{CANARY}!") == REFUSED
        kept = f"{vars(broker)} {broker._accounts._digests} {broker!r}"
    out, err = capfd.readouterr()
    assert CANARY not in kept + caplog.text + out + err
    assert not [record for record in caplog.records if record.name.startswith("amqtt")]


def test_importing_the_module_does_not_import_amqtt():
    code = "import sys, rxflow.broker; sys.exit('amqtt' in sys.modules)"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=30)


def test_it_makes_no_warning_and_no_noise():
    code = "from rxflow.broker import Broker\nwith Broker(users={'u': 'p'}): pass"
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", code]
    done = subprocess.run(command, check=True, timeout=30, capture_output=True)
    assert b"Warning" not in done.stderr
    assert done.stdout == b""


def test_the_level_that_a_program_set_for_amqtt_is_kept():
    log = logging.getLogger("amqtt")
    before = log.level
    log.setLevel(logging.INFO)
    try:
        Broker()
        assert log.level == logging.INFO
        log.setLevel(logging.NOTSET)
        Broker()
        assert not logging.getLogger("amqtt.broker").isEnabledFor(logging.CRITICAL)
    finally:
        log.setLevel(before)


def test_accounts_are_compared_without_the_passwords():
    accounts = module._Accounts({"u": "p\ud800"})
    assert accounts.admit("u", "p\ud800")
    assert not accounts.admit("u", "p")
    assert not accounts.admit("v", None)
