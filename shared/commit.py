"""Commits transitions in Postgres, then tells Redis: who ends or re-queues jobs comes through here.

Redis is told after the commit and may miss it: maintenance brings it back in line with Postgres.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import structlog

from shared.db import engine as db
from shared.db import transitions
from shared.db.transitions import Applied, Transition
from shared.queue import FINISHED, Queue, RedisAway
from shared.queue.entries import Entry, Move

log = structlog.get_logger(__name__)


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
        await queue.wake_deliveries()


async def bring_forward(queue: Queue, rows: Iterable[Any]) -> None:
    """Tell Redis of queued jobs, given as rows, that are due at another time now. Raises `RedisAway` errors."""
    moves: dict[str, list[Move]] = defaultdict(list)
    for row in rows:
        moves[row.provider].append(Move(row.upstream_model, row.id, row.run_at))
    for provider, group in moves.items():
        await queue.move(provider, group)
