"""The results as Markdown."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

from goals import Costs, Goal
from measure import Figures
from suite import Result, Section

_VERDICTS: Final = {True: "met", False: "**missed**", None: "not measured"}


def machine(feeder: str, rounds: int, folder: Path) -> str:
    """What it was measured on, in a sentence."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        model = next((line.partition(": ")[2] for line in lines if "model name" in line), model)
    packages = ", ".join(f"{name} {version(name)}" for name in ("reactivex", "paho-mqtt", "orjson"))
    return (
        f"{model}, {os.cpu_count()} cores (load {os.getloadavg()[0]:.1f} at the end), "
        f"{platform.system()} {platform.release()}, files on {_file_system(folder)}, "
        f"{platform.python_implementation()} {platform.python_version()}, {packages}. "
        f"Feeder in {feeder}; median of {rounds} alternating rounds; payloads of 100 bytes and "
        "5,000 in flight where the row doesn't say otherwise."
    )


def _file_system(folder: Path) -> str:
    if sys.platform != "linux":
        return "an unknown file system"
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    over = [(len(at), kind) for at, kind in mounts if folder.is_relative_to(at)]
    return max(over)[1] if over else "an unknown file system"


def table(section: Section, results: Sequence[Result]) -> str:
    """One comparison."""
    first = results[0].median
    extras = [name for name in (first.extra if first else {}) if first and first.extra[name]]
    compared = {"rate": "x first", "cpu_us": "CPU x first"}.get(section.by, f"{section.by} x first")
    head = ["", "messages/s", compared, "CPU us/message", "peak MB", *extras]
    if section.by in {"rows", "first_ms"}:
        head = ["", *extras]
    rows = [_row(section, each, first, extras) for each in results]
    note = f"{section.note}\n\n" if section.note else ""
    return f"### {section.title}\n\n{note}{_markdown(head, rows)}"


def _row(section: Section, result: Result, first: Figures | None, extras: list[str]) -> list[str]:
    figures = result.median
    if figures is None:
        return [f"{result.name}: {result.why}"]
    said = [f"{figures.extra.get(name, 0):,.0f}" for name in extras]
    if section.by in {"rows", "first_ms"}:
        return [result.name, *said]
    value, base = _compared(section, figures), _compared(section, first)
    ratio = f"{value / base:.2f}" if base else "-"
    return [
        result.name,
        f"{figures.rate:,.0f}",
        ratio,
        f"{figures.cpu_us:.2f}",
        f"{figures.peak_mb:.0f}",
        *said,
    ]


def _compared(section: Section, figures: Figures | None) -> float:
    if figures is None:
        return 0.0
    return getattr(figures, section.by, None) or figures.extra.get(section.by, 0.0)


def operators(costs: Costs) -> str:
    """The operators alone."""
    rows = [
        [
            name,
            f"{each['rxflow']:,.0f}",
            f"{each['reactivex']:,.0f}",
            f"{each['reactivex'] / each['rxflow']:.1f}",
            f"{each['generator']:,.0f}" if "generator" in each else "-",
        ]
        for name, each in costs.items()
    ]
    head = ["", "rxflow ns/item", "reactivex ns/item", "reactivex / rxflow", "generator ns/item"]
    return f"### Operators alone, on plain numbers\n\n{_markdown(head, rows)}"


def verdicts(goals: Iterable[Goal]) -> str:
    """The goals, and whether they are met."""
    rows = [
        [
            goal.text,
            goal.bound,
            "-" if goal.value is None else f"{goal.value:.2f}",
            _VERDICTS[goal.is_met],
        ]
        for goal in goals
    ]
    return f"### Goals\n\n{_markdown(['', 'goal', 'measured', ''], rows)}"


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(_lines(head, rows))


def _lines(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'|'.join(['---', *['---:'] * (len(head) - 1)])}|"
    for row in rows:
        yield f"| {' | '.join([*row, *[''] * (len(head) - len(row))])} |"
