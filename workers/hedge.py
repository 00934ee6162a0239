"""Hedging: a job's call that is late is made a second time, and the first good answer counts.

Only interactive jobs of models that ask for it are called twice, only where that may cost no more than they allow, and
only where the limits admit the second call at once. Of a streamed answer, the call that has the first chunk counts.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import orjson
import structlog

from shared import ids
from shared.config import Config, cost_of
from shared.config_models import Hedge
from shared.db.claims import Claim
from shared.lifecycle import Stop
from shared.limits import Spent, deployments_json
from shared.providers import Completion, Usage
from shared.queue import Queue, RedisAway
from shared.queue.entries import Move, Taken
from workers.call import Answered
from workers.relay import Relay

log = structlog.get_logger(__name__)

_NANOS = Decimal(10**9)
_SPARE_SECONDS = 5.0
"""How much longer than it may take a second call is in motion: its lease is not renewed."""
_PATIENCE_SECONDS = 1.0

Ask = Callable[[Taken, Relay], Awaitable[Answered]]
"""Makes a job's call with the key that was drawn, and never raises, also where it is cancelled."""

Draw = Callable[[float], Awaitable[Taken | float | None]]
"""Draws for a second call after so many seconds, or tells the seconds until it is time; None is for never."""


@dataclass(frozen=True, slots=True)
class Called:
    """One of a job's calls: what was drawn for it, and what it came to."""

    drawn: Taken
    answered: Answered


def hedge_of(config: Config, claim: Claim, drawn: Taken) -> Hedge | None:
    """Return how a job's call is hedged, None where it is not."""
    model = config.models.get(claim.model)
    hedge = model.hedge if model is not None and claim.priority == "interactive" else None
    if hedge is None or claim.held_nanos is not None:  # what is held of a budget is for one call
        return None
    # What the request allows itself, or what its tenant's jobs lately put out.
    expected = Usage(max(claim.input_estimate, drawn.input_tokens), claim.output_estimate or drawn.output_tokens)
    tier = orjson.loads(claim.body).get("service_tier")
    cost = cost_of(
        config.providers[claim.provider], claim.upstream_model, expected, tier if isinstance(tier, str) else None
    )
    return hedge if cost is not None and cost <= hedge.max_cost_usd * _NANOS else None


def drawing(queue: Queue, config: Config, claim: Claim, first: Taken, *, after: float | None, longest: float) -> Draw:
    """Return what draws for the second call of a job, which takes at most `longest` seconds."""
    provider = config.providers[claim.provider]

    async def draw(waited: float) -> Taken | float | None:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):  # an answer must not wait for a Redis that hangs
                found = await queue.hedge(
                    claim.provider,
                    first,
                    waited=waited,
                    after=after,
                    longest=min(provider.timeout, longest) + _SPARE_SECONDS,
                    limits=deployments_json(provider),
                    in_flight=config.tenants.defaults.in_flight or 0,
                )
        except RedisAway as error:
            log.warning("call.not_hedged", job=ids.show("job", claim.id), error=str(error))
            return None
        if isinstance(found, Taken):
            log.info("call.hedged", job=ids.show("job", claim.id), attempt=claim.attempt, seconds=round(waited, 3))
        return found

    return draw


async def hedged(ask: Ask, first: Taken, relay: Relay, draw: Draw, *, after: float | None) -> list[Called]:
    """Make a job's call, and where it is late another; return the calls made, first the one that counts.

    Nothing of either is under way any more then. Where this is cancelled, so are they, and it returns all the same.
    """
    heard: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    drawn, tasks = [first], [asyncio.ensure_future(ask(first, _Voice(relay, heard, 0)))]
    begun = time.monotonic()
    try:
        found = await draw(0.0) if after is None else after
        while isinstance(found, float) and await _leader(tasks, heard, seconds=found) is None:
            found = await draw(time.monotonic() - begun)
        if isinstance(found, Taken):
            drawn.append(found)
            tasks.append(asyncio.ensure_future(ask(found, _Voice(relay, heard, 1))))
        leads = tasks[await _leader(tasks, heard) or 0]
        for task in tasks:
            if task is not leads:
                task.cancel()
        await asyncio.wait([leads])
    except asyncio.CancelledError:
        pass  # what was drawn just then lapses
    finally:
        for task in tasks:
            task.cancel()
    while not all(task.done() for task in tasks):
        with suppress(asyncio.CancelledError):
            await asyncio.wait(tasks)
    calls = [Called(one, _came_to(task)) for one, task in zip(drawn, tasks, strict=True)]
    return calls[::-1] if _leading(tasks, heard) == 1 else calls


async def give_back(queue: Queue, provider: str, second: Taken, spent: Spent) -> None:
    """Take a second call out of motion; where Redis is away, it lapses."""
    try:
        await queue.move(provider, [Move(second.lane, second.id, None, spent)])
    except RedisAway as error:
        log.warning("call.not_given_back", lane=f"{provider}/{second.lane}", error=str(error))


class _Voice(Relay):
    """What one of two calls has to say: passed on where it is the first to say something, else dropped."""

    def __init__(self, relay: Relay, heard: asyncio.Future[int], number: int) -> None:
        self._relay, self._heard, self._number = relay, heard, number
        self.sent = 0

    def begin(self) -> None:
        """Wait with that until there is a first chunk."""

    def send(self, chunks: list[dict[str, Any]]) -> None:
        """Pass chunks on, or drop them."""
        self.sent += len(chunks)
        if chunks and not self._heard.done():
            self._heard.set_result(self._number)
            self._relay.begin()
        if self._heard.done() and self._heard.result() == self._number:
            self._relay.send(chunks)


def _came_to(task: asyncio.Future[Answered]) -> Answered:
    """Return what a call came to; one that was cancelled before it began was never made."""
    return Answered(Stop.SHUTDOWN, sent=False) if task.cancelled() else task.result()


def _leading(tasks: Sequence[asyncio.Future[Answered]], heard: asyncio.Future[int]) -> int | None:
    """Return which of the calls counts: who was heard, who has a good answer, else the first when all have ended."""
    if heard.done():
        return heard.result()
    ended = [number for number, task in enumerate(tasks) if task.done()]
    good = (number for number in ended if isinstance(_came_to(tasks[number]).outcome, Completion))
    return next(good, 0 if len(ended) == len(tasks) else None)


async def _leader(
    tasks: Sequence[asyncio.Future[Answered]], heard: asyncio.Future[int], *, seconds: float | None = None
) -> int | None:
    """Wait until one of the calls counts, for so many seconds at most; return which."""
    while (found := _leading(tasks, heard)) is None:
        pending: list[asyncio.Future[Any]] = [heard, *(task for task in tasks if not task.done())]
        done, _ = await asyncio.wait(pending, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            break
    return found
