"""Topics and topic filters."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from paho.mqtt.client import topic_matches_sub

from rxflow.errors import ConfigError
from rxflow.mqtt.topics import check_filter, check_topic, is_shared, matcher, overlap

WORD = st.text(st.sampled_from("ab$.*é\n"), max_size=3)
TOPIC = st.lists(WORD, min_size=1, max_size=4).map("/".join).filter(bool)
LEVELS = st.lists(WORD | st.just("+"), min_size=1, max_size=4)
FILTER = st.builds(
    lambda levels, is_open: "/".join([*levels, "#"] if is_open else levels), LEVELS, st.booleans()
).filter(bool)


@pytest.mark.parametrize(
    "valid",
    ["a", "/", "/a", "a/", "a//b", "+", "#", "+/+", "a/+/b", "a/#", "$SYS/#", "é/ü", " "],
)
def test_a_valid_filter_is_accepted_plain_and_shared(valid):
    check_filter(valid)
    check_filter(f"$share/group/{valid}")


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("", "empty"),
        ("a/#/b", "last"),
        ("##", "last"),
        ("a#", "stand alone"),
        ("a+/b", "stand alone"),
        ("a/+b", "stand alone"),
        ("++", "stand alone"),
        ("a\0b", r"U\+0000"),
        ("a\ud800", "surrogate"),
        ("$share", "name of a group"),
        ("$share/", "name of a group"),
        ("$share//a", "name of a group"),
        ("$share/g+/a", "name of a group"),
        ("$share/#/a", "name of a group"),
        ("$share/g", "comes a topic filter"),
        ("$share/g/", "comes a topic filter"),
        ("$share/g/a/#/b", "last"),
    ],
)
def test_a_malformed_filter_is_refused_with_its_reason(wrong, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        check_filter(wrong)
    assert repr(wrong) in str(caught.value)


def test_a_filter_may_have_65535_bytes_and_no_more():
    check_filter("é" * 32_767 + "a")
    with pytest.raises(ConfigError, match="65,536 bytes") as caught:
        check_filter("é" * 32_768)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("topic", ["a", "/demo/integers", "$SYS/x", "\ufeffa", "é/ü", " "])
def test_a_topic_from_the_network_is_decoded(topic):
    assert check_topic(topic.encode()) == topic


@pytest.mark.parametrize(
    "topic", [b"", b"a/+", b"#", b"a\0", b"\xff", b"\xed\xa0\x80", b"\xc0\x80"]
)
def test_a_topic_that_no_broker_may_send_is_refused(topic):
    with pytest.raises(ValueError, match=r"topic|decode"):
        check_topic(topic)


@given(FILTER, TOPIC)
@example("#", "$SYS/x")
@example("+/x", "$SYS/x")
@example("a/#", "a")
@example("+", "")
@example("a/+", "a/\n")
def test_a_matcher_agrees_with_paho(filter, topic):
    assert matcher([filter])(topic) == topic_matches_sub(filter, topic)


@given(st.lists(FILTER, max_size=5), TOPIC)
def test_a_matcher_of_many_matches_what_any_of_them_matches(filters, topic):
    assert matcher(filters)(topic) == any(topic_matches_sub(f, topic) for f in filters)


@given(FILTER, TOPIC)
def test_a_shared_filter_matches_as_the_filter_in_it(filter, topic):
    assert matcher([f"$share/group/{filter}"])(topic) == matcher([filter])(topic)


@given(FILTER, TOPIC)
def test_a_queue_matches_as_the_filter_in_it(filter, topic):
    check_filter(f"$queue/{filter}")
    assert matcher([f"$queue/{filter}"])(topic) == matcher([filter])(topic)


def test_a_queue_of_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"after \$queue/"):
        check_filter("$queue/")
    check_filter("$queue")


@pytest.mark.parametrize(
    ("filter", "shared"),
    [
        ("$share/g/a", True),
        ("$queue/a", True),
        ("a", False),
        ("$queued/a", False),
        ("$queue", False),
    ],
)
def test_a_shared_subscription_is_known_by_its_beginning(filter, shared):
    assert is_shared(filter) is shared


@pytest.mark.parametrize(
    ("one", "other", "may"),
    [
        ("a/#", "a/+", True),
        ("a/#", "a", True),
        ("a/+", "a", False),
        ("a/+/c", "a/b/+", True),
        ("a/+/c", "a/b/d", False),
        ("+/b", "a/#", True),
        ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
        ("$share/g/a/#", "$queue/a/b", True),
        ("a", "b", False),
    ],
)
def test_two_filters_overlap_if_a_topic_may_match_both(one, other, may):
    assert overlap(one, other) is overlap(other, one) is may


@given(FILTER, FILTER, TOPIC)
def test_filters_that_match_one_topic_overlap(one, other, topic):
    if matcher([one])(topic) and matcher([other])(topic):
        assert overlap(one, other)


@given(TOPIC)
def test_every_topic_is_a_filter_that_matches_itself(topic):
    check_filter(topic)
    assert matcher([topic])(topic)
