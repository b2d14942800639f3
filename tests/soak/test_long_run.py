"""S3: a day of messages and faults; nothing is lost, and nothing grows."""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from battery.proxy import Proxy
from soak.long_run import Life, Sample, slope, until
from soak.sizes import FAULT_SECONDS, HOURS, RATE, only_in_soaks

from rxflow import MqttSink
from rxflow.testing import NumberedPublisher

LOGIN = {"username": "wiredflow", "password": "wiredflow"}
KEEP_ALIVE = 4
FLOOD = 10_000
FAULTS_A_ROUND = 10
WARM_UP = 0.2  # of the samples: what grows to its working size does so in these
pytestmark = only_in_soaks


class Faults:
    """One pipeline that lives through all of it, and one that dies of some, at one broker.

    Args:
        broker: The real one.
        proxy: Between it and the pipelines.
        survivor: It meets every fault that a process outlives.
        victim: It meets those as well, is killed, and has its disk filled.
    """

    def __init__(self, broker, proxy: Proxy, survivor: Life, victim: Life) -> None:
        self._broker = broker
        self._proxy = proxy
        self._survivor = survivor
        self._victim = victim
        self._instants = random.Random(1)
        self.counts: Counter[str] = Counter()
        self.kinds: dict[str, Callable[[], None]] = {
            "kill": self._kill,
            "reset": lambda: self._connection().reset(),
            "black hole": self._black_hole,
            "cut inside a packet": lambda: self._connection().cut_inside_a_packet(),
            "half open": lambda: self._connection().half_open(),
            "broker frozen": self._freeze,
            "broker restarted": self._restart,
            "disk full": self._fill,
            "slow sink": self._slow_down,
            "retained flood": self._flood,
        }

    def next(self) -> str:
        """Each kind once, in an order of chance, before any comes again."""
        rarest = min(self.counts[kind] for kind in self.kinds)
        left = [kind for kind in self.kinds if self.counts[kind] == rarest]
        kind = self._instants.choice(left)
        self.counts[kind] += 1
        self.kinds[kind]()
        return kind

    def _connection(self):
        """Of one of the pipelines, once both have one again."""
        until(lambda: len(self._alive) > 1, "no connection")
        return self._instants.choice(self._alive[-2:])

    @property
    def _alive(self):
        return [each for each in self._proxy.connections if each.is_alive]

    def _kill(self) -> None:
        self._victim.kill()
        self._victim.start()

    def _fill(self) -> None:
        self._victim.fill_its_disk(20_000)
        self._victim.start()

    def _black_hole(self) -> None:
        with self._connection().black_hole():
            time.sleep(self._instants.choice([0.5, 9.0]))

    def _freeze(self) -> None:
        with self._broker.frozen():
            time.sleep(2 * KEEP_ALIVE + 1)

    def _restart(self) -> None:
        self._broker.stop()
        self._broker.start()

    def _slow_down(self) -> None:
        slowed = self._instants.choice([self._survivor, self._victim])
        slowed.slow.touch()
        time.sleep(min(10.0, FAULT_SECONDS))
        slowed.slow.unlink()

    def _flood(self) -> None:
        """Retained messages, on the same topics each time; whoever subscribes gets them again."""
        sink = MqttSink(
            self._broker.url, topic=lambda n: f"battery/flood/{n}", qos=1, retain=True, **LOGIN
        )
        for number in range(FLOOD):
            sink.on_next(number)
        sink.on_completed()


class Watched:
    """Two pipelines over one broker, round after round of messages, and what is found of them."""

    def __init__(self, broker, proxy: Proxy, folder: Path) -> None:
        url, keep_alive = proxy.url, ("--keep-alive", str(KEEP_ALIVE), "--topic", "battery/#")
        self.survivor = Life(url, folder / "survivor.json", "--qos", "2", *keep_alive)
        self.victim = Life(url, folder / "victim.json", "--qos", "1", *keep_alive)
        self.lives = (self.survivor, self.victim)
        self.faults = Faults(broker, proxy, self.survivor, self.victim)
        self.samples: list[Sample] = []
        self.quiet: list[Sample] = []
        self.acknowledged = 0
        self._broker = broker
        self._next = 0
        self._began = time.monotonic()

    def publisher(self, rate: float) -> NumberedPublisher:
        return NumberedPublisher(
            self._broker.url,
            "battery/n",
            payload=lambda n: b'{"n": %d}' % n,
            first=self._next,
            rate=rate,
            qos=2,
            client_id="publisher",
            **LOGIN,
        )

    def begin(self) -> None:
        """Until both have stored something: from then on nothing may be missing."""
        for life in self.lives:
            life.start()
        with self.publisher(20) as publisher:
            for life in self.lives:
                until(lambda at=life: at.check() or bool(at.rows.numbers), "no beginning")
            publisher.stop()
            self._next += publisher.published
        self._forget()

    def round(self, faults: int) -> None:
        """Some faults under load; then everything must be there."""
        with self.publisher(RATE) as publisher:
            for _ in range(faults):
                time.sleep(FAULT_SECONDS)
                publisher.check()
                self.faults.next()
                for life in self.lives:
                    life.check()
                self.samples.append(self.survivor.sample(self._began))
            publisher.stop()
        acknowledged = set(publisher.acknowledged)
        self._next += publisher.published
        for life in self.lives:
            try:
                until(lambda at=life: at.check() or acknowledged <= at.rows.numbers, "lost")
            except AssertionError as error:
                error.add_note(life.lack(acknowledged))
                raise
            assert max(life.rows.numbers) < self._next
        self.acknowledged += len(acknowledged)
        self.quiet.append(self.survivor.sample(self._began))
        self._forget()

    def _forget(self) -> None:
        for life in self.lives:
            life.rows.forget()

    def __str__(self) -> str:
        hours = self.samples[-1].hours
        rows = ", ".join(
            f"{life.path.stem} {life.rows.count:,} rows ({life.rows.again:,} twice)"
            for life in self.lives
        )
        return (
            f"S3: {hours:.2f} h, {self.acknowledged:,} acknowledged, 0 lost; {rows}; "
            f"{sum(self.faults.counts.values())} faults {dict(self.faults.counts)}; memory from "
            f"{self.quiet[0].rss_mb:.1f} to {self.quiet[-1].rss_mb:.1f} MB, descriptors and "
            f"threads {[(s.descriptors, s.threads) for s in (self.quiet[0], self.quiet[-1])]}"
        )


def test_a_long_time_of_faults_loses_nothing_and_lets_nothing_grow(make_mosquitto, tmp_path):
    broker = make_mosquitto(options="log_type none")
    with Proxy(broker.port, remembers=False) as proxy:
        watched = Watched(broker, proxy, tmp_path)
        try:
            watched.begin()
            end = time.monotonic() + HOURS * 3600
            while time.monotonic() < end:
                watched.round(FAULTS_A_ROUND)
            statuses = [life.stop() for life in watched.lives]
        finally:
            for life in watched.lives:
                life.end()
    sys.stdout.write(f"{watched}\n")
    assert statuses == [0, 0]
    for life in watched.lives:
        life.rows.check_end()
    check_growth(watched)


def check_growth(watched: Watched) -> None:
    """Memory by its slope over hours; over less, where a slope says nothing, by what it gained."""
    working = watched.samples[int(len(watched.samples) * WARM_UP) :]
    if HOURS >= 1:
        assert slope(working) < 1.0
    assert working[-1].rss_mb - working[0].rss_mb < 8 + HOURS
    assert {s.descriptors for s in watched.quiet} == {watched.quiet[0].descriptors}
    assert {s.threads for s in watched.quiet} == {watched.quiet[0].threads}
