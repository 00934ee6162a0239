"""Holding money for claimed jobs before they are called; what cannot be held for is put off, sent elsewhere or refused.

Only jobs with budgets or a limit of their own come here; `quote` says what a call needs, `shared.budgets` who may go.
What a call cost is booked with its end, in `transitions`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import structlog

from shared import ids, routing
from shared.budgets import Full, Held, TooLarge, Wait, admit
from shared.commit import commit
from shared.config import Config
from shared.db import alerts, reservations
from shared.db import engine as db
from shared.db.alerts import NewAlert
from shared.db.claims import Claim
from shared.db.reservations import Reservation, Standing
from shared.db.transitions import Transition
from shared.errors import ErrorKind, ProviderError
from shared.fitness import unfit
from shared.pricing import usd
from shared.public import exhausted, turns_at
from shared.queue import DELIVER_WAKE, Queue, RedisAway
from shared.queue.entries import Taken
from shared.routing import Target
from workers.finish import error_json
from workers.quote import Quote, Quoter, quote

log = structlog.get_logger(__name__)

_TIGHT_SECONDS, _LONGEST_PAUSE = 0.5, 8.0
_LOOK_AGAIN = timedelta(hours=1)
_REST = timedelta(seconds=1)

Pairs = Sequence[tuple[Claim, Taken]]


@dataclass(slots=True)
class _Decided:
    """What became of claimed jobs: those that may be called, the others' transitions, and which flows must wait."""

    held: list[tuple[Claim, Taken]] = field(default_factory=list)
    changes: list[Transition] = field(default_factory=list)
    tight: set[tuple[Target, str, UUID | None]] = field(default_factory=set)
    full: dict[UUID, Standing] = field(default_factory=dict)
    has_delivery: bool = False


async def reserve(engine: db.Engine, queue: Queue, quoter: Quoter, claimed: Pairs) -> list[tuple[Claim, Taken]]:
    """Return the jobs that may be called, each with what is held for it; the others are no longer this process's.

    Where Postgres is away none is.
    """
    decided = _Decided()
    try:
        decided = await db.run(engine, lambda connection: _reserve(connection, quoter, claimed))
        for target, tenant, key in decided.tight:
            await queue.hold(target, tenant, key, seconds=_TIGHT_SECONDS)
        if decided.has_delivery:
            await queue.wake(DELIVER_WAKE)
    except RedisAway as error:
        log.warning("flow.not_held", error=str(error))
    except Exception:
        log.exception("jobs.not_reserved", jobs=len(claimed))
        later = datetime.now(UTC) + _REST
        decided = _Decided(changes=[_put_off(claim, drawn, later) for claim, drawn in claimed])
    if decided.changes:
        try:
            await commit(engine, queue, decided.changes)
        except Exception:
            log.exception("jobs.not_put_off", jobs=len(decided.changes))  # they are given back with the lease's renewal
    return decided.held


async def _reserve(connection: db.Connection, quoter: Quoter, claimed: Pairs) -> _Decided:
    standing = await reservations.open_windows(connection, [id_ for claim, _ in claimed for id_ in claim.budgets])
    decided, quotes = _Decided(), [_quoted(quoter, claim, drawn, _of(claim, standing)) for claim, drawn in claimed]
    needs = [one.need for one in quotes if one is not None]
    found = admit(needs, {one.window.id: one.window for one in standing.values()})
    for (claim, drawn), quoted in zip(claimed, quotes, strict=True):
        if quoted is None:
            if _strict(claim, _of(claim, standing)):
                said = f"Nobody knows what {_target(claim)} costs, so its budget cannot be kept."
                decided.changes.append(_refused(claim, drawn, ErrorKind.UNPRICED, said))
            else:
                decided.held.append((claim, drawn))
            continue
        match found[claim.id]:
            case Held(nanos):
                decided.held.append((quoted.held(quoter.config, claim, nanos), drawn))
            case why:
                _not_held(quoter.config, decided, claim, drawn, why, quoted, standing)
    kept = [_reservation(claim, _of(claim, standing)) for claim, _ in decided.held]
    if kept:
        await reservations.reserve(connection, kept)
    if decided.full:
        decided.has_delivery = await alerts.add(connection, [_exhausted(one) for one in decided.full.values()])
    return decided


def _quoted(quoter: Quoter, claim: Claim, drawn: Taken, standing: list[Standing]) -> Quote | None:
    try:
        return quote(quoter, claim, drawn, standing)
    except Exception:
        log.exception("job.not_quoted", job=ids.show("job", claim.id))
        return None


def _reservation(claim: Claim, standing: list[Standing]) -> Reservation:
    """Return what is held for a job; of one at an unknown cost nothing, and what it costs is spent all the same."""
    windows = [one.window.id for one in standing]
    return Reservation(claim.id, claim.attempt, claim.tenant_id, claim.held_nanos or 0, claim.usual_nanos or 0, windows)


def _not_held(
    config: Config,
    decided: _Decided,
    claim: Claim,
    drawn: Taken,
    why: Wait | Full | TooLarge,
    quoted: Quote,
    standing: dict[UUID, Standing],
) -> None:
    """Note what becomes of a job for which nothing can be held now."""
    match why:
        case Wait(window) if standing[window.budget].narrow:
            # Others of its key may spend: it steps aside, for longer each time.
            pause = min(_LONGEST_PAUSE, _TIGHT_SECONDS * 2.0 ** min(claim.put_off, 8))
            decided.changes.append(_put_off(claim, drawn, datetime.now(UTC) + timedelta(seconds=pause)))
        case Wait():
            decided.tight.add((_target(claim), claim.tenant_id, claim.key_id))
            decided.changes.append(_put_off(claim, drawn, None))
        case TooLarge(window):
            said = (
                f"The call needs {usd(_least(quoted))} USD, more than the whole of {_named(standing[window.budget])}."
            )
            decided.changes.append(_refused(claim, drawn, _kind(standing[window.budget]), said))
        case Full(None):
            decided.changes.append(_spent(claim, drawn, _least(quoted)))
        case Full(window):
            assert window is not None
            full = standing[window.budget]
            decided.changes.append(_full(config, claim, drawn, full))
            # That a large call does not fit is not yet the end of a budget.
            if full.batch_id is None and window.unspent <= max(quoted.need.usual, window.limit // 20):
                decided.full[window.budget] = full


def _strict(claim: Claim, standing: Sequence[Standing]) -> bool:
    """Tell whether a job must not be called at an unknown cost."""
    return claim.max_cost_nanos is not None or any(one.window.hard and not one.allow_unpriced for one in standing)


def _of(claim: Claim, standing: dict[UUID, Standing]) -> list[Standing]:
    return [standing[id_] for id_ in claim.budgets if id_ in standing]  # one may have been closed meanwhile


def _target(claim: Claim) -> Target:
    return Target(claim.provider, claim.upstream_model)


def _put_off(claim: Claim, drawn: Taken, until: datetime | None, *, held_by: UUID | None = None) -> Transition:
    """Return a job's way back to its queue, as if it had not been claimed."""
    return _unclaimed(claim, drawn, status="queued", run_at=until, held_by=held_by)


def _refused(claim: Claim, drawn: Taken, kind: ErrorKind, message: str) -> Transition:
    error = error_json(ProviderError(kind, message), retriable=kind is not ErrorKind.UNPRICED)
    return _unclaimed(claim, drawn, status="failed", error=error)


def _unclaimed(claim: Claim, drawn: Taken, **change: Any) -> Transition:
    return Transition(
        id=claim.id,
        tenant_id=claim.tenant_id,
        batch_id=claim.batch_id,
        target=_target(claim),
        attempt=claim.attempt,
        was="in_progress",
        at=datetime.now(UTC),
        spent=drawn.unused,
        **change,
    )


def _least(quoted: Quote) -> int:
    """Return what must be held for a call at least, in nano-dollars."""
    return quoted.need.most if quoted.need.limited else quoted.need.usual


def _kind(of: Standing) -> ErrorKind:
    return ErrorKind.BUDGET_EXHAUSTED if of.batch_id is None else ErrorKind.MAX_COST


def _named(of: Standing) -> str:
    """Return what a caller calls a budget, with its limit."""
    name = f"its budget {ids.show('budget', of.window.budget)}" if of.batch_id is None else "its batch's max_cost_usd"
    return f"{name}, {usd(of.window.limit)} USD"


def _spent(claim: Claim, drawn: Taken, needed: int) -> Transition:
    """Return the end of a job that has used up what it may spend by itself."""
    assert claim.max_cost_nanos is not None
    spent = f"{usd(claim.cost_nanos or 0)} of {usd(claim.max_cost_nanos)} USD"
    said = f"The job has spent {spent}: its max_cost_usd has no room for a call that may cost {usd(needed)} USD."
    return _refused(claim, drawn, ErrorKind.MAX_COST, said)


def _full(config: Config, claim: Claim, drawn: Taken, full: Standing) -> Transition:
    """Return what becomes of a job that its budget has no room for."""
    if full.on_exhausted == "hold":
        until = full.ends_at or datetime.now(UTC) + _LOOK_AGAIN
        return _put_off(claim, drawn, until, held_by=full.window.budget)
    cheaper = routing.resolve(full.downgrade_to, config.providers, config.models) if full.downgrade_to else None
    if cheaper is None or claim.downgraded or cheaper == _target(claim):
        return _refused(claim, drawn, _kind(full), _said_of(full))
    if lacking := unfit(config.providers[cheaper.provider], cheaper.model, claim.url, orjson.loads(claim.body)):
        said = f"{_said_of(full)} {cheaper} cannot run the job instead: {lacking[0].message}."
        return _refused(claim, drawn, ErrorKind.BUDGET_EXHAUSTED, said)
    return _unclaimed(claim, drawn, status="queued", to=cheaper, downgraded=True)


def _said_of(full: Standing) -> str:
    """Return the numbers of a budget that has no room, in a sentence."""
    window = full.window
    name = f"budget {ids.show('budget', window.budget)}" if full.batch_id is None else "batch's max_cost_usd"
    return f"{exhausted(name, window.spent, window.limit, full.period)}.{turns_at(full.ends_at)}"


def _exhausted(full: Standing) -> NewAlert:
    window = full.window
    fields = {
        "budget": ids.show("budget", window.budget),
        "limit_usd": usd(window.limit),
        "spent_usd": usd(window.spent),
        "on_exhausted": full.on_exhausted,
    }
    return NewAlert("budget.exhausted", f"{window.budget}/{window.id}", _said_of(full), fields, full.tenant_id)
