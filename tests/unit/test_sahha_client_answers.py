"""Whatever JSON Sahha answers, a call gives what it promises or raises `ApiError`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from aiohttp import web
from hypothesis import example, given, settings
from hypothesis import strategies as st

from consumer.clients.sahha import SahhaClient
from consumer.errors import ApiError
from consumer.models.sahha import DataLogItem
from consumer.models.sahha_base import SahhaModel
from tests.servers.scripted import Seen, scripted

TOKENS = {
    "/api/v1/oauth/account/token": {"accountToken": "a"},
    "/api/v1/oauth/profile/token": {"profileToken": "p"},
}
LOG = {"id": "1", "logType": "a", "dataType": "b", "startDateTime": "2026-03-15", "endDateTime": "2026-03-15"}

KNOWN = (
    "id type state score value factors dataSources scoreDateTime createdAtUtc createdAt version category valueType"
    " ordinality data name isHigherBetter percentile items currentPage totalPages profileId externalId age birthDate"
    " accountToken profileToken expiresIn refreshToken title message errors origin location statusCode"
)
NAMES = st.sampled_from(KNOWN.split())
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=2**63),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.sampled_from(["\ud800", "2025-01-01", "2025-13-01T99:99", "1e999", "datetime", "integer", "9" * 5000]),
)
ANSWERS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(max_size=5), inner, max_size=6),
    max_leaves=25,
)
STATUSES = st.sampled_from([200, 200, 200, 200, 201, 204, 304, 400, 401, 403, 404, 409, 410, 422])


async def first_profiles(api: SahhaClient) -> list[SahhaModel]:
    found: list[SahhaModel] = []
    async for profile in api.profiles.search():
        found.append(profile)
        if len(found) > 100:
            break
    return found


CALLS: list[Callable[[SahhaClient], Awaitable[Any]]] = [
    lambda api: api.scores("u"),
    lambda api: api.biomarkers("u"),
    lambda api: api.archetypes("u"),
    lambda api: api.trends("u"),
    lambda api: api.comparisons("u"),
    lambda api: api.demographics.get("u"),
    lambda api: api.demographics.put("u", {}),
    lambda api: api.demographics.patch("u", {}),
    lambda api: api.device.get("u"),
    lambda api: api.device.put("u", {}),
    lambda api: api.logs.upload("u", [LOG]),
    lambda api: api.profiles.get("u"),
    lambda api: api.profiles.info("u"),
    lambda api: api.profiles.register("u"),
    lambda api: api.profiles.register_by_app("u"),
    lambda api: api.profiles.refresh("r"),
    lambda api: api.profiles.delete("u"),
    first_profiles,
]
TOKEN_CALLS: list[Callable[[SahhaClient], Awaitable[Any]]] = [
    lambda api: api.account_token(),
    lambda api: api.profiles.token("u"),
    lambda api: api.scores("u"),
    lambda api: api.device.get("u"),
]


class Answer:
    """What a server answers to everything; to requests for tokens too, unless it has some."""

    def __init__(self, tokens: dict[str, Any]) -> None:
        self.tokens = tokens
        self.status = 200
        self.body = b""

    def __call__(self, seen: Seen) -> web.Response:
        token = self.tokens.get(seen.target)
        if token is not None:
            return web.json_response(token)
        return web.Response(status=self.status, body=self.body, content_type="application/json")


async def ask(api: SahhaClient, calls: list[Callable[[SahhaClient], Awaitable[Any]]]) -> None:
    """Make all the calls; what they give is read, printable and can be written as JSON again."""
    for call in calls:
        try:
            answer = await call(api)
        except ApiError:
            continue
        for model in answer if isinstance(answer, list) else [answer]:
            if isinstance(model, SahhaModel):
                assert repr(model) == f"{type(model).__name__}()"
                json.dumps(model.model_dump(mode="json", by_alias=True))


async def opened(stack: AsyncExitStack, tokens: dict[str, Any]) -> tuple[Answer, SahhaClient]:
    answer = Answer(tokens)
    server = await stack.enter_async_context(scripted(answer))
    credentials = {"client_id": "i", "client_secret": "s", "app_id": "i", "app_secret": "s"}
    return answer, await stack.enter_async_context(SahhaClient(base_url=server.url, **credentials))


def test_any_json():
    """Nothing but `ApiError` is raised, whatever the answer and its status."""
    stack = AsyncExitStack()
    with asyncio.Runner() as runner:
        with_tokens = runner.run(opened(stack, TOKENS))
        without = runner.run(opened(stack, {}))

        @given(ANSWERS, STATUSES)
        @example([{"factors": [{"value": "\ud800"}], "unheard": "\ud800"}], 200)
        @example([{"score": 10**400, "createdAtUtc": 10**400}], 200)
        @example({"items": [{}], "currentPage": 1e300, "totalPages": -1}, 200)
        @example({"items": [{"externalId": "\ud800"}], "currentPage": 0.5}, 200)
        @example({"errors": {"a": {"b": []}}, "title": ["x"]}, 400)
        @example({"accountToken": "a.b.c", "profileToken": "e30.bnVsbA.x", "expiresIn": "9" * 5000}, 200)
        @settings(max_examples=30, deadline=None)
        def check(value: Any, status: int):
            for (answer, api), calls in ((with_tokens, CALLS), (without, TOKEN_CALLS)):
                answer.status, answer.body = status, json.dumps(value).encode()
                api.replace_client_secret("s")  # which forgets the tokens of the answer before
                runner.run(ask(api, calls))

        try:
            check()
        finally:
            runner.run(stack.aclose())


@given(st.dictionaries(st.sampled_from(list(LOG)) | NAMES, SCALARS, max_size=8))
@settings(max_examples=50, deadline=None)
def test_any_log(changes: dict[str, Any]):
    """A reading is refused by a `ValueError` (which a model's is) or can be written as JSON."""
    try:
        item = DataLogItem.model_validate({**LOG, **changes})
    except ValueError:
        return
    json.dumps(item.model_dump(mode="json", by_alias=True, exclude_unset=True))
