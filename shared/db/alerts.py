"""Alerts: what an operator must hear. Raised once for each kind and subject; `workers/alert.py` tells the channels.

The subject says of what, and where it may come again also of when: `openai/main 2026-11-21T14`. Raise one with `add`,
in the transaction of what it is about where there is one. A `tenant_id` of None is the operator's own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Row, text

from shared import ids
from shared.db.engine import Connection

AlertRow = Row[Any]

LONGEST_SUBJECT = 500
"""Characters that are kept of a subject: it is part of an index."""


@dataclass(frozen=True, slots=True)
class NewAlert:
    """Something to be told: `kind` as `key.refused`, a sentence for a person, and the same in fields for a program.

    `subject` holds no secret and `fields` none either: both are shown, logged and sent.
    """

    kind: str
    subject: str
    message: str
    fields: Mapping[str, object] = field(default_factory=dict)
    tenant_id: str | None = None


# In the order of their keys, so that two who raise the same ones wait for each other and do not deadlock.
_ADD = text("""
WITH t AS (
    INSERT INTO alerts (id, kind, subject, tenant_id, message, fields)
    SELECT id, kind, subject, tenant_id, message, CAST(fields AS jsonb)
    FROM unnest(CAST(:ids AS uuid[]), CAST(:kinds AS text[]), CAST(:subjects AS text[]), CAST(:tenants AS text[]),
        CAST(:messages AS text[]), CAST(:fields AS text[])) AS new(id, kind, subject, tenant_id, message, fields)
    ORDER BY kind, subject
    ON CONFLICT (kind, subject) DO NOTHING
    RETURNING id, kind, tenant_id, message, fields
)
INSERT INTO deliveries (id, event_id, tenant_id, endpoint_id, lane, type, body)
SELECT new_id(), t.id, t.tenant_id, p.id, replace(p.id::text, '-', ''), t.kind, t.fields || jsonb_build_object(
    'id', 'alert_' || replace(t.id::text, '-', ''), 'object', 'alert', 'message', t.message)
FROM t JOIN webhook_endpoints p ON p.tenant_id = t.tenant_id AND p.enabled AND p.deleted_at IS NULL
    AND t.kind = ANY(p.event_types)
RETURNING id
""")
_PAGE = text("""
SELECT * FROM alerts
WHERE (CAST(:tenant AS text) IS NULL OR tenant_id = :tenant) AND (CAST(:after AS uuid) IS NULL OR id < :after)
ORDER BY id DESC LIMIT :limit
""")
_COUNTS = text("""
SELECT kind, count(*) AS number FROM alerts WHERE at > now() - make_interval(secs => :seconds)
GROUP BY kind ORDER BY kind
""")
# Which channels an alert is for is settled when it is first taken; `kinds` of null are all.
_TAKE = text("""
UPDATE alerts SET tries = tries + 1, next_try_at = now() + make_interval(secs => :lease),
    pending = COALESCE(pending, ARRAY(
        SELECT name FROM jsonb_to_recordset(CAST(:channels AS jsonb)) AS channel(name text, kinds text[])
        WHERE kinds IS NULL OR alerts.kind = ANY(kinds) ORDER BY name
    ))
WHERE id IN (
    SELECT id FROM alerts WHERE (pending IS NULL OR pending <> '{}') AND next_try_at <= now()
    ORDER BY next_try_at LIMIT :limit FOR UPDATE SKIP LOCKED
)
RETURNING *
""")
# Nobody left to tell and an error: it was given up.
_TOLD = text("""
UPDATE alerts SET pending = array_remove(pending, :channel),
    error = CASE WHEN array_remove(pending, :channel) = '{}' THEN NULL ELSE error END
WHERE id = :id AND :channel = ANY(pending)
""")
_PUT_OFF = text("""
UPDATE alerts SET next_try_at = now() + make_interval(secs => :seconds), error = :error
WHERE id = :id AND tries = :tries
""")
_GIVE_UP = text("UPDATE alerts SET pending = '{}', error = :error WHERE id = :id AND tries = :tries")


async def add(connection: Connection, new: Sequence[NewAlert]) -> bool:
    """Raise alerts; one whose kind and subject were raised before is left as it is.

    A tenant's go to those of its webhook endpoints whose event types name the kind; return whether there are any.
    """
    if not new:
        return False
    made = await connection.execute(
        _ADD,
        {
            "ids": [ids.new_id() for _ in new],
            "kinds": [one.kind for one in new],
            "subjects": [_storable(one.subject)[:LONGEST_SUBJECT] for one in new],
            "tenants": [one.tenant_id for one in new],
            "messages": [_storable(one.message) for one in new],
            "fields": [orjson.dumps(_storable(dict(one.fields))).decode() for one in new],
        },
    )
    return made.first() is not None


async def page(connection: Connection, tenant: str | None, *, after: UUID | None, limit: int) -> Sequence[AlertRow]:
    """Return up to `limit` alerts, newest first, older than `after`: a tenant's; of None all, the operator's too."""
    return (await connection.execute(_PAGE, {"tenant": tenant, "after": after, "limit": limit})).all()


async def counts(connection: Connection, *, seconds: float) -> dict[str, int]:
    """Return how many alerts of each kind were raised in the last `seconds`, over all tenants: for the operator."""
    return {row.kind: row.number for row in await connection.execute(_COUNTS, {"seconds": seconds})}


async def take(
    connection: Connection, channels: Mapping[str, Sequence[str] | None], *, limit: int, lease: float
) -> Sequence[AlertRow]:
    """Take up to `limit` due alerts for `lease` seconds; one that is neither told nor put off by then is due again.

    `channels` has for each name the kinds it is for, None for all. One that is taken for the first time has `tries` 1.
    """
    listed = orjson.dumps([{"name": name, "kinds": kinds} for name, kinds in channels.items()]).decode()
    return (await connection.execute(_TAKE, {"channels": listed, "limit": limit, "lease": lease})).all()


async def told(connection: Connection, id_: UUID, channel: str) -> None:
    """Note that a channel has been told of an alert."""
    await connection.execute(_TOLD, {"id": id_, "channel": channel})


async def put_off(connection: Connection, id_: UUID, *, tries: int, seconds: float, error: str) -> None:
    """Have try number `tries` followed by another for the channels that are still to be told."""
    await connection.execute(_PUT_OFF, {"id": id_, "tries": tries, "seconds": seconds, "error": _storable(error)})


async def give_up(connection: Connection, id_: UUID, *, tries: int, error: str) -> None:
    """Tell no more channels of an alert."""
    await connection.execute(_GIVE_UP, {"id": id_, "tries": tries, "error": _storable(error)})


def _storable(value: Any) -> Any:
    """Return a value as Postgres takes it: in text it stores no NUL."""
    match value:
        case str():
            return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
        case Mapping():
            return {_storable(name): _storable(one) for name, one in value.items()}
        case list() | tuple():
            return [_storable(one) for one in value]
    return value
