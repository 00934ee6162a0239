"""The spine: one claimed job's way from its claim to its finish. Read it top to bottom."""

import asyncio
import random
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp
import structlog

from shared import ids, pricing, tokens
from shared.config import Config, Provider
from shared.db.claims import Claim
from shared.db.transitions import Applied, Transition
from shared.errors import ErrorKind, ProviderError
from shared.lifecycle import JobState, Stop, after_attempt
from shared.limits import KEEP_OUTPUT
from shared.providers import Completion, Usage
from shared.queue import Queue
from shared.queue.entries import Taken
from shared.routing import Route
from shared.settings import Settings
from workers.call import Answered, call
from workers.finish import Finisher, transition
from workers.news import spent_by, tell
from workers.relay import Relay

log = structlog.get_logger(__name__)

# Failures after which the provider may have charged although no usage came back.
_PERHAPS_CHARGED = frozenset(
    {ErrorKind.TIMEOUT, ErrorKind.CONNECTION, ErrorKind.INVALID_RESPONSE, ErrorKind.RESPONSE_TOO_LARGE}
)


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


async def run_job(context: Context, held: Held) -> None:
    """Run one claimed job: call its provider, decide, finish. Raises CancelledError after giving it back on shutdown.

    A job whose lease was lost is another's by now: the finish is fenced, and only what the call used is booked.
    """
    claim = held.claim
    relay = Relay(context.queue.chunks, claim.id, claim.attempt)
    answered = await _answer(context, held, relay)
    applied = await _whole(_conclude(context, held, answered, relay))
    held.ended = True
    log.debug(
        "job.attempt_ended",
        job=ids.show("job", claim.id),
        attempt=claim.attempt,
        status=applied.status or "late",
        outcome=type(answered.outcome).__name__,
    )
    if answered.outcome is Stop.SHUTDOWN:
        raise asyncio.CancelledError


async def _answer(context: Context, held: Held, relay: Relay) -> Answered:
    try:
        return await call(
            context.client,
            held.claim,
            context.config.providers[held.claim.provider],
            relay,
            key_name=held.drawn.key,
            longest=context.settings.job_timeout,
            most_bytes=context.settings.max_response_bytes,
        )
    except asyncio.CancelledError:
        return Answered(held.stop or Stop.SHUTDOWN, chunks=relay.sent)
    except Exception as error:
        log.exception("job.crashed", job=ids.show("job", held.claim.id), attempt=held.claim.attempt)
        return Answered(ProviderError(ErrorKind.INTERNAL, f"{type(error).__name__} in the worker"), sent=False)


async def _conclude(context: Context, held: Held, answered: Answered, relay: Relay) -> Applied:
    provider = context.config.providers[held.claim.provider]
    change = await _decide(context, held.claim, held.drawn, answered)
    await relay.end()  # who hears of the end finds every chunk
    await tell(context.queue, provider, held.drawn, answered, name=held.claim.provider)
    return await context.finisher.finish(change)


async def _whole(work: Coroutine[Any, Any, Applied]) -> Applied:
    """See work through, however often we are told to stop meanwhile: what was answered has been paid for."""
    task = asyncio.create_task(work)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    return task.result()


async def _decide(context: Context, claim: Claim, drawn: Taken, answered: Answered) -> Transition:
    provider = context.config.providers[claim.provider]
    state = JobState(
        claim.charged,
        context.settings.max_attempts,
        claim.deadline,
        claim.attempt,
        Route.of(claim.route),
        keys=len(provider.keys) or 1,
    )
    verdict = after_attempt(state, answered.outcome, datetime.now(UTC), context.rng)
    usage, cost = None, None
    try:
        usage = await _usage(claim, answered) if answered.sent else None
        tier = answered.outcome.service_tier if isinstance(answered.outcome, Completion) else None
        cost = None if usage is None else _cost(provider, claim.upstream_model, usage, tier)
    except Exception:
        # What a call cost may be unknown; that it was answered is not.
        log.exception("job.not_priced", job=ids.show("job", claim.id), attempt=claim.attempt)
    spent = spent_by(answered, drawn, usage, keeps=provider.kind in KEEP_OUTPUT)
    return transition(claim, verdict, usage=usage, cost_nanos=cost, spent=spent)


def _cost(provider: Provider, model: str, usage: Usage, tier: str | None) -> int | None:
    price = provider.models[model].price if model in provider.models else None
    return pricing.cost_nanos(provider.kind, model, usage, price=price, listed=provider.at_vendor, service_tier=tier)


async def _usage(claim: Claim, answered: Answered) -> Usage | None:
    """Return what the call used, estimated where the provider did not say; None where it charged nothing."""
    match answered.outcome:
        case Completion(usage=usage) if not usage.estimated:
            return usage
        case Completion(body=body):
            asked, answer = await asyncio.to_thread(tokens.estimate, claim.body, claim.upstream_model), len(body) // 4
            return Usage(input=asked, output=answer, estimated=True)
        case ProviderError(kind=kind) if kind not in _PERHAPS_CHARGED and not answered.chunks:
            return None
        case _:
            asked = await asyncio.to_thread(tokens.estimate, claim.body, claim.upstream_model)
            return Usage(input=asked, output=answered.chunks, estimated=True)  # a chunk is about a token
