"""The brokers that the tests stand on do what the tests believe of them."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import pytest
from brokers import Authority

CONNECT = b"\x10\x23\x00\x04MQTT\x04\xc2\x00\x3c\x00\x01a\x00\x09wiredflow\x00\x09wiredflow"
ACCEPTED = b"\x20\x02\x00\x00"


def connack(port, context=None, host="localhost"):
    with socket.create_connection(("127.0.0.1", port), 5) as raw:
        if context is None:
            raw.sendall(CONNECT)
            return raw.recv(4)
        with context.wrap_socket(raw, server_hostname=host) as wrapped:
            wrapped.sendall(CONNECT)
            return wrapped.recv(4)


def trusting(path: Path):
    return ssl.create_default_context(cafile=str(path))


def test_mosquitto_admits_the_user_of_the_tests(mosquitto):
    assert connack(mosquitto.port) == ACCEPTED


def test_mosquitto_refuses_a_user_it_does_not_know(make_mosquitto):
    broker = make_mosquitto(users={"someone": "else"})
    assert connack(broker.port) == b"\x20\x02\x00\x05"


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_mosquitto_comes_back_at_the_same_address(mosquitto, end):
    url = mosquitto.url
    getattr(mosquitto, end)()
    with pytest.raises(ConnectionRefusedError):
        connack(mosquitto.port)
    mosquitto.start()
    assert (mosquitto.url, connack(mosquitto.port)) == (url, ACCEPTED)


def test_a_frozen_mosquitto_answers_when_it_thaws(mosquitto):
    with socket.create_connection(("127.0.0.1", mosquitto.port), 5) as client:
        with mosquitto.frozen():
            client.sendall(CONNECT)
            client.settimeout(0.05)
            with pytest.raises(TimeoutError):
                client.recv(4)
        client.settimeout(5)
        assert client.recv(4) == ACCEPTED


def test_mosquitto_speaks_tls_with_a_valid_certificate(mosquitto_tls, authority):
    assert connack(mosquitto_tls.tls_port, trusting(authority.path)) == ACCEPTED


@pytest.mark.parametrize("certificate", ["expired", "wrong_name"])
def test_a_bad_certificate_is_refused(make_mosquitto, authority, certificate):
    broker = make_mosquitto(certificate=getattr(authority, certificate))
    with pytest.raises(ssl.SSLCertVerificationError):
        connack(broker.tls_port, trusting(authority.path))


def test_another_authority_is_refused(mosquitto_tls, tmp_path):
    with pytest.raises(ssl.SSLCertVerificationError):
        connack(mosquitto_tls.tls_port, trusting(Authority(tmp_path, "other").path))


def test_mosquitto_asks_for_a_client_certificate(make_mosquitto, authority):
    broker = make_mosquitto(certificate=authority.server, client_ca=authority.path)
    context = trusting(authority.path)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        assert connack(broker.tls_port, context) == ACCEPTED
    context.load_cert_chain(authority.client.chain, authority.client.key)
    assert connack(broker.tls_port, context) == ACCEPTED


@pytest.mark.parametrize("is_tls", [False, True])
def test_mosquitto_speaks_websocket(mosquitto_websocket, authority, is_tls):
    request = (
        b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Protocol: mqtt\r\n\r\n"
    )
    broker = mosquitto_websocket
    port = broker.secure_websocket_port if is_tls else broker.websocket_port
    with socket.create_connection(("127.0.0.1", port), 5) as raw:
        context = trusting(authority.path)
        client = context.wrap_socket(raw, server_hostname="localhost") if is_tls else raw
        with client:
            client.sendall(request)
            assert client.recv(100).startswith(b"HTTP/1.1 101")


def test_the_brokers_of_the_tests_are_not_on_the_network(mosquitto_websocket):
    own = {f"{port:04X}" for port in mosquitto_websocket._ports()}
    seen = []
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            address, port = line.split()[1].split(":")
            if port in own and line.split()[3] == "0A":
                seen.append(address)
    assert len(seen) == len(own)
    assert all(address.endswith("0100007F") for address in seen)
