"""What maintenance looks for: queued rows (to be in Redis), passed deadlines."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from shared.db.engine import Connection

_QUEUED = text("""
SELECT id, tenant_id, key_id, provider, upstream_model, priority, run_at, deadline, input_estimate, output_estimate
FROM jobs WHERE status = 'queued' AND COALESCE(waits_for, -1) < 0 AND id > :after ORDER BY id LIMIT :limit
""")
_OVERDUE = text("""
SELECT id, tenant_id, batch_id, provider, upstream_model, attempt FROM jobs
WHERE deadline < now() AND finished_at IS NULL AND status = 'queued' ORDER BY deadline LIMIT :limit
""")
_HURRIED = text("""
SELECT id, tenant_id, batch_id, provider, upstream_model, attempt FROM jobs
WHERE id = ANY(CAST(:ids AS uuid[])) AND status = 'queued' AND provider = :provider AND deadline IS NOT NULL
""")
_ELSEWHERE = text("""
SELECT id, tenant_id, batch_id, provider, upstream_model, attempt, charged, route FROM jobs
WHERE status = 'queued' AND provider = :provider AND upstream_model = :model AND route IS NOT NULL AND route ? 'general'
    AND run_at <= now() AND COALESCE(waits_for, -1) < 0 AND id > :after
ORDER BY id LIMIT :limit
""")

START = UUID(int=0)


async def queued(connection: Connection, *, after: UUID, limit: int) -> Sequence[Row[Any]]:
    """Return up to `limit` queued jobs of all tenants that wait for no others, oldest first, behind the job `after`."""
    return (await connection.execute(_QUEUED, {"after": after, "limit": limit})).all()


async def overdue(connection: Connection, *, limit: int) -> Sequence[Row[Any]]:
    """Return queued jobs whose deadline has passed. One in progress is stopped by the worker that holds it."""
    return (await connection.execute(_OVERDUE, {"limit": limit})).all()


async def hurried(connection: Connection, provider: str, wanted: Sequence[UUID]) -> Sequence[Row[Any]]:
    """Return those of some jobs of all tenants that are queued with a provider and have a deadline."""
    return (await connection.execute(_HURRIED, {"provider": provider, "ids": list(wanted)})).all()


async def elsewhere(
    connection: Connection, provider: str, model: str, *, after: UUID, limit: int
) -> Sequence[Row[Any]]:
    """Return up to `limit` jobs of a lane that are due and may go elsewhere, oldest first, behind `after`."""
    values = {"provider": provider, "model": model, "after": after, "limit": limit}
    return (await connection.execute(_ELSEWHERE, values)).all()
