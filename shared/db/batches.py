"""Batches: jobs submitted together, with their counts, usage and cost kept by the transactions that end the jobs."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, literal_column, select, text

from shared.db.engine import Connection
from shared.db.tables import batches

BatchRow = Row[Any]

# What it may spend is a budget of its own.
_SHOWN: tuple[Any, ...] = (
    batches,
    literal_column("""(
        SELECT b.limit_nanos FROM budgets b WHERE b.tenant_id = batches.tenant_id
            AND b.subject = 'batch:' || batches.id::text AND b.closed_at IS NULL
    )""").label("max_cost_nanos"),
)


async def insert(
    connection: Connection,
    id_: UUID,
    tenant_id: str,
    *,
    endpoint: str,
    completion_window: str | None,
    total: int,
    metadata: dict[str, str],
) -> BatchRow:
    """Store a batch of `total` jobs that are inserted in the same transaction, as is a budget of its own before it."""
    statement = batches.insert().values(
        id=id_,
        tenant_id=tenant_id,
        endpoint=endpoint,
        status="in_progress",
        completion_window=completion_window,
        total=total,
        metadata=metadata,
    )
    row: BatchRow = (await connection.execute(statement.returning(*_SHOWN))).one()
    return row


async def get(connection: Connection, tenant_id: str, id_: UUID) -> BatchRow | None:
    """Return a tenant's batch."""
    return (
        await connection.execute(select(*_SHOWN).where(batches.c.id == id_, batches.c.tenant_id == tenant_id))
    ).first()


async def page(connection: Connection, tenant_id: str, *, after: UUID | None, limit: int) -> Sequence[BatchRow]:
    """Return up to `limit` of a tenant's batches, newest first, older than the batch `after`."""
    query = select(*_SHOWN).where(batches.c.tenant_id == tenant_id)
    if after is not None:
        query = query.where(batches.c.id < after)
    return (await connection.execute(query.order_by(batches.c.id.desc()).limit(limit))).all()


_RESULTS = text("""
SELECT j.id, j.custom_id, j.status, j.error, j.cost_nanos, j.batch_sequence, r.body AS result
FROM jobs j LEFT JOIN results r ON r.job_id = j.id AND j.status = 'completed'
WHERE j.batch_id = :batch AND j.id > :batch AND j.tenant_id = :tenant AND j.batch_sequence > :after
ORDER BY j.batch_sequence LIMIT :limit
""")


async def results(connection: Connection, tenant_id: str, id_: UUID, *, after: int, limit: int) -> Sequence[Row[Any]]:
    """Return a tenant's batch's ended jobs in the order they ended, from behind sequence number `after`.

    The number is given out under the batch's row lock, so a lower one is never committed after a higher one was seen.
    """
    query = {"batch": id_, "tenant": tenant_id, "after": after, "limit": limit}
    return (await connection.execute(_RESULTS, query)).all()


_CANCEL = text("""
UPDATE batches SET status = 'cancelling', cancelling_at = now()
WHERE id = :batch AND tenant_id = :tenant AND status = 'in_progress'
""")
_CANCEL_RUNNING = text("""
UPDATE jobs SET cancel_asked_at = now()
WHERE batch_id = :batch AND id > :batch AND tenant_id = :tenant AND status = 'in_progress' AND cancel_asked_at IS NULL
RETURNING id
""")
_QUEUED = text("""
SELECT id, tenant_id, batch_id, provider, upstream_model, attempt FROM jobs
WHERE batch_id = :batch AND id > :batch AND tenant_id = :tenant AND status = 'queued' ORDER BY id LIMIT :limit
""")


async def ask_cancel(connection: Connection, tenant_id: str, id_: UUID) -> Sequence[UUID]:
    """Mark a tenant's running batch as cancelling, and its jobs in progress to be cancelled; return those."""
    query = {"batch": id_, "tenant": tenant_id}
    await connection.execute(_CANCEL, query)
    return (await connection.execute(_CANCEL_RUNNING, query)).scalars().all()


async def queued(connection: Connection, tenant_id: str, id_: UUID, *, limit: int) -> Sequence[Row[Any]]:
    """Return up to `limit` of a batch's queued jobs, oldest first."""
    return (await connection.execute(_QUEUED, {"batch": id_, "tenant": tenant_id, "limit": limit})).all()
