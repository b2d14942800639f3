"""A stall: cycles of references are found, and what is held is told."""

from __future__ import annotations

import gc

import pytest
import reactivex
from scripted import PUBACK, ScriptedBroker, publish
from serving import until_disconnect

from rxflow import from_mqtt, run
from rxflow import operators as ops
from rxflow.delivery import Delivery, Ledger
from rxflow.log import logger
from rxflow.sources.stall import QUIET, STILL, Stall


@pytest.fixture
def ledger():
    gc.collect()
    gc.disable()  # or it might run by itself
    yield Ledger()
    gc.enable()


def in_a_cycle(ledger):
    """A delivery that nobody holds but itself."""
    cycle: list = [Delivery(ledger, 1)]
    cycle.append(cycle)


def looked_at(stall, ledger, *times):
    """What it says at each of these times, and whether it let go of something by then."""
    said = []
    for now in times:
        said.append((stall.notice(now), ledger.has_news))
        ledger.settle()
    return said


def test_a_message_in_a_cycle_of_references_is_let_go_as_soon_as_it_is_quiet(ledger):
    stall = Stall(ledger, "Do something")
    in_a_cycle(ledger)
    assert looked_at(stall, ledger, 0.0, QUIET / 2) == [(None, False)] * 2
    assert looked_at(stall, ledger, QUIET) == [(None, True)]
    assert ledger.unsettled == 0


def test_when_it_is_usual_it_is_said_once_with_what_to_do(ledger):
    stall, said = Stall(ledger, "Do something"), []
    for now in range(5):
        in_a_cycle(ledger)
        said += looked_at(stall, ledger, now, now + QUIET)
    texts = [text for text, _ in said if text]
    assert len(texts) == 1
    assert "except ValueError as error" in texts[0]


def test_what_is_held_on_purpose_is_looked_for_less_and_less_often(ledger, monkeypatch):
    looks, now, stall = [], 0.0, Stall(ledger, "Do something")
    held = []
    monkeypatch.setattr(gc, "collect", looks.append)
    for number in range(100):  # one every half second
        held.append(Delivery(ledger, number + 1))
        for now in (0.5 * number, 0.5 * number + QUIET, 0.5 * number + 0.4):
            stall.notice(now)
    assert len(looks) <= 5


def test_what_is_held_by_somebody_is_told_after_a_while(ledger):
    stall, held = Stall(ledger, "Do something"), Delivery(ledger, 1)
    said = looked_at(stall, ledger, 0.0, QUIET, 1.0, STILL, STILL + 1)
    assert [bool(text) for text, _ in said] == [False, False, False, True, False]
    del held


def test_a_function_that_keeps_its_exception_holds_up_no_window_of_a_broker():
    """Twenty in flight, each in a cycle: the next twenty come when these are acknowledged."""
    lines = []

    def script(conversation):
        conversation.accept()
        conversation.accept_subscription()
        for window in range(4):
            ids = range(1 + 20 * window, 21 + 20 * window)
            conversation.send(b"".join(publish("a", b"x", 1, n) for n in ids))
            assert conversation.packet_ids(PUBACK, 20) == list(ids)
        conversation.send(publish("end", b"x", 0))
        until_disconnect(conversation)

    def careless(message):
        try:
            return int(message.payload)
        except ValueError as error:
            last = error
        return str(last)

    gc.disable()
    try:
        with ScriptedBroker(script) as broker:
            number = logger.add(lines.append, level="WARNING", format="{message}")
            source = from_mqtt(broker.url, "#", keep_alive=0)
            end = source.pipe(ops.share(), ops.take_while(lambda m: m.topic != "end"))
            run(end.pipe(ops.map(careless)), reactivex.Observer())
            logger.remove(number)
    finally:
        gc.enable()
    assert sum("cycles of references" in line for line in lines) == 1
    assert not any("stalled for" in line for line in lines)
