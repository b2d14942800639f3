"""Behind the end, `map`, `filter` and `decode_json` emit nothing, as those of reactivex.

They emit without the call in which reactivex looks whether that is so: `direct`.
"""

import pytest
import reactivex
from reactivex import operators as rx
from reactivex.disposable import Disposable
from reactivex.subject import Subject

from rxflow import operators as ops

JSON = "[1]"


def checked(item):
    """What each operator calls, or fails at."""
    if item == "bad":
        raise LookupError(item)
    return item


OPERATORS = {
    "map": (ops.map, "bad"),
    "filter": (ops.filter, "bad"),
    "reactivex map": (rx.map, "bad"),
    "reactivex filter": (rx.filter, "bad"),
    "decode_json": (lambda call: reactivex.compose(rx.do_action(call), ops.decode_json()), "]"),
}


class Seen:
    """What an observer sees, in order."""

    def __init__(self):
        self.all = []
        self.hook = lambda: None

    def on_next(self, item):
        self.all.append("next")
        self.hook()

    def on_error(self, error):
        self.all.append("error")
        self.hook()

    def on_completed(self):
        self.all.append("completed")
        self.hook()

    def subscribe_to(self, source):
        return source.subscribe(self.on_next, self.on_error, self.on_completed)


@pytest.fixture(params=OPERATORS)
def operator(request):
    """An operator made with a function that it calls, and an item that makes it fail."""
    make, bad = OPERATORS[request.param]
    return (lambda call=checked: make(call)), bad


def test_nothing_behind_an_error_in_a_source_that_does_not_stop(operator):
    make, bad = operator

    def subscribe(observer, scheduler=None):
        for item in (JSON, bad, JSON):
            observer.on_next(item)
        observer.on_completed()
        return Disposable()

    seen = Seen()
    seen.subscribe_to(reactivex.create(subscribe).pipe(make()))
    assert seen.all == ["next", "error"]


def test_nothing_behind_completion_in_a_source_that_does_not_stop(operator):
    make, _ = operator

    def subscribe(observer, scheduler=None):
        observer.on_next(JSON)
        observer.on_completed()
        observer.on_next(JSON)
        return Disposable()

    seen = Seen()
    seen.subscribe_to(reactivex.create(subscribe).pipe(make()))
    assert seen.all == ["next", "completed"]


def test_nothing_that_the_observer_sets_off_when_it_is_told_of_an_error(operator):
    make, bad = operator
    emitters, seen = [], Seen()

    def subscribe(observer, scheduler=None):
        emitters.append(observer)
        return Disposable()

    def emit_one_more():
        if len(seen.all) == 2:
            emitters[0].on_next(JSON)

    seen.subscribe_to(reactivex.create(subscribe).pipe(make()))
    seen.hook = emit_one_more
    emitters[0].on_next(JSON)
    emitters[0].on_next(bad)
    assert seen.all == ["next", "error"]


def test_nothing_after_dispose(operator):
    make, _ = operator
    source, seen = Subject(), Seen()
    subscription = seen.subscribe_to(source.pipe(make()))
    source.on_next(JSON)
    subscription.dispose()
    source.on_next(JSON)
    assert seen.all == ["next"]


def test_nothing_of_the_item_in_which_it_was_disposed(operator):
    make, _ = operator

    def call(item):
        subscription.dispose()
        return item

    source, seen = Subject(), Seen()
    subscription = seen.subscribe_to(source.pipe(make(call)))
    source.on_next(JSON)
    assert seen.all == []


def test_an_observer_that_ends_it_while_it_is_subscribed_gets_nothing_more(operator):
    make, _ = operator

    def subscribe(observer, scheduler=None):
        for _ in range(3):
            observer.on_next(JSON)
        return Disposable()

    seen = Seen()
    seen.subscribe_to(reactivex.create(subscribe).pipe(make(), rx.first()))
    assert seen.all == ["next", "completed"]
