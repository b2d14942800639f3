"""Makes a case that fails smaller, as long as it fails in the same way."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

from pipelines.making import Case, Step

Steps = tuple[Step, ...]


def shrunk(case: Case, fails: Callable[[Case], bool], *, most: int = 400) -> Case:
    """The smallest that is found, of those that differ from it by one thing at a time."""
    tried = 0
    is_smaller = True
    while is_smaller and tried < most:
        is_smaller = False
        for smaller in _smaller(case):
            tried += 1
            if fails(smaller):
                case, is_smaller = smaller, True
                break
            if tried >= most:
                break
    return case


def _smaller(case: Case) -> Iterator[Case]:
    if case.share:
        for limb, disk in zip(case.limbs, case.disks, strict=True):
            steps = (*case.trunk.steps, *limb)
            trunk = replace(case.trunk, steps=steps)
            yield replace(case, trunk=trunk, share="", limbs=((),), disks=(disk,))
        if case.share != "ops.share()":
            yield replace(case, share="ops.share()")
    for steps in _fewer(case.trunk.steps):
        yield replace(case, trunk=replace(case.trunk, steps=steps))
    for index, limb in enumerate(case.limbs):
        for steps in _fewer(limb):
            limbs = (*case.limbs[:index], steps, *case.limbs[index + 1 :])
            yield replace(case, limbs=limbs)
    if case.end != "seconds":
        yield replace(case, end="seconds")
    yield from _quieter_around(case)


def _quieter_around(case: Case) -> Iterator[Case]:
    if any(case.disks):
        yield replace(case, disks=tuple("" for _ in case.disks))
    for index, lane in enumerate(case.lanes):
        others = case.lanes[:index], case.lanes[index + 1 :]
        if lane.startswith("$"):
            yield replace(case, lanes=(*others[0], *others[1]))
            continue
        head, _, text = lane.partition(" : ")
        for less in _quieter(text):
            yield replace(case, lanes=(*others[0], f"{head} : {less}", *others[1]))
    if case.trunk.qos != 1:
        lanes = tuple(re.sub(" q[02] :", " q1 :", lane) for lane in case.lanes)
        yield replace(case, lanes=lanes, trunk=replace(case.trunk, qos=1))


def _fewer(steps: Steps) -> Iterator[Steps]:
    for index, step in enumerate(steps):
        before, after = steps[:index], steps[index + 1 :]
        yield (*before, *after)
        for part in step.parts:
            yield (*before, *(s for s in part if "tag(" not in s.text), *after)
        if step.source:
            for less in _fewer(step.source.steps):
                source = replace(step.source, steps=less)
                yield (*before, replace(step, source=source), *after)
        for number, part in enumerate(step.parts):
            for less in _fewer(part):
                if step.is_branching and not any("tag(" in s.text for s in less):
                    continue
                parts = (*step.parts[:number], less, *step.parts[number + 1 :])
                yield (*before, replace(step, parts=parts), *after)
        plain = re.sub(r"(, )?scheduler=marbles\.scheduler", "", step.text)
        if plain != step.text:
            yield (*before, replace(step, text=plain), *after)


def _quieter(text: str) -> Iterator[str]:
    letters = re.findall("[a-zA-Z]", text)
    for number in (len(letters) // 2, 1):
        if number and number < len(letters):
            yield _without(text, letters[-number:])
            yield _without(text, letters[:number])
    for letter in letters if len(letters) < 8 else ():
        yield _without(text, [letter])
    if "(" in text and len(letters) < 6:
        yield text.replace("(", "").replace(")", "")


def _without(text: str, letters: list[str]) -> str:
    if "(" not in text:
        return "".join("-" if each in letters else each for each in text)
    left = "".join("" if each in letters else each for each in text)
    return re.sub(r"\(([a-zA-Z])\)", r"\1", left.replace("()", "-"))
