"""The URL of a broker."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxflow.errors import ConfigError
from rxflow.mqtt.address import Address, Secret, parse

CANARY = "c4nary"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mqtt://h", Address("mqtt", "h", 1883)),
        ("mqtts://h", Address("mqtts", "h", 8883)),
        ("ws://h", Address("ws", "h", 80, "/mqtt")),
        ("wss://h", Address("wss", "h", 443, "/mqtt")),
        ("ws://h/", Address("ws", "h", 80, "/")),
        ("ws://h:81//p", Address("ws", "h", 81, "//p")),
        ("ws://h?token=x&b", Address("ws", "h", 80, "/mqtt", query=Secret("token=x&b"))),
        (
            "wss://h/p?a=1&version=5&b=%40",
            Address("wss", "h", 443, "/p", "5", query=Secret("a=1&b=%40")),
        ),
        ("ws://h/a/b%20c", Address("ws", "h", 80, "/a/b%20c")),
        ("mqtt://h/", Address("mqtt", "h", 1883)),
        ("MQTT://Host.Example:1", Address("mqtt", "host.example", 1)),
        ("mqtt://my_host:65535", Address("mqtt", "my_host", 65_535)),
        ("mqtt://[::1]", Address("mqtt", "::1", 1883)),
        ("mqtt://[fe80::1%25eth0]:7", Address("mqtt", "fe80::1%eth0", 7)),
        ("mqtt://bücher.example", Address("mqtt", "bücher.example", 1883)),
        ("mqtt://h?version=5", Address("mqtt", "h", 1883, version="5")),
        ("ws://h/p?version=3.1.1", Address("ws", "h", 80, "/p", "3.1.1")),
    ],
)
def test_a_url_is_taken_apart(url, expected):
    assert parse(url) == expected


@pytest.mark.parametrize(
    ("credentials", "username", "password"),
    [
        ("", None, None),
        ("u@", "u", None),
        ("u:@", "u", ""),
        (":p@", "", "p"),
        ("u:p@", "u", "p"),
        ("u:p:q@", "u", "p:q"),
        ("a%40b:p%2Fq%3A@", "a@b", "p/q:"),
        ("u:p+q@", "u", "p+q"),
        ("u:p@q@", "u", "p@q"),
    ],
)
def test_credentials_in_the_url_are_decoded(credentials, username, password):
    address = parse(f"mqtt://{credentials}h")
    assert address.host == "h"
    assert address.username == username
    assert address.password == (None if password is None else Secret(password))


def test_arguments_win_over_the_url():
    address = parse("mqtt://u:p@h", username="me", password="mine")
    assert (address.username, address.password) == ("me", Secret("mine"))


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "expected scheme://host"),
        ("h:1883", "expected scheme://host"),
        ("mqtt://h a", "white space"),
        ("mqtt://h\n", "white space"),
        ("tcp://h", "unknown scheme 'tcp'"),
        ("http://h", "unknown scheme 'http'"),
        ("mqtt://", "host is missing"),
        ("mqtt://:1883", "host is missing"),
        ("mqtt://u:p@", "host is missing"),
        ("mqtt://h:", "'' is not a port"),
        ("mqtt://h:0", "'0' is not a port"),
        ("mqtt://h:65536", "'65536' is not a port"),
        ("mqtt://h:-1", "'-1' is not a port"),
        ("mqtt://h:٣", "is not a port"),
        ("mqtt://h:1e3", "'1e3' is not a port"),
        ("mqtt://::1", "brackets"),
        ("mqtt://[::1", "brackets"),
        ("mqtt://[h]", r"\[h\] is not an IPv6 address"),
        ("mqtt://[::1]x", "brackets"),
        ("mqtt://a..b", "'a..b' is not a host name"),
        ("mqtt://a,b", "'a,b' is not a host name"),
        ("mqtt://h/topic", "topics are arguments"),
        ("mqtt://h#f", "no '#'"),
        ("mqtt://h?", "the only option is version"),
        ("mqtt://h?qos=1", "got 'qos'"),
        ("mqtt://h?version=4", "not '4'"),
        ("mqtt://h?version=5&version=5", "once"),
        ("mqtt://%ff@h", "UTF-8"),
        ("mqtt+unix://h/run/x", "absolute path"),
        ("mqtt+unix://", "absolute path"),
        ("mqtt+unix:///", "absolute path"),
        ("mqtt+unix:///%ff", "UTF-8"),
        ("mqtt+unix:///a%00b", "at most 103 bytes"),
        (f"mqtt+unix:///{'x' * 103}", "at most 103 bytes"),
        ("mqtt+unix:///a@b", "'@' after the host"),
    ],
)
def test_a_wrong_url_is_refused_with_its_reason(url, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        parse(url)
    assert str(caught.value).startswith("url must name a broker: ")


@pytest.mark.parametrize(
    "url",
    [
        f"tcp://u:{CANARY}@h",
        f"mqtt://u:{CANARY}@h:x",
        f"mqtt://u:{CANARY}@",
        f"mqtt://u:{CANARY}@h/topic",
        f"mqtt://u:{CANARY}@h?qos=1",
        f"mqtt://u:{CANARY}@[x]",
        f"mqtt://u:{CANARY}@a..b",
        f"mqtt://u:{CANARY}/x@h",
        f"mqtt://u:x/{CANARY}@h",
        f"mqtt://u:x?{CANARY}@h",
        f"mqtt://u:x#{CANARY}@h",
        f"mqtt://u:x@{CANARY}/y@h",
        f"ws://u:x@{CANARY}/y@h",
        f"mqtt://u:%ff{CANARY}@h",
        f"mqtt://{CANARY}%ff@h",
        f"u:{CANARY}@h",
        f"mqtt://u:{CANARY} @h",
        f"mqtt://h?password={CANARY}",
        f"mqtt://h?version=5&{CANARY}-x@y",
    ],
)
def test_no_error_shows_a_credential(url):
    with pytest.raises(ConfigError) as caught:
        parse(url)
    assert CANARY not in "".join(traceback.format_exception_only(caught.value))
    causes = (caught.value.__cause__, caught.value.__context__)
    assert all(CANARY not in repr(cause) for cause in causes)


@pytest.mark.parametrize(
    ("username", "password", "name"),
    [
        (None, CANARY, "password"),
        ("u\0", None, "username"),
        ("u" * 65_536, None, "username"),
        ("u", CANARY * 20_000, "password"),
        ("u", f"{CANARY}\ud800", "password"),
    ],
)
def test_credentials_that_mqtt_cannot_carry_are_refused_unseen(username, password, name):
    with pytest.raises(ConfigError, match=f"^{name} must ") as caught:
        parse("mqtt://h", username, password)
    assert CANARY not in str(caught.value)


def test_no_representation_shows_a_credential():
    address = parse(f"wss://{CANARY}:{CANARY}@h?{CANARY}")
    shown = (repr(address), str(address), f"{address}", f"{address.password}")
    shown += (str(dataclasses.asdict(address) | {"username": ""}), repr(address.password))
    assert CANARY not in "".join(shown)
    assert address.password is not None
    assert address.password.reveal() == CANARY


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("mqtt://h", "mqtt://h:1883"),
        ("mqtts://u:p@h", "mqtts://***@h:8883"),
        ("mqtt://[::1]:1", "mqtt://[::1]:1"),
        ("wss://h/p?version=5", "wss://h:443/p"),
        (f"wss://h/p?token={CANARY}", "wss://h:443/p"),
    ],
)
def test_an_address_prints_as_a_url_that_parses_again(url, shown):
    assert str(parse(url)) == shown
    assert parse(shown).host == parse(url).host


def test_what_a_websocket_asks_for_is_path_and_query():
    assert parse("ws://h/p?version=5").target == "/p"
    assert parse("ws://h?version=5&t=1&u").target == "/mqtt?t=1&u"


def test_the_name_of_a_certificate_has_no_final_dot():
    assert [parse(f"mqtts://{h}").tls_name for h in ("a.b.", "a.b", "[::1]")] == [
        "a.b",
        "a.b",
        "::1",
    ]


def test_a_function_for_a_password_is_asked_each_time_and_never_shown():
    tokens = iter([CANARY, "other"])
    address = parse("mqtt://u@h", password=lambda: next(tokens))
    assert address.password is not None
    assert [address.password.reveal(), address.password.reveal()] == [CANARY, "other"]
    assert "***" in repr(address.password)


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("a.localhost", True),
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("[::1]", True),
        ("[::ffff:127.0.0.1]", True),
        ("[::ffff:10.0.0.1]", False),
        ("192.0.2.1", False),
        ("localhost.example", False),
        ("notlocalhost", False),
    ],
)
def test_loopback_is_told_from_the_network(host, is_loopback):
    assert parse(f"mqtt://{host}").is_loopback is is_loopback


@pytest.mark.parametrize(
    ("scheme", "is_tls", "is_websocket"),
    [
        ("mqtt", False, False),
        ("mqtts", True, False),
        ("ws", False, True),
        ("wss", True, True),
    ],
)
def test_a_scheme_says_how_the_bytes_travel(scheme, is_tls, is_websocket):
    address = parse(f"{scheme}://h")
    assert (address.is_tls, address.is_websocket) == (is_tls, is_websocket)


def test_a_unix_socket_is_a_path_on_this_machine():
    address = parse("mqtt+unix://u:p@/run/a%20b%40c/mqtt.sock?version=5")
    assert (address.host, address.port, address.path) == ("/run/a b@c/mqtt.sock", 0, "")
    assert (address.username, address.version) == ("u", "5")
    assert (address.is_unix, address.is_loopback) == (True, True)
    assert (address.is_tls, address.is_websocket, parse("mqtt://h").is_unix) == (False,) * 3
    assert str(address) == "mqtt+unix://***@/run/a%20b%40c/mqtt.sock"
    assert parse("mqtt+unix:///run/m.sock") == parse(str(parse("mqtt+unix:///run/m.sock")))


def test_an_address_is_read_only_and_a_value():
    address = parse("mqtt://u:p@h")
    with pytest.raises(dataclasses.FrozenInstanceError):
        address.port = 1  # type: ignore[misc]
    twin = pickle.loads(pickle.dumps(copy.deepcopy(address)))
    assert (twin, hash(twin)) == (address, hash(address))
    assert Secret("p") != "p"


@given(st.text())
def test_any_text_is_a_url_or_a_config_error(text):
    for url in (text, f"mqtt://{text}", f"ws://h{text}", f"mqtt+unix:///{text}"):
        try:
            assert parse(url).host
        except ConfigError:
            continue
