"""Teams: the parts of a tenant that its keys belong to. One that was closed keeps its row, since jobs name it.

A `tenant_id` of None is any tenant: only who may see them all passes it.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from shared.db.engine import Connection

TeamRow = Row[Any]

_INSERT = text("INSERT INTO teams (id, tenant_id, name) VALUES (:id, :tenant, :name) RETURNING *")
_GET = text("""
SELECT * FROM teams WHERE id = :id AND (CAST(:tenant AS text) IS NULL OR tenant_id = :tenant) FOR UPDATE
""")
_PAGE = text("""
SELECT * FROM teams
WHERE (CAST(:tenant AS text) IS NULL OR tenant_id = :tenant) AND (CAST(:after AS uuid) IS NULL OR id < :after)
ORDER BY id DESC LIMIT :limit
""")
_RENAME = text("UPDATE teams SET name = :name WHERE id = :id AND tenant_id = :tenant RETURNING *")
_CLOSE = text("UPDATE teams SET closed_at = now() WHERE id = :id AND tenant_id = :tenant RETURNING *")


async def insert(connection: Connection, id_: UUID, tenant_id: str, *, name: str) -> TeamRow:
    """Store a new team; its name is refused by Postgres where another open team of the tenant has it."""
    return (await connection.execute(_INSERT, {"id": id_, "tenant": tenant_id, "name": name})).one()


async def get(connection: Connection, tenant_id: str | None, id_: UUID) -> TeamRow | None:
    """Return a team, open or closed, locked until the transaction ends."""
    return (await connection.execute(_GET, {"id": id_, "tenant": tenant_id})).first()


async def page(connection: Connection, tenant_id: str | None, *, after: UUID | None, limit: int) -> Sequence[TeamRow]:
    """Return up to `limit` teams, newest first, older than the team `after`."""
    return (await connection.execute(_PAGE, {"tenant": tenant_id, "after": after, "limit": limit})).all()


async def rename(connection: Connection, tenant_id: str, id_: UUID, *, name: str) -> TeamRow:
    """Give a team another name."""
    return (await connection.execute(_RENAME, {"id": id_, "tenant": tenant_id, "name": name})).one()


async def close(connection: Connection, tenant_id: str, id_: UUID) -> TeamRow:
    """Close a team for good."""
    return (await connection.execute(_CLOSE, {"id": id_, "tenant": tenant_id})).one()
