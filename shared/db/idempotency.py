"""Idempotency keys: the object that a tenant's key made, and the hash of the request that made it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import text

from shared.db.engine import Connection

KEPT = timedelta(hours=48)

_RESERVE = text("""
INSERT INTO idempotency_keys (tenant_id, key, request_hash, object_id)
SELECT * FROM unnest(CAST(:tenants AS text[]), CAST(:keys AS text[]), CAST(:hashes AS bytea[]), CAST(:ids AS uuid[]))
    AS n(tenant_id, key, request_hash, object_id)
ORDER BY 1, 2
ON CONFLICT DO NOTHING
""")
_READ = text("""
SELECT k.tenant_id, k.key, k.request_hash, k.object_id
FROM idempotency_keys k JOIN unnest(CAST(:tenants AS text[]), CAST(:keys AS text[])) AS n(tenant_id, key)
    USING (tenant_id, key)
""")
_PRUNE = text("""
DELETE FROM idempotency_keys WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM idempotency_keys WHERE created_at < now() - CAST(:kept AS interval) LIMIT :limit
))
""")


@dataclass(frozen=True, slots=True)
class Reserved:
    """What a key stands for: the object it made, and the hash of that request."""

    request_hash: bytes
    object_id: UUID


async def reserve(
    connection: Connection, wanted: Mapping[tuple[str, str], Reserved]
) -> Mapping[tuple[str, str], Reserved]:
    """Take `(tenant, key)`s for new objects; return for each who holds it: the new object, or the one that was first.

    A key that another transaction is just taking is waited for.
    """
    names = {"tenants": [tenant for tenant, _ in wanted], "keys": [key for _, key in wanted]}
    await connection.execute(
        _RESERVE,
        names
        | {"hashes": [new.request_hash for new in wanted.values()], "ids": [new.object_id for new in wanted.values()]},
    )
    rows = await connection.execute(_READ, names)
    return {(row.tenant_id, row.key): Reserved(row.request_hash, row.object_id) for row in rows}


async def find(connection: Connection, tenant_id: str, key: str) -> Reserved | None:
    """Return what a tenant's key stands for, None where it was never used."""
    row = (await connection.execute(_READ, {"tenants": [tenant_id], "keys": [key]})).first()
    return None if row is None else Reserved(row.request_hash, row.object_id)


async def prune(connection: Connection, *, limit: int) -> int:
    """Forget up to `limit` keys older than `KEPT`; return how many."""
    return (await connection.execute(_PRUNE, {"kept": KEPT, "limit": limit})).rowcount
