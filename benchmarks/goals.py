"""The goals: ratios in one run, each checked in code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from measure import Figures
from suite import Result

Results = Mapping[str, Sequence[Result]]
Costs = Mapping[str, Mapping[str, float]]

_PEAK_MB: Final = 100


@dataclass(frozen=True)
class Goal:
    """A ratio, and what it must reach."""

    text: str
    value: float | None
    least: float | None = None
    most: float | None = None

    @property
    def is_met(self) -> bool | None:
        """None where a peer is missing, so that nobody knows."""
        if self.value is None:
            return None
        return (self.least is None or self.value >= self.least) and (
            self.most is None or self.value <= self.most
        )

    @property
    def bound(self) -> str:
        """For people."""
        return f"at least {self.least:g}" if self.most is None else f"at most {self.most:g}"


def goals(results: Results, costs: Costs) -> list[Goal]:
    """Every goal of what was measured."""
    found = {
        section: {result.name: result.median for result in entries if result.median}
        for section, entries in results.items()
    }

    def ratio(
        section: str, one: str, other: str, of: Callable[[Figures], float] = _rate
    ) -> float | None:
        known = found.get(section, {})
        return of(known[one]) / of(known[other]) if one in known and other in known else None

    def faster(section: str, other: str, least: float, name: str) -> Goal:
        return Goal(name, ratio(section, "rxflow", other), least=least)

    listed = [
        faster("receive-1", "paho, loop_start", 10, "receive only, QoS 1: x paho"),
        faster("receive-1", "MQTT.js", 2.5, "receive only, QoS 1: x MQTT.js"),
        faster(
            "receive-1",
            "bare socket in Python (the limit)",
            0.5,
            "receive only, QoS 1: x bare socket",
        ),
        faster("job-1", "mosquitto_sub > file", 1.5, "whole job, QoS 1: x mosquitto_sub > file"),
        faster(
            "job-1", "paho by hand, same sync", 6, "whole job, QoS 1: x paho with the same sync"
        ),
        faster("job-1", "MQTT.js + RxJS", 1, "whole job, QoS 1: x MQTT.js + RxJS"),
        faster("job-0", "mosquitto_sub > file", 0.8, "whole job, QoS 0: x mosquitto_sub > file"),
    ]
    old = "MQTT 3.1.1, QoS 1"
    for name, least in (("MQTT 5, no properties", 0.9), ("MQTT 5, three user properties", 0.5)):
        listed.append(Goal(f"{name}: x 3.1.1", ratio("versions", name, old), least=least))
    for name in ("buffer_with_count", "buffer_with_time_or_count"):
        cost = costs.get(name)
        value = cost["reactivex"] / cost["rxflow"] if cost else None
        listed.append(Goal(f"{name}: x reactivex's", value, least=10))
    for part in ("p50", "p99"):
        value = ratio("latency", "rxflow", "paho + write + fdatasync by hand", _extra(part))
        listed.append(Goal(f"latency {part}: x paho + write + fdatasync", value, most=1))
    for many, one, most in (
        ("file of 1 GB", "file of 1 MB", 1.1),
        ("50 pipelines", "1 pipeline", 1.3),
    ):
        value = ratio("growth", many, one, _cpu)
        listed.append(Goal(f"CPU for a message, {many}: x {one}", value, most=most))
    peaks = [
        known["rxflow"].peak_mb
        for section, known in found.items()
        if section.startswith(("receive", "job")) and "rxflow" in known
    ]
    listed.append(Goal("peak memory at full rate, MB", max(peaks, default=None), most=_PEAK_MB))
    return listed


def _rate(figures: Figures) -> float:
    return figures.rate


def _cpu(figures: Figures) -> float:
    return figures.cpu_us


def _extra(name: str) -> Callable[[Figures], float]:
    return lambda figures: figures.extra[name]
