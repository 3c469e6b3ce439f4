"""The document of a recording: what is hidden in it, and that it reads back."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core import recordings, redacting
from reconciler.core.recordings import Completion, completion_of
from reconciler.core.runs import LogLine, Outcome, Write
from tests.support.recordings import ACTIVATION, recording

KEY = b"k" * 32


def document(**parts):
    return orjson.loads(recordings.encoded(recording(**parts), key=KEY))


def test_a_recording_reads_back_as_it_was():
    made = recording(
        outcome=Outcome.FAILED,
        message="TypeError: no",
        logs=(LogLine("warn", "hm"),),
        writes=(Write("heater", "power", "on", 1, True),),
        state=b'{"count":2}',
    )
    read = recordings.read(orjson.loads(recordings.encoded(made, key=KEY)))
    assert (read.run_id, read.ref, read.revision) == ("run-1", made.ref, "main@sha1:1")
    assert read.activation == ACTIVATION
    assert read.completion == completion_of(made.result)
    assert read.completion == Completion(
        outcome=Outcome.FAILED,
        message="TypeError: no",
        logs=(LogLine("warn", "hm"),),
        writes=(Write("heater", "power", "on", 1, True),),
        state={"count": 2},
    )


def test_replies_that_the_run_was_given_are_part_of_its_activation():
    replies = [{"n": 0, "ok": True, "request": "GET https://a/"}]
    assert document(replies=orjson.dumps(replies))["activation"]["replies"] == replies


@given(
    secret=st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=4, max_size=40),
    before=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=10),
)
def test_a_secret_is_found_wherever_it_stands(secret, before):
    hidden = recordings.encoded(
        recording(
            secrets=frozenset({"token"}),
            activation={
                "env": {"token": secret},
                "event": [before + secret, {before + secret: secret}],
            },
            logs=(LogLine("info", before + secret),),
            message=secret,
        ),
        key=KEY,
    )
    stand_in = redacting.stand_in(secret, KEY)
    read = orjson.loads(hidden)
    assert read["activation"]["env"] == {"token": stand_in}
    # What stands before it may itself hold the secret, or form it together with what follows.
    assert read["message"] == stand_in
    told = [read["activation"]["event"][0], read["completion"]["logs"][0]["text"]]
    assert told == [(before + secret).replace(secret, stand_in)] * 2


@pytest.mark.parametrize("word", ["event", "ReadChange", "level", "Succeeded", "message"])
def test_a_secret_that_is_a_word_of_the_format_leaves_it_legible(word):
    parts = {"secrets": frozenset({"token"}), "logs": (LogLine("info", "hm"),)}
    shown = [
        recordings.read(document(**parts, activation={**ACTIVATION, "env": {"token": it}}))
        for it in (word, "another")
    ]
    assert shown[0].completion == shown[1].completion
    assert shown[0].activation.keys() == shown[1].activation.keys()


def test_one_secret_within_another_is_hidden_as_part_of_the_longer_one():
    env = {"short": "hunter2", "long": "hunter2-and-more"}
    read = document(
        secrets=frozenset(env), activation={"env": env}, message="hunter2-and-more, hunter2"
    )
    long, short = (redacting.stand_in(env[name], KEY) for name in ("long", "short"))
    assert read["message"] == f"{long}, {short}"
    assert read["activation"]["env"] == {"short": short, "long": long}


def test_a_secret_too_short_to_be_told_apart_is_hidden_in_the_environment_only():
    read = document(
        secrets=frozenset({"pin"}),
        activation={"env": {"pin": "12", "low": "12"}},
        message="12 degrees",
    )
    assert read["activation"]["env"] == {"pin": redacting.stand_in("12", KEY), "low": "12"}
    assert read["message"] == "12 degrees"


def test_equal_secrets_have_equal_stand_ins_and_another_key_gives_others():
    assert redacting.stand_in("a", KEY) == recordings.stand_in("a", KEY)
    assert redacting.stand_in("a", KEY) != recordings.stand_in("a", b"o" * 32)
    assert redacting.stand_in("a", KEY) != recordings.stand_in("b", KEY)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"recording": 2}, "it is no recording of format 1", id="a newer format"),
        pytest.param({"recording": None}, "it is no recording", id="something else"),
        pytest.param({"isolation": "None"}, "run-1 is damaged", id="an unknown isolation"),
        pytest.param({"limits": {"writes": "x"}}, "a limit is no number", id="a limit of text"),
        pytest.param({"completion": {"outcome": "Maybe"}}, "damaged", id="an unknown outcome"),
        pytest.param(
            {"completion": {"outcome": "Failed", "writes": [{"value": []}]}},
            "a written value is no scalar",
            id="a write of a list",
        ),
    ],
)
def test_what_is_no_recording_is_refused_in_words(change, words):
    with pytest.raises(ValueError, match=words):
        recordings.read(document() | change)
