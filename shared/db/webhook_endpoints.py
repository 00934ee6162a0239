"""Webhook endpoints: where a tenant's events go, which of them, and how. A deleted one keeps its row, not its secrets.

The values of an endpoint's own headers are sealed as its signing secrets are: one may be a token of its receiver's.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Row, text

from shared import sealing
from shared.db.engine import Connection
from shared.sealing import Keys

EndpointRow = Row[Any]


@dataclass(frozen=True, slots=True)
class EndpointFields:
    """What of an endpoint may be changed. `headers` are sealed; `rpm` of None is as many as come."""

    url: str
    name: str
    event_types: Sequence[str]
    description: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    include_result: bool = False
    ordered: bool = False
    rpm: int | None = None
    concurrency: int = 10
    enabled: bool = True

    @classmethod
    def of(cls, row: EndpointRow) -> "EndpointFields":
        """Return those of a stored endpoint."""
        return cls(**{name: getattr(row, name) for name in cls.__dataclass_fields__})

    def parameters(self) -> dict[str, Any]:
        """Return them as a statement takes them."""
        headers = orjson.dumps(dict(self.headers)).decode()
        return asdict(self) | {"event_types": list(self.event_types), "headers": headers}


# With what is known of its secrets: the newest one's hint and public key, and until when one before it signs too.
_SEEN = """
SELECT e.*, s.hint, s.public, p.expires_at AS old_secret_expires_at FROM e
LEFT JOIN LATERAL (
    SELECT hint, public FROM webhook_secrets WHERE endpoint_id = e.id ORDER BY id DESC LIMIT 1
) s ON true
LEFT JOIN LATERAL (
    SELECT max(expires_at) AS expires_at FROM webhook_secrets WHERE endpoint_id = e.id AND expires_at > now()
) p ON true
"""
_COLUMNS = "url, name, event_types, description, headers, include_result, ordered, rpm, concurrency, enabled"
_INSERT = text(f"""
INSERT INTO webhook_endpoints (id, tenant_id, signing, {_COLUMNS})
VALUES (:id, :tenant, :signing, :url, :name, CAST(:event_types AS text[]), :description, CAST(:headers AS jsonb),
    :include_result, :ordered, :rpm, :concurrency, :enabled)
""")
_COUNT = text("SELECT count(*) FROM webhook_endpoints WHERE tenant_id = :tenant AND deleted_at IS NULL")
_GET = text(f"""
WITH e AS (
    SELECT * FROM webhook_endpoints WHERE id = :id AND tenant_id = :tenant AND deleted_at IS NULL
) {_SEEN}
""")
_LOCK = text("SELECT FROM webhook_endpoints WHERE id = :id AND tenant_id = :tenant FOR UPDATE")
_PAGE = text(f"""
WITH e AS (
    SELECT * FROM webhook_endpoints
    WHERE tenant_id = :tenant AND deleted_at IS NULL AND (CAST(:after AS uuid) IS NULL OR id < :after)
    ORDER BY id DESC LIMIT :limit
) {_SEEN} ORDER BY e.id DESC
""")
# One that is enabled again begins anew.
_UPDATE = text("""
UPDATE webhook_endpoints SET url = :url, name = :name, event_types = CAST(:event_types AS text[]),
    description = :description, headers = CAST(:headers AS jsonb), include_result = :include_result, ordered = :ordered,
    rpm = :rpm, concurrency = :concurrency, enabled = :enabled, updated_at = now(),
    disabled_reason = CASE WHEN :enabled THEN NULL WHEN enabled THEN 'its owner asked for it' ELSE disabled_reason END,
    failing_since = CASE WHEN :enabled AND NOT enabled THEN NULL ELSE failing_since END
WHERE id = :id AND tenant_id = :tenant AND deleted_at IS NULL
""")
_TOUCH = text("UPDATE webhook_endpoints SET updated_at = now() WHERE id = :id AND tenant_id = :tenant")
_DELETE = text("""
WITH s AS (DELETE FROM webhook_secrets WHERE endpoint_id = :id AND tenant_id = :tenant)
UPDATE webhook_endpoints SET deleted_at = now(), enabled = false, headers = '{}' WHERE id = :id AND tenant_id = :tenant
""")
_EXISTS = text("SELECT EXISTS (SELECT FROM webhook_endpoints WHERE id = :id AND deleted_at IS NULL)")


async def insert(connection: Connection, id_: UUID, tenant_id: str, fields: EndpointFields, *, signing: str) -> None:
    """Store a new endpoint, which has no secret yet."""
    await connection.execute(_INSERT, fields.parameters() | {"id": id_, "tenant": tenant_id, "signing": signing})


async def count(connection: Connection, tenant_id: str) -> int:
    """Return how many endpoints a tenant has."""
    return int((await connection.execute(_COUNT, {"tenant": tenant_id})).scalar_one())


async def get(connection: Connection, tenant_id: str, id_: UUID, *, lock: bool = False) -> EndpointRow | None:
    """Return an endpoint; `lock` it until the transaction ends, where it is to be changed."""
    if lock:
        await connection.execute(_LOCK, {"id": id_, "tenant": tenant_id})
    return (await connection.execute(_GET, {"id": id_, "tenant": tenant_id})).first()


async def page(connection: Connection, tenant_id: str, *, after: UUID | None, limit: int) -> Sequence[EndpointRow]:
    """Return up to `limit` endpoints, newest first, older than the endpoint `after`."""
    return (await connection.execute(_PAGE, {"tenant": tenant_id, "after": after, "limit": limit})).all()


async def update(connection: Connection, tenant_id: str, id_: UUID, fields: EndpointFields) -> None:
    """Change an endpoint; one that is enabled again is no longer failing."""
    await connection.execute(_UPDATE, fields.parameters() | {"id": id_, "tenant": tenant_id})


async def touch(connection: Connection, tenant_id: str, id_: UUID) -> None:
    """Note that an endpoint was changed: its secret was."""
    await connection.execute(_TOUCH, {"id": id_, "tenant": tenant_id})


async def delete(connection: Connection, tenant_id: str, id_: UUID) -> None:
    """End an endpoint for good, with its secrets and its headers."""
    await connection.execute(_DELETE, {"id": id_, "tenant": tenant_id})


async def exists(connection: Connection, id_: UUID) -> bool:
    """Tell whether there is such an endpoint, whosever it is."""
    return bool((await connection.execute(_EXISTS, {"id": id_})).scalar_one())


def sealed_headers(keys: Keys, tenant_id: str, id_: UUID, headers: Mapping[str, str]) -> dict[str, str]:
    """Return an endpoint's own headers as they are stored: names, and sealed values in base64."""
    return {
        name: base64.b64encode(sealing.seal(keys, value, bound=_bound(tenant_id, id_, name))).decode()
        for name, value in headers.items()
    }


def own_headers(keys: Keys, tenant_id: str, id_: UUID, stored: Mapping[str, str]) -> dict[str, str]:
    """Return an endpoint's own headers as they are sent. Raises SealedError."""
    return {
        name: sealing.unseal(keys, base64.b64decode(value), bound=_bound(tenant_id, id_, name))
        for name, value in stored.items()
    }


def sealed_by_first(keys: Keys, value: str) -> bool:
    """Tell whether a stored value of a header is sealed as one would be now."""
    return base64.b64decode(value).startswith(sealing.beginning(keys))


def _bound(tenant_id: str, id_: UUID, name: str) -> str:
    return f"webhook_endpoints/{tenant_id}/{id_.hex}/{name}"
