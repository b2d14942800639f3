"""At the end nothing is lost: random pipelines of all operators, ended at any moment.

Each case is drawn from a seed, and runs in virtual time with the client and the sinks of
production; `pipelines.making` says what is drawn, `pipelines.judging` what is judged. What fails is
made smaller, and printed as a program. Another range of seeds, in more processes:

    RXFLOW_SEEDS=100000-150000 python -m pytest tests/battery/test_random_pipelines.py -n 2
"""

from __future__ import annotations

import gc
import os
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
from battery.sizes import PIPELINES
from operators.cases import OURS_ALONE
from pipelines import judging
from pipelines.judging import Fault, Outcome, faults, judged, run
from pipelines.making import Case, Generator, Pipeline, Step, paste, written
from pipelines.shrinking import shrunk
from reactivex import Observable

from rxflow import operators as ops
from rxflow.delivery import Ledger
from rxflow.message import Batch

CHUNK = 250
SHOWN = 3

_first, _, _last = os.environ.get("RXFLOW_SEEDS", f"0-{PIPELINES}").partition("-")
CHUNKS = range(int(_first), int(_last), CHUNK)

NOT_DRAWN = {
    "to_future",  # subscribes while it is composed: it is the end of a pipeline, not a part
}


@pytest.fixture(autouse=True)
def only_references_count():
    """What is in a cycle is not let go by chance."""
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()
    gc.collect()


def told(case: Case, found: list[Fault]) -> str:
    kind = found[0].kind
    small = shrunk(case, lambda other: any(fault.kind == kind for fault in faults(other)))
    texts = "\n".join(fault.text for fault in faults(small))
    return f"\n{paste(small)}\n{texts}\n"


@pytest.mark.parametrize("first", CHUNKS)
def test_acknowledged_is_stored_or_let_go_by_choice_and_a_good_end_loses_nothing(first):
    failing: list[tuple[Case, list[Fault]]] = []
    last = min(first + CHUNK, int(_last))
    for seed in range(first, last):
        case = Generator(seed).case()
        if found := faults(case):
            failing.append((case, found))
        if seed % 50 == 0:
            gc.collect()
    texts = [told(case, found) for case, found in failing[:SHOWN]]
    seeds = [case.seed for case, _ in failing]
    assert not failing, f"{len(failing)} of {last - first} fail: seeds {seeds}\n{''.join(texts)}"


# -- the generator draws what it should ------------------------------------------------------------


def test_every_operator_of_the_table_is_drawn():
    drawn: set[str] = set()
    for seed in range(4_000):
        case = Generator(seed).case()
        drawn.update(re.findall(r"ops\.(\w+)", paste(case)))
    assert set(ops.OPERATORS) - drawn - set(OURS_ALONE) == NOT_DRAWN


def test_a_seed_always_draws_the_same_case():
    assert paste(Generator(7).case()) == paste(Generator(7).case())


# -- the judge sees what is wrong ------------------------------------------------------------------

BARE = Case(
    seed=0,
    lanes=("t q1 : -a-b-c---",),
    trunk=Pipeline("t", 1, ()),
    share="",
    limbs=((),),
    disks=("",),
    end="seconds",
    at=1.05001,
)


def case_of(text: str, **changes) -> Case:
    kind = "K"
    if text[1:3] == ": ":
        kind, text = text[0], text[3:]
    steps = (Step(kind, text, key="" if kind in "KAE" else "k"),) if text else ()
    return replace(BARE, trunk=Pipeline("t", 1, steps), **changes)


GOOD = {
    "nothing": "",
    "a buffer": "ops.buffer_with_count(2)",
    "a filter": "D: ops.filter(lambda m: ident(m) % 2)",
    "debounce": "D: ops.debounce(0.15)",
    "a sum": "R: ops.count()",
    "take": "C: ops.take(2)",
}


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD)
def test_what_is_good_is_found_good(text):
    assert faults(case_of(text)) == []


def tampered(text: str, change) -> list[str]:
    case = case_of(text)
    outcome = run(case)
    change(outcome)
    return [fault.kind for fault in judged(case, outcome)]


def test_a_row_that_is_missing_is_found():
    def lose(outcome: Outcome) -> None:
        outcome.rows[0].remove("c")

    assert "acknowledged, not stored" in tampered("ops.buffer_with_count(2)", lose)


def test_an_acknowledgement_that_is_missing_is_found():
    def lose(outcome: Outcome) -> None:
        outcome.acknowledged.remove("c")

    assert "stored, not acknowledged" in tampered("", lose)


def test_a_report_that_does_not_add_up_is_found():
    def change(outcome: Outcome) -> None:
        assert outcome.report
        outcome.report = replace(outcome.report, received=4)

    assert {"report", "report: received"} <= set(tampered("", change))


def test_an_error_that_nobody_planned_is_found():
    def change(outcome: Outcome) -> None:
        outcome.error = ValueError("x")

    assert "raised ValueError" in tampered("", change)


def test_what_debounce_held_is_not_taken_for_what_it_dropped():
    def lose(outcome: Outcome) -> None:
        outcome.rows[0].remove("c")

    assert tampered("D: ops.debounce(0.9)", lose) == ["acknowledged, not stored"]


# -- controls: without a safeguard, it is found ----------------------------------------------------


def dropping_at_the_end(count: int, skip: int | None = None):
    """`buffer_with_count`, were the last batch forgotten."""
    del skip

    def apply(source):
        def subscribe(observer, scheduler=None):
            held = []

            def on_next(item):
                held.append(item)
                if len(held) == count:
                    batch = Batch(held)
                    held.clear()
                    observer.on_next(batch)

            def on_completed():
                held.clear()
                observer.on_completed()

            return source.subscribe(on_next, observer.on_error, on_completed, scheduler=scheduler)

        return Observable(subscribe)

    return apply


def test_control_an_operator_that_forgets_its_last_batch_is_found(monkeypatch):
    operators = SimpleNamespace(**{**ops.OPERATORS, "buffer_with_count": dropping_at_the_end})
    monkeypatch.setitem(judging._NAMES, "ops", operators)
    found = faults(case_of("ops.buffer_with_count(2), ops.map(plain)"))
    assert found
    assert found[0].text.startswith("c: ")


def test_control_a_ledger_that_never_closes_is_found(monkeypatch):
    held = "ops.group_by(ident), ops.flat_map(lambda g: g.pipe(ops.delay(0.3)))"
    case = case_of(f"E: {held}, ops.map(Fails(1))", lanes=("t q1 : -abcdef---",))
    assert faults(case) == []
    monkeypatch.setattr(Ledger, "close", Ledger.settle)
    assert {fault.kind for fault in faults(case)} == {"acknowledged, not stored"}


def test_what_is_printed_is_a_program_that_runs(capsys):
    case = case_of("ops.buffer_with_count(2)")
    exec(paste(case), {})
    assert capsys.readouterr().out.splitlines()[1] == "['a', 'b', 'c']"


def test_written_operators_name_their_parts():
    case = next(
        c for c in (Generator(s).case() for s in range(99)) if any(x.parts for x in c.trunk.steps)
    )
    assert "{0}" not in written(case.trunk.steps, is_watched=False)
