"""C21: secrets, foreign text in a log, whom TLS trusts, who can reach the embedded broker."""

from __future__ import annotations

import contextlib
import socket
import ssl
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
import reactivex
from scripted import Conversation, ScriptedBroker, publish
from serving import serve

from rxflow import ConnectError, JsonSink, MqttSink, from_mqtt, run
from rxflow import operators as ops
from rxflow.broker import Broker
from rxflow.log import logger

LOGIN = {"username": "wiredflow", "password": "wiredflow"}

CANARY = "hunter2" + "-canary"


@contextlib.contextmanager
def everything_shown(capsys) -> Iterator[list[str]]:
    """All that is logged, with the values of variables, warned of, printed, or raised."""
    shown: list[str] = []
    number = logger.add(shown.append, level=0, diagnose=True, backtrace=True)
    try:
        yield shown
    finally:
        logger.remove(number)
        shown.extend(capsys.readouterr())


def refused(url: str, **settings) -> str:
    """What comes of a run whose connection fails: text, traceback, and every repr on the way."""
    source = from_mqtt(url, "a", connect_timeout=0.5, **settings)
    sink = JsonSink("unused.json")
    text = repr(source) + repr(source.pipe(ops.take(1))) + repr(sink) + str(vars(source))
    with pytest.raises(ConnectError) as caught:
        run(source, reactivex.Observer())
    error = caught.value
    return text + repr(error) + "".join(traceback.format_exception(error))


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.mark.parametrize("case", ["wrong password", "no broker", "in the URL", "no TLS there"])
def test_a_password_is_shown_nowhere(mosquitto, capsys, case):
    login = {"username": "wiredflow", "password": CANARY}
    port = closed_port() if case == "no broker" else mosquitto.port
    scheme = "mqtts" if case == "no TLS there" else "mqtt"
    user = f"wiredflow:{CANARY}@" if case == "in the URL" else ""
    with everything_shown(capsys) as shown:
        text = refused(f"{scheme}://{user}127.0.0.1:{port}", **({} if user else login))
    assert "connection" in "".join(shown)
    assert CANARY not in text + "".join(shown)


def test_a_password_of_a_sink_is_shown_nowhere(mosquitto, capsys):
    sink = MqttSink(mosquitto.url, topic="a", username="wiredflow", password=CANARY)
    with everything_shown(capsys) as shown:
        with pytest.raises(Exception, match="refused the connection") as caught:
            run(reactivex.of(1), sink)
        shown.append(repr(sink) + "".join(traceback.format_exception(caught.value)))
    assert CANARY not in "".join(shown)


def test_a_log_that_shows_variables_is_found_out(capsys):
    with everything_shown(capsys) as shown:
        password = CANARY
        logger.enable(__name__)
        try:
            len(password) / 0
        except ZeroDivisionError:
            logger.exception("shown")
    assert CANARY in "".join(shown)


# -- foreign text in a log -------------------------------------------------------------------------

FORGED = (
    "\x1b[2J\n2026-01-01 00:00:00 | CRITICAL | all your base\r{record} {0.password} <red>%s\u2028"
)


def lines_of(script, make) -> list[str]:
    """What a run whose broker follows a script writes to the log, a line each."""
    lines: list[str] = []
    number = logger.add(lines.append, level=0, format="{message}", colorize=True)
    try:
        with ScriptedBroker(script) as broker, contextlib.suppress(Exception):
            run(make(broker.url), reactivex.Observer(), seconds=1)
    finally:
        logger.remove(number)
    return lines


FORGERIES = {
    "a topic that nobody asked for": (
        publish(f"b/{FORGED}", b"1", 0),
        lambda url: from_mqtt(url, "a").pipe(ops.take(1)),
    ),
    "a topic that can be none": (
        publish(f"b/{FORGED}#", b"1", 0),
        lambda url: from_mqtt(url, "a").pipe(ops.take(1)),
    ),
    "a topic of a message that is too large": (
        publish(f"b/{FORGED}", b"1" * 500, 0),
        lambda url: from_mqtt(url, "a", max_packet_bytes=400),
    ),
    "a topic whose payload is bad": (
        publish(f"a/{FORGED}", b"{", 0),
        lambda url: from_mqtt(url, "a/#").pipe(ops.decode_json()),
    ),
    "a payload in an error of the user's": (
        publish("a", FORGED.encode(), 0),
        lambda url: from_mqtt(url, "a").pipe(ops.map(lambda m: int(m.payload.decode()))),
    ),
    "a payload that a sink refuses": (
        publish(f"a/{FORGED}", FORGED.encode(), 0),
        lambda url: from_mqtt(url, "a/#").pipe(
            ops.do_action(lambda m: JsonSink("/proc/none/x").on_next(m))
        ),
    ),
}


@pytest.mark.parametrize("case", FORGERIES)
def test_foreign_text_forges_no_line_of_the_log(case):
    message, make = FORGERIES[case]
    lines = lines_of(serve(message), make)
    told = [line for line in lines if "all your base" in line or "none/x" in line]
    assert told
    for line in told:
        text = line.removesuffix("\n")
        assert text.isprintable(), text


def test_a_reason_of_the_brokers_forges_no_line_of_the_log():
    def script(conversation: Conversation) -> None:
        conversation.accept(version=5)
        conversation.accept_subscription(version=5)
        reason = FORGED.encode()
        properties = b"\x1f" + len(reason).to_bytes(2) + reason
        conversation.send(bytes([0xE0, 2 + len(properties), 0x80, len(properties)]) + properties)

    lines = lines_of(script, lambda url: from_mqtt(url.replace("3.1.1", "5"), "a"))
    assert any("closed the connection" in line for line in lines)
    assert all(line.removesuffix("\n").isprintable() for line in lines)


def test_text_that_is_written_as_it_is_is_found_out():
    lines: list[str] = []
    number = logger.add(lines.append, level=0, format="{message}")
    logger.enable(__name__)
    logger.info("{}", FORGED)
    logger.remove(number)
    assert not lines[0].removesuffix("\n").isprintable()


# -- whom to trust ---------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["wrong CA", "expired", "wrong name", "no client certificate"])
def test_tls_refuses(make_mosquitto, authority, tmp_path_factory, case):
    certificate = {"expired": "expired", "wrong name": "wrong_name"}.get(case, "server")
    client_ca = authority.path if case == "no client certificate" else None
    broker = make_mosquitto(certificate=getattr(authority, certificate), client_ca=client_ca)
    settings = {} if case == "wrong CA" else {"ca_file": str(authority.path)}
    source = from_mqtt(broker.tls_url, "a", connect_timeout=1.0, **settings, **LOGIN)
    with pytest.raises(ConnectError):
        run(source, reactivex.Observer(), log=False)
    assert "Sending CONNACK" not in broker.log


def test_a_context_that_verifies_nothing_is_found_out(make_mosquitto, authority):
    broker = make_mosquitto(certificate=authority.expired)
    careless = ssl.create_default_context()
    careless.check_hostname, careless.verify_mode = False, ssl.CERT_NONE
    source = from_mqtt(broker.tls_url, "a", tls=careless, **LOGIN)
    run(source, reactivex.Observer(), seconds=0.3, log=False)
    assert "Sending CONNACK" in broker.log


def listeners(port: int) -> list[str]:
    """The addresses that somebody listens on at this port, as the kernel writes them."""
    rows = [
        line.split()
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        if Path(table).exists()
        for line in Path(table).read_text().splitlines()[1:]
    ]
    addresses = [row[1].rsplit(":", 1) for row in rows if row[3] == "0A"]
    return [address for address, number in addresses if int(number, 16) == port]


@pytest.mark.parametrize(
    ("host", "address"),
    [("127.0.0.1", "0100007F"), ("::1", "00000000000000000000000001000000")],
)
def test_the_embedded_broker_listens_on_loopback_only(host, address):
    with Broker(host=host) as broker:
        assert listeners(broker.port) == [address]


def test_a_listener_on_every_interface_is_found_out():
    with socket.create_server(("0.0.0.0", 0)) as listener:
        assert listeners(listener.getsockname()[1]) == ["00000000"]
