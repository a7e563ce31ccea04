"""The invented results of Sahha's: their shape, their ids, and that the same seed makes the same ones."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from consumer.sandbox.sahha_insights import comparisons, trends
from consumer.sandbox.sahha_profiles import ARCHETYPE, BIOMARKER, DATA_LOG, EVENT_TYPES, SCORE, Profiles
from consumer.sandbox.world import World
from consumer.signatures import SahhaSignature
from consumer.testing import synthetic_sahha as synthetic

MAKERS: dict[str, Callable[[Random], dict[str, Any]]] = {
    SCORE: synthetic.score,
    BIOMARKER: synthetic.biomarker,
    ARCHETYPE: synthetic.archetype,
    DATA_LOG: synthetic.data_log,
}
DAY = timedelta(days=1)
NOW = datetime(2026, 3, 16, 8, 0, tzinfo=UTC)


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_every_body_fits_its_type(event_type: str) -> None:
    """What is invented opens under the type it is for, has the fields of identity, and times that can be read."""
    signature, random = SahhaSignature(secrets=["s"]), Random(7)
    for _ in range(100):
        body = MAKERS[event_type](random)
        raw = json.dumps(body).encode()
        headers = signature.sign(raw, external_id=body["externalId"], event_type=event_type)
        opened = signature.open(raw, headers)
        assert opened.signed_at is not None
        assert {"profileId", "accountId", "externalId"} <= set(body)
        for name in {"startDateTime", "endDateTime", "scoreDateTime"} & set(body):
            assert datetime.fromisoformat(body[name]).tzinfo is not None


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_the_same_seed_makes_the_same_bodies(event_type: str) -> None:
    """Byte for byte; another seed makes others."""
    bodies = [json.dumps(MAKERS[event_type](Random(seed))) for seed in (1, 1, 2)]
    assert bodies[0] == bodies[1] != bodies[2]


def test_a_result_computed_again_keeps_its_id() -> None:
    """The id is a UUIDv5 of what the result is about; the value and the time of computing change."""
    random = Random(3)
    who = synthetic.person(random, "member-1")
    day = date(2026, 3, 15)
    first, second = (synthetic.score(random, who, "sleep", day=day, created=NOW + later) for later in (DAY * 0, DAY))
    other = synthetic.score(random, who, "activity", day=day, created=NOW)
    assert first["id"] == second["id"] != other["id"]
    assert first["createdAtUtc"] != second["createdAtUtc"]
    assert uuid.UUID(first["id"]).version == 5
    assert datetime.fromisoformat(first["scoreDateTime"]).date() == day


def test_values_are_what_their_type_says() -> None:
    """A biomarker's value is a text of its value type; an archetype's place in its order is its value's."""
    random = Random(5)
    read: dict[str, Callable[[str], object]] = {"integer": int, "double": float, "datetime": datetime.fromisoformat}
    for kind in synthetic.BIOMARKERS:
        body = synthetic.biomarker(random, kind=kind)
        assert read[kind.value_type](body["value"]) is not None
        assert datetime.fromisoformat(body["startDateTime"]) < datetime.fromisoformat(body["endDateTime"])
    for name, values in synthetic.ARCHETYPES.items():
        body = synthetic.archetype(random, name=name)
        assert body["value"] == values[body["ordinality"]] or body["dataType"] == "categorical"


def test_scores_are_from_0_to_1_or_missing_with_their_state() -> None:
    """Some carry the noise of 32 bits, as real ones do, and a few could not be computed."""
    random = Random(11)
    scores = [synthetic.score(random) for _ in range(300)]
    assert all(0 <= body["score"] <= 1 for body in scores if body["score"] is not None)
    assert all((body["score"] is None) == (body["state"] is None) for body in scores)
    assert any(body["score"] is None for body in scores)
    assert any(len(str(body["score"])) > 10 for body in scores)


def test_data_logs_lie_before_they_were_received() -> None:
    """And none of them ends before it starts."""
    random = Random(13)
    for _ in range(100):
        body = synthetic.data_log(random, received=NOW)
        for log in body["dataLogs"]:
            start, end = (datetime.fromisoformat(log[name]) for name in ("startDateTime", "endDateTime"))
            assert start < end <= NOW


def test_profiles_do_not_depend_on_the_order_of_asking() -> None:
    """Each has chance of its own."""
    one, other = Profiles(World(seed=1, today=NOW.date())), Profiles(World(seed=1, today=NOW.date()))
    ids = one.ids()
    forward = {name: one.find(name) for name in ids}
    backward = {name: other.find(name) for name in reversed(ids)}
    assert forward == backward


def test_insights_follow_from_the_results() -> None:
    """A trend's points are weekly means with their change; a comparison is of the last day."""
    random = Random(17)
    who = synthetic.person(random, "member-1")
    days = [date(2026, 3, 2), date(2026, 3, 3), date(2026, 3, 9)]
    scores = [synthetic.score(random, who, "sleep", day=day, created=NOW) for day in days]
    for body, value in zip(scores, (0.4, 0.6, 0.75), strict=True):
        body["score"] = value
    trend = trends(scores, who.profile_id)[0]
    assert [(point["value"], point["percentChangeFromPrevious"]) for point in trend["data"]] == [
        (0.5, None),
        (0.75, 0.5),
    ]
    assert (trend["state"], trend["isHigherBetter"]) == ("increasing", True)
    comparison = comparisons(scores, [], who.profile_id)[0]
    assert (comparison["value"], comparison["startDateTime"]) == (0.75, scores[2]["scoreDateTime"])
    baseline = comparison["data"][2]
    assert (baseline["type"], baseline["value"], baseline["percentile"]) == ("baseline", 0.5833, None)
    assert baseline["state"] == "high"


def test_nothing_follows_from_no_results() -> None:
    """Nor from a score that could not be computed."""
    random = Random(19)
    body = synthetic.score(random) | {"score": None, "state": None, "factors": []}
    assert trends([body], "p") == comparisons([body], [], "p") == []


def test_the_last_computed_result_is_the_newest() -> None:
    """However fast results follow each other, no two of an id have the same `createdAtUtc`."""
    profiles = Profiles(World(seed=1, today=NOW.date()))
    profile = profiles.draw()
    told = [profiles.score(profile, NOW, "sleep").body for _ in range(50)]
    times = [datetime.fromisoformat(body["createdAtUtc"]) for body in told]
    assert len({body["id"] for body in told}) == 1
    assert all(first < second for first, second in pairwise(times))
    assert profile.scores[told[-1]["id"]] == told[-1]
