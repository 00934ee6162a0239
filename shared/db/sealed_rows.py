"""What is sealed in Postgres, sealed anew by the first key: so that one that was replaced can be taken away.

It works across tenants by design: it sees what is sealed, and shows it to nobody.
"""

from contextlib import suppress
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from sqlalchemy import Row, text

from shared import sealing
from shared.db import webhook_endpoints, webhook_secrets
from shared.db.engine import Connection
from shared.sealing import Keys, SealedError

FIRST = UUID(int=0)
_AT_ONCE = 500

_PLAIN = text("SELECT tenant_id FROM signing_secrets ORDER BY tenant_id LIMIT :most")
_SEALED_NOW = text("DELETE FROM signing_secrets WHERE tenant_id = ANY(CAST(:tenants AS text[]))")
_SEALED = text("""
SELECT id, tenant_id, sealed, CAST(NULL AS jsonb) AS headers FROM webhook_secrets
WHERE id > :after AND NOT starts_with(encode(sealed, 'hex'), :now)
UNION ALL
SELECT id, tenant_id, NULL, headers FROM webhook_endpoints WHERE id > :after AND headers <> '{}'
ORDER BY id LIMIT :most
""")
# Only where nobody has changed it meanwhile.
_SECRET = text("UPDATE webhook_secrets SET sealed = :sealed WHERE id = :id AND tenant_id = :tenant AND sealed = :old")
_HEADERS = text("""
UPDATE webhook_endpoints SET headers = CAST(:headers AS jsonb)
WHERE id = :id AND tenant_id = :tenant AND headers = CAST(:old AS jsonb)
""")


class Sealed(NamedTuple):
    """What a round did: its last id (None: there was nothing), how many rows it sealed, how many it could not open."""

    last: UUID | None
    sealed: int
    unopened: int


async def seal_plain(connection: Connection, keys: Keys) -> int:
    """Seal signing secrets of tenants that are in plain text, up to 500; return how many."""
    tenants = (await connection.execute(_PLAIN, {"most": _AT_ONCE})).scalars().all()
    for tenant_id in tenants:
        with suppress(SealedError):  # of one that has a sealed one already, which does not open
            await webhook_secrets.of_tenant(connection, keys, tenant_id)
    await connection.execute(_SEALED_NOW, {"tenants": tenants})  # of one that had a sealed one already, too
    return len(tenants)


async def seal_anew(connection: Connection, keys: Keys, after: UUID) -> Sealed:
    """Seal by the first key what is sealed by another, up to 500 rows behind the id `after`."""
    query = {"after": after, "now": sealing.beginning(keys).hex(), "most": _AT_ONCE}
    rows = (await connection.execute(_SEALED, query)).all()
    sealed = unopened = 0
    for row in rows:
        try:
            sealed += await (_secret(connection, keys, row) if row.headers is None else _headers(connection, keys, row))
        except SealedError:
            unopened += 1
    return Sealed(rows[-1].id if rows else None, sealed, unopened)


async def _secret(connection: Connection, keys: Keys, row: Row[Any]) -> bool:
    bound, old = webhook_secrets.bound(row.tenant_id, row.id), bytes(row.sealed)
    anew = sealing.seal(keys, sealing.unseal(keys, old, bound=bound), bound=bound)
    await connection.execute(_SECRET, {"id": row.id, "tenant": row.tenant_id, "sealed": anew, "old": old})
    return True


async def _headers(connection: Connection, keys: Keys, row: Row[Any]) -> bool:
    if all(webhook_endpoints.sealed_by_first(keys, value) for value in row.headers.values()):
        return False
    opened = webhook_endpoints.own_headers(keys, row.tenant_id, row.id, row.headers)
    anew = webhook_endpoints.sealed_headers(keys, row.tenant_id, row.id, opened)
    values = {"id": row.id, "tenant": row.tenant_id, "headers": _json(anew), "old": _json(row.headers)}
    await connection.execute(_HEADERS, values)
    return True


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
