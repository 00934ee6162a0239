"""Claims: Redis proposed these ids, Postgres disposes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
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
FROM l, unnest(CAST(:ids AS uuid[]), CAST(:lanes AS text[])) AS c(id, lane) JOIN payloads ON payloads.job_id = c.id
WHERE jobs.id = c.id AND jobs.provider = :provider AND jobs.upstream_model = c.lane
    AND (jobs.status = 'queued' OR jobs.lease_id = l.id) IS TRUE
    AND jobs.cancel_asked_at IS NULL AND (jobs.deadline IS NULL OR jobs.deadline > now())
RETURNING jobs.id, jobs.tenant_id, jobs.batch_id, jobs.url, jobs.provider, jobs.upstream_model, jobs.attempt,
    jobs.charged, jobs.deadline, jobs.claimed_at, jobs.route, jobs.model, jobs.priority, jobs.input_estimate,
    jobs.output_estimate, payloads.body
""")


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that this process holds under its lease, with all it needs to run it.

    `model` is the name that the caller asked for, the estimates are in tokens (of the output what the request allows, 0
    for any), `body` is JSON.
    """

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
    route: Mapping[str, Any] | None
    model: str
    priority: str
    input_estimate: int
    output_estimate: int
    body: bytes = field(repr=False)


async def claim(connection: Connection, lease: UUID, provider: str, proposed: Mapping[UUID, str]) -> list[Claim]:
    """Put those of the proposed jobs that are still queued in progress under `lease`; return them.

    `proposed` has the lane of each. Each gets the next attempt number. An id that does not come back has ended, was
    cancelled, expired, went to another lane or is held by another. Safe to repeat: what this lease already holds is
    claimed anew.
    """
    ids = sorted(proposed)
    rows = await connection.execute(
        _CLAIM, {"lease": lease, "provider": provider, "ids": ids, "lanes": [proposed[id_] for id_ in ids]}
    )
    return [Claim(*row) for row in rows]
