"""What random pipelines have found (tests/battery/test_random_pipelines.py), each made small."""

from __future__ import annotations

import itertools

import pytest
import reactivex
from reactivex import never, timer
from reactivex import operators as rx

from rxflow import RxflowWarning, run_async
from rxflow import operators as ops


def read(broker, topic="t", **settings):
    """Messages whose payloads are the values of the diagram."""
    return broker.from_mqtt(topic, **settings).pipe(ops.decode_json())


def keys(broker):
    return [each.key for each in broker.acknowledgements]


def later(seconds):
    """A function that emits the payload so much later."""

    def stream(message):
        payload = message.payload
        return timer(seconds).pipe(rx.map(lambda _: payload))

    return stream


def one(message):
    return reactivex.of(message.payload)


def both(share):
    """Two branches of what is shared, merged."""

    def apply(source):
        shared = source.pipe(*share)
        return shared.pipe(ops.merge(shared.pipe(ops.filter(lambda _: False))))

    return apply


def parted(source):
    """Both parts of a source, merged."""
    first, second = source.pipe(ops.partition(lambda m: m.payload == "a"))
    return first.pipe(ops.merge(second))


LATE = {
    "start_with": ops.start_with("x"),
    "concat": ops.concat(reactivex.of("x")),
    "merge": ops.merge(never()),
    "expand": ops.expand(lambda _: reactivex.empty()),
    "on_error_resume_next": ops.on_error_resume_next(reactivex.of("x")),
    "catch": ops.catch(reactivex.of("x")),
    "retry": ops.retry(2),
    "share": both([ops.share()]),
    "publish": ops.publish(lambda s: s.pipe(ops.merge(never()))),
    "partition": parted,
}
STREAMS = {
    "group_by": lambda: ops.group_by(lambda _: 0),
    "group_by_until": lambda: ops.group_by_until(lambda m: m.payload, None, lambda _: timer(0.5)),
    "window_with_count": lambda: ops.window_with_count(1),
}


@pytest.mark.parametrize("streams", STREAMS.values(), ids=STREAMS)
@pytest.mark.parametrize("late", LATE.values(), ids=LATE)
def test_the_first_item_of_a_group_or_a_window_is_not_missed(marbles, late, streams):
    broker, sink = marbles.mqtt("t q1 : -(ab)-"), marbles.sink()
    flow = read(broker).pipe(streams(), ops.flat_map(lambda s: s.pipe(late)))
    marbles.run(run_async(flow, sink, seconds=9, log=False))
    assert [row for row in sink.stored if row != "x"] == ["a", "b"]
    assert keys(broker) == ["a", "b"]


@pytest.mark.parametrize(
    "holding", [ops.take_last(9), ops.sample(2.0), ops.delay(9.0), ops.to_list()], ids=repr
)
def test_what_comes_late_to_a_share_at_the_end_reaches_the_branch_that_holds(marbles, holding):
    broker, one, two = marbles.mqtt("t q1 : ---b---"), marbles.sink(), marbles.sink()
    shared = read(broker).pipe(ops.flat_map(later(3.25)), ops.share())
    marbles.run(run_async((shared.pipe(holding), one), (shared, two), seconds=4.1, log=False))
    assert (one.stored, two.stored) == (["b"], ["b"])
    assert keys(broker) == ["b"]


def test_a_branch_with_windows_that_begin_in_the_flush_comes_out_too(marbles):
    broker, one, two = marbles.mqtt("t q1 : -a---"), marbles.sink(), marbles.sink()
    shared = read(broker).pipe(ops.share())
    held = shared.pipe(
        ops.delay(90.0),
        ops.window_with_time_or_count(5.7, 3),
        ops.flat_map(lambda window: window.pipe(ops.delay(90.0))),
    )
    marbles.run(run_async((shared, one), (held, two), seconds=5.3, log=False))
    assert (one.stored, two.stored) == (["a"], ["a"])
    assert keys(broker) == ["a"]


LEFT = {
    "a share within groups that begin at the end": (
        "-a---",
        (
            ops.debounce(9.0),
            ops.group_by(lambda _: 0),
            ops.flat_map(lambda g: g.pipe(ops.flat_map(later(0.2)), both([ops.share()]))),
            ops.share(),
        ),
        4.1,
    ),
    "a share within groups that begin at the end, behind what holds": (
        "-a---",
        (
            ops.take_last(9),
            ops.group_by(lambda _: 0),
            ops.flat_map(lambda g: g.pipe(ops.delay(9.0), both([ops.share()]))),
            ops.share(),
        ),
        4.1,
    ),
    "concat_map, delay": ("-a-b-", (ops.slice(-4, None), ops.concat_map(one), ops.delay(2.9)), 9),
    "concat_map, to_list": ("-a-b-", (ops.slice(-4, None), ops.concat_map(one), ops.to_list()), 9),
    "replay with a mapper": (
        "---a--",
        (ops.flat_map(later(2.7)), ops.replay(mapper=lambda s: s.pipe(ops.slice(-3, None)))),
        4.1,
    ),
    "skip_last_with_time": ("-a---", (ops.merge(never()), ops.skip_last_with_time(5.6)), 11),
}


@pytest.mark.parametrize(("text", "operators", "seconds"), LEFT.values(), ids=LEFT)
def test_what_could_be_flushed_is_not_left(marbles, text, operators, seconds):
    broker, sink = marbles.mqtt(f"t q1 : {text}"), marbles.sink()
    flow = read(broker).pipe(*operators)
    report = marbles.run(run_async(flow, sink, seconds=seconds, log=False))
    sent = [letter for letter in text if letter != "-"]
    assert (sink.stored, keys(broker), report.unacknowledged) == (sent, sent, 0)


@pytest.mark.parametrize(
    "slow",
    [
        ops.flat_map(later(0.5)),
        ops.concat_map(later(0.5)),
        lambda source: source.pipe(ops.map(later(0.5)), ops.merge(max_concurrent=2)),
    ],
    ids=["flat_map", "concat_map", "merge"],
)
def test_the_result_of_what_reduces_is_awaited_though_it_has_no_delivery(marbles, slow):
    broker, sink = marbles.mqtt("t q1 : -a---"), marbles.sink()
    marbles.run(run_async(read(broker).pipe(ops.count(), slow), sink, seconds=4, log=False))
    assert sink.stored == [1]


ENDING = {
    "take": ops.take(1),
    "first": ops.first(),
    "element_at": ops.element_at(0),
    "find": ops.find(lambda *_: True),
    "slice": ops.slice(0, 1),
    "some": ops.some(),
}


@pytest.mark.parametrize("slow", [ops.flat_map(later(0.5)), ops.sample(0.5), ops.delay(0.5)])
@pytest.mark.parametrize("ending", ENDING.values(), ids=ENDING)
def test_what_a_take_has_passed_on_is_acknowledged_when_it_is_stored(marbles, ending, slow):
    broker, sink = marbles.mqtt("t q1 : -a---"), marbles.sink()
    report = marbles.run(run_async(read(broker).pipe(ending, slow), sink, seconds=9, log=False))
    assert len(sink.stored) == 1
    assert (keys(broker), report.stored, report.unacknowledged) == (["a"], 1, 0)


@pytest.mark.parametrize(
    "holding", [ops.delay(9.0), ops.delay_with_mapper(lambda _: timer(9.0))], ids=repr
)
def test_what_is_held_long_behind_an_end_is_acknowledged_or_reported_left(marbles, holding):
    broker, sink = marbles.mqtt("t q1 : -a---"), marbles.sink()
    flow = read(broker).pipe(ops.take_until(timer(1.5)), holding)
    report = marbles.run(run_async(flow, sink, seconds=60, log=False))
    assert sink.stored == ["a"]
    assert len(keys(broker)) + report.unacknowledged == 1


BUFFERED = {
    "throttle_with_timeout": ops.throttle_with_timeout(5.7),
    "merge": lambda source: source.pipe(ops.map(later(0.5)), ops.merge(max_concurrent=2)),
    "sample": ops.sample(0.6),
}


@pytest.mark.parametrize("above", BUFFERED.values(), ids=BUFFERED)
def test_what_take_last_buffer_has_given_to_a_sink_is_acknowledged(marbles, above):
    broker, sink = marbles.mqtt("t q1 : -a---"), marbles.sink()
    flow = read(broker).pipe(above, ops.take_last_buffer(3))
    report = marbles.run(run_async(flow, sink, seconds=9, log=False))
    assert (sink.stored, keys(broker), report.unacknowledged) == (["a"], ["a"], 0)


def fails_once():
    calls = itertools.count()

    def fail(message):
        if next(calls) == 0:
            raise OSError("not yet")
        return message.payload

    return fail


def test_an_error_that_is_kept_is_said_to_hold_its_message(marbles):
    broker, sink, kept = marbles.mqtt("t q1 : -a---"), marbles.sink(), []
    keep = ops.catch(lambda error, _: kept.append(error) or never())
    flow = read(broker).pipe(ops.slice(-2, None), ops.map(fails_once()), keep)
    with pytest.warns(
        RxflowWarning, match="an error that is kept holds messages; 1 message is unacknowledged"
    ):
        marbles.run(run_async(flow, sink, seconds=4, log=False, drain_timeout=2))
    assert (sink.stored, keys(broker)) == ([], [])


def test_what_never_emits_the_last_ones_does_not_use_up_the_drain(marbles):
    broker, sink = marbles.mqtt("t q1 : -a---"), marbles.sink()
    flow = read(broker).pipe(ops.merge(never()), ops.skip_last(2))
    report = marbles.run(run_async(flow, sink, seconds=4, log=False))
    assert (sink.stored, keys(broker), report.unacknowledged) == ([], [], 1)
    assert report.seconds < 5


def test_what_comes_after_a_first_behind_subscribe_on_is_left_to_the_broker(marbles):
    broker, sink = marbles.mqtt("t q1 : -(ab)-"), marbles.sink()
    flow = read(broker).pipe(ops.subscribe_on(marbles.scheduler), ops.first())
    marbles.run(run_async(flow, sink, seconds=4, log=False))
    assert (sink.stored, keys(broker)) == (["a"], ["a"])


def test_a_stream_that_does_not_end_is_said_to_use_up_the_drain(marbles):
    broker, sink = marbles.mqtt("t q1 : -a---"), marbles.sink()
    inner = ops.window_toggle(timer(1.1, 3.1), lambda _: timer(0.3)), ops.flat_map(lambda w: w)
    flow = read(broker).pipe(ops.flat_map(lambda m: one(m).pipe(*inner)))
    with pytest.warns(RxflowWarning, match="has not ended; 1 message is unacknowledged"):
        marbles.run(run_async(flow, sink, seconds=4.2, log=False, drain_timeout=1))


@pytest.mark.parametrize("qos", [1, 2])
def test_one_pipeline_may_end_before_the_source_that_another_shares_has_begun(marbles, qos):
    broker, one, two = marbles.mqtt(f"t q{qos} : -a---"), marbles.sink(), marbles.sink()
    shared = read(broker, qos=qos).pipe(ops.publish_value("none"), ops.ref_count())
    marbles.run(run_async((shared.pipe(ops.take(1)), one), (shared, two), seconds=4, log=False))
    assert (one.stored, two.stored) == (["none"], ["none", "a"])
    assert keys(broker) == ["a"]


@pytest.mark.parametrize("slow", [ops.flat_map(later(3.6)), ops.delay(3.6)], ids=repr)
@pytest.mark.parametrize("ending", ENDING.values(), ids=ENDING)
def test_what_a_take_has_passed_on_is_awaited_at_the_end(marbles, ending, slow):
    broker, sink = marbles.mqtt("t q1 : -a---"), marbles.sink()
    report = marbles.run(run_async(read(broker).pipe(ending, slow), sink, seconds=3, log=False))
    assert len(sink.stored) == 1
    assert (keys(broker), report.stored, report.unacknowledged) == (["a"], 1, 0)


def test_at_an_error_two_rows_in_one_sink_are_not_taken_for_a_row_in_each_of_two(marbles):
    broker, one, two = marbles.mqtt("t q1 : -(ab)-"), marbles.sink(), marbles.sink()
    shared = read(broker).pipe(ops.share())
    twice = shared.pipe(ops.flat_map(lambda m: reactivex.of(m.payload, m.payload)))
    failing = shared.pipe(ops.map(fails_once()))
    with pytest.raises(OSError, match="not yet"):
        marbles.run(run_async((twice, one), (failing, two), seconds=4, log=False))
    assert two.stored == []
    assert keys(broker) == []


def test_the_other_sources_of_a_merge_emit_what_they_schedule(marbles):
    source = marbles.hot("-a--|")
    merged = source.pipe(ops.merge(reactivex.of("x", "y"), reactivex.of("z")))
    marbles.check(merged.pipe(ops.to_set()), "----(s|)", s={"a", "x", "y", "z"})


def test_what_is_behind_a_retry_is_not_held_by_the_error_that_it_has_swallowed(marbles):
    broker, sink = marbles.mqtt("t q1 : -a---"), marbles.sink()
    flow = read(broker).pipe(ops.delay(2), ops.map(fails_once()), ops.retry(3))
    report = marbles.run(run_async(flow, sink, seconds=2, log=False))
    assert (sink.stored, report.unacknowledged) == ([], 1)
    assert report.seconds < 3


@pytest.mark.parametrize("collected", [ops.to_dict(str), ops.to_set()], ids=repr)
def test_what_a_dict_or_a_set_has_given_to_a_sink_is_acknowledged(marbles, collected):
    broker, sink = marbles.mqtt("t q1 : -a---"), marbles.sink()
    flow = read(broker).pipe(ops.buffer_with_time(4.5), ops.map(tuple), collected)
    rows = flow.pipe(ops.map(lambda _: "all"))
    report = marbles.run(run_async(rows, sink, seconds=5, log=False))
    assert (keys(broker), report.unacknowledged) == (["a"], 0)


def test_a_source_that_is_subscribed_again_at_the_end_is_not_called_unreached(marbles):
    broker, sink = marbles.mqtt("t q1 : -(ab)---"), marbles.sink()
    again = iter([True, True, False])
    flow = read(broker).pipe(ops.take(2), ops.while_do(lambda _: next(again)))
    report = marbles.run(run_async(flow, sink, seconds=1.001, log=False))
    assert report.stored == 2


def opened(flatten):
    """Operators that make a stream of each value, and another that opens these."""
    slow = ops.map(lambda value: timer(0.5).pipe(rx.map(lambda _: value)))
    return lambda source: source.pipe(slow, flatten)


OPENING = {
    "merge": opened(ops.merge(max_concurrent=2)),
    "merge_all": opened(ops.merge_all()),
    "concat_all": opened(ops.concat_all()),
    "switch_latest": opened(ops.switch_latest()),
    "exclusive": opened(ops.exclusive()),
    "flat_map": opened(ops.flat_map(lambda stream: stream)),
}


@pytest.mark.parametrize("opening", OPENING.values(), ids=OPENING)
def test_a_stream_that_is_a_value_in_the_stream_of_a_message_is_awaited(marbles, opening):
    broker, sink = marbles.mqtt("t q1 : -a---"), marbles.sink()
    flow = read(broker).pipe(ops.flat_map(lambda m: one(m).pipe(opening, ops.to_list())))
    marbles.run(run_async(flow, sink, seconds=1.2, log=False))
    assert (sink.stored, keys(broker)) == ([["a"]], ["a"])


@pytest.mark.parametrize("opening", OPENING.values(), ids=OPENING)
def test_a_stream_that_is_a_value_made_of_no_message_is_awaited(marbles, opening):
    broker, sink = marbles.mqtt("t q1 : ----"), marbles.sink()
    flow = read(broker).pipe(ops.is_empty(), opening)
    marbles.run(run_async(flow, sink, seconds=1.2, log=False))
    assert sink.stored == [True]


OPENED = {
    "merge_all": ops.merge_all(),
    "merge": ops.merge(max_concurrent=9),
    "flat_map": ops.flat_map(lambda stream: stream),
}
ALL_STREAMS = {
    **STREAMS,
    "window": lambda: ops.window(timer(0.5, 0.7)),
    "window_when": lambda: ops.window_when(lambda: timer(0.7)),
    "window_toggle": lambda: ops.window_toggle(timer(0.5), lambda _: never()),
}


@pytest.mark.parametrize("streams", ALL_STREAMS.values(), ids=ALL_STREAMS)
@pytest.mark.parametrize("opening", OPENED.values(), ids=OPENED)
def test_what_is_made_of_a_group_or_a_window_is_not_awaited(marbles, opening, streams):
    broker, sink = marbles.mqtt("t q1 : -a---"), marbles.sink()
    endless = ops.map(lambda s: s.pipe(ops.merge(never())).pipe(ops.merge(never())))
    flow = read(broker).pipe(streams(), endless, opening)
    report = marbles.run(run_async(flow, sink, seconds=4, log=False))
    assert (sink.stored, keys(broker)) == (["a"], ["a"])
    assert report.seconds < 5


def test_when_a_drain_runs_out_each_of_two_sinks_must_have_stored_what_is_acknowledged(marbles):
    broker, one, two = marbles.mqtt("t q1 : ---b---"), marbles.sink(), marbles.sink()
    shared = read(broker).pipe(ops.share())
    slow = shared.pipe(ops.flat_map(later(0.5)), ops.delay(0.6))
    with pytest.warns(RxflowWarning, match="gave up draining after 0 s"):
        marbles.run(run_async((slow, one), (shared, two), seconds=3.1, log=False, drain_timeout=0))
    assert (one.stored, two.stored) == ([], ["b"])
    assert keys(broker) == []


def test_what_is_shared_and_fails_may_begin_again_in_the_same_instant(marbles):
    broker, one, two = marbles.mqtt("t q1 : -a-b-"), marbles.sink(), marbles.sink()
    shared = read(broker).pipe(ops.map(fails_once()), ops.share())
    again = shared.pipe(ops.catch(lambda _, source: source))
    marbles.run(run_async((again, one), (again, two), seconds=9, log=False))
    assert (one.stored, two.stored) == (["a", "b"], ["a", "b"])
    assert keys(broker) == ["a", "b"]


HELD = {
    "buffer": lambda: ops.buffer(never()),
    "buffer_when": lambda: ops.buffer_when(never),
    "buffer_with_count": lambda: ops.buffer_with_count(9),
    "to_list": ops.to_list,
    "delay": lambda: ops.delay(9.0),
    "zip": lambda: ops.zip(never()),
}


def both_of(held):
    """Two branches of what is shared, the first of which holds, merged."""

    def apply(source):
        shared = source.pipe(ops.share())
        return shared.pipe(held(), ops.merge(shared.pipe(ops.filter(lambda _: False))))

    return apply


WITHIN = {
    "publish": lambda held: ops.publish(lambda s: s.pipe(held())),
    "replay": lambda held: ops.replay(mapper=lambda s: s.pipe(held())),
    "group": lambda held: (
        lambda source: source.pipe(
            ops.group_by(lambda _: 0), ops.flat_map(lambda g: g.pipe(held()))
        )
    ),
    "share": both_of,
}


@pytest.mark.parametrize("within", WITHIN.values(), ids=WITHIN)
@pytest.mark.parametrize("held", HELD.values(), ids=HELD)
def test_what_is_held_when_a_pipeline_is_cut_off_is_not_acknowledged(marbles, held, within):
    broker, sink = marbles.mqtt("t q1 : -a---"), marbles.sink()
    cut = ops.merge(timer(2.5)), ops.take(1)
    flow = read(broker).pipe(within(held), *cut)
    marbles.run(run_async(flow, sink, seconds=9, log=False))
    assert (sink.stored, keys(broker)) == ([0], [])
