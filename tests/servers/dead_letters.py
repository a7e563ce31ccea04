"""Places where dead letters can be kept, each new and empty, for tests that say the same of all of them."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from consumer.dead_letters.archive import Archive, Entry, Problem
from consumer.dead_letters.archives import open_archive
from consumer.dead_letters.file_store import FileStore
from consumer.dead_letters.filters import Filter
from consumer.dead_letters.object_archive import ObjectArchive
from consumer.dead_letters.object_store import ObjectStore
from consumer.dead_letters.objects import Objects, open_objects
from consumer.dead_letters.record import DeadLetter
from consumer.settings import DeadLetterSettings, Settings
from tests.servers.names import fresh_name

__all__ = ["KINDS", "Shelf", "new_shelf"]

KINDS = ("file", "s3", "blob")


class Shelf:
    """One place; what it is, is in `settings`. Archives and objects it gave out are closed by `close`."""

    def __init__(self, settings: DeadLetterSettings) -> None:
        self.settings = settings
        self._given: list[Archive | Objects] = []
        self._archive: Archive | None = None
        self._objects: Objects | None = None

    @property
    def env(self) -> dict[str, str]:
        """The settings as environment variables."""
        values = {key: getattr(self.settings, key) for key in self.settings.model_fields_set}
        shown = {key: one.get_secret_value() if isinstance(one, SecretStr) else str(one) for key, one in values.items()}
        return {f"CONSUMER_DEAD_LETTERS__{key.upper()}": value for key, value in shown.items()}

    def store(self, **options: Any) -> FileStore | ObjectStore:
        """A store as a worker has it."""
        if self.settings.kind == "file":
            return FileStore(self.settings.path, **options)
        # Making a client takes ten times as long as using it, so a test has one.
        return ObjectStore(_Shared(self.objects()), **options)

    async def keep(self, *records: DeadLetter, **options: Any) -> None:
        """Put these aside with a store of their own, closed at once."""
        store = self.store(**options)
        try:
            await store.append(records)
        finally:
            await store.close()

    def archive(self) -> Archive:
        """An archive as an operator has it, always the same."""
        if self._archive is None:
            is_file = self.settings.kind == "file"
            self._archive = self.new_archive() if is_file else ObjectArchive(_Shared(self.objects()))
        return self._archive

    def new_archive(self) -> Archive:
        """An archive of another operator."""
        archive = open_archive(Settings(dead_letters=self.settings))
        self._given.append(archive)
        return archive

    def objects(self) -> Objects:
        """The bare objects of an object store."""
        if self._objects is None:
            self._objects = open_objects(self.settings)
            self._given.append(self._objects)
        return self._objects

    def put(self, name: str, data: bytes) -> None:
        """A segment, as some process left it."""
        if self.settings.kind == "file":
            self.settings.path.mkdir(exist_ok=True)
            (self.settings.path / name).write_bytes(data)
        else:
            self.objects().overwrite(name, data)

    def names(self) -> list[str]:
        """What there is, but for probes."""
        if self.settings.kind == "file":
            return sorted(path.name for path in self.settings.path.iterdir())
        return [found.name for found in self.objects().list() if found.name != ".probe"]

    def entries(self, chosen: Filter | None = None) -> list[Entry]:
        """The dead letters; there must be nothing that cannot be read."""
        found = list(self.archive().read(chosen))
        assert not [one for one in found if isinstance(one, Problem)]
        return [one for one in found if isinstance(one, Entry)]

    def ids(self, chosen: Filter | None = None) -> list[str]:
        """The ids of the dead letters, in order."""
        return [entry.record.id for entry in self.entries(chosen)]

    def close(self) -> None:
        """Close what was given out."""
        for one in self._given:
            one.close()


class _Shared:
    """Objects that whoever has them does not close."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def close(self) -> None:
        """They are closed by the shelf."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objects, name)


def new_shelf(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Shelf:
    """A place of this kind; its server is started when the first one is asked for."""
    if kind == "file":
        return Shelf(DeadLetterSettings(kind="file", path=tmp_path / "dead-letters"))
    name = fresh_name("dead")
    if kind == "s3":
        request.getfixturevalue("aws_environment")
        url = request.getfixturevalue("moto_url")
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            urllib.request.Request(f"{url}/{name}", method="PUT", headers={"Host": "s3.amazonaws.com"})
        ).close()
        return Shelf(DeadLetterSettings(kind="s3", bucket=name, endpoint_url=url))
    string = request.getfixturevalue("azurite").connection_string
    from azure.storage.blob import ContainerClient  # a while that no other test should pay

    with ContainerClient.from_connection_string(string, name) as container:
        container.create_container()
    return Shelf(DeadLetterSettings(kind="blob", container=name, connection_string=SecretStr(string)))
