"""Partitions of a day each, made ahead of time. Rows of a day without one are in the default partition."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import text

from shared import ids
from shared.db.engine import Connection

KEYS = {
    "jobs": "id",
    "payloads": "job_id",
    "results": "job_id",
    "attempts": "job_id",
    "ledger": "job_id",
    "deliveries": "id",
    "delivery_attempts": "delivery_id",
}
"""The partitioned tables, with the id by which they are."""

DAYS_AHEAD = 7


async def ensure(connection: Connection, *, today: datetime | None = None, days: int = DAYS_AHEAD) -> int:
    """Make the partitions of yesterday to `days` ahead that do not exist; return how many were made."""
    midnight = (today or datetime.now(UTC)).replace(hour=0, minute=0, second=0, microsecond=0)
    existing = set((await connection.execute(text("SELECT relname FROM pg_class WHERE relispartition"))).scalars())
    made = 0
    for offset in range(-1, days + 1):
        day = midnight + timedelta(days=offset)
        low, high = (ids.lowest_id_at(round(edge.timestamp() * 1000)) for edge in (day, day + timedelta(days=1)))
        for table, key in KEYS.items():
            name = f"{table}_{day:%Y%m%d}"
            strays = f"SELECT EXISTS (SELECT FROM {table}_default WHERE {key} >= '{low}' AND {key} < '{high}')"
            if name not in existing and not (await connection.execute(text(strays))).scalar_one():
                await connection.execute(
                    text(f"CREATE TABLE {name} PARTITION OF {table} FOR VALUES FROM ('{low}') TO ('{high}')")
                )
                made += 1
    return made
