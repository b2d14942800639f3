"""Whether another client has the same id, told from the way in which connections end."""

import pytest

from rxflow.mqtt.takeovers import ROUNDS, Takeovers


def closed(takeovers, seconds=1.0, *, has_worked=True, is_closed=True):
    return takeovers.closed(seconds, has_worked=has_worked, is_closed=is_closed)


def a_round(takeovers, seconds=1.0):
    """A connection that is closed, and one at once after it that is accepted and closed too."""
    assert closed(takeovers, seconds)
    takeovers.accepted(session_present=True)
    assert not closed(takeovers, seconds)


def test_one_that_is_accepted_at_once_with_the_session_and_closed_again_is_a_round():
    takeovers = Takeovers()
    for count in range(1, ROUNDS + 1):
        a_round(takeovers)
        takeovers.accepted(session_present=True)
        assert takeovers.rounds == count


def test_a_broker_that_refuses_the_next_connection_restarts():
    takeovers = Takeovers()
    a_round(takeovers)
    assert closed(takeovers)
    takeovers.refused()
    assert takeovers.rounds == 0
    takeovers.accepted(session_present=True)
    assert closed(takeovers)


def test_a_broker_without_the_session_was_not_taken_over():
    takeovers = Takeovers()
    for _ in range(10):
        assert closed(takeovers)
        takeovers.accepted(session_present=False)
        assert not closed(takeovers)
    assert takeovers.rounds == 0


@pytest.mark.parametrize(
    "how", [{"has_worked": False}, {"is_closed": False}, {"seconds": 31.0}], ids=str
)
def test_what_does_not_look_like_a_rival_waits_as_always(how):
    assert not closed(Takeovers(), **how)


def test_rounds_of_years_do_not_add_up():
    takeovers = Takeovers()
    a_round(takeovers)
    takeovers.accepted(session_present=True)
    closed(takeovers, 61.0)
    assert takeovers.rounds == 0


def test_a_broker_that_says_so_is_believed_the_third_time_but_not_over_years():
    takeovers = Takeovers()
    assert [takeovers.said(1), takeovers.said(61), takeovers.said(1), takeovers.said(1)] == [
        False, False, False, True
    ]  # fmt: skip
