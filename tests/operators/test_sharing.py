from __future__ import annotations

import pytest
from reactivex.subject import BehaviorSubject, ReplaySubject, Subject
from streams import Source, store

from rxflow import operators as ops
from rxflow.operators.scope import Scope, within

CONNECTABLES = {
    "publish": ops.publish,
    "publish_value": lambda: ops.publish_value(None),
    "replay": lambda: ops.replay(buffer_size=1),
    "multicast": lambda: ops.multicast(Subject()),
}


def test_the_end_of_one_branch_leaves_the_other_running():
    source, stop, got = Source(), Subject(), []
    shared = source.pipe(ops.share())
    first = shared.pipe(ops.buffer_with_count(9), ops.take_until(stop))
    first.subscribe(got.append)
    shared.subscribe(got.append)
    source.receive(1)
    stop.on_next("now")
    source.receive(2)
    assert [getattr(item, "payload", None) or item.payloads for item in got] == [1, [1], 2]
    assert (source.completions, source.disposals) == (0, 0)


def test_the_end_of_the_run_ends_the_shared_source():
    source, ended, root = Source(), [], Scope()
    scheduler = within(root, None)
    shared = source.pipe(ops.share())
    for _ in range(2):
        shared.pipe(ops.buffer_with_count(9), ops.take_until(Subject())).subscribe(
            ended.append, on_completed=lambda: ended.append("end"), scheduler=scheduler
        )
    source.receive(1)
    root.complete()
    assert source.completions == 1
    assert len(ended) == 4
    assert ended.count("end") == 2


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


def test_both_branches_must_store_before_it_is_acknowledged():
    source, slow = Source(), []
    shared = source.pipe(ops.share())
    shared.subscribe(store)
    shared.subscribe(slow.append)
    source.receive(1)
    assert source.settled() == []
    slow.clear()
    assert source.settled() == [1]


def test_one_operator_used_twice_shares_each_source_by_itself():
    share, first, second = ops.share(), Source(), Source()
    for source in (first, second):
        share(source).subscribe()
    assert (first.subscriptions, second.subscriptions) == (1, 1)


@pytest.mark.parametrize("subject", [BehaviorSubject(0), ReplaySubject(1)])
def test_a_subject_of_ones_own_is_used(subject):
    connectable = Source().pipe(ops.multicast(subject))
    assert connectable.subject is subject
