"""What a random pipeline is written in, so that it can be pasted into a test; and what watches it.

A message's payload is one letter, its id. Whatever operators make of it, the letter stays somewhere
within: `plain` shows an item without envelopes, `tokens` finds the letters in it. Where a pipeline
is parted, `["#1", ...]` is put around an item, so that a row says by which way it came.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import reactivex
from reactivex import Observable, never, timer
from reactivex import operators as rx
from reactivex.disposable import CompositeDisposable, Disposable
from reactivex.notification import Notification, OnNext
from reactivex.operators._timeinterval import TimeInterval
from reactivex.operators._timestamp import Timestamp
from reactivex.subject import Subject

from rxflow import operators as ops
from rxflow import run_async
from rxflow.message import Message
from rxflow.process.read_pass import on_its_way
from rxflow.sinks.rows import is_batch
from rxflow.testing import Marbles

__all__ = [  # what a program that is pasted needs
    "Box",
    "Fails",
    "Made",
    "Marbles",
    "Subject",
    "arrived",
    "branches",
    "cancelled",
    "counted",
    "frozen",
    "ident",
    "ignore",
    "itertools",
    "later",
    "never",
    "one",
    "ops",
    "parted",
    "plain",
    "reactivex",
    "read",
    "refuses",
    "run_async",
    "several",
    "so_often",
    "stopped",
    "tag",
    "timer",
    "watch",
]

Token = tuple[tuple[str, ...], str]
"""By which ways, and which letter."""


def plain(item: Any) -> Any:
    """An item without envelopes, as JSON can hold it."""
    if isinstance(item, str | int | float | None):
        return item
    if isinstance(item, list | tuple | set | frozenset):
        parts = [plain(part) for part in item]
        return sorted(parts, key=repr) if isinstance(item, set | frozenset) else parts
    if isinstance(item, dict):
        return [plain(value) for value in item.values()]
    if isinstance(item, Message):
        return plain(item.payload)
    if isinstance(item, Notification) and not isinstance(item, OnNext):
        return "end"
    assert isinstance(item, OnNext | Timestamp | TimeInterval | Box), item
    return plain(item.value)


def frozen(item: Any) -> Any:
    """The same, hashable."""

    def freeze(part: Any) -> Any:
        return tuple(freeze(each) for each in part) if isinstance(part, list) else part

    return freeze(plain(item))


def tokens(item: Any) -> Iterator[Token]:
    """The letters in an item, each with the ways that it came."""
    return _tokens(plain(item))


def _tokens(value: Any) -> Iterator[Token]:
    if isinstance(value, str):
        if len(value) == 1 or value[:1] == "=":
            yield (), value
    elif isinstance(value, list):
        if value and isinstance(value[0], str) and value[0][:1] == "#":
            for inner, letter in _tokens(value[1:]):  # the innermost way is the first
                yield (*inner, value[0]), letter
        else:
            for part in value:
                yield from _tokens(part)


def tag(way: str) -> Callable[[Any], Any]:
    """A function that says by which way an item came."""
    return lambda item: [way, plain(item)]


def ident(item: Any) -> int:
    """A number that an item has: of its first letter."""
    for _, letter in tokens(item):
        return ord(letter[0])
    return 0


def ignore(_: object) -> None:
    """Do nothing with it."""


@dataclass(frozen=True)
class Box:
    """Something with an attribute."""

    value: Any

    @classmethod
    def of(cls, item: Any) -> Box:
        return cls(plain(item))


def several(item: Any) -> Observable[Any]:
    value = plain(item)
    return reactivex.of(value, value)


def one(item: Any) -> Observable[Any]:
    return reactivex.of(plain(item))


def later(item: Any, seconds: float) -> Observable[Any]:
    value = plain(item)
    return timer(seconds).pipe(rx.map(lambda _: value))


def branches(share: Any, *parts: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A source that is shared by several, whose results are merged."""

    def apply(source: Any) -> Any:
        shared = source.pipe(*share)
        first, *rest = [part(shared) for part in parts]
        return first.pipe(ops.merge(*rest))

    return apply


def parted(partition: Any, *parts: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The parts of a `partition`, merged."""

    def apply(source: Any) -> Any:
        first, *rest = [
            part(each) for each, part in zip(source.pipe(partition), parts, strict=True)
        ]
        return first.pipe(ops.merge(*rest))

    return apply


def refuses(item: Any) -> Any:
    """A user's function that raises for some items, whenever it gets them."""
    if ident(item) % 4 == 0:
        raise ValueError("refused")
    return plain(item)


class Fails:
    """A user's function that raises at its n-th call, once or at each call from then on."""

    def __init__(self, at: int, times: int = 1) -> None:
        self._at, self._times, self._calls = at, times, 0

    def __call__(self, item: Any) -> Any:
        self._calls += 1
        if self._at <= self._calls < self._at + self._times:
            seen.raised += 1
            raise OSError("planned")
        return item


def so_often(times: int) -> Callable[[Any], bool]:
    left = iter(range(times))
    return lambda _: next(left, None) is not None


# -- what is seen ----------------------------------------------------------------------------------


@dataclass
class Record:
    """What came to one subscription of an operator, and when it ended."""

    began: int
    inputs: list[tuple[int, Any]] = field(default_factory=list)
    tokens: set[Token] = field(default_factory=set)
    outputs: int = 0
    results: set[str] = field(default_factory=set)  # of what reduces, as `Made` names them
    is_beginning: bool = True  # it is being subscribed to
    ended: int | None = None
    has_completed: bool = False  # what is upstream
    is_cut: bool = False  # it ended before what is upstream did

    def end(self, *, has_completed: bool = False) -> None:
        self.has_completed = self.has_completed or has_completed
        self.ended = seen.now() if self.ended is None else self.ended


@dataclass
class Seen:
    """What is seen of the pipeline that runs."""

    is_on: bool = False
    now: Callable[[], int] = lambda: 0
    received: dict[str, int] = field(default_factory=dict)  # letter -> when first, in microseconds
    deliveries: int = 0
    times: dict[str, int] = field(default_factory=dict)  # letter -> how often it was received
    records: dict[str, list[Record]] = field(default_factory=dict)
    made: dict[str, list[str]] = field(default_factory=dict)  # by what reduces: its results
    at_once: set[str] = field(default_factory=set)  # results made while one subscribed
    raised: int = 0
    beside: dict[int, set[str]] = field(default_factory=dict)  # sink -> see `arrived`
    subscribed: dict[str, int] = field(default_factory=dict)  # see `counted`
    emitting: Record | None = None  # which subscription emitted last


seen = Seen()


def watch(key: str, operator: Any) -> Callable[[Any], Any]:
    """The operator, and a record of what comes to each subscription of it."""
    if not seen.is_on:
        return operator

    def apply(source: Any) -> Any:
        def subscribe(observer: Any, scheduler: Any = None) -> Any:
            record = Record(seen.now())
            seen.records.setdefault(key, []).append(record)
            return _watched(record, operator, source).subscribe(observer, scheduler=scheduler)

        return Observable(subscribe)

    return apply


def _watched(record: Record, operator: Any, source: Any) -> Observable[Any]:
    def upstream(observer: Any, scheduler: Any = None) -> Any:
        def on_next(item: Any) -> None:
            record.inputs.append((seen.now(), plain(item)))
            record.tokens.update(tokens(item))
            observer.on_next(item)

        def on_error(error: Exception) -> None:
            record.end(has_completed=True)
            observer.on_error(error)

        def on_completed() -> None:
            record.end(has_completed=True)
            observer.on_completed()

        return source.subscribe(on_next, on_error, on_completed, scheduler=scheduler)

    def downstream(observer: Any, scheduler: Any = None) -> Any:
        def on_next(item: Any) -> None:
            record.outputs += 1
            seen.emitting = record
            observer.on_next(item)

        def on_completed() -> None:
            record.is_cut = not record.has_completed
            record.end()
            observer.on_completed()

        watched = operator(Observable(upstream))
        running = watched.subscribe(on_next, observer.on_error, on_completed, scheduler=scheduler)
        record.is_beginning = False
        return CompositeDisposable(running, Disposable(record.end))

    return Observable(downstream)


class Made:
    """Makes of each result of what reduces an id of its own."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, item: Any) -> str:
        results = seen.made.setdefault(self._key, [])
        results.append(f"={self._key}.{len(results)}")
        assert seen.emitting  # it stands right behind what reduces
        seen.emitting.results.add(results[-1])
        if seen.emitting.is_beginning:
            seen.at_once.add(results[-1])
        return results[-1]


def arrived(sink: int) -> Callable[[Any], None]:
    """Something comes to a sink, which takes a plain value for made of the message on its way."""

    def note(item: Any) -> None:
        is_plain = not isinstance(item, Message) and not is_batch(item)
        if is_plain and (message := on_its_way()):
            seen.beside.setdefault(sink, set()).add(message.payload.decode().strip('"'))

    return note


def read(broker: Any, topic: str, qos: int) -> Any:
    """The messages of a topic, whose payload is a letter."""

    def receive(message: Any) -> None:
        seen.received.setdefault(message.payload, seen.now())
        seen.deliveries += 1
        seen.times[message.payload] = seen.times.get(message.payload, 0) + 1

    source = broker.from_mqtt(topic, qos=qos).pipe(ops.decode_json(), ops.do_action(receive))
    return source.pipe(counted(topic)) if seen.is_on else source


def counted(key: str) -> Callable[[Any], Any]:
    """Nothing but a count of how often what is upstream is subscribed to."""

    def apply(source: Any) -> Any:
        def subscribe(observer: Any, scheduler: Any = None) -> Any:
            seen.subscribed[key] = seen.subscribed.get(key, 0) + 1
            return source.subscribe(observer, scheduler=scheduler)

        return Observable(subscribe)

    return apply


# -- how it ends -----------------------------------------------------------------------------------


async def stopped(*pairs: Any, at: float, **settings: Any) -> Any:
    """Run, and be told to end as by SIGTERM."""

    def start(running: Any) -> None:
        asyncio.get_running_loop().call_later(at, running.stop, "SIGTERM")

    return await run_async(*pairs, on_start=start, **settings)


async def cancelled(*pairs: Any, at: float, again: float | None = None, **settings: Any) -> Any:
    """Run, and cancel the task, perhaps a second time so much later."""
    task = asyncio.ensure_future(run_async(*pairs, **settings))
    done, _ = await asyncio.wait([task], timeout=at)
    if not done:
        task.cancel()
        if again is not None:
            done, _ = await asyncio.wait([task], timeout=again)
            if not done:
                task.cancel()
    try:
        return await task
    except asyncio.CancelledError:
        return None
