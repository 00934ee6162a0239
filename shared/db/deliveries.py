"""Pending deliveries: the outbox. Written by what ends a job or a batch, emptied by `workers/deliver.py`.

Its lanes keep receivers apart: an endpoint is one (its id in hex), and so is a tenant's use of a host that its jobs and
batches name (`tenant/host:port`). What is read of it never depends on how much waits, only on how many lanes have
something due: `look` finds these by when their deliveries fell due, `look_everywhere` by going from lane to lane.
What became of deliveries is `delivery_history`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from operator import attrgetter
from typing import Any, Literal, NamedTuple
from uuid import UUID

from sqlalchemy import Row, text

from shared import ids
from shared.db import alerts
from shared.db.alerts import NewAlert
from shared.db.engine import Connection

Status = Literal["pending", "delivered", "exhausted", "disabled"]

CONCURRENCY = 10
"""How many deliveries a lane that is no endpoint has under way."""
FAILING_DAYS = 5
"""An endpoint that fails for so long is disabled."""
_AT_ONCE_DISABLED = 100

_LOOK = text("""
SELECT now() AS at,
    ARRAY(SELECT DISTINCT lane FROM deliveries
        WHERE status = 'pending' AND next_at > :since AND next_at <= now()) AS lanes,
    (SELECT EXTRACT(epoch FROM min(next_at) - now())::float FROM deliveries
        WHERE status = 'pending' AND next_at > now()) AS seconds
""")
_LOOK_EVERYWHERE = text("""
WITH RECURSIVE found AS (
    (SELECT lane, next_at FROM deliveries WHERE status = 'pending' ORDER BY lane, next_at LIMIT 1)
    UNION ALL
    SELECT next.lane, next.next_at FROM found CROSS JOIN LATERAL (
        SELECT lane, next_at FROM deliveries
        WHERE status = 'pending' AND lane > found.lane ORDER BY lane, next_at LIMIT 1
    ) AS next
)
SELECT lane FROM found WHERE next_at <= now()
""")
# An endpoint's lane is its id. What is for one that is disabled takes no place: it is not sent.
_CLAIM = text("""
WITH l AS (
    SELECT asked.lane, e.*, CASE WHEN NOT e.enabled OR e.deleted_at IS NOT NULL THEN :disabled
        ELSE GREATEST(LEAST(asked.width, COALESCE(e.concurrency, :concurrency)) - asked.busy, 0) END AS room
    FROM unnest(CAST(:lanes AS text[]), CAST(:widths AS integer[]), CAST(:busy AS integer[]))
        AS asked(lane, width, busy)
    LEFT JOIN webhook_endpoints e ON e.id = CASE WHEN strpos(asked.lane, '/') = 0 THEN asked.lane::uuid END
), c AS MATERIALIZED (
    SELECT due.id, due.next_at AS due_at, l.url AS endpoint_url, l.headers, l.include_result AS full_payload, l.rpm,
        l.updated_at AS changed_at,
        l.room, COALESCE(l.concurrency, :concurrency) AS concurrency, COALESCE(l.ordered, false) AS ordered,
        COALESCE(l.enabled AND l.deleted_at IS NULL, true) AS enabled
    FROM l CROSS JOIN LATERAL (
        SELECT d.id, d.next_at FROM deliveries d
        WHERE d.lane = l.lane AND d.status = 'pending' AND d.next_at <= now() AND NOT (COALESCE(l.ordered, false) AND
            EXISTS (SELECT FROM deliveries o WHERE o.job_id = d.job_id AND o.endpoint_id = d.endpoint_id
                AND o.status = 'pending' AND (o.event_id, o.id) < (d.event_id, d.id)))
        ORDER BY d.next_at LIMIT l.room FOR UPDATE SKIP LOCKED
    ) AS due
    LIMIT :limit
)
UPDATE deliveries SET next_at = now() + make_interval(secs => :lease), tries = tries + 1
FROM c WHERE deliveries.id = c.id
RETURNING deliveries.id, event_id, tenant_id, endpoint_id, lane, type, job_id, batch_id, body, tries, due_at, headers,
    rpm, changed_at, room, concurrency, ordered, enabled, COALESCE(endpoint_url, url) AS url,
    COALESCE(full_payload, include_result) AS include_result,
    CASE WHEN endpoint_id IS NULL THEN (SELECT webhook_hosts FROM tenants t WHERE t.id = tenant_id) END AS webhook_hosts
""")
_JOBS = text("""
SELECT j.*, CASE WHEN octet_length(r.body) <= :most THEN r.body END AS result, octet_length(r.body) AS result_bytes
FROM unnest(CAST(:ids AS uuid[]), CAST(:tenants AS text[]), CAST(:results AS boolean[])) AS asked(id, tenant_id, result)
CROSS JOIN LATERAL (SELECT * FROM jobs WHERE jobs.id = asked.id AND jobs.tenant_id = asked.tenant_id) AS j
LEFT JOIN LATERAL (
    SELECT body FROM results WHERE results.job_id = asked.id AND asked.result AND j.status = 'completed'
) AS r ON true
""")
# Pending is what has no end: asked for by its status, the planner would read all that is pending. What waits behind an
# event of an ordered endpoint falls due when that does, or at once where that has ended: a claim need not read past it.
_RECORD = text(f"""
WITH r AS (
    SELECT * FROM unnest(
        CAST(:id AS uuid[]), CAST(:tries AS integer[]), CAST(:tenant_id AS text[]), CAST(:endpoint_id AS uuid[]),
        CAST(:status AS text[]), CAST(:next_at AS timestamptz[]), CAST(:sent AS boolean[]), CAST(:at AS timestamptz[]),
        CAST(:ms AS integer[]), CAST(:answer AS integer[]), CAST(:error AS text[]), CAST(:excerpt AS text[])
    ) AS r(id, tries, tenant_id, endpoint_id, status, next_at, sent, at, ms, answer, error, excerpt)
), d AS (
    UPDATE deliveries SET status = r.status,
        next_at = COALESCE(CASE WHEN r.sent THEN GREATEST(r.next_at, clock_timestamp()) ELSE r.next_at END,
            deliveries.next_at),
        finished_at = CASE WHEN r.status <> 'pending' THEN now() END,
        tries = deliveries.tries - (NOT r.sent)::integer,
        answer_status = CASE WHEN r.sent THEN r.answer ELSE deliveries.answer_status END,
        answer_error = CASE WHEN r.sent THEN r.error ELSE deliveries.answer_error END
    FROM r WHERE deliveries.id = r.id AND deliveries.tries = r.tries AND deliveries.finished_at IS NULL
), q AS (
    UPDATE deliveries SET next_at = COALESCE(r.next_at, clock_timestamp())
    FROM r JOIN deliveries f ON f.id = r.id AND f.job_id IS NOT NULL
        JOIN webhook_endpoints e ON e.id = f.endpoint_id AND e.ordered
    WHERE r.sent AND deliveries.job_id = f.job_id AND deliveries.endpoint_id = f.endpoint_id
        AND deliveries.finished_at IS NULL AND (deliveries.event_id, deliveries.id) > (f.event_id, f.id)
        AND deliveries.id NOT IN (SELECT id FROM r)
), a AS (
    INSERT INTO delivery_attempts (delivery_id, number, tenant_id, at, status, error, ms, excerpt)
    SELECT id, tries, tenant_id, at, answer, error, ms, excerpt FROM r WHERE sent ON CONFLICT DO NOTHING
), o AS (
    SELECT endpoint_id, bool_or(status = 'delivered') AS good FROM r WHERE sent AND endpoint_id IS NOT NULL GROUP BY 1
), e AS (
    UPDATE webhook_endpoints SET failing_since = CASE WHEN NOT o.good THEN now() END
    FROM o WHERE webhook_endpoints.id = o.endpoint_id AND (failing_since IS NOT NULL) = o.good
)
SELECT id FROM webhook_endpoints JOIN o ON o.endpoint_id = id AND NOT o.good
WHERE enabled AND deleted_at IS NULL AND failing_since < now() - interval '{FAILING_DAYS} days'
""")
_DISABLE = text("""
UPDATE webhook_endpoints SET enabled = false, disabled_reason = :reason
WHERE id = :id AND enabled AND deleted_at IS NULL RETURNING tenant_id, name, now() AS at
""")


class Looked(NamedTuple):
    """What `look` found: Postgres's time, the lanes, and the seconds until more is due (None: nothing waits)."""

    at: datetime
    lanes: Sequence[str]
    seconds: float | None


async def look(connection: Connection, since: datetime) -> Looked:
    """Return the lanes of which something fell due after `since` and is still to be delivered."""
    row = (await connection.execute(_LOOK, {"since": since})).one()
    return Looked(row.at, row.lanes, row.seconds)


async def look_everywhere(connection: Connection) -> Sequence[str]:
    """Return all lanes that have something due."""
    return (await connection.execute(_LOOK_EVERYWHERE)).scalars().all()


class Room(NamedTuple):
    """What a lane may be given: no more than `width` at once, `busy` of which are under way."""

    lane: str
    width: int
    busy: int


async def claim(connection: Connection, rooms: Sequence[Room], *, limit: int, lease: float) -> Sequence[Row[Any]]:
    """Take due deliveries of these lanes, `limit` at most, for `lease` seconds; after that they are due again.

    A lane gives as many as it has room for, an endpoint no more than its own concurrency allows. Of an `ordered` one no
    delivery is taken before the earlier ones of the same job have ended. Each row has what is to be known of its
    endpoint, and `room`: a lane that gave fewer has nothing more.
    """
    asked = {
        "lanes": [one.lane for one in rooms],
        "widths": [one.width for one in rooms],
        "busy": [one.busy for one in rooms],
        "concurrency": CONCURRENCY,
        "disabled": _AT_ONCE_DISABLED,
        "limit": limit,
        "lease": lease,
    }
    return (await connection.execute(_CLAIM, asked)).all()


async def jobs_of(connection: Connection, claimed: Sequence[Row[Any]], *, most: int) -> dict[UUID, Row[Any]]:
    """Return the jobs that deliveries are about, with their results where one of them is to have it.

    `result` is None for one of more than `most` bytes; `result_bytes` is None where there is none at all.
    """
    wanted: dict[UUID, tuple[str, bool]] = {}
    for one in claimed:
        if one.job_id is not None:
            full = one.include_result or wanted.get(one.job_id, ("", False))[1]
            wanted[one.job_id] = (one.tenant_id, full)
    if not wanted:
        return {}
    tenants, results = zip(*wanted.values(), strict=True)
    query = {"ids": list(wanted), "tenants": tenants, "results": results, "most": most}
    return {row.id: row for row in await connection.execute(_JOBS, query)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """What became of try number `tries` of a delivery, and when a pending one is due again.

    One that was not `sent` did not happen: it costs no try and is not in the history. `endpoint_id` is None where the
    outcome says nothing of the endpoint; `ms` is how long the answer took.
    """

    id: UUID
    tries: int
    tenant_id: str
    endpoint_id: UUID | None
    status: Status
    next_at: datetime | None
    sent: bool
    at: datetime
    ms: int = 0
    answer: int | None = None
    error: str | None = None
    excerpt: str | None = None


_COLUMNS = tuple(column.name for column in fields(Try))
_VALUES = attrgetter(*_COLUMNS)


async def record(connection: Connection, tries: Sequence[Try]) -> Sequence[UUID]:
    """Write down what became of tries, in one statement; return the endpoints that have failed for too long."""
    columns = dict(zip(_COLUMNS, zip(*map(_VALUES, tries), strict=True), strict=True))
    return (await connection.execute(_RECORD, columns)).scalars().all()


async def disable(connection: Connection, endpoint_id: UUID, reason: str) -> None:
    """Switch an endpoint off; its tenant's other endpoints and the operator are told."""
    row = (await connection.execute(_DISABLE, {"id": endpoint_id, "reason": reason})).first()
    if row is None:
        return
    shown = ids.show("webhook", endpoint_id)
    subject = f"{shown} {row.at:%Y-%m-%d}"  # once a day, however often its owner enables it again
    message = f"The webhook endpoint {shown} was disabled: {reason}."
    fields = {"endpoint": shown, "name": row.name, "reason": reason}
    await alerts.add(connection, [NewAlert("webhook_endpoint.disabled", subject, message, fields, row.tenant_id)])
