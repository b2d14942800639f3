"""Bad arguments, of every operator, by the table; and what becomes of a function that raises."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime, timedelta

import pytest
import reactivex
from reactivex.scheduler import ImmediateScheduler
from reactivex.subject import Subject
from reactivex.testing import TestScheduler
from streams import Source

from rxflow import operators as ops
from rxflow.errors import ConfigError
from rxflow.message import Message
from rxflow.operators import checking

FREE = {checking.anything}
GOOD = [
    1,
    2.0,
    "name",
    True,
    len,
    reactivex.never(),
    Subject(),
    ImmediateScheduler(),
    timedelta(seconds=1),
]
PARAMETERS = [
    (name, parameter)
    for name, make in ops.OPERATORS.items()
    for parameter in inspect.signature(make).parameters
]


def check_of(name, parameter):
    return ops.OPERATORS[name].checks[parameter]


def is_fine(check, value) -> bool:
    try:
        check("x", value)
    except ConfigError:
        return False
    return True


def called_with(name, parameter, value):
    """The operator with this argument, and good ones elsewhere."""
    args, kwargs = [], {}
    for other in inspect.signature(ops.OPERATORS[name]).parameters.values():
        check = check_of(name, other.name)
        good = next(v for v in GOOD if is_fine(check, v))
        given = value if other.name == parameter else good
        if other.kind is other.KEYWORD_ONLY:
            if other.name == parameter:
                kwargs[other.name] = given
        else:
            args.append(given)
    return ops.OPERATORS[name](*args, **kwargs)


@pytest.mark.parametrize(("name", "parameter"), PARAMETERS)
def test_a_bad_argument_is_refused_at_call_time(name, parameter):
    check = check_of(name, parameter)
    if check in FREE:
        return
    bad = [object(), -1, float("nan")] if not is_fine(check, -1) else [object()]
    for value in bad:
        with pytest.raises(ConfigError, match=rf"\b{parameter} must be"):
            called_with(name, parameter, value)


CALLED = [(n, p) for n, p in PARAMETERS if check_of(n, p) in checking.CALLED]


@pytest.mark.parametrize(("name", "parameter"), CALLED)
def test_a_function_that_raises_over_a_message_fails_the_stream_and_the_error_names_the_topic(
    name, parameter
):
    seen = []

    def broken(*items):
        seen.append(items)
        raise OSError("broken")

    source, errors, clock = Source("home/x"), [], TestScheduler()
    try:
        result = source.pipe(called_with(name, parameter, broken))
    except OSError:
        return  # called while composing
    for stream in result if isinstance(result, list) else [result]:
        if hasattr(stream, "subscribe"):
            stream.subscribe(lambda _: None, errors.append, scheduler=clock)
    for n in (1, 2):
        clock.advance_to(n)
        source.receive(n)
    clock.advance_to(9)
    is_about_a_message = any(isinstance(item, Message) for items in seen for item in items)
    if is_about_a_message:
        assert type(errors[0]) is OSError
        notes = ["rxflow: while dealing with a message of topic home/x"]
        assert errors[0].__notes__ == notes


@pytest.mark.parametrize(
    "make",
    [ops.take_until_with_time, ops.skip_until_with_time, ops.timeout, ops.delay_subscription],
)
def test_a_time_without_its_zone_is_refused_at_call_time(make):
    with pytest.raises(ConfigError, match="time zone"):
        make(datetime(2026, 1, 1))  # noqa: DTZ001 (that is what is wrong with it)
    make(datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("make", [ops.flat_map, ops.flat_map_indexed])
def test_what_is_neither_a_stream_nor_makes_one_is_refused_at_call_time(make):
    for value in (5, object()):
        with pytest.raises(ConfigError, match="mapper"):
            make(value)
    for value in (reactivex.never(), [1, 2], "ab", None, len):
        make(value)
