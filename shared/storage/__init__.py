"""Where the content of files is kept: Postgres, a directory, or a store that speaks S3. A new one is a file here.

Whose a file is, and whether it is there at all, is known to `shared.db.files` alone.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol
from uuid import UUID

from shared.config_files import Files
from shared.db.engine import Engine
from shared.errors import ConfigError, Unavailable
from shared.storage.disk import Disk
from shared.storage.postgres import Postgres


class Storage(Protocol):
    """One place for the content of files. Every method raises Unavailable where it cannot be reached."""

    @property
    def name(self) -> str:
        """What a file's row calls it."""

    async def write(self, file_id: UUID, pieces: AsyncIterator[bytes]) -> None:
        """Keep what comes, much and slowly as it may; what `pieces` raises goes through, and may leave parts behind."""

    def read(self, file_id: UUID) -> AsyncIterator[bytes]:
        """Yield the content in pieces of about a MiB. Raises Missing where there is none."""

    async def delete(self, file_id: UUID) -> None:
        """Remove the content, or what there is of it."""

    async def aclose(self) -> None:
        """Close its connections."""


class Storages:
    """The storages that are configured: new files go to `chosen`, others are read from where they are."""

    def __init__(self, chosen: Storage, others: Sequence[Storage]) -> None:
        self.chosen = chosen
        self._by_name = {one.name: one for one in (*others, chosen)}

    @property
    def names(self) -> Sequence[str]:
        """What may be read and removed."""
        return tuple(self._by_name)

    def of(self, name: str) -> Storage:
        """Return the storage of a file. Raises Unavailable where it is no longer configured."""
        found = self._by_name.get(name)
        if found is None:
            raise Unavailable(f"this file is kept in the storage `{name}`, which is not configured here")
        return found

    async def aclose(self) -> None:
        """Close all connections."""
        for one in self._by_name.values():
            await one.aclose()


def create(files: Files, engine: Engine) -> Storages:
    """Return the storages of a configuration. Raises ConfigError where a package is missing."""
    found: dict[str, Storage] = {"postgres": Postgres(engine)}
    if files.path is not None:
        found["disk"] = Disk(files.path)
    if files.bucket is not None:
        try:
            from shared.storage.s3 import S3
        except ImportError:
            raise ConfigError("files: S3 needs packages that are not installed; install sluice[s3]") from None
        found["s3"] = S3(files)
    return Storages(found[files.storage], tuple(found.values()))
