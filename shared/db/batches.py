"""Batches: jobs submitted together, with their counts, usage and cost kept by the transactions that end the jobs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import orjson
from sqlalchemy import Row, literal_column, select, text, tuple_

from shared import ids
from shared.db.engine import Connection
from shared.db.tables import batches, files

BatchRow = Row[Any]

# What it may spend is a budget of its own.
_MOST_COST = """(
    SELECT b.limit_nanos FROM budgets b WHERE b.tenant_id = batches.tenant_id
        AND b.subject = 'batch:' || batches.id::text AND b.closed_at IS NULL
)"""
_SHOWN: tuple[Any, ...] = (batches, literal_column(_MOST_COST).label("max_cost_nanos"))


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBatch:
    """A batch about to be stored: `validating` where its lines are in a file yet, `in_progress` with its jobs.

    `defaults` are `Defaults` as stored; `submitter` says whose lines they are while they are read; `files_expire_at`
    is when its output and error files do, None for never.
    """

    id: UUID
    tenant_id: str
    endpoint: str
    status: Literal["validating", "in_progress"] = "in_progress"
    completion_window: str | None = None
    expires_at: datetime | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    webhook: Mapping[str, object] | None = None
    total: int = 0
    input_file_id: UUID | None = None
    defaults: Mapping[str, object] = field(default_factory=dict)
    submitter: Mapping[str, object] | None = None
    files_expire_at: datetime | None = None


async def insert(connection: Connection, new: NewBatch) -> BatchRow:
    """Store a batch and the files that will hold its lines; its jobs and a budget of its own go in beside it."""
    values = {name: value for name, value in asdict(new).items() if value is not None}
    expires_at = values.pop("files_expire_at", None)
    held = {holds: ids.new_id() for holds in ("output", "errors")}
    for holds, id_ in held.items():
        name = f"{ids.show('batch', new.id)}_{holds}.jsonl"
        await connection.execute(
            files.insert().values(
                id=id_, tenant_id=new.tenant_id, filename=name, purpose="batch_output", storage="batch",
                batch_id=new.id, holds=holds, expires_at=expires_at,
            )
        )  # fmt: skip
    values |= {"output_file_id": held["output"], "error_file_id": held["errors"]}
    if new.status == "in_progress":
        values["in_progress_at"] = text("now()")
    row: BatchRow = (await connection.execute(batches.insert().values(values).returning(*_SHOWN))).one()
    return row


async def get(connection: Connection, tenant_id: str, id_: UUID) -> BatchRow | None:
    """Return a tenant's batch that was not deleted."""
    query = select(*_SHOWN).where(batches.c.id == id_, batches.c.tenant_id == tenant_id, batches.c.deleted_at.is_(None))
    return (await connection.execute(query)).first()


async def of_ids(connection: Connection, wanted: Sequence[tuple[str, UUID]]) -> dict[UUID, BatchRow]:
    """Return those of some batches, each by its tenant and its id, that were not deleted."""
    if not wanted:
        return {}
    named = tuple_(batches.c.tenant_id, batches.c.id).in_(wanted)
    query = select(*_SHOWN).where(named, batches.c.deleted_at.is_(None))
    return {row.id: row for row in await connection.execute(query)}


async def page(
    connection: Connection,
    tenant_id: str,
    *,
    after: UUID | None,
    limit: int,
    before: UUID | None = None,
    endpoint: str | None = None,
) -> Sequence[BatchRow]:
    """Return up to `limit` of a tenant's batches, newest first: those next older than `after`, or newer than `before`.

    Where there is an `endpoint`, those of that endpoint.
    """
    query = select(*_SHOWN).where(batches.c.tenant_id == tenant_id, batches.c.deleted_at.is_(None))
    if endpoint is not None:
        query = query.where(batches.c.endpoint == endpoint)
    if after is not None:
        query = query.where(batches.c.id < after)
    if before is None:
        return (await connection.execute(query.order_by(batches.c.id.desc()).limit(limit))).all()
    newer = query.where(batches.c.id > before).order_by(batches.c.id).limit(limit)
    return (await connection.execute(newer)).all()[::-1]


async def delete(connection: Connection, tenant_id: str, id_: UUID) -> None:
    """Have a tenant's batch, which has ended, and its files be seen no more; its jobs stay as long as any."""
    await connection.execute(
        batches.update().where(batches.c.id == id_, batches.c.tenant_id == tenant_id).values(deleted_at=text("now()"))
    )
    await connection.execute(files.delete().where(files.c.batch_id == id_, files.c.tenant_id == tenant_id))


# ------------------------------------------------------------------ validation

# What delivers the end of a batch in `b`: one event, to the address that it named and to its tenant's endpoints.
_DELIVERIES = """o AS MATERIALIZED (
    SELECT b.*, 'batch.' || status AS type, new_id() AS event_id FROM b WHERE finished_at IS NOT NULL
), d AS (
    INSERT INTO deliveries (id, event_id, tenant_id, endpoint_id, lane, type, batch_id, url, created_at)
    SELECT new_id(), event_id, tenant_id, NULL, lane_of(tenant_id, webhook->>'url'), type, id,
        webhook->>'url', finished_at
    FROM o WHERE webhook IS NOT NULL
    UNION ALL
    SELECT new_id(), event_id, p.tenant_id, p.id, replace(p.id::text, '-', ''), type, o.id, NULL, finished_at
    FROM o JOIN webhook_endpoints p ON p.tenant_id = o.tenant_id AND p.enabled AND p.deleted_at IS NULL
        AND o.type = ANY(p.event_types)
    RETURNING id
)"""

_TAKE = text(f"""
UPDATE batches SET validating_until = now() + make_interval(secs => :lease), validations = validations + 1
WHERE id = (
    SELECT id FROM batches WHERE status = 'validating' AND COALESCE(validating_until, '-infinity') < now()
    ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
)
RETURNING *, {_MOST_COST} AS max_cost_nanos
""")
_RENEW = text("""
UPDATE batches SET validating_until = now() + make_interval(secs => :lease)
WHERE id = :id AND status = 'validating' AND validating_until = :until RETURNING validating_until
""")
_PUT_OFF = text("""
UPDATE batches SET validating_until = now() + interval '2 seconds', validations = validations - 1
WHERE id = :id AND status = 'validating' AND validating_until = :until
""")
_BEGIN = text("""
UPDATE batches SET status = 'in_progress', total = :total, in_progress_at = now(), validating_until = NULL
WHERE id = :id AND status = 'validating' AND validating_until = :until RETURNING id
""")
_REFUSE = text(f"""
WITH b AS (
    UPDATE batches SET status = 'failed', errors = CAST(:errors AS jsonb), finished_at = now(), validating_until = NULL
    WHERE id = :id AND status = 'validating' AND validating_until = :until
    RETURNING id, tenant_id, status, webhook, finished_at, output_file_id, error_file_id
), {_DELIVERIES}, f AS (
    DELETE FROM files WHERE id IN (SELECT unnest(ARRAY[output_file_id, error_file_id]) FROM b)
)
SELECT EXISTS (SELECT FROM d) AS has_delivery FROM b
""")


async def take_unvalidated(connection: Connection, *, lease: float) -> BatchRow | None:
    """Take a batch whose lines nobody reads, for `lease` seconds; its `validating_until` is the fence."""
    return (await connection.execute(_TAKE, {"lease": lease})).first()


async def renew_validation(connection: Connection, id_: UUID, until: datetime, *, lease: float) -> datetime | None:
    """Prolong a hold that ends at `until` to `lease` seconds from now; None where it was lost, or cancelled."""
    found: datetime | None = (
        await connection.execute(_RENEW, {"id": id_, "until": until, "lease": lease})
    ).scalar_one_or_none()
    return found


async def put_off(connection: Connection, id_: UUID, until: datetime) -> None:
    """Let go of a batch that cannot be validated now: it is to be taken again soon, as if it had not been."""
    await connection.execute(_PUT_OFF, {"id": id_, "until": until})


async def begin(connection: Connection, id_: UUID, until: datetime, *, total: int) -> bool:
    """Put a batch in progress whose jobs this transaction stores; False where it is not ours any more."""
    return (await connection.execute(_BEGIN, {"id": id_, "until": until, "total": total})).first() is not None


async def refuse(connection: Connection, id_: UUID, until: datetime, errors: Sequence[Mapping[str, object]]) -> bool:
    """End a batch whose lines have errors; return whether there is an event to deliver."""
    query = {"id": id_, "until": until, "errors": orjson.dumps(errors).decode()}
    row = (await connection.execute(_REFUSE, query)).first()
    return row is not None and bool(row.has_delivery)


# ------------------------------------------------------------------ cancelling

_CANCEL = text(f"""
WITH b AS (
    UPDATE batches SET cancelling_at = now(),
        status = CASE status WHEN 'validating' THEN 'cancelled' ELSE 'cancelling' END,
        finished_at = CASE status WHEN 'validating' THEN now() END
    WHERE id = :batch AND tenant_id = :tenant AND status IN ('validating', 'in_progress')
    RETURNING id, tenant_id, status, webhook, finished_at
), {_DELIVERIES}
SELECT EXISTS (SELECT FROM d) AS has_delivery FROM b
""")
_CANCEL_RUNNING = text("""
UPDATE jobs SET cancel_asked_at = now()
WHERE batch_id = :batch AND id > :batch AND tenant_id = :tenant AND status = 'in_progress' AND cancel_asked_at IS NULL
RETURNING id
""")
_QUEUED = text("""
SELECT id, tenant_id, batch_id, provider, upstream_model, attempt FROM jobs
WHERE batch_id = :batch AND id > :batch AND tenant_id = :tenant AND status = 'queued' ORDER BY id LIMIT :limit
""")


async def ask_cancel(connection: Connection, tenant_id: str, id_: UUID) -> tuple[Sequence[UUID], bool]:
    """Mark a tenant's running batch as cancelling, and its jobs in progress to be cancelled.

    One that is validated ends at once. Returns those jobs, and whether there is an event to deliver.
    """
    query = {"batch": id_, "tenant": tenant_id}
    row = (await connection.execute(_CANCEL, query)).first()
    running = (await connection.execute(_CANCEL_RUNNING, query)).scalars().all()
    return running, row is not None and bool(row.has_delivery)


_CANCELLING = text("""
SELECT id, tenant_id FROM batches
WHERE status = 'cancelling' AND cancelling_at < now() - make_interval(secs => :seconds) LIMIT :limit
""")


async def cancelling(connection: Connection, *, seconds: float, limit: int) -> Sequence[Row[Any]]:
    """Return up to `limit` batches of all tenants that have been cancelled for so long and have not ended."""
    return (await connection.execute(_CANCELLING, {"seconds": seconds, "limit": limit})).all()


async def queued(connection: Connection, tenant_id: str, id_: UUID, *, limit: int) -> Sequence[Row[Any]]:
    """Return up to `limit` of a batch's queued jobs, oldest first."""
    return (await connection.execute(_QUEUED, {"batch": id_, "tenant": tenant_id, "limit": limit})).all()


_FAILED = text("""
SELECT id FROM jobs
WHERE batch_id = :batch AND id > :batch AND tenant_id = :tenant AND status IN ('failed', 'expired')
    AND (CAST(:models AS text[]) IS NULL OR model = ANY(CAST(:models AS text[])))
ORDER BY id
""")


async def failed(connection: Connection, tenant_id: str, id_: UUID, *, models: frozenset[str] | None) -> Sequence[UUID]:
    """Return a tenant's batch's failed and expired jobs, of these models (None: of all)."""
    query = {"batch": id_, "tenant": tenant_id, "models": None if models is None else sorted(models)}
    return (await connection.execute(_FAILED, query)).scalars().all()
