"""Claiming: Redis proposes ids in turn, Postgres disposes, and what it refuses is taken out of Redis again."""

from collections.abc import Container
from datetime import UTC, datetime, timedelta
from uuid import UUID

import orjson

from shared.config import Provider
from shared.db import claims
from shared.db import engine as db
from shared.db.claims import Claim
from shared.limits import Limits
from shared.queue import Move, Queue, Taken

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
    limits: bytes,
) -> tuple[list[tuple[Claim, Taken]], bool, float | None]:
    """Take up to `most` due jobs of a provider's pool under `lease`.

    Returns the claims with what was drawn for each, whether Redis proposed as many as were asked for (there may be
    more), and the seconds until something is next due. `held` are the jobs that this process runs already: only their
    lease is prolonged. Those whose claim is under way are in `claiming`, which the caller empties. `limits` is the
    provider's, by `limits_json`.
    Raises Unavailable where Postgres is away (the proposed go back) and `RedisAway` errors.
    """
    proposal = await queue.claim(provider, most=most, lease=seconds, payload=ARQ_PAYLOAD, limits=limits)
    fresh = {one.id: one for one in proposal.taken if one.id not in held}
    taken: list[Claim] = []
    claiming.update(fresh)
    if fresh:
        try:
            taken = await db.run(engine, lambda connection: claims.claim(connection, lease, list(fresh)), alone=True)
        except Exception:
            due = datetime.now(UTC) + _DATABASE_REST
            await queue.move(provider, [_unused(one, due) for one in fresh.values()])
            raise
        refused = [fresh[id_] for id_ in fresh.keys() - {job.id for job in taken}]
        if refused:
            await queue.move(provider, [_unused(one, None) for one in refused])
    next_seconds = None if proposal.next_ms is None else proposal.next_ms / 1000
    return [(job, fresh[job.id]) for job in taken], len(proposal.taken) >= most, next_seconds


def _unused(one: Taken, due: datetime | None) -> Move:
    return Move(one.lane, one.id, due, one.key, one.input_tokens, one.output_tokens)


def limits_json(provider: Provider) -> bytes:
    """Return a provider's limits as the claim's script reads them: for each lane, its deployments."""

    def deployments(limits: Limits) -> list[tuple[str, float, dict[str, float]]]:
        return [(key.name, key.weight, limits.shape()) for key in provider.keys] or [("", 1.0, limits.shape())]

    lanes = {name: deployments(provider.limits.but(model.limits)) for name, model in provider.models.items()}
    return orjson.dumps(lanes | {"*": deployments(provider.limits)})
