"""The sink whose disk is slow or full on cue."""

import pytest
import reactivex

from rxflow import RxflowWarning, SinkError, run_async
from rxflow import operators as ops
from rxflow.testing.diagrams.durations import DiagramError
from rxflow.testing.marbles import Marbles
from rxflow.testing.virtual.loop import VirtualLoop


@pytest.fixture
def marbles():
    with Marbles() as marbles:
        yield marbles


def test_a_fast_disk_stores_in_the_frame_of_the_item(marbles):
    source, sink = marbles.hot("-a-b--|"), marbles.sink()
    marbles.run(run_async(source, sink, log=False))
    assert (sink.stored, sink.committed) == (["a", "b"], "-^-^")


def test_a_commit_that_begins_on_a_slow_disk_ends_with_the_run(marbles):
    source, sink = marbles.hot("-a------|"), marbles.sink(disk="======-=")
    marbles.run(run_async(source, sink, log=False))
    assert sink.committed == "------^"


def test_what_arrives_while_the_disk_is_busy_is_the_next_commit(marbles):
    source, sink = marbles.hot("-a-bcd--e---|"), marbles.sink(disk="-======-----")
    marbles.run(run_async(source, sink, log=False))
    assert sink.committed == "-------^^"
    assert sink.commits == 3
    assert sink.stored == list("abcde")


def test_completion_waits_for_the_disk(marbles):
    source, sink = marbles.hot("-a|"), marbles.sink(disk="======-")
    report = marbles.run(run_async(source, sink, log=False))
    assert (report.seconds, sink.is_closed, sink.stored) == (6, True, ["a"])


def test_a_full_disk_fails_the_sink_and_leaves_the_file_whole(marbles):
    source, sink = marbles.hot("-a--b--|"), marbles.sink(disk="----x---")
    with pytest.raises(SinkError, match="No space left"):
        marbles.run(run_async(source, sink, log=False))
    assert sink.stored == ["a"]
    assert sink.path.read_bytes() == b'[\n"a"\n]\n'
    assert sink.committed == "-^"


def test_nothing_that_a_full_disk_refused_is_acknowledged(marbles):
    broker = marbles.mqtt("a q1 : -a-b-c")
    sink = marbles.sink(disk="---x")
    with pytest.raises(SinkError):
        marbles.run(run_async(broker.from_mqtt("a"), sink, log=False))
    assert broker.acknowledged("a") == "-^"


def test_a_commit_is_full_or_not_when_it_ends(marbles):
    source, sink = marbles.hot("-a------|"), marbles.sink(disk="====x===")
    with pytest.raises(SinkError):
        marbles.run(run_async(source, sink, log=False))
    assert sink.stored == []


def test_a_sink_that_has_no_more_room_waits_and_time_passes(marbles):
    sink = marbles.sink(disk="-====-")
    sink.max_queued = 1
    came = []
    source = marbles.hot("-(abc)-d----|").pipe(
        ops.do_action(lambda item: came.append((marbles.scheduler.clock, item)))
    )
    marbles.run(run_async(source, sink, log=False))
    assert (came[0], came[-1]) == ((1, "a"), (5, "d"))
    assert (sink.stored, sink.committed) == (list("abcd"), "-----^")


def test_closing_a_sink_commits_in_place_and_blocks(marbles):
    sink = marbles.sink(disk="====-")

    async def main():
        sink.on_next("a")
        sink.close()  # in place: it blocks
        return marbles.scheduler.clock

    assert marbles.run(main()) == 4
    assert sink.stored == ["a"]


def test_on_a_busy_disk_closing_blocks_until_it_is_free(marbles):
    sink = marbles.sink(disk="====-")

    async def close():
        await reactivex.timer(1)
        sink.close()
        return marbles.scheduler.clock

    async def main():
        sink.on_next("a")
        return await close()

    assert marbles.run(main()) == 4
    assert sink.stored == ["a"]


def test_the_disk_begins_anew_with_each_run(marbles):
    sink = marbles.sink(disk="-==-")
    for _ in range(2):
        marbles.run(reactivex_only(sink))
        assert sink.committed == "---^"


async def reactivex_only(sink):
    await reactivex.timer(1).pipe(ops.do_action(sink.on_next))
    await reactivex.timer(9)


def test_a_failed_sink_is_told_outside_a_run_too(marbles):
    sink = marbles.sink(disk="x")
    with pytest.warns(RxflowWarning, match="No space left"):
        marbles.run(reactivex_only_now(sink))


async def reactivex_only_now(sink):
    sink.on_next(1)
    await reactivex.timer(1)


@pytest.mark.parametrize("text", ["--a", "--|", "==^"])
def test_another_character_than_those_of_a_disk_is_refused(marbles, text):
    with pytest.raises(DiagramError):
        marbles.sink(disk=text)


def test_its_folder_is_gone_with_the_loop():
    with VirtualLoop() as loop, Marbles() as marbles:
        del loop
        sink = marbles.sink()
        sink.open()
        assert sink.stored == []
        assert sink.path.exists()
    assert not sink.path.parent.exists()
