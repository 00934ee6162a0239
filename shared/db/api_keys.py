"""Keys: what a tenant's callers show. A key has one secret, and while it is being rotated more; only hashes are stored.

A revoked key keeps its row. A `tenant_id` of None is any tenant: only who may see them all passes it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Row, text

from shared.db.engine import Connection

KeyRow = Row[Any]


@dataclass(frozen=True, slots=True)
class KeyFields:
    """What of a key may be changed. `models` of None are all; `limits` are whole numbers by name."""

    name: str
    team_id: UUID | None = None
    role: str | None = None
    scopes: Sequence[str] = ()
    models: Sequence[str] | None = None
    limits: Mapping[str, int] = field(default_factory=dict)
    expires_at: datetime | None = None

    @classmethod
    def of(cls, row: KeyRow) -> "KeyFields":
        """Return those of a stored key."""
        return cls(row.name, row.team_id, row.role, row.scopes, row.models, row.limits, row.expires_at)

    def parameters(self) -> dict[str, Any]:
        """Return them as a statement takes them."""
        models = None if self.models is None else list(self.models)
        limits = orjson.dumps(dict(self.limits)).decode()
        return asdict(self) | {"scopes": list(self.scopes), "models": models, "limits": limits}


_INSERT = text("""
INSERT INTO api_keys (id, tenant_id, prefix, name, team_id, role, scopes, models, limits, expires_at)
VALUES (:id, :tenant, :prefix, :name, :team_id, :role, :scopes, :models, CAST(:limits AS jsonb), :expires_at)
RETURNING *
""")
_SECRET = text("INSERT INTO key_secrets (hash, key_id) VALUES (:hash, :key)")
_GET = text("""
SELECT * FROM api_keys WHERE id = :id AND (CAST(:tenant AS text) IS NULL OR tenant_id = :tenant) FOR UPDATE
""")
_PAGE = text("""
SELECT * FROM api_keys
WHERE (CAST(:tenant AS text) IS NULL OR tenant_id = :tenant) AND (CAST(:after AS uuid) IS NULL OR id < :after)
ORDER BY id DESC LIMIT :limit
""")
_UPDATE = text("""
UPDATE api_keys SET name = :name, team_id = :team_id, role = :role, scopes = :scopes, models = :models,
    limits = CAST(:limits AS jsonb), expires_at = :expires_at
WHERE id = :id AND tenant_id = :tenant RETURNING *
""")
_REVOKE = text("UPDATE api_keys SET revoked_at = now() WHERE id = :id AND tenant_id = :tenant RETURNING *")
_END_SECRETS = text("""
UPDATE key_secrets SET expires_at = LEAST(expires_at, now() + make_interval(secs => :overlap)) WHERE key_id = :key
""")
_PREFIX = text("UPDATE api_keys SET prefix = :prefix WHERE id = :id AND tenant_id = :tenant RETURNING *")
_IN_TEAM = text("""
SELECT EXISTS (SELECT FROM api_keys WHERE team_id = :team AND tenant_id = :tenant AND revoked_at IS NULL)
""")
# Each hash by itself in the index, whatever their number and the planner's mood.
_KNOWN = text("""
SELECT s.hash, LEAST(s.expires_at, k.expires_at) AS expires_at, k.id, k.tenant_id, t.name AS tenant_name,
    t.webhook_hosts, k.team_id, k.role, k.scopes, k.models, k.limits,
    k.revoked_at IS NOT NULL AS revoked, t.closed_at IS NOT NULL AS closed
FROM key_secrets s JOIN api_keys k ON k.id = s.key_id JOIN tenants t ON t.id = k.tenant_id
WHERE s.hash = ANY(CAST(:hashes AS bytea[]))
""")
_VERSION = text("SELECT number FROM access_version")


async def insert(
    connection: Connection, id_: UUID, tenant_id: str, fields: KeyFields, *, prefix: str, hash_: bytes
) -> KeyRow:
    """Store a new key with its first secret, by the SHA-256 of it and its visible beginning."""
    values = fields.parameters() | {"id": id_, "tenant": tenant_id, "prefix": prefix}
    row = (await connection.execute(_INSERT, values)).one()
    await connection.execute(_SECRET, {"hash": hash_, "key": id_})
    return row


async def get(connection: Connection, tenant_id: str | None, id_: UUID) -> KeyRow | None:
    """Return a key, revoked or not, locked until the transaction ends."""
    return (await connection.execute(_GET, {"id": id_, "tenant": tenant_id})).first()


async def page(connection: Connection, tenant_id: str | None, *, after: UUID | None, limit: int) -> Sequence[KeyRow]:
    """Return up to `limit` keys, newest first, older than the key `after`."""
    return (await connection.execute(_PAGE, {"tenant": tenant_id, "after": after, "limit": limit})).all()


async def update(connection: Connection, tenant_id: str, id_: UUID, fields: KeyFields) -> KeyRow:
    """Change a key."""
    return (await connection.execute(_UPDATE, fields.parameters() | {"id": id_, "tenant": tenant_id})).one()


async def revoke(connection: Connection, tenant_id: str, id_: UUID) -> KeyRow:
    """End a key and all its secrets for good."""
    return (await connection.execute(_REVOKE, {"id": id_, "tenant": tenant_id})).one()


async def rotate(
    connection: Connection, tenant_id: str, id_: UUID, *, prefix: str, hash_: bytes, overlap: int
) -> KeyRow:
    """Give a key a new secret; those it has end in `overlap` seconds, or when they would have ended anyway."""
    await connection.execute(_END_SECRETS, {"key": id_, "overlap": overlap})
    await connection.execute(_SECRET, {"hash": hash_, "key": id_})
    return (await connection.execute(_PREFIX, {"id": id_, "tenant": tenant_id, "prefix": prefix})).one()


async def in_team(connection: Connection, tenant_id: str, team_id: UUID) -> bool:
    """Tell whether a team has keys that are not revoked."""
    return bool((await connection.execute(_IN_TEAM, {"tenant": tenant_id, "team": team_id})).scalar_one())


async def known(connection: Connection, hashes: Sequence[bytes]) -> Mapping[bytes, KeyRow]:
    """Return for each hash of a secret its key, as far as there is one: also a revoked, an expired, a closed tenant's.

    `expires_at` is when the secret ends, with its key or before it.
    """
    rows = await connection.execute(_KNOWN, {"hashes": list(hashes)})
    return {bytes(row.hash): row for row in rows}


async def version(connection: Connection) -> int:
    """Return a number that grows with every committed change to tenants, teams and keys."""
    number: int = (await connection.execute(_VERSION)).scalar_one()
    return number
