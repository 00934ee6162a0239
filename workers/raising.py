"""Raises alerts from where calls end: at once for the caller, who waits for nothing and never fails by it.

An alert that cannot be stored waits in memory while Postgres is away; more than a few at a time are dropped.
"""

import asyncio
import time
from collections import Counter
from functools import partial

import structlog

from shared.db import alerts
from shared.db import engine as db
from shared.db.alerts import NewAlert
from shared.errors import Unavailable

log = structlog.get_logger(__name__)

MOST_A_MINUTE = 20
"""Alerts of one kind that a process raises: who may name any model could otherwise raise one with each job."""
MOST_KNOWN, MOST_WAITING = 10_000, 1_000
_AWAY_SECONDS = 1.0
_END_SECONDS = 2.0


class Raiser:
    """The alerts of one process on their way to Postgres; one that was stored before is not stored again."""

    def __init__(self, engine: db.Engine) -> None:
        self._engine = engine
        self._known: set[tuple[str, str]] = set()
        self._waiting: list[NewAlert] = []
        self._minute = 0
        self._lately: Counter[str] = Counter()
        self._task: asyncio.Task[None] | None = None

    def alert(self, new: NewAlert) -> None:
        """Raise an alert, once for its kind and subject."""
        if (new.kind, new.subject) in self._known or not self._room(new.kind):
            return
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known.add((new.kind, new.subject))
        self._waiting.append(new)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._store_all())

    async def end(self) -> None:
        """Give what still waits a moment to be stored."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=_END_SECONDS)
            self._task.cancel()

    def _room(self, kind: str) -> bool:
        minute = int(time.monotonic() // 60)
        if minute != self._minute:
            self._minute, self._lately = minute, Counter()
        self._lately[kind] += 1
        if self._lately[kind] == MOST_A_MINUTE + 1:
            log.warning("alerts.dropped", kind=kind, most_a_minute=MOST_A_MINUTE)
        return self._lately[kind] <= MOST_A_MINUTE and len(self._waiting) < MOST_WAITING

    async def _store_all(self) -> None:
        while self._waiting:
            new = self._waiting[:MOST_A_MINUTE]
            try:
                await db.run(self._engine, partial(alerts.add, new=new))
            except Unavailable as error:
                log.warning("alerts.delayed", alerts=len(self._waiting), error=str(error))
                await asyncio.sleep(_AWAY_SECONDS)
                continue
            except Exception:
                log.exception("alerts.not_stored", kinds=[one.kind for one in new])
                self._known -= {(one.kind, one.subject) for one in new}  # so that it may be raised again
            del self._waiting[: len(new)]
