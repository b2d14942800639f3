"""`make bench`: rxflow beside its peers; a table in Markdown, and whether the goals are met.

Exits with 1 when a goal is missed. Everything stays on the loopback interface, every process has an
end, and nothing is written outside of the work folder.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tables
from feeders import HERE, Feeders
from goals import Costs, goals
from sections import sections
from subjects import Peers
from suite import Rounds


def main() -> int:
    """Measure, print, judge."""
    options = _options()
    options.folder.mkdir(parents=True, exist_ok=True)
    folder = options.folder.resolve()
    feeders = Feeders(folder, in_python=options.feeder == "python")
    wanted: set[str] = set(options.only.split(",")) if options.only else set()
    listed = sections(Peers(folder, install=not options.no_peers))
    parts: list[str] = []
    results = {}
    with tempfile.TemporaryDirectory(dir=folder) as work:
        rounds = Rounds(feeders, Path(work), options.rounds, options.scale)
        for section in listed:
            if not wanted or section.key in wanted:
                results[section.key] = rounds.run(section)
                parts.append(tables.table(section, results[section.key]))
    costs: Costs = {}
    if not wanted or "operators" in wanted:
        costs = _operators(options.rounds, options.scale)
        parts.append(tables.operators(costs))
    if not wanted or "start" in wanted:
        parts.append(_start(options.rounds))
    judged = goals(results, costs)
    shown = [goal for goal in judged if not wanted or goal.value is not None]
    parts.insert(0, tables.verdicts(shown))
    text = "\n\n".join([tables.machine(feeders.kind, options.rounds, folder), *parts])
    print(text)
    (folder / "table.md").write_text(f"{text}\n")
    missed = [goal for goal in judged if goal.is_met is False]
    for goal in missed:
        print(f"missed: {goal.text} is {goal.value:.2f}, {goal.bound}", file=sys.stderr)
    return 1 if missed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured")
    parser.add_argument("--scale", type=float, default=1.0, help="more or fewer messages")
    parser.add_argument("--only", default="", help="sections, with commas between them")
    parser.add_argument("--no-peers", action="store_true", help="install nothing")
    parser.add_argument("--feeder", choices=("c", "python"), default="c", help="c where it can be")
    parser.add_argument("--folder", type=Path, default=Path("build/bench"), help="work folder")
    return parser.parse_args()


def _operators(rounds: int, scale: float) -> Costs:
    command = [sys.executable, str(HERE / "micro.py"), str(rounds), str(scale)]
    print("operators", file=sys.stderr, flush=True)
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    return json.loads(done.stdout)


def _start(rounds: int) -> str:
    """How long the command line needs for its help."""
    took: list[float] = []
    for _ in range(rounds):
        began = time.perf_counter()
        command = [sys.executable, "-m", "rxflow", "demo", "--help"]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        took.append((time.perf_counter() - began) * 1000)
    return f"`rxflow demo --help`, from start to end: {statistics.median(took):.0f} ms."


if __name__ == "__main__":
    sys.exit(main())
