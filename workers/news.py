"""What a call's outcome says of its deployment: how much of its limits it used, what it admits, whether it is well."""

import structlog

from shared.allowance import allowances
from shared.config import Provider
from shared.errors import HANDLING, ProviderError
from shared.limits import Spent, key_mark
from shared.providers import Completion, Usage
from shared.queue import Queue, RedisAway
from shared.queue.entries import Taken
from shared.routing import Target
from workers.call import Answered

log = structlog.get_logger(__name__)

_SHORTEST_REST = 1.0


def spent_by(answered: Answered, drawn: Taken, usage: Usage | None, *, keeps: bool) -> Spent:
    """Return what a call was to its deployment's limits; a provider that `keeps` gives back no output unused."""
    if not answered.sent:
        return drawn.unused
    went_well = isinstance(answered.outcome, Completion)
    used = usage or Usage()
    back = (0, drawn.input_tokens - used.input, drawn.output_tokens - used.output)
    if keeps:
        back = (0, min(back[1], 0), min(back[2], 0))
    exact = went_well and usage is not None and not usage.estimated
    tokens = (used.input, used.output) if exact else None
    return Spent(drawn.key, back, tokens, answered.ms if went_well else None, drawn.at)


async def tell(queue: Queue, provider: Provider, drawn: Taken, answered: Answered, *, name: str) -> None:
    """Tell the queue what an answer said of its deployment; where Redis is away, it is not told."""
    try:
        await _tell(queue, provider, drawn, answered, name)
    except RedisAway as error:
        log.warning("deployment.not_told", lane=f"{name}/{drawn.lane}", error=str(error))


async def _tell(queue: Queue, provider: Provider, drawn: Taken, answered: Answered, name: str) -> None:
    said = allowances(answered.headers)
    if "i" in said and "o" in said:
        said.pop("t", None)  # it says no more than these two, and may count what they do not
    if said:
        await queue.told(drawn, name, said)
    outcome, target = answered.outcome, Target(name, drawn.lane)
    if not isinstance(outcome, ProviderError):
        return
    mark = next((key_mark(key.value) for key in provider.keys if key.name == drawn.key), "key:")
    match HANDLING[outcome.kind].news:
        case "pace":
            seconds = outcome.retry_after if outcome.retry_after is not None else _SHORTEST_REST
            await queue.refused(target, drawn.key, seconds=seconds)
        case "circuit":
            if await queue.failed(target, drawn.key, at=drawn.at, present=mark):
                log.warning("circuit.opened", lane=str(target), key=drawn.key, error=outcome.kind.value)
        case "key":
            if await queue.failed(target, drawn.key, mark=mark, at=drawn.at):
                log.error("key.refused", lane=str(target), key=drawn.key, error=outcome.kind.value)
