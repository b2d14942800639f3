"""What is said of a wrong setting, while composing."""

import ssl
from pathlib import Path

import pytest
import reactivex

from rxflow import ConfigError, MqttSink, Will, from_mqtt, run


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"keep_alive": 1.5}, "keep_alive.*whole.*1.5"),
        ({"keep_alive": "3"}, "keep_alive.*'3'"),
        ({"keep_alive": 65_536}, "keep_alive.*65,535.*65536"),
        ({"drain_timeout": None}, "drain_timeout.*None"),
        ({"connect_timeout": "1"}, "connect_timeout.*'1'"),
        ({"connect_timeout": float("nan")}, "connect_timeout.*nan"),
        ({"client_id": 3}, "client_id.*3"),
        ({"client_id": "a\0"}, "client_id"),
        ({"client_id": "x" * 65_536}, "client_id"),
        ({"username": 3}, "username.*int"),
        ({"username": "u", "password": b"canary"}, "password.*bytes"),
        ({"will": Will("a/#")}, "will.*topic.*a/#"),
        ({"will": Will("")}, "will.*topic"),
        ({"will": Will("a", qos=3)}, "will.*qos.*3"),
        ({"will": Will("a", payload="text")}, "will.*payload.*text"),
    ],
)
@pytest.mark.parametrize("make", [from_mqtt, MqttSink])
def test_a_wrong_setting_is_named(make, settings, named):
    arguments = ("a",) if make is from_mqtt else ()
    others = {} if make is from_mqtt else {"topic": "a"}
    with pytest.raises(ConfigError, match=named) as caught:
        make("mqtt://h", *arguments, **others, **settings)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("given", [{"tls": True}, {"tls": "ca.pem"}])
def test_a_context_that_is_none_is_refused(given):
    with pytest.raises(ConfigError, match="tls"):
        from_mqtt("mqtts://h", "a", **given)


def test_a_context_for_a_scheme_without_tls_is_refused():
    with pytest.raises(ConfigError, match="mqtts"):
        from_mqtt("mqtt://h", "a", tls=ssl.create_default_context())


def test_a_url_that_is_no_text_is_refused():
    with pytest.raises(ConfigError, match="url"):
        from_mqtt(None, "a")


def test_files_may_be_paths_also_when_they_are_missing():
    source = from_mqtt("mqtts://localhost:1", "a", ca_file=Path("missing.pem"))
    with pytest.raises(ConfigError, match=r"missing\.pem"):
        run(source, reactivex.Observer(), log=False)


@pytest.mark.parametrize("topic", ["", "a/+", "#", "a\0", "x" * 65_536, 3, None, b"a"])
def test_a_topic_that_nothing_can_be_published_to_is_refused(topic):
    with pytest.raises(ConfigError, match="topic"):
        MqttSink("mqtt://h", topic=topic)


@pytest.mark.parametrize("qos", [-1, 3, "1", 1.0, None])
def test_a_quality_that_mqtt_does_not_have_is_refused(qos):
    with pytest.raises(ConfigError, match="qos"):
        MqttSink("mqtt://h", topic="a", qos=qos)
