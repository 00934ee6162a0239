"""Deliveries of samples, by which an endpoint is tried out: each is tried once."""

from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Row, text

from shared.db.engine import Connection

_INSERT = text("""
INSERT INTO deliveries (id, event_id, tenant_id, endpoint_id, lane, type, body)
VALUES (:id, :id, :tenant, :endpoint, :lane, :type, CAST(:body AS jsonb))
""")
_FIRST_TRY = text("""
SELECT status, error FROM delivery_attempts WHERE delivery_id = :id AND tenant_id = :tenant ORDER BY number LIMIT 1
""")
_END = text("""
UPDATE deliveries SET status = 'exhausted', finished_at = now()
WHERE id = :id AND tenant_id = :tenant AND status = 'pending'
""")


async def insert(
    connection: Connection, id_: UUID, tenant_id: str, endpoint_id: UUID, *, type: str, body: dict[str, Any]
) -> None:
    """Put a sample of an event into the outbox, in its endpoint's lane."""
    values = {
        "id": id_,
        "tenant": tenant_id,
        "endpoint": endpoint_id,
        "lane": endpoint_id.hex,
        "type": type,
        "body": orjson.dumps(body).decode(),
    }
    await connection.execute(_INSERT, values)


async def first_try(connection: Connection, tenant_id: str, id_: UUID) -> Row[Any] | None:
    """Return what became of a delivery's first try: its answer's status or its error."""
    return (await connection.execute(_FIRST_TRY, {"id": id_, "tenant": tenant_id})).first()


async def end(connection: Connection, tenant_id: str, id_: UUID) -> None:
    """Have a sample that was not delivered not tried again."""
    await connection.execute(_END, {"id": id_, "tenant": tenant_id})
