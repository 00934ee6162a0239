"""Claiming: Redis proposes ids in turn, Postgres disposes, and what it refuses is taken out of Redis again."""

from collections.abc import Container
from datetime import UTC, datetime, timedelta
from uuid import UUID

import orjson

from shared.db import claims
from shared.db import engine as db
from shared.db.claims import Claim
from shared.queue import Queue

# What arq reads of a claimed job: run function `run` with no arguments. The job itself never is in Redis.
ARQ_PAYLOAD = orjson.dumps({"t": None, "f": "run", "a": [], "k": {}, "et": 0})

_DATABASE_REST = timedelta(seconds=1)


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
) -> tuple[list[Claim], bool, float | None]:
    """Take up to `most` due jobs of a provider's pool under `lease`.

    Returns the claims, whether Redis proposed as many as were asked for (there may be more), and the seconds until
    something is next due. `held` are the jobs that this process runs already: only their lease is prolonged. Those
    whose claim is under way are in `claiming`, which the caller empties.
    Raises Unavailable where Postgres is away (the proposed go back) and `RedisAway` errors.
    """
    proposal = await queue.claim(provider, most=most, lease=seconds, payload=ARQ_PAYLOAD)
    fresh = {id_: lane for lane, id_ in proposal.taken if id_ not in held}
    taken: list[Claim] = []
    claiming.update(fresh)
    if fresh:
        try:
            taken = await db.run(engine, lambda connection: claims.claim(connection, lease, list(fresh)), alone=True)
        except Exception:
            due = datetime.now(UTC) + _DATABASE_REST
            await queue.move(provider, [(lane, id_, due) for id_, lane in fresh.items()])
            raise
        refused = fresh.keys() - {job.id for job in taken}
        if refused:
            await queue.move(provider, [(fresh[id_], id_, None) for id_ in refused])
    next_seconds = None if proposal.next_ms is None else proposal.next_ms / 1000
    return taken, len(proposal.taken) >= most, next_seconds
