"""Leases: a worker holds all its jobs under one, so renewing any number of them costs one row.

A lease that ran out is taken away with its jobs by maintenance. Until then its worker may renew it, however late.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from shared.db.engine import Connection

_OPEN = text("""
INSERT INTO leases (id, worker, provider, expires_at)
VALUES (:id, :worker, :provider, now() + make_interval(secs => :seconds)) ON CONFLICT DO NOTHING
""")
_RENEW = text("UPDATE leases SET expires_at = now() + make_interval(secs => :seconds) WHERE id = :id")
_CLOSE = text("DELETE FROM leases WHERE id = :id AND NOT EXISTS (SELECT FROM jobs WHERE lease_id = :id)")
_ASTRAY = text("""
SELECT id, tenant_id, batch_id, provider, upstream_model, attempt, claimed_at, cancel_asked_at IS NOT NULL AS cancelled
FROM jobs WHERE lease_id = :id AND (
    cancel_asked_at IS NOT NULL
    OR (claimed_at < now() - make_interval(secs => :seconds) AND id <> ALL(CAST(:held AS uuid[])))
)
""")
_EXPIRED = text("SELECT id FROM leases WHERE expires_at < now() ORDER BY id LIMIT 20 FOR UPDATE SKIP LOCKED")
_LOST = text("""
SELECT id, tenant_id, batch_id, provider, upstream_model, priority, attempt, charged, deadline, claimed_at, (
        SELECT usual_nanos FROM reservations r WHERE r.job_id = jobs.id AND r.attempt = jobs.attempt
    ) AS usual_nanos
FROM jobs
WHERE lease_id IS NOT NULL
    AND (lease_id = ANY(CAST(:leases AS uuid[])) OR NOT EXISTS (SELECT FROM leases WHERE leases.id = jobs.lease_id))
LIMIT :limit
""")
_REMOVE = text("""
DELETE FROM leases WHERE id = ANY(CAST(:leases AS uuid[])) AND NOT EXISTS (SELECT FROM jobs WHERE lease_id = leases.id)
""")


async def open_(connection: Connection, id_: UUID, *, worker: str, provider: str, seconds: float) -> None:
    """Begin a lease for a worker of a provider's pool."""
    await connection.execute(_OPEN, {"id": id_, "worker": worker, "provider": provider, "seconds": seconds})


async def renew(
    connection: Connection, id_: UUID, *, seconds: float, held: Sequence[UUID]
) -> Sequence[Row[Any]] | None:
    """Prolong a lease; return None where it was taken away, else the jobs under it that need something done.

    That is: those asked to stop (`cancelled`), and those that the worker does not know it has (not in `held`), since
    the answer to its claim was lost.
    """
    if (await connection.execute(_RENEW, {"id": id_, "seconds": seconds})).rowcount == 0:
        return None
    return (await connection.execute(_ASTRAY, {"id": id_, "seconds": seconds, "held": list(held)})).all()


async def close(connection: Connection, id_: UUID) -> None:
    """End a lease under which no job is left; with jobs left it stays, to run out."""
    await connection.execute(_CLOSE, {"id": id_})


async def lost(connection: Connection, *, limit: int) -> tuple[Sequence[UUID], Sequence[Row[Any]]]:
    """Lock leases that ran out and return them with up to `limit` of the jobs under them, or under none that is."""
    expired = (await connection.execute(_EXPIRED)).scalars().all()
    return expired, (await connection.execute(_LOST, {"leases": list(expired), "limit": limit})).all()


async def remove(connection: Connection, expired: Sequence[UUID]) -> None:
    """Remove leases, where no job is held under them any more."""
    await connection.execute(_REMOVE, {"leases": list(expired)})


async def manned(connection: Connection) -> set[str]:
    """Return the providers that have a worker."""
    rows = await connection.execute(text("SELECT DISTINCT provider FROM leases WHERE expires_at > now()"))
    return set(rows.scalars())
