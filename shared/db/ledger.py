"""The ledger against everything that must say the same: attempts, hourly usage, budgets and what is held of them."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Row, text

from shared import ids
from shared.db.engine import Connection

_LONGEST_LIFE = timedelta(days=30)

_DIFFERENCES = text((Path(__file__).parent / "differences.sql").read_text())

# A claim whose reservation went through and whose answer was lost is claimed anew: nobody ends that attempt.
_ABANDONED = text("""
WITH gone AS (
    DELETE FROM reservations USING (
        SELECT r.job_id, r.attempt FROM reservations r LEFT JOIN LATERAL (
            SELECT attempt FROM jobs WHERE jobs.id = r.job_id AND jobs.status = 'in_progress' OFFSET 0
        ) AS j ON true
        WHERE j.attempt IS DISTINCT FROM r.attempt
    ) AS over WHERE reservations.job_id = over.job_id AND reservations.attempt = over.attempt
    RETURNING reservations.*
), l AS (
    INSERT INTO ledger (job_id, attempt, number, tenant_id, kind, nanos, reserved_nanos, windows)
    SELECT job_id, attempt, 1, tenant_id, 'release', 0, nanos, windows FROM gone
), k AS MATERIALIZED (
    SELECT id FROM budget_windows WHERE id IN (SELECT unnest(windows) FROM gone)
    ORDER BY budget_id, starts_at FOR UPDATE
)
UPDATE budget_windows SET reserved_nanos = reserved_nanos - n.nanos
FROM (SELECT unnest(windows) AS id, sum(nanos) AS nanos FROM gone GROUP BY 1) AS n JOIN k ON k.id = n.id
WHERE budget_windows.id = n.id
""")


async def differences(connection: Connection, *, since: datetime) -> Sequence[Row[Any]]:
    """Return where the ledger's entries from an hour on differ from what they must equal, over all tenants.

    `what` names the other side (`attempts`, `usage`, `spent` and `reserved` of a budget's window), `subject` which one,
    `theirs` and `ours` are nano-dollars. At most 1,000 are returned.
    """
    hour = since.replace(minute=0, second=0, microsecond=0)
    first = ids.lowest_id_at(round((hour - _LONGEST_LIFE).timestamp() * 1000))
    return (await connection.execute(_DIFFERENCES, {"since": hour, "first": first})).all()


async def release_abandoned(connection: Connection) -> int:
    """Free what is held for attempts that are over without an end of theirs; return of how many windows."""
    return (await connection.execute(_ABANDONED)).rowcount
