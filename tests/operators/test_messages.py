"""Every operator with messages: what comes out, in which envelope, what is acknowledged when."""

from __future__ import annotations

import gc
import re
from pathlib import Path
from typing import Any

import pytest
from operators.cases import OURS_ALONE, Given, each
from reactivex import Notification, Observable
from reactivex import operators as rx
from reactivex.subject import Subject
from reactivex.testing import TestScheduler
from streams import Source, envelope_of, store, unwrapped

from rxflow import operators as ops
from rxflow.operators.envelope import messages_in, newest
from rxflow.scope import Scope, within

ALL = [*each(), *((name, case) for name, case in OURS_ALONE.items())]
all_cases = pytest.mark.parametrize(("name", "case"), ALL, ids=[name for name, _ in ALL])

VALUES = {1: 1, 2: 2, 3: 2, 4: 4, 5: 3, 6: 0}
OTHERS = {3: 103, 5: 105}

HOLDING = {
    "buffer",
    "buffer_toggle",
    "buffer_when",
    "buffer_with_count",
    "buffer_with_time",
    "buffer_with_time_or_count",
    "concat_map",
    "debounce",
    "delay",
    "delay_with_mapper",
    "flat_map-2",
    "flat_map_latest",
    "group_by-2",
    "group_by-3",
    "merge-1",
    "sample",
    "skip_last",
    "skip_last_with_time",
    "slice-1",
    "slice-2",
    "slice-3",
    "starmap-1",
    "switch_map",
    "take_last",
    "take_last_buffer",
    "take_last_with_time",
    "throttle_with_mapper",
    "throttle_with_timeout",
    "to_dict",
    "to_iterable",
    "to_list",
    "to_set",
    "window_with_count-2",
    "window_with_count-3",
    "zip",
}
"""What may keep a message for later: by name of the operator, or of the case."""


CHOOSING = {"scan-1"}
"""Cases whose function returns one of the messages it was given: that keeps its own envelope."""

DROPPING_THE_LAST = {"skip_last", "skip_last_with_time", "slice-2", "slice-3", "starmap-1", "zip"}
"""What is left in these at the end was let go neither in time nor stored: it comes again."""


def shown(event: Any) -> str:
    time, kind, value = event
    return f"{time:.3f} {kind} {str(value) if isinstance(value, Notification) else repr(value)}"


@pytest.fixture(autouse=True, scope="module")
def only_references_count():
    gc.disable()
    yield
    gc.enable()


class Driven:
    """One pipeline over a source of ours, and all that its sink was given."""

    def __init__(self, case: Any, *downstream: Any, is_storing: bool, is_failing: bool = False):
        self.clock = TestScheduler()
        self.source, self.other = Source("main"), Source("other")
        self.events: list[tuple[float, str, Any]] = []
        self.items: list[Any] = []
        self.stored: set[int] = set()
        self.is_storing = is_storing
        self.root = Scope()
        self.counts = 0
        upstream = (ops.map(self._failing),) if is_failing else ()
        operators = (*upstream, *case(ops, Given(self.other, self.clock)), *downstream)
        self.subscriptions: list[Any] = []
        self.watch(self.source.pipe(*operators))

    def _failing(self, message: Any) -> Any:
        self.counts += 1
        if self.counts == 5:
            raise OSError("broken")
        return message

    def watch(self, observable: Observable[Any]) -> None:
        def on_next(item: Any) -> None:
            inner = item[-1] if isinstance(item, tuple) and item else item
            if isinstance(inner, Observable):
                self.watch(inner)
                return
            if item != []:
                self.events.append((self.clock.clock, "next", unwrapped(item)))
            if self.is_storing:
                self.store(item)
            else:
                self.items.append(item)

        subscription = observable.subscribe(
            on_next,
            lambda error: self.events.append((self.clock.clock, "error", type(error))),
            lambda: self.events.append((self.clock.clock, "completed", None)),
            scheduler=within(self.root, self.clock),
        )
        self.subscriptions.append(subscription)

    def store(self, item: Any) -> None:
        for token in tokens_in(item):
            self.stored.add((self.source.ids | self.other.ids)[token.ledger, token.number])
        store(item)

    def store_all(self) -> None:
        while self.items:
            self.store(self.items.pop(0))

    def receive(self, number: int) -> None:
        self.clock.advance_to(number)
        self.source.receive(number, VALUES[number])
        if number in OTHERS:
            self.clock.advance_to(number + 0.5)
            self.other.receive(OTHERS[number], 7)

    def resolved(self) -> set[int]:
        return self.source.resolved() | self.other.resolved()

    def settled(self) -> set[int]:
        return {*self.source.settled(), *self.other.settled()}


def tokens_in(item: Any) -> list[Any]:
    """The deliveries behind an item, whatever they are wrapped in."""
    found = [message.delivery for message in messages_in(item) if message.delivery]
    while any(not hasattr(token, "number") for token in found):
        found = [
            part
            for token in found
            for part in getattr(token, "tokens", [getattr(token, "_token", token)])
        ]
    return found


def plain(case: Any) -> list[tuple[float, str, Any]]:
    """What reactivex makes of the payloads alone."""
    clock, events = TestScheduler(), []
    source, other = Subject(), Subject()

    def watch(observable: Observable[Any]) -> None:
        def on_next(item: Any) -> None:
            inner = item[-1] if isinstance(item, tuple) and item else item
            if isinstance(inner, Observable):
                watch(inner)
            elif item != []:
                events.append((clock.clock, "next", item))

        observable.subscribe(
            on_next,
            lambda error: events.append((clock.clock, "error", type(error))),
            lambda: events.append((clock.clock, "completed", None)),
            scheduler=clock,
        )

    watch(source.pipe(*case(rx, Given(other, clock))))
    for number, value in VALUES.items():
        clock.advance_to(number)
        source.on_next(value)
        if number in OTHERS:
            clock.advance_to(number + 0.5)
            other.on_next(7)
    clock.advance_to(8)
    source.on_completed()
    clock.advance_to(8.0004)
    other.on_completed()
    clock.advance_to(30)
    return events


def test_the_page_about_operators_says_no_of_all_that_hold_nothing_and_of_no_other():
    page = (Path(__file__).parents[2] / "docs" / "operators.md").read_text()
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `")]
    holding = {
        name
        for row in rows
        for name in re.findall(r"`(\w+)`", row[1])
        if not row[4].strip().startswith("no")
    }
    alone = {name for name in HOLDING if "-" not in name}
    in_some_cases = {name.split("-")[0] for name in HOLDING - alone}
    downstream_of_it = {"group_by", "starmap", "window_with_count"}  # another operator holds
    of_what_runs = {"concat_all", "exclusive", "flat_map_indexed", "expand", "merge_all"}
    of_what_runs |= {"switch_latest", "switch_map_indexed", "observe_on"}  # and ends at once, here
    assert holding - of_what_runs == alone | in_some_cases - downstream_of_it - {"merge"}


def may_hold(name: str) -> bool:
    return name in HOLDING or name.split("-", maxsplit=1)[0] in HOLDING


@pytest.mark.parametrize(("name", "case"), each(), ids=[name for name, _ in each()])
def test_results_are_those_of_the_payloads_and_nothing_is_held_up_after_the_end(name, case):
    driven = Driven(case, is_storing=True)
    for number in VALUES:
        driven.receive(number)
    driven.clock.advance_to(8)
    is_cut_off = bool(driven.source.disposals + driven.other.disposals)
    for tick in range(1, 5):
        driven.source.complete()
        driven.clock.advance_to(8 + tick / 10_000)
    driven.other.complete()
    driven.clock.advance_to(30)
    assert [*map(shown, driven.events)] == [*map(shown, plain(case))]
    if not is_cut_off and name not in DROPPING_THE_LAST:
        assert driven.settled() == set(driven.source.ids.values()) | set(driven.other.ids.values())


@all_cases
def test_what_remembers_holds_up_no_later_acknowledgement(name, case):
    driven = Driven(case, is_storing=True)
    for number in VALUES:
        driven.receive(number)
        driven.clock.advance_to(number + 0.75)
        if not may_hold(name) and not driven.source.disposals:
            assert driven.source.ledger.received == len(driven.source.settled())


@all_cases
def test_what_comes_of_a_message_carries_its_delivery(name, case):
    driven = Driven(case, is_storing=False)
    for number, value in VALUES.items():
        driven.clock.advance_to(number)
        before = len(driven.items)
        driven.source.receive(number, value)
        emitted = driven.items[before:]
        assert not emitted or number not in driven.settled()
        messages = [message for item in driven.items for message in messages_in(item)]
        assert {*map(envelope_of, messages)} <= {*driven.source.envelopes.values()}
        if emitted and not may_hold(name) and name not in CHOOSING:
            last = newest(messages_in(emitted[-1]))
            assert envelope_of(last) == driven.source.envelopes[number]


@all_cases
@pytest.mark.parametrize("is_storing", [True, False])
def test_dispose_acknowledges_nothing_that_is_not_stored(name, case, is_storing):
    driven = Driven(case, is_storing=is_storing)
    for number in VALUES:
        driven.receive(number)
    before = driven.resolved()
    for subscription in reversed(driven.subscriptions):
        subscription.dispose()
    driven.clock.advance_to(30)
    driven.items.clear()
    assert driven.settled() <= before | driven.stored


@all_cases
@pytest.mark.parametrize("downstream", ["", "retry", "take"])
def test_an_error_acknowledges_nothing_that_is_not_stored(name, case, downstream):
    after = {"retry": (ops.retry(2),), "take": (ops.take(1),), "": ()}[downstream]
    driven = Driven(case, *after, is_storing=False, is_failing=True)
    driven.clock.advance_to(0.5)
    for number, value in VALUES.items():
        before = driven.resolved()
        driven.source.receive(number, value)
        if driven.source.disposals:
            break
        driven.clock.advance_to(number)
        driven.other.receive(number + 100, 7)
    driven.items.clear()
    assert driven.settled() <= before


@all_cases
def test_repeat_begins_again_and_what_was_stored_is_acknowledged(name, case):
    driven = Driven(case, ops.repeat(2), is_storing=True)
    for number in (1, 2):
        driven.receive(number)
    driven.clock.advance_to(2.5)
    driven.source.complete()
    driven.other.complete()
    driven.clock.advance_to(9)
    driven.source.receive(4, 4)
    driven.clock.advance_to(9.1)
    has_failed = "error" in [kind for _, kind, _ in driven.events]
    is_cut_off = name == "single_or_default_async"  # by `take(1)`, and emits after that
    if not may_hold(name) and not is_cut_off and not has_failed:
        assert driven.settled() == set(driven.source.ids.values())
