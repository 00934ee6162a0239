"""Handing over: jobs that wait where nobody may be called go to their next target, in turn and not all at once.

No more go than their new lane has work for, so that the lane they came from has its jobs again when its circuit closes.
"""

from collections import defaultdict

import structlog

from shared.commit import tell
from shared.config import Config
from shared.db import engine as db
from shared.db import sweep, transitions
from shared.db.transitions import moved_queued
from shared.limits import deployments_json
from shared.queue import Queue
from shared.routing import Route, Target

log = structlog.get_logger(__name__)

STOCK = 500
"""Jobs that may wait in a lane which takes over another's."""


async def hand_over(engine: db.Engine, queue: Queue, config: Config, lane: Target) -> int:
    """Give jobs that wait in a lane to their next targets that are well; return how many went.

    Raises Unavailable and `RedisAway` errors.
    """
    async with db.transaction(engine) as connection:
        rows = await sweep.elsewhere(connection, lane.provider, lane.model, limit=STOCK)
        room = await _room(queue, config, {one for row in rows for one in Route.of(row.route).general})
        changes = []
        for row in rows:
            route = Route.of(row.route)
            chosen = next((one for one in route.general if room.get(one, 0) > 0), None)
            if chosen is not None:
                room[chosen] -= 1
                changes.append(moved_queued(row, chosen, route.instead(chosen, lane, charged=row.charged)))
        applied = await transitions.apply(connection, changes) if changes else []
    if changes:
        log.warning("jobs.handed_over", lane=str(lane), jobs=len(changes))
        await tell(queue, changes, applied)
    return len(changes)


async def _room(queue: Queue, config: Config, targets: set[Target]) -> dict[Target, int]:
    """Return how many more jobs each target may get: none where it is not well either."""
    lanes: dict[str, list[str]] = defaultdict(list)
    for target in targets:
        if target.provider in config.providers:
            lanes[target.provider].append(target.model)
    room = {}
    for name, models in lanes.items():
        states = await queue.survey(name, models, limits=deployments_json(config.providers[name]))
        for model, state in states.items():
            room[Target(name, model)] = STOCK - state.waiting if state.healthy else 0
    return room
