"""Every change of a job's status after its claim, in one fenced statement for many jobs at once.

Job, result, attempt, usage, cost, batch counters and pending deliveries commit together. A transition whose fence no
longer matches changes no job and makes no event; what its attempt used is still booked on the attempt, because the
provider charged for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

import orjson
from sqlalchemy import Row, text

from shared import ids
from shared.db.engine import Connection
from shared.limits import NOTHING_SPENT, Spent
from shared.routing import NOWHERE_ELSE, Route, Target

AttemptStatus = Literal["completed", "failed", "released", "lost", "cancelled", "expired"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEnd:
    """How an attempt ended. Tokens are None where nothing is known; `error` is JSON; times are aware."""

    status: AttemptStatus
    charged: bool
    started_at: datetime
    ended_at: datetime
    provider: str
    deployment: str | None = None
    key_name: str | None = None
    error: str | None = None
    upstream_request_id: str | None = None
    input_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    estimated: bool = False
    cost_nanos: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A job's next status, and the fence: it takes effect only from `was` and at attempt number `attempt`.

    `attempt_end` is None where no attempt was under way (a queued job that is cancelled or expires), `spent` what its
    call was to the limits. A job that goes to another target, `to`, keeps its place; `route` is where it may go from
    there.
    """

    id: UUID
    tenant_id: str
    batch_id: UUID | None
    target: Target
    attempt: int
    was: Literal["queued", "in_progress"]
    status: Literal["queued", "completed", "failed", "cancelled", "expired"]
    at: datetime
    run_at: datetime | None = None
    error: str | None = None
    result: bytes | None = field(default=None, repr=False)
    attempt_end: AttemptEnd | None = None
    spent: Spent = NOTHING_SPENT
    to: Target | None = None
    route: Route = NOWHERE_ELSE

    @property
    def to_provider(self) -> str | None:
        """The provider of the target it goes to."""
        return None if self.to is None else self.to.provider

    @property
    def to_model(self) -> str | None:
        """The upstream model of the target it goes to."""
        return None if self.to is None else self.to.model

    @property
    def to_route(self) -> str | None:
        """Where it may go from there, as JSON."""
        return orjson.dumps(self.route.stored()).decode() if self.to else None


def ended_queued(row: Any, status: Literal["cancelled", "expired"]) -> Transition:
    """Return the end of a job that is a queued row of `jobs`; it takes effect only if nobody claims it before."""
    return _of_queued(row, status=status)


def moved_queued(row: Any, to: Target, route: Route) -> Transition:
    """Return the move of a queued job to another target's queue; it takes effect only if nobody claims it before."""
    return _of_queued(row, status="queued", to=to, route=route)


def _of_queued(row: Any, **change: Any) -> Transition:
    return Transition(
        id=row.id,
        tenant_id=row.tenant_id,
        batch_id=row.batch_id,
        target=Target(row.provider, row.upstream_model),
        attempt=row.attempt,
        was="queued",
        at=datetime.now(UTC),
        **change,
    )


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a transition.

    The job's status after it (None: the fence did not match), whether there is an event to deliver, and the job's row
    where it is queued for another target.
    """

    status: str | None
    has_delivery: bool
    moved: Row[Any] | None = None


# A retry of a job that was asked to stop ends as `cancelled`. Batches are locked first and in order of id, so that two
# groups cannot wait for each other and a batch's sequence numbers are committed in their order.
_APPLY = text("""
WITH f AS (
    SELECT *, row_number() OVER (PARTITION BY batch_id ORDER BY id) AS rank FROM unnest(
        CAST(:id AS uuid[]), CAST(:tenant_id AS text[]), CAST(:batch_id AS uuid[]), CAST(:attempt AS integer[]),
        CAST(:was AS text[]), CAST(:status AS text[]), CAST(:at AS timestamptz[]), CAST(:run_at AS timestamptz[]),
        CAST(:error AS text[]), CAST(:result AS bytea[]), CAST(:to_provider AS text[]), CAST(:to_model AS text[]),
        CAST(:to_route AS text[]), CAST(:delivery_id AS uuid[]),
        CAST(:a_status AS text[]), CAST(:a_charged AS boolean[]), CAST(:a_started_at AS timestamptz[]),
        CAST(:a_ended_at AS timestamptz[]), CAST(:a_provider AS text[]), CAST(:a_deployment AS text[]),
        CAST(:a_key_name AS text[]), CAST(:a_error AS text[]), CAST(:a_upstream_request_id AS text[]),
        CAST(:a_input_tokens AS bigint[]), CAST(:a_cached_tokens AS bigint[]),
        CAST(:a_cache_write_tokens AS bigint[]), CAST(:a_output_tokens AS bigint[]),
        CAST(:a_reasoning_tokens AS bigint[]), CAST(:a_estimated AS boolean[]), CAST(:a_cost_nanos AS bigint[])
    ) AS f(id, tenant_id, batch_id, attempt, was, status, at, run_at, error, result, to_provider,
           to_model, to_route, delivery_id,
           a_status, charged, started_at, ended_at, provider, deployment, key_name, a_error, upstream_request_id,
           input_tokens, cached_tokens, cache_write_tokens, output_tokens, reasoning_tokens, estimated, cost_nanos)
), b AS MATERIALIZED (
    SELECT id, sequence FROM batches WHERE id IN (SELECT batch_id FROM f) ORDER BY id FOR UPDATE
), j AS (
    UPDATE jobs SET
        status = CASE WHEN f.status = 'queued' AND jobs.cancel_asked_at IS NOT NULL THEN 'cancelled' ELSE f.status END,
        charged = jobs.charged + COALESCE(f.charged, false)::integer,
        run_at = COALESCE(f.run_at, jobs.run_at),
        provider = COALESCE(f.to_provider, jobs.provider),
        upstream_model = COALESCE(f.to_model, jobs.upstream_model),
        route = CASE WHEN f.to_provider IS NULL THEN jobs.route ELSE NULLIF(f.to_route::jsonb, 'null'::jsonb) END,
        lease_id = NULL,
        finished_at = CASE WHEN f.status <> 'queued' OR jobs.cancel_asked_at IS NOT NULL THEN f.at END,
        error = f.error::jsonb,
        deployment = COALESCE(f.deployment, jobs.deployment),
        input_tokens = COALESCE(f.input_tokens, jobs.input_tokens),
        cached_tokens = COALESCE(f.cached_tokens, jobs.cached_tokens),
        cache_write_tokens = COALESCE(f.cache_write_tokens, jobs.cache_write_tokens),
        output_tokens = COALESCE(f.output_tokens, jobs.output_tokens),
        reasoning_tokens = COALESCE(f.reasoning_tokens, jobs.reasoning_tokens),
        cost_nanos = CASE WHEN (f.input_tokens IS NOT NULL AND f.cost_nanos IS NULL)
                            OR (jobs.input_tokens IS NOT NULL AND jobs.cost_nanos IS NULL) THEN NULL
                          ELSE COALESCE(jobs.cost_nanos, 0) + COALESCE(f.cost_nanos, 0) END,
        batch_sequence = CASE WHEN f.status <> 'queued' OR jobs.cancel_asked_at IS NOT NULL
                              THEN b.sequence + f.rank END
    FROM f LEFT JOIN b ON b.id = f.batch_id
    WHERE jobs.id = f.id AND jobs.tenant_id = f.tenant_id AND jobs.attempt = f.attempt AND jobs.status = f.was
    RETURNING jobs.id, jobs.attempt, jobs.tenant_id, jobs.batch_id, jobs.status, jobs.webhook,
        f.was, f.rank, f.result, f.delivery_id, f.at,
        f.input_tokens, f.cached_tokens, f.cache_write_tokens, f.output_tokens, f.reasoning_tokens, f.cost_nanos
), r AS (
    INSERT INTO results (job_id, body) SELECT id, result FROM j WHERE result IS NOT NULL AND status = 'completed'
    ON CONFLICT (job_id) DO UPDATE SET body = excluded.body
), a AS (
    INSERT INTO attempts (job_id, number, tenant_id, provider, deployment, key_name, status, charged, started_at,
        ended_at, error, upstream_request_id, input_tokens, cached_tokens, cache_write_tokens, output_tokens,
        reasoning_tokens, estimated, cost_nanos)
    SELECT id, attempt, tenant_id, provider, deployment, key_name, a_status, charged, started_at,
        ended_at, a_error::jsonb, upstream_request_id, input_tokens, cached_tokens, cache_write_tokens, output_tokens,
        reasoning_tokens, estimated, cost_nanos
    FROM f WHERE a_status IS NOT NULL
    ON CONFLICT (job_id, number) DO UPDATE SET deployment = excluded.deployment, key_name = excluded.key_name,
        upstream_request_id = excluded.upstream_request_id, input_tokens = excluded.input_tokens,
        cached_tokens = excluded.cached_tokens, cache_write_tokens = excluded.cache_write_tokens,
        output_tokens = excluded.output_tokens,
        reasoning_tokens = excluded.reasoning_tokens, estimated = excluded.estimated, cost_nanos = excluded.cost_nanos
    WHERE attempts.status IN ('lost', 'released') AND excluded.status <> 'lost'
), d AS (
    INSERT INTO deliveries (id, tenant_id, job_id, type, url, include_result, created_at)
    SELECT delivery_id, tenant_id, id, 'job.' || status, webhook->>'url',
        COALESCE((webhook->>'include_result')::boolean, false), at
    FROM j WHERE webhook IS NOT NULL AND status <> 'queued'
), c AS (
    UPDATE batches SET
        completed = completed + n.n_completed, failed = failed + n.n_failed,
        cancelled = cancelled + n.n_cancelled, expired = expired + n.n_expired,
        sequence = sequence + n.ranks,
        input_tokens = input_tokens + n.n_input, cached_tokens = cached_tokens + n.n_cached,
        cache_write_tokens = cache_write_tokens + n.n_cache_write,
        output_tokens = output_tokens + n.n_output, reasoning_tokens = reasoning_tokens + n.n_reasoning,
        cost_nanos = cost_nanos + n.n_cost, unpriced = unpriced + n.n_unpriced,
        status = CASE WHEN completed + failed + cancelled + expired + n.n_ended < total THEN status
                      WHEN status = 'cancelling' THEN 'cancelled' ELSE 'completed' END,
        finished_at = CASE WHEN completed + failed + cancelled + expired + n.n_ended = total THEN n.at END
    FROM (
        SELECT batch_id, max(rank) AS ranks, max(at) AS at,
            count(*) FILTER (WHERE status <> 'queued') AS n_ended,
            count(*) FILTER (WHERE status = 'completed') AS n_completed,
            count(*) FILTER (WHERE status = 'failed') AS n_failed,
            count(*) FILTER (WHERE status = 'cancelled') AS n_cancelled,
            count(*) FILTER (WHERE status = 'expired') AS n_expired,
            COALESCE(sum(input_tokens), 0) AS n_input, COALESCE(sum(cached_tokens), 0) AS n_cached,
            COALESCE(sum(cache_write_tokens), 0) AS n_cache_write,
            COALESCE(sum(output_tokens), 0) AS n_output, COALESCE(sum(reasoning_tokens), 0) AS n_reasoning,
            COALESCE(sum(cost_nanos), 0) AS n_cost,
            count(*) FILTER (WHERE input_tokens IS NOT NULL AND cost_nanos IS NULL) AS n_unpriced
        FROM j WHERE batch_id IS NOT NULL GROUP BY batch_id
    ) AS n WHERE batches.id = n.batch_id
)
SELECT id, attempt, was, status, webhook IS NOT NULL AND status <> 'queued' AS has_delivery FROM j
""")

_MOVED = text("""
SELECT id, tenant_id, provider, upstream_model, priority, run_at, deadline, input_estimate, output_estimate FROM jobs
WHERE id = ANY(CAST(:ids AS uuid[]))
""")

_JOB_COLUMNS = ("id", "tenant_id", "batch_id", "attempt", "was", "status", "at", "run_at", "error", "result",
                "to_provider", "to_model", "to_route")  # fmt: skip
_ATTEMPT_COLUMNS = tuple(AttemptEnd.__slots__)
_NOT_APPLIED = Applied(None, has_delivery=False)


async def apply(connection: Connection, transitions: Sequence[Transition]) -> list[Applied]:
    """Apply transitions in one statement; return what became of each, in order. Safe to repeat.

    Of several with the same fence the first takes effect.
    """
    first = {_fence(t): t for t in reversed(transitions)}
    ordered = [first[fence] for fence in sorted(first)]
    columns: dict[str, list[object]] = {name: [getattr(t, name) for t in ordered] for name in _JOB_COLUMNS}
    columns["delivery_id"] = [ids.new_id() for _ in ordered]
    for name in _ATTEMPT_COLUMNS:
        columns[f"a_{name}"] = [getattr(t.attempt_end, name) if t.attempt_end else None for t in ordered]
    rows = await connection.execute(_APPLY, columns)
    applied = {_fence(row): Applied(row.status, row.has_delivery) for row in rows}
    went = [fence for fence, one in applied.items() if one.status == "queued" and first[fence].to is not None]
    if went:
        moved = {row.id: row for row in await connection.execute(_MOVED, {"ids": [fence[0] for fence in went]})}
        applied |= {fence: replace(applied[fence], moved=moved[fence[0]]) for fence in went}
    return [applied.get(_fence(t), _NOT_APPLIED) if first[_fence(t)] is t else _NOT_APPLIED for t in transitions]


def _fence(of: Any) -> tuple[UUID, int, str]:
    return of.id, of.attempt, of.was
