from __future__ import annotations

import asyncio
import multiprocessing
import subprocess
import sys
import threading
from textwrap import dedent

import pytest
import reactivex
from reactivex import ConnectableObservable, Observable
from reactivex import operators as rx
from reactivex.scheduler import NewThreadScheduler
from reactivex.scheduler.eventloop import AsyncIOScheduler
from reactivex.subject import Subject
from reactivex.testing import TestScheduler
from streams import Source

from rxflow import ConfigError, from_mqtt
from rxflow import operators as ops
from rxflow.background import background, running_or_background_loop
from rxflow.flow import ConnectableFlow, Flow
from rxflow.scope import Scope, ScopedScheduler, scope_of, unscoped


class Asked(Observable[int]):
    """Remembers with which scheduler and on which thread it was subscribed to, and let go."""

    def __init__(self, *values: int, error: Exception | None = None) -> None:
        super().__init__()
        self.values, self.error = values, error
        self.scheduler = self.thread = self.let_go_on = self.observer = None

    def _subscribe_core(self, observer, scheduler=None):
        self.scheduler, self.thread = scheduler, threading.current_thread().name
        self.observer = observer
        if self.error:
            raise self.error
        for value in self.values:
            observer.on_next(value)
        return reactivex.disposable.Disposable(self._let_go)

    def _let_go(self):
        self.let_go_on = threading.current_thread().name


def flow_of(inner: Observable[int] | None = None) -> Flow[int]:
    return Flow(inner or Asked(1, 2, 3), label="source")


def test_it_knows_its_source_and_its_operators():
    flow = flow_of().pipe(ops.map(len), ops.take(2), lambda source: source.pipe(ops.share()))
    assert flow.label == "source"
    assert flow.operators == ("map(len)", "take(2)", "share()")
    assert repr(flow) == "source | map(len) | take(2) | share()"


def test_a_plain_operator_is_known_by_its_qualified_name():
    def twice(source):
        return Observable(source._subscribe_core)

    assert flow_of().pipe(twice).operators[0].endswith("twice")


def test_the_fluent_methods_are_the_operators_of_the_table():
    got = []
    flow = flow_of().map(lambda n: n * 2).buffer_with_count(2).take_until(reactivex.never())
    flow.subscribe(got.append, scheduler=TestScheduler())
    assert isinstance(flow, Flow)
    assert flow.operators[1] == "buffer_with_count(2)"
    assert got == [[2, 4]]


def test_what_is_no_observable_is_returned_as_it_is():
    even, odd = flow_of().partition(lambda n: n % 2 == 0)
    assert isinstance(even, Flow)
    assert isinstance(odd, Flow)
    assert flow_of().pipe(lambda _: 3) == 3
    assert flow_of().pipe(lambda _: 3, str) == "3"
    flow = flow_of()
    assert flow.pipe() is flow


def test_it_adds_no_observer_of_its_own():
    asked = Asked()
    flow = flow_of(asked)
    flow.subscribe(scheduler=TestScheduler())
    plain = Asked()
    plain.subscribe(scheduler=TestScheduler())
    assert type(asked.observer) is type(plain.observer)


def test_a_scheduler_that_is_given_is_used_here_and_now():
    asked, clock = Asked(), TestScheduler()
    flow_of(asked).subscribe(scheduler=clock)
    here = threading.current_thread().name
    assert (unscoped(asked.scheduler), asked.thread) == (clock, here)


def test_in_a_running_loop_its_scheduler_is_used():
    async def main():
        asked = Asked()
        flow_of(asked).pipe(ops.map(lambda n: n)).subscribe()
        return asked, asyncio.get_running_loop() is running_or_background_loop()

    asked, is_that_loop = asyncio.run(main())
    assert isinstance(asked.scheduler, AsyncIOScheduler)
    assert asked.thread == threading.current_thread().name
    assert is_that_loop


def test_without_a_loop_all_happens_on_the_background_thread():
    asked = Asked()
    subscription = flow_of(asked).pipe(ops.map(lambda n: n)).subscribe()
    subscription.dispose()
    assert (asked.thread, asked.let_go_on) == ("rxflow", "rxflow")
    assert isinstance(unscoped(asked.scheduler), AsyncIOScheduler)


def test_timers_tick_on_the_background_thread_too():
    names, ended = [], threading.Event()
    flow_of(Asked()).pipe(ops.take_until(reactivex.timer(0.001))).subscribe(
        on_completed=lambda: (names.append(threading.current_thread().name), ended.set())
    )
    assert ended.wait(60)
    assert names == ["rxflow"]


def test_an_observer_serves_as_well_as_functions():
    got, subject = [], Subject()
    subject.subscribe(got.append)
    flow_of().subscribe(subject).dispose()
    assert got == [1, 2, 3]


def test_an_error_while_subscribing_raises_in_the_caller():
    with pytest.raises(OSError, match="refused"):
        flow_of(Asked(error=OSError("refused"))).subscribe()


def test_on_the_background_thread_itself_nothing_waits():
    asked = Asked()

    def subscribe_and_dispose():
        flow_of(asked).subscribe().dispose()
        return asked.let_go_on

    assert background().call(subscribe_and_dispose) == "rxflow"


def test_dispose_may_come_twice_and_after_the_end():
    asked, ended = Asked(1), []
    subscription = flow_of(asked).subscribe(on_completed=lambda: ended.append(True))
    background().call(asked.observer.on_completed)
    subscription.dispose()
    subscription.dispose()
    assert ended == [True]


def test_a_plain_pipeline_over_flows_finds_them_where_they_run():
    source, stop, got = Source(), Subject(), []
    merged = reactivex.merge(Flow(source, label="a"), reactivex.never())
    merged.pipe(ops.buffer_with_count(9), ops.take_until(stop)).subscribe(got.append)
    background().call(lambda: source.receive(1))
    stop.on_next("now")
    assert [batch.payloads for batch in got] == [[1]]
    assert source.completions == 1


def test_a_falsy_scheduler_keeps_its_scope():
    asked, scope = Asked(), Scope()

    async def main():
        flow_of(asked).subscribe(scheduler=ScopedScheduler(None, scope))

    asyncio.run(main())
    assert scope_of(asked.scheduler) is scope


def test_publish_gives_a_flow_that_connects():
    asked, got = Asked(1), []
    published = flow_of(asked).publish()
    assert isinstance(published, ConnectableFlow)
    assert isinstance(published, ConnectableObservable)
    published.subscribe(got.append)
    connection = published.connect()
    connection.dispose()
    assert (got, asked.thread, asked.let_go_on) == ([1], "rxflow", "rxflow")


def test_connect_takes_the_scheduler_that_is_given_and_that_of_a_running_loop():
    clock, asked = TestScheduler(), Asked()
    flow_of(asked).publish().connect(clock)
    assert asked.scheduler is clock

    async def main():
        flow_of(asked).publish().connect()

    asyncio.run(main())
    assert isinstance(asked.scheduler, AsyncIOScheduler)


def test_an_operator_called_on_a_flow_shares_it_too():
    asked, got = Asked(1), []
    ops.share()(flow_of(asked)).subscribe(got.append, scheduler=TestScheduler())
    published = ops.publish()(flow_of(asked))
    published.subscribe(got.append, scheduler=TestScheduler())
    published.connect(TestScheduler())
    assert got == [1, 1]


@pytest.mark.parametrize("count", [0, 1])
def test_publish_and_auto_connect(count):
    asked, clock = Asked(), TestScheduler()
    connected = flow_of(asked).publish().auto_connect(count)
    connected.subscribe(scheduler=clock)
    assert connected.operators == ("publish()", f"auto_connect({count})")
    assert asked.thread == ("rxflow" if count == 0 else threading.current_thread().name)


def test_publish_and_ref_count():
    asked, got = Asked(1, 2), []
    for made in (
        flow_of(asked).publish().ref_count(),
        flow_of(asked).pipe(ops.publish(), ops.ref_count()),
        flow_of(asked).share(),
    ):
        made.subscribe(got.append, scheduler=TestScheduler()).dispose()
    assert got == [1, 2] * 3


PROGRAM = """
    import asyncio
    from reactivex import Observable
    from reactivex.disposable import Disposable
    from rxflow import operators as ops
    from rxflow.background import background
    from rxflow.flow import Flow
    from rxflow.scope import scope_of

    class Source(Observable):
        def _subscribe_core(self, observer, scheduler=None):
            self.observer, self.ended = observer, asyncio.Event()
            scope_of(scheduler).register(self)
            scope_of(scheduler).context.sources.append(self)
            observer.on_next(1)
            return Disposable()
        def complete(self):
            self.observer.on_completed()
            self.ended.set()
        async def wait_closed(self):
            await self.ended.wait()
            print("closed")

    shared = Flow(Source(), label="s").share()
    first = shared.subscribe()
    flow = shared.pipe(ops.start_with(1), ops.buffer_with_count(9))
    flow.subscribe(print, on_completed=lambda: print("completed"))
    for _ in range(9):  # so many ticks later at most it has subscribed to what is shared
        background().call(int)
    first.dispose()
    print("exit")
"""


def test_at_exit_a_bare_subscription_is_completed_flushed_and_drained_though_shared():
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", dedent(PROGRAM)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (ran.stdout.split("\n"), ran.stderr) == (["exit", "[1]", "completed", "closed", ""], "")


def _in_child(subscription, answer):
    subscription.dispose()
    asked = Asked()
    flow_of(asked).subscribe()
    answer.put(asked.thread)


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="only where there is fork"
)
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_starts_a_background_of_its_own():
    fork = multiprocessing.get_context("fork")
    asked, answer = Asked(), fork.SimpleQueue()
    subscription = flow_of(asked).subscribe()
    child = fork.Process(target=_in_child, args=(subscription, answer))
    child.start()
    child.join(20)
    assert (child.exitcode, answer.get()) == (0, "rxflow")
    assert asked.let_go_on is None
    subscription.dispose()
    answer.close()
    child.close()


def test_subscribe_on_of_reactivex_is_refused_since_an_error_reaches_the_source_too_late():
    source = from_mqtt("mqtt://localhost", "a")
    with pytest.raises(ConfigError, match="subscribe_on must be that of"):
        source.pipe(ops.decode_json(), rx.subscribe_on(NewThreadScheduler()))
