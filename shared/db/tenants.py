"""Tenants: who owns jobs and pays for them. One that was closed keeps its row, and its keys stop.

Ids are text: `default` is there from the start, all others are `tenant_…`.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, text

from shared.db.engine import Connection

DEFAULT = "default"

TenantRow = Row[Any]

_INSERT = text("INSERT INTO tenants (id, name) VALUES (:id, :name) RETURNING *")
_GET = text("SELECT * FROM tenants WHERE id = :id FOR UPDATE")
_FIND = text("SELECT * FROM tenants WHERE (id = :named OR name = :named) AND closed_at IS NULL")
# `tenant_…` ids grow with time, and `default` is before them all.
_PAGE = text("""
SELECT * FROM tenants
WHERE (CAST(:only AS text) IS NULL OR id = :only) AND (CAST(:after AS text) IS NULL OR id COLLATE "C" < :after)
ORDER BY id COLLATE "C" DESC LIMIT :limit
""")
_UPDATE = text("""
UPDATE tenants SET name = :name, webhook_hosts = CAST(:webhook_hosts AS text[]) WHERE id = :id RETURNING *
""")
_CLOSE = text("UPDATE tenants SET closed_at = now() WHERE id = :id RETURNING *")


async def insert(connection: Connection, id_: str, *, name: str) -> TenantRow:
    """Store a new tenant; its name is refused by Postgres where another open tenant has it."""
    return (await connection.execute(_INSERT, {"id": id_, "name": name})).one()


async def get(connection: Connection, id_: str) -> TenantRow | None:
    """Return a tenant, open or closed, locked until the transaction ends."""
    return (await connection.execute(_GET, {"id": id_})).first()


async def find(connection: Connection, named: str) -> TenantRow | None:
    """Return the open tenant of an id or a name."""
    return (await connection.execute(_FIND, {"named": named})).first()


async def page(connection: Connection, *, only: str | None, after: str | None, limit: int) -> Sequence[TenantRow]:
    """Return up to `limit` tenants, newest first, older than the tenant `after`; `only` restricts them to one."""
    return (await connection.execute(_PAGE, {"only": only, "after": after, "limit": limit})).all()


async def update(connection: Connection, id_: str, *, name: str, webhook_hosts: Sequence[str] | None) -> TenantRow:
    """Change a tenant. `webhook_hosts` are the only ones that its jobs and batches may name, None for any."""
    values = {"id": id_, "name": name, "webhook_hosts": None if webhook_hosts is None else list(webhook_hosts)}
    return (await connection.execute(_UPDATE, values)).one()


async def close(connection: Connection, id_: str) -> TenantRow:
    """Close a tenant for good: nobody acts in it any more."""
    return (await connection.execute(_CLOSE, {"id": id_})).one()
