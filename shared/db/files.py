"""Files: what was uploaded, and the names under which a batch's results are read. Their content is in a storage.

A file that is still being written has no `bytes`, and is nobody's to see; a deleted one is kept until its content is
gone.
"""

from collections.abc import Sequence
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import ColumnElement, Row, and_, func, or_, select, text

from shared.db.engine import Connection
from shared.db.tables import files

FileRow = Row[Any]

BATCH = "batch"
"""The storage of files that are not stored: a batch's results are read from its jobs."""


async def insert(connection: Connection, id_: UUID, tenant_id: str, *, storage: str) -> None:
    """Store a file whose content is about to be written."""
    await connection.execute(
        files.insert().values(id=id_, tenant_id=tenant_id, storage=storage, filename="", purpose="")
    )


_FINISH = text("""
UPDATE files
SET filename = :filename, purpose = :purpose, bytes = :bytes, lines = :lines,
    expires_at = created_at + make_interval(secs => :expires_after)
WHERE id = :id AND tenant_id = :tenant AND deleted_at IS NULL
RETURNING *
""")


async def finish(
    connection: Connection,
    tenant_id: str,
    id_: UUID,
    *,
    filename: str,
    purpose: str,
    bytes_: int,
    lines: int,
    expires_after: float | None,
) -> FileRow | None:
    """Say what was written; `expires_after` is in seconds. None where it took so long that it was given up."""
    values = {"filename": filename, "purpose": purpose, "bytes": bytes_, "lines": lines, "expires_after": expires_after}
    return (await connection.execute(_FINISH, {"id": id_, "tenant": tenant_id, **values})).first()


def _there(tenant_id: str) -> ColumnElement[bool]:
    """Return what holds for the files that a tenant sees."""
    return and_(
        files.c.tenant_id == tenant_id,
        files.c.deleted_at.is_(None),
        or_(files.c.expires_at.is_(None), files.c.expires_at > func.now()),
        or_(files.c.bytes.is_not(None), files.c.storage == BATCH),
    )


async def get(connection: Connection, tenant_id: str, id_: UUID, *, keep: bool = False) -> FileRow | None:
    """Return a tenant's file; `keep` has nobody delete it before this transaction's end."""
    query = select(files).where(files.c.id == id_, _there(tenant_id))
    return (await connection.execute(query.with_for_update(read=True) if keep else query)).first()


async def page(
    connection: Connection, tenant_id: str, *, purpose: str | None, after: UUID | None, ascending: bool, limit: int
) -> Sequence[FileRow]:
    """Return up to `limit` of a tenant's files by age, those behind the file `after`."""
    query = select(files).where(_there(tenant_id))
    if purpose is not None:
        query = query.where(files.c.purpose == purpose)
    if after is not None:
        query = query.where(files.c.id > after if ascending else files.c.id < after)
    by = files.c.id if ascending else files.c.id.desc()
    return (await connection.execute(query.order_by(by).limit(limit))).all()


_IN_USE = text("""
SELECT 1 FROM batches WHERE tenant_id = :tenant AND input_file_id = :id AND status = 'validating' LIMIT 1
""")


async def delete(connection: Connection, tenant_id: str, id_: UUID) -> FileRow | Literal["in use"] | None:
    """Mark a tenant's file as deleted and return it; not while a batch made of it is being validated.

    Its row is locked before the batches are looked at: one that is being made of it holds that lock too.
    """
    row = (
        await connection.execute(select(files).where(files.c.id == id_, _there(tenant_id)).with_for_update())
    ).first()
    if row is None:
        return None
    if (await connection.execute(_IN_USE, {"tenant": tenant_id, "id": id_})).first() is not None:
        return "in use"
    await connection.execute(
        files.update().where(files.c.id == id_, files.c.tenant_id == tenant_id).values(deleted_at=func.now())
    )
    return row


_GIVE_UP = text("""
UPDATE files SET deleted_at = now()
WHERE id IN (
    SELECT id FROM files
    WHERE deleted_at IS NULL AND (
        expires_at <= now() OR (bytes IS NULL AND storage <> 'batch' AND created_at < now() - interval '1 day')
    )
    LIMIT :limit FOR UPDATE SKIP LOCKED
)
""")
_DELETED = text("""
SELECT id, storage FROM files WHERE deleted_at IS NOT NULL AND storage = ANY(:storages) ORDER BY deleted_at LIMIT :limit
""")
_FORGET = text("DELETE FROM files WHERE id = ANY(:ids)")


async def give_up(connection: Connection, *, limit: int) -> int:
    """Mark up to `limit` files as deleted that have expired, or have been written for over a day; return how many."""
    return (await connection.execute(_GIVE_UP, {"limit": limit})).rowcount


async def deleted(connection: Connection, storages: Sequence[str], *, limit: int) -> Sequence[FileRow]:
    """Return up to `limit` files of these storages that are deleted and whose content may still be there."""
    return (await connection.execute(_DELETED, {"storages": list(storages), "limit": limit})).all()


async def forget(connection: Connection, ids: Sequence[UUID]) -> None:
    """Remove the rows of files whose content is gone: deleted ones, and one whose upload failed."""
    await connection.execute(_FORGET, {"ids": list(ids)})
