"""A file that is made, recovered or rotated, by a process that is ended between any two steps.

    python file_crashes.py FOLDER PAIRS [CONTROL]

It prints one JSON line: how many trials, and what went wrong in each that did. A trial is a forked
child that is ended at one step, or a second one after it, and one that goes on to the end; each
begins with the file opened, ends with two commits, and says each row that is on the disk. The
control `copytruncate` rotates as logrotate may.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import sys
from pathlib import Path

from battery.power import found_in
from battery.qos2_crashes import Step

from rxflow.sinks.file.folder import Place
from rxflow.sinks.file.format import ARRAY, LINES
from rxflow.sinks.file.store import DurableFile

ROWS = [b'{"n":0,"pad":"%b"}' % (b"x" * 600), b'{"n":1}']
LAYOUTS = {".json": ARRAY, ".jsonl": LINES}
BEGINNINGS = {
    suffix: {
        "nothing": b"",
        "rows": layout.opening + layout.joined(ROWS, is_first=True),
        "torn": layout.opening
        + layout.joined(ROWS, is_first=True).removesuffix(layout.ending)
        + layout.separator
        + b'{"n":2',
    }
    for suffix, layout in LAYOUTS.items()
}


def live(path, existing, point, said):
    """One process's life, ended at that step; 0: it goes on to the end. True if it was ended."""
    child = os.fork()
    if child == 0:
        step = Step(point)
        step.watch()
        try:
            file = DurableFile(path, LAYOUTS[path.suffix], existing, None)
            file.open()
            for _ in range(2):
                number = said_last(said) + 1
                file.commit([b'{"n":%d}' % number])
                with said.open("a") as told:
                    told.write(f"{number}\n")
            file.close()
        except BaseException as error:  # noqa: BLE001 (a child has nobody to raise to)
            sys.stderr.write(f"{error!r}\n")
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in {0, 9}:
        raise RuntimeError(f"the child failed at step {point}")
    return status == 9


def said_last(said):
    return int(said.read_text().split()[-1])


def trial(folder, suffix, existing, beginning, points):
    """What is wrong after a crash at each of these points, if anything; and how many came."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    path = folder / f"rows{suffix}"
    said = folder / "said"
    said.write_text("-1\n" if beginning == "nothing" else "1\n")
    if content := BEGINNINGS[suffix][beginning]:
        path.write_bytes(content)
    crashes = sum(live(path, existing, point, said) for point in [*points, 0])
    last = said_last(said)
    found = found_in(path)
    missing = sorted(set(range(last + 1)) - set(found))
    # A row whose writer was ended before it could say so is written again by the next.
    again = len(found) - len(set(found))
    wrong = missing or again > crashes or found != sorted(found)
    return found if wrong else None, crashes


def copytruncate(self):
    number = len([*self.path.parent.iterdir()])
    path = self.path.with_name(f"rows-20260102T000000Z-{number}{self.path.suffix}")
    shutil.copyfile(self.path, path)
    os.fsync(self._folder)
    self.path.unlink()
    return path


def main():
    folder, pairs = Path(sys.argv[1]), int(sys.argv[2])
    if sys.argv[3:] == ["copytruncate"]:
        Place.rotate = copytruncate
    wrong, trials, chosen = [], 0, random.Random(1)
    for case in itertools.product(LAYOUTS, ["append", "rotate"], ["nothing", "rows", "torn"]):
        crashes, last = 1, 0
        while crashes:
            last += 1
            found, crashes = trial(folder / "trial", *case, [last])
            trials += 1
            wrong += [[*case, last, found]] * (found is not None)
        every = list(itertools.product(range(1, last), repeat=2))
        for points in chosen.sample(every, min(pairs // 12, len(every))):
            found, _ = trial(folder / "trial", *case, points)
            trials += 1
            wrong += [[*case, *points, found]] * (found is not None)
    sys.stdout.write(json.dumps({"trials": trials, "wrong": wrong}) + "\n")


if __name__ == "__main__":
    main()
