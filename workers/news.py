"""What a call's outcome says of its deployment: how much of its limits it used, what it admits, whether it is well.

What an operator must hear of that is raised as an alert, which nobody here waits for.
"""

from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from shared.allowance import allowances
from shared.config import Provider
from shared.db.alerts import NewAlert
from shared.db.claims import Claim
from shared.errors import HANDLING, ProviderError
from shared.limits import Spent, key_mark
from shared.providers import Completion, Usage
from shared.queue import Queue, RedisAway
from shared.queue.entries import Taken
from shared.routing import Target
from workers.call import Answered
from workers.probe import spare
from workers.usage import Used

log = structlog.get_logger(__name__)

_SHORTEST_REST = 1.0

Alert = Callable[[NewAlert], None]
"""Raises an alert without waiting for anything."""


def unheard(_: NewAlert) -> None:
    """Raise no alert."""


def spent_by(answered: Answered, drawn: Taken, usage: Usage | None, *, keeps: bool, slow: float | None = None) -> Spent:
    """Return what a call was to its deployment's limits; a provider that `keeps` gives back no output unused.

    One that took longer than `slow` seconds did not go well, though its answer counts.
    """
    if not answered.sent:
        return drawn.unused
    went_well = isinstance(answered.outcome, Completion)
    used = usage or Usage()
    back = (0, drawn.input_tokens - used.input, drawn.output_tokens - used.output)
    if keeps:
        back = (0, min(back[1], 0), min(back[2], 0))
    exact = went_well and usage is not None and not usage.estimated
    tokens = (used.input, used.output) if exact else None
    quick = went_well and not _slow(answered, slow)
    return Spent(drawn.key, back, tokens, answered.ms if quick else None, drawn.at)


async def tell(
    queue: Queue, provider: Provider, drawn: Taken, answered: Answered, *, name: str, alert: Alert = unheard
) -> None:
    """Tell the queue what an answer said of its deployment; where Redis is away, it is not told."""
    try:
        await _tell(queue, provider, drawn, answered, name, alert)
    except RedisAway as error:
        log.warning("deployment.not_told", lane=f"{name}/{drawn.lane}", error=str(error))


def tell_unpriced(claim: Claim, used: Used, *, alert: Alert) -> None:
    """Raise that what a call used has no price, once a day for each model."""
    if used.usage is None or used.cost_nanos is not None:
        return
    target = str(Target(claim.provider, claim.upstream_model))
    alert(
        NewAlert(
            "model.unpriced",
            f"{target} {datetime.now(UTC):%Y-%m-%d}",
            f"Nobody knows what {target} costs: its jobs have no cost, and budgets cannot count them. "
            "Give it a price in the configuration.",
            {"provider": claim.provider, "model": claim.upstream_model},
        )
    )


def _slow(answered: Answered, limit: float | None) -> bool:
    return limit is not None and isinstance(answered.outcome, Completion) and answered.ms > limit * 1000


async def _tell(queue: Queue, provider: Provider, drawn: Taken, answered: Answered, name: str, alert: Alert) -> None:
    said = allowances(answered.headers)
    if "i" in said and "o" in said:
        said.pop("t", None)  # it says no more than these two, and may count what they do not
    if said:
        await queue.told(drawn, name, said)
    outcome, target = answered.outcome, Target(name, drawn.lane)
    mark = next((key_mark(key.value) for key in provider.keys if key.name == drawn.key), "key:")
    if _slow(answered, provider.slow):
        if await queue.failed(target, drawn.key, at=drawn.at, present=mark):
            _opened(target, drawn.key, "slow", alert)
        return
    if not isinstance(outcome, ProviderError):
        return
    match HANDLING[outcome.kind].news:
        case "pace":
            seconds = outcome.retry_after if outcome.retry_after is not None else _SHORTEST_REST
            await queue.refused(target, drawn.key, seconds=seconds)
        case "circuit":
            if await queue.failed(target, drawn.key, at=drawn.at, present=mark):
                _opened(target, drawn.key, outcome.kind.value, alert)
        case "key":
            await spare(queue, provider, drawn.key, outcome.kind, name=name)
            if await queue.failed(target, drawn.key, mark=mark, at=drawn.at):
                _refused(target, drawn.key, mark, outcome.kind.value, alert)


def _opened(target: Target, key: str, error: str, alert: Alert) -> None:
    log.warning("circuit.opened", lane=str(target), key=key, error=error)
    alert(
        NewAlert(
            "circuit.opened",
            f"{target}{_with(key)} {datetime.now(UTC):%Y-%m-%dT%H}",
            f"Calls to {target}{_with(key)} fail ({error}): its jobs go to their fallbacks, or wait until it answers.",
            {"provider": target.provider, "model": target.model, "key": key, "error": error},
        )
    )


def _refused(target: Target, key: str, mark: str, error: str, alert: Alert) -> None:
    log.error("key.refused", lane=str(target), key=key, error=error)
    alert(
        NewAlert(
            "key.refused",
            f"{target.provider}/{key}/{mark.removeprefix('key:')}",
            f"{target.provider} refuses its key {key or '(none)'} ({error}): give it another value, or see to the "
            "account.",
            {"provider": target.provider, "model": target.model, "key": key, "error": error},
        )
    )


def _with(key: str) -> str:
    return f" with the key {key}" if key else ""
