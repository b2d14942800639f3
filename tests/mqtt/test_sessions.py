"""The sessions that a run keeps beside its output."""

import json
import shutil
from datetime import UTC, datetime

import pytest
import reactivex
from scripted import ScriptedBroker, publish
from serving import serve

from rxflow import JsonSink, SinkError, from_mqtt, run
from rxflow import operators as ops
from rxflow.log import logger
from rxflow.mqtt.address import parse
from rxflow.mqtt.sessions import ClientIds

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


def claimed(path, *wishes, url="mqtt://h"):
    """The sessions that sources with these filters get when they begin together."""
    ids = ClientIds(path)
    for nth, filters in enumerate(wishes):
        ids.want(nth, parse(url), dict.fromkeys(filters.split(), 1))
    return [ids.claim(nth) for nth in range(len(wishes))]


def stood(path, *wishes, **settings):
    """The same, once their subscriptions stood."""
    sessions = claimed(path, *wishes, **settings)
    for session, filters in zip(sessions, wishes, strict=True):
        session.stands(dict.fromkeys(filters.split(), 1))
    return [session.client_id for session in sessions]


def kept(path):
    return json.loads((path).read_text())["sessions"]


# -- which session a source continues --------------------------------------------------------------


def test_a_session_survives_and_an_id_is_on_the_disk_before_it_is_used(tmp_path):
    path = tmp_path / "a.client"
    (first,) = claimed(path, "one")
    assert first.client_id.startswith("rxflow-")
    assert not first.has_been
    assert kept(path)[0]["client_id"] == first.client_id
    (again,) = claimed(path, "one")
    assert (again.client_id, again.has_been) == (first.client_id, False)
    again.connected(NOON, {}, session_present=False)
    assert claimed(path, "one")[0].has_been


@pytest.mark.parametrize("filters", ["b a", "a", "a b c", "x y z"])
def test_the_filters_of_one_source_may_change_as_they_like(tmp_path, filters):
    path = tmp_path / "a.client"
    assert stood(path, "a b") == stood(path, filters)


@pytest.mark.parametrize("url", ["mqtt://localhost", "mqtt://[::1]", "mqtt://u:p@127.0.0.1"])
def test_however_this_machine_is_written_it_is_one_broker(tmp_path, url):
    path = tmp_path / "a.client"
    assert stood(path, "a", url="mqtt://127.0.0.1") == stood(path, "a", url=url)


@pytest.mark.parametrize("url", ["mqtt://h:1884", "mqtt://other"])
def test_each_broker_has_a_session_of_its_own(tmp_path, url):
    path = tmp_path / "a.client"
    assert stood(path, "a") != stood(path, "a", url=url)
    assert len(kept(path)) == 2


@pytest.mark.parametrize("wishes", [("b", "a"), ("b x", "a"), ("b x y", "a z"), ("c b", "c a")])
def test_sources_that_change_places_keep_their_sessions(tmp_path, wishes):
    path = tmp_path / "a.client"
    a, b = stood(path, "a", "b")
    assert stood(path, *wishes) == [b, a]


def test_a_source_that_is_new_takes_nobodys_session_whichever_comes_first(tmp_path):
    path = tmp_path / "a.client"
    a, b = stood(path, "a", "b")
    new, *old = stood(path, "c", "a", "b")
    assert old == [a, b]
    assert new not in old


def test_one_that_subscribes_again_keeps_the_session_it_has(tmp_path):
    ids = ClientIds(tmp_path / "a.client")
    for nth in (1, 2):
        ids.want(nth, parse("mqtt://h"), {"a": 1})
    first = ids.claim(1)
    ids.want(1, parse("mqtt://h"), {"a": 1})
    assert ids.claim(1) is first is not ids.claim(2)


def test_an_id_that_the_user_chose_is_his_and_is_written_down_too(tmp_path):
    ids = ClientIds(tmp_path / "a.client")
    ids.want(1, parse("mqtt://h"), {"a": 1}, "mine")
    ids.want(2, parse("mqtt://h"), {"a": 1})
    assert ids.claim(1).client_id == "mine"
    assert ids.claim(2).client_id.startswith("rxflow-")
    (again,) = claimed(ids.path, "a")
    assert again.client_id == ids.claim(2).client_id


def test_what_no_source_uses_is_told_once(tmp_path):
    path = tmp_path / "a.client"
    for session in claimed(path, "a", "b"):
        session.connected(NOON, {}, session_present=False)
    b = session.client_id
    ids = ClientIds(path)
    ids.want(1, parse("mqtt://h"), {"a": 1})
    ids.claim(1)
    assert [session.client_id for session in ids.unused()] == [b]
    assert ids.unused() == []


# -- what is written down --------------------------------------------------------------------------


def test_filters_and_the_last_connection_are_written_down(tmp_path):
    path = tmp_path / "a.client"
    (session,) = claimed(path, "a b")
    session.connected(NOON, {"a": 1, "b": 2}, session_present=False)
    session.stands({"a": 1})
    assert kept(path) == [
        {
            "client_id": session.client_id,
            "broker": "mqtt://h:1883",
            "given": False,
            "subscribed": {"a": 1},
            "asked": {"b": 2},
            "last_connected": "2026-11-28T12:00:00+00:00",
        }
    ]
    assert ClientIds(path).last_connected(session.client_id, parse("mqtt://h")) == NOON
    session.dropped(["a", "b"])
    assert (session.filters, session.last_connected) == ([], NOON)


def test_a_session_that_was_lost_from_sight_is_trusted_in_nothing(tmp_path):
    path = tmp_path / "a.client"
    (session,) = claimed(path, "a")
    session.connected(NOON, {"a": 1}, session_present=False)
    session.stands({"a": 1})
    session.seen(NOON)
    assert [kept(path)[0][key] for key in ("subscribed", "asked")] == [{"a": 1}, {}]
    session.seen(NOON, is_lost=True)
    assert [kept(path)[0][key] for key in ("subscribed", "asked")] == [{}, {"a": 1}]
    session.connected(NOON, {}, session_present=True)
    assert kept(path)[0]["subscribed"] == {"a": 1}
    claimed(path, "a")  # by another process, which may die before CONNACK
    assert [kept(path)[0][key] for key in ("subscribed", "asked")] == [{}, {"a": 1}]


def test_a_file_that_can_not_be_written_any_more_is_a_warning(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (session,) = claimed(folder / "a.client", "a")
    shutil.rmtree(folder)
    lines = []
    number = logger.add(lines.append, format="{message}")
    logger.enable("rxflow")
    session.seen(NOON)
    logger.disable("rxflow")
    logger.remove(number)
    assert "can't keep the client ids" in lines[0]


def test_a_session_that_the_broker_forgot_has_no_filters(tmp_path):
    (session,) = claimed(tmp_path / "a.client", "a")
    session.stands({"a": 1, "b": 1})
    session.connected(NOON, {"c": 1}, session_present=False)
    assert session.filters == ["c"]


def test_a_file_of_the_first_form_is_taken_over(tmp_path):
    path = tmp_path / "a.client"
    old = {
        "mqtt://127.0.0.1:1883 (('b', 2),)": "rxflow-b",
        "mqtt://127.0.0.1:1883 (('a', 1), ('c/#', 0))": "rxflow-a",
        "ws://h:80/mqtt (('a', 1),)": "rxflow-w",
    }
    path.write_text(json.dumps(old))
    a, b = claimed(path, "c/# x", "b", url="mqtt://localhost")
    assert (a.client_id, b.client_id) == ("rxflow-a", "rxflow-b")
    assert (set(a.filters), a.subscribed) == ({"a", "c/#", "x"}, {})
    assert claimed(path, "a", url="ws://h")[0].client_id == "rxflow-w"


# -- files that are not ours -----------------------------------------------------------------------


def row(**wrong):
    right = {"client_id": "a", "broker": "mqtt://h", "given": False, "subscribed": {}, "asked": {}}
    return json.dumps({"sessions": [right | {"last_connected": None} | wrong]}).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b'{"a": 1}', b'{"mqtt://h ()": ""}', b'{"mqtt://h ()": "\\u0000"}',
        b'{"a": "rxflow-1"}', b"\xff", b"[" * 100_000, b'{"sessions": [{}]}', b'{"sessions": [1]}',
        row(broker="h"), row(subscribed={"a": 3}), row(subscribed=[]), row(asked={"a": "1"}),
        row(last_connected="2026-11-28T12:00:00"), row(last_connected="noon"), row(client_id=1),
    ],
)  # fmt: skip
def test_a_file_that_is_not_ours_is_refused_and_left_as_it_is(tmp_path, content):
    path = tmp_path / "a.client"
    path.write_bytes(content)
    with pytest.raises(SinkError, match=r"a\.client"):
        claimed(path, "a")
    assert path.read_bytes() == content


def test_a_folder_in_its_place_is_refused(tmp_path):
    with pytest.raises(SinkError, match="can't read"):
        claimed(tmp_path, "a")


def test_a_file_that_can_not_be_written_is_refused(tmp_path):
    with pytest.raises(SinkError, match="can't keep"):
        claimed(tmp_path / "missing" / "a.client", "a")


def test_a_run_refuses_a_file_of_ids_that_is_not_one_and_stores_nothing(tmp_path):
    (tmp_path / "a.json.client").write_bytes(b"mine")
    source = from_mqtt("mqtt://127.0.0.1:1", "a")
    with pytest.raises(SinkError, match=r"a\.json\.client"):
        run(source, JsonSink(tmp_path / "a.json"), log=False)
    assert (tmp_path / "a.json.client").read_bytes() == b"mine"


# -- in a run --------------------------------------------------------------------------------------


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
    (session,) = kept(tmp_path / "a.json.client")
    assert "canary" not in str(session)
    assert "user" not in str(session)
    assert all(session["client_id"].encode() in each for each in connects)
    assert [each[7] & 2 for each in connects] == [0, 0, 0]  # the session is kept
    assert session["subscribed"] == {"#": 1}


@pytest.mark.parametrize("settings", [{"qos": 0}, {"clean_start": True}])
def test_no_session_is_written_down_where_none_is_kept(tmp_path, settings):
    with ScriptedBroker(serve(publish("a"))) as broker:
        source = from_mqtt(broker.url, "a", **settings).pipe(ops.take(1))
        run(source, JsonSink(tmp_path / "a.json"), log=False)
    assert not (tmp_path / "a.json.client").exists()


def test_a_run_without_a_source_makes_no_file_of_ids(tmp_path):
    run(reactivex.of(1), JsonSink(tmp_path / "a.json"), log=False)
    assert not (tmp_path / "a.json.client").exists()
