"""Lab results: reading them, and handing in documents to be read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from consumer.clients.thrive_calls import ThriveCalls
from consumer.clients.urls import require_secure
from consumer.errors import ApiError
from consumer.models.thrive import LabResult
from consumer.models.thrive_api import LabSummary, LabUpload, Upload

__all__ = ["CONTENT_TYPES", "MAX_DOCUMENT_BYTES", "Labs"]

CONTENT_TYPES: Final = ("application/pdf", "image/jpeg", "image/png", "image/webp")
MAX_DOCUMENT_BYTES: Final = 20 * 1024 * 1024

_LABS = "/v1/users/{user_id}/labs"
_PAGE = 200


class Labs:
    """`thrive.labs`: lab results."""

    def __init__(self, calls: ThriveCalls) -> None:
        self._calls = calls

    def list(self, user_id: str, *, status: str | None = None, limit: int | None = None) -> AsyncIterator[LabSummary]:
        """A member's lab results, the newest first; at most `limit`."""
        return self._calls.pages(LabSummary, user_id, _LABS, query=[("status", status)], page_size=_PAGE, most=limit)

    async def get(self, user_id: str, lab_result_id: str) -> LabResult:
        """A lab result. Raises `NotFound` for an unknown one."""
        return await self._calls.read(
            LabResult, user_id, f"{_LABS}/{{lab_result_id}}", path={"lab_result_id": lab_result_id}
        )

    async def upload(
        self,
        user_id: str,
        content: bytes,
        *,
        filename: str,
        content_type: str,
        idempotency_key: str | None = None,
    ) -> LabUpload:
        """Hand in a document of at most 20 MiB, a PDF or an image, and have it read.

        Type and size are checked before anything is sent (`ValueError`). The bytes go to an address the platform
        names, which gets no credential of ours. Without `workflow_id` in the answer, upload it again.
        """
        if content_type not in CONTENT_TYPES:
            raise ValueError(f"content_type: expected one of {', '.join(CONTENT_TYPES)}")
        if not 0 < len(content) <= MAX_DOCUMENT_BYTES:
            raise ValueError(f"content: expected 1 to {MAX_DOCUMENT_BYTES} bytes")
        slot = await self._slot(user_id, filename, content_type)
        await self._calls.put_bytes(
            slot.upload_url, content, {"content-type": content_type, "x-ms-blob-type": "BlockBlob"}
        )
        return await self._calls.create(
            LabUpload, user_id, f"{_LABS}/upload", json={"file_url": slot.file_url}, idempotency_key=idempotency_key
        )

    async def _slot(self, user_id: str, filename: str, content_type: str) -> Upload:
        call = "POST /v1/uploads"
        # An address that is never used does no harm, so asking for one may be repeated.
        reply = await self._calls.as_member(
            user_id,
            "POST",
            "/v1/uploads",
            json={"filename": filename, "content_type": content_type},
            repeatable=True,
        )
        slot = self._calls.data(call, reply, Upload)
        try:
            require_secure(slot.upload_url)
        except ValueError:
            safe = False
        else:
            safe = True
        if not safe:
            raise ApiError(call, status=reply.status, code="unsafe_upload_url")
        return slot
