"""C19: wire, ledger, session and journal against a model of the standard's sender, in any order.

`Sender` is a broker as MQTT 3.1.1 and 5 describe it [MQTT-4.3, 4.4, 4.6]: what it has sent and not
seen acknowledged it sends again, with the same packet id, when a connection finds the session. It
looks at every byte that comes back. Real are `Wire` and `Ledger`; the socket and the disk are not.
The process may crash at any time, and in the middle of a commit. In one machine all messages have
one digest: what tells an old message from a new one with its packet id is the protocol alone.

In the other the sender may be killed too and come back with an older state, as a broker does whose
disk is behind: what it had sent since is gone, its packet ids are free again, and what was answered
is sent again. (With one digest for all nobody could tell: such a broker may send a new message, and
before it is read lose the connection: then it comes again with DUP, as the old one would.)
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from battery.sizes import EXAMPLES, STEPS, only_in_full
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from scripted import PUBACK, PUBCOMP, PUBREC, packet, publish

from rxflow.delivery import Delivery, Ledger
from rxflow.mqtt.wire import Wire

NOW = datetime(2026, 1, 2, tzinfo=UTC)
MAX_PENDING = 4


@dataclass
class Sent:
    """One message of QoS 1 or 2, in the sender's session."""

    number: int
    qos: int
    packet_id: int
    is_received: bool = False  # PUBREC has come
    epoch: int = -1  # the connection on which it was last sent


@dataclass
class Fate:
    """What became of a message on our side, as far as the test itself did it."""

    is_stored: bool = False
    is_let_go: bool = False
    deliveries: int = 0  # to the process that runs
    rows: int = 0  # on the disk
    qos: int = 1
    may_repeat: bool = False  # the sender has forgotten that it was answered


class Stream:
    """A socket in memory."""

    def __init__(self) -> None:
        self.incoming = bytearray()
        self.outgoing = bytearray()

    def recv(self, size: int) -> bytes:
        if not self.incoming:
            raise BlockingIOError
        data = bytes(self.incoming[:size])
        del self.incoming[:size]
        return data

    def send(self, data) -> int:
        self.outgoing += data
        return len(data)

    def pending(self) -> int:
        return 0

    def close(self) -> None:
        """There is nothing to close."""


class Book:
    """A journal on a disk that outlives the process."""

    is_complete = True  # False: the control that writes nothing down
    is_dropping = True  # False: the control that answers before the id is dropped

    def __init__(self) -> None:
        self.ids: dict[int, int] = {}
        self.releases: list[int] = []
        self.ledger: Ledger | None = None

    def attach(self, session: str, ledger: Ledger) -> dict[int, int]:
        self.ledger = ledger
        return dict(self.ids)

    def forget(self, session: str) -> None:
        self.ids.clear()
        self.releases.clear()

    def release(self, session: str, packet_ids: list[int]) -> None:
        assert self.ledger is not None
        if self.is_dropping and not self.ids.keys().isdisjoint(packet_ids):
            self.releases += packet_ids
        else:
            self.ledger.released(packet_ids)

    def begin(self, tokens: list) -> None:
        assert self.ledger is not None
        if self.is_complete:
            receipts = self.ledger.receipts(tokens)
            self.ids.update((packet_id, digest) for _, packet_id, digest in receipts)

    def sync(self) -> None:
        assert self.ledger is not None
        released, self.releases = self.releases, []
        for packet_id in released:
            self.ids.pop(packet_id, None)
        self.ledger.released(released)


@dataclass
class Sender:
    """The broker's side: its session, and one connection after the other."""

    fates: dict[int, Fate]
    in_flight: dict[int, Sent] = field(default_factory=dict)
    order: list[tuple[int, int]] = field(default_factory=list)  # qos, packet id, as sent
    epoch: int = -1
    numbers: int = 0
    must_be_gapless: bool = True
    saved: dict[int, Sent] = field(default_factory=dict)  # what is on its disk

    def connect(self, *, has_session: bool) -> bytes:
        """Begin a connection; what it sends at once [MQTT-4.4.0-1]."""
        self.epoch += 1
        self.order.clear()
        if not has_session:
            self.in_flight.clear()
            self.saved.clear()
        again = bytearray()
        for sent in self.in_flight.values():
            if sent.is_received:
                again += self.pubrel(sent)
            else:
                again += self._publish(sent, is_duplicate=True)
        return bytes(again)

    def save(self) -> None:
        self.saved = deepcopy(self.in_flight)

    def restore(self) -> None:
        """Come back as it was when it last saved."""
        self.in_flight = deepcopy(self.saved)
        for sent in self.in_flight.values():
            self.fates[sent.number].may_repeat = True

    def new(self, qos: int, packet_id: int) -> bytes:
        number, self.numbers = self.numbers, self.numbers + 1
        self.fates[number] = Fate(qos=qos)
        sent = self.in_flight[packet_id] = Sent(number, qos, packet_id)
        return self._publish(sent, is_duplicate=False)

    def pubrel(self, sent: Sent) -> bytes:
        return packet(0x62, sent.packet_id.to_bytes(2))

    def _publish(self, sent: Sent, *, is_duplicate: bool) -> bytes:
        sent.epoch = self.epoch
        self.order.append((sent.qos, sent.packet_id))
        payload = str(sent.number).encode()
        return publish("t", payload, sent.qos, sent.packet_id, 8 * is_duplicate)

    def read(self, data: bytearray) -> bytes:
        """Check what came back, and answer it."""
        answer = bytearray()
        assert len(data) % 4 == 0
        for at in range(0, len(data), 4):
            kind, packet_id = data[at] & 0xF0, int.from_bytes(data[at + 2 : at + 4])
            sent = self.in_flight.get(packet_id)
            if kind == PUBCOMP:
                if sent and sent.is_received:
                    del self.in_flight[packet_id]
                continue
            qos = {PUBACK: 1, PUBREC: 2}[kind]
            self._in_order(qos, packet_id)
            assert sent is not None, f"{packet_id} is not in flight: an older connection's?"
            assert sent.qos == qos
            assert sent.epoch == self.epoch, "acknowledged before it was sent on this connection"
            fate = self.fates[sent.number]
            assert fate.is_stored or fate.is_let_go, f"message {sent.number} is acknowledged"
            if qos == 1:
                del self.in_flight[packet_id]
            else:
                sent.is_received = True
                answer += self.pubrel(sent)
        data.clear()
        return bytes(answer)

    def _in_order(self, qos: int, packet_id: int) -> None:
        """Acknowledgements come in the order of what was sent [MQTT-4.6.0-2, 4.6.0-3]."""
        assert (qos, packet_id) in self.order, "acknowledged twice, or on the wrong connection"
        place = self.order.index((qos, packet_id))
        assert not (self.must_be_gapless and place), f"{self.order[:place]} should come first"
        del self.order[: place + 1]


class LedgerMachine(RuleBasedStateMachine):
    """The rules; what is asserted is in `Sender.read` and in the invariants."""

    ledger_type: type[Ledger] = Ledger
    book_type: type[Book] = Book

    def __init__(self) -> None:
        super().__init__()
        self.fates: dict[int, Fate] = {}
        self.sender = Sender(self.fates)
        self.book: Book | None = None
        self.stream: Stream | None = None
        self.wire: Wire | None = None
        self.held: list = []  # by an operator
        self.taken: list = []  # tokens, by a sink
        self._begin()

    def _begin(self) -> None:
        """What a process begins with."""
        self.has_failed = False
        self.ledger = self.ledger_type()
        if self.book:
            self.ledger.keep(self.book, "session")
        self.is_closed = self.is_finished = False
        self.sender.must_be_gapless = True

    # -- what a wire needs of its client ---------------------------------------------------------

    def on_next(self, message) -> None:
        number = int(message.payload)
        fate = self.fates[number]
        fate.deliveries += 1
        is_twice = message.qos == 2 and fate.deliveries > 1
        assert fate.may_repeat or not is_twice, f"{number} came twice in QoS 2"
        self.held.append((number, message))

    @staticmethod
    def admit(topic: bytes) -> str:
        return topic.decode()

    @staticmethod
    def passed(first: int) -> None:
        raise AssertionError(first)

    @staticmethod
    def oversized(message, size) -> None:
        raise AssertionError(size)

    # -- what a link does ------------------------------------------------------------------------

    def _settle(self) -> None:
        self.ledger.settle()
        self._acknowledge()

    def _acknowledge(self) -> None:
        ready, completed = self.ledger.take()
        if self.wire:
            self.wire.output.acknowledge(ready, completed)

    # -- connections -----------------------------------------------------------------------------

    def _connect(self, *, has_session: bool) -> None:
        self.stream = Stream()
        self.wire = Wire(
            self.stream,
            self,
            self.passed,
            is_5=False,
            max_packet_bytes=1000,
            max_pending=MAX_PENDING,
            max_pending_bytes=1 << 30,
            now=lambda: NOW,
        )
        self.stream.incoming += self.sender.connect(has_session=has_session)
        self.ledger.connected(session_present=has_session)
        self._exchange()

    @initialize(has_journal=st.booleans())
    def connect_first(self, has_journal) -> None:
        if has_journal:
            self.book = self.book_type()
            self._begin()
        self._connect(has_session=False)

    @precondition(lambda self: not self.is_closed)
    @rule(has_session=st.booleans())
    def reconnect(self, has_session) -> None:
        self._connect(has_session=has_session)

    @precondition(lambda self: self.wire is not None)
    @rule()
    def lose_the_connection(self) -> None:
        self.wire = self.stream = None

    # -- the network -----------------------------------------------------------------------------

    def _exchange(self) -> None:
        """One pass of the loop: what waits is read, settled, written, and read by the sender."""
        wire, stream = self.wire, self.stream
        if wire is None or stream is None:
            self._settle()
            return
        if not wire.is_paused:
            wire.read()
        self._settle()
        if wire.is_paused and wire.has_room:
            wire.is_paused = False
            wire.decode()
            self._settle()
        wire.output.flush()
        self._check_and_answer()

    def _check_and_answer(self) -> None:
        assert self.stream is not None
        self.stream.incoming += self.sender.read(self.stream.outgoing)

    @rule()
    def pass_of_the_loop(self) -> None:
        self._exchange()

    @precondition(lambda self: self.wire is not None and not self.is_closed)
    @rule(qos=st.sampled_from([1, 2]), is_read=st.booleans(), number=st.integers(1, 3))
    def deliver(self, qos, is_read, number) -> None:
        assert self.stream is not None
        for _ in range(number):
            # The lowest free id: ids are used again as soon as they may be.
            packet_id = next(n for n in range(1, 1000) if n not in self.sender.in_flight)
            self.stream.incoming += self.sender.new(qos, packet_id)
        if is_read:
            self._exchange()

    @precondition(lambda self: self.wire is not None and not self.is_closed)
    @rule()
    def release_again(self) -> None:
        assert self.stream is not None
        for sent in self.sender.in_flight.values():
            if sent.is_received:
                self.stream.incoming += self.sender.pubrel(sent)

    # -- our side --------------------------------------------------------------------------------

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def let_go(self, data) -> None:
        number, _ = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        if not self.is_closed:
            self.fates[number].is_let_go = True

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def take(self, data) -> None:
        number, message = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        message.delivery.take(1)
        self.taken.append((number, message.delivery))

    def _write(self, count) -> list:
        """Put rows on the disk, the journal first; their tokens."""
        numbers = [number for number, _ in self.taken[:count]]
        tokens = [token for _, token in self.taken[:count]]
        del self.taken[:count]
        if self.book:
            self.book.begin(tokens)
        for number in numbers:
            self.fates[number].is_stored = True
            self.fates[number].rows += 1
        return tokens

    @precondition(lambda self: self.taken and not self.has_failed)
    @rule(count=st.integers(1, 3), is_settled=st.booleans())
    def commit(self, count, is_settled) -> None:
        touched: set[Ledger] = set()
        for token in self._write(count):
            token.store(touched)
        token = None
        assert touched == {self.ledger}
        if is_settled:
            self._exchange()

    @precondition(lambda self: self.book and self.book.releases)
    @rule()
    def sync_the_journal(self) -> None:
        assert self.book is not None
        self.book.sync()

    @rule(has_session=st.sampled_from([True, True, False]))
    def crash(self, has_session) -> None:
        """The process dies; the next one connects."""
        self.wire = self.stream = None
        self.ledger.forked()
        self.held.clear()
        self.taken.clear()
        if self.book:
            self.book.releases.clear()
        for fate in self.fates.values():
            fate.deliveries = 0
        self._begin()
        self._connect(has_session=has_session)

    @precondition(lambda self: self.taken and not self.has_failed)
    @rule(count=st.integers(1, 3))
    def crash_between_rows_and_acknowledgement(self, count) -> None:
        self._write(count)
        self.crash(has_session=True)

    @precondition(lambda self: self.taken and not self.has_failed)
    @rule()
    def fail_a_commit(self) -> None:
        self._exchange()
        self.taken[0][1].fail(OSError("full"))
        self.has_failed = self.is_closed = True
        self.sender.must_be_gapless = False
        self._stop()
        self.held.clear()
        self.taken.clear()

    @precondition(lambda self: not self.is_closed)
    @rule()
    def close(self) -> None:
        """What a dispose does: the ledger is closed before the first reference drops."""
        self.ledger.close()
        self.is_closed = True
        self.sender.must_be_gapless = False
        self._stop()
        self.held.clear()

    @precondition(lambda self: self.is_closed and not self.is_finished)
    @rule()
    def finish(self) -> None:
        self.ledger.finish()
        self.is_finished = True
        self._acknowledge()
        if self.wire:
            self.wire.output.flush()
            self._check_and_answer()

    def _stop(self) -> None:
        if self.wire:
            self.wire.is_stopped = True

    # -- what always holds -----------------------------------------------------------------------

    @invariant()
    def at_most_max_pending_are_held(self) -> None:
        assert len(self.held) + len(self.taken) <= MAX_PENDING
        assert self.ledger.unsettled <= MAX_PENDING

    @invariant()
    def the_counts_add_up(self) -> None:
        ledger = self.ledger
        assert ledger.received == ledger.stored + ledger.let_go + ledger.left
        assert ledger.left >= len(self.held) + len(self.taken)

    @invariant()
    def of_qos_2_each_row_is_there_once(self) -> None:
        if self.book:
            once = [f for f in self.fates.values() if f.qos == 2 and not f.may_repeat]
            assert all(fate.rows <= 1 for fate in once)

    def teardown(self) -> None:
        """Whatever happened: if all is let go and the session is kept, all is acknowledged."""
        if self.has_failed or self.is_closed or self.wire is None:
            return
        self._connect(has_session=True)
        for _ in range(1000):
            for number in [held[0] for held in (*self.held, *self.taken)]:
                self.fates[number].is_let_go = True
            self.held.clear()
            self.taken.clear()
            self._exchange()
            if self.book:
                self.book.sync()
                self._exchange()
            if not self.sender.in_flight and not self.stream.incoming:
                break
        assert not self.sender.in_flight, "never acknowledged: its slot is leaked"
        assert self.ledger.unsettled == 0


class ForgetfulSenderMachine(LedgerMachine):
    """The sender is killed too, and what it remembers is what it last saved."""

    @rule()
    def the_sender_saves(self) -> None:
        self.sender.save()

    @precondition(lambda self: not self.is_closed)
    @rule()
    def the_sender_comes_back_older(self) -> None:
        self.wire = self.stream = None
        self.sender.restore()
        self._connect(has_session=True)


SIZE = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@pytest.fixture
def one_digest(monkeypatch):
    monkeypatch.setattr("rxflow.mqtt.wire.zlib", SimpleNamespace(crc32=lambda *_: 7))


QUICKLY = [Phase.generate]  # a counter-example is enough, it needs no shrinking


@pytest.mark.usefixtures("one_digest")
def test_acknowledged_is_stored_or_let_go_whatever_happens_in_whatever_order():
    run_state_machine_as_test(LedgerMachine, settings=SIZE)


def test_it_is_so_with_a_sender_that_comes_back_older():
    run_state_machine_as_test(ForgetfulSenderMachine, settings=SIZE)


def test_what_is_dropped_before_a_connection_is_not_acknowledged_on_it():
    ledger = Ledger()
    ledger.connected(session_present=False)
    Delivery(ledger, 7)  # dropped at once, and not settled yet
    ledger.connected(session_present=True)
    assert ledger.take() == ([], [])


def test_what_is_ready_and_not_taken_before_a_connection_is_not_acknowledged_on_it():
    ledger = Ledger()
    ledger.connected(session_present=False)
    Delivery(ledger, 7)
    ledger.release(8)
    ledger.settle()
    ledger.connected(session_present=True)
    assert ledger.take() == ([], [])


class WithoutEpochs(Ledger):
    def connected(self, *, session_present: bool) -> None:
        self.settle()


class WithoutOrder(Ledger):
    def _collect_in_order(self) -> None:
        settled = [number for number, may in self._fates.items() if may]
        self.ready += [self.queue[number - self._first] for number in settled]
        self._fates.clear()


class WithoutClosing(Ledger):
    def close(self) -> None:
        self.settle()


class WithoutFailing(Ledger):
    def fail(self, error: Exception) -> None:
        """The source is told, and that is all."""


class WithoutMemoryOfQos2(Ledger):
    def open2(self, packet_id, digest=0, *, duplicate=True):
        self._qos2._numbers.pop(packet_id, None)
        self._qos2._done.pop(packet_id, None)
        return super().open2(packet_id, digest, duplicate=duplicate)


@pytest.mark.usefixtures("one_digest")
@pytest.mark.parametrize(
    "broken", [WithoutEpochs, WithoutOrder, WithoutClosing, WithoutFailing, WithoutMemoryOfQos2]
)
def test_a_ledger_without_a_safeguard_is_found_out(broken):
    class Machine(LedgerMachine):
        ledger_type = broken

    size = settings(
        SIZE, max_examples=5000, database=None, phases=QUICKLY, report_multiple_bugs=False
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Machine, settings=size)


class WithoutDigests(Ledger):
    def open2(self, packet_id, digest=0, *, duplicate=True):
        return super().open2(packet_id, 0, duplicate=True)


def test_a_ledger_that_goes_by_packet_ids_alone_is_found_out():
    class Machine(ForgetfulSenderMachine):
        ledger_type = WithoutDigests

    size = settings(
        SIZE, max_examples=5000, database=None, phases=QUICKLY, report_multiple_bugs=False
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Machine, settings=size)


class WritingNothingDown(Book):
    is_complete = False


class AnsweringTooSoon(Book):
    is_dropping = False


class RememberingTooMuch(Book):
    def forget(self, session: str) -> None:
        """The session is lost, and its ids are kept."""


@only_in_full
@pytest.mark.usefixtures("one_digest")
@pytest.mark.parametrize("broken", [WritingNothingDown, AnsweringTooSoon, RememberingTooMuch])
def test_a_journal_without_a_safeguard_is_found_out(broken):
    class Machine(LedgerMachine):
        book_type = broken

    size = settings(
        SIZE, max_examples=50_000, database=None, phases=QUICKLY, report_multiple_bugs=False
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Machine, settings=size)
