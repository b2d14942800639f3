"""C5, C6, C10, C16: killed, stopped, and out of space, end to end on a real mosquitto."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from battery.sizes import CONTROL_KILLS, DISK_FULL, KILLS, PATIENCE, STOPS, only_in_full

from rxflow import read_rows
from rxflow.testing import NumberedPublisher, assert_no_loss

PIPELINE = Path(__file__).with_name("pipeline.py")
BY_HAND = Path(__file__).with_name("paho_pipeline.py")
LOGIN = {"username": "wiredflow", "password": "wiredflow"}
TOPIC = "battery/n"


def command(broker, path, *options):
    return [sys.executable, str(PIPELINE), broker.url, str(path), *options]


@pytest.mark.parametrize("qos", [1, 2])
def test_no_acknowledged_message_is_missing_after_kills(mosquitto, tmp_path, qos):  # C5, C6
    path = tmp_path / "rows.json"
    broker = {"url": mosquitto.url, "topic": TOPIC, "qos": qos, **LOGIN}
    outcome = assert_no_loss(
        command(mosquitto, path, "--qos", str(qos)),
        path,
        kills=KILLS,
        seconds_between_kills=(0.0, 0.4),
        seed=qos,
        exactly_once=qos == 2,
        in_order=True,
        patience=PATIENCE,
        **broker,
    )
    sys.stdout.write(f"{outcome}\n")
    assert outcome.duplicates <= 1000 * KILLS  # mosquitto's window, once a kill


def found_out(argv, mosquitto, path, qos):
    """Kill a pipeline without a safeguard until it has lost something."""
    with pytest.raises(AssertionError, match=r"lost [0-9,]+ acknowledged message"):
        assert_no_loss(
            argv,
            path,
            url=mosquitto.url,
            topic=TOPIC,
            qos=qos,
            kills=CONTROL_KILLS,
            seconds_between_kills=(0.0, 0.1),
            seed=1,
            patience=PATIENCE,
            **LOGIN,
        )


@only_in_full
@pytest.mark.parametrize("qos", [1, 2])
def test_a_pipeline_that_acknowledges_before_the_commit_is_found_out(mosquitto, tmp_path, qos):
    path = tmp_path / "rows.json"
    argv = command(mosquitto, path, "--careless", "--commit-seconds", "0.1", "--qos", str(qos))
    found_out(argv, mosquitto, path, qos)


@only_in_full
def test_paho_which_answers_qos_2_before_anybody_has_it_is_found_out(mosquitto, tmp_path):  # C6
    path = tmp_path / "rows.json"
    argv = [sys.executable, str(BY_HAND), str(mosquitto.port), str(path), TOPIC]
    found_out(argv, mosquitto, path, 2)


def test_after_kills_in_qos_2_no_slot_of_the_broker_is_leaked(make_mosquitto, tmp_path):  # C6
    broker = make_mosquitto(options="max_inflight_messages 10")
    path = tmp_path / "rows.json"
    killed, later = [
        assert_no_loss(
            command(broker, path, "--qos", "2", "--commit-seconds", "0.01"),
            path,
            url=broker.url,
            topic=TOPIC,
            qos=2,
            kills=kills,
            rate=300,
            seconds_between_kills=(0.2, 0.4),
            seed=3,
            exactly_once=True,
            **LOGIN,
        )
        for kills in (max(2, KILLS // 6), 0)
    ]
    assert killed.kills
    assert later.stored >= 50


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_pipeline_that_is_told_to_stop_says_goodbye_and_loses_nothing(  # C16
    mosquitto, tmp_path, number
):
    path = tmp_path / "rows.json"
    outcome = assert_no_loss(
        command(mosquitto, path),
        path,
        url=mosquitto.url,
        topic=TOPIC,
        kills=STOPS,
        stop_signal=number,
        seconds_between_kills=(0.2, 0.5),
        seed=5,
        in_order=True,
        patience=PATIENCE,
        **LOGIN,
    )
    sys.stdout.write(f"{outcome}\n")
    assert outcome.duplicates == 0
    goodbyes = mosquitto.log.count("Received DISCONNECT from rxflow-")
    assert goodbyes == STOPS + 2  # the last stop, and the publisher


def test_a_disk_that_is_full_again_and_again_costs_nothing(mosquitto, tmp_path):  # C10
    path = tmp_path / "rows.json"
    ready = command(mosquitto, path, "--count", "1")
    opened = subprocess.Popen(ready)
    statuses = []
    with NumberedPublisher(
        mosquitto.url, TOPIC, payload=lambda n: b'{"n": %d}' % n, rate=20, **LOGIN
    ) as publisher:
        assert opened.wait(PATIENCE) == 0
        publisher.rate = 1000
        for _ in range(DISK_FULL):
            full = subprocess.run(
                command(mosquitto, path, "--room", "4000"),
                capture_output=True,
                timeout=PATIENCE,
                check=False,
            )
            statuses.append((full.returncode, b"SinkError" in full.stderr))
            json.loads(path.read_bytes())
        publisher.stop()
    first = json.loads(path.read_bytes())[0]["n"]
    expected = [n for n in publisher.acknowledged if n >= first]
    assert_stored(command(mosquitto, path), path, expected)
    assert statuses == [(1, True)] * DISK_FULL
    numbers = [row["n"] for row in json.loads(path.read_bytes())]
    assert sorted(numbers) == sorted(expected)  # none missing, none twice


def assert_stored(argv, path, expected):
    """Run it until all of this is stored."""
    process = subprocess.Popen(argv)
    deadline = time.monotonic() + PATIENCE
    try:
        while {row["n"] for row in read_rows(path)} < set(expected):
            assert time.monotonic() < deadline, "not all of it is stored in time"
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)


def test_the_example_of_the_page_says_that_nothing_is_lost(mosquitto, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text()
    programs = re.findall(r"```py\n(.*?)```", page, re.DOTALL)
    for name, program in zip(("pipeline.py", "check.py"), programs, strict=True):
        assert "mqtt://localhost:1883" in program
        here = program.replace("mqtt://localhost:1883", mosquitto.url)
        (tmp_path / name).write_text(here.replace("kills=20", "kills=2"))
    check = [sys.executable, "check.py"]
    run = subprocess.run(
        check, cwd=tmp_path, capture_output=True, text=True, timeout=4 * PATIENCE, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("2 kills")
    assert ", 0 lost, 0 duplicates, 0 unexpected, 0 out of order" in run.stdout
