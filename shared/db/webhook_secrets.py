"""Secrets that sign webhooks, sealed. An endpoint has one, and while it is being rotated the ones before it too.

A tenant has one besides, for addresses that its jobs and batches name themselves.
"""

from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from shared import ids, sealing, signing
from shared.db.engine import Connection
from shared.sealing import Keys, SealedError

MOST = 3
"""How many secrets of an endpoint are valid at a time."""

_INSERT = text("""
INSERT INTO webhook_secrets (id, tenant_id, endpoint_id, kind, sealed, public, hint)
VALUES (:id, :tenant, :endpoint, :kind, :sealed, :public, :hint) ON CONFLICT DO NOTHING
""")
_OF_ENDPOINT = text("""
SELECT id, tenant_id, sealed FROM webhook_secrets
WHERE endpoint_id = :endpoint AND tenant_id = :tenant AND (expires_at IS NULL OR expires_at > now()) ORDER BY id DESC
""")
_OF_TENANT = text("SELECT id, tenant_id, sealed FROM webhook_secrets WHERE endpoint_id IS NULL AND tenant_id = :tenant")
_PLAIN = text("DELETE FROM signing_secrets WHERE tenant_id = :tenant RETURNING secret")
_END = text("""
UPDATE webhook_secrets SET expires_at = LEAST(expires_at, now() + make_interval(secs => :overlap))
WHERE endpoint_id = :endpoint AND tenant_id = :tenant
""")
_FORGET = text("""
DELETE FROM webhook_secrets WHERE endpoint_id = :endpoint AND tenant_id = :tenant AND id NOT IN (
    SELECT id FROM webhook_secrets
    WHERE endpoint_id = :endpoint AND tenant_id = :tenant AND (expires_at IS NULL OR expires_at > now())
    ORDER BY id DESC LIMIT :most
)
""")
_PUBLIC = text("""
SELECT s.public FROM webhook_secrets s JOIN webhook_endpoints e ON e.id = s.endpoint_id
WHERE e.id = :endpoint AND e.deleted_at IS NULL AND s.public IS NOT NULL
    AND (s.expires_at IS NULL OR s.expires_at > now()) ORDER BY s.id DESC
""")


async def of_endpoint(connection: Connection, keys: Keys, tenant_id: str, endpoint_id: UUID) -> list[str]:
    """Return the secrets that sign what goes to an endpoint now, newest first, as far as they can be opened.

    Raises SealedError where none can.
    """
    rows = (await connection.execute(_OF_ENDPOINT, {"tenant": tenant_id, "endpoint": endpoint_id})).all()
    opened = []
    for row in rows:
        try:
            opened.append(_opened(keys, row))
        except SealedError:
            if row is rows[-1] and not opened:
                raise
    return opened


async def of_tenant(connection: Connection, keys: Keys, tenant_id: str) -> str:
    """Return the secret that signs what goes to addresses in a tenant's jobs and batches, made on first use.

    Raises SealedError.
    """
    found = (await connection.execute(_OF_TENANT, {"tenant": tenant_id})).first()
    if found is None:
        plain = (await connection.execute(_PLAIN, {"tenant": tenant_id})).scalar_one_or_none()
        await insert(connection, keys, tenant_id, None, plain or signing.new_secret())
        found = (await connection.execute(_OF_TENANT, {"tenant": tenant_id})).one()  # another's, where two came first
    return _opened(keys, found)


async def insert(connection: Connection, keys: Keys, tenant_id: str, endpoint_id: UUID | None, secret: str) -> None:
    """Store a secret of an endpoint; without an endpoint that of the tenant, unless it has one."""
    id_, public = ids.new_id(), signing.public_half(secret)
    row = {
        "id": id_,
        "tenant": tenant_id,
        "endpoint": endpoint_id,
        "kind": "v1" if public is None else "v1a",
        "sealed": sealing.seal(keys, secret, bound=bound(tenant_id, id_)),
        "public": public,
        "hint": signing.hint(secret),
    }
    await connection.execute(_INSERT, row)


async def rotate(
    connection: Connection, keys: Keys, tenant_id: str, endpoint_id: UUID, secret: str, *, overlap: float
) -> None:
    """Give an endpoint a new secret; the ones before it sign beside it for `overlap` seconds more."""
    named = {"tenant": tenant_id, "endpoint": endpoint_id}
    await connection.execute(_END, named | {"overlap": overlap})
    await insert(connection, keys, tenant_id, endpoint_id, secret)
    await connection.execute(_FORGET, named | {"most": MOST})


async def public_keys(connection: Connection, endpoint_id: UUID) -> list[bytes]:
    """Return the public keys of an endpoint, newest first; of any tenant's, for they are public."""
    return [bytes(row.public) for row in await connection.execute(_PUBLIC, {"endpoint": endpoint_id})]


def _opened(keys: Keys, row: Row[Any]) -> str:
    return sealing.unseal(keys, bytes(row.sealed), bound=bound(row.tenant_id, row.id))


def bound(tenant_id: str, id_: UUID) -> str:
    """Return what a secret is sealed for: its row, and whose that is."""
    return f"webhook_secrets/{tenant_id}/{id_.hex}"
