"""Every argument of every public function and class, and what is said of wrong ones.

The table has a line for each argument: what is wrong for it, or why nothing is. An argument that is
not in the table fails `test_every_argument_is_in_the_table`.
"""

from __future__ import annotations

import functools
import inspect
import re
import ssl
import threading
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import reactivex
from reactivex.scheduler import ImmediateScheduler
from reactivex.subject import Subject

import rxflow
import rxflow.testing
from rxflow import ConfigError, Flow, JsonSink, Will, arguments, log
from rxflow.broker import embedded
from rxflow.mqtt import forgetting
from rxflow.operators import OPERATORS
from rxflow.operators import checking as check
from rxflow.testing import DiagramError, Marbles
from rxflow.testing.broker.diagram import DiagramBroker

CANARY = "canary"
NAN, INF = float("nan"), float("inf")


async def coroutine_function(*_):
    """Nobody would await it."""


async def async_generator_function(*_):
    """Nor iterate over this."""
    yield


def generator_function(*_):
    """Nor over this."""
    yield


class Callable:
    """An object that is called and then to be awaited."""

    async def __call__(self, *_):
        """Nobody would await it."""


class Unspeakable:
    """Its repr raises."""

    def __repr__(self):
        raise LookupError


OBJECT = object()
NEVER = reactivex.never()

# -- what is wrong for a kind of argument ----------------------------------------------------------

TEXT = [None, 5, 1.5, True, b"bytes", ("a",), ["a"], OBJECT, len, Unspeakable()]
NAMED = [*TEXT, ""]
NUMBER = ["8", b"8", True, NAN, INF, -INF, -1, 1j, [1], timedelta(seconds=8), OBJECT, len]
WHOLE = [*NUMBER, 1.5, 2.0, "", Unspeakable()]
NUMBER_OF_SECONDS = [*NUMBER, 1e300, 10**400]
SPAN = [each for each in NUMBER_OF_SECONDS if not isinstance(each, timedelta)]
FLAG = [None, 0, 1, "no", "True", [], OBJECT]
QUALITY = [None, "1", 1.0, True, False, -1, 3, NAN, [1], OBJECT]
FUNCTION = [
    5,
    "len",
    [len],
    OBJECT,
    coroutine_function,
    functools.partial(coroutine_function, 1),
    Callable(),
    async_generator_function,
    generator_function,
]
STREAM_FUNCTION = [each for each in FUNCTION if each is not generator_function]
OBSERVER = [5, "rows.json", print, OBJECT, JsonSink, NEVER, Path("rows.json")]
OBSERVABLE = [5, "topic", len, [NEVER], OBJECT, reactivex.Observable, JsonSink]
SCHEDULER = [5, "now", OBJECT, ImmediateScheduler]
PATH = [None, 5, True, b"a", "", "a\0b", ["a"], OBJECT]
FILE = [*PATH, ".", "..", "/"]
URL = [
    None,
    5,
    b"mqtt://h",
    ("mqtt://h",),
    "",
    "localhost",
    "localhost:1883",
    "mqtt:/h",
    "http://h",
    "tcp://h",
    "mqtt://",
    "mqtt://h:0",
    "mqtt://h:65536",
    "mqtt://h:x",
    "mqtt://h/topic",
    "mqtt://::1",
    "mqtt://h ",
    "mqtt://h?version=4",
    "mqtt://h#x",
    f"mqtt://u:{CANARY}@h:x",
    f"mqtt://u:{CANARY}/@h",
]
TOPIC = [*NAMED, "#", "a/+", "a\0", "\ud800", "x" * 65_536]
FILTERS = [*TEXT, "", "a/#/b", "sport+", "#a", "a#", "$share", "$share/g", "$share//a", "a\0"]
FILTERS += ["x" * 65_536, ("a", 3), ("a", "1"), ("a", True), ("a", 1, 2), (1, "a"), ()]
SECRET = [5, True, CANARY.encode(), [CANARY], OBJECT, f"{CANARY}\ud800", CANARY * 20_000]
WILL = ["a", {"topic": "a"}, b"", OBJECT, Will, Will("a/#"), Will(""), Will(5), Will("a", "text")]
WILL += [Will("a", qos=3), Will("a", qos=True), Will("a", retain="no"), Will("a", b"x" * 65_536)]
DURATION = [None, True, -1, 1.5, 1, "", "ten", "10", "-1s", b"1s", timedelta(seconds=1), OBJECT]
DURATION += [NAN, "1ns", "9999999999h"]


def same(names: Iterable[str] | str, wrong: Any) -> dict[str, Any]:
    """The same for each of these."""
    return dict.fromkeys(names.split() if isinstance(names, str) else names, wrong)


class Free:
    """An argument for which nothing is wrong, or is known yet, and why."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


VALUE = Free("a value of the user's, for the stream or a diagram")
DATA = Free("a record: who takes it checks it")
HOT = Free("made for each message: who publishes or stores it checks it")
OURS = Free("called by rxflow itself, never by a user")
LINE = Free("called by rxflow itself; the log takes any text")
STREAM = Free("an item or an error of the stream")

# -- the table -------------------------------------------------------------------------------------

CONNECTION = {
    "url": URL,
    "username": [each for each in SECRET if each != CANARY * 20_000],
    "password": SECRET,
    "version": ["4", "3", 5, 3.1, b"5", True, "", OBJECT],
    "keep_alive": [*WHOLE, None, 65_536],
    "connect_timeout": NUMBER_OF_SECONDS,
    "will": WILL,
    "tls": [True, "ca.pem", OBJECT, ssl.SSLContext],
    "ca_file": PATH[1:],
    "cert_file": PATH[1:],
    "key_file": PATH[1:],
    "key_password": [5, True, CANARY.encode(), OBJECT],
    "reconnect_timeout": NUMBER_OF_SECONDS,
    "answer_timeout": [*NUMBER_OF_SECONDS, None, 0, 86_401],
    "headers": [5, "a: b", ["a"], {"a b": "c"}, {"Host": "h"}, {"a": 5}, {"a": "\n"}, {5: "a"}],
}
CLIENT_ID = [5, b"a", "", "a\0", "a\n", "x" * 65_536, ["a"], OBJECT]
MQTT = {**CONNECTION, "client_id": CLIENT_ID, "drain_timeout": [*NUMBER_OF_SECONDS, None]}
FILE_SINK = {
    "path": FILE,
    "existing": ["overwrite", "", None, 5, True, b"append", OBJECT],
    "mode": ["600", True, 0o1777, -1, 1.5, NAN, OBJECT],
    "rejected": OBSERVER,
    "default": FUNCTION,
}
SUBSCRIBE = {
    "on_next": [each for each in FUNCTION if not isinstance(each, Callable)] + [JsonSink],
    "on_error": FUNCTION,
    "on_completed": FUNCTION,
    "scheduler": SCHEDULER,
}
RUN = {
    "pipelines": [(), (NEVER,), (NEVER, print), (NEVER, JsonSink), (5, Subject()), ((NEVER,),)],
    "name": [each for each in NAMED if each is not None],
    "seconds": [*NUMBER_OF_SECONDS, 0],
    "drain_timeout": [*NUMBER_OF_SECONDS, None],
    "needs_connection": FLAG,
    "log": FLAG,
    "on_start": FUNCTION,
}
RUN["pipelines"] += [(NEVER, NEVER), ("a", "b", "c"), ([NEVER, Subject()],)]
RUN["pipelines"] += [(Subject(), "rows.json")]
SOURCES = {"sources": [(), *((each,) for each in [None, *OBSERVABLE]), (NEVER, 5)]}
DIAGRAM = [None, 5, True, b"--a", ["a"], OBJECT, "--a--(", "a\u2013b"]

TABLE: dict[str, dict[str, Any]] = {
    "Batch": {"iterable": HOT},
    "Batch.with_payload": {"payload": VALUE},
    "Connected": {"session_present": DATA, "reconnects": DATA},
    "ConnectError": {"text": OURS, "reason_code": OURS},
    "DecodeError": {"text": OURS, "topic": OURS},
    "Flow": {"inner": [None, *OBSERVABLE], "label": TEXT, "operators": [None, "map", ["map"], 5]},
    "Flow.subscribe": SUBSCRIBE,
    "Flow.pipe": {
        "operators": [(each,) for each in (None, 5, "map", NEVER, [len], Subject(), JsonSink)]
        + [(OPERATORS["share"],), (reactivex.operators.map,), (lambda _: 5, OPERATORS["map"](len))]
    },
    "Flow.named": {"made": OURS, "operator": OURS},
    "JsonLinesSink": FILE_SINK,
    "DurableSink": {
        "store": [None, 5, "rows.db", JsonSink, OBJECT],
        "name": [5, b"x", ""],
        "encode": FUNCTION,
        "rejected": OBSERVER,
    },
    "JsonSink": FILE_SINK,
    "Message": same(
        "topic payload qos retain duplicate properties received_at delivery",
        HOT,
    ),
    "Message.with_payload": {"payload": VALUE},
    "Message.with_delivery": {"delivery": OURS},
    "MqttSink": {
        **MQTT,
        "topic": [each for each in [*TOPIC, *FUNCTION[4:]] if each is not len],
        "qos": [*QUALITY, coroutine_function],
        "retain": [*FLAG, coroutine_function],
        "rejected": OBSERVER,
    },
    "MqttSink.drain_within": {"seconds": OURS},
    "Properties": same(rxflow.Properties._fields, DATA),
    "Report": same(inspect.signature(rxflow.Report).parameters, DATA),
    "Will": same(("topic", "payload", "qos", "retain"), DATA),
    "Pipeline": {
        "observable": [None, *OBSERVABLE],
        "sink": [None, 5, "rows.json", print, JsonSink, NEVER],
        "name": NAMED,
    },
    "amb": SOURCES,
    "combine_latest": SOURCES,
    "concat": SOURCES,
    "fork_join": SOURCES,
    "merge": SOURCES,
    "zip": SOURCES,
    "with_latest_from": {
        "source": [None, *OBSERVABLE],
        "others": [(each,) for each in [None, *OBSERVABLE]],
    },
    "from_feed": {
        "make": FUNCTION,
        "label": NAMED,
        "max_pending": [*WHOLE, None, 0, 2**40],
    },
    "Health": same(inspect.signature(rxflow.Health).parameters, DATA),
    "from_mqtt": {
        **MQTT,
        "topics": [(), *((each,) for each in FILTERS), ("a", 5)],
        "qos": QUALITY,
        "clean_start": [0, 1, "no", OBJECT, False],
        "session_expiry": [*WHOLE, None, 2**32],
        "max_filters_per_subscribe": [*WHOLE, 0],
        "max_pending": [*WHOLE, None, 0, 2**40],
        "max_packet_bytes": [*WHOLE, None, 0, 2**40],
        "max_pending_bytes": [*WHOLE, None, 0, 2**60],
        "rejected": OBSERVER,
        "on_connect": FUNCTION,
    },
    "read_rows": {"path": PATH},
    "run": RUN,
    "run_async": RUN,
    "embedded.Broker": {
        "users": [{}, "u", 5, ["u"], {"u": 5}, {5: "p"}, {"u": None}, OBJECT],
        "port": [*WHOLE, None, 65_536],
        "host": [None, 5, b"localhost", "", "0.0.0.0", "example.org", OBJECT],
    },
    "forgetting.forget": {
        **CONNECTION,
        "client_id": [None, *CLIENT_ID],
        "path": FILE[1:],
    },
    "forgetting.forget_kept": {**CONNECTION, "path": FILE},
    "log.PerSecond": {"summary": TEXT, "level": [*NAMED, "LOUD"]},
    "log.PerSecond.add": {"line": LINE, "values": LINE, "count": LINE},
    "log.announce": {"text": LINE, "is_program": LINE, "depth": LINE},
    "log.tell": {"text": LINE, "is_program": LINE, "depth": LINE},
    "log.escaped": {"text": LINE},
    "log.printable": {"text": LINE},
    "testing.Diagram": {"events": OURS, "frame": OURS, "until": OURS},
    "testing.Diagram.difference": {"expected": OURS},
    "testing.Diagram.explain": {"expected": OURS, "sources": OURS, "place": OURS},
    "testing.Outcome": same(inspect.signature(rxflow.testing.Outcome).parameters, DATA),
    "testing.NumberedPublisher": {
        "url": URL,
        "topic": TOPIC,
        "payload": [None, *FUNCTION],
        "first": [*(each for each in WHOLE if each != -1), None],
        "rate": [*NUMBER, None, 0],
        "most": WHOLE,
        "settings": Free("those of MqttSink"),
    },
    "testing.assert_no_loss": {
        "command": [None, 5, "", [], [5], b"x", OBJECT, coroutine_function],
        "path": FILE,
        "url": URL,
        "topic": TOPIC,
        "qos": [*QUALITY, 0],
        "kills": [*WHOLE, None],
        "seconds_between_kills": [None, 5, (1,), (2, 1), (-1, 1), ("a", "b"), (0, NAN), (0, INF)],
        "stop_signal": [None, "SIGKILL", -1, 1.5, OBJECT],
        "rate": [*NUMBER, None, 0],
        "seed": ["a", 1.5, NAN, OBJECT],
        "payload": FUNCTION,
        "number": FUNCTION,
        "read": STREAM_FUNCTION,
        "exactly_once": FLAG,
        "in_order": FLAG,
        "patience": [*NUMBER_OF_SECONDS, None, 0],
        "publisher": Free("those of MqttSink"),
    },
    "testing.Marbles": {"frame": DURATION, "limit": DURATION[1:]},
    "testing.Marbles.hot": {
        "text": DIAGRAM,
        "name": [5, "", b"a", OBJECT],
        "error": [5, "text", OBJECT],
        "values": VALUE,
    },
    "testing.Marbles.cold": {
        "text": DIAGRAM,
        "name": [5, "", b"a", OBJECT],
        "error": [5, "text", OBJECT],
        "values": VALUE,
    },
    "testing.Marbles.at": {"time": DURATION, "function": FUNCTION},
    "testing.Marbles.mqtt": {
        "text": [None, 5, b"t : a", "", "no lane", OBJECT],
        "frame": DURATION[1:],
        "values": VALUE,
    },
    "testing.Marbles.sink": {
        "disk": [None, 5, b"--", "abc", OBJECT],
        "frame": DURATION[1:],
        "rejected": OBSERVER,
    },
    "testing.Marbles.observe": {
        "observable": [None, *OBSERVABLE],
        "subs": [5, b"^", "^^", "abc", OBJECT],
    },
    "testing.Marbles.check": {
        "observable": [None, *OBSERVABLE],
        "expected": [None, 5, b"a", ["a"], OBJECT, "(("],
        "subs": [5, b"^", "^^", "abc", OBJECT],
        "error": [5, "text", OBJECT],
        "values": VALUE,
    },
    "testing.Marbles.run": {"coroutine": [None, 5, len, coroutine_function, NEVER, OBJECT]},
    "testing.Marbles.add": {"part": OURS},
    "testing.Marbles.note": {"text": OURS},
    "testing.Marbles.compared": {"observation": OURS, "expected": OURS},
    "testing.DiagramBroker.from_mqtt": {
        "topics": [(), *((each,) for each in FILTERS)],
        "settings": Free("those of from_mqtt"),
    },
    "testing.DiagramBroker.acknowledged": {"topic": [None, 5, b"t", "unknown", OBJECT]},
    **{
        f"testing.DiagramBroker.{name}": same(names.split(), OURS)
        for name, names in {
            "route": "publication retain",
            "begun": "connect",
            "ended": "connection",
            "grant": "session wish",
            "acknowledge": "publication",
            "note": "publish",
        }.items()
    },
    **{
        f"{sink}.{name}": same(names.split(), STREAM if name[:3] == "on_" else OURS)
        for sink, methods in {
            "JsonSink": "on_next on_error",
            "JsonLinesSink": "on_next on_error",
            "DurableSink": "on_next on_error",
            "MqttSink": "on_next on_error fail reject",
        }.items()
        for name, names in {
            "on_next": "value",
            "on_error": "error",
            "fail": "failure is_told",
            "reject": "message reason",
        }.items()
        if name in methods.split()
    },
}

# Operators have names that mean the same in each.
BY_NAME: dict[str, Any] = {
    **same("default_value initial_value key seed value", VALUE),
    **same(
        "accumulator action closing_mapper comparer condition delay_duration_mapper duration_mapper"
        " element_mapper future_ctor key_mapper left_duration_mapper mapper mapper_indexed "
        "on_completed on_error on_next predicate predicate_indexed right_duration_mapper "
        "subject_factory subject_mapper throttle_duration_mapper timeout_duration_mapper",
        FUNCTION,
    ),
    "project": STREAM_FUNCTION,
    **same("max_concurrent max_payload_bytes step", [*WHOLE, 0]),
    **same("buffer_size count index repeat_count retry_count", WHOLE),
    "skip": WHOLE,
    **same("start stop", [each for each in WHOLE if each != -1]),
    **same("timespan window_duration", [*SPAN, 0]),
    **same("duration timeshift window", SPAN),
    **same(
        "duetime end_time start_time",
        [*SPAN, datetime(2026, 1, 1)],  # noqa: DTZ001 (that is what is wrong with it)
    ),
    **same("args others sources", [(each,) for each in [None, *OBSERVABLE]]),
    **same("boundaries first_timeout openings other right right_source", OBSERVABLE),
    "second": [5, OBJECT, len],
    **same("handler subscription_delay", STREAM_FUNCTION[:-1]),
    "sampler": [*SPAN, 0],
    "scheduler": SCHEDULER,
    "subject": [5, OBJECT, NEVER, JsonSink, Subject],
    "rejected": OBSERVER,
    "prop": NAMED,
    **same("exact_integers has_default inclusive", FLAG[1:]),
}
POSITIVE = [*WHOLE, 0]
OF_OPERATOR: dict[tuple[str, str], Any] = {
    ("buffer_with_count", "count"): POSITIVE,
    ("buffer_with_count", "skip"): POSITIVE,
    ("buffer_with_time_or_count", "count"): POSITIVE,
    ("do", "on_next"): [5, OBJECT, coroutine_function, JsonSink],
    ("expand", "mapper"): STREAM_FUNCTION,
    ("flat_map", "mapper"): [5, OBJECT, coroutine_function, async_generator_function],
    ("flat_map_indexed", "mapper_indexed"): [5, OBJECT, coroutine_function],
    ("flat_map_latest", "mapper"): STREAM_FUNCTION,
    ("start_with", "args"): VALUE,
    ("window_with_count", "count"): POSITIVE,
    ("window_with_count", "skip"): POSITIVE,
    ("window_with_time_or_count", "count"): POSITIVE,
    ("zip_with_iterable", "second"): [5, OBJECT, len, NEVER],
    ("zip_with_list", "second"): [5, OBJECT, len, NEVER],
}


# An argument of a name that no other operator has is wrong by what it is declared to be.
BY_CHECK: dict[Any, Any] = {
    check.anything: VALUE,
    check.at_least_one: POSITIVE,
    check.at_least_zero: WHOLE,
    check.flag: FLAG[1:],
    check.function: FUNCTION,
    check.observable: OBSERVABLE,
    check.observer: OBSERVER,
    check.seconds: [*SPAN, 0],
    check.text: NAMED,
    check.wait: SPAN,
    check.whole: [each for each in WHOLE if each != -1],
}


def of_operator(name: str, parameter: str) -> Any:
    by_name = OF_OPERATOR.get((name, parameter), BY_NAME.get(parameter))
    return by_name or BY_CHECK.get(OPERATORS[name].checks[parameter])


# -- what is right ---------------------------------------------------------------------------------

RIGHT: dict[str, Any] = {
    "url": "mqtt://h",
    "topic": "a",
    "topics": ("a",),
    "path": "rows.json",
    "client_id": "a",
    "inner": NEVER,
    "label": "x",
    "source": NEVER,
    "sources": (NEVER,),
    "others": (NEVER,),
    "pipelines": (NEVER, Subject()),
    "payload": lambda _: b"1",
    "command": ["true"],
    "text": "-a-|",
    "time": "3s",
    "function": len,
    "observable": NEVER,
    "expected": "-a|",
    "summary": "",
    "username": "u",  # a password needs one
}
OF_OPERATORS = {
    **RIGHT,
    **same("timespan duetime window_duration duration count", 1),
    **same("timeshift end_time start_time index skip retry_count", 1),
    **same("start stop step buffer_size repeat_count", 1),
    **same("other second right right_source boundaries openings", NEVER),
    **same("first_timeout sampler", NEVER),
    "scheduler": ImmediateScheduler(),
    "subject": Subject(),
    "prop": "real",
    **same("key seed value initial_value default_value", 1),
    "args": (NEVER,),
}
OF_ITERABLES = {**OF_OPERATORS, "second": [1]}


def called(function: Any, parameter: str, value: Any, rights: dict[str, Any]) -> Any:
    """Call it with this argument, and right ones where it needs them."""
    args: list[Any] = []
    named: dict[str, Any] = {}
    positional = True
    for each in inspect.signature(function).parameters.values():
        is_it = each.name == parameter
        is_needed = each.default is each.empty
        if each.kind is each.VAR_POSITIONAL:
            args += value if is_it else rights.get(each.name, ())
            positional = False
        elif each.kind is each.VAR_KEYWORD:
            continue
        elif is_it or is_needed or (each.name == "username" and parameter == "password"):
            given = value if is_it else rights.get(each.name, len)
            if positional and is_needed and each.kind is not each.KEYWORD_ONLY:
                args.append(given)
            else:
                named[each.name] = given
    return function(*args, **named)


# -- what is public --------------------------------------------------------------------------------


def public() -> Iterator[tuple[str, Any]]:
    """Each public function, class and method that takes something, by its name in the table."""
    yield from members("", rxflow, [*rxflow.__all__, "zip"])
    yield from members("testing.", rxflow.testing, rxflow.testing.__all__)
    yield from methods("testing.DiagramBroker", DiagramBroker)
    yield "embedded.Broker", embedded.Broker
    yield "forgetting.forget", forgetting.forget
    yield "forgetting.forget_kept", forgetting.forget_kept
    yield from members("log.", log, log.__all__)


def members(prefix: str, module: Any, names: list[str]) -> Iterator[tuple[str, Any]]:
    for name in names:
        member = getattr(module, name)
        if callable(member) and takes(member):
            yield f"{prefix}{name}", member
        if inspect.isclass(member):
            yield from methods(f"{prefix}{name}", member)


def methods(prefix: str, kind: type) -> Iterator[tuple[str, Any]]:
    for name, method in inspect.getmembers(kind, inspect.isfunction):
        is_ours = method.__module__.startswith("rxflow")
        is_operator = issubclass(kind, Flow) and name in OPERATORS
        if name[0] != "_" and is_ours and not is_operator and len(takes(method)) > 1:
            yield f"{prefix}.{name}", method


def takes(function: Any) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except ValueError:  # an exception with the arguments of Exception
        return []


PUBLIC = dict(public())
OF_METHODS = {"self"}
CASES = [
    (name, parameter)
    for name, wrongs in TABLE.items()
    for parameter, wrong in wrongs.items()
    if not isinstance(wrong, Free)
]
OPERATOR_CASES = [
    (name, parameter)
    for name, make in OPERATORS.items()
    for parameter in inspect.signature(make).parameters
    if not isinstance(of_operator(name, parameter), Free)
]


def test_every_argument_is_in_the_table():
    missing = [
        f"{name}({parameter})"
        for name, member in PUBLIC.items()
        for parameter in takes(member)
        if parameter not in OF_METHODS and parameter not in TABLE.get(name, {})
    ]
    missing += [
        f"{name}({parameter})"
        for name, make in OPERATORS.items()
        for parameter in inspect.signature(make).parameters
        if of_operator(name, parameter) is None
    ]
    assert not missing


def test_the_table_has_no_argument_that_is_gone():
    gone = [
        f"{name}({parameter})"
        for name, wrongs in TABLE.items()
        for parameter in wrongs
        if parameter not in takes(PUBLIC.get(name, len))
    ]
    gone += [f"{n}({p})" for n, p in OF_OPERATOR if p not in takes(OPERATORS.get(n, len))]
    used = {p for make in OPERATORS.values() for p in inspect.signature(make).parameters}
    assert not gone + sorted(BY_NAME.keys() - used)


@pytest.fixture
def bound(monkeypatch, tmp_path) -> Iterator[Any]:
    """Finds what is called by a name of the table; on an object, where it must be."""
    monkeypatch.chdir(tmp_path)
    marbles = Marbles()

    def find(name: str) -> Any:
        if name.startswith("Flow."):
            return getattr(Flow(NEVER, label="x"), name.removeprefix("Flow."))
        if name.startswith("testing.Marbles."):
            return getattr(marbles, name.removeprefix("testing.Marbles."))
        if name.startswith("testing.DiagramBroker."):
            return getattr(marbles.mqtt("t : a"), name.removeprefix("testing.DiagramBroker."))
        return PUBLIC[name]

    threads = threading.active_count()
    with marbles.active():
        yield find
    marbles._pending.clear()
    assert not list(tmp_path.iterdir()), "it was written before it was refused"
    assert threading.active_count() <= threads, "it began before it was refused"


def problem(function: Any, parameter: str, value: Any, rights: Any) -> str:
    """What is wrong with how a wrong value is refused; empty if nothing is."""
    try:
        made = called(function, parameter, value, rights)
    except ConfigError as error:
        text = str(error)
        is_shown = isinstance(error, DiagramError) and isinstance(value, str)  # it, and where in it
    except Exception as error:  # noqa: BLE001 (it is the finding)
        return f"{type(error).__name__}: {error}"
    else:
        if inspect.iscoroutine(made):
            made.close()
        return "it is taken"
    if CANARY in text:
        return f"a secret is shown: {text}"
    if not is_shown and not re.search(rf"\b{parameter.rstrip('s')}.* must ", text):
        return f"what is right is not said: {text}"
    return "" if text.isprintable() or is_shown else f"it is not one line: {text!r}"


def refusals(function: Any, parameter: str, wrongs: list[Any], rights: Any) -> list[str]:
    """What is wrong with how each wrong value is refused."""
    found = [(value, problem(function, parameter, value, rights)) for value in wrongs]
    return [f"{arguments.shown(value)}: {text}" for value, text in found if text]


@pytest.mark.parametrize(("name", "parameter"), CASES)
def test_a_wrong_argument_is_refused_while_composing(bound, name, parameter):
    rights = {**RIGHT}
    if parameter in {"tls", "ca_file", "cert_file", "key_file", "key_password"}:
        rights["url"] = "mqtts://h"
    if parameter == "headers":
        rights["url"] = "ws://h"
    if name.startswith("testing.Marbles.mqtt"):
        rights["text"] = "t : a"
    if name == "Pipeline":
        rights["sink"] = Subject()
    if parameter == "clean_start":
        rights.pop("client_id")
    found = refusals(bound(name), parameter, TABLE[name][parameter], rights)
    assert not found, "\n".join(found)


@pytest.mark.parametrize(("name", "parameter"), OPERATOR_CASES)
def test_a_wrong_argument_of_an_operator_is_refused_while_composing(name, parameter):
    wrongs = of_operator(name, parameter)
    kind = inspect.signature(OPERATORS[name]).parameters[parameter]
    if parameter in {"args", "others", "sources"} and kind.kind is not kind.VAR_POSITIONAL:
        wrongs = [each[0] if isinstance(each, tuple) else each for each in wrongs]
    method = getattr(Flow(NEVER, label="x"), name)
    for function in (OPERATORS[name], method):
        found = refusals(function, parameter, wrongs, OF_OPERATORS)
        assert not found, "\n".join(found)


@pytest.mark.parametrize("name", OPERATORS)
def test_right_arguments_of_an_operator_are_taken(name):
    is_of_iterable = name in {"zip_with_iterable", "zip_with_list"}
    called(OPERATORS[name], "", None, OF_ITERABLES if is_of_iterable else OF_OPERATORS)


def test_the_reasons_of_free_arguments_are_said():
    frees = [w for wrongs in TABLE.values() for w in wrongs.values() if isinstance(w, Free)]
    assert all(free.reason for free in frees)


def test_a_password_in_a_url_is_never_shown():
    with pytest.raises(ConfigError) as caught:
        rxflow.from_mqtt(f"mqtt://u:{CANARY}@h:1/x", "a")
    assert CANARY not in str(caught.value)


def test_an_operator_without_its_parentheses_is_told_so():
    flow = Flow(NEVER, label="x")
    for name, make in OPERATORS.items():
        with pytest.raises(ConfigError, match=rf"ops\.{name}\("):
            flow.pipe(make)
    with pytest.raises((ConfigError, TypeError), match=r"ops\.map\("):
        NEVER.pipe(OPERATORS["map"])
