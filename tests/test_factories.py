"""Several streams made into one."""

from __future__ import annotations

import pytest
import reactivex

import rxflow
from rxflow import ConfigError, Flow

NAMES = ["amb", "combine_latest", "concat", "fork_join", "merge", "with_latest_from", "zip"]


def test_what_two_sources_emit_is_merged(marbles):
    a, b = marbles.hot("-a---c|"), marbles.hot("--b----d|")
    marbles.check(rxflow.merge(a, b), "-ab--c-d|")


def test_one_source_follows_the_other(marbles):
    a, b = marbles.cold("-a|"), marbles.cold("b-c|")
    marbles.check(rxflow.concat(a, b), "-ab-c|")


def test_the_source_that_is_first_wins(marbles):
    a, b, c = marbles.cold("---a|"), marbles.cold("-b-b|"), marbles.cold("--c|")
    marbles.check(rxflow.amb(a, b, c), "-b-b|")


def test_of_each_source_comes_the_last_item(marbles):
    a, b = marbles.cold("ab|"), marbles.cold("--c|")
    marbles.check(rxflow.fork_join(a, b), "---(x|)", x=("b", "c"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("combine_latest", [("a", "b"), ("c", "b"), ("c", "d")]),
        ("with_latest_from", [("c", "b")]),
        ("zip", [("a", "b"), ("c", "d")]),
    ],
)
def test_messages_are_combined_and_hold_up_no_acknowledgement(marbles, name, expected):
    broker = marbles.mqtt("""
        one q1 : -a-c----
        two q1 : --b---d-
    """)
    one = broker.from_mqtt("one").pipe(rxflow.operators.decode_json())
    two = broker.from_mqtt("two").pipe(rxflow.operators.decode_json())
    sink = marbles.sink()
    both = getattr(rxflow, name)(one, two).pipe(
        rxflow.operators.map(lambda pair: [message.payload for message in pair])
    )
    marbles.run(rxflow.run_async(both, sink, seconds=8, log=False))
    assert [tuple(row) for row in sink.stored] == expected
    assert sorted(each.key for each in broker.acknowledgements) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("name", NAMES)
def test_one_source_is_enough(name):
    made = getattr(rxflow, name)(reactivex.empty())
    assert isinstance(made, Flow)
    assert repr(made) == name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("wrong", [(), (1,), ([],), (None,)])
def test_what_is_no_observable_is_refused(name, wrong):
    if name == "with_latest_from" and not wrong:
        return
    with pytest.raises(ConfigError, match=name):
        getattr(rxflow, name)(*wrong)


def test_a_star_import_keeps_the_zip_of_python():
    assert "zip" not in rxflow.__all__


def test_a_plain_combine_latest_that_stands_still_is_named(marbles):
    broker, sink = marbles.mqtt("one q1 : -a-------\ntwo q1 : --b------"), marbles.sink()
    both = reactivex.combine_latest(broker.from_mqtt("one"), broker.from_mqtt("two")).pipe(
        rxflow.operators.map(lambda pair: [str(message.payload) for message in pair])
    )
    with pytest.warns(rxflow.RxflowWarning, match="use rxflow.combine_latest, which keeps none"):
        marbles.run(rxflow.run_async(both, sink, seconds=9, log=False))
    assert len(sink.stored) == 1
