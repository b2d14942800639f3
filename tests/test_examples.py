"""Each example is started as a user starts it, and its file holds what it claims."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from rxflow import read_rows

EXAMPLES = Path(__file__).parent.parent / "examples"
SECONDS = 4.0  # so that a busy machine, too, has subscribed before half of it is over


@pytest.fixture
def start(tmp_path):
    """Start an example in an empty folder; returns the folder of its files, and what it printed."""

    def run(name, *arguments):
        ran = subprocess.run(
            [sys.executable, "-W", "error", EXAMPLES / name, *map(str, arguments)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        assert "Traceback" not in ran.stderr
        return tmp_path / "files", ran.stdout

    return run


def rows(path):
    """The rows of a file, which any JSON parser reads too."""
    found = list(read_rows(path))
    text = path.read_text()
    lines = text.splitlines() if path.suffix == ".jsonl" else None
    assert found == ([json.loads(line) for line in lines] if lines else json.loads(text))
    return found


def test_every_example_is_tested():
    names = {path.name for path in EXAMPLES.iterdir() if path.suffix == ".py"}
    names = {name for name in names if not name.startswith("test_")}  # pytest runs these
    here = Path(__file__).read_text(encoding="utf-8")
    assert {name for name in names if f'start("{name}"' not in here} == set()
    assert len(names) == 6


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_has_less_than_40_lines_and_says_what_it_is(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 40
    assert ast.get_docstring(ast.parse(text))


def test_the_tutorial_keeps_the_numbers_in_order_and_none_is_missing(start):
    files, _ = start("mqtt_to_json.py", SECONDS)
    found = rows(files / "my_custom_name.json")
    assert found == [{"Generated number": str(n)} for n in range(len(found))] != []


def test_averages_hold_every_reading_and_the_last_short_batch(start):
    files, said = start("buffered_batches.py", SECONDS)
    found = rows(files / "averages.json")
    sizes = [row["readings"] for row in found]
    assert sum(sizes) == int(said.split("received ")[1].split(",")[0]) > 0
    assert max(sizes) <= 10
    assert min(sizes) >= 1
    assert all(20 <= row["mean"] <= 26 for row in found)


def test_two_sinks_behind_share_hold_all_readings_and_the_hot_ones(start):
    files, _ = start("many_topics.py", SECONDS)
    every = rows(files / "all.jsonl")
    first = every[0]["celsius"] - 20  # 0, unless this machine was slow to subscribe
    assert every == [
        {"topic": f"sensors/{n % 3}/temperature", "sensor": n % 3, "celsius": 20 + n}
        for n in range(first, first + len(every))
    ]
    assert rows(files / "hot.json") == [row for row in every if row["celsius"] > 30] != []


def test_the_alarm_ignores_the_spike_and_is_published_once(start):
    files, _ = start("alarm.py", 2 * SECONDS)
    assert rows(files / "alarms.json") == [{"alarm": False}, {"alarm": True}]


def test_plain_rx_needs_no_loop_and_no_mqtt(start):
    files, said = start("plain_rx.py")
    totals = [{"total": total} for total in (3, 4, 8, 9, 14, 23, 25, 31)]
    assert rows(files / "totals.json") == totals
    assert said.splitlines() == [str(row) for row in totals]


def test_in_asyncio_the_rest_of_the_program_goes_on(start):
    files, said = start("in_asyncio.py", SECONDS)
    found = rows(files / "events.json")
    assert found == [{"click": n} for n in range(len(found))] != []
    assert said.count("the rest of the program goes on") >= 3
