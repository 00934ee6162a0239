"""Content in a directory, which every front door and maintenance must see: one machine's, or a shared volume."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from shared.errors import Unavailable
from shared.storage.parts import MIB, Missing, parts

R = TypeVar("R")


class Disk:
    """The storage `disk`. A file is whole, and on the disk, before it has its name."""

    name = "disk"

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def write(self, file_id: UUID, pieces: AsyncIterator[bytes]) -> None:
        """Keep the content."""
        written, path = self._paths(file_id)
        await _aside(lambda: self._directory.mkdir(parents=True, exist_ok=True))
        file = await _aside(lambda: written.open("wb", buffering=0))
        try:
            async for part in parts(pieces, least=MIB):
                await _aside(partial(_write, file.fileno(), part))
            await _aside(lambda: os.fsync(file.fileno()))
        finally:
            file.close()
        await _aside(lambda: _publish(written, path))

    async def read(self, file_id: UUID) -> AsyncIterator[bytes]:
        """Yield the content."""
        path = self._paths(file_id)[1]
        file = await _aside(lambda: path.open("rb", buffering=0))
        try:
            while piece := await _aside(lambda: file.read(MIB)):
                yield piece
        finally:
            file.close()

    async def delete(self, file_id: UUID) -> None:
        """Remove the content."""
        for path in self._paths(file_id):
            await _aside(partial(path.unlink, missing_ok=True))

    async def aclose(self) -> None:
        """Do nothing: no file stays open."""

    def _paths(self, file_id: UUID) -> tuple[Path, Path]:
        """Return where the content is while it is written, and where afterwards."""
        return self._directory / f"{file_id.hex}.part", self._directory / file_id.hex


async def _aside(act: Callable[[], R]) -> R:
    """Do what waits for the disk in a thread."""
    try:
        return await asyncio.to_thread(act)
    except FileNotFoundError:
        raise Missing from None
    except OSError as error:
        raise Unavailable(f"the file storage is not available: {error.strerror}") from error


def _write(descriptor: int, part: bytes) -> None:
    rest = memoryview(part)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _publish(written: Path, path: Path) -> None:
    written.rename(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
