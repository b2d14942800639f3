"""The client ids that a run keeps beside its output."""

import json

import pytest
import reactivex
from scripted import ScriptedBroker, publish
from serving import serve

from rxflow import JsonSink, SinkError, from_mqtt, run
from rxflow import operators as ops
from rxflow.client_ids import ClientIds


def test_an_id_survives_and_each_key_has_its_own(tmp_path):
    path = tmp_path / "a.client"
    first, other = ClientIds(path).client_id("one"), ClientIds(path).client_id("two")
    assert first.startswith("rxflow-")
    assert first != other
    assert ClientIds(path).client_id("one") == first


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"a": 1}', b'{"a": ""}', b'{"a": "\\u0000"}', b"\xff", b"[" * 100_000],
)
def test_a_file_that_is_not_ours_is_refused_and_left_as_it_is(tmp_path, content):
    path = tmp_path / "a.client"
    path.write_bytes(content)
    with pytest.raises(SinkError, match=r"a\.client"):
        ClientIds(path).client_id("a")
    assert path.read_bytes() == content


def test_a_folder_in_its_place_is_refused(tmp_path):
    with pytest.raises(SinkError, match="can't read"):
        ClientIds(tmp_path).client_id("a")


def test_a_file_that_can_not_be_written_is_refused(tmp_path):
    with pytest.raises(SinkError, match="can't keep"):
        ClientIds(tmp_path / "missing" / "a.client").client_id("a")


def test_a_run_refuses_a_file_of_ids_that_is_not_one_and_stores_nothing(tmp_path):
    (tmp_path / "a.json.client").write_bytes(b"mine")
    source = from_mqtt("mqtt://127.0.0.1:1", "a")
    with pytest.raises(SinkError, match=r"a\.json\.client"):
        run(source, JsonSink(tmp_path / "a.json"), log=False)
    assert (tmp_path / "a.json.client").read_bytes() == b"mine"


def test_a_run_connects_with_the_id_of_the_last_one_and_keeps_no_credentials(tmp_path):
    connects = []

    def script(conversation):
        serve(publish("a"))(conversation)
        connects.append(conversation.connect)

    path = tmp_path / "a.json"
    with ScriptedBroker(script, script, script) as broker:
        url = broker.url.replace("mqtt://", "mqtt://user:canary@")
        for topic in ("a", "a", "#"):
            run(from_mqtt(url, topic).pipe(ops.take(1)), JsonSink(path), log=False)
    kept = json.loads((tmp_path / "a.json.client").read_text())
    assert "canary" not in str(kept)
    assert "user" not in str(kept)
    first, second = kept.values()
    assert [first.encode() in each for each in connects] == [True, True, False]
    assert second.encode() in connects[2]
    assert [each[7] & 2 for each in connects] == [0, 0, 0]  # the session is kept


@pytest.mark.parametrize("settings", [{"qos": 0}, {"clean_start": True}, {"client_id": "mine"}])
def test_no_id_is_kept_where_none_is_needed(tmp_path, settings):
    with ScriptedBroker(serve(publish("a"))) as broker:
        source = from_mqtt(broker.url, "a", **settings).pipe(ops.take(1))
        run(source, JsonSink(tmp_path / "a.json"), log=False)
    assert not (tmp_path / "a.json.client").exists()


def test_a_run_without_a_source_makes_no_file_of_ids(tmp_path):
    run(reactivex.of(1), JsonSink(tmp_path / "a.json"), log=False)
    assert not (tmp_path / "a.json.client").exists()
