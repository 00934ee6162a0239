"""Budgets: limits on spend, their windows, and what is held of them before a call. What it cost is `transitions`'."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from shared import ids
from shared.budgets import SHARE, OnExhausted, Period
from shared.db.engine import Connection

BudgetRow = Row[Any]

OF_JOB = """
    b.tenant_id = jobs.tenant_id AND b.closed_at IS NULL
    AND b.subject IN ('', 'key:' || jobs.key_id::text, 'user:' || jobs.end_user, 'team:' || jobs.team_id::text,
                      'batch:' || jobs.batch_id::text)
    AND (b.team_id IS NULL OR b.team_id = jobs.team_id) AND (b.key_id IS NULL OR b.key_id = jobs.key_id)
    AND (b.end_user IS NULL OR b.end_user = jobs.end_user) AND (b.batch_id IS NULL OR b.batch_id = jobs.batch_id)
    AND (b.tag IS NULL OR b.tag = ANY(jobs.tags))
    AND (b.model IS NULL OR b.model IN (
        CASE WHEN NOT jobs.downgraded THEN jobs.model END, jobs.provider || '/' || jobs.upstream_model))
"""
"""Which budgets `b` a row of `jobs` spends from; a downgraded one has left the model that it asked for."""

PRESENT = """
    CASE WHEN b.period = 'total' THEN b.created_at ELSE date_trunc(b.period, now(), b.timezone) END
"""
"""When the present window of a budget `b` began, by its own calendar; that of `total` begins with the budget."""

NEXT = """
    CASE WHEN b.period = 'hour' THEN date_trunc('hour', now(), b.timezone) + interval '1 hour'
        WHEN b.period <> 'total' THEN
        (date_trunc(b.period, now() AT TIME ZONE b.timezone) + ('1 ' || b.period)::interval) AT TIME ZONE b.timezone END
"""

_STANDING = text(f"""
SELECT b.*, COALESCE(w.spent_nanos, 0) AS spent_nanos, COALESCE(w.reserved_nanos, 0) AS reserved_nanos,
    {PRESENT} AS starts_at, {NEXT} AS ends_at
FROM budgets b LEFT JOIN budget_windows w ON w.budget_id = b.id AND w.starts_at = {PRESENT}
WHERE b.closed_at IS NULL
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBudget:
    """A budget about to be stored: whose spend it limits (None: whoever's), how much, and what follows then."""

    tenant_id: str
    limit_nanos: int
    period: Period
    hard: bool = True
    on_exhausted: OnExhausted = "reject"
    timezone: str = "UTC"
    team_id: UUID | None = None
    key_id: UUID | None = None
    end_user: str | None = None
    tag: str | None = None
    model: str | None = None
    batch_id: UUID | None = None
    downgrade_to: str | None = None
    allow_unpriced: bool = False
    thresholds: Sequence[int] = (50, 80, 100)


_INSERT = text("""
INSERT INTO budgets (id, tenant_id, team_id, key_id, end_user, tag, model, batch_id, period, timezone, limit_nanos,
    hard, on_exhausted, downgrade_to, allow_unpriced, thresholds)
VALUES (:id, :tenant_id, :team_id, :key_id, :end_user, :tag, :model, :batch_id, :period, :timezone, :limit_nanos,
    :hard, :on_exhausted, :downgrade_to, :allow_unpriced, CAST(:thresholds AS integer[]))
""")

# What the rows of the ledger that a budget's window would have seen come to.
_BACKFILL = text(f"""
INSERT INTO budget_windows (id, budget_id, tenant_id, starts_at, ends_at, spent_nanos, opening_nanos)
SELECT gen_random_uuid(), b.id, b.tenant_id, {PRESENT}, {NEXT}, before.nanos, before.nanos
FROM budgets b CROSS JOIN LATERAL (
    SELECT COALESCE(sum(ledger.nanos), 0) AS nanos FROM ledger JOIN jobs ON jobs.id = ledger.job_id
    WHERE ledger.tenant_id = b.tenant_id AND ledger.at >= {PRESENT} AND ledger.kind IN ('settle', 'adjust')
        AND {OF_JOB}
) AS before
WHERE b.id = :id AND b.batch_id IS NULL
""")


# Calls that are under way when a budget is made spend from it too: what is held for them is held of it as well.
_UNDER_WAY = text(f"""
WITH r AS (
    INSERT INTO reservations AS r (job_id, attempt, tenant_id, nanos, usual_nanos, windows)
    SELECT jobs.id, jobs.attempt, jobs.tenant_id, 0, 0, ARRAY[w.id]
    FROM budgets b JOIN budget_windows w ON w.budget_id = b.id CROSS JOIN LATERAL (
        SELECT * FROM jobs WHERE jobs.lease_id IS NOT NULL AND {OF_JOB}
    ) AS jobs
    WHERE b.id = :id
    ON CONFLICT (job_id, attempt) DO UPDATE SET windows = r.windows || excluded.windows
    RETURNING r.nanos
)
UPDATE budget_windows SET reserved_nanos = (SELECT sum(nanos) FROM r)
WHERE budget_id = :id AND EXISTS (SELECT FROM r WHERE nanos > 0)
""")


async def insert(connection: Connection, new: NewBudget) -> UUID:
    """Store a budget; what was spent in its present window before it counts, and calls that are under way will.

    Returns its id.
    """
    id_ = ids.new_id()
    values = {name: getattr(new, name) for name in NewBudget.__slots__}
    await connection.execute(_INSERT, {"id": id_, **values, "thresholds": list(new.thresholds)})
    await connection.execute(_BACKFILL, {"id": id_})
    if new.batch_id is None:
        await connection.execute(_UNDER_WAY, {"id": id_})
    return id_


async def page(connection: Connection, tenant_id: str | None, *, after: UUID | None, limit: int) -> Sequence[BudgetRow]:
    """Return a tenant's open budgets (None: all tenants') with their present windows, newest first; no batch's."""
    conditions = " AND b.batch_id IS NULL"
    if tenant_id is not None:
        conditions += " AND b.tenant_id = :tenant"
    if after is not None:
        conditions += " AND b.id < :after"
    query = text(f"{_STANDING.text}{conditions} ORDER BY b.id DESC LIMIT :limit")
    values = {"tenant": tenant_id, "after": after, "limit": limit}
    wanted = {name: value for name, value in values.items() if value is not None}
    return (await connection.execute(query, wanted)).all()


async def get(connection: Connection, tenant_id: str | None, id_: UUID) -> BudgetRow | None:
    """Return an open budget with its present window; None where it is not the tenant's (None: any tenant's)."""
    query = text(f"{_STANDING.text} AND b.id = :id AND (CAST(:tenant AS text) IS NULL OR b.tenant_id = :tenant)")
    return (await connection.execute(query, {"id": id_, "tenant": tenant_id})).first()


_HARD = text(f"{_STANDING.text} AND b.tenant_id = ANY(CAST(:tenants AS text[])) AND b.hard AND b.batch_id IS NULL")


async def standing(connection: Connection, tenants: Sequence[str]) -> Sequence[BudgetRow]:
    """Return the hard budgets of tenants with their present windows; no batch's."""
    return (await connection.execute(_HARD, {"tenants": list(tenants)})).all()


MOST = 1_000
"""The budgets that a tenant may have: a front door keeps them in memory, and looks at them again every second."""

_COUNT = text("SELECT count(*) FROM budgets WHERE tenant_id = :tenant AND closed_at IS NULL AND batch_id IS NULL")


async def count(connection: Connection, tenant_id: str) -> int:
    """Return how many open budgets a tenant has; no batch's."""
    number: int = (await connection.execute(_COUNT, {"tenant": tenant_id})).scalar_one()
    return number


CHANGEABLE = ("limit_nanos", "hard", "on_exhausted", "downgrade_to", "allow_unpriced", "thresholds")


async def change(connection: Connection, tenant_id: str, id_: UUID, changes: Mapping[str, object]) -> None:
    """Write fields of a tenant's budget; only those of `CHANGEABLE` can be."""
    assert set(changes) <= set(CHANGEABLE)
    setting = ", ".join(
        f"{name} = CAST(:{name} AS integer[])" if name == "thresholds" else f"{name} = :{name}" for name in changes
    )
    query = text(f"UPDATE budgets SET {setting} WHERE id = :id AND tenant_id = :tenant")
    await connection.execute(query, {"id": id_, "tenant": tenant_id, **changes})


async def close(connection: Connection, tenant_id: str, id_: UUID) -> None:
    """Have a tenant's budget limit nothing any more; its windows stay."""
    query = text("UPDATE budgets SET closed_at = now() WHERE id = :id AND tenant_id = :tenant")
    await connection.execute(query, {"id": id_, "tenant": tenant_id})


_LET_GO = text("""
UPDATE jobs SET held_by = NULL, run_at = now()
WHERE tenant_id = :tenant AND held_by = :budget AND status = 'queued' AND id IN (
    SELECT id FROM jobs WHERE held_by = :budget AND status = 'queued' ORDER BY id LIMIT :most FOR UPDATE SKIP LOCKED
)
RETURNING id, provider, upstream_model, run_at
""")
# What it had when a job was held may have come back since, and a change may have come between.
_ROOMY = text(f"""
SELECT b.id, b.tenant_id FROM budgets b
LEFT JOIN budget_windows w ON w.budget_id = b.id AND w.starts_at = {PRESENT}
WHERE b.id IN (SELECT held_by FROM jobs WHERE held_by IS NOT NULL AND status = 'queued') AND (
    b.closed_at IS NOT NULL OR NOT b.hard OR b.on_exhausted <> 'hold'
    OR b.limit_nanos - COALESCE(w.spent_nanos + w.reserved_nanos, 0) > b.limit_nanos / {SHARE}
)
LIMIT 1000
""")


async def let_go(connection: Connection, tenant_id: str, id_: UUID, *, most: int = 10_000) -> Sequence[Row[Any]]:
    """Have the first jobs that a budget holds run again at once, so that they are looked at anew; return them."""
    return (await connection.execute(_LET_GO, {"tenant": tenant_id, "budget": id_, "most": most})).all()


async def roomy(connection: Connection) -> Sequence[Row[Any]]:
    """Return budgets of all tenants that hold jobs and would not now, by id and tenant."""
    return (await connection.execute(_ROOMY)).all()


# A tenth of a window must have passed, and a tenth of the budget be spent, for its pace to say something.
_SPENT_EARLY = text("""
SELECT * FROM (
    SELECT w.*, b.limit_nanos, b.period,
        (w.starts_at + (now() - w.starts_at) * (b.limit_nanos::float8 / w.spent_nanos)) AT TIME ZONE 'UTC' AS projected
    FROM budget_windows w JOIN budgets b ON b.id = w.budget_id
    WHERE b.closed_at IS NULL AND w.ends_at > now() AND w.spent_nanos * 10 > b.limit_nanos
        AND w.spent_nanos < b.limit_nanos AND now() - w.starts_at > (w.ends_at - w.starts_at) / 10
) AS p WHERE projected < ends_at AT TIME ZONE 'UTC'
    AND NOT EXISTS (
        SELECT FROM alerts WHERE kind = 'budget.exhaustion_projected' AND subject = budget_id || '/' || p.id)
LIMIT 1000
""")


async def spent_early(connection: Connection) -> Sequence[Row[Any]]:
    """Return present windows of all tenants that are not spent and will be before they turn, at their pace so far.

    `projected` is when, in UTC. Those that were alerted on are left out.
    """
    return (await connection.execute(_SPENT_EARLY)).all()
