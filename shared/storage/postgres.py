"""Content in Postgres: nothing to set up, in every backup. Each part is a transaction of its own."""

from collections.abc import AsyncIterator
from uuid import UUID

from shared.db import engine as db
from shared.db import file_parts
from shared.storage.parts import MIB, Missing, parts


class Postgres:
    """The storage `postgres`."""

    name = "postgres"

    def __init__(self, engine: db.Engine) -> None:
        self._engine = engine

    async def write(self, file_id: UUID, pieces: AsyncIterator[bytes]) -> None:
        """Keep the content; that of an empty file is an empty part."""
        number = 0
        async for part in parts(pieces, least=MIB):
            if part or not number:
                await self._insert(file_id, number, part)
            number += 1

    async def _insert(self, file_id: UUID, number: int, part: bytes) -> None:
        await db.run(self._engine, lambda connection: file_parts.insert(connection, file_id, number, part), alone=True)

    async def read(self, file_id: UUID) -> AsyncIterator[bytes]:
        """Yield the content."""
        number = 0
        while (part := await self._get(file_id, number)) is not None:
            yield part
            number += 1
        if not number:
            raise Missing

    async def _get(self, file_id: UUID, number: int) -> bytes | None:
        return await db.run(self._engine, lambda connection: file_parts.get(connection, file_id, number), alone=True)

    async def delete(self, file_id: UUID) -> None:
        """Remove the content."""
        await db.run(self._engine, lambda connection: file_parts.delete(connection, file_id), alone=True)

    async def aclose(self) -> None:
        """Leave the engine to whom it belongs."""
