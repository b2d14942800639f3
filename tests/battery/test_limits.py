"""C11: more than the sink can take, and packets larger than anybody wants; memory stays flat."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from battery.feeder import EndlessBroker
from battery.sizes import MANY, OVERLOAD_SECONDS, PATIENCE, ROW_SECONDS, only_in_full
from scripted import Conversation, ScriptedBroker, publish

from rxflow import read_rows
from rxflow.testing import NumberedPublisher

PIPELINE = Path(__file__).with_name("pipeline.py")
LOGIN = {"username": "wiredflow", "password": "wiredflow"}
TOPIC = "battery/n"


def numbers(path: Path) -> list[int]:
    return [row["n"] for row in read_rows(path)] if path.exists() else []


def run_slow_pipeline(url: str, path: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(PIPELINE), url, str(path), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def end_of(process: subprocess.Popen[bytes], seconds: float) -> dict[str, float]:
    """What it printed at its end; it is told to end if it did not by then."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    process.terminate()
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    return json.loads(out)


@pytest.fixture(scope="module")
def idle_mb() -> float:
    """Memory of a Python that has imported rxflow."""
    text = "import rxflow; print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    out = subprocess.run([sys.executable, "-c", text], capture_output=True, check=True).stdout
    return int(out) / 1024


@only_in_full
def test_overload_on_a_broker_that_ignores_receive_maximum_stays_bounded(
    mosquitto, tmp_path, idle_mb
):
    path = tmp_path / "rows.json"
    options = ("--max-pending", "500", "--keep-alive", "5", "--row-seconds", "0.0005")
    process = run_slow_pipeline(mosquitto.url, path, *options)
    ready = time.monotonic() + PATIENCE
    while "Received SUBSCRIBE" not in mosquitto.log:
        assert time.monotonic() < ready
        time.sleep(0.05)
    with NumberedPublisher(
        mosquitto.url,
        TOPIC,
        payload=lambda n: b'{"n": %d, "x": "%s"}' % (n, b"x" * 4000),
        rate=5000,
        **LOGIN,
    ) as publisher:
        time.sleep(OVERLOAD_SECONDS)
        publisher.stop()
    deadline = time.monotonic() + PATIENCE + 20 * OVERLOAD_SECONDS
    while not (path.exists() and set(publisher.acknowledged) <= set(numbers(path))):
        assert time.monotonic() < deadline, "lost"
        time.sleep(0.2)
    goodbyes = re.findall(r"Client rxflow-\S+ (?!disconnected).*", mosquitto.log)
    ended = end_of(process, 0)
    sys.stdout.write(f"{len(publisher.acknowledged)} {idle_mb} {ended}\n")
    assert ended["peak"] <= 500
    assert ended["rss_mb"] <= idle_mb + 24
    assert goodbyes == []


def test_overload_by_a_broker_that_never_stops_stays_bounded(tmp_path, idle_mb):
    path = tmp_path / "rows.json"
    options = ("--max-pending", "500", "--keep-alive", "2", "--row-seconds", "0.001")
    with EndlessBroker(count=None, payload_bytes=4000) as broker:
        process = run_slow_pipeline(broker.url, path, *options)
        deadline = time.monotonic() + PATIENCE
        while not path.exists() or path.stat().st_size < 1000:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        ended = end_of(process, OVERLOAD_SECONDS)
        sent, connections = broker.sent, broker.connections
    sys.stdout.write(f"{sent} {idle_mb} {ended}\n")
    assert connections == 1
    assert sent > ended["received"] >= 500
    assert ended["peak"] <= 500
    assert ended["rss_mb"] <= idle_mb + 24


@only_in_full
def test_a_pause_longer_than_the_keep_alive_costs_no_connection(tmp_path):
    path = tmp_path / "rows.json"
    options = ("--max-pending", "50", "--keep-alive", "1", "--commit-seconds", "1.7")
    with EndlessBroker(count=100) as broker:
        ended = end_of(run_slow_pipeline(broker.url, path, *options, "--count", "100"), PATIENCE)
        acknowledged, connections = broker.acknowledged, broker.connections
    assert ended["stored"] == acknowledged == 100
    assert connections == 1


def test_many_messages_through_a_slow_sink_stay_under_100_mb(tmp_path):
    path = tmp_path / "rows.json"
    options = ("--row-seconds", str(ROW_SECONDS), "--count", str(MANY))
    with EndlessBroker(count=MANY) as broker:
        process = run_slow_pipeline(broker.url, path, *options)
        ended = end_of(process, PATIENCE + 3 * MANY * ROW_SECONDS)
        acknowledged, connections = broker.acknowledged, broker.connections
    sys.stdout.write(f"{ended}\n")
    assert ended["stored"] == acknowledged == MANY
    assert connections == 1
    assert ended["peak"] <= 10_000
    assert ended["rss_mb"] < 100


def test_without_its_bounds_a_slow_pipeline_grows(tmp_path, idle_mb):
    options = ("--unbounded", "--row-seconds", "0.001")
    with EndlessBroker(count=None, payload_bytes=4000) as broker:
        process = run_slow_pipeline(broker.url, tmp_path / "rows.json", *options)
        with process:
            try:
                status = Path(f"/proc/{process.pid}/status")
                deadline = time.monotonic() + PATIENCE
                while high_water_mb(status) <= idle_mb + 48:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            finally:
                process.kill()


def high_water_mb(status: Path) -> float:
    return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024


# -- large packets ---------------------------------------------------------------------------------


def send_200_mb(conversation: Conversation) -> None:
    """As far as the client takes it."""
    conversation.accept()
    conversation.accept_subscription()
    with contextlib.suppress(ConnectionError):
        conversation.send(beginning_of(200_000_000))
        for _ in range(200):
            conversation.send(b"1" * 1_000_000)
        conversation.send(b'"' + publish(TOPIC, b'{"n": 1}', packet_id=8))
        conversation.read_to_end()


def beginning_of(size: int) -> bytes:
    """A PUBLISH of QoS 1 whose payload is a JSON string of this size, which is still to come."""
    body = len(TOPIC).to_bytes(2) + TOPIC.encode() + b'\0\7"'
    length, encoded = len(body) + size + 1, bytearray()
    while length:
        length, digit = divmod(length, 128)
        encoded.append(digit | (0x80 if length else 0))
    return b"\x32" + bytes(encoded) + body


def memory_after(path: Path, *options: str) -> float:
    """MB at the most, of a pipeline that is sent 200 MB in one packet, then another packet."""
    with ScriptedBroker(send_200_mb) as broker:
        process = run_slow_pipeline(broker.url, path, "--count", "1", *options)
        ended = end_of(process, PATIENCE)
    assert ended["stored"] == 1
    return ended["rss_mb"]


def test_200_mb_in_one_packet_are_set_aside_and_take_no_memory(tmp_path, idle_mb):
    path = tmp_path / "rows.json"
    assert memory_after(path) <= idle_mb + 24
    assert numbers(path) == [1]
    (row,) = read_rows(f"{path}.rejected")
    assert "max_packet_bytes" in row["error"]


@only_in_full
def test_200_mb_that_are_not_refused_take_their_memory(tmp_path, idle_mb):
    limit = ("--max-packet-bytes", "250000000")
    assert memory_after(tmp_path / "rows.json", *limit) > idle_mb + 200
