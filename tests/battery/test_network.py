"""C7, C8, C9, C15, C18: networks that fail, brokers that vanish, freeze, forget."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import reactivex
from battery.proxy import Proxy
from battery.sizes import (
    BLACK_HOLE,
    BROKER_RESTARTS,
    FULL,
    KEEP_ALIVE,
    NETWORK_FAULTS,
    PATIENCE,
    only_in_full,
)
from scripted import PUBACK, PUBREC, SUBSCRIBE, Conversation, ScriptedBroker, publish

from rxflow import ConnectError, JsonSink, from_mqtt, read_rows, run_async
from rxflow.delivery import Ledger
from rxflow.log import logger
from rxflow.mqtt import options
from rxflow.mqtt.client import Client
from rxflow.mqtt.link import Link
from rxflow.mqtt.takeovers import ROUNDS
from rxflow.testing import NumberedPublisher

PIPELINE = Path(__file__).with_name("pipeline.py")
LOGIN = {"username": "wiredflow", "password": "wiredflow"}
TOPIC = "battery/n"
WAIT = Client._wait


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Try again at once, or nearly: the waits are another test's subject."""
    monkeypatch.setattr(Client, "_wait", staticmethod(lambda _: 0.05))
    answer_timeout = options._OPTIONS["answer_timeout"].replace(default=1.0)
    monkeypatch.setitem(options._OPTIONS, "answer_timeout", answer_timeout)


@pytest.fixture
def log():
    lines: list[str] = []
    number = logger.add(lines.append, level="INFO", format="{message}")
    yield lines
    logger.remove(number)


async def until(is_so: Callable[[], object], what: str = "", *, patience: float = PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while not is_so():
        assert time.monotonic() < deadline, what or "it did not come in time"
        await asyncio.sleep(0.01)


def numbered(url: str, **settings) -> NumberedPublisher:
    return NumberedPublisher(url, TOPIC, payload=lambda n: b'{"n": %d}' % n, **LOGIN, **settings)


def numbers(path: Path) -> list[int]:
    return [row["n"] for row in read_rows(path)] if path.exists() else []


@contextlib.asynccontextmanager
async def pipeline(url: str, path: Path, **settings) -> AsyncIterator[list[object]]:
    """A pipeline into a file; inside the block its subscription stands."""
    connects: list[object] = []
    source = from_mqtt(url, TOPIC, on_connect=connects.append, **LOGIN, **settings)
    running = asyncio.ensure_future(run_async(source, JsonSink(path)))
    try:
        await until(lambda: connects or running.done())
        yield connects
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


# -- C7: the network -------------------------------------------------------------------------------


async def fault(proxy: Proxy, which: str) -> None:
    connection = proxy.latest
    if which == "reset":
        connection.reset()
    elif which == "cut inside a packet":
        connection.cut_inside_a_packet()
    elif which == "half open":
        connection.half_open()
    else:
        with connection.black_hole():
            await asyncio.sleep(0.5 if which == "short hole" else BLACK_HOLE)


@pytest.mark.parametrize("qos", [1, 2] if FULL else [2])
def test_a_network_that_fails_costs_no_message(mosquitto, tmp_path, qos):
    path = tmp_path / "rows.json"
    kinds = ["half open", "cut inside a packet", "reset", "long hole", "short hole"]
    instants = random.Random(qos)

    async def main(proxy: Proxy, publisher: NumberedPublisher) -> None:
        async with pipeline(proxy.url, path, qos=qos, keep_alive=KEEP_ALIVE) as connects:
            with publisher:
                for turn in range(NETWORK_FAULTS):
                    which = kinds[turn % len(kinds)]
                    before = len(connects)
                    began = time.monotonic()
                    await fault(proxy, which)
                    if which != "short hole":
                        await until(lambda n=before: len(connects) > n, f"no way back: {which}")
                        took = time.monotonic() - began
                        assert took <= BLACK_HOLE + 2 * KEEP_ALIVE + 2, which
                    await asyncio.sleep(instants.uniform(0.05, 0.2))
                await asyncio.to_thread(publisher.stop)
            await until(lambda: set(publisher.acknowledged) <= set(numbers(path)), "lost")

    with Proxy(mosquitto.port) as proxy:
        publisher = numbered(mosquitto.url, qos=qos, rate=500)
        asyncio.run(main(proxy, publisher))
    found = numbers(path)
    assert set(found) == set(publisher.acknowledged)
    assert list(dict.fromkeys(found)) == sorted(set(found))
    if qos == 2:  # no crash: what was received stands in the ledger
        assert len(found) == len(set(found))


# -- C8: the broker is restarted -------------------------------------------------------------------


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_a_broker_that_is_restarted_costs_no_message(mosquitto, tmp_path, version):
    path = tmp_path / "rows.json"

    async def main(proxy: Proxy, publisher: NumberedPublisher) -> None:
        async with pipeline(proxy.url, path) as connects:
            with publisher:
                for turn in range(BROKER_RESTARTS):
                    stored = len(numbers(path))
                    await until(lambda n=stored: len(numbers(path)) > n, "nothing comes")
                    await asyncio.sleep(0.2)
                    await asyncio.to_thread(mosquitto.stop)
                    await asyncio.to_thread(mosquitto.start)
                    await until(lambda n=turn: len(connects) > n + 1, "no way back")
                await asyncio.sleep(0.2)
                await asyncio.to_thread(publisher.stop)
            await until(lambda: set(publisher.acknowledged) <= set(numbers(path)), "lost")
            assert all(each.session_present for each in connects[1:])

    with Proxy(mosquitto.port, version=version) as proxy:
        # An id, so that its own session outlives the restart too.
        publisher = numbered(mosquitto.url, rate=300, client_id="publisher")
        asyncio.run(main(proxy, publisher))
        subscribed = [len(connection.sent(SUBSCRIBE)) for connection in proxy.connections]
    served = [count for count in subscribed if count]
    assert served[0] == 1
    # MQTT 5 can be asked without being sent retained messages again, 3.1.1 can't.
    assert len(served) == (1 + BROKER_RESTARTS if version == "5" else 1)


# -- C9: the broker forgets ------------------------------------------------------------------------


class Keeping:
    """An observer that stores when it is told to."""

    def __init__(self) -> None:
        self.messages = []

    def on_next(self, message) -> None:
        self.messages.append(message)

    def store(self, count: int) -> None:
        touched: set[Ledger] = set()
        for message in self.messages[:count]:
            message.delivery.take(1)
            message.delivery.store(touched)
        del message, self.messages[:count]
        for ledger in touched:
            ledger.wake()

    @property
    def payloads(self) -> list[tuple[bytes, bool]]:
        return [(message.payload, message.duplicate) for message in self.messages]


async def late_acknowledgements(broker, proxy: Proxy, qos: int) -> tuple[int, list]:
    """Five messages are held over the death of a broker without persistence, then stored.

    Returns how many acknowledgements went out for them, and which of five new messages, with the
    same packet ids, the broker still has after a cut.
    """
    kept = Keeping()
    connects: list[object] = []
    source = from_mqtt(
        proxy.url, TOPIC, qos=qos, client_id="me", on_connect=connects.append, **LOGIN
    )
    subscription = source.subscribe(kept.on_next, lambda _: None)
    await until(lambda: connects)
    with numbered(broker.url, qos=2, most=5) as publisher:
        await asyncio.to_thread(publisher.wait)
    await until(lambda: len(kept.messages) == 5)
    await asyncio.to_thread(broker.kill)
    await asyncio.to_thread(broker.start)
    await until(lambda: len(connects) == 2)
    with numbered(broker.url, qos=2, first=5, most=5) as publisher:
        await asyncio.to_thread(publisher.wait)
    await until(lambda: len(kept.messages) == 10)
    kept.store(5)
    await asyncio.sleep(0.2)
    stale = len(proxy.latest.sent(PUBACK, PUBREC))
    subscription.dispose()
    kept.messages.clear()  # with a closed ledger: as in a crash, nothing is acknowledged
    again = Keeping()
    other = from_mqtt(proxy.url, TOPIC, qos=qos, client_id="me", **LOGIN)
    subscription = other.subscribe(again.on_next, lambda _: None)
    with contextlib.suppress(AssertionError, TimeoutError):
        async with asyncio.timeout(1 if stale else PATIENCE):
            await until(lambda: len(again.messages) == 5)
    payloads = again.payloads
    subscription.dispose()
    again.messages.clear()
    await asyncio.sleep(0.1)
    return stale, payloads


NEW_AGAIN = [(b'{"n": %d}' % n, True) for n in range(5, 10)]


@pytest.mark.filterwarnings("ignore:possible gap")
@pytest.mark.parametrize("qos", [1, 2])
def test_a_late_acknowledgement_is_not_sent_to_a_broker_that_forgot(make_mosquitto, log, qos):
    broker = make_mosquitto(persistence=False)
    with Proxy(broker.port) as proxy:
        stale, again = asyncio.run(late_acknowledgements(broker, proxy, qos))
    assert stale == 0
    assert again == NEW_AGAIN


@pytest.mark.filterwarnings("ignore:possible gap")
def test_without_the_guard_of_epochs_late_acknowledgements_are_found_out(
    make_mosquitto, monkeypatch
):
    monkeypatch.setattr(Ledger, "connected", lambda self, **_: self.settle())
    broker = make_mosquitto(persistence=False)
    with Proxy(broker.port) as proxy:
        stale, again = asyncio.run(late_acknowledgements(broker, proxy, 1))
    assert stale == 5
    assert again != NEW_AGAIN


def test_a_broker_that_forgot_is_a_possible_gap(make_mosquitto, tmp_path, log):
    broker = make_mosquitto(persistence=False)

    async def main() -> None:
        async with pipeline(f"{broker.url}?version=5", tmp_path / "rows.json") as connects:
            await asyncio.to_thread(broker.kill)
            await asyncio.to_thread(broker.start)
            await until(lambda: len(connects) == 2)

    asyncio.run(main())
    assert any("possible gap" in line for line in log)


def test_what_is_let_go_while_the_connection_is_lost_is_not_acknowledged_on_the_next():
    held: list[object] = []
    stale: list[int] = []
    is_gone, is_let_go = threading.Event(), threading.Event()

    def first(conversation: Conversation) -> None:
        conversation.accept()
        conversation.accept_subscription()
        conversation.send(publish("a", b"1", 1, 7))
        while not held:
            time.sleep(0.01)

    def second(conversation: Conversation) -> None:
        is_gone.set()
        is_let_go.wait(10)
        conversation.accept(session_present=True)
        # What it says before it has been sent anything is about the older connection.
        conversation.send(b"\xd0\0")
        time.sleep(0.2)
        conversation.send(publish("a", b"2", 1, 9))
        stale.extend(conversation.packet_ids(PUBACK, 1))

    async def main(url: str) -> None:
        source = from_mqtt(url, "a", client_id="me")
        done = asyncio.Event()

        def on_next(message) -> None:
            if message.payload == b"1":
                held.append(message)
            else:
                done.set()

        subscription = source.subscribe(on_next, lambda _: None)
        await until(is_gone.is_set)
        held.clear()
        is_let_go.set()
        await until(done.is_set)
        await asyncio.sleep(0.1)
        subscription.dispose()
        await asyncio.sleep(0.1)

    with ScriptedBroker(first, second) as broker:
        asyncio.run(main(broker.url))
    assert stale == [9]


# -- C15: the broker is frozen ---------------------------------------------------------------------


def test_a_frozen_broker_is_noticed_within_two_keep_alives(mosquitto, tmp_path, log):
    path = tmp_path / "rows.json"

    async def main(publisher: NumberedPublisher) -> None:
        url = f"{mosquitto.url}?version=5"
        async with pipeline(url, path, keep_alive=KEEP_ALIVE) as connects:
            with publisher:
                await until(lambda: len(publisher.acknowledged) > 50)
                began = time.monotonic()
                with mosquitto.frozen():
                    await until(lambda: any("no sign of the broker" in line for line in log))
                    assert time.monotonic() - began < 2 * KEEP_ALIVE + 1
                await until(lambda: len(connects) > 1, "no way back")
                await asyncio.to_thread(publisher.stop)
            await until(lambda: set(publisher.acknowledged) <= set(numbers(path)), "lost")

    asyncio.run(main(numbered(mosquitto.url, rate=300)))


@only_in_full
@pytest.mark.parametrize("qos", [1, 2])
def test_a_pipeline_that_was_itself_suspended_loses_nothing(mosquitto, tmp_path, qos):
    path = tmp_path / "rows.json"
    options = ("--qos", str(qos), "--keep-alive", "1")
    with numbered(mosquitto.url, qos=qos, rate=20) as publisher:
        process = subprocess.Popen([sys.executable, str(PIPELINE), mosquitto.url, path, *options])
        try:
            asyncio.run(until(lambda: numbers(path), "no beginning"))
            publisher.rate = 500
            process.send_signal(signal.SIGSTOP)
            asyncio.run(until(lambda: "exceeded timeout" in mosquitto.log))
            process.send_signal(signal.SIGCONT)
            publisher.stop()
            first = numbers(path)[0]
            sent = {number for number in publisher.acknowledged if number >= first}
            asyncio.run(until(lambda: sent <= set(numbers(path)), "lost"))
        finally:
            process.kill()
            process.wait()
    if qos == 2:
        assert len(numbers(path)) == len(sent)


@only_in_full
def test_without_keep_alive_a_frozen_broker_is_not_noticed(mosquitto, tmp_path, log, monkeypatch):
    monkeypatch.setattr(Link, "_keep_alive", lambda *_: None)

    async def main() -> None:
        url = f"{mosquitto.url}?version=5"
        async with pipeline(url, tmp_path / "rows.json", keep_alive=1):
            with mosquitto.frozen():
                await asyncio.sleep(2.5)

    asyncio.run(main())
    assert not any("no sign of the broker" in line for line in log)


# -- C18: two clients with one id ------------------------------------------------------------------


async def twins(
    url: str,
    errors: list[Exception],
    is_over: Callable[[], object],
    *,
    patience: float = PATIENCE,
) -> None:
    """Two clients with one id; what the streams of those that give up end with."""
    sources = [from_mqtt(url, TOPIC, client_id="twin", **LOGIN) for _ in range(2)]
    subscriptions = [source.subscribe(lambda _: None, errors.append) for source in sources]
    await until(is_over, patience=patience)
    for subscription in subscriptions:
        subscription.dispose()
    await asyncio.sleep(0.2)


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_two_clients_with_one_id_do_not_throw_each_other_off_for_ever(mosquitto, log, version):
    errors: list[Exception] = []
    asyncio.run(twins(f"{mosquitto.url}?version={version}", errors, lambda: errors))
    rounds = 1 + 2 * ROUNDS + 1  # each is a connection without a wait, and one after it
    assert mosquitto.log.count("New client connected") <= 2 * rounds
    assert [type(error) for error in errors] == [ConnectError]
    assert "'twin'" in str(errors[0])


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_nor_do_they_under_load(mosquitto, monkeypatch, log, version):
    """As in production, waits and all: within a minute one of them ends, and the other lives on."""
    monkeypatch.setattr(Client, "_wait", WAIT)
    errors: list[Exception] = []
    url = f"{mosquitto.url}?version={version}"

    async def main(publisher: NumberedPublisher) -> None:
        with publisher:
            await asyncio.wait_for(twins(url, errors, lambda: errors, patience=60), 70)
            await asyncio.to_thread(publisher.stop)

    asyncio.run(main(numbered(mosquitto.url, rate=1000)))
    assert [type(error) for error in errors] == [ConnectError]
    assert "'twin'" in str(errors[0])


def test_two_clients_that_never_give_up_are_found_out(mosquitto, log, monkeypatch):
    monkeypatch.setattr("rxflow.mqtt.client.ROUNDS", 1000)
    errors: list[Exception] = []

    def is_beyond_all_bounds() -> bool:
        return mosquitto.log.count("New client connected") > 20

    asyncio.run(twins(f"{mosquitto.url}?version=5", errors, is_beyond_all_bounds))
    assert errors == []


@pytest.mark.filterwarnings("ignore:possible gap")
def test_a_session_that_is_taken_over_three_times_ends_with_an_error_that_says_so():
    def script(conversation: Conversation) -> None:
        conversation.accept(version=5)
        conversation.accept_subscription(version=5)
        conversation.send(b"\xe0\2\x8e\0")
        conversation.read_to_end()

    async def main(url: str) -> None:
        await run_async(from_mqtt(url, "a", client_id="twin"), reactivex.Observer(), log=False)

    with ScriptedBroker(script, script, script) as broker:
        url = broker.url.replace("3.1.1", "5")
        with pytest.raises(ConnectError, match="'twin' took the session over, again and again"):
            asyncio.run(main(url))
