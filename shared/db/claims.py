"""Claims: Redis proposed these ids, Postgres disposes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text

from shared.db.budgets import OF_JOB
from shared.db.engine import Connection

# Locking the lease's row keeps maintenance from taking it away meanwhile; without the row nothing is claimed.
# `IS TRUE` hides the condition from the indexes on it, with which a plan would read the whole backlog for every claim.
_CLAIM = text(f"""
WITH l AS (SELECT id FROM leases WHERE id = :lease FOR KEY SHARE)
UPDATE jobs SET
    status = 'in_progress', attempt = jobs.attempt + 1, lease_id = l.id, claimed_at = now(),
    started_at = COALESCE(jobs.started_at, now()), held_by = NULL
FROM l, unnest(CAST(:ids AS uuid[]), CAST(:lanes AS text[])) AS c(id, lane) JOIN payloads ON payloads.job_id = c.id
WHERE jobs.id = c.id AND jobs.provider = :provider AND jobs.upstream_model = c.lane
    AND (jobs.status = 'queued' OR jobs.lease_id = l.id) IS TRUE
    AND jobs.cancel_asked_at IS NULL AND COALESCE(jobs.waits_for, -1) < 0
    AND (jobs.deadline IS NULL OR jobs.deadline > now())
RETURNING jobs.id, jobs.tenant_id, jobs.batch_id, jobs.url, jobs.provider, jobs.upstream_model, jobs.attempt,
    jobs.charged, jobs.deadline, jobs.claimed_at, jobs.route, jobs.model, jobs.priority, jobs.input_estimate,
    jobs.output_estimate, payloads.body, jobs.input_bound, jobs.max_cost_nanos, jobs.cost_nanos,
    jobs.input_tokens, jobs.downgraded, jobs.put_off, jobs.key_id,
    ARRAY(SELECT b.id FROM budgets b WHERE {OF_JOB}) AS budgets, jobs.repairs,
    CASE WHEN jobs.repairs > 0 THEN (SELECT r.body FROM results r WHERE r.job_id = jobs.id) END AS repair
""")


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that this process holds under its lease, with all it needs to run it.

    `model` is the name that the caller asked for, the estimates are in tokens (of the output what the request allows, 0
    for any; `input_bound` what the input can be at most, None where nobody counted), `body` is JSON. The job may spend
    `max_cost_nanos` and has spent `cost_nanos` (None with `input_tokens`: nobody knows how much); `budgets` are those
    that it spends from, for which it was `put_off` so often. `held_nanos` are held for this attempt, None where
    nothing has to be, `usual_nanos` is what such a call usually costs, and `output_cap` to how many tokens its answer
    is limited for that. Its answer was asked for `repairs` times because the last one, `repair` (JSON), did not fit.
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
    input_bound: int | None = None
    max_cost_nanos: int | None = None
    cost_nanos: int | None = None
    input_tokens: int | None = None
    downgraded: bool = False
    put_off: int = 0
    key_id: UUID | None = None
    budgets: Sequence[UUID] = ()
    repairs: int = 0
    repair: bytes | None = field(default=None, repr=False)
    held_nanos: int | None = None
    usual_nanos: int | None = None
    output_cap: int | None = None

    @property
    def spends(self) -> bool:
        """Whether anything limits what its call may cost."""
        return bool(self.budgets) or self.max_cost_nanos is not None


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
