"""An operator is declared where it is defined, and nowhere else."""

from __future__ import annotations

import pytest
import reactivex
from reactivex import operators as rx
from streams import Source

from rxflow.errors import ConfigError
from rxflow.operators import checking as check
from rxflow.operators.declaring import Layer, changed_result, changed_source, operator
from rxflow.operators.operator import lifted


@operator(is_single=True, factor=check.whole)
def scaled(factor, mapper=None):
    """An operator of a test's."""

    def subscribe(source, observer, scheduler=None):
        def on_next(item):
            observer.on_next((mapper or (lambda each: each))(item) * factor)

        return source.subscribe(on_next, observer.on_error, scheduler=scheduler)

    return lifted(subscribe)


def test_a_declared_operator_is_labelled_checked_and_known_to_be_single():
    made = scaled(2)
    assert (made.label, made.is_single, made.is_subscribing) == ("scaled(2)", True, False)
    with pytest.raises(ConfigError, match="factor must be a whole number"):
        scaled("2")
    with pytest.raises(TypeError, match=r"scaled\(\): missing a required argument: 'factor'"):
        scaled()
    got = []
    reactivex.of(1, 2).pipe(scaled(3)).subscribe(got.append)
    assert got == [3, 6]


def test_without_its_parentheses_it_says_how_it_is_written():
    with pytest.raises(ConfigError, match=r"write ops\.scaled\(\.\.\.\)"):
        scaled(reactivex.never())


def test_the_error_of_a_function_of_the_users_names_the_topic():
    def broken(_):
        raise OSError("broken")

    source, errors = Source("home/x"), []
    with pytest.raises(OSError, match="broken") as caught:
        source.pipe(scaled(1, broken)).subscribe(lambda _: None, errors.append)
        source.receive(1)
    assert caught.value.__notes__ == ["rxflow: while dealing with a message of topic home/x"]


def test_a_check_of_an_argument_that_is_not_there_is_refused():
    with pytest.raises(TypeError, match="plain takes no argument factor"):

        @operator(factor=check.whole)
        def plain():
            """Never made."""


def test_an_argument_of_which_nothing_is_said_must_be_a_function():
    with pytest.raises(ConfigError, match="mapper must be a function, not 5"):
        scaled(1, 5)


def test_changes_are_applied_by_their_layer_whatever_their_order():
    inner = changed_result(Layer.RESULT, rx.map(lambda n: n + 1))
    outer = changed_result(Layer.END, rx.map(lambda n: n * 10))
    before = changed_source(Layer.COMPARING, rx.map(lambda n: n + 100))
    for changes in [(inner, outer, before), (before, outer, inner), (outer, before, inner)]:
        made = operator(*changes, count=check.at_least_zero)(rx.take)
        got = []
        reactivex.of(1, 2).pipe(made(1)).subscribe(got.append)
        assert got == [1020]


def test_that_to_future_subscribes_at_once_is_a_fact_of_it_and_not_of_its_label():
    subscribing = operator(is_subscribing=True)(rx.as_observable)
    assert subscribing().is_subscribing
