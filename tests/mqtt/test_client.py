"""The client against a broker that is slow, silent, rude, or gone."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import socket
import threading
import time
import traceback

import pytest
import reactivex
from brokers import Authority
from cryptography.hazmat.primitives import serialization
from reactivex.disposable import SerialDisposable
from reactivex.subject import Subject
from scripted import (
    DISCONNECT,
    PINGREQ,
    PUBACK,
    PUBLISH,
    SUBSCRIBE,
    ScriptedBroker,
    packet,
    publish,
)
from serving import serve, until_disconnect

from rxflow import (
    ConfigError,
    ConnectError,
    DecodeError,
    JsonLinesSink,
    JsonSink,
    MqttSink,
    RxflowError,
    RxflowWarning,
    SinkError,
    Will,
    from_mqtt,
    read_rows,
    run,
)
from rxflow import operators as ops
from rxflow.log import logger
from rxflow.mqtt.client import Client
from rxflow.mqtt.options import Options

LOGIN = {"username": "wiredflow", "password": "wiredflow"}


def quiet(*pipelines, **settings):
    return run(*pipelines, log=False, **settings)


def five(broker):
    return broker.url.replace("3.1.1", "5")


def accept_5(conversation, properties=b""):
    """CONNACK of MQTT 5 with properties; SUBACK."""
    conversation.expect(0x10)
    conversation.send(packet(0x20, b"\0\0" + bytes([len(properties)]) + properties))
    conversation.accept_subscription(version=5)


# -- keep alive ------------------------------------------------------------------------------------


def pings(conversation, count):
    """When so many PINGREQ came, each answered."""
    times = []
    while len(times) < count:
        assert conversation.read()[0] == PINGREQ
        conversation.send(b"\xd0\x00")
        times.append(time.monotonic())
    return times


def test_a_quiet_connection_is_kept_alive_by_a_ping_within_each_keep_alive():
    times = []

    def script(conversation):
        conversation.accept()
        conversation.accept_subscription()
        times.append(time.monotonic())
        times.extend(pings(conversation, 3))
        conversation.send(publish("a", qos=0))
        until_disconnect(conversation)

    with ScriptedBroker(script) as broker:
        quiet(from_mqtt(broker.url, "a", keep_alive=1).pipe(ops.take(1)), reactivex.Observer())
    assert max(after - before for before, after in itertools.pairwise(times)) < 1.5


def test_the_keep_alive_of_the_server_wins():
    def script(conversation):
        accept_5(conversation, b"\x13\0\1")  # Server Keep Alive: 1 s
        pings(conversation, 2)
        conversation.send(publish("a", qos=0).replace(b"\0\1a", b"\0\1a\0").replace(b"\4", b"\5"))
        until_disconnect(conversation)

    with ScriptedBroker(script) as broker:
        source = from_mqtt(five(broker), "a", keep_alive=3600).pipe(ops.take(1))
        assert quiet(source, reactivex.Observer(), seconds=20).received == 1


def test_keep_alive_0_sends_no_ping():
    kinds = []

    def script(conversation):
        conversation.accept()
        conversation.accept_subscription()
        while not kinds:
            kinds.append(conversation.read()[0])

    with ScriptedBroker(script) as broker:
        quiet(from_mqtt(broker.url, "a", keep_alive=0), reactivex.Observer(), seconds=0.8)
    assert kinds == [DISCONNECT]


# -- leaving ---------------------------------------------------------------------------------------


def test_a_session_taken_over_three_times_is_a_connect_error():
    def script(conversation):
        accept_5(conversation)
        conversation.send(packet(DISCONNECT, b"\x8e\0"))
        conversation.read_to_end()

    with ScriptedBroker(script, script, script) as broker:
        source = from_mqtt(five(broker), "a", client_id="mine")
        with pytest.raises(ConnectError, match="'mine' took the session over, again") as caught:
            quiet(source, reactivex.Observer())
    assert caught.value.reason_code == 0x8E


def test_why_the_broker_closes_is_logged_and_another_connection_serves():
    def leave(conversation):
        accept_5(conversation)
        conversation.send(packet(DISCONNECT, b"\x8b\0"))  # server shutting down
        conversation.read_to_end()

    def stay(conversation):
        accept_5(conversation)
        conversation.send(packet(PUBLISH, b"\0\1a\0" + b"1"))
        until_disconnect(conversation)

    lines = []
    with ScriptedBroker(leave, stay) as broker:
        number = logger.add(lines.append, level="WARNING", format="{message}")
        run(from_mqtt(five(broker), "a").pipe(ops.take(1)), reactivex.Observer())
        logger.remove(number)
    assert "server shutting down" in lines[0]


# -- how bytes come and go -------------------------------------------------------------------------


def test_packets_may_come_byte_by_byte(tmp_path):
    def script(conversation):
        conversation.accept()
        conversation.accept_subscription()
        for byte in publish("a", b'{"n":1}', 1, 1) + publish("a", b"[" + b"2," * 99 + b"2]", 1, 2):
            conversation.send(bytes([byte]))
            time.sleep(0.0005)  # so that each is a segment of its own
        assert conversation.packet_ids(PUBACK, 2) == [1, 2]
        until_disconnect(conversation)

    with ScriptedBroker(script) as broker:
        quiet(from_mqtt(broker.url, "a").pipe(ops.take(2)), JsonSink(tmp_path / "a.json"))
    assert list(read_rows(tmp_path / "a.json")) == [{"n": 1}, [2] * 100]


def test_packets_larger_than_a_read_arrive_whole():
    sizes = []
    payloads = [b"x" * size for size in (1_000_000, 0, 700_000, 1)]
    packets = [publish("a", each, 1, n) for n, each in enumerate(payloads, 1)]
    with ScriptedBroker(serve(*packets)) as broker:
        source = from_mqtt(broker.url, "a").pipe(ops.take(4))
        quiet(source, reactivex.Observer(lambda m: sizes.append(len(m.payload))))
    assert sizes == [1_000_000, 0, 700_000, 1]


def test_a_message_above_the_limit_fails_the_stream_and_its_error_names_topic_and_size():
    def script(conversation):
        conversation.accept()
        conversation.accept_subscription()
        conversation.send(b"\x32\xff\xff\xff\x7f\0\5big/1\0\7")  # 256 MB are to come
        assert PUBACK not in conversation.read_to_end()

    with ScriptedBroker(script) as broker:
        source = from_mqtt(broker.url, "#", client_id="me")
        with pytest.raises(
            DecodeError, match=r"268,435,455 bytes.*'big/1'.*16,777,216.*rejected="
        ) as e:
            quiet(source, reactivex.Observer())
    assert e.value.topic == "big/1"


@pytest.mark.parametrize("version", [3, 5])
def test_a_message_above_the_limit_is_set_aside_and_the_stream_goes_on(tmp_path, version):
    empty = b"\0" * (version == 5)
    large, small = packet(0x32, b"\0\1b\0\7" + empty + b"x" * 5_000), b"\0\1a\0\x08" + empty + b"1"

    def script(conversation):
        conversation.accept(version=version)
        # A broker that is told the limit drops what is above it without a word.
        assert b"\x27\0\0\x03\xe8" not in conversation.connect
        conversation.accept_subscription(version=version)
        conversation.send(large + packet(0x32, small))
        assert conversation.packet_ids(PUBACK, 2) == [7, 8]
        until_disconnect(conversation)

    path = tmp_path / "bad.jsonl"
    with ScriptedBroker(script) as broker:
        source = from_mqtt(
            broker.url.replace("3.1.1", "5" if version == 5 else "3.1.1"),
            "#",
            max_packet_bytes=1000,
            rejected=JsonLinesSink(path),
        )
        report = quiet(source.pipe(ops.take(1)), JsonSink(tmp_path / "good.json"))
    (row,) = read_rows(path)
    assert (row["topic"], report.rejected, report.stored) == ("b", 1, 1)
    assert "5,0" in row["error"]
    assert "max_packet_bytes=1,000" in row["error"]


def test_a_packet_whose_end_never_comes_is_given_up_though_each_ping_is_answered():
    def script(conversation):
        conversation.accept()
        conversation.accept_subscription()
        conversation.send(publish("a", b"x" * 1000)[:500])
        assert set(until_disconnect(conversation)) == set()

    with ScriptedBroker(script, serve(publish("a"))) as broker:
        source = from_mqtt(broker.url, "a", client_id="me", keep_alive=1).pipe(ops.take(1))
        lines = []
        number = logger.add(lines.append, level="WARNING", format="{message}")
        run(source, reactivex.Observer())
        logger.remove(number)
    assert any("stopped in its middle" in line for line in lines)


def test_large_messages_are_bounded_in_bytes_and_reading_goes_on_at_half():
    held, seen = [], []

    def script(conversation):
        conversation.accept()
        conversation.accept_subscription()
        for n in range(1, 9):
            conversation.send(publish("a", b"x" * 300_000, packet_id=n))
        assert conversation.packet_ids(PUBACK, 6) == list(range(1, 7))
        until_disconnect(conversation)

    def keep(message):
        held.append(message)
        seen.append(len(held))
        if len(held) == 3:
            asyncio.get_running_loop().call_later(0.01, held.clear)

    with ScriptedBroker(script) as broker:
        source = from_mqtt(broker.url, "a", max_pending_bytes=1_000_000)
        source = source.pipe(ops.do_action(keep), ops.map(lambda m: len(m.payload)), ops.take(8))
        quiet(
            source.pipe(ops.do_action(lambda _: len(seen) > 6 and held.clear())),
            reactivex.Observer(),
        )
    assert max(seen) == 3


def test_a_broker_that_delivers_under_another_topic_is_heard_and_told_once(tmp_path):
    """RabbitMQ turns `.` into `/`; some brokers have filters of their own kind."""
    path, lines = tmp_path / "rows.json", []
    script = serve(
        publish("a/b", b"1", 1, 1), publish("a/c", b"2", 2, 2), publish("a.b", b"3", 1, 3)
    )
    with ScriptedBroker(script) as broker:
        number = logger.add(lines.append, level="WARNING", format="{message}")
        report = run(from_mqtt(broker.url, "a.b").pipe(ops.take(3)), JsonSink(path))
        logger.remove(number)
    assert list(read_rows(path)) == [1, 2, 3]
    assert report.stored == 3
    assert ["a/b" in line for line in lines if "no filter matches" in line] == [True]


def test_a_broker_that_does_not_read_gets_everything_when_it_does():
    count, size, go = 40, 100_000, threading.Event()

    def script(conversation):
        conversation.accept()
        assert go.wait(60)
        for n in range(count):
            first, body = conversation.expect(PUBLISH)
            assert (first, len(body)) == (0x32, 2 + 1 + 2 + size)
            assert body[5:] == bytes([n]) * size
            conversation.send(packet(PUBACK, body[3:5]))
        until_disconnect(conversation)

    with ScriptedBroker(script) as broker:
        sink = MqttSink(broker.url, topic="a")
        items = reactivex.range(count).pipe(ops.map(lambda n: bytes([n]) * size))
        ready = reactivex.timer(0.2).pipe(ops.do_action(lambda _: go.set()))
        report = quiet((items, sink), (ready, reactivex.Observer()))
    assert report.stored == count


def test_at_max_pending_it_stops_reading_and_goes_on_at_half():
    count, kept, most = 30, [], []

    def keep(message):
        kept.append(message)
        most.append(len(kept))
        if len(kept) == 10:  # nothing more comes until some are let go
            asyncio.get_running_loop().call_later(0.05, kept.clear)

    packets = [publish("a", b"%d" % n, 1, n) for n in range(1, count + 1)]
    with ScriptedBroker(serve(*packets)) as broker:
        source = from_mqtt(broker.url, "a", max_pending=10).pipe(ops.do_action(keep))
        report = quiet(source.pipe(ops.take(count)), reactivex.Observer())
    assert (max(most), len(most), report.received) == (10, count, count)


def test_output_that_a_lost_connection_left_unsent_is_sent_on_the_next():
    sizes = []

    def cut(conversation):
        conversation._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        conversation.accept()
        conversation._connection.recv(1000)

    def take(conversation):
        conversation.accept()
        for _ in range(20):
            _, body = conversation.expect(PUBLISH)
            sizes.append(len(body))
            conversation.send(packet(PUBACK, body[3:5]))
        until_disconnect(conversation)

    with ScriptedBroker(cut, take) as broker:
        items = reactivex.range(20).pipe(ops.map(lambda _: b"x" * 500_000))
        report = quiet(items, MqttSink(broker.url, topic="a"))
    assert (report.stored, set(sizes)) == (20, {500_005})


def test_a_broker_that_never_answers_subscribe_is_left_for_another_attempt():
    def silent(conversation):
        conversation.accept()
        conversation.expect(SUBSCRIBE)
        conversation.read_to_end()

    lines = []
    with ScriptedBroker(silent, serve(publish("a"))) as broker:
        number = logger.add(lines.append, level="WARNING", format="{message}")
        report = run(
            from_mqtt(broker.url, "a", answer_timeout=0.3).pipe(ops.take(1)), reactivex.Observer()
        )
        logger.remove(number)
    assert report.received == 1
    assert "no answer to SUBSCRIBE within 0.3 s" in lines[0]


def test_messages_before_the_answer_to_subscribe_are_sign_enough():
    def talkative(conversation):
        conversation.accept()
        _, body = conversation.expect(SUBSCRIBE)
        for number in range(1, 8):
            time.sleep(0.1)
            conversation.send(publish("a", b"%d" % number, 1, number))
        conversation.send(packet(0x90, body[:2] + b"\1"))
        until_disconnect(conversation)

    with ScriptedBroker(talkative) as broker:
        report = quiet(
            from_mqtt(broker.url, "a", answer_timeout=0.2).pipe(ops.take(7)), reactivex.Observer()
        )
    assert report.received == 7


def test_an_answer_that_makes_no_sense_ends_the_connection_and_the_next_one_serves():
    def script(conversation):
        conversation.accept()
        conversation.expect(SUBSCRIBE)
        conversation.send(packet(0x90, b""))
        conversation.read_to_end()

    lines = []
    with ScriptedBroker(script, serve(publish("a"))) as broker:
        number = logger.add(lines.append, level="WARNING", format="{message}")
        run(from_mqtt(broker.url, "a").pipe(ops.take(1)), reactivex.Observer())
        logger.remove(number)
    assert "no connection" in lines[0]


def test_what_nobody_foresaw_while_connecting_is_a_connect_error(monkeypatch):
    def raising(_):
        raise LookupError("boom")

    monkeypatch.setattr("rxflow.mqtt._paho.Paho.open", raising)
    with pytest.raises(ConnectError, match="boom") as caught:
        quiet(from_mqtt("mqtt://127.0.0.1:1", "a"), reactivex.Observer())
    assert isinstance(caught.value.__cause__, LookupError)


# -- closing ---------------------------------------------------------------------------------------


def test_closing_while_connecting_leaves_no_thread_and_no_socket():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"mqtt://127.0.0.1:{listener.getsockname()[1]}"
        for _ in range(5):
            from_mqtt(url, "a").subscribe(reactivex.Observer()).dispose()


def test_closing_while_nobody_answers_connect_is_prompt():
    def script(conversation):
        conversation.expect(0x10)
        conversation.read_to_end()

    with ScriptedBroker(script) as broker:
        source = from_mqtt(broker.url, "a")
        report = quiet(source, reactivex.Observer(), seconds=0.3, needs_connection=False)
    assert report.seconds < 4


class Leaving:
    """A peer that closes its client in the instant of CONNACK, or right when it is told to."""

    def __init__(self):
        self.client = None
        self.is_closing = asyncio.Event()

    def connected(self, *_):
        self.closing = asyncio.ensure_future(self.client.close(deadline=0))
        self.is_closing.set()

    def __getattr__(self, name):
        return lambda *_, **__: None


async def left(url, act):
    """Connect; `act` gets the task of the closing that begins with CONNACK."""
    peer = Leaving()
    settings = Options(url, {"connect_timeout": 10.0}, client_id="me").settings()
    peer.client = Client(settings, peer, asyncio.get_running_loop())
    peer.client.start()
    async with asyncio.timeout(10):
        await peer.is_closing.wait()
        await act(peer.closing)


def test_closing_in_the_instant_of_connack_ends():
    async def act(closing):
        done, _ = await asyncio.wait([closing], timeout=3)
        assert done

    with ScriptedBroker(lambda conversation: conversation.accept()) as broker:
        asyncio.run(left(broker.url, act))


def test_a_closing_that_is_cancelled_says_so(monkeypatch):
    async def linger(client):
        client.peer.connected()
        try:
            await asyncio.Event().wait()
        finally:
            client.peer.closing.cancel()  # it waits for this very task
            await asyncio.sleep(0)

    async def act(closing):
        done, _ = await asyncio.wait([closing], timeout=3)
        assert done
        assert closing.cancelled()

    monkeypatch.setattr(Client, "_stay_connected", linger)
    asyncio.run(left("mqtt://127.0.0.1:1", act))


def test_dispose_may_come_twice_and_within_on_next():
    subscription = SerialDisposable()
    seen, kinds = [], []
    ended = threading.Event()

    def dispose(message):
        seen.append(message.payload)
        subscription.dispose()
        subscription.dispose()
        ended.set()

    with ScriptedBroker(serve(*[publish("a")] * 5, kinds=kinds)) as broker:
        subscription.disposable = from_mqtt(broker.url, "a").subscribe(dispose)
        assert ended.wait(60)
    assert seen == [b"1"]
    assert kinds == [DISCONNECT]


def test_a_subscription_during_the_dispose_of_the_last_waits_for_it_to_leave():
    order, second = [], threading.Event()

    def first_script(conversation):
        serve(publish("a"))(conversation)
        order.append("gone")

    def second_script(conversation):
        conversation.accept()
        order.append("back")
        conversation.accept_subscription()
        conversation.send(publish("a", b"2"))
        until_disconnect(conversation)

    async def main():
        got = asyncio.Queue()
        source = from_mqtt(broker.url, "a", client_id="me")
        subscription = source.subscribe(lambda m: got.put_nowait(m.payload))
        assert await got.get() == b"1"
        subscription.dispose()
        subscription = source.subscribe(lambda m: got.put_nowait(m.payload))
        assert await got.get() == b"2"
        subscription.dispose()
        second.set()
        while len(asyncio.all_tasks()) > 1:  # noqa: ASYNC110 (nothing says that they are gone)
            await asyncio.sleep(0.01)

    with ScriptedBroker(first_script, second_script) as broker:
        asyncio.run(main())
    assert order == ["gone", "back"]


def test_a_reconnect_to_a_broker_that_kept_the_session_subscribes_to_nothing():
    kinds = []

    def first(conversation):
        conversation.accept()
        conversation.accept_subscription()

    def second(conversation):
        conversation.accept(session_present=True)
        conversation.send(publish("a"))
        kinds.extend(until_disconnect(conversation))

    with ScriptedBroker(first, second) as broker:
        quiet(from_mqtt(broker.url, "a", client_id="me").pipe(ops.take(1)), reactivex.Observer())
    assert SUBSCRIBE not in kinds


# -- a session and its outputs ---------------------------------------------------------------------


@pytest.mark.parametrize("qos", [1, 2])
def test_an_output_that_continues_the_session_of_another_says_so_once(tmp_path, qos):
    """A journal is good for the connections that it saw: going back to the other may lose."""
    told = []

    def script(conversation):
        conversation.accept(session_present=True)
        conversation.accept_subscription(qos)
        conversation.send(publish("a", b"1", 0))
        until_disconnect(conversation)

    for name in ("first.json", "second.json"):
        lines = []
        with ScriptedBroker(script) as broker:
            number = logger.add(lines.append, level="WARNING", format="{message}")
            source = from_mqtt(broker.url, ("a", qos), client_id="me")
            run(source.pipe(ops.take(1)), JsonSink(tmp_path / name))
            logger.remove(number)
        told.append(any("is not known to have had it" in line for line in lines))
    assert told == [qos == 2] * 2


def test_an_output_that_continues_its_own_session_says_nothing_of_another(tmp_path):
    lines = []

    def script(conversation, session_present):
        conversation.accept(session_present=session_present)
        conversation.accept_subscription(2)
        conversation.send(publish("a", b"1", 0))
        until_disconnect(conversation)

    scripts = [
        lambda c: script(c, session_present=False),
        lambda c: script(c, session_present=True),
    ]
    with ScriptedBroker(*scripts) as broker:
        number = logger.add(lines.append, level="WARNING", format="{message}")
        for _ in range(2):
            source = from_mqtt(broker.url, ("a", 2), client_id="me")
            run(source.pipe(ops.take(1)), JsonSink(tmp_path / "rows.json"))
        logger.remove(number)
    assert not any("is not known to have had it" in line for line in lines)


# -- the will --------------------------------------------------------------------------------------

WILL = Will("state", b"offline", 1)


def ended_by(conversation, version):
    """Serve one message; the DISCONNECT that comes, None if the end comes without one."""
    conversation.accept(version=version)
    conversation.accept_subscription(version=version)
    conversation.send(packet(0x32, b"\0\1a\0\x08" + b"\0" * (version == 5) + b"{"))
    try:
        while True:
            first, body = conversation.read()
            if first & 0xF0 == DISCONNECT:
                return body
    except ConnectionError:
        return None


@pytest.mark.parametrize("will", [WILL, None])
@pytest.mark.parametrize("version", [3, 5])
@pytest.mark.parametrize("end", ["DecodeError", "raised", "sink", "take"])
def test_a_stream_that_fails_leaves_its_will_and_one_that_ends_does_not(
    tmp_path, version, will, end
):
    said = []
    operators = {
        "DecodeError": [ops.decode_json()],
        "raised": [ops.map(lambda m: m.payload / 0)],
        "sink": [ops.map(lambda m: object())],
        "take": [ops.take(1), ops.map(lambda m: 1)],
    }[end]
    with ScriptedBroker(lambda c: said.append(ended_by(c, version))) as broker:
        url = five(broker) if version == 5 else broker.url
        source = from_mqtt(url, "a", client_id="me", will=will)
        with contextlib.suppress(RxflowError, TypeError):
            quiet(source.pipe(*operators), JsonSink(tmp_path / "rows.json"))
    is_left = will is not None and end != "take"
    assert said == [{(5, True): b"\x04\0", (3, True): None}.get((version, is_left), b"")]


@pytest.mark.parametrize("is_clean", [True, False])
def test_the_will_of_a_sink_that_fails_is_left_too(is_clean):
    said = []

    def script(conversation):
        conversation.accept()
        conversation.send(packet(PUBACK, conversation.expect(PUBLISH)[1][3:5]))
        said.extend(conversation.read_to_end())

    with ScriptedBroker(script) as broker:
        sink = MqttSink(broker.url, topic="a", will=WILL)
        later = reactivex.timer(0.2).pipe(ops.map(lambda _: object()))
        source = reactivex.of(b"1").pipe(ops.concat(reactivex.empty() if is_clean else later))
        with contextlib.suppress(SinkError):
            quiet(source, sink)
    assert (DISCONNECT in said) is is_clean


# -- what expires, and is read again ---------------------------------------------------------------


def test_a_function_gives_the_password_of_each_connection():
    passwords = iter(["first-token", "second-token"])
    seen = []

    def script(conversation):
        conversation.accept()
        seen.append(conversation.connect[-12:])
        if len(seen) == 2:
            conversation.accept_subscription()
            conversation.send(publish("a"))
            until_disconnect(conversation)

    with ScriptedBroker(script, script) as broker:
        source = from_mqtt(broker.url, "a", username="u", password=lambda: next(passwords))
        quiet(source.pipe(ops.take(1)), reactivex.Observer())
    assert b"first-token" in seen[0]
    assert b"second-token" in seen[1]


def test_a_function_for_the_password_that_raises_is_told_and_tried_again():
    def password():
        lines.append("asked")
        if lines.count("asked") == 1:
            raise OSError("no token today")
        return "token"

    lines = []
    with ScriptedBroker(serve(publish("a"))) as broker:
        source = from_mqtt(broker.url, "a", username="u", password=password).pipe(ops.take(1))
        number = logger.add(lines.append, level="WARNING", format="{message}")
        run(source, reactivex.Observer())
        logger.remove(number)
    assert "OSError: no token today; next attempt" in "".join(lines)


@pytest.mark.parametrize(("value", "named"), [(b"canary", "bytes"), ("canary" * 20_000, "65,535")])
def test_a_function_that_returns_no_password_is_a_connect_error_that_shows_nothing(value, named):
    source = from_mqtt("mqtt://127.0.0.1:1", "a", username="u", password=lambda: value)
    with pytest.raises(ConnectError, match=named) as caught:
        quiet(source, reactivex.Observer())
    assert "canary" not in "".join(traceback.format_exception(caught.value))


def test_certificates_that_are_renewed_while_we_run_are_used_at_the_next_connection(
    make_mosquitto, authority, tmp_path
):
    """The broker's authority is replaced: only who reads the file again can come back."""
    trusted, lines = tmp_path / "trusted.pem", []
    shutil.copy(authority.path, trusted)
    broker = make_mosquitto(certificate=authority.server)
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other", "other")

    def renew(_):
        broker.stop()
        trusted.write_bytes(other.path.read_bytes())
        broker._certificate = other.server
        broker.start()

    connects = []

    def connected(event):
        connects.append(event)
        if len(connects) == 1:
            threading.Thread(target=renew, args=(event,)).start()
        else:
            ended.on_next(None)

    ended = Subject()
    source = from_mqtt(
        broker.tls_url, "a", ca_file=str(trusted), client_id="me", on_connect=connected, **LOGIN
    )
    run(source.pipe(ops.take_until(ended)), reactivex.Observer(), seconds=30)
    assert len(connects) == 2, lines


@pytest.mark.parametrize("password", ["wrong", None, "canary"])
def test_an_encrypted_key_needs_its_password_and_nobody_is_asked(
    make_mosquitto, authority, tmp_path, password
):
    key = serialization.load_pem_private_key(authority.client.key.read_bytes(), None)
    locked = tmp_path / "locked.pem"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"canary"),
        )
    )
    broker = make_mosquitto(certificate=authority.server, client_ca=authority.path)
    files = {
        "ca_file": str(authority.path),
        "cert_file": str(authority.client.chain),
        "key_file": str(locked),
        "key_password": password,
    }
    if password == "canary":
        sink = MqttSink(broker.tls_url, topic="a", **files, **LOGIN)
        assert "canary" not in repr(sink) + repr(sink._options)
        assert quiet(reactivex.of(1), sink).stored == 1
        return
    with pytest.raises(ConfigError, match=r"locked\.pem" if password else "key_password"):
        MqttSink(broker.tls_url, topic="a", **files, **LOGIN)


def test_a_host_name_with_a_final_dot_has_a_certificate_without_it(
    monkeypatch, make_mosquitto, authority
):
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *args, **kw: real("127.0.0.1" if host == "localhost." else host, *args, **kw),
    )
    broker = make_mosquitto(certificate=authority.server)
    url = broker.tls_url.replace("localhost", "localhost.")
    assert "localhost." in url
    sink = MqttSink(url, topic="a", ca_file=str(authority.path), **LOGIN)
    assert quiet(reactivex.of(1), sink).stored == 1


# -- TLS -------------------------------------------------------------------------------------------


def test_a_broker_that_asks_for_a_certificate_serves_who_has_one(make_mosquitto, authority):
    broker = make_mosquitto(certificate=authority.server, client_ca=authority.path)
    files = {
        "ca_file": str(authority.path),
        "cert_file": str(authority.client.chain),
        "key_file": str(authority.client.key),
    }
    sink = MqttSink(broker.tls_url, topic="a", **files, **LOGIN)
    assert quiet(reactivex.of(1), sink).stored == 1


def test_a_broker_that_asks_for_a_certificate_is_never_silence(make_mosquitto, authority):
    broker = make_mosquitto(certificate=authority.server, client_ca=authority.path)
    settings = {"ca_file": str(authority.path), "connect_timeout": 0, **LOGIN}
    with pytest.raises(ConnectError, match="no connection to"):
        quiet(from_mqtt(broker.tls_url, "a", **settings), reactivex.Observer())


def test_a_broker_that_speaks_no_tls_is_a_connect_error_or_tried_again():
    def script(conversation):
        conversation.send(b"220 mail.example ready\r\n")
        conversation._connection.recv(65_536)

    with ScriptedBroker(script) as broker, pytest.raises(ConnectError):
        url = f"mqtts://localhost:{broker.port}?version=5"
        quiet(from_mqtt(url, "a", connect_timeout=0), reactivex.Observer())


def test_a_server_that_leaves_during_the_handshake_is_tried_again():
    with ScriptedBroker(lambda c: c._connection.recv(65_536)) as broker:
        url = f"mqtts://localhost:{broker.port}?version=5"
        with pytest.raises(ConnectError, match=r"no connection to .* within 0 s"):
            quiet(from_mqtt(url, "a", connect_timeout=0), reactivex.Observer())


def test_without_a_run_a_stream_that_fails_tells_its_observer():
    errors, failed = [], threading.Event()

    def on_error(error):
        errors.append(error)
        failed.set()

    source = from_mqtt("mqtt://127.0.0.1:1", "a", connect_timeout=0)
    source.subscribe(on_error=on_error)
    assert failed.wait(60)
    assert isinstance(errors[0], ConnectError)
    assert not isinstance(errors[0], RxflowWarning)
