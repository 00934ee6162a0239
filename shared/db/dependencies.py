"""Jobs of a batch that wait for others of it. `jobs.waits_for` counts down as these end, see `transitions.sql`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from shared.db.engine import Connection

CHUNK = 10_000


@dataclass(frozen=True, slots=True)
class Dependency:
    """The job `job_id` waits for `needs`, and goes on without it where that does not complete and `go_on` says so."""

    needs: UUID
    job_id: UUID
    tenant_id: str
    go_on: bool


_INSERT = text("""
INSERT INTO dependencies (needs, job_id, tenant_id, go_on)
SELECT * FROM unnest(
    CAST(:needs AS uuid[]), CAST(:job_id AS uuid[]), CAST(:tenant_id AS text[]), CAST(:go_on AS boolean[])
)
ON CONFLICT DO NOTHING
""")

# A tenant that lets go of many is served in turn with the others.
_READY = text("""
SELECT j.id, j.tenant_id, j.batch_id, j.provider, j.upstream_model, j.attempt, j.input_bound, n.bytes, n.failed,
    b.cancelling_at IS NOT NULL AS cancelling
FROM (
    SELECT id, row_number() OVER (PARTITION BY tenant_id ORDER BY id) AS place
    FROM jobs WHERE status = 'queued' AND waits_for = 0 ORDER BY place, id LIMIT :limit
) AS next JOIN jobs j ON j.id = next.id JOIN batches b ON b.id = j.batch_id CROSS JOIN LATERAL (
    SELECT COALESCE(sum(octet_length(r.body)), 0) AS bytes,
        min(COALESCE(n.custom_id, n.id::text)) FILTER (WHERE n.status <> 'completed' AND NOT d.go_on) AS failed
    FROM dependencies d JOIN jobs n ON n.id = d.needs
        LEFT JOIN results r ON r.job_id = n.id AND n.status = 'completed'
    WHERE d.job_id = j.id
) AS n
WHERE j.status = 'queued' AND j.waits_for = 0 ORDER BY place, j.id FOR UPDATE OF j SKIP LOCKED
""")

_TEMPLATES = text("""
SELECT job_id, COALESCE(template, body) AS body FROM payloads WHERE job_id = ANY(CAST(:ids AS uuid[]))
""")

_ANSWERS = text("""
SELECT d.job_id, n.custom_id, n.url, r.body
FROM dependencies d JOIN jobs n ON n.id = d.needs AND n.tenant_id = d.tenant_id AND n.status = 'completed'
    JOIN results r ON r.job_id = n.id
WHERE d.job_id = ANY(CAST(:ids AS uuid[]))
""")

_LET_GO = text("""
WITH f AS (
    SELECT * FROM unnest(
        CAST(:ids AS uuid[]), CAST(:bodies AS bytea[]), CAST(:estimates AS bigint[]), CAST(:bounds AS bigint[])
    ) AS f(id, body, estimate, bound)
), p AS (
    UPDATE payloads SET template = COALESCE(template, payloads.body), body = f.body FROM f WHERE job_id = f.id
)
UPDATE jobs SET waits_for = -1, input_estimate = f.estimate, input_bound = f.bound FROM f WHERE jobs.id = f.id
RETURNING jobs.id, tenant_id, key_id, provider, upstream_model, priority, run_at, deadline, input_estimate,
    output_estimate
""")


@dataclass(frozen=True, slots=True)
class Filled:
    """A job's body with the answers it waited for, and what its input comes to, in tokens, as `NewJob` has it."""

    id: UUID
    body: bytes
    input_estimate: int
    input_bound: int | None


async def insert(connection: Connection, new: Sequence[Dependency]) -> None:
    """Store what waits for what, in the transaction that stores the jobs."""
    names = ("needs", "job_id", "tenant_id", "go_on")
    for start in range(0, len(new), CHUNK):
        chunk = new[start : start + CHUNK]
        await connection.execute(_INSERT, {name: [getattr(one, name) for one in chunk] for name in names})


async def ready(connection: Connection, *, limit: int) -> Sequence[Row[Any]]:
    """Lock up to `limit` jobs of all tenants that wait for nobody any more and are not let go yet; return them.

    `bytes` is the size of the answers they waited for, `failed` one that did not complete and without which they do not
    go on; `cancelling` says that their batch is.
    """
    return (await connection.execute(_READY, {"limit": limit})).all()


async def templates(connection: Connection, wanted: Sequence[UUID]) -> dict[UUID, bytes]:
    """Return jobs' bodies as they were submitted."""
    return {row.job_id: row.body for row in await connection.execute(_TEMPLATES, {"ids": list(wanted)})}


async def answers(connection: Connection, wanted: Sequence[UUID]) -> Sequence[Row[Any]]:
    """Return the answers that jobs waited for: `job_id`, and the `custom_id`, `url` and `body` of the other."""
    return (await connection.execute(_ANSWERS, {"ids": list(wanted)})).all()


async def let_go(connection: Connection, filled: Sequence[Filled]) -> Sequence[Row[Any]]:
    """Let jobs go, which this transaction has locked; return them, to be enqueued after it."""
    query = {
        "ids": [one.id for one in filled],
        "bodies": [one.body for one in filled],
        "estimates": [one.input_estimate for one in filled],
        "bounds": [one.input_bound for one in filled],
    }
    return (await connection.execute(_LET_GO, query)).all()
