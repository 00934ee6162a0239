"""Jobs as callers see them: stored at submit, read one by one and in lists, asked to stop or to run again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from operator import attrgetter
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Row, Select, and_, cast, literal, select, text
from sqlalchemy.dialects.postgresql import JSONB

from shared.db.engine import Connection
from shared.db.tables import attempts, jobs, payloads, results

JobRow = Row[Any]


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job about to be stored, which reads like a row of it. `body` is JSON.

    The estimates are in tokens: of the input by its length, of the output at most what the request allows, 0 for any.
    `route` is a `Route` as it is stored. `key_id` and `team_id` say who submitted it (None: the bootstrap key),
    `end_user` says for whom. `max_cost_nanos` is what the job may spend, `input_bound` the most tokens that its
    input can have (None: nobody counted), `tags` are the `K=V` of its metadata that usage is grouped by, `waits_for`
    is how many jobs of its batch have to end before (None: it waits for none).
    """

    id: UUID
    tenant_id: str
    batch_id: UUID | None
    custom_id: str | None
    url: str
    model: str
    provider: str
    upstream_model: str
    priority: str
    created_at: datetime
    run_at: datetime
    deadline: datetime | None
    metadata: Mapping[str, str]
    webhook: Mapping[str, object] | None
    body: bytes = field(repr=False)
    input_estimate: int = 0
    output_estimate: int = 0
    route: Mapping[str, object] | None = None
    key_id: UUID | None = None
    team_id: UUID | None = None
    end_user: str | None = None
    input_bound: int | None = None
    max_cost_nanos: int | None = None
    tags: Sequence[str] | None = None
    waits_for: int | None = None

    status = "queued"
    attempt = put_off = 0
    started_at = finished_at = error = deployment = None
    input_tokens = cost_nanos = held_by = None
    downgraded = False


# Repeating it after a lost connection changes nothing.
_INSERT = text("""
WITH n AS (
    SELECT * FROM unnest(
        CAST(:id AS uuid[]), CAST(:tenant_id AS text[]), CAST(:batch_id AS uuid[]), CAST(:custom_id AS text[]),
        CAST(:url AS text[]), CAST(:model AS text[]), CAST(:provider AS text[]), CAST(:upstream_model AS text[]),
        CAST(:priority AS text[]), CAST(:created_at AS timestamptz[]), CAST(:run_at AS timestamptz[]),
        CAST(:deadline AS timestamptz[]), CAST(:metadata AS text[]), CAST(:webhook AS text[]), CAST(:body AS bytea[]),
        CAST(:input_estimate AS bigint[]), CAST(:output_estimate AS bigint[]), CAST(:route AS text[]),
        CAST(:key_id AS uuid[]), CAST(:team_id AS uuid[]), CAST(:end_user AS text[]),
        CAST(:input_bound AS bigint[]), CAST(:max_cost_nanos AS bigint[]), CAST(:tags AS text[]),
        CAST(:waits_for AS integer[])
    ) AS n(id, tenant_id, batch_id, custom_id, url, model, provider, upstream_model, priority, created_at, run_at,
           deadline, metadata, webhook, body, input_estimate, output_estimate, route, key_id, team_id, end_user,
           input_bound, max_cost_nanos, tags, waits_for)
), j AS (
    INSERT INTO jobs (id, tenant_id, batch_id, custom_id, url, model, provider, upstream_model, priority, status,
                      created_at, run_at, deadline, metadata, webhook, input_estimate, output_estimate, route,
                      key_id, team_id, end_user, input_bound, max_cost_nanos, tags, waits_for)
    SELECT id, tenant_id, batch_id, custom_id, url, model, provider, upstream_model, priority, 'queued',
           created_at, run_at, deadline, metadata::jsonb, webhook::jsonb, input_estimate, output_estimate, route::jsonb,
           key_id, team_id, end_user, input_bound, max_cost_nanos,
           CASE WHEN tags IS NOT NULL THEN ARRAY(SELECT jsonb_array_elements_text(tags::jsonb)) END, waits_for
    FROM n ON CONFLICT DO NOTHING
)
INSERT INTO payloads (job_id, body) SELECT id, body FROM n ON CONFLICT DO NOTHING
""")

_COLUMNS = tuple(column.name for column in fields(NewJob))
_VALUES = attrgetter(*_COLUMNS)


def _json(value: object) -> str | None:
    return None if value is None else orjson.dumps(value).decode()


async def insert(connection: Connection, new: Sequence[NewJob]) -> None:
    """Store jobs and their payloads in one statement, whatever their number."""
    columns: dict[str, Sequence[object]] = dict(zip(_COLUMNS, zip(*map(_VALUES, new), strict=True), strict=True))
    for column in ("metadata", "webhook", "route", "tags"):
        columns[column] = [_json(value) for value in columns[column]]
    await connection.execute(_INSERT, columns)


def _with_result() -> Select[Any]:
    # Of a job that has not completed there may be an answer that is to be repaired, which is nobody's result.
    answered = and_(results.c.job_id == jobs.c.id, jobs.c.status == "completed")
    return select(jobs, results.c.body.label("result")).outerjoin(results, answered)


async def get(connection: Connection, tenant_id: str, id_: UUID) -> JobRow | None:
    """Return a tenant's job with its `result` (bytes of JSON, or None)."""
    query = _with_result().where(jobs.c.id == id_, jobs.c.tenant_id == tenant_id)
    row: JobRow | None = (await connection.execute(query)).first()
    return row


async def with_request(connection: Connection, tenant_id: str, id_: UUID) -> JobRow | None:
    """Return a tenant's job with its `request`, the body as it was stored, and its `result` (both bytes of JSON)."""
    query = select(jobs, payloads.c.body.label("request"), results.c.body.label("result"))
    query = query.join(payloads, payloads.c.job_id == jobs.c.id).outerjoin(results, results.c.job_id == jobs.c.id)
    query = query.where(jobs.c.id == id_, jobs.c.tenant_id == tenant_id)
    row: JobRow | None = (await connection.execute(query)).first()
    return row


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs a list holds; what is None does not restrict it."""

    status: str | None = None
    model: str | None = None
    batch_id: UUID | None = None
    metadata: Mapping[str, str] | None = None
    created_after: UUID | None = None
    created_before: UUID | None = None
    models: frozenset[str] | None = None


async def page(
    connection: Connection, tenant_id: str, wanted: JobFilter, *, after: UUID | None, limit: int
) -> Sequence[JobRow]:
    """Return up to `limit` of a tenant's jobs, newest first, older than the job `after`; never payloads or results."""
    query = select(jobs).where(jobs.c.tenant_id == tenant_id, *_conditions(wanted))
    if after is not None:
        query = query.where(jobs.c.id < after)
    return (await connection.execute(query.order_by(jobs.c.id.desc()).limit(limit))).all()


def _conditions(wanted: JobFilter) -> list[Any]:
    found = []
    if wanted.status is not None:
        found.append(jobs.c.status == wanted.status)
    if wanted.model is not None:
        found.append(jobs.c.model == wanted.model)
    if wanted.models is not None:
        found.append(jobs.c.model.in_(wanted.models))
    if wanted.batch_id is not None:
        # A batch's id is older than those of its jobs: that prunes the partitions before it.
        found.append(and_(jobs.c.batch_id == wanted.batch_id, jobs.c.id > wanted.batch_id))
    if wanted.metadata:
        found.append(jobs.c.metadata.contains(cast(literal(dict(wanted.metadata), JSONB), JSONB)))
    if wanted.created_after is not None:
        found.append(jobs.c.id >= wanted.created_after)
    if wanted.created_before is not None:
        found.append(jobs.c.id < wanted.created_before)
    return found


async def attempts_of(connection: Connection, tenant_id: str, id_: UUID) -> Sequence[Row[Any]]:
    """Return the ended attempts of a tenant's job, first to last."""
    query = select(attempts).where(attempts.c.job_id == id_, attempts.c.tenant_id == tenant_id)
    return (await connection.execute(query.order_by(attempts.c.number))).all()


async def ask_cancel(connection: Connection, tenant_id: str, id_: UUID) -> JobRow | None:
    """Lock a tenant's job and, where it is in progress, mark it to be cancelled; return it as it was before."""
    query = _with_result().where(jobs.c.id == id_, jobs.c.tenant_id == tenant_id).with_for_update(of=jobs)
    row: JobRow | None = (await connection.execute(query)).first()
    if row is not None and row.status == "in_progress":
        await connection.execute(
            jobs.update()
            .where(jobs.c.id == id_, jobs.c.tenant_id == tenant_id, jobs.c.cancel_asked_at.is_(None))
            .values(cancel_asked_at=text("now()"))
        )
    return row


_LOCK_BATCHES = text("""
SELECT id FROM batches
WHERE id IN (SELECT batch_id FROM jobs WHERE id = ANY(CAST(:ids AS uuid[])) AND tenant_id = :tenant)
ORDER BY id FOR UPDATE
""")

# The job begins anew: its tries, its result and its place in the batch's counts, but never its fence. Where it waited
# for others it waits again for those that have not ended or begin anew too.
_RESTART = text("""
WITH old AS (
    SELECT jobs.id, jobs.status FROM jobs
    WHERE jobs.id = ANY(CAST(:ids AS uuid[])) AND jobs.tenant_id = :tenant AND jobs.status IN ('failed', 'expired')
        AND NOT EXISTS (SELECT FROM batches WHERE batches.id = jobs.batch_id AND batches.status = 'cancelling')
    ORDER BY jobs.id FOR UPDATE
), j AS (
    UPDATE jobs SET status = 'queued', charged = 0, repairs = 0, downgraded = false, run_at = now(),
        route = NULLIF(route - 'charged_before', '{}'),
        finished_at = NULL, error = NULL,
        cancel_asked_at = NULL, batch_sequence = NULL,
        deadline = CASE WHEN deadline <= now() THEN NULL ELSE deadline END,
        waits_for = CASE WHEN waits_for IS NOT NULL THEN (
            SELECT count(*) FROM dependencies d JOIN jobs n ON n.id = d.needs LEFT JOIN old AS too ON too.id = n.id
            WHERE d.job_id = jobs.id AND (n.finished_at IS NULL OR too.id IS NOT NULL)
        ) END
    FROM old WHERE jobs.id = old.id
    RETURNING jobs.id, jobs.tenant_id, jobs.key_id, jobs.provider, jobs.upstream_model, jobs.priority, jobs.run_at,
        jobs.deadline, jobs.input_estimate, jobs.output_estimate, old.status AS was, jobs.batch_id, jobs.waits_for
), w AS (
    UPDATE jobs SET waits_for = jobs.waits_for + again.begun
    FROM (SELECT d.job_id, count(*) AS begun FROM old JOIN dependencies d ON d.needs = old.id GROUP BY 1) AS again
    WHERE jobs.id = again.job_id AND jobs.waits_for >= 0 AND jobs.status = 'queued'
        AND jobs.id NOT IN (SELECT id FROM old)
), c AS (
    UPDATE batches SET finished_at = NULL, status = 'in_progress', cancelling_at = NULL,
        failed = failed - n.n_failed, expired = expired - n.n_expired
    FROM (SELECT batch_id, count(*) FILTER (WHERE was = 'failed') AS n_failed,
                 count(*) FILTER (WHERE was = 'expired') AS n_expired
          FROM j WHERE batch_id IS NOT NULL GROUP BY batch_id) AS n
    WHERE batches.id = n.batch_id
)
SELECT id, tenant_id, key_id, provider, upstream_model, priority, run_at, deadline, input_estimate, output_estimate,
    waits_for
FROM j
""")


async def restart(connection: Connection, tenant_id: str, wanted: Sequence[UUID]) -> Sequence[JobRow]:
    """Queue a tenant's failed or expired jobs again; return those that were (to be enqueued after the commit).

    A deadline that has passed is dropped, since the job was asked for again after it. One with `waits_for` is to be
    enqueued only once it waits no more.
    """
    query = {"ids": list(wanted), "tenant": tenant_id}
    await connection.execute(_LOCK_BATCHES, query)  # by itself, so that the next statement sees what is committed then
    return (await connection.execute(_RESTART, query)).all()


async def restartable(connection: Connection, tenant_id: str, wanted: JobFilter, *, limit: int) -> Sequence[UUID]:
    """Return up to `limit` of a tenant's failed or expired jobs, oldest first."""
    query = select(jobs.c.id).where(
        jobs.c.tenant_id == tenant_id, jobs.c.status.in_(("failed", "expired")), *_conditions(wanted)
    )
    return (await connection.execute(query.order_by(jobs.c.id).limit(limit))).scalars().all()
