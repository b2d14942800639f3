"""QoS 2: between any two steps the process is ended, and the row is in the file once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from battery.sizes import FULL, only_in_full

CRASHES = Path(__file__).with_name("qos2_crashes.py")
PAIRS = 10_000 if FULL else 40


def trials(folder, pairs, *control):
    command = [sys.executable, str(CRASHES), str(folder), str(pairs), *control]
    run = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=1500)
    return json.loads(run.stdout)


@pytest.mark.parametrize(("existing", "pairs"), [("append", PAIRS), ("rotate", min(PAIRS, 1_000))])
def test_a_row_is_in_the_file_once_whatever_two_steps_are_interrupted(tmp_path, existing, pairs):
    outcome = trials(tmp_path, pairs, *([] if existing == "append" else ["rotate"]))
    sys.stdout.write(f"{existing}: {outcome}\n")
    assert outcome["points"] > 50
    assert outcome["wrong"] == []


@only_in_full
@pytest.mark.parametrize("control", ["journal", "order", "offset", "removal"])
def test_without_a_safeguard_of_the_journal_rows_are_lost_or_twice(tmp_path, control):
    assert trials(tmp_path, 100 if control == "removal" else 0, control)["wrong"] != []
