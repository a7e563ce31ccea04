"""The sandbox's invented members, its faults, its secrets and what a registration becomes."""

from __future__ import annotations

import json
from collections import Counter
from datetime import date
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.errors import SettingsError
from consumer.models.thrive import DailySummary, HealthAction, LabResult, NudgeCard, Priority, Program
from consumer.sandbox.clock import SandboxClock
from consumer.sandbox.credentials import Credentials
from consumer.sandbox.faults import FaultRule, Faults, Strike
from consumer.sandbox.members import MOST, Rows
from consumer.sandbox.queue_targets import described
from consumer.sandbox.rotation import Rotation
from consumer.sandbox.streams import ALL, STREAMS, stream_of
from consumer.sandbox.world import World
from consumer.signatures import ThriveSignature

TODAY = date(2026, 5, 20)


def everything(world: World) -> str:
    return json.dumps([[member.profile, *member.labs.all(), *member.days.all(), member.program] for member in world])


def test_the_same_seed_makes_the_same_world_and_another_seed_another():
    one, again, other = (World(seed=seed, members=2, today=TODAY) for seed in (7, 7, 8))
    assert one.members == again.members
    assert everything(one) == everything(again)
    assert not set(one.members) & set(other.members)


def test_more_members_do_not_change_the_first_ones():
    few, many = World(members=2, today=TODAY), World(members=4, today=TODAY)
    assert many.members[:2] == few.members
    assert everything(many).startswith(everything(few)[:-1])


def test_many_members_keep_fewer_resources_each():
    """So that hours of traffic at any rate fill no memory; new members too."""
    world = World(members=60, today=TODAY)
    added = world.add("0b8f2f0e-54a5-4d5c-8a0e-000000000001", {})
    assert {member.labs.most for member in world} == {added.days.most} == {100_000 // 60}
    assert {member.labs.most for member in World(members=2, today=TODAY)} == {MOST}


def test_what_a_member_has_fits_the_models_and_lies_in_the_past_four_weeks():
    for member in World(members=6, today=TODAY):
        for rows, model in (
            (member.labs, LabResult),
            (member.cards, NudgeCard),
            (member.health_actions, HealthAction),
            (member.days, DailySummary),
            (member.priorities, Priority),
        ):
            for row in rows.all():
                model.model_validate(row)
        Program.model_validate(member.program)
        days = [row["date"] for row in member.days.all()]
        assert days == sorted(days)
        assert (days[0], days[-1]) == ("2026-04-22", "2026-05-19")
        assert all(row["sleep_summary"]["end"].startswith(row["date"]) for row in member.days.all())


def test_one_member_in_five_has_no_biological_age_yet():
    assert [member.bio_age is None for member in World(members=5)] == [False, False, False, False, True]


def test_of_a_kind_only_the_newest_are_kept():
    rows = Rows()
    for number in range(MOST + 3):
        rows.put(str(number), {"number": number})
    assert (len(rows), rows.all()[0]["number"]) == (MOST, 3)


def test_waiting_passes_faster_and_can_be_skipped():
    clock = SandboxClock(600)
    assert clock.real(86_400) == 144
    before = clock.elapsed()
    clock.skip(5000)
    assert clock.elapsed() >= before + 5000
    with pytest.raises(ValueError, match="speed"):
        SandboxClock(0)


def test_keys_do_not_show_when_credentials_are_printed():
    made = Credentials.new()
    shown = repr(made)
    for secret in (
        made.tenant_key,
        made.thrive_secret,
        made.sahha.client_secret,
        made.sahha.app_secret,
        made.sahha.webhook_secret,
    ):
        assert secret not in shown


# Faults


def test_a_rule_strikes_only_its_path_and_method_and_only_so_often():
    rule = FaultRule(path="/v1/users", method="GET", error_rate=1, status=503, retry_after=7, times=2)
    faults = Faults([rule])
    assert faults.strike("GET", "/v1/auth/token") == Strike()
    assert faults.strike("POST", "/v1/users") == Strike()
    struck = [faults.strike("GET", "/v1/users/1") for _ in range(3)]
    assert struck == [Strike(0.0, 503, "7"), Strike(0.0, 503, "7"), Strike()]


def test_errors_come_at_the_rate_asked_for_and_mostly_ask_for_patience():
    faults = Faults([FaultRule(error_rate=0.25)], seed=3)
    struck = Counter(faults.strike("GET", "/").status for _ in range(2000))
    assert 400 < 2000 - struck[None] < 600
    assert set(struck) == {None, 429, 500, 503}


def test_429_and_503_come_with_retry_after_and_500_does_not():
    asked = {status: Faults([FaultRule(error_rate=1, status=status)]).strike("GET", "/") for status in (429, 503, 500)}
    assert {status: strike.retry_after for status, strike in asked.items()} == {429: "1", 503: "1", 500: None}


# Secrets


def opens(message: bytes, secret: str) -> bool:
    try:
        ThriveSignature(secrets=[secret]).open(message)
    except Exception:  # noqa: BLE001
        return False
    return True


def test_during_the_overlap_both_secrets_sign_and_after_it_only_the_new_one():
    rotation = Rotation("old-secret", random=Random(1))
    new = rotation.rotate(now=0.0, overlap=100.0)
    signers = Counter(opens(rotation.signature(50.0).sign("{}"), new) for _ in range(50))
    assert signers[True] > 5
    assert signers[False] > 5
    assert rotation.valid(50.0) == [new, "old-secret"]
    assert rotation.valid(100.0) == [new]
    assert all(opens(rotation.signature(101.0).sign("{}"), new) for _ in range(20))


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), max_size=8))
def test_whatever_is_rotated_the_newest_secret_is_valid_and_no_secret_outlives_its_overlap(
    steps: list[tuple[float, float]],
):
    rotation, now, ends = Rotation("first", random=Random(1)), 0.0, {}
    for wait, overlap in steps:
        now += wait
        ends[rotation.current] = now + overlap
        rotation.rotate(now, overlap=overlap)
        valid = rotation.valid(now)
        assert valid[0] == rotation.current
        assert all(ends[secret] > now for secret in valid[1:])


# Registrations


def test_streams_are_known_under_several_names():
    assert [stream_of(stream) for stream in STREAMS] == list(STREAMS)
    assert stream_of("Lab_Results") == "lab-results"
    assert stream_of("nudges") == "coaching-nudges"
    assert stream_of("all") == ALL
    assert stream_of("orders") is None


def test_an_arn_becomes_the_queue_of_that_region_unless_an_endpoint_is_given():
    arn = "arn:aws:sqs:eu-central-1:123456789012:events"
    plain = described("aws_sqs", {"queue_arn": arn})
    assert plain["queue_url"] == "https://sqs.eu-central-1.amazonaws.com/123456789012/events"
    assert plain["region"] == "eu-central-1"
    emulated = described("aws_sqs", {"queue_arn": arn, "endpoint_url": "http://127.0.0.1:5000"})
    assert emulated["queue_url"] == "http://127.0.0.1:5000/123456789012/events"


def test_a_sas_token_reaches_the_storage_account():
    block = {"account_name": "example", "queue_name": "events", "sas_token": "?sv=1&sig=abc"}
    string = described("azure_storage_queue", block)["connection_string"].get_secret_value()
    assert string == "QueueEndpoint=https://example.queue.core.windows.net;SharedAccessSignature=sv=1&sig=abc"


@pytest.mark.parametrize(
    ("kind", "block"),
    [
        ("aws_sqs", {}),
        ("aws_sqs", {"queue_arn": "events"}),
        ("azure_storage_queue", {"queue_name": "events"}),
        ("azure_storage_queue", {"account_name": "example"}),
        ("local", {"path": "relative.db"}),
        ("local", {"path": 7}),
    ],
)
def test_a_registration_that_lacks_something_is_refused_by_the_field_s_name(kind: str, block: dict[str, object]):
    with pytest.raises(SettingsError, match=kind):
        described(kind, block)
