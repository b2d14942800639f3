"""Sessions that are no longer wanted can be ended."""

import itertools

import pytest
import reactivex
from brokers import Mosquitto
from stopping import stop

from rxflow import ConnectError, JsonSink, MqttSink, from_mqtt, read_rows, run
from rxflow import operators as ops
from rxflow.cli import main
from rxflow.mqtt.address import parse
from rxflow.mqtt.forgetting import forget
from rxflow.mqtt.sessions import ClientIds

USER = PASSWORD = "wiredflow"
LOGIN = {"username": USER, "password": PASSWORD}


def subscribe(broker: Mosquitto, path) -> None:
    run(from_mqtt(broker.url, "a", on_connect=stop, **LOGIN), JsonSink(path))


def send(broker: Mosquitto, *items) -> None:
    run(reactivex.of(*items), MqttSink(broker.url, topic="a", **LOGIN))


def test_a_kept_session_has_what_came_while_it_was_away(mosquitto, tmp_path):
    path = tmp_path / "a.json"
    subscribe(mosquitto, path)
    send(mosquitto, 1, 2)
    run(from_mqtt(mosquitto.url, "a", **LOGIN).pipe(ops.take(2)), JsonSink(path), seconds=60)
    assert list(read_rows(path)) == [1, 2]


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_a_forgotten_session_has_nothing(mosquitto, tmp_path, monkeypatch, capsys, version):
    path = tmp_path / "a.json"
    subscribe(mosquitto, path)
    send(mosquitto, 1, 2)
    monkeypatch.setenv("RXFLOW_USERNAME", USER)
    monkeypatch.setenv("RXFLOW_PASSWORD", PASSWORD)
    assert main(["forget", f"{mosquitto.url}?version={version}", "--output", str(path)]) == 0
    assert capsys.readouterr().out.startswith("forgotten: rxflow-")
    subscribe(mosquitto, path)
    assert list(read_rows(path)) == []


def test_forgetting_where_nothing_is_kept_says_so(tmp_path, capsys):
    assert main(["forget", "mqtt://localhost", "--output", str(tmp_path / "a.json")]) == 1
    assert "no session" in capsys.readouterr().err


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_it_is_said_whether_there_was_a_session(mosquitto, monkeypatch, capsys, version):
    monkeypatch.setenv("RXFLOW_USERNAME", USER)
    monkeypatch.setenv("RXFLOW_PASSWORD", PASSWORD)
    source = from_mqtt(mosquitto.url, "a", client_id="me", on_connect=stop, **LOGIN)
    run(source, reactivex.Observer())
    for said in ("forgotten: me", "the broker had no session of: me"):
        assert main(["forget", f"{mosquitto.url}?version={version}", "--client-id", "me"]) == 0
        assert capsys.readouterr().out == f"{said}\n"


def test_one_session_of_an_output_can_be_forgotten_and_the_others_stay(mosquitto, tmp_path, capsys):
    path = tmp_path / "a.json"
    both = itertools.count(1)

    def when_both_stand(_):
        if next(both) == 2:
            stop()

    source, other = (
        from_mqtt(mosquitto.url, topic, on_connect=when_both_stand, **LOGIN) for topic in "ab"
    )
    run(source.pipe(ops.merge(other)), JsonSink(path))
    ids = ClientIds(tmp_path / "a.json.client")
    first, second = (session.client_id for session in ids.of(parse(mosquitto.url)))
    url = mosquitto.url.replace("mqtt://", f"mqtt://{USER}:{PASSWORD}@")
    assert main(["forget", url, "--client-id", first, "--output", str(path)]) == 0
    assert capsys.readouterr().out == f"forgotten: {first}\n"
    (kept,) = ClientIds(ids.path).of(parse(mosquitto.url))
    assert kept.client_id == second


def test_forgetting_needs_to_know_what(capsys):
    assert main(["forget", "mqtt://localhost"]) == 2
    assert "--client-id, --output, or both" in capsys.readouterr().err


def test_a_refusal_is_one_line(mosquitto, capsys):
    url = mosquitto.url.replace("mqtt://", "mqtt://wrong:canary@")
    assert main(["forget", url, "--client-id", "me"]) == 1
    text = capsys.readouterr().err
    assert "refused" in text
    assert "canary" not in text


def test_forgetting_one_id_needs_a_broker():
    with pytest.raises(ConnectError):
        forget("mqtt://127.0.0.1:1?version=3.1.1", "me", connect_timeout=0.3)


def test_a_session_is_forgotten_over_tls_with_a_certificate_of_ours(
    make_mosquitto, authority, monkeypatch, capsys
):
    broker = make_mosquitto(certificate=authority.server, client_ca=authority.path)
    client = authority.client
    files = {"ca_file": authority.path, "cert_file": client.chain, "key_file": client.key}
    for session in ("me", "you"):
        source = from_mqtt(broker.tls_url, "a", client_id=session, **files, **LOGIN)
        run(source, reactivex.Observer(), seconds=0.3)
    assert forget(broker.tls_url, "me", **files, **LOGIN)
    monkeypatch.setenv("RXFLOW_USERNAME", USER)
    monkeypatch.setenv("RXFLOW_PASSWORD", PASSWORD)
    given = [f"--{name.replace('_', '-')}={path}" for name, path in files.items()]
    assert main(["forget", broker.tls_url, "--client-id", "you", *given]) == 0
    assert capsys.readouterr().out == "forgotten: you\n"


def test_the_command_gives_up_when_it_is_told_to(capsys):
    url = "mqtt://127.0.0.1:1?version=3.1.1"
    assert main(["forget", url, "--client-id", "me", "--connect-timeout", "0.3"]) == 1
    assert "127.0.0.1:1" in capsys.readouterr().err
