"""What callers may ask for: limits of a tenant, of its teams, of its end users. Those of a key are stored with the key.

A row with neither a team nor an end user is the tenant's own; the end user `*` is each of them that has no row.
A `tenant_id` of None is any tenant: only who may see them all passes it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from shared.db.engine import Connection

MOST = 10_000
"""The rows that a tenant may have: a front door keeps them in memory."""

LimitRow = Row[Any]


@dataclass(frozen=True, slots=True)
class Numbers:
    """Requests and tokens a minute, jobs being run, jobs waiting; None for any number."""

    rpm: int | None = None
    tpm: int | None = None
    in_flight: int | None = None
    queued: int | None = None


_INSERT = text("""
INSERT INTO rate_limits (id, tenant_id, team_id, end_user, rpm, tpm, in_flight, queued)
VALUES (:id, :tenant, :team_id, :end_user, :rpm, :tpm, :in_flight, :queued)
ON CONFLICT (tenant_id, (COALESCE(team_id, '00000000-0000-0000-0000-000000000000')), (COALESCE(end_user, '')))
DO NOTHING RETURNING *
""")
_COUNT = text("SELECT count(*) FROM rate_limits WHERE tenant_id = :tenant")
_GET = text("""
SELECT * FROM rate_limits WHERE id = :id AND (CAST(:tenant AS text) IS NULL OR tenant_id = :tenant) FOR UPDATE
""")
_PAGE = text("""
SELECT * FROM rate_limits
WHERE (CAST(:tenant AS text) IS NULL OR tenant_id = :tenant) AND (CAST(:after AS uuid) IS NULL OR id < :after)
ORDER BY id DESC LIMIT :limit
""")
_UPDATE = text("""
UPDATE rate_limits SET rpm = :rpm, tpm = :tpm, in_flight = :in_flight, queued = :queued
WHERE id = :id AND tenant_id = :tenant RETURNING *
""")
_DELETE = text("DELETE FROM rate_limits WHERE id = :id AND tenant_id = :tenant")
_OF = text("SELECT * FROM rate_limits WHERE tenant_id = ANY(CAST(:tenants AS text[]))")
_IN_FLIGHT = text("""
SELECT tenant_id, CAST(NULL AS uuid) AS key_id, in_flight AS most FROM rate_limits
WHERE in_flight IS NOT NULL AND team_id IS NULL AND end_user IS NULL
UNION ALL
SELECT tenant_id, id, CAST(limits ->> 'in_flight' AS bigint) FROM api_keys
WHERE limits ->> 'in_flight' IS NOT NULL AND revoked_at IS NULL
""")


async def insert(
    connection: Connection, id_: UUID, tenant_id: str, numbers: Numbers, *, team_id: UUID | None, end_user: str | None
) -> LimitRow | None:
    """Store new limits; None where there are some for just that team, end user or tenant."""
    values = asdict(numbers) | {"id": id_, "tenant": tenant_id, "team_id": team_id, "end_user": end_user}
    return (await connection.execute(_INSERT, values)).first()


async def count(connection: Connection, tenant_id: str) -> int:
    """Return how many rows a tenant has."""
    number: int = (await connection.execute(_COUNT, {"tenant": tenant_id})).scalar_one()
    return number


async def get(connection: Connection, tenant_id: str | None, id_: UUID) -> LimitRow | None:
    """Return limits, locked until the transaction ends."""
    return (await connection.execute(_GET, {"id": id_, "tenant": tenant_id})).first()


async def page(connection: Connection, tenant_id: str | None, *, after: UUID | None, limit: int) -> Sequence[LimitRow]:
    """Return up to `limit` rows, newest first, older than the row `after`."""
    return (await connection.execute(_PAGE, {"tenant": tenant_id, "after": after, "limit": limit})).all()


async def update(connection: Connection, tenant_id: str, id_: UUID, numbers: Numbers) -> LimitRow:
    """Change the numbers of limits."""
    return (await connection.execute(_UPDATE, asdict(numbers) | {"id": id_, "tenant": tenant_id})).one()


async def delete(connection: Connection, tenant_id: str, id_: UUID) -> None:
    """Take limits away."""
    await connection.execute(_DELETE, {"id": id_, "tenant": tenant_id})


async def of(connection: Connection, tenants: Sequence[str]) -> Sequence[LimitRow]:
    """Return all rows of these tenants."""
    return (await connection.execute(_OF, {"tenants": list(tenants)})).all()


async def in_flight(connection: Connection) -> Mapping[tuple[str, UUID | None], int]:
    """Return how many calls each tenant, and each key of a tenant, may have under way, where that is limited."""
    rows = await connection.execute(_IN_FLIGHT)
    return {(row.tenant_id, row.key_id): row.most for row in rows}
