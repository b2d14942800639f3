"""Laws of delivery, for any broker and any disk that a diagram can describe."""

from hypothesis import assume, given
from hypothesis import strategies as st

from rxflow import SinkError, run_async
from rxflow import operators as ops
from rxflow.testing import Marbles

LETTERS = "abcdefghijkl"


@st.composite
def worlds(draw):
    """Lanes of a broker, with every message unlike the others, and a disk."""
    count = draw(st.integers(1, 8))
    gaps = draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    lane = "".join(f"{'-' * gap}{LETTERS[n]}" for n, gap in enumerate(gaps))
    outages = draw(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), max_size=3))
    connection = "^" + "".join(f"{'-' * up}!{'-' * down}^" for up, down in outages)
    return lane, connection, draw(st.text("-=", max_size=20))


def played(lane, connection, disk, qos=1, operator=None):
    """What was stored, when each was acknowledged, and whether the sink failed."""
    with Marbles() as marbles:
        broker = marbles.mqtt(f"a q{qos} : {lane}\n$connection : {connection}")
        sink = marbles.sink(disk=disk)
        source = broker.from_mqtt("a", qos=qos).pipe(operator or ops.filter(lambda _: True))
        has_failed = False
        try:
            marbles.run(run_async(source, sink, seconds=200, log=False))
        except SinkError:
            has_failed = True
        return sink.stored, broker.acknowledgements, has_failed


def keys_of(acknowledgements):
    return [each.key for each in acknowledgements]


@given(worlds())
def test_every_message_is_stored_and_acknowledged_in_order(world):
    stored, acknowledged, has_failed = played(*world)
    sent = [key for key in world[0] if key != "-"]
    assert not has_failed
    assert list(dict.fromkeys(stored)) == sent
    assert keys_of(acknowledged) == sent


@given(worlds())
def test_qos_2_is_stored_exactly_once(world):
    lane, connection, disk = world
    stored, acknowledged, _ = played(lane, connection, disk, qos=2)
    assert stored == [key for key in lane if key != "-"]
    assert sorted(set(keys_of(acknowledged))) == stored


@given(worlds(), st.integers(0, 19))
def test_after_a_full_disk_nothing_is_acknowledged_that_is_not_stored(world, at):
    lane, connection, disk = world
    disk = disk.ljust(20, "-")
    stored, acknowledged, has_failed = played(lane, connection, f"{disk[:at]}x{disk[at + 1 :]}")
    assume(has_failed)
    assert keys_of(acknowledged) == list(dict.fromkeys(stored))[: len(acknowledged)]


@given(worlds(), st.integers(1, 4))
def test_a_buffer_acknowledges_no_message_before_its_batch_is_stored(world, size):
    lane, connection, disk = world
    stored, acknowledged, _ = played(lane, connection, disk, 1, ops.buffer_with_count(size))
    sent = [key for key in lane if key != "-"]
    assert list(dict.fromkeys(stored)) == sent
    assert keys_of(acknowledged) == sent


@given(worlds())
def test_what_is_let_go_is_acknowledged_and_nothing_is_stored(world):
    stored, acknowledged, _ = played(*world, 1, ops.filter(lambda _: False))
    assert stored == []
    assert keys_of(acknowledged) == [key for key in world[0] if key != "-"]
