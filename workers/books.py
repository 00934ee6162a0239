"""Keeping the books: freeing what nobody will, proving that the ledger agrees, foreseeing when budgets are spent."""

from datetime import UTC, datetime, timedelta

import structlog

from shared import ids
from shared.commit import bring_forward
from shared.db import alerts, budgets, ledger
from shared.db import engine as db
from shared.db.alerts import NewAlert
from shared.pricing import usd
from shared.queue import Queue

log = structlog.get_logger(__name__)

LOOK_BACK = timedelta(hours=26)
"""A difference stays in sight for a day at least, whenever maintenance was away."""

PAGE = 500
"""Jobs of a budget that are let go at once: what they find may be little."""

_MOST_NAMED = 20


async def free_abandoned(engine: db.Engine) -> int:
    """Free what is held for attempts that are over without an end of theirs; return of how many windows."""
    async with db.transaction(engine) as connection:
        freed = await ledger.release_abandoned(connection)
    if freed:
        log.warning("reservations.freed", windows=freed)
    return freed


async def let_go(engine: db.Engine, queue: Queue) -> int:
    """Have jobs looked at anew that a budget holds which has room by now; return how many."""
    async with db.transaction(engine) as connection:
        found = await budgets.roomy(connection)
        rows = [row for one in found for row in await budgets.let_go(connection, one.tenant_id, one.id, most=PAGE)]
    await bring_forward(queue, rows)
    return len(rows)


async def check(engine: db.Engine, *, now: datetime | None = None) -> int:
    """Compare the ledger of the last day with what must equal it, and alert on a difference; return how many."""
    since = (now or datetime.now(UTC)) - LOOK_BACK
    async with db.transaction(engine) as connection:
        found = await ledger.differences(connection, since=since)
        if found:
            named = [f"{row.what} {row.subject}: {row.theirs} is not {row.ours}" for row in found[:_MOST_NAMED]]
            message = f"The ledger differs in {len(found)} places, first from {named[0]} (nano-dollars)."
            hour = f"{datetime.now(UTC):%Y-%m-%dT%H}"
            await alerts.add(connection, [NewAlert("ledger.difference", hour, message, {"differences": named})])
    for row in found[:_MOST_NAMED]:
        log.error(
            "ledger.differed",
            what=row.what,
            tenant=row.tenant_id,
            subject=row.subject,
            theirs=row.theirs,
            ours=row.ours,
        )
    return len(found)


async def foresee(engine: db.Engine) -> int:
    """Alert once a window on a budget that will be spent before it turns, at its pace so far; return how many."""
    async with db.transaction(engine) as connection:
        rows = await budgets.spent_early(connection)
        await alerts.add(
            connection,
            [
                NewAlert(
                    "budget.exhaustion_projected",
                    f"{row.budget_id}/{row.id}",
                    f"A budget of {usd(row.limit_nanos)} USD ({row.period}) has spent {usd(row.spent_nanos)}: at this "
                    f"pace all of it by {row.projected:%Y-%m-%dT%H:%M:%SZ}.",
                    {
                        "budget": ids.show("budget", row.budget_id),
                        "limit_usd": usd(row.limit_nanos),
                        "spent_usd": usd(row.spent_nanos),
                        "projected_at": f"{row.projected:%Y-%m-%dT%H:%M:%SZ}",
                    },
                    row.tenant_id,
                )
                for row in rows
            ],
        )
    return len(rows)
