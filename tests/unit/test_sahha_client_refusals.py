"""What Sahha's client refuses to upload or ask for, and what it makes of Sahha's own refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import stamina
from aiohttp import web

from consumer.clients.http import HttpOptions
from consumer.clients.sahha_logs import batches
from consumer.errors import ApiError, ApiErrorDetail, NotFound
from consumer.models.sahha import DataLogItem
from consumer.outcomes import Unavailable
from tests.servers.scripted import Seen
from tests.unit.sahha_fake import ID, client, sahha, says, silent


@pytest.fixture(autouse=True)
def _no_waits():
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


def log(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"log-{number}",
        "logType": "sleep",
        "dataType": "sleep_stage_deep",
        "value": 47.5,
        "unit": "minute",
        "startDateTime": "2026-03-15T00:02:02.520000+13:00",
        "endDateTime": "2026-03-15T00:49:32.520000+13:00",
        **changes,
    }


class TestLogs:
    """Uploads of readings."""

    async def test_batches_in_order(self):
        logs = [log(number) for number in range(130)]
        steps: list[int] = []
        async with sahha(silent(200)) as fake, client(fake.url) as api:
            assert await api.logs.upload(ID, logs, progress=steps.append) == 130
        bodies = [json.loads(seen.body) for seen in fake.calls]
        assert [len(body) for body in bodies] == [60, 60, 10]
        assert [item for body in bodies for item in body] == logs
        assert steps == [60, 120, 130]
        assert {(seen.method, seen.target) for seen in fake.calls} == {("POST", "/api/v1/profile/data/log")}
        assert fake.calls[0].headers["authorization"] == "profile pro.1"

    async def test_nothing_to_upload_asks_nothing(self):
        async with sahha(silent(200)) as fake, client(fake.url) as api:
            assert await api.logs.upload(ID, []) == 0
        assert fake.server.requests == []

    async def test_models_are_uploaded_with_what_they_were_given(self):
        item = DataLogItem(
            id="1",
            log_type="activity",
            data_type="steps",
            value=9,
            start_date_time=datetime(2026, 3, 15, tzinfo=UTC),
            end_date_time=datetime(2026, 3, 16, tzinfo=UTC),
        )
        async with sahha(silent(200)) as fake, client(fake.url) as api:
            await api.logs.upload(ID, iter([item]))
        assert fake.body == [
            {
                "id": "1",
                "logType": "activity",
                "dataType": "steps",
                "value": 9,
                "startDateTime": "2026-03-15T00:00:00Z",
                "endDateTime": "2026-03-16T00:00:00Z",
            }
        ]

    def test_batches_by_size(self):
        """No batch's JSON is longer than the limit, but for an item that is so on its own."""
        bodies = [{"id": "x" * length} for length in (40, 40, 200, 10, 10, 10)]
        made = list(batches(bodies, max_items=3, max_bytes=120))
        assert [len(batch) for batch in made] == [2, 1, 3]
        assert [body for batch in made for body in batch] == bodies
        assert all(len(json.dumps(batch, separators=(",", ":"))) <= 120 for batch in made if len(batch) > 1)

    @pytest.mark.parametrize(
        ("item", "complaint"),
        [
            (log(1, id=""), "item 1: id: String should have at least 1 character"),
            ({**log(1), "endDateTime": "4711-canary"}, "item 1: endDateTime: Input should be a valid datetime"),
            ({name: value for name, value in log(1).items() if name != "logType"}, "item 1: logType: Field required"),
            (log(1, startDateTime=datetime(2026, 3, 15)), "item 1: startDateTime: .* offset"),  # noqa: DTZ001
            (log(1, additionalProperties={"x": object()}), "item 1: Unable to serialize"),
            (["4711-canary"], "item 1: "),
        ],
    )
    async def test_everything_is_checked_before_anything_is_sent(self, item, complaint):
        async with sahha(silent(200)) as fake, client(fake.url) as api:
            with pytest.raises(ValueError, match=complaint) as caught:
                await api.logs.upload(ID, [log(0), item])
        assert "canary" not in str(caught.value)
        assert fake.server.requests == []

    @pytest.mark.parametrize(("repeat", "attempts"), [(False, 1), (True, 3)])
    async def test_an_upload_is_repeated_only_when_asked_to(self, repeat, attempts):
        async with sahha(silent(503)) as fake, client(fake.url) as api:
            with pytest.raises(Unavailable) as caught:
                await api.logs.upload(ID, [log(0)], repeat=repeat)
        assert len(fake.calls) == attempts
        assert caught.value.why == "POST /api/v1/profile/data/log: HTTP 503"


class TestArguments:
    """What Sahha could not read is refused before anything is sent."""

    @pytest.mark.parametrize(
        ("call", "complaint"),
        [
            (lambda api: api.scores(""), "external_id is empty"),
            (lambda api: api.scores("u", types=["sleep", ""]), "types holds an empty name"),
            (lambda api: api.scores("u", start=datetime(2025, 1, 1)), "startDateTime has no offset"),  # noqa: DTZ001
            (lambda api: api.profiles.delete(), "external_ids: give at least one"),
            (lambda api: api.profiles.delete("u", ""), "external_id is empty"),
            (lambda api: api.profiles.refresh(""), "refresh_token is empty"),
            (lambda api: api.profiles.refresh("r", profile_token="a\r\nb"), "profile_token is not a token"),
            (lambda api: api.demographics.put("u", {"age": "old"}), "age: "),
            (lambda api: api.device.put("", {}), "external_id is empty"),
            (lambda api: api.logs.upload("", []), "external_id is empty"),
        ],
    )
    async def test_refused(self, call, complaint):
        async with sahha(says([])) as fake, client(fake.url) as api:
            with pytest.raises(ValueError, match=complaint):
                await call(api)
        assert fake.server.requests == []

    async def test_a_comma_in_a_name_does_not_become_two_names(self):
        async with sahha(says([])) as fake, client(fake.url, list_style="comma") as api:
            with pytest.raises(ValueError, match="comma"):
                await api.scores("u", types=["a,b"])


class TestRefusals:
    """What Sahha says when it refuses."""

    async def refused(self, answer: Callable[[Seen], web.Response]) -> ApiError:
        async with sahha(answer) as fake, client(fake.url) as api:
            with pytest.raises(ApiError) as caught:
                await api.scores(ID)
        assert str(caught.value).startswith("GET /api/v1/profile/score/{external_id}: ")
        return caught.value

    async def test_the_documented_form(self):
        error = await self.refused(
            says(
                {
                    "title": "Bad request",
                    "statusCode": 400,
                    "location": "request",
                    "errors": [{"origin": "categories", "errors": ["are missing", "are needed"]}, {"origin": 5}, "odd"],
                },
                status=400,
            )
        )
        assert (error.status, error.message) == (400, "Bad request")
        assert error.details == (
            ApiErrorDetail("categories", None, "are missing"),
            ApiErrorDetail("categories", None, "are needed"),
            ApiErrorDetail(None, None, "odd"),
        )

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            (b'{"message": "Internal Error"}', "Internal Error"),
            (b"Bad Request", "Bad Request"),
            (b'"quoted"', "quoted"),
            (b"", None),
            (b"\xff\xfe", "\ufffd\ufffd"),
            (b"[1]", None),
            (b'{"title": 5, "message": ""}', None),
        ],
    )
    async def test_other_forms(self, body, message):
        error = await self.refused(lambda _: web.Response(status=400, body=body))
        assert (error.status, error.message, error.details) == (400, message, ())

    async def test_frameworks_own_form(self):
        error = await self.refused(
            says({"title": "One or more validation errors occurred.", "errors": {"types": ["unknown"]}}, status=400)
        )
        assert error.details == (ApiErrorDetail("types", None, "unknown"),)

    @pytest.mark.parametrize("status", [404, 410])
    async def test_what_is_not_there(self, status):
        error = await self.refused(silent(status))
        assert isinstance(error, NotFound)
        assert error.status == status

    async def test_long_refusals_are_cut(self):
        error = await self.refused(
            says({"title": "x" * 5000, "errors": [{"origin": "o", "errors": ["y"] * 500}]}, status=400)
        )
        assert error.message == "x" * 2000
        assert len(error.details) == 50

    @pytest.mark.parametrize("value", [{"message": "fine"}, "text", 5, [5], [{"score": "high"}], [{"factors": {}}]])
    async def test_an_answer_that_does_not_fit(self, value):
        error = await self.refused(says(value))
        assert (error.status, error.code) == (200, "unreadable_answer")
        assert error.__context__ is None

    async def test_trouble_is_unavailable(self):
        """A 500, which is also what Sahha answers to wrong credentials, pauses whoever asks."""
        async with sahha(silent(500)) as fake, client(fake.url, options=HttpOptions(attempts=2)) as api:
            with pytest.raises(Unavailable) as caught:
                await api.scores(ID)
        assert len(fake.calls) == 2
        assert caught.value.why == "GET /api/v1/profile/score/{external_id}: HTTP 500"
