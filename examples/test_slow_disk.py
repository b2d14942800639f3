"""Run by pytest: a disk that is slow, then full. What it did not take is not acknowledged."""

import pytest

from rxflow import SinkError, run_async
from rxflow.testing import Marbles


def test_what_waits_for_a_slow_disk_is_acknowledged_when_it_is_stored(marbles: Marbles) -> None:
    broker = marbles.mqtt("events q1 : -a-bc-----d--")
    sink = marbles.sink(disk="-=====-------")

    marbles.run(run_async(broker.from_mqtt("events"), sink, seconds=12))

    assert sink.stored == ["a", "b", "c", "d"]
    assert sink.commits == 3  # b and c, which came while a was on its way, are one
    assert broker.acknowledged("events") == "------^---^"


def test_a_full_disk_stops_the_pipeline_and_leaves_the_rest_to_the_broker(marbles: Marbles) -> None:
    broker = marbles.mqtt("events q1 : -a--b--c")
    sink = marbles.sink(disk="----x---")

    with pytest.raises(SinkError, match="No space left"):
        marbles.run(run_async(broker.from_mqtt("events"), sink, seconds=12))

    assert sink.stored == ["a"]
    assert broker.acknowledged("events") == "-^"
