"""MQTT over WebSocket, where the network or the server is slow, rude, or something else."""

from __future__ import annotations

import ssl
import traceback

import pytest
import reactivex
from scripted import ScriptedBroker
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, Pong, TextMessage

from rxflow import ConnectError, from_mqtt, run
from rxflow.log import logger
from rxflow.mqtt.websocket import WebSocket


class Stream:
    """A stream whose other end is a WebSocket server of the test's, and that takes bytes slowly."""

    def __init__(self, blocked=BlockingIOError):
        self.server = WSConnection(ConnectionType.SERVER)
        self.room = 1_000_000
        self.got = b""
        self._blocked = blocked
        self._to_client = b""
        self.request = None

    def do_handshake(self):
        pass

    def settimeout(self, seconds):
        pass

    def send(self, data):
        if not self.room:
            raise self._blocked
        count = min(self.room, len(data))
        self.room -= count
        self.server.receive_data(bytes(data[:count]))
        for event in self.server.events():
            if isinstance(event, BytesMessage):
                self.got += event.data
            elif isinstance(event, Pong):
                self.got += b"pong"
            elif not isinstance(event, CloseConnection):
                self.request = event
                self.say(AcceptConnection(subprotocol="mqtt"))
        return count

    def say(self, event):
        self._to_client += self.server.send(event)

    def recv(self, size):
        if not self._to_client:
            raise self._blocked
        taken, self._to_client = self._to_client[:size], self._to_client[size:]
        return taken


def connected(target="/mqtt", headers=None, **settings):
    stream = Stream(**settings)
    socket = WebSocket(stream, "h", 80, target, headers=headers or {})
    socket.do_handshake()
    return stream, socket


def sent(socket, stream, data, step):
    """Send all of it, as a wire does, with so much room at a time; how often it was blocked."""
    blocked = 0
    while data:
        try:
            del data[: socket.send(data)]
        except (BlockingIOError, ssl.SSLWantWriteError):
            blocked += 1
            stream.room = step
    return blocked


@pytest.mark.parametrize("blocked", [BlockingIOError, ssl.SSLWantWriteError])
def test_every_byte_is_sent_once_over_a_network_that_takes_little(blocked):
    stream, socket = connected(blocked=blocked)
    data = bytes(range(256)) * 1000
    stream.room = 0
    assert sent(socket, stream, bytearray(data), step=10_000) > 20
    assert stream.got == data


def test_what_is_added_behind_a_blocked_frame_follows_it():
    stream, socket = connected()
    stream.room = 1
    data = bytearray(b"first")
    with pytest.raises(BlockingIOError):
        socket.send(data)
    data += b"second"
    sent(socket, stream, data, step=3)
    assert stream.got == b"firstsecond"


def test_a_ping_is_answered_at_once_and_a_pong_ignored():
    stream, socket = connected()
    for event in (Ping(b"x"), Pong(b"y"), BytesMessage(data=b"mqtt")):
        stream.say(event)
    assert socket.recv(100) == b"mqtt"
    assert stream.got == b"pong"


def test_a_ping_that_can_not_be_answered_yet_disturbs_nothing():
    stream, socket = connected()
    stream.room = 0
    stream.say(Ping(b"x"))
    stream.say(BytesMessage(data=b"mqtt"))
    assert socket.recv(100) == b"mqtt"
    sent(socket, stream, bytearray(b"a"), step=100)
    assert stream.got == b"ponga"


def test_pings_of_a_server_that_reads_nothing_take_no_memory():
    stream, socket = connected()
    stream.room = 0
    for _ in range(10_000):
        stream.say(Ping(b"x" * 125))
    stream.say(BytesMessage(data=b"mqtt"))
    assert socket.recv(10_000_000) == b"mqtt"
    assert len(socket._raw) < 200_000


def test_a_text_frame_ends_the_connection():
    stream, socket = connected()
    stream.say(TextMessage(data="x"))
    with pytest.raises(ConnectionAbortedError, match="not binary"):
        socket.recv(100)


def test_the_end_comes_behind_what_was_sent_before():
    stream, socket = connected()
    stream.say(BytesMessage(data=b"last"))
    stream.say(CloseConnection(1000))
    assert [socket.recv(100), socket.recv(100), socket.recv(100)] == [b"last", b"", b""]


@pytest.mark.parametrize("target", ["/", "//p", "/mqtt?token=x&y"])
def test_path_and_query_are_asked_for_as_given_and_headers_are_sent(target):
    stream, _ = connected(target, {"Authorization": "Bearer x"})
    assert stream.request.target == target
    assert (b"authorization", b"Bearer x") in stream.request.extra_headers


def test_a_server_that_closed_gets_nothing_and_no_error_shows_what_it_would_have_got():
    stream, socket = connected()
    stream.say(CloseConnection(1000))
    assert socket.recv(100) == b""
    secret = b"can" + b"ary"
    with pytest.raises(ConnectionResetError) as caught:
        socket.send(secret)
    assert "canary" not in "".join(traceback.format_exception(caught.value))


def test_what_is_no_frame_ends_the_connection():
    stream, socket = connected()
    stream._to_client += b"\xff\xff\xff"
    assert socket.recv(100) == b""


def test_a_handshake_that_drips_has_five_seconds_in_all():
    """Each byte comes within the stream's own timeout."""

    class Dripping(Stream):
        now = 0.0
        waits = ()

        def settimeout(self, seconds):
            self.waits += (seconds,)

        def recv(self, size):
            self.now += 1.0
            return super().recv(1)

    stream = Dripping()
    with pytest.raises(TimeoutError, match="within 5 s"):
        WebSocket(stream, "h", 80, "/mqtt", clock=lambda: stream.now).do_handshake()
    assert stream.waits == (5, 5, 4, 3, 2, 1)


def answering(answer):
    def script(conversation):
        conversation._connection.recv(65_536)
        conversation.send(answer)

    return script


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "status 404"),
        (b"220 mail.example ready\r\n\r\n", "no WebSocket server"),
    ],
)
def test_a_server_that_speaks_no_websocket_is_a_connect_error(answer, named):
    with ScriptedBroker(answering(answer)) as broker, pytest.raises(ConnectError, match=named):
        url = broker.url.replace("mqtt:", "ws:")
        run(from_mqtt(url, "a"), reactivex.Observer(), log=False)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", b""])
def test_a_proxy_whose_broker_is_away_is_tried_again(answer):
    with ScriptedBroker(answering(answer)) as broker:
        url = broker.url.replace("mqtt:", "ws:")
        source = from_mqtt(url, "a", connect_timeout=0)
        with pytest.raises(ConnectError, match=r"no connection to .* within 0 s"):
            run(source, reactivex.Observer(), log=False)


def upgrading(then):
    """A gateway that accepts the WebSocket of each client, and then sends this and closes."""

    def script(conversation):
        server = WSConnection(ConnectionType.SERVER)
        server.receive_data(conversation._connection.recv(65_536))
        accepted = server.send(AcceptConnection(subprotocol="mqtt"))
        conversation.send(accepted + (server.send(then) if then else b""))

    return script


@pytest.mark.parametrize(
    "then", [None, CloseConnection(1001), TextMessage(data="x")], ids=["eof", "close", "text"]
)
def test_a_gateway_that_closes_right_after_the_upgrade_is_tried_again_and_shows_nothing(
    then, capsys
):
    lines = []
    with ScriptedBroker(upgrading(then), upgrading(then), upgrading(then)) as broker:
        url = broker.url.replace("mqtt:", "ws:").replace("?", "/p?token=canary&")
        source = from_mqtt(
            url,
            "a",
            username="u",
            password="canary",
            headers={"Authorization": "canary"},
            connect_timeout=4,
        )
        number = logger.add(lines.append, level=0, backtrace=True, diagnose=True)
        with pytest.raises(ConnectError, match="no connection to") as caught:
            run(source, reactivex.Observer())
        logger.remove(number)
    shown = "".join([*lines, *traceback.format_exception(caught.value), *capsys.readouterr()])
    assert "next attempt" in shown
    assert "canary" not in shown


@pytest.mark.parametrize("is_http", [True, False])
def test_a_server_that_echoes_shows_nothing_of_what_it_got(is_http):
    def script(conversation):
        data = conversation._connection.recv(65_536)
        conversation.send(data if is_http else b"x" * 10 + data)

    with ScriptedBroker(script) as broker:
        url = broker.url.replace("mqtt:", "ws:").replace("?", "/p?token=canary&")
        source = from_mqtt(url, "a", headers={"Authorization": "canary"})
        with pytest.raises(ConnectError, match="no WebSocket server") as caught:
            run(source, reactivex.Observer(), log=False)
    assert "canary" not in "".join(traceback.format_exception(caught.value))
