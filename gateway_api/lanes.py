"""How the lanes stand that a job may be spread over: asked for now and then, so that a choice need not wait."""

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import replace
from itertools import groupby

import structlog

from shared.cancellation import heed
from shared.config import Config
from shared.limits import deployments_json
from shared.queue import Queue, RedisAway
from shared.queue.survey import LaneState
from shared.routing import Target, parse

log = structlog.get_logger(__name__)

EVERY_SECONDS = 0.5


class Lanes:
    """The last known state of lanes, of one process; empty while Redis is away."""

    def __init__(self, queue: Queue, config: Config) -> None:
        self._queue = queue
        self._limits = {name: deployments_json(provider) for name, provider in config.providers.items()}
        self._watched = spread(config)
        self._known: dict[Target, LaneState] = {}

    def of(self, target: Target) -> LaneState | None:
        """Return how a lane stood half a second ago, None where nobody knows."""
        return self._known.get(target)

    def sent(self, target: Target) -> None:
        """Count a job that goes to a lane: until it is asked again, those that come next see that it waits there."""
        if found := self._known.get(target):
            self._known[target] = replace(found, waiting=found.waiting + 1)

    async def ask(self, targets: Iterable[Target]) -> dict[Target, LaneState]:
        """Return how lanes stand now. Raises `RedisAway` errors."""
        found: dict[Target, LaneState] = {}
        for provider, group in groupby(sorted(targets, key=str), key=lambda target: target.provider):
            lanes = [target.model for target in group]
            states = await self._queue.survey(provider, lanes, limits=self._limits[provider])
            found |= {Target(provider, lane): state for lane, state in states.items()}
        return found

    async def watch(self) -> None:
        """Keep what is known fresh until cancelled."""
        while self._watched:
            heed()
            try:
                self._known = await self.ask(self._watched)
            except RedisAway as error:
                if self._known:
                    log.warning("lanes.not_known", lanes=len(self._watched), error=str(error))
                self._known = {}
            except Exception:
                log.exception("lanes.crashed", lanes=len(self._watched))
                self._known = {}
            await asyncio.sleep(EVERY_SECONDS)


def spread(config: Config) -> Collection[Target]:
    """Return the targets that are among several of a configured model, its fallbacks' counted."""
    names: set[str] = set()
    for model in config.models.values():
        if not model.lone:
            names.update(model.targets)
            for one in (*model.fallbacks, *model.context_fallbacks, *model.content_fallbacks):
                names.update(config.models[one].targets if one in config.models else [one])
    return {parse(name) for name in names}
