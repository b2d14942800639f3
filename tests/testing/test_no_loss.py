"""`assert_no_loss` on pipelines of strangers: what it finds, and what it says."""

import json
import sys
import textwrap

import pytest

from rxflow.testing import assert_no_loss

LOGIN = {"username": "wiredflow", "password": "wiredflow"}

SOUND = """
    import sys
    from rxflow import JsonLinesSink, from_mqtt, run

    source = from_mqtt(sys.argv[1], "n", username="wiredflow", password="wiredflow")
    run(source, JsonLinesSink(sys.argv[2]), log=False)
"""
BY_HAND = """
    import sys, json
    import paho.mqtt.client as paho

    client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="hand", clean_session=False)
    client.username_pw_set("wiredflow", "wiredflow")
    rows = []

    def on_message(client, data, message):
        rows.append(json.loads(message.payload))
        with open(sys.argv[2], "w") as file:  # as tutorials do: the rows of this life only
            json.dump(rows, file)

    client.on_message = on_message
    client.on_connect = lambda *_: client.subscribe("n", 1)
    client.connect("127.0.0.1", int(sys.argv[1].rpartition(":")[2]))
    client.loop_forever()
"""
BROKEN = """
    raise SystemExit("no such thing as a pipeline")
"""
ADDING = """
    import sys
    from reactivex import of
    from rxflow import JsonSink, from_mqtt, run
    from rxflow import operators as ops

    source = from_mqtt(sys.argv[1], "n", username="wiredflow", password="wiredflow")
    twice = source.pipe(ops.flat_map(lambda m: of(m, m, m.with_payload({"x": 1}))))
    run(twice, JsonSink(sys.argv[2]), log=False)
"""


@pytest.fixture
def trial(mosquitto, tmp_path):
    """Run a trial of a program with the broker's URL and a file as its arguments."""

    def run(program, **settings):
        script = tmp_path / "pipeline.py"
        script.write_text(textwrap.dedent(program))
        path = tmp_path / "rows"
        return assert_no_loss(
            lambda: [sys.executable, str(script), mosquitto.url, str(path)],
            path,
            url=mosquitto.url,
            topic="n",
            **{"seed": 1, "rate": 300, "kills": 1, "patience": 15.0, **LOGIN, **settings},
        )

    run.path = tmp_path / "rows"
    return run


def test_a_sound_pipeline_passes_and_is_counted(trial):
    outcome = trial(SOUND)
    assert (outcome.lost, outcome.unexpected, outcome.kills) == ((), (), 1)
    assert outcome.acknowledged == outcome.published == outcome.stored > 0


def test_rows_from_before_are_left_out_of_account(trial):
    trial.path.write_text('{"n": 7}\n{"n": 9}\n')
    outcome = trial(SOUND, kills=0)
    numbers = [json.loads(line)["n"] for line in trial.path.read_text().splitlines()]
    assert numbers[2] >= 10
    assert outcome.unexpected == ()


def test_payload_and_number_may_be_the_users_own(trial):
    outcome = trial(
        SOUND,
        kills=0,
        payload=lambda n: b'["count", "%d"]' % n,
        number=lambda row: int(row[1]),
    )
    assert outcome.stored > 0


def test_a_pipeline_that_loses_is_told_what_it_lost(trial):
    with pytest.raises(AssertionError, match=r"lost [0-9]+ acknowledged message.*client_id"):
        trial(BY_HAND, patience=1.5)


def test_rows_that_nobody_published_and_rows_there_twice_are_named(trial):
    with pytest.raises(AssertionError, match=r"rows? that nobody published: \{'x': 1\}") as caught:
        trial(ADDING, kills=0, exactly_once=True)
    assert "stored twice" in str(caught.value)


def test_a_pipeline_that_ends_by_itself_is_quoted(trial):
    with pytest.raises(AssertionError, match="exit status 1") as caught:
        trial(BROKEN)
    assert "no such thing as a pipeline" in caught.value.__notes__[0]


def test_a_file_that_is_not_valid_is_an_assertion_error(trial):
    trial.path.write_text("[1, 2")
    with pytest.raises(AssertionError, match="not valid"):
        trial(SOUND)
