"""Claiming: Redis proposes ids in turn, Postgres disposes, and what it refuses is taken out of Redis again."""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import orjson
import structlog

from shared.commit import commit
from shared.db import claims, sweep
from shared.db import engine as db
from shared.db.claims import Claim
from shared.db.transitions import ended_queued
from shared.queue import Queue
from shared.queue.entries import Move, Taken
from workers.check import continued
from workers.quote import Quoter
from workers.reserve import reserve

log = structlog.get_logger(__name__)

# What arq reads of a claimed job: run function `run` with no arguments. The job itself never is in Redis.
ARQ_PAYLOAD = orjson.dumps({"t": None, "f": "run", "a": [], "k": {}, "et": 0})

_DATABASE_REST = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a claim brought.

    The jobs with what was drawn for each, whether there may be more, the seconds until something is next due (or None),
    and the lanes where jobs wait and nobody may be called.
    """

    jobs: list[tuple[Claim, Taken]]
    more: bool
    next_seconds: float | None
    shut: list[str]


async def claim(
    engine: db.Engine,
    queue: Queue,
    provider: str,
    *,
    lease: UUID,
    seconds: float,
    most: int,
    held: Container[UUID],
    claiming: set[UUID],
    quoter: Quoter,
    limits: bytes,
    in_flight: int = 0,
) -> Claimed:
    """Take up to `most` due jobs of a provider's pool under `lease`, and end those that cannot meet their deadline.

    `held` are the jobs that this process runs already: only their lease is prolonged. Those whose claim is under way
    are in `claiming`, which the caller empties. Those that may not spend now are given back or ended. `limits` is the
    provider's `deployments_json`, `in_flight` how many calls a tenant may have under way, 0 for any number.
    Raises Unavailable where Postgres is away (the proposed go back) and `RedisAway` errors.
    """
    proposal = await queue.claim(
        provider, most=most, lease=seconds, payload=ARQ_PAYLOAD, limits=limits, in_flight=in_flight
    )
    fresh = {one.id: one for one in proposal.taken if one.id not in held}
    taken: list[Claim] = []
    claiming.update(fresh)
    if fresh:
        lanes = {id_: one.lane for id_, one in fresh.items()}
        try:
            taken = await db.run(
                engine, lambda connection: claims.claim(connection, lease, provider, lanes), alone=True
            )
        except Exception:
            due = datetime.now(UTC) + _DATABASE_REST
            await queue.move(provider, [Move(one.lane, one.id, due, one.unused) for one in fresh.values()])
            raise
        refused = [fresh[id_] for id_ in fresh.keys() - {job.id for job in taken}]
        if refused:
            await queue.move(provider, [Move(one.lane, one.id, None, one.unused) for one in refused])
    pairs = [(await continued(job), fresh[job.id]) for job in taken]
    spending = [(job, drawn) for job, drawn in pairs if job.spends]
    if spending:
        free = [(job, drawn) for job, drawn in pairs if not job.spends]
        pairs = [*free, *await reserve(engine, queue, quoter, spending)]
    if proposal.late:
        await _expire(engine, queue, provider, proposal.late)
    return Claimed(
        pairs,
        len(proposal.taken) >= most,
        None if proposal.next_ms is None else proposal.next_ms / 1000,
        proposal.shut,
    )


async def _expire(engine: db.Engine, queue: Queue, provider: str, late: Sequence[UUID]) -> None:
    """End jobs that cannot meet their deadline any more; where this fails, maintenance does when it has passed."""
    try:
        async with db.transaction(engine) as connection:
            rows = await sweep.hurried(connection, provider, late)
        if rows:
            await commit(engine, queue, [ended_queued(row, "expired") for row in rows])
    except Exception:
        log.exception("jobs.not_expired", provider=provider, jobs=len(late))  # what was claimed goes on
