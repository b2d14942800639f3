"""The ledger: what may be acknowledged, when, and in which order."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledgers import Linked
from reactivex import compose, timer
from streams import storing

from rxflow import RxflowWarning
from rxflow import operators as ops
from rxflow.delivery import QOS2, Deliveries, Delivery

pytestmark = pytest.mark.marbles(limit="60s")  # a connection goes on for ever


class Book:
    """A ledger that writes down what it says."""

    def __init__(self):
        self.calls = []
        self.errors = []
        self.ledger = Linked(self.calls.append, failed=self.errors.append)
        self.ledger.connected(session_present=False)

    def open(self, *packet_ids):
        return [Delivery(self.ledger, packet_id) for packet_id in packet_ids]

    @property
    def acknowledged(self):
        """Everything acknowledged up to now, settling first."""
        self.ledger.settle()
        return [packet for call in self.calls for packet in call]


@pytest.fixture
def book():
    return Book()


def store(*tokens):
    touched = set()
    for token in tokens:
        token.store(touched)
    return touched


# -- settled by the last reference -----------------------------------------------------------------


def test_a_delivery_is_acknowledged_when_its_last_reference_is_gone(book):
    token = Delivery(book.ledger, 1)
    again = token
    del token
    assert book.acknowledged == []
    del again
    assert book.acknowledged == [1]


def test_a_stored_delivery_still_waits_for_its_last_reference(book):
    token = Delivery(book.ledger, 1)
    assert store(token) == {book.ledger}
    assert book.acknowledged == []
    del token
    assert book.acknowledged == [1]
    assert (book.ledger.stored, book.ledger.let_go) == (1, 0)


def test_nothing_is_acknowledged_before_settle(book):
    book.open(1, 2)
    assert book.calls == []


def test_what_one_settle_frees_comes_in_one_call(book):
    first, *rest = book.open(1, 2, 3)
    del rest
    book.ledger.settle()
    del first
    book.ledger.settle()
    book.ledger.settle()
    assert book.calls == [[1, 2, 3]]


@given(st.permutations(range(1, 9)), st.data())
def test_acknowledgements_come_in_the_order_received(order, data):
    book = Book()
    tokens = {packet_id: Delivery(book.ledger, packet_id) for packet_id in range(1, 9)}
    for packet_id in order:
        if data.draw(st.booleans()):
            store(tokens[packet_id])
        del tokens[packet_id]
        seen = book.acknowledged
        assert seen == list(range(1, len(seen) + 1))
        assert not tokens or len(seen) == min(tokens) - 1
    assert seen == list(range(1, 9))


def test_several_deliveries_behind_one_result_are_settled_together(book):
    result = Deliveries(book.open(1, 2))
    assert store(result) == {book.ledger}
    assert book.acknowledged == []
    del result
    assert book.acknowledged == [1, 2]
    assert book.ledger.stored == 2


def test_one_result_may_stand_for_deliveries_of_several_ledgers():
    books = [Book(), Book()]
    result = Deliveries([Delivery(book.ledger, 1) for book in books])
    assert store(result) == {book.ledger for book in books}
    error = OSError("full")
    result.fail(error)
    assert [book.errors for book in books] == [[error], [error]]


def test_references_may_be_dropped_on_any_thread(book):
    tokens = book.open(*range(1, 101))
    threads = [threading.Thread(target=tokens.pop) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert book.acknowledged == list(range(1, 101))


def test_a_delivery_in_a_cycle_is_settled_by_the_collector(book):
    cycle = [Delivery(book.ledger, 1)]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert book.acknowledged == [1]


def test_the_counts_say_what_became_of_each(book):
    held, stored, _ = book.open(1, 2, 3)
    store(stored)
    del stored, _
    book.ledger.settle()
    ledger = book.ledger
    counts = (ledger.received, ledger.stored, ledger.let_go, ledger.unsettled, ledger.left)
    assert counts == (3, 1, 1, 1, 1)
    del held


# -- over a connection -----------------------------------------------------------------------------


def keys(broker):
    """Of what was acknowledged, in that order."""
    return [each.key for each in broker.acknowledgements]


def read(broker, **settings):
    """Messages of every lane, as the values of the diagram."""
    return broker.from_mqtt("+", qos=2, **settings).pipe(ops.decode_json())


def held(seconds):
    """Held for so many seconds, then stored."""
    return compose(ops.delay_with_mapper(lambda m: timer(seconds(m))), storing)


each_by_itself = held(lambda m: m.payload)
"""Each held as long as its payload says."""

with_duplicate = ops.map(lambda m: (m.payload, m.duplicate))


@pytest.mark.parametrize("qos", [1, 2])
def test_the_first_one_that_is_held_holds_the_rest(marbles, qos):
    broker = marbles.mqtt(
        f"""
        t q{qos}      : -abc----""",
        a=5,
        b=0,
        c=0,
    )
    expected = "        --bc--a"
    acknowledged = "    ------^"
    marbles.check(read(broker).pipe(each_by_itself), expected, a=5, b=0, c=0)
    assert broker.acknowledged("t") == acknowledged
    assert keys(broker) == ["a", "b", "c"]


@pytest.mark.parametrize("qos", [1, 2])
def test_what_is_stored_out_of_order_is_acknowledged_in_the_order_of_arrival(marbles, qos):
    broker = marbles.mqtt(
        f"""
        t q{qos}      : -abc---""",
        a=4,
        b=1,
        c=3,
    )
    expected = "        ---b-ac"
    acknowledged = "    -----^^"
    marbles.check(read(broker).pipe(each_by_itself), expected, a=4, b=1, c=3)
    assert broker.acknowledged("t") == acknowledged
    assert keys(broker) == ["a", "b", "c"]


def test_what_is_stored_after_its_connection_was_lost_is_not_acknowledged_on_the_next(marbles):
    broker = marbles.mqtt("""
        t q1          : -ab----------
        $connection   : ^--!--^------""")
    expected = "        -------ab---(cd)"
    acknowledged = "    ------------^"
    stored = read(broker).pipe(with_duplicate, ops.delay(6.0), storing)
    first, again = {"a": ("a", False), "b": ("b", False)}, {"c": ("a", True), "d": ("b", True)}
    marbles.check(stored, expected, **first, **again)
    assert broker.acknowledged("t") == acknowledged
    assert keys(broker) == ["a", "b"]


def test_what_is_stored_after_its_session_was_lost_is_never_acknowledged(marbles):
    broker = marbles.mqtt("""
        t q1          : -ab----c-------
        $connection   : ^--!--^--------""")
    expected = "        --------ab----c"
    acknowledged = "    --------------^"
    stored = read(broker, client_id=None).pipe(ops.delay(7.0), storing)
    with pytest.warns(RxflowWarning) as told:
        marbles.check(stored, expected)
    assert any("possible gap" in str(warning.message) for warning in told)
    assert broker.acknowledged("t") == acknowledged
    assert keys(broker) == ["c"]


@pytest.mark.parametrize("session_present", [True, False])
def test_what_is_stored_of_an_older_connection_is_counted(book, session_present):
    old = book.open(1, 2)
    book.ledger.connected(session_present=session_present)
    new = book.open(1)
    store(*old)
    del old
    assert book.acknowledged == []
    assert book.ledger.stored == 2
    del new
    assert book.acknowledged == [1]


def test_what_was_stored_behind_a_gap_is_not_acknowledged_on_the_next_connection(marbles):
    broker = marbles.mqtt(
        """
        t q1          : -ab----------
        $connection   : ^--!--^------""",
        a=6,
        b=0,
    )
    expected = "        --b---ba----a"
    acknowledged = "    ------------^"
    marbles.check(read(broker).pipe(each_by_itself), expected, a=6, b=0)
    assert broker.acknowledged("t") == acknowledged
    assert keys(broker) == ["a", "b"]


def test_what_is_held_of_an_older_connection_does_not_hold_up_the_new_one(marbles):
    broker = marbles.mqtt("""
        t q1          : -a----------
        $connection   : ^--!--^-----""")
    expected = "        ------b---a"
    acknowledged = "    ------^"
    stored = read(broker).pipe(held(lambda m: 0 if m.duplicate else 9), with_duplicate)
    marbles.check(stored, expected, a=("a", False), b=("a", True))
    assert broker.acknowledged("t") == acknowledged


# -- the end ---------------------------------------------------------------------------------------


def test_after_close_only_stored_deliveries_are_acknowledged(book):
    dropped, stored = book.open(1, 2)
    book.ledger.close()
    store(stored)
    del dropped, stored
    assert book.acknowledged == [2]
    assert (book.ledger.let_go, book.ledger.left) == (0, 1)


def test_what_was_let_go_before_close_is_acknowledged(book):
    book.open(1)
    book.ledger.close()
    assert book.acknowledged == [1]


def test_after_fail_nothing_is_acknowledged(book):
    dropped, stored = book.open(1, 2)
    book.ledger.fail(OSError("full"))
    store(stored)
    del dropped, stored
    assert book.acknowledged == []
    assert book.ledger.left == 1


def test_what_was_settled_in_order_before_fail_is_acknowledged(book):
    first, second = book.open(1, 2)
    store(first)
    del first
    book.ledger.fail(OSError("full"))
    del second
    assert book.acknowledged == [1]


@pytest.mark.parametrize("end", ["settle", "finish"])
def test_what_waited_behind_a_gap_is_not_acknowledged_after_fail(book, end):
    first, second = book.open(1, 2)
    store(second)
    del second
    book.ledger.fail(OSError("full"))
    del first
    getattr(book.ledger, end)()
    assert book.acknowledged == []


def test_the_first_error_is_told_and_no_other(book):
    token = Delivery(book.ledger, 1)
    errors = [OSError("first"), OSError("second")]
    for error in errors:
        token.fail(error)
    assert book.errors == errors[:1]


def test_finish_acknowledges_what_is_stored_behind_a_gap(book):
    held, stored = book.open(1, 2)
    book.ledger.close()
    store(stored)
    del stored
    assert book.acknowledged == []
    book.ledger.finish()
    assert book.acknowledged == [2]
    del held
    assert book.acknowledged == [2]


def test_finish_twice_acknowledges_once(book):
    held, stored = book.open(1, 2)
    store(stored)
    del stored
    book.ledger.finish()
    book.ledger.finish()
    assert book.acknowledged == [2]
    del held


def test_a_closed_ledger_counts_and_never_raises(book):
    book.ledger.close()
    book.ledger.close()
    book.ledger.finish()
    book.open(1)
    assert book.acknowledged == []


# -- QoS 2 -----------------------------------------------------------------------------------------


def test_a_qos_2_delivery_is_told_from_a_qos_1_delivery_with_its_packet_id(book):
    tokens = [book.ledger.open2(1), Delivery(book.ledger, 1)]
    tokens.clear()
    assert book.acknowledged == [1 + QOS2, 1]


def test_a_redelivered_message_is_not_delivered_twice(marbles):
    broker = marbles.mqtt("""
        t q2          : -a-------
        $connection   : ^--!--^--""")
    expected = "        --------a"
    acknowledged = "    --------^"
    marbles.check(read(broker).pipe(ops.delay(7.0), storing), expected)
    assert broker.acknowledged("t") == acknowledged
    assert keys(broker) == ["a"]


def test_a_redelivered_message_is_counted_once(book):
    token = book.ledger.open2(1)
    book.ledger.connected(session_present=True)
    assert book.ledger.open2(1) is None
    store(token)
    del token
    assert book.acknowledged == [1 + QOS2]
    assert (book.ledger.received, book.ledger.stored) == (1, 1)


def test_a_redelivered_message_is_answered_in_the_order_of_its_connection(marbles):
    broker = marbles.mqtt(
        """
        before q1     : -x-----------
        after q2      : --a----------
        $connection   : ^--!--^------""",
        x=6,
        a=6,
    )
    expected = "        -------xa---x"
    acknowledged = "    ------------^"
    marbles.check(read(broker).pipe(each_by_itself), expected, x=6, a=6)
    assert broker.acknowledged("before") == acknowledged
    assert broker.acknowledged("after") == acknowledged
    assert keys(broker) == ["x", "a"]


def test_a_message_settled_before_its_redelivery_is_answered_at_once(book):
    del_me = book.ledger.open2(1)
    del del_me
    book.ledger.settle()
    book.ledger.connected(session_present=True)
    assert book.ledger.open2(1) is None
    assert book.acknowledged == [1 + QOS2, 1 + QOS2]


def test_a_message_is_answered_once_over_several_connections(marbles):
    broker = marbles.mqtt("""
        t q2          : -a------------
        $connection   : ^--!--^-!--^--""")
    expected = "        -------------a"
    acknowledged = "    -------------^"
    marbles.check(read(broker).pipe(ops.delay(12.0), storing), expected)
    assert broker.acknowledged("t") == acknowledged
    assert keys(broker) == ["a"]


def test_after_its_release_a_packet_id_is_a_new_message(book):
    book.ledger.open2(1)
    assert book.acknowledged == [1 + QOS2]
    book.ledger.release(1)
    token = book.ledger.open2(1)
    assert token is not None
    assert book.ledger.received == 2


def test_what_is_released_before_it_is_settled_is_not_answered_any_more(book):
    """Its packet id may be another message's by now, which would be acknowledged by it."""
    tokens = [book.ledger.open2(1)]
    book.ledger.release(1)
    tokens.append(book.ledger.open2(1))
    assert tokens[1] is not None
    del tokens[0]
    book.ledger.settle()
    assert book.acknowledged == []
    tokens.clear()
    book.ledger.settle()
    assert book.acknowledged == [QOS2 + 1]


@pytest.mark.parametrize("is_settled", [True, False])
@pytest.mark.parametrize(("digest", "duplicate"), [(8, False), (8, True), (7, False)])
def test_of_a_broker_that_came_back_older_a_packet_id_may_be_a_new_message(
    book, is_settled, digest, duplicate
):
    tokens = [book.ledger.open2(1, 7)]
    if is_settled:
        tokens.clear()
    book.ledger.connected(session_present=True)
    book.acknowledged.clear()
    new = book.ledger.open2(1, digest, duplicate=duplicate)
    assert new is not None
    tokens.clear()
    book.ledger.settle()
    assert book.acknowledged == []
    del new
    book.ledger.settle()
    assert book.acknowledged == [QOS2 + 1]


@pytest.mark.parametrize("has_reconnected", [True, False])
def test_the_same_message_again_with_dup_is_not_delivered_twice(book, has_reconnected):
    token = book.ledger.open2(1, 7, duplicate=False)
    if has_reconnected:
        book.ledger.connected(session_present=True)
    assert book.ledger.open2(1, 7, duplicate=True) is None
    del token
    book.ledger.settle()
    assert book.acknowledged == [QOS2 + 1]
    assert book.ledger.open2(1, 7, duplicate=True) is None


def test_on_one_connection_the_same_message_again_needs_no_dup_to_be_the_same(book):
    """Until its PUBREL, whatever its DUP flag says [MQTT-4.3.3-10]."""
    assert book.ledger.open2(1, 7, duplicate=False) is not None
    book.ledger.settle()
    assert book.ledger.open2(1, 7, duplicate=False) is None
    assert book.acknowledged == [QOS2 + 1] * 2


def test_what_an_older_connection_left_is_not_the_same_once_it_is_settled(book):
    token = book.ledger.open2(1, 7, duplicate=False)
    book.ledger.connected(session_present=True)
    del token
    book.ledger.settle()
    assert book.ledger.open2(1, 7, duplicate=False) is not None


class Register:
    """A journal that notes down what it is told."""

    def __init__(self, ids):
        self.ids = ids
        self.released = []

    def attach(self, session, ledger):
        return dict(self.ids)

    def forget(self, session):
        self.ids.clear()

    def release(self, session, packet_ids):
        self.released += packet_ids


@pytest.mark.parametrize(
    ("digest", "duplicate", "is_known"),
    [(7, True, True), (7, False, False), (8, True, False), (8, False, False)],
)
def test_what_a_journal_knows_is_the_same_message_only_with_its_digest_and_dup(
    book, digest, duplicate, is_known
):
    register = Register({1: 7})
    book.ledger.keep(register, "session")
    book.ledger.connected(session_present=True)
    token = book.ledger.open2(1, digest, duplicate=duplicate)
    assert (token is None) == is_known
    assert register.released == [1] * (not is_known)


def test_a_message_whose_packet_id_is_another_ones_by_now_leaves_no_receipt(book):
    book.ledger.connected(session_present=True)
    tokens = [book.ledger.open2(1, 7)]
    book.ledger.connected(session_present=True)
    tokens.append(book.ledger.open2(1, 8))
    assert book.ledger.receipts(tokens) == [(1, 1, 8)]


def test_a_lost_session_forgets_packet_ids(book):
    old, _ = book.ledger.open2(1), book.ledger.open2(2)
    del _
    book.ledger.settle()
    book.ledger.connected(session_present=False)
    new = [book.ledger.open2(1), book.ledger.open2(2)]
    assert None not in new
    del old
    assert book.acknowledged == []
    new.clear()
    assert book.acknowledged == [1 + QOS2, 2 + QOS2]


def test_after_a_lost_session_a_packet_id_is_a_new_message(marbles):
    broker = marbles.mqtt("""
        t q2          : -a-----c-------
        $connection   : ^--!--^--------""")
    expected = "        --------a-----c"
    acknowledged = "    --------------^"
    stored = read(broker, client_id=None).pipe(ops.delay(7.0), storing)
    with pytest.warns(RxflowWarning) as told:
        marbles.check(stored, expected)
    assert any("possible gap" in str(warning.message) for warning in told)
    assert broker.acknowledged("t") == acknowledged
    assert keys(broker) == ["c"]


def test_a_message_dropped_after_close_is_delivered_again(book):
    token = book.ledger.open2(1)
    book.ledger.close()
    del token
    book.ledger.settle()
    book.ledger.connected(session_present=True)
    assert book.ledger.open2(1) is not None


def test_a_message_that_comes_twice_on_one_connection_holds_up_nothing(book):
    token = book.ledger.open2(1)
    assert book.ledger.open2(1) is None
    after = Delivery(book.ledger, 7)
    del token, after
    assert book.acknowledged[-1] == 7
    assert set(book.acknowledged) == {1 + QOS2, 7}


def test_a_message_that_comes_three_times_after_a_reconnect_holds_up_nothing(book):
    token = book.ledger.open2(1)
    book.ledger.connected(session_present=True)
    assert book.ledger.open2(1) is None
    assert book.ledger.open2(1) is None
    after = Delivery(book.ledger, 7)
    del token, after
    assert book.acknowledged[-1] == 7


# -- QoS 0 -----------------------------------------------------------------------------------------


def test_qos_0_is_counted_when_stored_and_never_acknowledged(book):
    token = book.ledger.unacknowledged
    assert store(token) == set()
    assert book.acknowledged == []
    assert (book.ledger.stored, book.ledger.stored0) == (0, 1)


def test_qos_0_that_cannot_be_stored_fails_its_ledger(book):
    error = OSError("full")
    book.ledger.unacknowledged.fail(error)
    assert book.errors == [error]


# -- tokens are one thing --------------------------------------------------------------------------


def tokens_of(book):
    return [Delivery(book.ledger, 1), book.ledger.unacknowledged, Deliveries(book.open(2, 3))]


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_a_copy_of_a_token_is_the_token(book, kind):
    token = tokens_of(book)[kind]
    assert copy.copy(token) is token
    assert copy.deepcopy([token])[0] is token


@pytest.mark.parametrize("kind", [0, 1, 2])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_token_cannot_be_pickled(book, kind, protocol):
    token = tokens_of(book)[kind]
    with pytest.raises(TypeError, match="send the payload instead"):
        pickle.dumps(token, protocol)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("end", ["settle", "finish"])
def test_a_forked_child_acknowledges_nothing(book, end):
    first, stored, behind = book.open(1, 2, 3)
    store(stored)
    del behind
    book.ledger.settle()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            del stored, first
            getattr(book.ledger, end)()
            status = len(book.calls)
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    del stored, first
    assert book.acknowledged == [1, 2, 3]


def test_dropping_a_delivery_raises_nothing(book):
    token = Delivery(book.ledger, 1)
    raised = []
    hook, sys.unraisablehook = sys.unraisablehook, raised.append
    try:
        del token
    finally:
        sys.unraisablehook = hook
    assert raised == []


def test_asking_for_receipts_holds_nothing(book):
    """With the garbage collector off: what a cycle holds is not settled in its time."""
    gc.disable()
    try:
        tokens = [book.ledger.open2(7, 1, duplicate=False)]
        assert book.ledger.receipts(tokens) == [(0, 7, 1)]
        del tokens
        book.ledger.settle()
        assert book.ledger.unsettled == 0
    finally:
        gc.enable()
