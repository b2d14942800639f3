"""The command line, in this process and as the command that a user types."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import rxflow
from rxflow import demo
from rxflow.cli import main
from rxflow.log import logger

RXFLOW = [sys.executable, "-W", "error", "-m", "rxflow"]
USAGE, FAILURE = 2, 1


@pytest.fixture(autouse=True)
def own_log():
    """The command line changes the log of its process: put it back."""
    yield
    logger.remove()
    logger.add(sys.__stderr__)
    logger.disable("rxflow")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "made" / "numbers.json"


def rxflow_command(*arguments, **options):
    command = [*RXFLOW, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, **options
    )


def demo_until(has_come, *arguments):
    """The demo, told to end by Ctrl-C after a line of its log; its output, and its whole log."""
    command = [*RXFLOW, "demo", *map(str, arguments)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        log = []
        for line in running.stderr:
            log.append(line)
            if has_come(line):
                running.send_signal(signal.SIGINT)
                break
        shown, rest = running.communicate(timeout=120)
    log = "".join(log) + rest
    assert running.returncode == 0, log
    return shown, log


def committed(line):
    return "committed" in line


def sent(number):
    return lambda line: f'sent {{"Generated number":"{number}"}}' in line


def numbers(path):
    """What the tutorial's file holds, as integers; each row is what the tutorial says."""
    rows = json.loads(path.read_text())
    assert [list(row) for row in rows] == [["Generated number"]] * len(rows)
    return [int(row["Generated number"]) for row in rows]


def messages(log):
    """The last column of each log line."""
    return [line.split(" | ", 3)[3] for line in log.splitlines()]


# -- the demo --------------------------------------------------------------------------------------


def test_the_demo_stores_the_numbers_in_order_and_none_is_missing(out):
    assert main(["demo", "--seconds", "3", "--rate", "20", "--out", str(out)]) == 0
    stored = numbers(out)
    assert stored == list(range(len(stored)))
    assert stored


def test_the_demo_shows_the_path_the_first_rows_and_how_many_follow(out):
    shown, _ = demo_until(sent(9), "--seconds", 60, "--rate", 20, "--out", out)
    stored = len(numbers(out))
    assert shown.splitlines() == [
        str(out),
        '  {"Generated number":"0"}',
        '  {"Generated number":"1"}',
        '  {"Generated number":"2"}',
        f"  and {stored - 3} more",
    ]


def test_the_demo_does_not_speak_of_more_rows_than_there_are(out):
    shown, _ = demo_until(committed, "--seconds", 60, "--rate", 0.01, "--out", out)
    assert shown.splitlines() == [str(out), '  {"Generated number":"0"}']


def test_the_demo_begins_a_fresh_file_and_keeps_the_older_one(out):
    for _ in range(2):
        demo_until(committed, "--seconds", 60, "--rate", 0.01, "--out", out)
    assert numbers(out) == [0]
    (older,) = out.parent.glob("numbers-*.json")
    assert numbers(older) == [0]


def test_the_demo_logs_what_happens_in_the_order_in_which_it_happens(out):
    ran = rxflow_command("demo", "--seconds", "4", "--rate", "1", "--out", out)
    assert ran.returncode == 0
    said = "\n".join(messages(ran.stderr))
    stages = [
        r"launched my_custom_name for at most 4 s",
        r"connected to mqtt://\*\*\*@127\.0\.0\.1:\d+ \(reason code 0: Success\)",
        r"subscribed to /demo/integers",
        r'sent \{"Generated number":"0"\} to /demo/integers',
        rf"committed 1 rows? to {re.escape(str(out))}",
        r'sent \{"Generated number":"1"\} to /demo/integers',
        r"my_custom_name: limit reached; draining",
        r"finished my_custom_name: received \d, stored \d, .*unacknowledged 0; \d commits, .*",
    ]
    assert re.search(r"^" + r"$(?:\n.*)*?\n".join(stages) + r"$", said, re.MULTILINE), said


def test_every_line_of_the_log_has_time_level_place_and_message(out):
    _, log = demo_until(sent(3), "--seconds", 60, "--rate", 10, "--out", out)
    line = re.compile(r"\d\d:\d\d:\d\d\.\d{3} \| [A-Z]+ +\| rxflow\.[\w.]+ \| \S.*")
    assert [text for text in log.splitlines() if not line.fullmatch(text)] == []


def test_no_password_is_in_the_log(out):
    _, log = demo_until(sent(3), "--seconds", 60, "--rate", 10, "--out", out)
    assert "wiredflow" not in log


def test_above_ten_a_second_there_is_one_summary_line_a_second(out):
    began, seen = time.monotonic(), []

    def three_times(line):
        if "published" in line:
            seen.append(line)
        return len(seen) == 3

    _, log = demo_until(three_times, "--seconds", 60, "--rate", 200, "--out", out)
    said, seconds = messages(log), time.monotonic() - began
    summaries = [line for line in said if re.match(r"published \d+ more messages in ", line)]
    assert sum(line.startswith("sent ") for line in said) <= 10 * (seconds + 1)
    assert 3 <= len(summaries) <= seconds + 2
    rows = [re.match(r"committed (\d+) rows? to ", line) for line in said]
    assert sum(int(found[1]) for found in rows if found) == len(numbers(out))


# -- interrupted -----------------------------------------------------------------------------------


def test_ctrl_c_loses_nothing_and_is_a_success(out):
    shown, log = demo_until(sent(5), "--seconds", 60, "--rate", 50, "--out", out)
    assert "SIGINT; draining" in log
    received, stored = re.search(r"received (\d+), stored (\d+),", log).groups()
    assert received == stored
    assert numbers(out) == list(range(int(stored)))
    assert shown.startswith(f"{out}\n")


# -- what is wrong ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "COMMAND"),
        (["dmeo"], "'dmeo'"),
        (["demo", "--seconds", "0"], "--seconds: a number above 0, not '0'"),
        (["demo", "--seconds", "ten"], "--seconds: a number above 0, not 'ten'"),
        (["demo", "--seconds", "nan"], "--seconds: a number above 0, not 'nan'"),
        (["demo", "--rate", "-1"], "--rate: a number above 0, not '-1'"),
        (["demo", "--rate", "inf"], "--rate: a number above 0, not 'inf'"),
        (["demo", "--out"], "--out"),
        (["demo", "extra"], "extra"),
    ],
)
def test_wrong_usage_is_exit_2_and_names_the_argument(arguments, named, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == USAGE
    said = capsys.readouterr().err
    assert named in said
    assert said.startswith("usage: rxflow")


def test_a_path_that_names_no_file_is_exit_2(capsys):
    assert main(["demo", "--out", ""]) == USAGE
    assert "path must be" in capsys.readouterr().err


def complaint(log):
    """The one line that says what is wrong; there is no traceback."""
    (said,) = [line for line in log.splitlines() if line.startswith("rxflow: ")]
    assert "Traceback" not in log
    return said


def test_without_amqtt_one_line_names_the_extra(out):
    code = "import sys; sys.modules['amqtt'] = None; import rxflow.__main__"
    command = [sys.executable, "-W", "error", "-c", code, "demo", "--out", str(out)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == USAGE
    assert "rxflow-mqtt[broker]" in complaint(ran.stderr)
    assert ran.stderr.count("\n") == 1


def test_a_file_that_is_not_ours_is_exit_1_and_left_as_it_is(tmp_path):
    foreign = tmp_path / "settings.json"
    foreign.write_text('{"mine": 1}')
    ran = rxflow_command("demo", "--seconds", "1", "--out", foreign)
    assert ran.returncode == FAILURE
    assert "settings.json" in complaint(ran.stderr)
    assert foreign.read_text() == '{"mine": 1}'


def test_a_folder_in_place_of_the_file_is_one_line_and_exit_1(tmp_path, capsys):
    assert main(["demo", "--seconds", "1", "--out", str(tmp_path)]) == FAILURE
    assert str(tmp_path) in complaint(capsys.readouterr().err)


def test_a_folder_that_cannot_be_made_is_one_line_and_exit_1(tmp_path, capsys):
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "numbers.json"
    assert main(["demo", "--seconds", "1", "--out", str(out)]) == FAILURE
    assert "numbers.json" in complaint(capsys.readouterr().err)


def test_an_abort_is_exit_130_and_no_traceback(out, capsys, monkeypatch):
    def aborted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "demo", aborted)
    assert main(["demo", "--out", str(out)]) == 130
    assert capsys.readouterr().err == ""


# -- help, version, import -------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"]])
def test_help_is_a_success(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 0
    assert "demo" in capsys.readouterr().out


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", capsys.readouterr().out)


def test_the_command_is_installed():
    command = Path(sys.executable).with_name("rxflow")
    ran = subprocess.run([command, "--help"], capture_output=True, timeout=60, check=True)
    assert b"demo" in ran.stdout


def test_import_is_silent_starts_no_thread_and_loads_neither_amqtt_nor_pytest():
    code = """
import sys, threading
import rxflow
heavy = {"amqtt", "_pytest", "pytest", "wsproto", "hypothesis"} & set(sys.modules)
assert not heavy, heavy
assert threading.active_count() == 1, threading.enumerate()
"""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")


def test_all_that_the_package_exports_is_there():
    assert [name for name in rxflow.__all__ if not hasattr(rxflow, name)] == []
