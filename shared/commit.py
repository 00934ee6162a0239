"""Commits transitions in Postgres, then tells Redis: who ends or re-queues jobs comes through here.

Redis is told after the commit and may miss it: maintenance brings it back in line with Postgres.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

import structlog

from shared.db import batches, transitions
from shared.db import engine as db
from shared.db.transitions import Applied, Transition, ended_queued
from shared.queue import CANCEL, DELIVER_WAKE, FINISHED, LET_GO_WAKE, Queue, RedisAway
from shared.queue.entries import Entry, Move

log = structlog.get_logger(__name__)

_PAGE = 500


async def commit(engine: db.Engine, queue: Queue, changes: Sequence[Transition]) -> list[Applied]:
    """Apply transitions in one transaction and tell Redis; return what became of each, in order.

    Raises Unavailable where Postgres is away; then nothing may be concluded, and repeating is safe.
    """
    applied = await db.run(engine, lambda connection: transitions.apply(connection, changes), alone=True)
    await tell(queue, changes, applied)
    return applied


async def tell(queue: Queue, changes: Sequence[Transition], applied: Sequence[Applied]) -> None:
    """Tell Redis what was committed: moves in its queues, and whom to wake. Where it is away, it is not told."""
    try:
        await _tell(queue, changes, applied)
    except RedisAway as error:
        log.warning("queue.not_told", jobs=len(changes), error=str(error))


async def _tell(queue: Queue, changes: Sequence[Transition], applied: Sequence[Applied]) -> None:
    moves: dict[str, list[Move]] = defaultdict(list)
    ended, moved = [], []
    for change, result in zip(changes, applied, strict=True):
        if result.status is None:
            continue
        stays = result.status == "queued" and result.moved is None
        due = (change.run_at or change.at) if stays else None
        moves[change.target.provider].append(Move(change.target.model, change.id, due, change.spent))
        if result.moved is not None:
            moved.append(Entry.of(result.moved))
        elif due is None:
            ended.append(change.id)
    for provider, group in moves.items():
        await queue.move(provider, group)
    if moved:
        await queue.enqueue(moved)
    if ended:
        await queue.announce(FINISHED, ended)
    if any(result.has_delivery for result in applied):
        await queue.wake(DELIVER_WAKE)
    if any(result.lets_go for result in applied):
        await queue.wake(LET_GO_WAKE)


async def bring_forward(queue: Queue, rows: Iterable[Any]) -> None:
    """Tell Redis of queued jobs, given as rows, that are due at another time now. Raises `RedisAway` errors."""
    moves: dict[str, list[Move]] = defaultdict(list)
    for row in rows:
        moves[row.provider].append(Move(row.upstream_model, row.id, row.run_at))
    for provider, group in moves.items():
        await queue.move(provider, group)


async def stop_batch(engine: db.Engine, queue: Queue, tenant: str, id_: UUID) -> None:
    """Have a tenant's batch cancelled: its queued jobs end here, its workers are told of those in progress.

    Should we end before it is done, maintenance goes on with it. Raises Unavailable where Postgres is away.
    """
    while True:  # jobs are claimed, and given back, while we look
        # These first: what is claimed between the two looks is among those that run.
        queued = await db.run(engine, lambda connection: batches.queued(connection, tenant, id_, limit=_PAGE))
        running, has_delivery = await db.run(engine, lambda connection: batches.ask_cancel(connection, tenant, id_))
        with suppress(*RedisAway):  # their workers find the marks when they renew their leases
            if running:
                await queue.announce(CANCEL, running)
            if has_delivery:
                await queue.wake(DELIVER_WAKE)
        if queued:
            await commit(engine, queue, [ended_queued(job, "cancelled") for job in queued])
        elif not running:
            return
