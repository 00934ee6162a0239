"""What became of deliveries, try by try; and delivering an event again, which is a new delivery of the same event."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select, text

from shared import ids
from shared.db.engine import Connection
from shared.db.tables import deliveries

DeliveryRow = Row[Any]

MOST_REPLAYED = 10_000
_EARLIER = timedelta(days=1)
_SKEW = timedelta(minutes=1)

_GET = text("""
SELECT d.*, e.url AS endpoint_url, COALESCE(e.enabled, true) AS enabled FROM deliveries d
LEFT JOIN webhook_endpoints e ON e.id = d.endpoint_id WHERE d.id = :id AND d.tenant_id = :tenant
""")
_TURN = text("SELECT pg_try_advisory_xact_lock(hashtextextended('replay/' || :endpoint, 0))")
_ATTEMPTS = text("SELECT * FROM delivery_attempts WHERE delivery_id = :id AND tenant_id = :tenant ORDER BY number")
_REDELIVER = text("""
INSERT INTO deliveries (id, event_id, tenant_id, endpoint_id, lane, type, job_id, batch_id, body, url, include_result)
SELECT new_id(), event_id, tenant_id, endpoint_id, lane, type, job_id, batch_id, body, url, include_result
FROM deliveries WHERE id = :id AND tenant_id = :tenant RETURNING *
""")
# The events that had a delivery, by the last one of each, samples left out; then the ends of jobs and batches that had
# none because the endpoint did not exist or was disabled, as the events that others were told of where there are such,
# else as events of the moment they ended. They fall due a microsecond apart, the oldest first.
_REPLAY = text("""
WITH p AS (
    SELECT * FROM webhook_endpoints WHERE id = :endpoint AND tenant_id = :tenant
), known AS (
    SELECT * FROM (
        SELECT DISTINCT ON (event_id) event_id, type, job_id, batch_id, body, status FROM deliveries
        WHERE endpoint_id = :endpoint AND tenant_id = :tenant AND id >= :from_id AND event_id >= :since_id
            AND event_id < :until_id AND (CAST(:types AS text[]) IS NULL OR type = ANY(CAST(:types AS text[])))
            AND body->>'test' IS NULL
        ORDER BY event_id, id DESC
    ) AS latest
    WHERE status <> 'pending' AND (CAST(:status AS text) IS NULL OR status = CAST(:status AS text))
    ORDER BY event_id LIMIT :most + 1
), earlier AS (
    SELECT * FROM (
        SELECT COALESCE(told.event_id, (
                lpad(to_hex(floor(extract(epoch FROM o.finished_at) * 1000)::bigint), 12, '0')
                || '7' || substr(made.of, 1, 3) || '8' || substr(made.of, 4, 15)
            )::uuid) AS event_id, o.type, o.job_id, o.batch_id
        FROM (
            SELECT id AS job_id, NULL::uuid AS batch_id, id, 'job.' || status AS type, finished_at FROM jobs
            WHERE tenant_id = :tenant AND id >= :earlier_id AND id < :until_id
            UNION ALL
            SELECT NULL, id, id, 'batch.' || status, finished_at FROM batches
            WHERE tenant_id = :tenant AND id >= :earlier_id AND id < :until_id
        ) AS o JOIN p ON o.type = ANY(p.event_types) CROSS JOIN LATERAL (SELECT md5(o.id || o.type) AS of) AS made
        LEFT JOIN LATERAL (
            SELECT event_id FROM deliveries d
            WHERE (d.job_id = o.job_id OR d.batch_id = o.batch_id) AND d.type = o.type ORDER BY d.id DESC LIMIT 1
        ) AS told ON true
        WHERE CAST(:status AS text) IS NULL AND o.finished_at >= CAST(:since AS timestamptz) - interval '1 minute'
            AND (CAST(:types AS text[]) IS NULL OR o.type = ANY(CAST(:types AS text[])))
            AND NOT EXISTS (SELECT FROM deliveries d WHERE d.endpoint_id = :endpoint AND d.type = o.type
                AND (d.job_id = o.job_id OR d.batch_id = o.batch_id))
    ) AS untold
    WHERE event_id >= :since_id AND event_id < :until_id ORDER BY event_id LIMIT :most + 1
), chosen AS (
    SELECT *, row_number() OVER (ORDER BY event_id) AS place FROM (
        SELECT event_id, type, job_id, batch_id, body FROM known
        UNION ALL SELECT event_id, type, job_id, batch_id, NULL FROM earlier
    ) AS both_
), made AS (
    INSERT INTO deliveries (id, event_id, tenant_id, endpoint_id, lane, type, job_id, batch_id, body, next_at)
    SELECT new_id(), event_id, p.tenant_id, p.id, replace(p.id::text, '-', ''), type, job_id, batch_id, body,
        clock_timestamp() - make_interval(secs => (count(*) OVER () - place) / 1e6)
    FROM chosen CROSS JOIN p WHERE place <= :most ORDER BY place RETURNING id
)
SELECT (SELECT count(*) FROM made) AS replayed, (SELECT event_id FROM chosen WHERE place = :most + 1) AS next
""")


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    """Which deliveries a list holds; what is None does not restrict it."""

    endpoint_id: UUID | None = None
    status: str | None = None
    type: str | None = None
    job_id: UUID | None = None
    batch_id: UUID | None = None
    event_id: UUID | None = None


async def page(
    connection: Connection, tenant_id: str, wanted: DeliveryFilter, *, after: UUID | None, limit: int
) -> Sequence[DeliveryRow]:
    """Return up to `limit` of a tenant's deliveries, newest first, older than the delivery `after`."""
    query = select(deliveries).where(deliveries.c.tenant_id == tenant_id)
    for name in DeliveryFilter.__slots__:
        if (value := getattr(wanted, name)) is not None:
            query = query.where(deliveries.c[name] == value)
    if after is not None:
        query = query.where(deliveries.c.id < after)
    return (await connection.execute(query.order_by(deliveries.c.id.desc()).limit(limit))).all()


async def get(connection: Connection, tenant_id: str, id_: UUID) -> DeliveryRow | None:
    """Return a tenant's delivery, with its endpoint's `endpoint_url` and whether that is `enabled`."""
    return (await connection.execute(_GET, {"id": id_, "tenant": tenant_id})).first()


async def attempts_of(connection: Connection, tenant_id: str, id_: UUID) -> Sequence[Row[Any]]:
    """Return a delivery's tries that were recorded, first to last."""
    return (await connection.execute(_ATTEMPTS, {"id": id_, "tenant": tenant_id})).all()


async def redeliver(connection: Connection, tenant_id: str, id_: UUID) -> DeliveryRow:
    """Have the event of a tenant's delivery delivered again to the same place; return the new delivery."""
    return (await connection.execute(_REDELIVER, {"id": id_, "tenant": tenant_id})).one()


async def take_turn(connection: Connection, endpoint_id: UUID) -> bool:
    """Tell whether nobody else replays to an endpoint; nobody does then until the transaction ends."""
    return bool((await connection.execute(_TURN, {"endpoint": endpoint_id.hex})).scalar_one())


async def replay(
    connection: Connection,
    tenant_id: str,
    endpoint_id: UUID,
    *,
    since: datetime,
    until: datetime,
    types: Sequence[str] | None,
    status: str | None,
    most: int = MOST_REPLAYED,
) -> tuple[int, UUID | None]:
    """Have events from `since` to before `until` delivered to an endpoint again, `most` at most, the oldest first.

    Those whose last delivery is still pending are left alone. `status` restricts them to what became of that; without
    it, ends that it was not told of, as long as it did not exist or was disabled, are delivered too: of jobs and
    batches that were made a day earlier at most. Returns how many there are, and the event that comes next where there
    are more.
    """
    found = {
        "tenant": tenant_id,
        "endpoint": endpoint_id,
        "since": since,
        "from_id": _lowest(since - _SKEW),
        "since_id": _lowest(since),
        "until_id": _lowest(until),
        "earlier_id": _lowest(since - _EARLIER),
        "types": types,
        "status": status,
        "most": most,
    }
    row = (await connection.execute(_REPLAY, found)).one()
    return row.replayed, row.next


def _lowest(moment: datetime) -> UUID:
    return ids.lowest_id_at(max(round(moment.timestamp() * 1000), 0))
