"""Run by pytest: a cut cable with two messages unacknowledged, in no time at all."""

from typing import Any

from rxflow import Message, run_async
from rxflow import operators as ops
from rxflow.testing import Marbles


def reading(message: Message[Any]) -> dict[str, Any]:
    return {"temp": message.payload, "again": message.duplicate}


def test_what_was_not_acknowledged_comes_again_and_is_stored(marbles: Marbles) -> None:
    broker = marbles.mqtt(
        """
        sensors/1/temp q1 : --ab---------
        $connection       : ^---!---^----
        """,
        a=21,
        b=22,
    )
    sink = marbles.sink(disk="--=====------")  # nothing is stored yet when the cable is cut
    source = broker.from_mqtt("sensors/+/temp").pipe(ops.decode_json(), ops.map(reading))

    marbles.run(run_async(source, sink, seconds=12))

    assert [row["temp"] for row in sink.stored] == [21, 22, 21, 22]
    assert [row["again"] for row in sink.stored] == [False, False, True, True]
    assert sink.committed == "-------^^"
    assert broker.acknowledged("sensors/1/temp") == "--------^"  # once, on the second connection
