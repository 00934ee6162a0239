"""The log of administrative changes: written in the transaction of the change, never altered.

A `tenant_id` of None is any tenant: only who may see them all passes it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Row, text

from shared import ids
from shared.db.engine import Connection

EntryRow = Row[Any]


@dataclass(frozen=True, slots=True)
class Change:
    """What was done to what: `action` as `key.create`; the object as callers see it, before and after."""

    action: str
    object_type: str
    object_id: str
    tenant_id: str
    before: Mapping[str, object] | None
    after: Mapping[str, object] | None


# The version's row is locked until the commit: who sees a new number sees every change up to it.
_RECORD = text("""
WITH v AS (UPDATE access_version SET number = number + 1)
INSERT INTO audit_log (id, actor, action, object_type, object_id, tenant_id, before, after, request_id)
VALUES (:id, :actor, :action, :object_type, :object_id, :tenant_id, CAST(:before AS jsonb), CAST(:after AS jsonb),
    :request_id)
""")
_PAGE = text("""
SELECT * FROM audit_log
WHERE (CAST(:tenant AS text) IS NULL OR tenant_id = :tenant) AND (CAST(:after AS uuid) IS NULL OR id < :after)
    AND (CAST(:object AS text) IS NULL OR object_id = :object)
ORDER BY id DESC LIMIT :limit
""")
_GET = text("SELECT * FROM audit_log WHERE id = :id AND (CAST(:tenant AS text) IS NULL OR tenant_id = :tenant)")


async def record(connection: Connection, change: Change, *, actor: str, request_id: str) -> None:
    """Write down a change, and let every front door know that there was one. Call it last in its transaction."""
    values = asdict(change) | {"id": ids.new_id(), "actor": actor, "request_id": request_id}
    for name in ("before", "after"):
        values[name] = None if values[name] is None else orjson.dumps(values[name]).decode()
    await connection.execute(_RECORD, values)


async def get(connection: Connection, tenant_id: str | None, id_: UUID) -> EntryRow | None:
    """Return an entry."""
    return (await connection.execute(_GET, {"id": id_, "tenant": tenant_id})).first()


async def page(
    connection: Connection, tenant_id: str | None, *, object_id: str | None, after: UUID | None, limit: int
) -> Sequence[EntryRow]:
    """Return up to `limit` entries, newest first, older than the entry `after`; `object_id` restricts them to one."""
    values = {"tenant": tenant_id, "object": object_id, "after": after, "limit": limit}
    return (await connection.execute(_PAGE, values)).all()
