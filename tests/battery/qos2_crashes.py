"""A broker's side of QoS 2, and a sink that is ended between any two steps, many times over.

    python qos2_crashes.py FOLDER PAIRS [CONTROL | rotate]

It prints one JSON line: how many trials, and what each of those that went wrong had in its file. A
trial is a forked child that is ended at one step, a second at another, and a third that goes on to
the end. Packet ids are few, so each is used again and again, and every message has the same digest:
what tells an old message from a new one is the journal alone. With `rotate` each child begins a new
file.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import socket
import sys
from pathlib import Path

from rxflow import JsonSink
from rxflow.delivery import Ledger
from rxflow.message import Message
from rxflow.sinks.file.journal import Inflight
from rxflow.sinks.file.store import DurableFile
from rxflow.sinks.receipts import Receipts

IS_ROTATING = sys.argv[3:] == ["rotate"]
MESSAGES = 5
PACKET_IDS = 2
STEPS = ("pwrite", "fdatasync", "fsync", "rename", "ftruncate", "unlink")


class Sender:
    """A broker with a session that lasts: it sends again what was not answered."""

    def __init__(self):
        self.waiting = list(range(MESSAGES))
        self.inflight = {}  # packet id -> payload, or None when PUBREC has come

    def on_connect(self):
        """What it sends first; the others follow when packet ids are free."""
        again = [["rel", i] if p is None else ["pub", i, p, True] for i, p in self.inflight.items()]
        return again + self.fresh()

    def fresh(self):
        sent = []
        for packet_id in range(1, PACKET_IDS + 1):
            if self.waiting and packet_id not in self.inflight:
                self.inflight[packet_id] = self.waiting.pop(0)
                sent.append(["pub", packet_id, self.inflight[packet_id], False])
        return sent

    def answer(self, kind, packet_id):
        if kind == "rec":
            self.inflight[packet_id] = None
            return [["rel", packet_id]]
        del self.inflight[packet_id]
        return self.fresh()

    @property
    def is_done(self):
        return not (self.waiting or self.inflight)


def serve(sender, connection, child):
    """One connection, until the child is gone or everything is settled. False if it was ended."""
    with connection, connection.makefile("r") as lines:
        try:
            send(connection, sender.on_connect())
            while not sender.is_done and (line := lines.readline()):
                send(connection, sender.answer(*json.loads(line)))
        except OSError:
            pass
    _, status = os.waitpid(child, 0)
    return status == 0


def send(connection, packets):
    for packet in packets:
        connection.sendall(json.dumps(packet).encode() + b"\n")


class Step:
    """Counts what can be interrupted, and ends the process at one of them."""

    def __init__(self, last):
        self.left = last

    def __call__(self, half_done=None):
        self.left -= 1
        if self.left == 0:
            if half_done:
                half_done()
            os._exit(9)

    def watch(self):
        for name in STEPS:
            real = getattr(os, name)

            def call(*arguments, _real=real, _name=name, **options):
                half = None
                if _name == "pwrite":
                    fd, data, at = arguments
                    half = lambda: _real(fd, bytes(data)[: len(data) // 2], at)  # noqa: E731
                self(half)
                result = _real(*arguments, **options)
                self()
                return result

            setattr(os, name, call)


async def receive(path, connection, step):  # noqa: C901 (one conversation)
    """The receiver: ledger and sink as a source uses them, in place of a socket a line of JSON."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def tell(kind, packet_ids):
        for packet_id in packet_ids:
            step()
            connection.sendall(json.dumps([kind, packet_id]).encode() + b"\n")
            step()

    def settle():
        ledger.settle()
        ready, completed = ledger.take()
        tell("rec", [packet - 0x10000 for packet in ready])
        tell("comp", completed)
        if ledger.failure and not done.done():
            done.set_exception(ledger.failure)

    ledger = Ledger(lambda: loop.call_soon_threadsafe(settle))
    sink = JsonSink(path, existing="rotate" if IS_ROTATING else "append")
    sink.open()
    ledger.keep(sink.journal, "session")
    ledger.connected(session_present=True)
    received = b""

    def handle(packet):
        kind, packet_id, *rest = packet
        if kind == "rel":
            ledger.release(packet_id)
            return
        payload, duplicate = rest
        delivery = ledger.open2(packet_id, 7, duplicate=duplicate)
        if delivery:
            sink.on_next(Message("t", payload, 2, delivery=delivery))

    def readable():
        nonlocal received
        chunk = connection.recv(65_536)
        if not chunk:
            loop.remove_reader(connection)
            done.set_result(None)
            return
        *lines, received = (received + chunk).split(b"\n")
        for line in lines:
            handle(json.loads(line))
        settle()

    loop.add_reader(connection, readable)
    await done
    sink.on_completed()
    await sink.wait_closed()


def trial(folder, points):
    """The rows of the file after a crash at each of these points, and how many crashes came."""
    path = Path(folder) / "rows.json"
    for file in path.parent.glob("rows*"):
        file.unlink()
    sender = Sender()
    crashes = 0
    for point in [*points, 0]:
        ours, theirs = socket.socketpair()
        child = os.fork()
        if child == 0:
            ours.close()
            step = Step(point)
            step.watch()
            asyncio.run(receive(path, theirs, step))
            os._exit(0)
        theirs.close()
        crashes += not serve(sender, ours, child)
        if sender.is_done:
            break
    rotated = sorted(path.parent.glob("rows-*.json"), key=lambda file: file.stem[-6:])
    return [row for file in (*rotated, path) for row in json.loads(file.read_bytes())], crashes


def without(control):
    """Take a safeguard away."""
    begin, read = Inflight.begin, Inflight.open
    if control == "journal":
        Receipts._claimed = lambda self, tokens: []
    elif control == "order":  # the journal after the rows
        write = DurableFile._write_and_sync
        Inflight.begin = lambda self, *arguments: setattr(self, "later", arguments)

        def write_first(self, content):
            write(self, content)
            begin(self.inflight, *self.inflight.later)

        DurableFile._write_and_sync = write_first
    elif control == "offset":  # what was begun counts as committed
        Inflight.open = lambda self, place, fd, end: read(self, place, fd, 10**9)
    elif control == "removal":  # PUBCOMP before the removal is on the disk

        def release_at_once(self, session, packet_ids):
            self._sessions[session].attached.released(packet_ids)

        Receipts.release = release_at_once


def main():
    folder, pairs = sys.argv[1], int(sys.argv[2])
    without(sys.argv[3] if len(sys.argv) > 3 else "")
    expected = list(range(MESSAGES))
    wrong, trials, points = [], 0, 0
    for point in itertools.count(1):
        rows, crashes = trial(folder, [point])
        trials += 1
        if sorted(rows) != expected:
            wrong.append([point, rows])
        if not crashes:
            points = point - 1
            break
    every = [(a, b) for a in range(1, points + 1) for b in range(1, points + 1)]
    chosen = random.Random(1).sample(every, min(pairs, len(every)))
    for first, second in chosen:
        rows, _ = trial(folder, [first, second])
        trials += 1
        if sorted(rows) != expected:
            wrong.append([first, second, rows])
    sys.stdout.write(json.dumps({"trials": trials, "points": points, "wrong": wrong}) + "\n")


if __name__ == "__main__":
    main()
