"""Usage as it is read: hourly roll-ups added up by what is asked for, and what attempts used, by upstream model.

The roll-ups are written with what they count, in the transaction that ends an attempt; see `transitions`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from shared import ids
from shared.db.engine import Connection

NOBODY = UUID(int=0)
"""The team or the key of what has none."""

COLUMNS: Mapping[str, str] = {
    "tenant": "tenant_id", "team": "team_id", "key": "key_id", "user": "label", "model": "model",
    "provider": "provider", "tag": "label",
}  # fmt: skip
"""What can be grouped by, and its column."""

SUMS = (
    "jobs", "errors", "input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens",
    "cost_nanos", "unpriced", "saved_nanos",
)  # fmt: skip
EVERYTHING = ""
"""The label of the rows that count everything once."""

LONGEST_WAIT = timedelta(days=7)
"""Attempts are looked for among jobs that were made up to so long before: their id says when."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of the roll-ups.

    `tenant_id` None is all of them: only who may see them all passes it. `bounds` are when the spans begin (None: each
    hour is one), `groups` names of `COLUMNS`. `label` is one label; with `within` it is how labels begin. `only` are
    values of columns. `after` is the last row before: its span and its groups.
    """

    tenant_id: str | None
    start: datetime
    end: datetime
    bounds: Sequence[datetime] | None
    groups: tuple[str, ...] = ()
    label: str = EVERYTHING
    within: bool = False
    only: Mapping[str, object] = field(default_factory=dict)
    after: Sequence[object] | None = None
    limit: int = 1000


async def read(connection: Connection, asked: Asked) -> Sequence[Row[Any]]:
    """Return a row for every span and group that has any usage, in their order.

    A row has `span` (the hour, or the number of the span, from 1), the groups' columns, the sums, and which `buckets`
    hold how many (`counts`) of the ended jobs, None for both where none ended.
    """
    groups = [COLUMNS[name] for name in asked.groups]
    keys = ", ".join(("span", *groups))
    span = "hour" if asked.bounds is None else "width_bucket(hour, CAST(:bounds AS timestamptz[]))"
    sums = ", ".join(f"sum({name})::bigint AS {name}" for name in SUMS)
    where = ["hour >= :start", "hour < :end", _TENANT if asked.tenant_id is not None else _ALL_TENANTS, _label(asked)]
    where += [f"{column} = :{column}" for column in asked.only]
    after = [f":after{number}" for number in range(len(asked.after or ()))]
    statement = f"""
WITH fine AS (
    SELECT {", ".join((f"{span} AS span", *groups))}, bucket, {sums}
    FROM usage_hours WHERE {" AND ".join(where)} GROUP BY {keys}, bucket
)
SELECT {keys}, {sums},
    array_agg(bucket) FILTER (WHERE bucket >= 0) AS buckets, array_agg(jobs) FILTER (WHERE bucket >= 0) AS counts
FROM fine {f"WHERE ({keys}) > ({', '.join(after)})" if after else ""}
GROUP BY {keys} ORDER BY {keys} LIMIT :limit
"""
    values = {
        "start": asked.start, "end": asked.end, "limit": asked.limit, "label": asked.label, "tenant": asked.tenant_id,
        "beyond": _beyond(asked.label), "bounds": asked.bounds, **asked.only,
        **{f"after{number}": value for number, value in enumerate(asked.after or ())},
    }  # fmt: skip
    await connection.execute(_PLAN)
    return (await connection.execute(text(statement), {k: v for k, v in values.items() if f":{k}" in statement})).all()


# There are fewer groups than the planner believes: it would sort on disk what fits into a hash table. And a plan for
# any arguments takes twice the time of one for these.
_PLAN = text("""
SELECT set_config('work_mem', '32MB', true), set_config('max_parallel_workers_per_gather', '0', true),
    set_config('plan_cache_mode', 'force_custom_plan', true)
""")

# The tenants come first in the key: without them everybody's labels would be read.
_TENANT = "tenant_id = :tenant"
_ALL_TENANTS = "tenant_id IN (SELECT id FROM tenants)"


def _label(asked: Asked) -> str:
    return "label >= :label AND label < :beyond" if asked.within else "label = :label"


def _beyond(prefix: str) -> str:
    """Return the first label after all that begin so, as bytes are ordered, which is how the column is."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1) if prefix else ""


# What failed after it was sent may have been charged without an answer that names the model: the job's does then.
_UPSTREAM = text("""
SELECT CAST(date_trunc('day', a.ended_at, 'UTC') AS date) AS day, a.provider, m.model, count(*) AS attempts,
    sum(a.input_tokens)::bigint AS input_tokens, sum(a.cached_tokens)::bigint AS cached_tokens,
    sum(a.cache_write_tokens)::bigint AS cache_write_tokens, sum(a.output_tokens)::bigint AS output_tokens,
    sum(a.reasoning_tokens)::bigint AS reasoning_tokens, COALESCE(sum(a.cost_nanos), 0)::bigint AS cost_nanos,
    count(*) FILTER (WHERE a.cost_nanos IS NULL) AS unpriced, count(*) FILTER (WHERE a.estimated) AS estimated
FROM attempts AS a, LATERAL (SELECT COALESCE(
    substr(a.deployment, length(a.provider) + 2),
    (SELECT upstream_model FROM jobs WHERE id = a.job_id AND tenant_id = a.tenant_id AND provider = a.provider),
    ''
) AS model) AS m
WHERE a.job_id >= :first AND a.job_id < :last AND a.ended_at >= :start AND a.ended_at < :end
    AND a.input_tokens IS NOT NULL AND (CAST(:tenant AS text) IS NULL OR a.tenant_id = :tenant)
GROUP BY day, a.provider, m.model ORDER BY day, a.provider, m.model
""")


async def upstream(
    connection: Connection, tenant_id: str | None, *, start: datetime, end: datetime
) -> Sequence[Row[Any]]:
    """Return what attempts used that ended between two times, by day of UTC, provider and the model that it named.

    Reads only the partitions of jobs that were made then or up to `LONGEST_WAIT` before. A `tenant_id` of None is all
    tenants: only who may see them all passes it.
    """
    first, last = (ids.lowest_id_at(round(at.timestamp() * 1000)) for at in (start - LONGEST_WAIT, end))
    values = {"tenant": tenant_id, "start": start, "end": end, "first": first, "last": last}
    return (await connection.execute(_UPSTREAM, values)).all()
