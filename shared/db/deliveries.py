"""Pending deliveries: the outbox. Written by the transaction that ends a job, emptied by `workers/deliver.py`."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Row, text

from shared import signing
from shared.db.engine import Connection

_CLAIM = text("""
UPDATE deliveries SET next_at = now() + make_interval(secs => :lease), tries = tries + 1
WHERE id IN (
    SELECT id FROM deliveries WHERE status = 'pending' AND next_at <= now() AND id IN (
        SELECT id FROM (
            SELECT id, row_number() OVER (PARTITION BY host ORDER BY next_at) + sending AS place FROM (
                SELECT id, next_at, split_part(url, '/', 3) AS host, COALESCE(busy.sending, 0) AS sending
                FROM deliveries LEFT JOIN unnest(CAST(:hosts AS text[]), CAST(:sending AS integer[]))
                    AS busy(host, sending) ON busy.host = split_part(url, '/', 3)
                WHERE status = 'pending' AND next_at <= now() AND COALESCE(busy.sending, 0) < :per_host
                ORDER BY next_at LIMIT 5000
            ) AS due
        ) AS placed WHERE place <= :per_host
    ) ORDER BY next_at LIMIT :limit FOR UPDATE SKIP LOCKED
)
RETURNING id, tenant_id, job_id, type, url, include_result, tries, created_at
""")
_RECORD = text("""
UPDATE deliveries SET status = CAST(:status AS text), next_at = COALESCE(CAST(:next_at AS timestamptz), next_at),
    finished_at = CASE WHEN CAST(:status AS text) = 'pending' THEN NULL ELSE now() END,
    answer_status = :answer_status, answer_error = :answer_error
WHERE id = :id AND tries = :tries AND status = 'pending'
""")
_NEXT = text("SELECT EXTRACT(epoch FROM min(next_at) - now())::float FROM deliveries WHERE status = 'pending'")
_SECRET = text("""
INSERT INTO signing_secrets (tenant_id, secret) VALUES (:tenant, :secret)
ON CONFLICT (tenant_id) DO UPDATE SET tenant_id = excluded.tenant_id RETURNING secret
""")


def host(url: str) -> str:
    """Return the host (and port) of a webhook's URL, as the claim counts it."""
    return url.split("/")[2]


async def claim(
    connection: Connection, *, limit: int, per_host: int, busy: Mapping[str, int], lease: float
) -> Sequence[Row[Any]]:
    """Take up to `limit` due deliveries for `lease` seconds; one that is not recorded by then is due again.

    One host gets at most `per_host` at a time, with those that are being sent (`busy`): one that hangs holds up only
    itself.
    """
    wanted = {
        "limit": limit,
        "per_host": per_host,
        "hosts": list(busy),
        "sending": list(busy.values()),
        "lease": lease,
    }
    return (await connection.execute(_CLAIM, wanted)).all()


async def record(
    connection: Connection,
    id_: UUID,
    *,
    tries: int,
    status: Literal["pending", "delivered", "exhausted", "disabled"],
    next_at: datetime | None,
    answer_status: int | None,
    answer_error: str | None,
) -> None:
    """Write down what became of try number `tries`; `next_at` is when a pending one is due again."""
    await connection.execute(
        _RECORD,
        {
            "id": id_,
            "tries": tries,
            "status": status,
            "next_at": next_at,
            "answer_status": answer_status,
            "answer_error": answer_error,
        },
    )


async def seconds_to_next(connection: Connection) -> float | None:
    """Return the seconds until the next delivery is due (negative: it is), or None where none is pending."""
    seconds: float | None = (await connection.execute(_NEXT)).scalar_one()
    return seconds


async def signing_secret(connection: Connection, tenant_id: str) -> str:
    """Return the secret that signs a tenant's webhooks, made on first use."""
    secret: str = (
        await connection.execute(_SECRET, {"tenant": tenant_id, "secret": signing.new_secret()})
    ).scalar_one()
    return secret
