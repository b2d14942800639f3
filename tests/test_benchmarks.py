"""The suite of `make bench` runs, in its smallest form; nothing here depends on speed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "benchmarks"


def _table(tmp_path, section, *options):
    command = [sys.executable, BENCH / "bench.py", "--no-peers", "--rounds", "1", "--scale", "0"]
    done = subprocess.run(
        [*command, "--folder", tmp_path, "--only", section, *options],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"COVERAGE_PROCESS_START": ""},
    )
    assert done.returncode in {0, 1}, done.stderr  # 1: a goal is missed, which is no matter here
    return done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_the_suite_measures_rxflow_and_says_which_peers_are_left_out(tmp_path):
    table = _table(tmp_path, "job-1")

    rows = [line for line in table.splitlines() if line.startswith("| rxflow |")]
    assert len(rows) == 1
    assert "| paho by hand: peers were left out |" in table


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_the_feeder_in_python_speaks_like_the_one_in_c(tmp_path):
    assert "| MQTT 5, three user properties |" in _table(tmp_path, "versions", "--feeder", "python")


def test_a_goal_is_met_missed_or_not_measured(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    from goals import Goal  # noqa: PLC0415 (scripts, not a package)

    verdicts = [Goal("", value, least=2).is_met for value in (2.0, 1.9, None)]
    assert verdicts == [True, False, None]
