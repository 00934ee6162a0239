"""The parts of files that are kept in Postgres; whose they are is known of the file."""

from uuid import UUID

from sqlalchemy import text

from shared.db.engine import Connection

_INSERT = text("INSERT INTO file_parts (file_id, number, body) VALUES (:file, :number, :body) ON CONFLICT DO NOTHING")
_GET = text("SELECT body FROM file_parts WHERE file_id = :file AND number = :number")
_DELETE = text("DELETE FROM file_parts WHERE file_id = :file")


async def insert(connection: Connection, file_id: UUID, number: int, body: bytes) -> None:
    """Store a part; doing it twice changes nothing."""
    await connection.execute(_INSERT, {"file": file_id, "number": number, "body": body})


async def get(connection: Connection, file_id: UUID, number: int) -> bytes | None:
    """Return a part."""
    found: bytes | None = (await connection.execute(_GET, {"file": file_id, "number": number})).scalar()
    return found


async def delete(connection: Connection, file_id: UUID) -> None:
    """Remove a file's parts."""
    await connection.execute(_DELETE, {"file": file_id})
