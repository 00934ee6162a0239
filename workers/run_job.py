"""The spine: one claimed job's way from its claim to its finish. Read it top to bottom."""

import asyncio
import random
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import aiohttp
import structlog

from shared import ids
from shared.config import Config
from shared.db.claims import Claim
from shared.db.transitions import Applied, Transition
from shared.errors import ErrorKind, ProviderError
from shared.lifecycle import Invalid, JobState, Outcome, Stop, after_attempt
from shared.limits import KEEP_OUTPUT, Spent
from shared.queue import Queue
from shared.queue.entries import Taken
from shared.routing import Route
from shared.settings import Settings
from workers.call import Answered, call
from workers.check import Checker, asks_for_schema, checked
from workers.finish import Finisher, transition
from workers.hedge import Called, drawing, give_back, hedge_of, hedged
from workers.news import Alert, spent_by, tell, tell_unpriced, unheard
from workers.relay import Relay
from workers.usage import Used, together, used_by

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Held:
    """A job in this process's hands.

    `stop` says why its call was cancelled, where we did it; `ended` that its finish is on disk; `broken` that running
    it raised what it should not.
    """

    claim: Claim
    drawn: Taken
    stop: Stop | None = None
    ended: bool = False
    broken: bool = False


@dataclass(frozen=True, slots=True)
class Context:
    """What every job of a pool runs with."""

    config: Config
    settings: Settings
    client: aiohttp.ClientSession
    finisher: Finisher
    queue: Queue
    rng: random.Random = field(default_factory=random.Random)
    checker: Checker = field(default_factory=Checker)
    alert: Alert = unheard


async def run_job(context: Context, held: Held) -> None:
    """Run one claimed job: call its provider, decide, finish. Raises CancelledError after giving it back on shutdown.

    A job whose lease was lost is another's by now: the finish is fenced, and only what the call used is booked.
    """
    claim = held.claim
    checks = context.config.structured_output.check and asks_for_schema(claim)
    relay = Relay(context.queue.chunks, claim.id, claim.attempt, holds_end=checks)
    calls = await _call(context, held, relay)
    outcome: Outcome = calls[0].answered.outcome
    outcome = await _checked(context, held, outcome) if checks else outcome
    if not isinstance(outcome, Invalid):
        relay.release()
    applied = await _whole(_conclude(context, held, calls, outcome, relay))
    held.ended = True
    log.debug(
        "job.attempt_ended",
        job=ids.show("job", claim.id),
        attempt=claim.attempt,
        status=applied.status or "late",
        outcome=type(outcome).__name__,
    )
    if outcome is Stop.SHUTDOWN:
        raise asyncio.CancelledError


async def _call(context: Context, held: Held, relay: Relay) -> list[Called]:
    """Make the job's call, and where it is hedged and late another; return them, first the one that counts."""
    longest = context.settings.job_timeout
    ask = partial(_answer, context, held, until=time.monotonic() + longest)
    hedge = hedge_of(context.config, held.claim, held.drawn)
    if hedge is None:
        return [Called(held.drawn, await ask(held.drawn, relay))]
    draw = drawing(context.queue, context.config, held.claim, held.drawn, after=hedge.after, longest=longest)
    return await hedged(ask, held.drawn, relay, draw, after=hedge.after)


async def _answer(context: Context, held: Held, drawn: Taken, relay: Relay, *, until: float) -> Answered:
    """Call once, with the key that was drawn; what stops us is an answer too."""
    try:
        return await call(
            context.client,
            held.claim,
            context.config.providers[held.claim.provider],
            relay,
            key_name=drawn.key,
            longest=until - time.monotonic(),
            most_bytes=context.settings.max_response_bytes,
        )
    except asyncio.CancelledError:
        return Answered(held.stop or Stop.SHUTDOWN, chunks=relay.sent)
    except Exception as error:
        log.exception("job.crashed", job=ids.show("job", held.claim.id), attempt=held.claim.attempt)
        return Answered(ProviderError(ErrorKind.INTERNAL, f"{type(error).__name__} in the worker"), sent=False)


async def _checked(context: Context, held: Held, outcome: Outcome) -> Outcome:
    """Hold an answer against its schema; where that is stopped, the attempt was, for nobody knows whether it fits."""
    try:
        return await checked(context.checker, held.claim, outcome)
    except asyncio.CancelledError:
        return held.stop or Stop.SHUTDOWN


async def _conclude(context: Context, held: Held, calls: list[Called], outcome: Outcome, relay: Relay) -> Applied:
    claim, provider = held.claim, context.config.providers[held.claim.provider]
    for one in calls:
        await tell(context.queue, provider, one.drawn, one.answered, name=claim.provider, alert=context.alert)
    used = [await used_by(claim, provider, one.answered) for one in calls]
    for its in used:
        tell_unpriced(claim, its, alert=context.alert)
    keeps = provider.kind in KEEP_OUTPUT
    spent = {
        one.drawn: spent_by(one.answered, one.drawn, its.usage, keeps=keeps, slow=provider.slow)
        for one, its in zip(calls, used, strict=True)
    }
    change = _decide(context, claim, calls, outcome, together(used), spent[held.drawn])
    await relay.end()  # who hears of the end finds every chunk
    for one in calls:
        if one.drawn != held.drawn:
            await give_back(context.queue, claim.provider, one.drawn, spent[one.drawn])
    return await context.finisher.finish(change)


def _decide(
    context: Context, claim: Claim, calls: list[Called], outcome: Outcome, used: Used, spent: Spent
) -> Transition:
    """Decide by what the call that counts came to. A hedged attempt names the keys of both calls, joined by `+`."""
    provider = context.config.providers[claim.provider]
    state = JobState(
        claim.charged,
        context.settings.max_attempts,
        claim.deadline,
        claim.attempt,
        Route.of(claim.route).within(context.config.providers),
        keys=len(provider.keys) or 1,
        repairs=context.config.structured_output.repairs - claim.repairs,
    )
    verdict = after_attempt(state, outcome, datetime.now(UTC), context.rng)
    change = transition(
        claim,
        verdict,
        usage=used.usage,
        cost_nanos=used.cost_nanos,
        price_version=used.price_version,
        spent=spent,
    )
    if len(calls) == 1 or change.attempt_end is None:
        return change
    keys = "+".join(one.drawn.key for one in calls if one is calls[0] or one.answered.sent)
    return replace(change, attempt_end=replace(change.attempt_end, key_name=keys or None))


async def _whole(work: Coroutine[Any, Any, Applied]) -> Applied:
    """See work through, however often we are told to stop meanwhile: what was answered has been paid for."""
    task = asyncio.create_task(work)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    return task.result()
