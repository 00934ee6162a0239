"""What a call used and what that cost, estimated where the provider did not say."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import orjson
import structlog

from shared import ids, tokens
from shared.config import Provider, cost_of, price_version
from shared.db.claims import Claim
from shared.errors import ErrorKind, ProviderError
from shared.providers import Completion, Usage
from workers.call import Answered

log = structlog.get_logger(__name__)

# Failures after which the provider may have charged although no usage came back.
_PERHAPS_CHARGED = frozenset(
    {ErrorKind.TIMEOUT, ErrorKind.CONNECTION, ErrorKind.INVALID_RESPONSE, ErrorKind.RESPONSE_TOO_LARGE}
)


@dataclass(frozen=True, slots=True)
class Used:
    """What was used (None: nothing was charged), its cost (None: the price is unknown), and whose price that is."""

    usage: Usage | None = None
    cost_nanos: int | None = None
    price_version: str | None = None


async def used_by(claim: Claim, provider: Provider, answered: Answered) -> Used:
    """Return what a call used. What it cost may be unknown; that it was answered is not: this raises nothing."""
    usage = None
    try:
        usage = await _usage(claim, answered) if answered.sent else None
        tier = answered.outcome.service_tier if isinstance(answered.outcome, Completion) else None
        cost = None if usage is None else cost_of(provider, claim.upstream_model, usage, tier)
        if usage is not None and claim.held_nanos is not None:
            usage, cost = _doubted(claim, answered, usage, cost)
        return Used(usage, cost, None if cost is None else price_version(provider, claim.upstream_model))
    except Exception:
        log.exception("job.not_priced", job=ids.show("job", claim.id), attempt=claim.attempt)
        return Used(usage)


def together(used: Sequence[Used]) -> Used:
    """Return what several calls used together: an estimate where one is, at an unknown cost where one's is."""
    if len(used) == 1:
        return used[0]
    charged = [(one.usage, one.cost_nanos) for one in used if one.usage is not None]
    if not charged:
        return Used()
    usages, costs = [usage for usage, _ in charged], [cost for _, cost in charged if cost is not None]
    counts = {one.name: sum(getattr(usage, one.name) for usage in usages) for one in fields(Usage)}
    usage = Usage(**{**counts, "estimated": bool(counts["estimated"])})
    return Used(usage, sum(costs) if len(costs) == len(charged) else None, used[0].price_version)


def _doubted(claim: Claim, answered: Answered, usage: Usage, cost: int | None) -> tuple[Usage, int]:
    """Return what is booked of a budget: what nobody knows the cost of at what was held.

    What did not arrive whole may have been charged whole: at no less than such a call usually costs.
    """
    assert claim.held_nanos is not None
    if cost is None:
        return replace(usage, estimated=True), claim.held_nanos
    if usage.estimated and not isinstance(answered.outcome, Completion):
        return usage, max(cost, claim.usual_nanos or 0)
    return usage, cost


async def _usage(claim: Claim, answered: Answered) -> Usage | None:
    """Return what the call used, estimated where the provider did not say; None where it charged nothing."""
    match answered.outcome:
        case Completion(usage=usage) if not usage.estimated:
            return usage
        case Completion(body=body):
            asked, answer = await _asked(claim), len(body) // 4
            return Usage(input=asked, output=answer, estimated=True)
        case ProviderError(kind=kind) if kind not in _PERHAPS_CHARGED and not answered.chunks:
            return None
        case _:
            asked = await _asked(claim)
            return Usage(input=asked, output=answered.chunks, estimated=True)  # a chunk is about a token


async def _asked(claim: Claim) -> int:
    return await asyncio.to_thread(tokens.likely_input, orjson.loads(claim.body), claim.upstream_model)
