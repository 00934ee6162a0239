"""What is held of budgets for attempts: the windows, locked while it is decided, and the reservations."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text

from shared.budgets import OnExhausted, Period, Window, totals
from shared.db.budgets import NEXT, PRESENT
from shared.db.engine import Connection

# The conflict locks the windows, budget by budget in order of id, as whoever settles does.
_OPEN = text(f"""
WITH w AS (
    INSERT INTO budget_windows AS w (id, budget_id, tenant_id, starts_at, ends_at)
    SELECT gen_random_uuid(), b.id, b.tenant_id, {PRESENT}, {NEXT}
    FROM budgets b WHERE b.id = ANY(CAST(:ids AS uuid[])) AND b.closed_at IS NULL ORDER BY b.id
    ON CONFLICT (budget_id, starts_at) DO UPDATE SET spent_nanos = w.spent_nanos
    RETURNING w.*
)
SELECT w.id, w.budget_id, b.limit_nanos, w.spent_nanos, w.reserved_nanos, b.hard, w.ends_at, b.on_exhausted,
    b.downgrade_to, b.allow_unpriced, b.period, b.tenant_id, b.batch_id,
    COALESCE(b.end_user, b.tag, b.model, b.team_id::text, b.batch_id::text) IS NOT NULL AS narrow
FROM w JOIN budgets b ON b.id = w.budget_id
""")

_RESERVE = text("""
WITH r AS (
    SELECT * FROM unnest(CAST(:jobs AS uuid[]), CAST(:attempts AS integer[]), CAST(:tenants AS text[]),
        CAST(:nanos AS bigint[]), CAST(:usual AS bigint[]), CAST(:windows AS text[])
    ) AS r(job_id, attempt, tenant_id, nanos, usual_nanos, windows)
), i AS (
    INSERT INTO reservations (job_id, attempt, tenant_id, nanos, usual_nanos, windows)
    SELECT job_id, attempt, tenant_id, nanos, usual_nanos, windows::uuid[] FROM r
), l AS (
    INSERT INTO ledger (job_id, attempt, number, tenant_id, kind, nanos, windows)
    SELECT job_id, attempt, 0, tenant_id, 'reserve', nanos, windows::uuid[] FROM r
)
UPDATE budget_windows SET reserved_nanos = reserved_nanos + t.nanos
FROM unnest(CAST(:totalled AS uuid[]), CAST(:sums AS bigint[])) AS t(id, nanos) WHERE budget_windows.id = t.id
""")


@dataclass(frozen=True, slots=True)
class Standing:
    """A budget's present window, and what follows when it is full.

    A `narrow` one is not of all that a key or a tenant asks for.
    """

    window: Window
    tenant_id: str
    ends_at: datetime | None
    on_exhausted: OnExhausted
    downgrade_to: str | None
    allow_unpriced: bool
    period: Period
    batch_id: UUID | None
    narrow: bool


async def open_windows(connection: Connection, budgets: Sequence[UUID]) -> dict[UUID, Standing]:
    """Return the present windows of budgets of any tenants, by budget, locked until the transaction ends."""
    rows = await connection.execute(_OPEN, {"ids": sorted(set(budgets))})
    return {
        row.budget_id: Standing(
            Window(row.id, row.budget_id, row.limit_nanos, row.spent_nanos, row.reserved_nanos, row.hard),
            row.tenant_id,
            row.ends_at,
            row.on_exhausted,
            row.downgrade_to,
            row.allow_unpriced,
            row.period,
            row.batch_id,
            row.narrow,
        )
        for row in rows
    }


@dataclass(frozen=True, slots=True)
class Reservation:
    """What is held for an attempt, of which windows (none: of its job's own limit), and what it usually costs.

    `transitions` frees it with the attempt's end.
    """

    job_id: UUID
    attempt: int
    tenant_id: str
    nanos: int
    usual_nanos: int
    windows: Sequence[UUID]


async def reserve(connection: Connection, held: Sequence[Reservation]) -> None:
    """Write reservations and their entries in the ledger. The windows are locked by `open_windows`."""
    sums = totals((one.nanos, one.windows) for one in held)
    await connection.execute(
        _RESERVE,
        {
            "jobs": [one.job_id for one in held],
            "attempts": [one.attempt for one in held],
            "tenants": [one.tenant_id for one in held],
            "nanos": [one.nanos for one in held],
            "usual": [one.usual_nanos for one in held],
            "windows": ["{" + ",".join(map(str, one.windows)) + "}" for one in held],
            "totalled": list(sums),
            "sums": list(sums.values()),
        },
    )
