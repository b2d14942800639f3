"""Runs a random pipeline, and judges what became of each message.

What is judged, of every message that came through `read`:

1.  Acknowledged is stored, by every way to every sink, or set aside, or let go by choice.
    What was chosen is not asked of rxflow: the items that came to an operator that may drop are
    played again, at the same times, to the one of reactivex, which then ends as it did; what that
    one would have emitted was not dropped by choice, and must have come on. So what an operator
    held when it was cut off is not let go.
2.  At an end that is none in anger (a limit, a signal, a cancelled task, `take_until`, the end of
    the source) everything received is stored or let go by choice, what reduces has told its result,
    what is stored is acknowledged, and `left` counts what is not acknowledged.
3.  The run is over in time, nothing else is raised than what the pipeline raises itself, and the
    report adds up.

Not judged: after an error or in haste, which of several rows in one sink are there (what was set
aside, and a plain value that came in the breath of a message, count as rows of it); what a branch
of a shared source had in hand when it failed or began again, while the other goes on, and has it;
the messages of a second source that only triggers (`zip`, `sample`, ...); of what is cut off by a
`take` downstream, whether it is left or stored; the answer about a stream in which nothing came,
one that is there while its stream is subscribed to, which only the first branch behind it gets, and
that of a stream which the next ends (`switch_map`).
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

from pipelines import words
from pipelines.making import Case, Passage, Way, program, ways
from pipelines.words import Record, Seen, Token, seen
from reactivex import operators as rx
from reactivex.internal.exceptions import (
    ArgumentOutOfRangeException,
    SequenceContainsNoElementsError,
)

from rxflow.errors import SinkError
from rxflow.running.report import Report
from rxflow.testing import Marbles
from rxflow.testing.virtual.clock import SECOND
from rxflow.testing.virtual.scheduler import VirtualScheduler, timers_on

TOO_LATE = 4.9
"""Seconds: a drain that takes so long has run into its timeout of five."""

LONG = 95.0
"""Seconds: a drain that takes so long is no longer one that only has much to do."""

TOO_FEW = ("first()", "last()", "element_at(", "min(", "max(", "single(", "average(")
"""What fails when there are none."""

IN_ANGER = ("cancel twice", "hasty")
"""Ends after which only what is stored is asked about."""

LEAVING = ("zip(", "skip_last")
"""What holds to the end, and is documented to leave that to the broker."""

MAY_FAIL = (*TOO_FEW, "ops.timeout(0")
CATCHING = ("catch(", "on_error_resume_next(", "retry(", "materialize(")


@dataclass
class Outcome:
    """What a run did."""

    error: BaseException | None = None
    report: Report | None = None
    acknowledged: set[str] = field(default_factory=set)
    rows: list[list[Any]] = field(default_factory=list)
    aside: list[Any] = field(default_factory=list)
    ended_at: float = 0.0
    seen: Seen = field(default_factory=Seen)


@dataclass(frozen=True)
class Fault:
    """What is wrong.

    Attributes:
        kind: A few words, the same for faults that are alike.
        text: All of it.
    """

    kind: str
    text: str


def faults(case: Case) -> list[Fault]:
    """What is wrong with a case, which is run for that.

    A drain may have so much to do that it runs into its timeout: twenty streams in a row take as
    long as they take. What is acknowledged is judged of that run too, everything else of one with
    a longer timeout. Who runs into that one as well would do so for ever.
    """
    outcome = run(case)
    if case.drain is None and case.end != "hasty" and _is_late(case, outcome):
        return _Judge(case, outcome, is_cut_short=True).faults() or faults(
            replace(case, drain=LONG)
        )
    return judged(case, outcome)


def run(case: Case) -> Outcome:
    """Run it in virtual time."""
    outcome = Outcome()
    vars(seen).update(vars(Seen()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # standing still, possible gaps
        try:
            with Marbles(frame="100ms", limit="150s") as marbles:
                seen.is_on = True
                seen.now = lambda: marbles.scheduler.virtual.microseconds
                _run(case, marbles, outcome)
        except BaseException as error:  # noqa: BLE001 (judged)
            outcome.error = error.with_traceback(None)
        finally:
            seen.is_on = False
    outcome.seen = Seen(**vars(seen))
    return outcome


def _run(case: Case, marbles: Marbles, outcome: Outcome) -> None:
    found: dict[str, Any] = dict(_NAMES, marbles=marbles)
    try:
        exec(_compiled(program(case, is_watched=True)), found)
    finally:
        outcome.ended_at = marbles.scheduler.virtual.microseconds / SECOND
        outcome.report = found.get("report")
        outcome.acknowledged = {each.key for each in found["b"].acknowledgements}
        sinks = [found[f"s{number}"] for number, _ in enumerate(case.disks, 1)]
        outcome.rows = [sink.stored for sink in sinks]
        if "aside" in found:
            outcome.aside = [_parsed(row["payload"]) for row in found["aside"].stored]


def _parsed(payload: str) -> Any:
    """What a rejected message's payload was: text as it is, everything else as JSON."""
    return json.loads(payload) if payload[:1] in "[{" else payload


_NAMES = vars(words)


@lru_cache(maxsize=64)
def _compiled(text: str) -> Any:
    return compile(text, "<pipeline>", "exec")


def judged(case: Case, outcome: Outcome) -> list[Fault]:
    """What is wrong with a run of it."""
    return _Judge(case, outcome).faults()


def _is_late(case: Case, outcome: Outcome) -> bool:
    return outcome.ended_at > case.at + (TOO_LATE if case.drain is None else case.drain - 0.1)


class _Judge:
    def __init__(self, case: Case, outcome: Outcome, *, is_cut_short: bool = False) -> None:
        self.case = case
        self.is_cut_short = is_cut_short
        self.outcome = outcome
        self.seen = outcome.seen
        self.text = program(case)
        self.found: list[Fault] = []
        self.stored = [set(words.tokens(rows)) for rows in outcome.rows]
        self.aside = {token for row in outcome.aside for token in words.tokens(row)}
        self.letters = [{letter for _, letter in tokens} for tokens in self.stored]
        for sink, letters in enumerate(self.letters):
            letters.update(self.seen.beside.get(sink, ()))
            if len(self.letters) == 1:
                letters.update(letter for _, letter in self.aside)
        self.passed: dict[tuple[int, str], set[Token]] = {}
        self.ways = [
            (sink, topic, way)
            for sink, _ in enumerate(case.limbs)
            for topic, way in ways(case, sink)
        ]
        records = [record for each in self.seen.records.values() for record in each]
        words_in = lambda known: any(word in self.text for word in known)  # noqa: E731
        has_caught = words_in(MAY_FAIL) and words_in(CATCHING)
        has_begun_again = any(times > 1 for times in self.seen.subscribed.values())
        self.has_failed = bool(self.seen.raised) or has_begun_again or has_caught
        self.is_cut = any(record.is_cut for record in records)
        self.has_outage = "$connection" in self.text

    def faults(self) -> list[Fault]:
        self._judge_error()
        may_be_full = any("x" in disk for disk in self.case.disks)
        is_graceful = self.outcome.error is None and self.case.end not in IN_ANGER
        is_graceful = is_graceful and not self.is_cut_short
        has_hidden = may_be_full or any(word in self.text for word in TOO_FEW)
        if self.case.end == "cancel" and has_hidden:
            is_graceful = False  # whoever cancels it is not told of the error
        for letter in self.seen.received:
            self._judge_message(letter, is_graceful=is_graceful)
        if is_graceful and not self.has_failed:
            self._judge_results()
        self._judge_report(is_graceful=is_graceful)
        return self.found

    def _add(self, kind: str, text: str) -> None:
        self.found.append(Fault(kind, text))

    # -- the end itself

    def _judge_error(self) -> None:
        error, text = self.outcome.error, self.text
        if error is None:
            return
        if isinstance(error, SinkError) and any("x" in disk for disk in self.case.disks):
            return
        if isinstance(error, OSError) and str(error) == "planned":
            return
        if isinstance(error, SequenceContainsNoElementsError | ArgumentOutOfRangeException) and any(
            word in text for word in TOO_FEW
        ):
            return
        if type(error) is Exception and "Timeout" in str(error) and "timeout(" in text:
            return
        if type(error) is Exception and "more than one" in str(error) and "single" in text:
            return
        self._add(f"raised {type(error).__name__}", f"{type(error).__name__}: {error}"[:300])

    # -- messages

    def _judge_message(self, letter: str, *, is_graceful: bool) -> None:
        topic = "u" if letter.isupper() else "t"
        is_acknowledged = letter in self.outcome.acknowledged
        fates = [
            (self._fate((), letter, way, sink), sink, way)
            for sink, its, way in self.ways
            if its == topic
        ]
        if not fates:
            return
        said = "acknowledged" if is_acknowledged else "received"
        missing = [(sink, way) for fate, sink, way in fates if fate == "missing"]
        if self.has_failed or not is_graceful:
            # A row of it is there: a ledger knows sinks, no branches within one.
            rows = self._rows(letter)
            missing = [(sink, way) for sink, way in missing if rows.isdisjoint(self.letters[sink])]
        if missing and (is_acknowledged or (is_graceful and not self.has_failed)):
            sink, way = missing[0]
            self._add(f"{said}, not stored", f"{letter}: {said}, not stored{_by(sink, way)}")
        elif (
            is_acknowledged
            and all(fate == "cut" for fate, _, _ in fates)
            and not any(letter in letters for letters in self.letters)
        ):
            self._add("acknowledged, nobody has it", f"{letter}: acknowledged, nobody has it")
        elif (
            is_graceful
            and not is_acknowledged
            and not (self.has_failed or self.has_outage or self.is_cut or self._qos(topic) == 0)
            and "skip_last" not in self.text  # it keeps what another batch has given to a sink
            and all(fate == "stored" for fate, _, _ in fates)
        ):
            self._add("stored, not acknowledged", f"{letter}: stored, not acknowledged")

    def _rows(self, letter: str) -> set[str]:
        """The letter, and the results that were made of it."""
        found = {letter}
        for key in sorted(self.seen.made, key=lambda key: int(key[1:])):  # as they follow
            for record in self.seen.records.get(key, []):
                if any(other in found for _, other in record.tokens):
                    found |= record.results
        return found

    def _qos(self, topic: str) -> int:
        case = self.case
        if topic == case.trunk.topic:
            return case.trunk.qos
        steps = [*case.trunk.steps, *(step for limb in case.limbs for step in limb)]
        asked = next(step.source.qos for step in steps if step.source)
        return min(asked, case.trunk.qos)  # what it is published with

    def _fate(self, tags: tuple[str, ...], letter: str, way: Way, sink: int) -> str:
        """What became of a letter on one way: stored, chosen, cut or missing."""
        for passage in way:
            if passage.kind == "tag":
                tags = (*tags, passage.name)
            elif fate := self._passed(passage, (tags, letter)):
                return fate
        if (tags, letter) in self.stored[sink]:
            return "stored"
        may_begin_again = any(each.kind == "E" and not each.is_strict for each in way)
        is_reset = (may_begin_again and self.has_failed) or self._is_reset(way)
        return "cut" if is_reset else "missing"

    def _passed(self, passage: Passage, token: Token) -> str:
        """What became of it there, if it did not go on."""
        records = self.seen.records.get(passage.name, [])
        entered = [record for record in records if token in record.tokens]
        if not entered:
            return self._awaited(passage, token[1], records)
        if passage.kind == "S" and token in self.aside:
            return "stored"
        if passage.kind == "H" and self.seen.times.get(token[1], 0) > 1:
            return "chosen"  # once it was missed
        if passage.kind in "LR" or (
            passage.kind in "DC"
            and not all(token in self._emitted(passage, record) for record in entered)
        ):
            return "chosen"
        return ""

    def _awaited(self, passage: Passage, letter: str, records: list[Record]) -> str:
        """What became of what never came there, if that explains it."""
        if passage.kind == "H":
            return "chosen"
        if passage.reference.startswith("ops.amb("):
            return "cut"
        if self._is_cut_off(letter, passage, records):
            return "chosen" if passage.is_nested else "cut"
        return ""

    def _is_reset(self, way: Way) -> bool:
        """Whether what two sinks share has ended for the one, and begun anew for the other."""
        own = [each.name for each in way if not each.is_nested]
        return bool(self.case.share) and any(len(self.seen.records.get(k, ())) > 1 for k in own)

    def _is_cut_off(self, letter: str, passage: Passage, records: list[Record]) -> bool:
        """Whether something ended before a letter came to it, which it may have awaited."""
        if passage.kind in "CRL":
            return any(record.is_cut for record in records)
        if passage.kind == "U":
            ends = [record.ended for record in records if record.ended is not None]
            if not ends:
                return False
            return not passage.is_strict or self.seen.received.get(letter, 0) > max(ends)
        return False

    def _emitted(self, passage: Passage, record: Record) -> set[Token]:
        key = (id(record), passage.reference)
        if key not in self.passed:
            self.passed[key] = set(words.tokens(_replayed(passage.reference, record)))
        return self.passed[key]

    # -- what reduces

    def _judge_results(self) -> None:
        for sink, _, way in self.ways:
            for index, passage in enumerate(way):
                if passage.kind != "R" or passage.is_switched:
                    continue
                records = self.seen.records.get(passage.name, [])
                of_nothing = any(not record.inputs for record in records)
                for result in [] if of_nothing else self.seen.made.get(passage.name, []):
                    if result in self.seen.at_once and any(p.kind == "tag" for p in way[index:]):
                        continue  # only the first branch of what is shared gets it
                    fate = self._fate((), result, way[index + 1 :], sink)
                    if fate == "missing" and not self._is_reset(way):
                        self._add("result not stored", f"{result}: not stored{_by(sink, way)}")
                # A branch of its own may end before what is shared does.
                may_end = any(each.kind == "U" and not each.is_strict for each in way[index:])
                may_be_left = any(each.kind == "L" for each in way[:index])
                if not (self.is_cut or may_end or may_be_left):
                    self._judge_number(passage)

    def _judge_number(self, passage: Passage) -> None:
        for record in self.seen.records.get(passage.name, []):
            expected = len(_replayed(passage.reference, record)) if record.inputs else 0
            if record.inputs and record.outputs != expected:
                text = f"{passage.reference}: {record.outputs} results instead of {expected}"
                self._add("no result", text)

    # -- the report

    def _judge_report(self, *, is_graceful: bool) -> None:
        case, report = self.case, self.outcome.report
        is_explained = (
            report and report.unacknowledged and any(word in self.text for word in LEAVING)
        )
        if _is_late(case, self.outcome) and not (is_explained or self.is_cut_short):
            text = f"ended at {self.outcome.ended_at:g} s, told to at {case.at:g} s"
            self._add("too late", text)
        if report is None:
            return
        parts = report.stored, report.filtered, report.rejected, report.unacknowledged
        if min(parts) < 0 or sum(parts) != report.received:
            self._add("report", f"doesn't add up: {report}")
        # Without a source it counts what was stored.
        if self.seen.deliveries and report.received != self.seen.deliveries:
            self._add(
                "report: received", f"{report.received}, not {self.seen.deliveries}: {report}"
            )
        if self.has_failed or self.has_outage or not is_graceful:
            return
        left = sum(
            letter not in self.outcome.acknowledged
            and self._qos("u" if letter.isupper() else "t") > 0
            for letter in self.seen.received
        )
        if report.unacknowledged != left:
            self._add("report: unacknowledged", f"{left} were not acknowledged: {report}")


def _by(sink: int, way: Way) -> str:
    tags = " ".join(passage.name for passage in way if passage.kind == "tag")
    return f" by s{sink + 1}" + (f" ({tags})" if tags else "")


def _replayed(text: str, record: Record) -> list[Any]:
    """What the operators of reactivex make of the items of a record, which then completes."""
    clock = VirtualScheduler()
    got: list[Any] = []
    source: Any = words.Subject()
    names: dict[str, Any] = dict(_NAMES, ops=rx, marbles=SimpleNamespace(scheduler=clock))
    with timers_on(clock):
        operators = eval(f"({text},)", names)
        source.pipe(*operators).subscribe(got.append, words.ignore, scheduler=clock)
        ended = record.ended if record.ended is not None else _last(record)
        for time, item in record.inputs:
            clock.virtual.at(time - record.began, lambda item=item: source.on_next(item))
        clock.virtual.at(ended - record.began, source.on_completed)
        clock.advance_to((ended - record.began) / SECOND)
    return got


def _last(record: Record) -> int:
    """When it ended, of one that did not: after its last item."""
    return record.inputs[-1][0] if record.inputs else record.began
