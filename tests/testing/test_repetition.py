"""What a user would copy from `examples/` does the same each time, to the microsecond."""

import inspect
import re
from importlib import util
from pathlib import Path

import pytest

from rxflow.log import logger
from rxflow.testing import Marbles
from rxflow.testing.virtual.clock import VirtualClock

EXAMPLES = sorted(Path(__file__).parents[2].joinpath("examples").glob("test_*.py"))


def functions():
    for path in EXAMPLES:
        spec = util.spec_from_file_location(path.stem, path)
        module = util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if name.startswith("test_"):
                yield pytest.param(function, id=f"{path.stem}: {name}")


@pytest.fixture
def trace(monkeypatch):
    """Each phase of each instant that has begun, and each line of the log."""
    written, move_on = [], VirtualClock.move_on

    def noted(clock, horizon):
        has_moved = move_on(clock, horizon)
        written.append((clock.microseconds, has_moved))
        return has_moved

    monkeypatch.setattr(VirtualClock, "move_on", noted)
    handler = logger.add(
        lambda line: written.append(re.sub(r"/\S*rxflow-\w+", "folder", line)),
        format="{level} {name} {message}",
    )
    yield written
    logger.remove(handler)
    logger.disable("rxflow")


def test_there_are_three_files_of_examples():
    assert [path.stem for path in EXAMPLES] == ["test_alarm", "test_reconnect", "test_slow_disk"]


@pytest.mark.parametrize("example", list(functions()))
def test_a_hundred_repetitions_of_an_example_are_identical(example, trace):
    traces = set()
    for _ in range(100):
        trace.clear()
        with Marbles() as marbles:
            example(marbles)
        traces.add(tuple(trace))
    assert len(traces) == 1
    assert len(next(iter(traces))) > 5
