"""S1, S2: the battery's kills and power cuts, so many that what is rare has its chance."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest
from battery.power import KINDS, lost_in_cuts, mounted
from soak.sizes import CUTS, CUTS_A_FILE, KILLS, only_in_soaks

from rxflow.testing import assert_no_loss

PIPELINE = Path(__file__).parents[1] / "battery" / "pipeline.py"
LOGIN = {"username": "wiredflow", "password": "wiredflow"}
TOPIC = "battery/n"
pytestmark = only_in_soaks


class Rotated:
    """Reads a file and all that it was rotated to, as the standard library does, each once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, list] = {}

    def __call__(self) -> list:
        """The rows, in order. ValueError: a file is not valid JSON just now."""
        if not any(self._path.parent.glob("rows*.json")):
            return []
        pattern = re.compile(rf"{self._path.stem}-\d{{8}}T\d{{6}}Z-(\d+)\.json")
        folder = {int(f[1]): n for n in os.listdir(self._path.parent) if (f := pattern.match(n))}  # noqa: PTH208
        for name in folder.values():
            if name not in self._known:
                self._known[name] = json.loads(self._path.with_name(name).read_bytes())
        rows = [row for number in sorted(folder) for row in self._known[folder[number]]]
        return rows + json.loads(self._path.read_bytes())


# -- S1 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("existing", ["append", "rotate"])
@pytest.mark.parametrize("qos", [1, 2])
def test_kills_at_any_instant_lose_no_acknowledged_message(mosquitto, tmp_path, qos, existing):
    path = tmp_path / "rows.json"
    rotate = ["--rotate"] if existing == "rotate" else []
    outcome = assert_no_loss(
        # Half of the time of a start is recovery and rotation, so many kills come within.
        [
            *(sys.executable, str(PIPELINE), mosquitto.url, str(path), "--qos", str(qos)),
            *("--step-seconds", "0.03", *rotate),
        ],
        path,
        url=mosquitto.url,
        topic=TOPIC,
        qos=qos,
        kills=KILLS // 2,
        seconds_between_kills=(0.0, 0.6),
        rate=1000,
        exactly_once=qos == 2,
        in_order=True,
        read=Rotated(path) if rotate else None,
        **LOGIN,
    )
    sys.stdout.write(f"S1, QoS {qos}, {existing}: {outcome}\n")
    if rotate:
        assert len([*tmp_path.glob("rows-*.json")]) > KILLS // 8


# -- S2 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize("kind", KINDS)
def test_power_cuts_lose_no_committed_row(kind, suffix):
    cuts, left = 0, CUTS // 2
    with mounted(kind) as disk:
        while left > 0:
            count = min(left, CUTS_A_FILE)
            name = f"rows{cuts}{suffix}"
            rotate = ["rotate"] if cuts // CUTS_A_FILE % 2 else []
            assert lost_in_cuts(disk, name, count, *rotate) == 0
            for old in disk.there.glob(f"rows{cuts}*"):
                old.unlink()
            cuts, left = cuts + count, left - count
    sys.stdout.write(f"S2, {kind}, {suffix}: {cuts} power cuts, 0 committed rows lost\n")
