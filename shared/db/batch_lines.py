"""The ended jobs of a batch, page by page: in the order they ended, or in that of its lines.

A page is bounded by its size too, since an answer may have megabytes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Row, TextClause, text

from shared.db.engine import Connection

MOST_BYTES = 8 * 2**20
Which = Literal["all", "output", "errors"]

_STATUS: dict[Which, str] = {
    "all": "j.finished_at IS NOT NULL",
    "output": "j.status = 'completed'",
    "errors": "j.finished_at IS NOT NULL AND j.status <> 'completed'",
}


def _page(found: str) -> str:
    """Return the query of a page of the jobs `found`, numbered; sizes are summed up without reading what is large."""
    return f"""
SELECT id, custom_id, status, error, cost_nanos, batch_sequence, result FROM (
    SELECT j.*, r.body AS result, sum(octet_length(r.body)) OVER (ORDER BY j.number) AS together
    FROM ({found}) AS j LEFT JOIN results r ON r.job_id = j.id AND j.status = 'completed'
) AS p WHERE number = 1 OR COALESCE(together, 0) <= {MOST_BYTES} ORDER BY number
"""


def _ended(which: Which) -> TextClause:
    return text(
        _page(f"""
        SELECT j.id, custom_id, status, error, cost_nanos, batch_sequence,
            row_number() OVER (ORDER BY batch_sequence) AS number
        FROM jobs j
        WHERE batch_id = :batch AND j.id > :batch AND tenant_id = :tenant AND batch_sequence > :after
            AND {_STATUS[which]}
        ORDER BY batch_sequence LIMIT :limit
        """)
    )


def _order(which: Which) -> TextClause:
    return text(f"""
    SELECT id FROM jobs j
    WHERE batch_id = :batch AND id > :batch AND tenant_id = :tenant AND batch_sequence > 0 AND {_STATUS[which]}
    ORDER BY id
    """)


_ENDED = {which: _ended(which) for which in _STATUS}
_ORDER = {which: _order(which) for which in _STATUS}
_OF = text(
    _page("""
    SELECT j.id, custom_id, status, error, cost_nanos, batch_sequence, row_number() OVER (ORDER BY j.id) AS number
    FROM jobs j WHERE j.id = ANY(CAST(:ids AS uuid[])) AND tenant_id = :tenant AND finished_at IS NOT NULL
    """)
)


async def ended(
    connection: Connection, tenant_id: str, id_: UUID, *, after: int, limit: int, which: Which = "all"
) -> Sequence[Row[Any]]:
    """Return a tenant's batch's ended jobs in the order they ended, from behind sequence number `after`.

    The number is given out under the batch's row lock, so a lower one is never committed after a higher one was seen.
    Fewer than `limit` may come though there are more.
    """
    query = {"batch": id_, "tenant": tenant_id, "after": after, "limit": limit}
    return (await connection.execute(_ENDED[which], query)).all()


async def in_order(connection: Connection, tenant_id: str, id_: UUID, *, which: Which) -> Sequence[UUID]:
    """Return the ids of a tenant's batch's ended jobs in the order of its lines, all of them."""
    return (await connection.execute(_ORDER[which], {"batch": id_, "tenant": tenant_id})).scalars().all()


async def of(connection: Connection, tenant_id: str, wanted: Sequence[UUID]) -> Sequence[Row[Any]]:
    """Return those of a tenant's jobs that have ended, in the order of their ids, as far as a page goes."""
    return (await connection.execute(_OF, {"ids": list(wanted), "tenant": tenant_id})).all()


# As `public.output_line` writes them; what JSON escapes is as long in Postgres's words.
_SIZE = text("""
SELECT COALESCE(sum(octet_length(COALESCE(to_json(j.custom_id)::text, 'null')) + CASE
    WHEN j.status = 'completed' THEN :answered + octet_length(r.body)
    WHEN j.status = 'failed'
    THEN :failed + octet_length((j.error->'code')::text) + octet_length((j.error->'message')::text)
    WHEN j.status = 'cancelled' THEN :cancelled ELSE :expired END), 0)
FROM jobs j LEFT JOIN results r ON r.job_id = j.id AND j.status = 'completed'
WHERE j.batch_id = :batch AND j.id > :batch AND j.tenant_id = :tenant AND j.finished_at IS NOT NULL
    AND (j.status = 'completed') = :completed
""")


async def size(connection: Connection, tenant_id: str, id_: UUID, *, errors: bool, widths: Mapping[str, int]) -> int:
    """Return how many bytes a batch's output or error lines have now; `widths` as `public.LINE_WIDTHS`."""
    query = {"batch": id_, "tenant": tenant_id, "completed": not errors, **widths}
    return int((await connection.execute(_SIZE, query)).scalar_one())
