"""Checkpoints on a server that plays Blob Storage: they never go back, and only their owner moves them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from azure.core.exceptions import ResourceModifiedError, ResourceNotFoundError
from azure.eventhub.extensions.checkpointstoreblobaio import BlobCheckpointStore
from azure.storage.blob.aio import ContainerClient

from consumer.sources.checkpoint_blobs import Checkpoint, CheckpointBlobs, PartitionCheckpoint
from tests.servers.azurite import Azurite, create_container
from tests.servers.names import fresh_name

NAMESPACE = "Labs.servicebus.windows.net"
HUB = "Events"
GROUP = "$Default"
PLACE = {"fully_qualified_namespace": NAMESPACE, "eventhub_name": HUB, "consumer_group": GROUP}


@pytest.fixture
async def container(azurite: Azurite) -> AsyncIterator[ContainerClient]:
    """A container of the test's own."""
    name = fresh_name("checkpoints")
    await create_container(azurite.connection_string, name)
    async with ContainerClient.from_connection_string(azurite.connection_string, name) as client:
        yield client


@pytest.fixture
def blobs(container: ContainerClient) -> CheckpointBlobs:
    return CheckpointBlobs(container, namespace=NAMESPACE, event_hub=HUB, consumer_group=GROUP)


@pytest.fixture
async def store(azurite: Azurite, container: ContainerClient) -> AsyncIterator[BlobCheckpointStore]:
    """The SDK's own store on the same container."""
    async with BlobCheckpointStore.from_connection_string(azurite.connection_string, container.container_name) as made:
        yield made


async def opened(blobs: CheckpointBlobs, owner: str, *, first: tuple[int, str] = (-1, "-1")) -> PartitionCheckpoint:
    """Partition 0 in the hands of an owner."""
    checkpoint = PartitionCheckpoint(blobs, "0", owner)
    await checkpoint.read()
    await checkpoint.open(*first)
    return checkpoint


async def there(blobs: CheckpointBlobs) -> Checkpoint | None:
    found = await blobs.read("0")
    return found[0] if found is not None else None


class Interrupted:
    """Blobs between whose reads and writes something happens once."""

    def __init__(self, blobs: CheckpointBlobs, happens: Any, *, times: int = 1) -> None:
        self._blobs = blobs
        self._happens = happens
        self._times = times

    async def read(self, partition_id: str) -> Any:
        return await self._blobs.read(partition_id)

    async def write(self, partition_id: str, checkpoint: Checkpoint, etag: str | None) -> str | None:
        if self._times:
            self._times -= 1
            await self._happens()
        return await self._blobs.write(partition_id, checkpoint, etag)


async def test_a_life(blobs: CheckpointBlobs) -> None:
    """It is made when the partition is opened for the first time, moves forward, and is nobody's after its close."""
    checkpoint = PartitionCheckpoint(blobs, "0", "one")
    assert await checkpoint.read() is None
    await checkpoint.open(41, "410")
    assert await there(blobs) == Checkpoint(41, "410", "one")
    await checkpoint.save(50, "500")
    assert await there(blobs) == checkpoint.saved == Checkpoint(50, "500", "one")
    await checkpoint.save(49, "490")
    await checkpoint.save(50, "other")
    assert await there(blobs) == Checkpoint(50, "500", "one")
    await checkpoint.close((60, "600"))
    assert await there(blobs) == Checkpoint(60, "600")
    assert not checkpoint.lost

    again = await opened(blobs, "two")
    assert (again.saved, again.unclean) == (Checkpoint(60, "600", "two"), False)
    await again.close(None)
    assert await there(blobs) == Checkpoint(60, "600")


async def test_a_last_place_below_the_saved_one(blobs: CheckpointBlobs) -> None:
    """A close never takes it back either."""
    checkpoint = await opened(blobs, "one", first=(10, "100"))
    await checkpoint.close((9, "90"))
    assert await there(blobs) == Checkpoint(10, "100")


async def test_without_a_first_place(blobs: CheckpointBlobs) -> None:
    """A partition that was not opened here, its start being a time, is written down at its first or last place."""
    checkpoint = PartitionCheckpoint(blobs, "0", "one")
    await checkpoint.read()
    await checkpoint.close(None)
    assert await there(blobs) is None
    await checkpoint.close((7, "70"))
    assert await there(blobs) == Checkpoint(7, "70")

    other = PartitionCheckpoint(blobs, "1", "one")
    await other.read()
    await other.save(3, "30")
    assert await blobs.all() == {"0": Checkpoint(7, "70"), "1": Checkpoint(3, "30", "one")}


async def test_a_stale_owner_changes_nothing(blobs: CheckpointBlobs) -> None:
    """Once another has opened it, the one before writes nothing more, however far it is, and is told."""
    stale = await opened(blobs, "one")
    await stale.save(5, "50")
    new = await opened(blobs, "two")
    assert new.unclean
    await stale.save(299, "2990")
    assert stale.lost
    assert await there(blobs) == Checkpoint(5, "50", "two")
    await new.save(6, "60")
    await stale.save(300, "3000")
    await stale.close((300, "3000"))
    assert await there(blobs) == Checkpoint(6, "60", "two")
    assert not new.lost
    await new.close((7, "70"))
    assert await there(blobs) == Checkpoint(7, "70")


async def test_a_stale_owner_does_not_close(blobs: CheckpointBlobs) -> None:
    """A close that comes after another opened it leaves it open."""
    stale = await opened(blobs, "one")
    await opened(blobs, "two")
    await stale.close((8, "80"))
    assert stale.lost
    assert await there(blobs) == Checkpoint(-1, "-1", "two")


async def test_a_write_whose_answer_was_lost(blobs: CheckpointBlobs) -> None:
    """What is there with the owner's own name is its own: it goes on from it, and never below it."""
    checkpoint = await opened(blobs, "one")
    found = await blobs.read("0")
    assert found is not None
    await blobs.write("0", Checkpoint(20, "200", "one"), found[1])
    await checkpoint.save(15, "150")
    assert await there(blobs) == checkpoint.saved == Checkpoint(20, "200", "one")
    await checkpoint.save(21, "210")
    assert await there(blobs) == Checkpoint(21, "210", "one")


async def test_an_opening_whose_answer_was_lost(blobs: CheckpointBlobs) -> None:
    """Read and opened again it is ours, and it is still known that the one before us did not close it."""
    await opened(blobs, "one")
    checkpoint = await opened(blobs, "two")
    await checkpoint.read()
    await checkpoint.open(-1, "-1")
    assert checkpoint.unclean
    assert await there(blobs) == Checkpoint(-1, "-1", "two")


async def test_a_process_that_takes_its_own_partition_again(blobs: CheckpointBlobs) -> None:
    """Left open by this very process, it was not left by a crash."""
    await opened(blobs, "one")
    assert not (await opened(blobs, "one")).unclean


async def test_two_open_it_at_once(blobs: CheckpointBlobs) -> None:
    """The later of two has it, the other is told at its next save, and it stands where it stood."""
    await (await opened(blobs, "zero", first=(3, "30"))).close(None)
    one, two = PartitionCheckpoint(blobs, "0", "one"), PartitionCheckpoint(blobs, "0", "two")
    await asyncio.gather(one.read(), two.read())
    await asyncio.gather(one.open(-1, "-1"), two.open(-1, "-1"))
    await asyncio.gather(one.save(4, "40"), two.save(4, "40"))
    assert [one.lost, two.lost].count(True) == 1
    winner = two if one.lost else one
    assert await there(blobs) == winner.saved == Checkpoint(4, "40", "one" if winner is one else "two")


async def test_the_first_place_of_all_is_the_first_one_written(blobs: CheckpointBlobs) -> None:
    """One that meanwhile was made, and moved, is taken over as it is: later events are nobody's yet."""
    late = PartitionCheckpoint(blobs, "0", "late")
    assert await late.read() is None
    early = await opened(blobs, "early", first=(90, "900"))
    await early.save(95, "950")
    await late.open(100, "1000")
    assert await there(blobs) == late.saved == Checkpoint(95, "950", "late")


async def test_a_save_between_reading_and_opening(blobs: CheckpointBlobs) -> None:
    """The last save of the one before, which comes while the next one opens it, counts."""
    old = await opened(blobs, "old", first=(1, "10"))
    new = PartitionCheckpoint(blobs, "0", "new")
    await new.read()
    await old.save(8, "80")
    await new.open(-1, "-1")
    assert await there(blobs) == new.saved == Checkpoint(8, "80", "new")


async def test_others_that_write_without_end(blobs: CheckpointBlobs) -> None:
    """An opening that others cut off every time fails, to be tried again, rather than to pass for done."""
    await opened(blobs, "one")

    async def other() -> None:
        await opened(blobs, fresh_name("other"))

    busy = PartitionCheckpoint(Interrupted(blobs, other, times=100), "0", "two")  # type: ignore[arg-type]  # a wrapper
    await busy.read()
    with pytest.raises(ResourceModifiedError):
        await busy.open(-1, "-1")


async def test_a_deleted_blob_is_made_again(blobs: CheckpointBlobs, container: ContainerClient) -> None:
    """A checkpoint that somebody deleted is written anew, by its owner's next save or by the next owner."""
    checkpoint = await opened(blobs, "one", first=(5, "50"))
    (name,) = [name async for name in container.list_blob_names()]
    await container.delete_blob(name)
    await checkpoint.save(6, "60")
    assert await there(blobs) == Checkpoint(6, "60", "one")

    again = PartitionCheckpoint(blobs, "0", "two")
    await again.read()
    await container.delete_blob(name)
    await again.open(-1, "-1")
    assert await there(blobs) == Checkpoint(6, "60", "two")


async def test_a_deleted_container_is_an_error(blobs: CheckpointBlobs, container: ContainerClient) -> None:
    """Without its container nothing can be written or listed, and it says so."""
    checkpoint = await opened(blobs, "one")
    await container.delete_container()
    with pytest.raises(ResourceNotFoundError):
        await checkpoint.save(6, "60")
    with pytest.raises(ResourceNotFoundError):
        await blobs.all()
    assert not checkpoint.lost


async def test_the_sdk_reads_what_is_written_here(blobs: CheckpointBlobs, store: BlobCheckpointStore) -> None:
    """The SDK's own store lists these checkpoints, open or closed, under the partition's number."""
    await opened(blobs, "one", first=(7, "-1"))
    closed = PartitionCheckpoint(blobs, "12", "one")
    await closed.save(8, "80")
    await closed.close(None)
    listed = await store.list_checkpoints(NAMESPACE, HUB, GROUP)
    assert sorted(listed, key=lambda one: one["sequence_number"]) == [
        {**PLACE, "partition_id": "0", "offset": "-1", "sequence_number": 7},
        {**PLACE, "partition_id": "12", "offset": "80", "sequence_number": 8},
    ]
    assert not list(await store.list_checkpoints(NAMESPACE, HUB, "other"))


async def test_what_the_sdk_wrote_is_read_here(blobs: CheckpointBlobs, store: BlobCheckpointStore) -> None:
    """A checkpoint of a consumer that used the SDK's store is taken over, and nobody has it open."""
    await store.update_checkpoint({**PLACE, "partition_id": "0", "offset": "90", "sequence_number": 9})
    assert await blobs.all() == {"0": Checkpoint(9, "90")}
    checkpoint = await opened(blobs, "one", first=(1, "10"))
    assert (checkpoint.saved, checkpoint.unclean) == (Checkpoint(9, "90", "one"), False)


async def test_groups_and_hubs_are_apart(container: ContainerClient, blobs: CheckpointBlobs) -> None:
    """A name that begins with another's is not mistaken for it."""
    await opened(blobs, "one")
    other = CheckpointBlobs(container, namespace=NAMESPACE, event_hub=HUB, consumer_group=GROUP + "2")
    assert await other.all() == {}
    assert await other.read("0") is None
