"""The virtual loop: one clock and one order for asyncio, reactivex and rxflow."""

import asyncio
import gc
import socket
import threading
from datetime import UTC, datetime

import pytest
import reactivex
from reactivex.scheduler import TimeoutScheduler
from reactivex.scheduler.eventloop import AsyncIOScheduler

from rxflow import JsonSink, read_rows, run_async
from rxflow import operators as ops
from rxflow.testing.virtual.clock import Phase
from rxflow.testing.virtual.loop import StuckError, VirtualLoop
from rxflow.testing.virtual.scheduler import VirtualScheduler


@pytest.fixture
def loop():
    with VirtualLoop() as loop:
        yield loop


@pytest.fixture(params=["without a loop", "with a loop"])
def scheduler(request):
    scheduler = VirtualScheduler()
    loop = VirtualLoop(scheduler) if request.param == "with a loop" else None
    yield scheduler
    if loop:
        loop.finish()


def noting(seen, clock, name):
    """A function that notes when it was called."""
    return lambda *_: seen.append((clock(), name))


# -- the scheduler ---------------------------------------------------------------------------------


def test_timers_run_in_order_of_time_then_in_the_order_in_which_they_were_set(scheduler):
    seen = []
    for seconds, name in ((2, "c"), (1, "a"), (1, "b")):
        scheduler.schedule_relative(seconds, noting(seen, lambda: scheduler.clock, name))
    scheduler.advance_to(10.0)
    assert seen == [(1, "a"), (1, "b"), (2, "c")]
    assert scheduler.clock == 10


def test_at_one_instant_unsubscribing_comes_first_then_subscribing_work_and_publishing(scheduler):
    seen = []
    for phase in reversed(Phase):
        scheduler.virtual.at(0, noting(seen, lambda: scheduler.clock, phase.name), phase)
    scheduler.advance_by(1.0)
    assert [name for _, name in seen] == ["UNSUBSCRIBE", "SUBSCRIBE", "WORK", "PUBLISH"]


def test_what_is_set_for_now_comes_in_the_same_instant_before_the_next_phase(scheduler):
    seen = []
    note = noting(seen, lambda: scheduler.clock, "now")
    scheduler.schedule_absolute(1.0, lambda s, _: s.schedule(note))
    scheduler.virtual.at(
        1_000_000, noting(seen, lambda: scheduler.clock, "published"), Phase.PUBLISH
    )
    scheduler.advance_to(1.0)
    assert seen == [(1, "now"), (1, "published")]


def test_a_timer_that_an_earlier_one_of_its_instant_disposes_does_not_run(scheduler):
    seen = []
    scheduler.schedule_relative(1, lambda *_: late.dispose())
    late = scheduler.schedule_relative(1, noting(seen, lambda: scheduler.clock, "late"))
    gone = scheduler.schedule_relative(5, noting(seen, lambda: scheduler.clock, "gone"))
    gone.dispose()
    scheduler.advance_to(9.0)
    assert seen == []


def test_a_thousand_items_at_one_instant_do_not_move_the_clock(scheduler):
    seen = []
    for name in range(1000):
        scheduler.schedule(noting(seen, lambda: scheduler.clock, name))
    scheduler.advance_to(1.0)
    assert seen == [(0, name) for name in range(1000)]


def test_what_an_action_raises_comes_out_of_advance_to(scheduler):
    def fail(*_):
        raise LookupError("here")

    scheduler.schedule_relative(1, fail)
    with pytest.raises(LookupError, match="here"):
        scheduler.advance_to(2.0)


def test_stop_lets_nothing_more_happen(scheduler):
    seen = []
    scheduler.schedule_relative(1, lambda *_: scheduler.stop())
    scheduler.schedule_relative(2, noting(seen, lambda: scheduler.clock, "later"))
    scheduler.advance_to(1.5)
    assert seen == []
    scheduler.advance_to(3.0)
    assert seen == [(2, "later")]


def test_time_that_passes_while_blocked_makes_timers_late(scheduler):
    seen = []
    scheduler.schedule_relative(1, lambda *_: scheduler.sleep(5))
    scheduler.schedule_relative(2, noting(seen, lambda: scheduler.clock, "late"))
    scheduler.advance_to(9.0)
    assert seen == [(6, "late")]


def test_time_does_not_go_back_and_start_is_refused(scheduler):
    scheduler.advance_to(1.0)
    with pytest.raises(ValueError, match="before now"):
        scheduler.advance_to(0.5)
    with pytest.raises(RuntimeError, match="advance_to"):
        scheduler.start()


def test_the_date_is_the_time_since_1970(scheduler):
    scheduler.advance_to(60.0)
    assert scheduler.now == datetime(1970, 1, 1, 0, 1, tzinfo=UTC)


# -- the loop --------------------------------------------------------------------------------------


def test_an_hour_of_a_pipeline_passes_at_once_and_is_reported_as_an_hour(loop, tmp_path):
    path = tmp_path / "ticks.json"
    ticks = reactivex.interval(60)
    report = loop.run(run_async(ticks, JsonSink(path), seconds=3630, log=False))
    assert list(read_rows(path)) == list(range(60))
    assert (report.seconds, report.stored, loop.time()) == (3630, 60, 3630)


def test_timers_of_asyncio_and_of_reactivex_are_one_order(loop):
    seen = []
    loop.call_later(1, noting(seen, loop.time, "asyncio"))
    reactivex.timer(1, scheduler=loop.scheduler).subscribe(noting(seen, loop.time, "marbles"))
    reactivex.timer(1).subscribe(noting(seen, loop.time, "no scheduler"))
    loop.call_later(1, noting(seen, loop.time, "asyncio again"))
    loop.scheduler.advance_to(2)
    assert [name for _, name in seen] == ["asyncio", "marbles", "no scheduler", "asyncio again"]
    assert {time for time, _ in seen} == {1}


def test_operators_that_ask_their_scheduler_for_the_date_get_the_virtual_one(loop):
    seen = []

    async def main():
        source = reactivex.timer(1).pipe(ops.delay(2), ops.timestamp())
        scheduler = AsyncIOScheduler(loop)
        source.subscribe(lambda t: seen.append((loop.time(), t.timestamp)), scheduler=scheduler)
        await asyncio.sleep(5)

    loop.run(main())
    assert seen == [(3, datetime(1970, 1, 1, 0, 0, 3, tzinfo=UTC))]


def test_afterwards_the_timers_of_the_process_are_real_again():
    before = vars(TimeoutScheduler)["singleton"]
    with VirtualLoop() as loop:
        assert TimeoutScheduler.singleton() is loop.scheduler
        real = asyncio.new_event_loop()
        assert AsyncIOScheduler(real).now.year > 2000
        real.close()
    assert vars(TimeoutScheduler)["singleton"] is before
    assert "now" not in vars(AsyncIOScheduler)


def test_sockets_of_this_process_are_served_before_time_moves(loop):
    seen = []

    async def main():
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        _, answering = await asyncio.open_connection(sock=theirs)
        loop.call_later(1, answering.write, b"ping\n")
        loop.call_later(1.000001, noting(seen, loop.time, "a microsecond later"))
        await reader.readline()
        seen.append((loop.time(), "read"))
        await asyncio.sleep(1)
        for each in (writer, answering):
            each.close()
            await each.wait_closed()

    loop.run(main())
    assert seen == [(1, "read"), (1.000001, "a microsecond later")]


def test_blocking_work_takes_no_time_and_is_off_the_loop(loop):
    def block():
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        return loop.time(), threading.current_thread()

    async def main():
        await asyncio.sleep(1)
        return await asyncio.to_thread(block)

    assert loop.run(main()) == (1, threading.main_thread())


def test_what_blocking_work_raises_comes_to_who_waits(loop):
    with pytest.raises(IndexError):
        loop.run(asyncio.to_thread([].pop))


def test_waiting_for_what_cannot_come_is_an_error(loop):
    async def main():
        await asyncio.sleep(3)
        await loop.create_future()

    with pytest.raises(StuckError, match="at 3 s"):
        loop.run(main())


def test_a_wait_shorter_than_the_clock_can_tell_still_moves_time(loop):
    async def main():
        await asyncio.sleep(1e-9)

    loop.run(main())
    assert loop.clock.microseconds == 1


def test_what_a_coroutine_raises_comes_out_of_run(loop):
    async def fail():
        await asyncio.sleep(1)
        raise LookupError("there")

    with pytest.raises(LookupError, match="there"):
        loop.run(fail())


def test_a_coroutine_that_is_cancelled_says_so(loop):
    async def main():
        task = asyncio.current_task()
        loop.call_later(1, task.cancel)
        await asyncio.sleep(9)

    with pytest.raises(asyncio.CancelledError):
        loop.run(main())


@pytest.mark.parametrize("seconds", [1, 9])
def test_what_a_callback_raises_comes_out_of_run(loop, seconds):
    loop.call_later(1, [].pop)
    with pytest.raises(IndexError):
        loop.run(asyncio.sleep(seconds))


def test_a_task_that_fails_unseen_fails_the_test():
    async def fail():
        raise LookupError

    async def main():
        loop.create_task(fail())
        await asyncio.sleep(1)
        gc.collect()

    with pytest.raises(LookupError), VirtualLoop() as loop:
        loop.run(main())


def test_a_callback_that_fails_while_the_loop_closes_is_not_silent():
    async def main():
        try:
            await asyncio.sleep(9)
        finally:
            loop.call_soon([].pop)
            await asyncio.sleep(1)

    with pytest.raises(IndexError), VirtualLoop() as loop:
        loop.create_task(main())
        loop.scheduler.advance_to(1)


def test_the_end_of_the_block_cancels_what_still_runs():
    seen = []

    async def main():
        try:
            await asyncio.sleep(100)
        finally:
            seen.append(loop.time())

    with VirtualLoop() as loop:
        loop.create_task(main())
        loop.scheduler.advance_to(1)
    assert seen == [1]
    assert loop.is_closed()
    loop.finish()
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_later(1, print)


def test_an_error_in_the_block_is_not_hidden_by_that_of_a_callback():
    with pytest.raises(LookupError), VirtualLoop() as loop:
        loop.call_soon([].pop)
        raise LookupError


class OlderThanItsSockets(VirtualLoop):
    """The collector finalizes the younger generation first."""

    def __init__(self):
        gc.collect(0)
        super().__init__()


@pytest.mark.parametrize("kind", [VirtualLoop, OlderThanItsSockets])
def test_a_loop_that_nobody_closes_lets_go_of_what_it_has(kind):
    loop, closed = kind(), []
    loop.resources.callback(closed.append, 1)
    loop.scheduler.advance_to(1.0)
    del loop
    gc.collect()
    assert closed == [1]


def test_a_loop_that_is_closed_lets_go_once():
    closed = []
    with VirtualLoop() as loop:
        loop.resources.callback(closed.append, 1)
    del loop
    gc.collect()
    assert closed == [1]
