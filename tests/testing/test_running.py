"""`Marbles.run`: a user's own coroutine in the virtual time of its diagrams."""

import asyncio
import gc

import pytest
import reactivex

from rxflow import operators as ops
from rxflow import run_async
from rxflow.mqtt.output import Output
from rxflow.testing import DiagramError, Marbles


@pytest.fixture
def marbles():
    with Marbles() as marbles:
        yield marbles


def noted(marbles, source):
    """A coroutine that returns when a source emitted what, once it has ended."""

    async def main():
        began, seen = marbles.scheduler.clock, []
        await source.pipe(
            ops.do_action(lambda item: seen.append((marbles.scheduler.clock - began, item))),
            ops.to_list(),
        )
        return seen

    return main()


def test_a_coroutine_returns_what_it_returns_and_time_has_passed(marbles):
    async def main():
        await asyncio.sleep(3)
        return "done"

    assert marbles.run(main()) == "done"
    assert marbles.scheduler.clock == 3


def test_an_hour_of_a_pipeline_is_stored_minute_by_minute(marbles):
    sink = marbles.sink()
    report = marbles.run(run_async(reactivex.interval(60), sink, seconds=3630, log=False))
    assert sink.stored == list(range(60))
    assert sink.committed == "1m ^" + " 1m ^" * 59
    assert report.seconds == 3630


@pytest.mark.parametrize("kind", ["hot", "cold"])
def test_sources_play_in_a_coroutine_and_know_who_subscribed(marbles, kind):
    source = getattr(marbles, kind)("-a-b|")
    assert marbles.run(noted(marbles, source)) == [(1, "a"), (3, "b")]
    assert source.subscriptions == "^---!"


def test_timers_of_reactivex_need_no_scheduler_in_a_coroutine(marbles):
    source = marbles.hot("-a-b----c|").pipe(ops.debounce(2), ops.take_until(reactivex.timer(7)))
    assert marbles.run(noted(marbles, source)) == [(5, "b")]


def test_broker_and_disk_may_have_a_frame_of_their_own(marbles):
    broker = marbles.mqtt("a q1 : --a", frame="100ms")
    sink = marbles.sink(disk="-=====", frame="100ms")
    marbles.run(run_async(broker.from_mqtt("a"), sink, seconds=2, log=False))
    assert sink.committed == "------^"
    assert broker.acknowledged("a") == " 600ms ^"


def test_what_is_done_at_a_time_is_done_in_a_run_too(marbles):
    seen = []
    marbles.at("2s", lambda: seen.append(marbles.scheduler.clock))
    marbles.run(asyncio.sleep(5))
    assert seen == [2]


def test_what_was_observed_before_a_run_plays_before_it(marbles):
    observed = marbles.observe(marbles.cold("-a|"))
    marbles.run(asyncio.sleep(1))
    assert observed == "-a|"


def test_a_run_that_ends_before_its_diagrams_leaves_nothing_to_the_next(marbles):
    source, called = marbles.hot("---a--b|"), []
    marbles.at("2s", lambda: called.append(marbles.scheduler.clock))
    marbles.run(asyncio.sleep(1))
    assert marbles.run(noted(marbles, source)) == [(3, "a"), (6, "b")]
    assert called == [3]


def test_a_check_that_ends_before_its_diagrams_leaves_nothing_to_the_next(marbles):
    source = marbles.hot("-a-b-c-d|")
    marbles.check(source, "-a ...")
    marbles.check(source, "-a-b-c-d|")


def test_a_run_is_refused_in_the_middle_of_a_check(marbles):
    with pytest.raises(DiagramError, match="in the middle"):
        marbles.run(in_the_middle(marbles))
    marbles.run(asyncio.sleep(1))


async def in_the_middle(marbles):
    marbles.run(asyncio.sleep(1))


@pytest.mark.parametrize(("limit", "said"), [("1m", "after 1m"), (None, "after 24h")])
def test_a_coroutine_that_never_ends_fails_at_the_limit(limit, said):
    async def main():
        await reactivex.interval(30)

    with pytest.raises(AssertionError, match=said), Marbles(limit=limit) as marbles:
        marbles.run(main())


def test_a_timeout_of_the_coroutine_itself_stays_what_it_is(marbles):
    async def main():
        async with asyncio.timeout(2):
            await asyncio.sleep(3)

    with pytest.raises(TimeoutError):
        marbles.run(main())


def test_waiting_for_what_nothing_will_bring_fails_at_the_limit(marbles):
    with pytest.raises(AssertionError, match="not over"):
        marbles.run(asyncio.Event().wait())


def test_a_task_that_fails_unseen_fails_the_test():
    async def fail():
        raise LookupError

    async def main():
        asyncio.get_running_loop().create_task(fail())
        await asyncio.sleep(1)

    with pytest.raises(LookupError), Marbles() as marbles:
        marbles.run(main())


def test_without_a_with_nothing_stays_behind():
    marbles = Marbles()
    assert marbles.run(asyncio.sleep(1, "slept")) == "slept"
    broker, sink, unused = marbles.mqtt("a q1 : -a"), marbles.sink(), marbles.sink()
    unused.open()
    marbles.run(run_async(broker.from_mqtt("a"), sink, seconds=3, log=False))
    assert (sink.stored, broker.acknowledged("a")) == (["a"], "-^")
    folders = [sink.path.parent, unused.path.parent]
    del marbles, broker, sink, unused
    gc.collect()
    assert not any(folder.exists() for folder in folders)


def test_keep_alive_goes_by_virtual_time(marbles, monkeypatch):
    pings, ping = [], Output.ping

    def noted_ping(wire):
        pings.append(round(marbles.scheduler.clock))
        ping(wire)

    monkeypatch.setattr(Output, "ping", noted_ping)
    source = marbles.mqtt("a q1 : -").from_mqtt("a", keep_alive=60)
    marbles.run(run_async(source, reactivex.Observer(), seconds=3590, log=False))
    assert pings == list(range(30, 3590, 30))


def test_a_stream_that_stands_still_says_so_after_five_virtual_seconds(marbles):
    broker = marbles.mqtt("a q1 : -a")
    source = broker.from_mqtt("a").pipe(ops.delay(20))
    with pytest.warns(Warning, match="stalled for 5 s.*received at 00:00:01 UTC"):
        marbles.run(run_async(source, reactivex.Observer(), seconds=10, log=False))


def test_what_only_a_cycle_of_references_holds_is_acknowledged_after_five_seconds(marbles):
    broker = marbles.mqtt("a q1 : -a")
    source = broker.from_mqtt("a").pipe(
        ops.flat_map(lambda m: reactivex.of(m).pipe(ops.delay(1), ops.retry(2)))
    )
    gc.disable()
    try:
        marbles.run(run_async(source, reactivex.Observer(), seconds=10, log=False))
    finally:
        gc.enable()
    assert broker.acknowledgements[0].at <= 8


@pytest.mark.filterwarnings("ignore::rxflow.RxflowWarning")
@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_a_broker_that_restarts_every_second_for_a_minute_is_outlived(marbles, version):
    restarts = 40
    broker = marbles.mqtt(f"""
        a q1        : {"---" * restarts}-------------------------------------------------------a-
        $connection : {"^-!" * restarts}^--------------------------------------------------------
    """)
    source = broker.from_mqtt("a", version=version, reconnect_timeout=None)
    report = marbles.run(run_async(source, reactivex.Observer(), seconds=200, log=False))
    assert report.received == 1
