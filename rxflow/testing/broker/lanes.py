"""The lanes of a broker's diagram: a topic, what is published to it, and when. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from rxflow.mqtt.topics import check_topic
from rxflow.testing.diagrams.diagram import Diagram
from rxflow.testing.diagrams.durations import DiagramError
from rxflow.testing.diagrams.notation import parse

CONNECTION: Final = "$connection"
"""The lane of the connection."""

_QOS: Final = {"q0": 0, "q1": 1, "q2": 2}


class Lane(NamedTuple):
    """One line of the text."""

    topic: str
    qos: int
    is_retained: bool
    diagram: Diagram


def lanes(text: str, values: Mapping[str, Any], frame: str | int) -> list[Lane]:
    """The lanes of a text.

    Raises:
        DiagramError: A header, a diagram or a value is wrong; the text names it.
    """
    found = [_lane(line, values, frame) for line in text.splitlines() if line.strip()]
    if not any(lane.topic != CONNECTION for lane in found):
        raise DiagramError("a broker's diagram needs a lane: topic q1 : --a--b")
    used = frozenset[str]().union(*(lane.diagram.keys for lane in found))
    if unused := [key for key in values if key not in used]:
        raise DiagramError(f"no lane has the keys {', '.join(map(repr, unused))}")
    return found


def _lane(line: str, values: Mapping[str, Any], frame: str | int) -> Lane:
    header, colon, text = line.rpartition(":")
    topic, *options = header.split() or [""]
    if not colon or not topic:
        raise DiagramError(f"a lane is a topic, then q0, q1 or q2, then r, and ':': {line!r}")
    if topic == CONNECTION:
        if options:
            raise DiagramError(f"{CONNECTION} has neither QoS nor r: {line!r}")
        return Lane(topic, 0, is_retained=False, diagram=parse(text, frame=frame, role="marks"))
    try:
        check_topic(topic.encode())
    except ValueError as error:
        raise DiagramError(f"{topic!r} can't be published to: {error}") from error
    qos = _QOS[options.pop(0)] if options and options[0] in _QOS else 0
    is_retained = options == ["r"]
    if options and not is_retained:
        text = f"after the topic comes q0, q1 or q2, then r, not {options[0]!r}: {line!r}"
        raise DiagramError(text)
    diagram = parse(text, frame=frame, values=values, role="cold", has_shared_values=True)
    if any(event.kind != "next" for event in diagram.events):
        raise DiagramError(f"a topic has no end: neither | nor # may stand in {line!r}")
    return Lane(topic, qos, is_retained, diagram)
