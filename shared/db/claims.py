"""Claims: Redis proposed these ids, Postgres disposes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy import text

from shared.db.engine import Connection

# Locking the lease's row keeps maintenance from taking it away meanwhile; without the row nothing is claimed.
# `IS TRUE` hides the condition from the indexes on it, with which a plan would read the whole backlog for every claim.
_CLAIM = text("""
WITH l AS (SELECT id FROM leases WHERE id = :lease FOR KEY SHARE)
UPDATE jobs SET
    status = 'in_progress', attempt = jobs.attempt + 1, lease_id = l.id, claimed_at = now(),
    started_at = COALESCE(jobs.started_at, now())
FROM l, unnest(CAST(:ids AS uuid[])) AS c(id) JOIN payloads ON payloads.job_id = c.id
WHERE jobs.id = c.id AND (jobs.status = 'queued' OR jobs.lease_id = l.id) IS TRUE
    AND jobs.cancel_asked_at IS NULL AND (jobs.deadline IS NULL OR jobs.deadline > now())
RETURNING jobs.id, jobs.tenant_id, jobs.batch_id, jobs.url, jobs.provider, jobs.upstream_model, jobs.attempt,
    jobs.charged, jobs.deadline, jobs.claimed_at, payloads.body
""")


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that this process holds under its lease, with all it needs to run it. `body` is JSON."""

    id: UUID
    tenant_id: str
    batch_id: UUID | None
    url: str
    provider: str
    upstream_model: str
    attempt: int
    charged: int
    deadline: datetime | None
    claimed_at: datetime
    body: bytes = field(repr=False)


async def claim(connection: Connection, lease: UUID, proposed: Sequence[UUID]) -> list[Claim]:
    """Put those of the proposed jobs that are still queued in progress under `lease`; return them.

    Each gets the next attempt number. An id that does not come back has ended, was cancelled, expired or is held by
    another. Safe to repeat: what this lease already holds is claimed anew.
    """
    rows = await connection.execute(_CLAIM, {"lease": lease, "ids": sorted(proposed)})
    return [Claim(*row) for row in rows]
