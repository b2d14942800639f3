"""Random pipelines as text, with what is known of each operator: a generator of its own.

Of each operator one thing is known that is not taken from rxflow: what it may do with an item.

    K  keeps it: it comes out in some form, at a time limit at the latest
    A  keeps it, but lets time pass, or asks its scheduler: a `take_until` below need not wait
    D  may drop it, as reactivex's own would of the same items at the same times
    H  keeps it, but comes late: where what is upstream doesn't wait, it misses the first
    L  may drop it, and which depends on other sources (`zip`, `combine_latest`, `switch_map`)
    R  makes one of many: what comes in is let go, and what comes out is new
    C  may drop it, and may end the stream (`take`, `first`)
    U  ends the stream at a time, with all that came before (`take_until`)
    S  keeps it, or sets it aside
    E  fails, or begins again (`retry`, `catch`)
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LOWER = UPPER.lower()


@dataclass(frozen=True)
class Step:
    """One operator, or some that belong together.

    Attributes:
        kind: See above.
        text: Its expression; `{0}` and `{1}` are its parts.
        parts: Pipelines within it: of each stream, or of each branch.
        is_branching: Its parts stand side by side; else the one is within it.
        key: Names what is seen of it.
        of_parts: Of a `partition`, what reactivex would pass on to each part.
        source: Another source, and its pipeline, that it takes in.
        is_plain: What it emits is no message whose payload JSON can hold.
        is_shared: What is upstream of it belongs to the run.
    """

    kind: str
    text: str
    parts: tuple[tuple[Step, ...], ...] = ()
    is_branching: bool = False
    key: str = ""
    of_parts: tuple[str, ...] = ()
    source: Pipeline | None = None
    is_plain: bool = False
    is_shared: bool = False


@dataclass(frozen=True)
class Pipeline:
    """A source, and what is made of it."""

    topic: str
    qos: int
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Case:
    """One run.

    Attributes:
        lanes: Of the broker.
        trunk: What is before the sinks part; with one sink, everything.
        share: How it is shared by two sinks; empty with one.
        limbs: What is behind that, for each sink.
        disks: Of the sinks.
        end: How it ends: `seconds`, `signal`, `cancel`, and in anger `cancel twice` and `hasty`.
        at: When, in seconds.
        again: Of `cancel twice`: how long after that.
        drain: How long it may take to end; None: as long as by default.
    """

    seed: int
    lanes: tuple[str, ...]
    trunk: Pipeline
    share: str
    limbs: tuple[tuple[Step, ...], ...]
    disks: tuple[str, ...]
    end: str
    at: float
    again: float = 0.0
    drain: float | None = None


# -- what each operator is written as --------------------------------------------------------------

PLAIN = "ops.map(plain)"
ENDS = (
    *("seconds", "seconds", "seconds", "seconds", "signal", "signal", "cancel", "U", "natural"),
    *("cancel twice", "hasty"),
)


class Generator:
    """Draws a case from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.seed = seed
        self._keys = count()
        self._instants = count(1)
        self._others = 0
        self.has_other = False
        self.is_in_message = False  # what is drawn is the stream of one message
        self.is_hot = False  # what is drawn comes behind something that is shared

    # -- small things

    def time(self, lowest: float = 0.01, highest: float = 0.6) -> float:
        """Of odd microseconds, so that no two things happen at one instant by chance."""
        return round(self.random.uniform(lowest, highest), 2) + self.random.randrange(1, 999) / 1e5

    def near(self, seconds: float) -> float:
        """A time that no other thing has."""
        return seconds + next(self._instants) / 1e5

    def few(self, lowest: int = 1, highest: int = 5) -> int:
        return self.random.randint(lowest, highest)

    def key(self, letter: str) -> str:
        return f"{letter}{next(self._keys)}"

    def own(self, before: str = "") -> str:
        """A scheduler of the operator's own, now and then."""
        return f"{before}scheduler=marbles.scheduler" if self.random.random() < 0.3 else ""

    # -- a whole case

    def case(self) -> Case:
        draw = self.random
        qos = draw.choice([0, 1, 1, 1, 2, 2])
        at = self.time(0.05, 1.8)
        trunk = Pipeline("t", qos, self.steps(draw.choice([1, 2, 2, 3, 3, 4, 5])))
        share, limbs = "", ((),)
        if draw.random() < 0.3:
            share = draw.choice(SHARES)
            self.is_hot = True
            limbs = (self.steps(draw.choice([0, 1, 2])), self.steps(draw.choice([0, 1, 2])))
        end = draw.choice(ENDS)
        again = 0.0
        if end == "natural":
            first = Step("U", f"ops.take_until(timer({at:g}))", key=self.key("u"))
            trunk = replace(trunk, steps=(first, *trunk.steps))
            end, at = "seconds", 20.0
        elif end == "U":
            text = draw.choice(ENDINGS).format(f"{at:g}")
            last = Step("U", text, key=self.key("u"))
            if share:
                limbs = tuple((*limb, replace(last, key=self.key("u"))) for limb in limbs)
            else:
                trunk = replace(trunk, steps=(*trunk.steps, last))
            end, at = "seconds", 20.0
        elif end == "cancel twice":
            again = draw.choice([0.0, self.time(0.001, 0.3)])
        disks = tuple(self.disk() for _ in limbs)
        return Case(self.seed, self.lanes(qos), trunk, share, limbs, disks, end, at, again)

    def lanes(self, qos: int) -> tuple[str, ...]:
        draw = self.random
        found = [f"t q{qos} : {self.lane(LOWER)}"]
        if self.has_other:
            found.append(f"u q{qos} : {self.lane(UPPER)}")
        if draw.random() < 0.15:
            before, gap = draw.randint(2, 12), draw.randint(5, 10)
            found.append(f"$connection : ^{'-' * before}!{'-' * (gap - 1)}^---")
        return tuple(found)

    def lane(self, letters: str) -> str:
        """Up to 20 messages, within two seconds."""
        draw = self.random
        left = list(letters[: draw.choice([0, 1, 2, 3, 4, 5, 7, 12, 20])])
        text = "-"
        for _ in range(16):
            if not left or draw.random() < 0.45:
                text += "-"
            elif draw.random() < 0.25:
                burst = left[: draw.randint(2, 12)]
                del left[: len(burst)]
                text += f"({''.join(burst)})"
            else:
                text += left.pop(0)
        return text

    def disk(self) -> str:
        draw = self.random
        if draw.random() < 0.7:
            return ""
        text = "".join(draw.choice("---==") for _ in range(draw.randint(1, 20)))
        return text + "x" if draw.random() < 0.1 else text

    # -- operators

    def steps(self, number: int, depth: int = 0) -> tuple[Step, ...]:
        found: list[Step] = []
        for _ in range(number):
            found.extend(self.step(depth))
        return tuple(found)

    def step(self, depth: int) -> Sequence[Step]:
        draw = self.random
        kinds = "KKKKKKKKKKKKDDDDDRCUES" if depth == 0 else "KKKKKKDDRCS"
        kind = draw.choice(kinds)
        roll = draw.random()
        if kind == "K" and depth < 2 and roll < 0.3:
            return self.nested(depth)
        if kind == "K" and depth < 2 and roll < 0.45:
            return self.branching(depth)
        if kind == "K" and depth == 0 and roll < 0.55:
            return self.with_other()
        if kind == "K" and roll < 0.6:
            kind = "A"
        if kind == "D" and roll < 0.15:
            kind = "L"
        if kind == "S" and self.is_in_message:
            kind = "K"  # what is within is a plain value, whose row is that of no message
        make = draw.choice(SIMPLE[kind])
        while make in LATE and self.is_hot:
            make = draw.choice(SIMPLE[kind])
        if make in LATE and depth:
            kind = "H"
        return self.simple(kind, make)

    def simple(self, kind: str, make: Callable[[Generator], str]) -> Sequence[Step]:
        text = make(self)
        while self.is_in_message and any(word in text for word in ENDLESS):
            text = self.random.choice(SIMPLE[kind])(self)
        is_plain = text.endswith("!")
        text = text.rstrip("!")
        key = "" if kind in "KAE" else self.key(kind.lower())
        is_shared = kind == "K" and any(word in text for word in SHARING)
        step = Step(kind, text, key=key, is_plain=is_plain, is_shared=is_shared)
        return (step, Step("K", PLAIN)) if is_plain and self.random.random() < 0.5 else (step,)

    def nested(self, depth: int) -> Sequence[Step]:
        draw = self.random
        kind, text = draw.choice(NESTED)(self)
        while self.is_in_message and "window_toggle(" in text:
            kind, text = draw.choice(NESTED)(self)
        before, self.is_in_message = self.is_in_message, self.is_in_message or "(m).pipe" in text
        inner = self.steps(draw.choice([0, 1, 1, 2]), depth + 1)
        self.is_in_message = before
        step = Step(kind, text, parts=(inner,), key=self.key("n") if kind != "K" else "")
        return (step,)

    def branching(self, depth: int) -> Sequence[Step]:
        draw = self.random
        parts = tuple(
            (
                *self.steps(draw.choice([0, 1, 1, 2]), depth + 1),
                Step("K", f'ops.map(tag("#{self.key("")}"))'),
            )
            for _ in range(2)
        )
        kind, text, of_parts = draw.choice(BRANCHING)(self)
        key = self.key("p") if of_parts else ""
        return (
            Step(kind, text, parts, is_branching=True, key=key, of_parts=of_parts, is_shared=True),
        )

    def with_other(self) -> Sequence[Step]:
        if self.has_other:
            return self.simple("K", self.random.choice(SIMPLE["K"]))
        self.has_other = True
        qos = self.random.choice([0, 1, 1, 2])
        other = Pipeline("u", qos, self.steps(self.random.choice([0, 0, 1, 2]), 1))
        kind, text = self.random.choice(WITH_OTHER)
        is_plain = text.endswith("!")
        key = self.key(kind.lower()) if kind != "K" else ""
        step = Step(kind, text.rstrip("!"), key=key, source=other, is_plain=is_plain)
        return (step,)


Make = Callable[[Generator], str]

LATE: tuple[Make, ...] = (
    lambda g: "ops.subscribe_on(marbles.scheduler)",
    lambda g: f"ops.delay_subscription({g.time(0.01, 0.2):g}{', marbles.scheduler' * g.few(0, 1)})",
)
"""What subscribes later: of a group or a window, which don't wait, it misses the first items."""

ENDLESS = ("merge(never", "skip_until(", "_toggle(", "zip_latest(", "join(", "combine_latest(")
"""What does not end with its source: a message whose stream has it is held for ever."""

SHARING = ("share", "publish", "replay", "multicast")
SHARES = (
    "ops.share()",
    "ops.share()",
    "ops.publish(), ops.ref_count()",
    "ops.replay(2), ops.ref_count()",
    "ops.publish_value('none'), ops.ref_count()",
    "ops.multicast(Subject()), ops.ref_count()",
)
ENDINGS = (
    "ops.take_until(timer({}))",
    "ops.take_until_with_time({})",
    "ops.take_with_time({})",
)
BREAK = "ops.map(Fails(1)), ops.ignore_elements()"
EVEN = "lambda m: ident(m) % 2 == 0"
UNEVEN = "lambda m: ident(m) % 2 == 1"

# `!`: what it emits is to be shown by `plain` before a sink.
SIMPLE: dict[str, tuple[Make, ...]] = {
    "K": (
        lambda g: PLAIN,
        lambda g: "ops.map_indexed(lambda m, i: [plain(m), i])",
        lambda g: "ops.map(lambda m: (plain(m), 7)), ops.starmap(lambda x, _: x)",
        lambda g: "ops.map(lambda m: (plain(m), 7)), ops.starmap_indexed(lambda x, i: [x, i])",
        lambda g: "ops.map(lambda m: {'k': plain(m)}), ops.pluck('k')",
        lambda g: "ops.map(Box.of), ops.pluck_attr('value')",
        lambda g: f"ops.timestamp({g.own()})!",
        lambda g: f"ops.time_interval({g.own()})!",
        lambda g: "ops.materialize(), ops.dematerialize()",
        lambda g: "ops.materialize()!",
        lambda g: "ops.as_observable()",
        lambda g: "ops.default_if_empty('none')",
        lambda g: "ops.do(reactivex.Observer())",
        lambda g: "ops.do_action(ignore)",
        lambda g: "ops.tap(ignore)",
        lambda g: "ops.finally_action(lambda: None)",
        lambda g: "ops.start_with('none')",
        *LATE,
        lambda g: "ops.scan(lambda _, m: plain(m), None)",
        lambda g: f"ops.buffer_with_count({g.few(1, 6)})",
        lambda g: f"ops.buffer_with_count({g.few(1, 6)})",
        lambda g: "ops.buffer_with_count(3, 2)",
        lambda g: f"ops.buffer_with_time({g.time():g}{g.own(', ')})",
        lambda g: f"ops.buffer_with_time({g.time(0.3, 0.6):g}, {g.time(0.1, 0.29):g}{g.own(', ')})",
        lambda g: f"ops.buffer_with_time_or_count({g.time():g}, {g.few(1, 6)}{g.own(', ')})",
        lambda g: f"ops.buffer(timer({g.time():g}, {g.time(0.05):g}))",
        lambda g: f"ops.buffer_when(lambda: timer({g.time(0.05):g}))",
        lambda g: "ops.to_list()",
        lambda g: "ops.to_iterable()",
        lambda g: "ops.take_last_buffer(99)",
        lambda g: "ops.map(frozen), ops.to_set()!",
        lambda g: "ops.to_dict(lambda m: repr(plain(m)))!",
        lambda g: "ops.take_last(99)",
        lambda g: f"ops.take_last_with_time(90.0{g.own(', ')})",
        lambda g: "ops.slice(-99, None)",
        lambda g: "ops.zip_with_iterable(itertools.count())!",
        lambda g: f"ops.delay({g.time():g}{g.own(', ')})",
        lambda g: f"ops.delay(9.0{g.own(', ')})",
        lambda g: f"ops.delay_with_mapper(lambda m: timer({g.time():g}))",
        lambda g: "ops.delay_with_mapper(lambda m: never())",
        lambda g: f"ops.timeout(90.0{g.own(', ')})",
        lambda g: "ops.timeout_with_mapper(timer(90.0), lambda m: timer(90.0))",
        lambda g: "ops.flat_map(several)",
        lambda g: "ops.flat_map(one)",
        lambda g: "ops.flat_map(lambda m: [plain(m)])",
        lambda g: "ops.flat_map_indexed(lambda m, i: [plain(m), i])",
        lambda g: "ops.concat_map(one)",
        lambda g: "ops.concat_map(several)",
        lambda g: "ops.map(one), ops.merge_all()",
        lambda g: "ops.map(one), ops.concat_all()",
        lambda g: f"ops.map(one), ops.merge(max_concurrent={g.few(1, 3)})",
        lambda g: "ops.expand(lambda m: reactivex.empty())",
        lambda g: "ops.buffer_with_count(10), ops.flat_map(reactivex.from_iterable)",
        lambda g: "ops.catch(reactivex.of('none'))",
        lambda g: "ops.catch(lambda _, again: again)",
        lambda g: "ops.on_error_resume_next(reactivex.of('none'))",
        lambda g: "ops.retry(2)",
        lambda g: "ops.merge(never())",
        lambda g: "ops.concat(reactivex.of('none'))",
        lambda g: "ops.amb(never())",
        lambda g: "ops.share()",
        lambda g: "ops.publish(), ops.ref_count()",
        lambda g: "ops.replay(1), ops.ref_count()",
        lambda g: "ops.publish_value('none'), ops.ref_count()",
        lambda g: "ops.multicast(Subject()), ops.ref_count()",
    ),
    "A": (
        lambda g: "ops.observe_on(marbles.scheduler)",
        lambda g: f"ops.flat_map(lambda m: later(m, {g.time(0.01, 0.4):g}))",
        lambda g: f"ops.concat_map(lambda m: later(m, {g.time(0.01, 0.06):g}))",
        lambda g: (
            f"ops.map(lambda m: later(m, {g.time(0.01, 0.1):g})), ops.merge(max_concurrent=2)"
        ),
    ),
    "S": (lambda g: "ops.map(plain), ops.map(refuses, rejected=aside)",),
    "D": (
        lambda g: f"ops.filter(lambda m: ident(m) % {g.few(2, 5)})",
        lambda g: "ops.filter_indexed(lambda m, i: i % 3 < 2)",
        lambda g: "ops.distinct(ident)",
        lambda g: "ops.distinct(lambda m: ident(m) % 4)",
        lambda g: "ops.distinct_until_changed(lambda m: ident(m) // 3)",
        lambda g: f"ops.skip({g.few()})",
        lambda g: "ops.skip_while(lambda m: ident(m) % 4)",
        lambda g: f"ops.skip_while_indexed(lambda m, i: i < {g.few()})",
        lambda g: f"ops.skip_until(timer({g.time():g}))",
        lambda g: f"ops.skip_until_with_time({g.time():g}{g.own(', ')})",
        lambda g: f"ops.skip_with_time({g.time():g}{g.own(', ')})",
        lambda g: f"ops.skip_last({g.few()})",
        lambda g: f"ops.skip_last_with_time({g.time():g}{g.own(', ')})",
        lambda g: f"ops.slice(-{g.few()}, None)",
        lambda g: f"ops.throttle_first({g.time():g}{g.own(', ')})",
        lambda g: f"ops.debounce({g.time():g}{g.own(', ')})",
        lambda g: f"ops.debounce(9.0{g.own(', ')})",
        lambda g: f"ops.throttle_with_timeout({g.time():g}{g.own(', ')})",
        lambda g: f"ops.throttle_with_mapper(lambda m: timer({g.time():g}))",
        lambda g: f"ops.sample({g.time(0.05):g}{g.own(', ')})",
        lambda g: f"ops.sample({g.near(0.9):g})",
        lambda g: f"ops.sample(timer({g.time():g}, {g.time(0.05):g}))",
        lambda g: "ops.ignore_elements()",
        lambda g: f"ops.take_last({g.few()})",
        lambda g: f"ops.take_last_buffer({g.few()})",
        lambda g: f"ops.take_last_with_time({g.time():g}{g.own(', ')})",
        lambda g: "ops.buffer_with_count(1, 2)",
    ),
    "L": (
        lambda g: "ops.pairwise()!",
        lambda g: f"ops.buffer_toggle(timer({g.time():g}, 0.31), lambda _: timer({g.time():g}))",
        lambda g: f"ops.switch_map(lambda m: later(m, {g.time():g}))",
        lambda g: "ops.switch_map(one)",
        lambda g: "ops.switch_map_indexed(lambda m, i: one(m))",
        lambda g: "ops.flat_map_latest(one)",
        lambda g: "ops.map(one), ops.switch_latest()",
        lambda g: "ops.map(one), ops.exclusive()",
        lambda g: f"ops.buffer_with_time({g.time(0.01, 0.2):g}, {g.time(0.3):g})",
        lambda g: f"ops.combine_latest(timer({g.time():g}))!",
        lambda g: f"ops.with_latest_from(timer({g.time():g}))!",
        lambda g: f"ops.zip(timer({g.time():g}, 0.1))!",
        lambda g: "ops.zip_with_list(['x!', 'y!', 'z!'])!",
        lambda g: f"ops.zip_latest(timer({g.time():g}, 0.3))!",
        lambda g: (
            f"ops.group_join(timer({g.time():g}, 0.3), lambda _: timer(1), lambda _: timer(1)), "
            "ops.map(lambda pair: plain(pair[0]))"
        ),
        lambda g: (
            f"ops.join(timer({g.time():g}, 0.3), lambda _: timer(0.13), lambda _: timer(0.2))!"
        ),
    ),
    "R": (
        lambda g: "ops.reduce(lambda a, m: 1, 0)",
        lambda g: "ops.count()",
        lambda g: "ops.sum(lambda m: 1)",
        lambda g: "ops.average(lambda m: 1)",
        lambda g: "ops.all(lambda m: ident(m) % 5)",
        lambda g: "ops.some(lambda m: ident(m) % 5 == 0)",
        lambda g: "ops.contains('c')",
        lambda g: "ops.is_empty()",
        lambda g: "ops.find_index(lambda x, i, _: i == 2)",
        lambda g: "ops.min(lambda a, b: ident(a) - ident(b))",
        lambda g: "ops.max(lambda a, b: ident(a) - ident(b))",
        lambda g: "ops.min_by(ident)",
        lambda g: "ops.max_by(ident)",
        lambda g: "ops.last_or_default('none')",
        lambda g: "ops.last()",
        lambda g: "ops.single_or_default(lambda m: ident(m) == 99, 'none')",
        lambda g: "ops.take(1), ops.single()",
        lambda g: "ops.take(1), ops.single_or_default_async(True, 'none')",
        lambda g: "ops.sequence_equal(['a', 'b', 'c'])",
        lambda g: "ops.map(ident), ops.to_marbles(0.1)",
    ),
    "C": (
        lambda g: f"ops.take({g.few()})",
        lambda g: "ops.take_while(lambda m: ident(m) % 5)",
        lambda g: "ops.take_while(lambda m: ident(m) % 5, inclusive=True)",
        lambda g: f"ops.take_while_indexed(lambda m, i: i < {g.few()})",
        lambda g: f"ops.slice(0, {g.few()})",
        lambda g: f"ops.slice(1, {g.few(3, 9)}, 2)",
        lambda g: "ops.first()",
        lambda g: "ops.first_or_default(None, 'none')",
        lambda g: f"ops.element_at({g.few(0, 3)})",
        lambda g: f"ops.element_at_or_default({g.few(0, 3)}, 'none')",
        lambda g: f"ops.find(lambda x, i, _: i == {g.few(0, 3)})",
    ),
    "U": tuple(
        (lambda g, ending=ending: ending.format(f"{g.time(0.05, 1.5):g}")) for ending in ENDINGS
    ),
    "E": (
        lambda g: f"ops.map(Fails({g.few(1, 8)}))",
        lambda g: f"ops.map(Fails({g.few(1, 8)})), ops.retry(2)",
        lambda g: f"ops.map(Fails({g.few(1, 8)})), ops.buffer_with_count(3), ops.retry(20)",
        lambda g: f"ops.map(Fails({g.few(1, 8)}, 2)), ops.retry(3)",
        lambda g: f"ops.map(Fails({g.few(1, 8)})), ops.catch(lambda _, again: again)",
        lambda g: (
            f"ops.map(Fails({g.few(1, 8)})), ops.catch(lambda _, again: "
            f"timer({g.time():g}).pipe(ops.ignore_elements(), ops.concat(again)))"
        ),
        lambda g: f"ops.map(Fails({g.few(1, 8)})), ops.catch(reactivex.of('none'))",
        lambda g: f"ops.map(Fails({g.few(1, 8)})), ops.on_error_resume_next(reactivex.of('none'))",
        lambda g: f"ops.merge(timer({g.time(0.1, 1.5):g}).pipe({BREAK}))",
        lambda g: f"ops.take_until(timer({g.time(0.1, 1.5):g}).pipe({BREAK}))",
        lambda g: f"ops.merge(timer({g.time(0.1, 1.5):g}).pipe({BREAK})), ops.retry(2)",
        lambda g: f"ops.take({g.few(1, 4)}), ops.repeat(2)",
        lambda g: f"ops.take({g.few(1, 4)}), ops.do_while(so_often(1))",
        lambda g: f"ops.take({g.few(1, 4)}), ops.while_do(so_often(2))",
        lambda g: f"ops.timeout({g.time(0.2, 0.9):g})",
        lambda g: f"ops.timeout({g.time(0.2, 0.9):g}), ops.retry(2)",
        lambda g: "ops.repeat(2)",
        lambda g: "ops.share(), ops.retry(2)",
    ),
}

GROUP = "ops.group_by(lambda m: ident(m) % 3)"
EACH = "ops.flat_map(lambda s: s.pipe({0}))"
Nested = Callable[[Generator], tuple[str, str]]
_STREAMS: tuple[tuple[str, Make], ...] = (
    ("K", lambda g: GROUP),
    ("K", lambda g: GROUP),
    ("K", lambda g: "ops.group_by(lambda m: ident(m) % 2, plain)"),
    ("K", lambda g: f"ops.group_by_until(ident, None, lambda _: timer({g.time(0.05):g}))"),
    ("K", lambda g: f"ops.window_with_count({g.few()})"),
    ("K", lambda g: "ops.window_with_count(3, 2)"),
    ("K", lambda g: f"ops.window_with_time({g.time(0.05):g}{g.own(', ')})"),
    ("K", lambda g: f"ops.window_with_time_or_count({g.time(0.05):g}, {g.few()}{g.own(', ')})"),
    ("K", lambda g: f"ops.window(timer({g.time():g}, {g.time(0.05):g}))"),
    ("K", lambda g: f"ops.window_when(lambda: timer({g.time(0.05):g}))"),
    ("L", lambda g: f"ops.window_toggle(timer({g.time():g}, 0.31), lambda _: timer({g.time():g}))"),
)
NESTED: tuple[Nested, ...] = (
    *((lambda g, kind=kind, make=make: (kind, f"{make(g)}, {EACH}")) for kind, make in _STREAMS),
    lambda g: ("K", f"{GROUP}, ops.map(lambda g: g.pipe({{0}})), ops.merge_all()"),
    lambda g: ("L", "ops.window_with_count(3), ops.concat_map(lambda w: w.pipe({0}))"),
    lambda g: ("L", f"{GROUP}, ops.switch_map(lambda g: g.pipe({{0}}))"),
    lambda g: ("K", "ops.flat_map(lambda m: one(m).pipe({0}))"),
    lambda g: ("K", "ops.flat_map(lambda m: one(m).pipe({0}))"),
    lambda g: ("K", "ops.concat_map(lambda m: several(m).pipe({0}))"),
    lambda g: ("K", "ops.publish(lambda s: s.pipe({0}))"),
    lambda g: ("K", "ops.replay(mapper=lambda s: s.pipe({0}))"),
    lambda g: ("K", "ops.publish_value('none', lambda s: s.pipe({0}))"),
    lambda g: (
        "K",
        "ops.multicast(subject_factory=lambda _: Subject(), mapper=lambda s: s.pipe({0}))",
    ),
)

Branching = Callable[[Generator], tuple[str, str, tuple[str, ...]]]
_PARTS = "lambda s: s.pipe({0}), lambda s: s.pipe({1})"
BRANCHING: tuple[Branching, ...] = (
    *(
        (lambda g, share=share: ("K", f"branches([{share}], {_PARTS})", ()))
        for share in (*SHARES[:4], SHARES[5])
    ),
    lambda g: ("K", "ops.publish(lambda s: s.pipe({0}).pipe(ops.merge(s.pipe({1}))))", ()),
    lambda g: (
        "K",
        f"parted(ops.partition({EVEN}), {_PARTS})",
        (f"ops.filter({EVEN})", f"ops.filter({UNEVEN})"),
    ),
    lambda g: (
        "K",
        f"parted(ops.partition_indexed(lambda m, i: i % 2 == 0), {_PARTS})",
        ("ops.filter_indexed(lambda m, i: i % 2 == 0)", "ops.filter_indexed(lambda m, i: i % 2)"),
    ),
)

WITH_OTHER: tuple[tuple[str, str], ...] = (
    ("K", "ops.merge({other})"),
    ("K", "ops.merge({other})"),
    ("K", "ops.concat({other})"),
    ("K", "ops.on_error_resume_next({other})"),
    ("K", "ops.catch({other})"),
    ("L", "ops.zip({other})!"),
    ("L", "ops.combine_latest({other})!"),
    ("L", "ops.with_latest_from({other})!"),
    ("L", "ops.zip_latest({other})!"),
    ("L", "ops.amb({other})"),
    ("L", "ops.fork_join({other})!"),
    ("L", "ops.join({other}, lambda _: timer(0.13), lambda _: timer(0.2))!"),
    ("L", "ops.sequence_equal({other})"),
    ("L", "ops.buffer({other})"),
    ("L", "ops.sample({other})"),
    ("L", "ops.skip_until({other})"),
)


# -- as text ---------------------------------------------------------------------------------------


def written(steps: Sequence[Step], *, is_watched: bool) -> str:
    """The operators, as arguments of `pipe`."""
    found: list[str] = []
    for step in steps:
        parts = [written(part, is_watched=is_watched) for part in step.parts]
        text = step.text
        for index, part in enumerate(parts):
            text = text.replace(f"{{{index}}}", part)
        if step.source:
            text = text.replace("{other}", flow(step.source, is_watched=is_watched))
        if is_watched and step.kind == "E":
            text = f"counted({step.text!r}), {text}"
        if is_watched and step.key:
            text = f"watch({step.key!r}, lambda s: s.pipe({text}))"
        if step.kind == "R":
            made = f"Made({step.key!r})" if is_watched else f"lambda _: {step.key!r}"
            text += f", ops.map({made})"
        found.append(text)
    return ", ".join(found)


def flow(pipeline: Pipeline, *, is_watched: bool) -> str:
    """A source, and its operators."""
    read = f"read(b, {pipeline.topic!r}, {pipeline.qos})"
    return f"{read}.pipe({written(pipeline.steps, is_watched=is_watched)})"


def program(case: Case, *, is_watched: bool = False) -> str:
    """The case as statements within `with Marbles(frame="100ms") as marbles:`."""
    lines = ['b = marbles.mqtt("""', *(f"    {lane}" for lane in case.lanes), '""")']
    sinks = [f"s{number}" for number, _ in enumerate(case.disks, 1)]
    lines += [
        f"{sink} = marbles.sink({disk!r})" for sink, disk in zip(sinks, case.disks, strict=True)
    ]
    if "rejected=aside" in _all_text(case):
        lines.append("aside = marbles.sink()")
    trunk = flow(case.trunk, is_watched=is_watched)
    if case.share:
        lines.append(f"shared = {trunk[:-1]}{', ' if case.trunk.steps else ''}{case.share})")
        trunk = "shared"
    flows = []
    for limb in case.limbs:
        text = written(shown(case, limb), is_watched=is_watched)
        if is_watched:
            text += f"{', ' * bool(text)}ops.do_action(arrived({len(flows)}))"
        flows.append(f"{trunk}.pipe({text})" if text else trunk)
    pairs = ", ".join(f"({text}, {sink})" for text, sink in zip(flows, sinks, strict=True))
    drain = 0.0 if case.end == "hasty" else case.drain
    rest = "log=False" if drain is None else f"drain_timeout={drain:g}, log=False"
    ending = {
        "seconds": f"run_async({pairs}, seconds={case.at:g}, {rest})",
        "hasty": f"run_async({pairs}, seconds={case.at:g}, {rest})",
        "signal": f"stopped({pairs}, at={case.at:g}, {rest})",
        "cancel": f"cancelled({pairs}, at={case.at:g}, {rest})",
        "cancel twice": f"cancelled({pairs}, at={case.at:g}, again={case.again:g}, {rest})",
    }[case.end]
    lines.append(f"report = marbles.run({ending})")
    return "\n".join(lines)


def _all_text(case: Case) -> str:
    limbs = [step for limb in case.limbs for step in limb]
    return written([*case.trunk.steps, *limbs], is_watched=False) + case.share


def shown(case: Case, limb: Sequence[Step]) -> Sequence[Step]:
    """With a last `plain`, if something may emit what JSON can't hold."""
    trunk = case.trunk.steps
    text = written([*trunk, *limb], is_watched=False) + case.share
    is_mixed = "'none'" in text or "lambda _: 'r" in text
    lists = sum(
        text.count(name) for name in ("buffer", "to_list", "to_iterable", "min_by", "max_by")
    )
    if lists > (not is_mixed) or _needs_plain([*trunk, *limb]):
        return (*limb, Step("K", PLAIN))
    return limb


def _needs_plain(steps: Sequence[Step]) -> bool:
    return any(
        step.is_plain
        or (step.source and _needs_plain(step.source.steps))
        or any(map(_needs_plain, step.parts))
        for step in steps
    )


def paste(case: Case) -> str:
    """A program that runs the case, and shows what came of it."""
    body = program(case).replace("\n", "\n    ")
    return (
        f"from pipelines.words import *  # seed {case.seed}; PYTHONPATH=tests\n\n"
        f'with Marbles(frame="100ms") as marbles:\n    {body}\n'
        f"    print(report, sorted(a.key for a in b.acknowledgements))\n"
        + "".join(f"    print(s{n}.stored)\n" for n, _ in enumerate(case.disks, 1))
    )


# -- the ways of an item ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Passage:
    """One thing on the way of an item: a tag, or an operator that is watched.

    Attributes:
        kind: That of the operator, or `tag`.
        name: Of the record, or of the tag.
        reference: What reactivex would do with the items of that record.
        is_nested: It stands in a stream within the stream, or in a branch.
        is_strict: Of `U`: everything upstream ends with it. Of `E`: so does the source.
        is_switched: It stands in a stream that the next one ends (`switch_map`).
    """

    kind: str
    name: str
    reference: str = ""
    is_nested: bool = False
    is_strict: bool = True
    is_switched: bool = False


Way = tuple[Passage, ...]


def ways(case: Case, sink: int) -> list[tuple[str, Way]]:
    """By which ways the messages of each topic should come to a sink."""
    steps = (*case.trunk.steps, *((_SHARED,) if case.share else ()), *case.limbs[sink])
    found = [(case.trunk.topic, way) for way in _ways(steps)]
    for index, step in enumerate(steps):
        if step.source and step.kind == "K":
            rest = (*step.source.steps, *steps[index + 1 :])
            found += [(step.source.topic, way) for way in _ways(rest)]
    return found


_SHARED = Step("K", "share", is_shared=True)


def _ways(
    steps: Sequence[Step],
    *,
    is_nested: bool = False,
    is_loose: bool = False,
    is_shared: bool = False,
) -> Iterator[Way]:
    if not steps:
        yield ()
        return
    step, rest = steps[0], steps[1:]
    if step.kind == "E":
        head = Passage(
            "E", "", step.text, is_nested, is_strict=not (is_shared or "take(" in step.text)
        )
        for tail in _ways(rest, is_nested=is_nested, is_loose=True, is_shared=is_shared):
            yield (head, *tail)
        return
    is_shared = is_shared or step.is_shared
    is_loose = is_loose or step.kind == "A" or step.is_shared or _is_loose(step.parts)
    for head in _through(step, is_nested=is_nested, is_loose=is_loose):
        for tail in _ways(rest, is_nested=is_nested, is_loose=is_loose, is_shared=is_shared):
            yield (*head, *tail)


def _is_loose(parts: Sequence[Sequence[Step]]) -> bool:
    return any(
        step.kind in "AEL" or step.is_shared or _is_loose(step.parts)
        for part in parts
        for step in part
    )


def _through(step: Step, *, is_nested: bool, is_loose: bool) -> Iterator[Way]:
    own: Way = ()
    if step.text.startswith("ops.map(tag("):
        own = (Passage("tag", step.text.split('"')[1]),)
    elif step.key and not step.of_parts:
        own = (Passage(step.kind, step.key, step.text, is_nested, is_strict=not is_loose),)
    if not step.parts:
        yield own
    for index, part in enumerate(step.parts):
        head = own
        if step.of_parts:
            # What a stream emits at once only the first part gets: it counts for itself.
            kind = "L" if "indexed" in step.text else "D"
            head = (Passage(kind, step.key, step.of_parts[index], is_nested),)
        is_switched = "switch_map(" in step.text
        for tail in _ways(part, is_nested=True):
            if is_switched:
                yield (*head, *(replace(each, is_switched=True) for each in tail))
            else:
                yield (*head, *tail)
