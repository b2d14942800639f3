"""What is measured: each comparison of the suite."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from feeders import Feed
from subjects import Peers, bare_socket, mosquitto_sub, rxflow
from suite import Entry, Section

_MB: Final = 1_000_000
_UNLIMITED: Final = ("max_inflight_messages 0", "max_queued_messages 0")
_SECONDS: Final = 4


def sections(peers: Peers) -> tuple[Section, ...]:
    """All of them."""
    return (
        *(_receive(peers, qos) for qos in (1, 0)),
        *(_job(peers, qos) for qos in (1, 0)),
        _versions(),
        _sizes(),
        _latency(peers),
        _growth(),
        _windows(),
        _behind_mosquitto(peers),
        _start(),
    )


def _receive(peers: Peers, qos: int) -> Section:
    fast, slow = Feed(qos), Feed(qos, count=60_000)
    five = replace(slow, version=5)
    return Section(
        f"receive-{qos}",
        f"Receive only, QoS {qos}" + ", with acknowledgement" * (qos > 0),
        (
            Entry(rxflow("receive"), fast),
            Entry(bare_socket(), fast),
            Entry(peers.python("paho-mqtt", "paho_client.py", "receive", "paho, loop_start"), slow),
            Entry(peers.python("paho-mqtt", "paho_client.py", "receive", "paho, MQTT 5"), five),
            Entry(peers.python("aiomqtt", "aiomqtt_client.py", "receive", "aiomqtt"), slow),
            Entry(peers.python("gmqtt", "gmqtt_client.py", "receive", "gmqtt"), slow),
            Entry(peers.node("receive", "MQTT.js"), fast),
            Entry(mosquitto_sub("mosquitto_sub > file"), fast),
        ),
    )


def _job(peers: Peers, qos: int) -> Section:
    fast, slow = Feed(qos, count=200_000), Feed(qos, count=40_000)
    synced = Feed(qos, count=3_000)
    return Section(
        f"job-{qos}",
        f"The whole job, QoS {qos}",
        (
            Entry(rxflow("job", rows=True), fast),
            Entry(mosquitto_sub("mosquitto_sub > file"), fast),
            Entry(peers.node("job", "MQTT.js + RxJS"), fast),
            Entry(peers.python("paho-mqtt", "paho_client.py", "job", "paho by hand"), slow),
            Entry(
                peers.python("paho-mqtt", "paho_client.py", "job-sync", "paho by hand, same sync"),
                synced,
            ),
            Entry(peers.python("aiomqtt", "aiomqtt_client.py", "job", "aiomqtt by hand"), slow),
            Entry(peers.python("streamz paho-mqtt", "streamz_client.py", "job", "streamz"), slow),
            Entry(
                peers.python("wiredflow", "wiredflow_client.py", "job", "wiredflow 0.1, QoS 0"),
                Feed(qos=0, count=500),
            ),
        ),
        note="JSON decode, filter, computed field, JSON file. Only rxflow and 'same sync' store "
        "before they acknowledge; only rxflow leaves one valid JSON array. wiredflow, which can "
        "neither filter nor compute here, gets 500 messages: it slows down with each.",
    )


def _versions() -> Section:
    feed = Feed(count=300_000)
    five = replace(feed, version=5)
    return Section(
        "versions",
        "Receive only: versions, properties, QoS 2",
        (
            Entry(rxflow("receive", name="MQTT 3.1.1, QoS 1"), feed),
            Entry(rxflow("receive", name="MQTT 5, no properties"), five),
            Entry(
                rxflow("receive", name="MQTT 5, three user properties"), replace(five, properties=3)
            ),
            Entry(rxflow("receive", name="MQTT 3.1.1, QoS 2"), replace(feed, qos=2)),
        ),
    )


def _sizes() -> Section:
    feed = Feed(count=300_000)
    return Section(
        "sizes",
        "Receive only, QoS 1: size of the payload",
        (
            Entry(rxflow("receive", name="rxflow, 100 bytes"), feed),
            Entry(rxflow("receive", name="rxflow, 20 bytes"), replace(feed, size=20)),
            Entry(rxflow("receive", name="rxflow, 1,000 bytes"), replace(feed, size=1_000)),
            Entry(mosquitto_sub("mosquitto_sub, 20 bytes"), replace(feed, size=20)),
            Entry(mosquitto_sub("mosquitto_sub, 1,000 bytes"), replace(feed, size=1_000)),
        ),
    )


def _latency(peers: Peers) -> Section:
    feed = Feed(count=3_000, window=1)
    by_hand = "paho + write + fdatasync by hand"
    return Section(
        "latency",
        "Latency: one message at a time, from publish to acknowledged durable row",
        (
            Entry(rxflow("job"), feed),
            Entry(peers.python("paho-mqtt", "paho_client.py", "job-sync", by_hand), feed),
        ),
        by="p50",
        note="Three times as many rounds: how long a sync and a wake-up take differs by a half "
        "from one second to the next.",
        times=3,
    )


def _growth() -> Section:
    feed = Feed(count=300_000)
    many = replace(feed, qos=0, count=1_000_000)
    return Section(
        "growth",
        "Growth: the whole job, QoS 1, and what makes it dearer",
        (
            Entry(rxflow("job", name="file of 1 MB"), feed, prepare=_filled(1)),
            Entry(rxflow("job", name="file of 1 GB"), feed, prepare=_filled(1_000)),
            Entry(rxflow("job", name="1,000 topics"), replace(feed, topics=1_000)),
            Entry(rxflow("job", name="100,000 topics"), replace(feed, topics=100_000)),
            Entry(rxflow("pipelines", extra=1, name="1 pipeline"), feed),
            Entry(rxflow("pipelines", extra=50, name="50 pipelines"), replace(feed, clients=50)),
            Entry(
                rxflow("buffered", extra=100, name="buffer of 100"), replace(feed, window=60_000)
            ),
            Entry(
                rxflow("buffered", extra=50_000, name="buffer of 50,000"),
                replace(feed, window=60_000),
            ),
            Entry(rxflow("buffered", extra=100, name="buffer of 100, QoS 0"), many),
            Entry(rxflow("buffered", extra=1_000_000, name="buffer of 1,000,000, QoS 0"), many),
        ),
        by="cpu_us",
    )


def _windows() -> Section:
    feed = Feed(count=100_000, window=2_000)
    subject = rxflow("windows", extra=_SECONDS, name="MQTT 3.1.1, 20 in flight")
    return Section(
        "windows",
        f"One-second windows behind mosquitto, {_SECONDS} s",
        (
            Entry(subject, feed, broker=("max_queued_messages 0",)),
            Entry(
                replace(subject, name="MQTT 3.1.1, in flight unlimited"), feed, broker=_UNLIMITED
            ),
            Entry(
                replace(subject, name="MQTT 5, in flight by Receive Maximum"),
                replace(feed, version=5),
                broker=("max_queued_messages 0",),
            ),
        ),
        by="rows",
    )


def _behind_mosquitto(peers: Peers) -> Section:
    feed, slow = Feed(count=100_000), Feed(count=40_000)
    paho = peers.python("paho-mqtt", "paho_client.py", "receive", "receive only: paho")
    entries = (
        Entry(rxflow("job", rows=True, name="whole job: rxflow"), feed, broker=_UNLIMITED),
        Entry(mosquitto_sub("whole job: mosquitto_sub > file"), feed, broker=_UNLIMITED),
        Entry(rxflow("receive", name="receive only: rxflow"), feed, broker=_UNLIMITED),
        Entry(paho, slow, broker=_UNLIMITED),
    )
    return Section("mosquitto", "Through a real mosquitto on the same cores, QoS 1", entries)


def _start() -> Section:
    return Section(
        "start",
        "Start",
        (
            Entry(
                rxflow("start", name="import, then `run` to the first message"),
                Feed(qos=0, count=1),
            ),
        ),
        by="first_ms",
    )


def _filled(megabytes: int):  # noqa: ANN202
    """Something that makes a file of so many rows, unless a larger one is there already."""

    def prepare(path: Path) -> None:
        if path.exists() and megabytes > 1:
            return
        row = b',{"n":1000000,"sensor":"kitchen","celsius":21.5,"fahrenheit":70.7}\n'
        block = row * (_MB // len(row))
        with path.open("wb") as rows:
            rows.write(b"[\n" + row[1:])
            for _ in range(megabytes):
                rows.write(block)
            rows.write(b"]\n")

    return prepare
