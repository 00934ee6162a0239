"""Handing over: jobs that wait where nobody may be called go to their next target, in turn and not all at once.

No more go than their new lane has work for, so that the lane they came from has its jobs again when its circuit closes.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import structlog

from shared.commit import commit
from shared.config import Config
from shared.db import engine as db
from shared.db import leases, sweep
from shared.db.transitions import moved_queued
from shared.errors import Unavailable
from shared.limits import deployments_json
from shared.queue import Queue, RedisAway
from shared.routing import Route, Target

log = structlog.get_logger(__name__)

PAGE = 2_000
STOCK = 500
"""Jobs that may wait in a lane which takes over another's."""


class HandOver:
    """Hands over a provider's lanes, beside the claims, a page of jobs at a time."""

    def __init__(self, engine: db.Engine, queue: Queue, config: Config, provider: str) -> None:
        self._engine = engine
        self._queue = queue
        self._config = config
        self._provider = provider
        self._behind: dict[str, UUID] = {}
        self._task: asyncio.Task[None] | None = None

    def begin(self, lanes: Sequence[str]) -> None:
        """Begin with lanes where jobs wait and nobody may be called, unless it is at it still."""
        if lanes and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._all(lanes))

    async def end(self) -> None:
        """Wait until what was begun is done."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _all(self, lanes: Sequence[str]) -> None:
        try:
            for lane in lanes:
                self._behind[lane] = await self._page(Target(self._provider, lane))
        except (Unavailable, *RedisAway) as error:
            log.warning("jobs.not_handed_over", provider=self._provider, error=str(error))
        except Exception:
            log.exception("jobs.not_handed_over", provider=self._provider)

    async def _page(self, lane: Target) -> UUID:
        """Give a page of jobs to their next targets that are well and have workers, in turn over their tenants.

        Returns behind which job the next page begins: those that cannot go hold up no others.
        """
        after = self._behind.get(lane.model, sweep.START)
        async with db.transaction(self._engine) as connection:
            rows = await sweep.elsewhere(connection, lane.provider, lane.model, after=after, limit=PAGE)
            manned = await leases.manned(connection)
        targets = {one for row in rows for one in Route.of(row.route).general if one.provider in manned}
        room = await self._room(targets)
        changes = []
        for row in _in_turn(rows):
            route = Route.of(row.route)
            chosen = next((one for one in route.general if room.get(one, 0) > 0), None)
            if chosen is not None:
                room[chosen] -= 1
                changes.append(moved_queued(row, chosen, route.instead(chosen, lane, charged=row.charged)))
        if changes:
            log.warning("jobs.handed_over", lane=str(lane), jobs=len(changes))
            await commit(self._engine, self._queue, changes)
            return after
        return rows[-1].id if len(rows) == PAGE else sweep.START

    async def _room(self, targets: set[Target]) -> dict[Target, int]:
        """Return how many more jobs each target may get: none where it is not well either."""
        lanes: dict[str, list[str]] = defaultdict(list)
        for target in targets:
            if target.provider in self._config.providers:
                lanes[target.provider].append(target.model)
        room = {}
        for name, models in lanes.items():
            limits = deployments_json(self._config.providers[name])
            for model, state in (await self._queue.survey(name, models, limits=limits)).items():
                room[Target(name, model)] = STOCK - state.waiting if state.healthy else 0
        return room


def _in_turn(rows: Iterable[Any]) -> list[Any]:
    """Return jobs so that each tenant's first come first, then its second."""
    places: Counter[str] = Counter()
    placed = []
    for row in rows:
        placed.append((places[row.tenant_id], row))
        places[row.tenant_id] += 1
    return [row for _, row in sorted(placed, key=lambda one: one[0])]
