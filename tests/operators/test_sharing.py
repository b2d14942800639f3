from __future__ import annotations

import pytest
from reactivex.subject import BehaviorSubject, ReplaySubject, Subject
from streams import Source, storing

from rxflow import operators as ops
from rxflow import run_async

CONNECTABLES = {
    "publish": ops.publish,
    "publish_value": lambda: ops.publish_value(None),
    "replay": lambda: ops.replay(buffer_size=1),
    "multicast": lambda: ops.multicast(Subject()),
}


def test_the_end_of_one_branch_leaves_the_other_running(marbles):
    source = marbles.hot("-a----b")
    until = marbles.hot(" ---s")
    ended = "             ---(x|)"
    running = "           -a----b"
    used = "              ^"
    shared = source.pipe(ops.share())
    first = marbles.observe(shared.pipe(ops.buffer_with_count(9), ops.take_until(until)))
    second = marbles.observe(shared)
    marbles.check(first, ended, x=["a"])
    marbles.check(second, running)
    assert source.subscriptions == used


def test_the_end_of_the_run_ends_the_shared_source(marbles):
    source = marbles.hot("-a----b")
    first, second = marbles.sink(), marbles.sink()
    stored = "            ---^"
    used = "              ^--!"
    completions = []
    watched = source.pipe(ops.do_action(on_completed=lambda: completions.append("source")))
    shared = watched.pipe(ops.share())
    held = shared.pipe(ops.buffer_with_count(9), ops.take_until(Subject()))
    marbles.run(run_async((held, first), (held, second), seconds=3, log=False))
    assert (first.stored, second.stored) == ([["a"]], [["a"]])
    assert (first.committed, second.committed) == (stored, stored)
    assert source.subscriptions == used
    assert completions == ["source"]


@pytest.mark.parametrize("make", CONNECTABLES.values(), ids=CONNECTABLES)
def test_what_is_published_belongs_to_the_run(make):
    source, stop = Source(), Subject()
    source.pipe(make(), ops.ref_count(), ops.take_until(stop)).subscribe()
    stop.on_next("now")
    assert (source.completions, source.disposals) == (0, 1)


@pytest.mark.parametrize(
    "make", [ops.publish, lambda m: ops.publish_value(None, m), lambda m: ops.replay(mapper=m)]
)
def test_with_a_mapper_the_source_belongs_to_the_subscription(make):
    source, stop = Source(), Subject()
    source.pipe(make(lambda shared: shared), ops.take_until(stop)).subscribe()
    stop.on_next("now")
    assert source.completions == 1


def test_both_branches_must_store_before_it_is_acknowledged(marbles):
    broker = marbles.mqtt("""
        t q1          : -a---""")
    fast = "            -a--- 1m ..."
    slow = "            ----a 1m ..."
    acknowledged = "    ----^"
    shared = broker.from_mqtt("t").pipe(ops.decode_json(), ops.share())
    first = marbles.observe(shared.pipe(storing))
    second = marbles.observe(shared.pipe(ops.delay(3.0), storing))
    marbles.check(first, fast)
    marbles.check(second, slow)
    assert broker.acknowledged("t") == acknowledged


def test_one_operator_used_twice_shares_each_source_by_itself():
    share, first, second = ops.share(), Source(), Source()
    for source in (first, second):
        share(source).subscribe()
    assert (first.subscriptions, second.subscriptions) == (1, 1)


@pytest.mark.parametrize("subject", [BehaviorSubject(0), ReplaySubject(1)])
def test_a_subject_of_ones_own_is_used(subject):
    connectable = Source().pipe(ops.multicast(subject))
    assert connectable.subject is subject
