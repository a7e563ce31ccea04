"""Thrive's lab results, and the way of a document: an upload URL, the bytes, processing, the result's event.

A document whose file name has `fail` in it becomes a failed result.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from random import Random
from typing import Any, Final, Literal

from aiohttp import web
from pydantic import Field

from consumer.sandbox.answers import Refusal, data, invalid
from consumer.sandbox.members import Member, text_of
from consumer.sandbox.requests import Page, Shape, body_of, found, listed, query_of
from consumer.sandbox.thrive_state import Thrive
from consumer.testing import synthetic

__all__ = ["lab_routes"]

_URL_LIVES: Final = 15 * 60.0
"""Real seconds (`ref/create_upload_...`)."""
_LARGEST: Final = 20 * 1024 * 1024
_MOST_UPLOADS: Final = 1000
_UNTIL_PROCESSING: Final = 60.0
_UNTIL_READY: Final = 240.0
"""Seconds of sandbox time."""
_CHUNK: Final = 64 * 1024


class _LabPage(Page):
    limit: int = Field(25, ge=1, le=200)
    status: str | None = None


class _NewUpload(Shape):
    filename: str = Field(min_length=1, max_length=255)
    content_type: Literal["application/pdf", "image/jpeg", "image/png", "image/webp"]


class _Document(Shape):
    file_url: str = Field(min_length=1, max_length=2000)


@dataclass(slots=True)
class _Upload:
    filename: str
    until: float
    put: bool = False


class _Labs:
    """The handlers."""

    def __init__(self, thrive: Thrive) -> None:
        self._thrive = thrive
        self._clock = thrive.parts.clock
        self._uploads: OrderedDict[str, _Upload] = OrderedDict()
        self._random = thrive.parts.world.draw_anew("uploads")

    async def labs(self, request: web.Request, member: Member) -> web.StreamResponse:
        page = query_of(request, _LabPage)
        rows = [row for row in member.labs.all() if page.status in (None, row["status"])]
        rows.sort(key=lambda row: str(row["created_at"]), reverse=True)
        names = ("lab_result_id", "status", "test_date", "lab_name")
        return listed([{name: row.get(name) for name in names} for row in rows], page)

    async def lab(self, request: web.Request, member: Member) -> web.StreamResponse:
        return data(_shown(found(member.labs.get(request.match_info["lab_result_id"]), "lab result")))

    async def new_upload(self, request: web.Request) -> web.StreamResponse:
        given = await body_of(request, _NewUpload)
        upload_id = self._thrive.new_id()
        self._uploads[upload_id] = _Upload(given.filename, time.monotonic() + _URL_LIVES)
        if len(self._uploads) > _MOST_UPLOADS:
            self._uploads.popitem(last=False)
        place = f"{self._thrive.url}/sandbox/documents/{upload_id}"
        expires = self._clock.now() + timedelta(seconds=_URL_LIVES)
        return data({"upload_url": f"{place}?sig=toy", "file_url": place, "expires_at": text_of(expires)}, status=201)

    async def put(self, request: web.Request) -> web.StreamResponse:
        """What Azure Blob Storage does with a URL that is signed for one PUT."""
        if "authorization" in request.headers or "taih-tenant-key" in request.headers:
            raise Refusal(400, "A credential of the platform's on a request to a storage account")
        upload = self._uploads.get(request.match_info["upload_id"])
        if upload is None or upload.put or upload.until < time.monotonic() or "sig" not in request.query:
            raise Refusal(403, "The URL is not valid, used or expired", code="AuthenticationFailed")
        if request.headers.get("x-ms-blob-type") != "BlockBlob":
            raise Refusal(400, "x-ms-blob-type: expected BlockBlob", code="MissingRequiredHeader")
        size = 0
        async for chunk in request.content.iter_chunked(_CHUNK):
            size += len(chunk)
            if size > _LARGEST:
                raise Refusal(413, "Expected at most 20 MB")
        upload.put = True
        return web.Response(status=201)

    async def process(self, request: web.Request, member: Member) -> web.StreamResponse:
        url = (await body_of(request, _Document)).file_url
        prefix, _, upload_id = url.rpartition("/")
        upload = self._uploads.get(upload_id) if prefix == f"{self._thrive.url}/sandbox/documents" else None
        if upload is None or not upload.put:
            raise invalid("file_url", "no document was uploaded there")
        lab = self._begin(member, upload)
        return data(lab, status=HTTPStatus.ACCEPTED)

    def _begin(self, member: Member, upload: _Upload) -> dict[str, Any]:
        lab_id = self._thrive.new_id()
        row = _empty(lab_id, text_of(self._clock.now()))
        failing = "fail" in upload.filename.lower()

        def processing() -> None:
            row["status"] = "processing"

        def done() -> None:
            row.update({"status": "failed"} if failing else _result(self._random, row))
            if member.user_id in self._thrive.parts.world:
                self._thrive.traffic.lab_result(member, _shown(row))

        self._thrive.later(_UNTIL_PROCESSING, processing)
        job_id = self._thrive.start_job(member, takes=_UNTIL_READY, fails=failing, then=done)
        if failing:
            self._thrive.later(_UNTIL_READY, done)
        member.labs.put(lab_id, row)
        return {"lab_result_id": lab_id, "status": "pending", "workflow_id": job_id}


def _empty(lab_id: str, now: str) -> dict[str, Any]:
    return {
        "lab_result_id": lab_id,
        "status": "pending",
        "test_date": None,
        "lab_name": None,
        "title": None,
        "confidence": None,
        "domains": [],
        "analysis": None,
        "created_at": now,
    }


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """A lab result as the API answers it: only the list is said to know `created_at`, by which it is in order."""
    return {name: value for name, value in row.items() if name != "created_at"}


def _result(random: Random, row: dict[str, Any]) -> dict[str, Any]:
    """The finished result of a row; what of it is documented, under the row's own id."""
    return {**synthetic.lab_result(random), "lab_result_id": row["lab_result_id"], "test_date": row["created_at"][:10]}


def lab_routes(thrive: Thrive) -> list[web.RouteDef]:
    """The routes of labs, uploads, and of the storage account that this sandbox plays too."""
    here, member = _Labs(thrive), thrive.access.member
    user = "/v1/users/{user_id}"
    return [
        web.post("/v1/uploads", thrive.access.bearer(thrive.once.of(here.new_upload))),
        web.put("/sandbox/documents/{upload_id}", here.put),
        web.post(f"{user}/labs/upload", member(thrive.once.of_member(here.process))),
        web.get(f"{user}/labs", member(here.labs)),
        web.get(user + "/labs/{lab_result_id}", member(here.lab)),
    ]
