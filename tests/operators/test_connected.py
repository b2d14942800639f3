"""Operators behind a real connection, every one of them too: what the broker is told in the end."""

from __future__ import annotations

import signal

from operators.cases import OURS_ALONE, Given, each
from reactivex import Observer
from reactivex.scheduler import ImmediateScheduler
from scripted import DISCONNECT, PUBACK, Conversation, ScriptedBroker, publish
from streams import store

from rxflow import JsonSink, from_mqtt, read_rows, run
from rxflow import operators as ops

COUNT = 20

LEAVING = {
    "concat_map-1",  # takes 30 s, which is more than a run waits for
    "merge-1",  # likewise
    "single-0",  # of several messages it is an error, which ends the run
    "single-1",
    "skip_last",  # the last ones
    "skip_last_with_time",
    "slice-2",
    "slice-3",
}
"""What leaves messages to the broker: not among the others, for these wait for all of them."""

CASES = {name: case for name, case in [*each(), *OURS_ALONE.items()] if name not in LEAVING}


def terminate(_) -> None:
    signal.raise_signal(signal.SIGTERM)


def test_behind_every_operator_each_message_is_acknowledged_once_and_in_order():
    acknowledged: list[int] = []

    def script(conversation: Conversation) -> None:
        conversation.accept()
        conversation.accept_subscription()
        for n in range(1, COUNT + 1):
            conversation.send(publish(f"t/{n % 3}", b"%d" % (n % 5), 1, n))
        acknowledged.extend(conversation.packet_ids(PUBACK, COUNT))
        acknowledged.extend(kind for kind in conversation.read_to_end() if kind == PUBACK)

    with ScriptedBroker(script) as broker:
        shared = from_mqtt(broker.url, "t/#").pipe(ops.decode_json(), ops.share())
        pipelines = (
            (shared.pipe(*case(ops, Given(shared, ImmediateScheduler()))), Observer(store))
            for case in CASES.values()
        )
        last = shared.pipe(ops.skip(COUNT - 1), ops.do_action(terminate))
        run(*pipelines, (last, Observer(store)), log=False)
    assert acknowledged == [*range(1, COUNT + 1)]


def test_retry_after_a_failed_map_redelivers_and_stores_once_what_is_acknowledged(tmp_path):
    kinds: list[int] = []
    acknowledged: list[int] = []
    attempts: list[int] = []

    def send_both(conversation: Conversation, flags: int) -> None:
        conversation.accept(session_present=bool(flags))
        conversation.accept_subscription()
        for n in (1, 2):
            conversation.send(publish("a", b"%d" % n, 1, n, flags))

    def first(conversation: Conversation) -> None:
        send_both(conversation, flags=0)
        kinds.extend(conversation.read_to_end())

    def second(conversation: Conversation) -> None:
        send_both(conversation, flags=0x08)  # DUP
        acknowledged.extend(conversation.packet_ids(PUBACK, 2))

    def fails_once(message) -> int:
        attempts.append(message.payload)
        return message.payload // (attempts != [1, 2])

    with ScriptedBroker(first, second) as broker:
        stored = from_mqtt(broker.url, "a", client_id="me").pipe(
            ops.decode_json(),
            ops.map(fails_once),
            ops.buffer_with_count(2),
            ops.flat_map(lambda batch: batch),
            ops.retry(),
            ops.take(2),
        )
        run(stored, JsonSink(tmp_path / "rows.json"), seconds=20, log=False)
    assert (kinds, acknowledged) == ([DISCONNECT], [1, 2])
    assert list(read_rows(tmp_path / "rows.json")) == [1, 2]
