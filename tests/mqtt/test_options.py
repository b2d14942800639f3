"""What is said of a wrong setting, while composing."""

import inspect
import ssl
from pathlib import Path

import pytest

from rxflow import ConfigError, MqttSink, Will, from_mqtt
from rxflow.mqtt.forgetting import forget, forget_kept
from rxflow.mqtt.options import ConnectionOptions


async def canary_later():
    return "canary"


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
        ({"will": Will("a", retain="no")}, "will.*retain.*no"),
        ({"will": {"topic": "a"}}, "will must be a Will"),
        ({"username": "u", "password": canary_later}, "password.*function"),
        ({"password": lambda: "canary"}, "password.*username"),
        ({"headers": {"X-Token": "canary"}}, "headers.*ws://"),
        ({"key_password": "canary"}, "key_password"),
        ({"key_password": 3}, "key_password.*int"),
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


@pytest.mark.parametrize("kind", [str, Path])
@pytest.mark.parametrize("name", ["ca_file", "cert_file"])
@pytest.mark.parametrize("make", [from_mqtt, MqttSink])
def test_a_file_that_is_missing_is_told_while_composing(make, name, kind):
    arguments = {"topic": "a"} if make is MqttSink else {}
    with pytest.raises(ConfigError, match=r"missing\.pem"):
        make("mqtts://h", *["a"] * (make is from_mqtt), **arguments, **{name: kind("missing.pem")})


@pytest.mark.parametrize("content", [b"", b"no certificate"])
def test_a_file_that_holds_no_certificate_is_told_while_composing(tmp_path, content):
    path = tmp_path / "ca.pem"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"ca\.pem"):
        from_mqtt("mqtts://h", "a", ca_file=path)


def test_a_file_that_is_no_path_is_refused():
    with pytest.raises(ConfigError, match=r"ca_file.*3"):
        from_mqtt("mqtts://h", "a", ca_file=3)


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        ("canary", "mapping.*str"),
        ({"a b": "canary"}, "'a b'"),
        ({3: "canary"}, "3"),
        ({"Host": "canary"}, "'Host'"),
        ({"Sec-WebSocket-Key": "canary"}, "Sec-WebSocket-Key"),
        ({"X": "canary\r\nY: z"}, "'X'"),
        ({"X": "canäry"}, "'X'"),
        ({"X": 3}, "'X'"),
    ],
)
@pytest.mark.parametrize("make", [from_mqtt, MqttSink])
def test_headers_that_can_not_be_sent_are_refused_unseen(make, headers, named):
    arguments = {"topic": "a"} if make is MqttSink else {}
    with pytest.raises(ConfigError, match=f"headers.*{named}") as caught:
        make("ws://h", *["a"] * (make is from_mqtt), **arguments, headers=headers)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"on_connect": "x"}, "on_connect"),
        ({"clean_start": "no"}, "clean_start.*'no'"),
        ({"rejected": "x"}, "rejected"),
        ({"max_pending_bytes": 0}, "max_pending_bytes"),
        ({"max_packet_bytes": 268_435_456}, "max_packet_bytes"),
    ],
)
def test_a_wrong_setting_of_a_source_is_named(settings, named):
    with pytest.raises(ConfigError, match=named):
        from_mqtt("mqtt://h", "a", **settings)


@pytest.mark.parametrize("topic", ["", "a/+", "#", "a\0", "x" * 65_536, 3, None, b"a"])
def test_a_topic_that_nothing_can_be_published_to_is_refused(topic):
    with pytest.raises(ConfigError, match="topic"):
        MqttSink("mqtt://h", topic=topic)


@pytest.mark.parametrize("qos", [-1, 3, "1", 1.0, None])
def test_a_quality_that_mqtt_does_not_have_is_refused(qos):
    with pytest.raises(ConfigError, match="qos"):
        MqttSink("mqtt://h", topic="a", qos=qos)


@pytest.mark.parametrize("function", [from_mqtt, MqttSink, forget, forget_kept])
def test_a_signature_shows_each_option_of_a_connection(function):
    shown = inspect.signature(function).parameters
    assert ConnectionOptions.__annotations__.keys() <= shown.keys()
    assert not [each for each in shown.values() if each.kind is each.VAR_KEYWORD]
    assert shown["version"].default == "auto"
    assert shown["connect_timeout"].default == (10.0 if "forget" in function.__name__ else None)


@pytest.mark.parametrize("function", [from_mqtt, forget, forget_kept])
def test_help_describes_each_option_of_a_connection(function):
    for name in ConnectionOptions.__annotations__:
        assert f"\n        {name}: " in function.__doc__
    assert "**connection" not in function.__doc__


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda **wrong: from_mqtt("mqtt://h", "a", **wrong), "from_mqtt"),
        (lambda **wrong: MqttSink("mqtt://h", topic="a", **wrong), "MqttSink.__init__"),
        (lambda **wrong: forget("mqtt://h", "a", **wrong), "forget"),
    ],
)
def test_an_option_that_is_none_is_refused(make, name):
    with pytest.raises(TypeError) as caught:
        make(keepalive=3)
    assert str(caught.value) == f"{name}() got an unexpected keyword argument 'keepalive'"
