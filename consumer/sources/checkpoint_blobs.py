"""Checkpoints in Azure Blob Storage that never go back: each write compares before it sets.

The blobs are those of `BlobCheckpointStore`, name and metadata, so that the SDK starts from them and KEDA counts with
them. That store writes without a condition: an owner that has lost its partition, and does not know it yet, would put
an old place over a new one. One more field says who has the partition open, so that the next owner learns whether the
last one left it as it should.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from azure.core import MatchConditions
from azure.core.exceptions import ResourceExistsError, ResourceModifiedError, ResourceNotFoundError

__all__ = ["Checkpoint", "CheckpointBlobs", "PartitionCheckpoint"]

_TRIES = 5
"""Writes that may meet another's before the next turn."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far a partition is done."""

    sequence: int
    offset: str
    opened_by: str | None = None
    """Who has the partition open; None: whoever had it closed it."""
    hub: str | None = None
    """When the hub it is of was made; None: not known."""


class CheckpointBlobs:
    """The checkpoints of one consumer group of one hub, in a container."""

    def __init__(self, container: Any, *, namespace: str, event_hub: str, consumer_group: str) -> None:
        self._container = container
        # The SDK writes the whole path in lower case.
        self.hub: str | None = None
        """When the hub was made, to be written with checkpoints: another hub of that name counts anew."""
        self._folder = f"{namespace}/{event_hub}/{consumer_group}/checkpoint".lower()

    async def read(self, partition_id: str) -> tuple[Checkpoint, str] | None:
        """The checkpoint of a partition with its ETag. Raises what azure-core raises."""
        blob = self._container.get_blob_client(f"{self._folder}/{partition_id}")
        try:
            properties = await blob.get_blob_properties()
        except ResourceNotFoundError:
            return None
        checkpoint = _checkpoint(properties.metadata)
        return checkpoint, properties.etag

    async def write(self, partition_id: str, checkpoint: Checkpoint, etag: str | None) -> str | None:
        """Write it over the one with this ETag, or None over none; the new ETag, or None: another one is there."""
        blob = self._container.get_blob_client(f"{self._folder}/{partition_id}")
        metadata = {"sequencenumber": str(checkpoint.sequence), "offset": checkpoint.offset}
        if checkpoint.opened_by is not None:
            metadata["openedby"] = checkpoint.opened_by
        if self.hub is not None:
            metadata["hubcreated"] = self.hub
        try:
            if etag is None:
                reply = await blob.upload_blob(b"", metadata=metadata, overwrite=False)
            else:
                reply = await blob.set_blob_metadata(metadata, etag=etag, match_condition=MatchConditions.IfNotModified)
        except (ResourceExistsError, ResourceModifiedError):
            return None
        except ResourceNotFoundError:
            if etag is None:
                raise
            return None
        return str(reply["etag"])

    async def probe(self) -> None:
        """Write an empty blob beside the checkpoints. Raises what azure-core raises."""
        blob = self._container.get_blob_client(f"{self._folder.removesuffix('/checkpoint')}/check")
        await blob.upload_blob(b"", overwrite=True)

    async def all(self) -> dict[str, Checkpoint]:
        """Every partition's checkpoint."""
        found = {}
        async for blob in self._container.list_blobs(name_starts_with=f"{self._folder}/", include=["metadata"]):
            found[blob.name.rsplit("/", 1)[1]] = _checkpoint(blob.metadata)
        return found


class PartitionCheckpoint:
    """One ownership's hold on a checkpoint: opened, moved forward, closed; and never touched once another has it."""

    def __init__(self, blobs: CheckpointBlobs, partition_id: str, owner: str) -> None:
        """`owner` is this ownership's own name: the process's, and after a slash what tells its ownerships apart."""
        self._blobs = blobs
        self._partition_id = partition_id
        self._owner = owner
        self._etag: str | None = None
        self._saved: Checkpoint | None = None
        self.lost = False
        """Another owner has it: nothing is written any more."""
        self.unclean = False
        """After `open`: whoever had the partition before did not close it."""

    @property
    def saved(self) -> Checkpoint | None:
        """What was last read or written."""
        return self._saved

    async def read(self) -> Checkpoint | None:
        """What the last owner left; None: nobody was here before."""
        found = await self._blobs.read(self._partition_id)
        self._saved, self._etag = found or (None, None)
        if self._saved is not None:
            # Read again, what is there may be our own, of a write whose answer was lost.
            opened_by = self._saved.opened_by
            self.unclean = self.unclean or (opened_by is not None and _process(opened_by) != _process(self._owner))
        return self._saved

    async def open(self, sequence: int, offset: str) -> None:
        """Say that it is ours, whoever else thinks so; after `read`. The first one of all is written here.

        What is there by now counts, not what was read: nothing beyond it is finished.
        """
        if self._saved is not None:
            sequence, offset = self._saved.sequence, self._saved.offset
        await self._write(Checkpoint(sequence, offset, self._owner), claiming=True)

    async def save(self, sequence: int, offset: str) -> None:
        """Move it forward; never back."""
        if self._saved is None or sequence > self._saved.sequence:
            await self._write(Checkpoint(sequence, offset, self._owner))

    async def close(self, position: tuple[int, str] | None) -> None:
        """Move it forward a last time, and say that it is nobody's."""
        saved = None if self._saved is None else (self._saved.sequence, self._saved.offset)
        reached = [place for place in (position, saved) if place is not None]
        if reached:
            await self._write(Checkpoint(*max(reached)))

    async def _write(self, checkpoint: Checkpoint, *, claiming: bool = False) -> None:
        if self.lost:
            return
        for _ in range(_TRIES):
            etag = await self._blobs.write(self._partition_id, checkpoint, self._etag)
            if etag is not None:
                self._etag, self._saved = etag, checkpoint
                return
            found = await self._blobs.read(self._partition_id)
            there, self._etag = found or (None, None)
            if there is None:
                continue
            # A write of ours that was cut off may have arrived: then what is there is ours.
            if not claiming and there.opened_by != self._owner:
                self.lost = True
                return
            if claiming or there.sequence > checkpoint.sequence:
                checkpoint = replace(checkpoint, sequence=there.sequence, offset=there.offset)
        raise ResourceModifiedError("others wrote it again and again")


def _checkpoint(metadata: Mapping[str, str]) -> Checkpoint:
    return Checkpoint(
        int(metadata["sequencenumber"]),
        metadata["offset"],
        metadata.get("openedby") or None,
        metadata.get("hubcreated") or None,
    )


def _process(owner: str) -> str:
    return owner.partition("/")[0]
