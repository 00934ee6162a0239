"""Tells the configured channels of alerts, each at least once, and the log of every alert.

It runs in the `deliver` process: that one calls receivers already, any number of it may run, and jobs and their repair
wait for none of it. An alert that a channel did not take is sent to it again for a day; other channels, told once, are
not told again, and do not wait for it.
"""

import asyncio
import random
from datetime import UTC, datetime

import structlog

from shared import ids
from shared.cancellation import heed
from shared.db import alerts
from shared.db import engine as db
from shared.db.alerts import AlertRow
from shared.errors import Unavailable
from workers.channels import MAIL_SECONDS, Channels, Untold

log = structlog.get_logger(__name__)

MOST_AT_ONCE = 200
DAY_SECONDS = 86_400.0
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 1_800.0
_LOOK_SECONDS = 1.0
_LEASE_SECONDS = MAIL_SECONDS + 30


class Alerter:
    """The telling of one process: at most `MOST_AT_ONCE` alerts at a time, to all of their channels together."""

    def __init__(self, engine: db.Engine, channels: Channels) -> None:
        self._engine = engine
        self._channels = channels
        self._kinds = {name: one.kinds for name, one in channels.configured.items()}
        self._rng = random.Random()
        self._running: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Tell until cancelled; what is being sent then is sent again by another."""
        try:
            while True:
                heed()
                try:
                    taken = await self._take()
                except Unavailable as error:
                    log.warning("alerts.waited", error=str(error))
                    taken = 0
                if not taken:
                    await asyncio.sleep(_LOOK_SECONDS)
        finally:
            for task in self._running:
                task.cancel()

    async def _take(self) -> int:
        room = MOST_AT_ONCE - len(self._running)
        if room <= 0:
            return 0
        async with db.transaction(self._engine) as connection:
            due = await alerts.take(connection, self._kinds, limit=room, lease=_LEASE_SECONDS)
        for one in due:
            if one.tries == 1:
                about = {"subject": one.subject, "tenant": one.tenant_id, "said": one.message}
                log.warning("alert.raised", kind=one.kind, alert=ids.show("alert", one.id), **about)
            if one.pending:
                task = asyncio.create_task(self._tell_all(one))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
        return len(due)

    async def _tell_all(self, alert: AlertRow) -> None:
        try:
            told = await asyncio.gather(*(self._tell(alert, name) for name in alert.pending))
            left = {name: why for name, why in zip(alert.pending, told, strict=True) if why is not None}
            if left:
                await self._try_later(alert, left)
        except Unavailable as error:  # then it is due again when its lease ends
            log.warning("alert.not_recorded", alert=ids.show("alert", alert.id), error=str(error))
        except Exception:
            log.exception("alert.crashed", alert=ids.show("alert", alert.id))

    async def _tell(self, alert: AlertRow, channel: str) -> Untold | None:
        why = await self._channels.tell(channel, alert)
        if why is None:
            async with db.transaction(self._engine) as connection:
                await alerts.told(connection, alert.id, channel)
        return why

    async def _try_later(self, alert: AlertRow, left: dict[str, Untold]) -> None:
        error = "; ".join(f"{name}: {why.error}" for name, why in left.items())
        wait = pause(alert.tries, max(why.wait for why in left.values()), self._rng)
        age = (datetime.now(UTC) - alert.at).total_seconds()
        about = {"alert": ids.show("alert", alert.id), "kind": alert.kind, "tries": alert.tries, "error": error}
        async with db.transaction(self._engine) as connection:
            if age + wait > DAY_SECONDS:
                await alerts.give_up(connection, alert.id, tries=alert.tries, error=error)
                log.error("alert.given_up", **about)
            else:
                await alerts.put_off(connection, alert.id, tries=alert.tries, seconds=wait, error=error)
                log.warning("alert.not_told", seconds=round(wait, 1), **about)


def pause(tries: int, asked: float, rng: random.Random) -> float:
    """Return the seconds from try number `tries` to the next: twice as many each time, later where a channel asks."""
    doubled = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(tries - 1, 20))
    return max(doubled * rng.uniform(0.9, 1.1), min(asked, LONGEST_PAUSE))
