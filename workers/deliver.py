"""Delivers webhooks from the outbox: look, claim, sign, POST, record. A receiver that hangs holds up only itself.

The schedule is data. Every try of an event carries the same `webhook-id`, so a receiver can drop repeats. Who may have
how much under way is in `bulkheads`, what is sent in `webhook_event`, how in `post`.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import aiohttp
import structlog

from shared import ids, signing
from shared.cancellation import heed
from shared.config import Webhooks
from shared.db import batches, deliveries, webhook_endpoints
from shared.db import engine as db
from shared.db.deliveries import Status, Try
from shared.errors import Unavailable
from shared.group_commit import Full, GroupCommit
from shared.queue import DELIVER_WAKE, Queue, RedisAway
from shared.rates import Asked, Rates
from shared.sealing import SealedError
from shared.webhook_url import NOT_A_HOST, fault, host_allowed
from workers.bulkheads import Bulkheads
from workers.post import Answer, post
from workers.signers import Signers
from workers.webhook_event import MOST_RESULT_BYTES, event

log = structlog.get_logger(__name__)

# Seconds from one try to the next (Standard Webhooks' schedule): the event is exhausted after the last.
SCHEDULE = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
JITTER = 0.1
MOST_AT_ONCE = 2_000
MOST_CLAIMED = 200
MOST_LANES = 500
BYTES_A_PLACE = 32 * 1024
"""A larger result takes more of the `MOST_AT_ONCE` places: so 64 MiB are held at most, besides those of one claim."""
_SLOWER = frozenset({429, 502, 504})
_SLOWER_REST, _LONGEST_REST = 1.0, 60.0
_NOT_SENT_REST = 1.0
_SAFETY_SECONDS = 5.0
_LOOK_REST = 0.05
_EVERYWHERE_SECONDS = 30.0
_OVERLAP = timedelta(seconds=2)
"""How much later than it says it fell due a delivery may be committed; more, and only `look_everywhere` finds it."""
_AWAY_SECONDS = 1.0
_LOGGED_CHARACTERS = 100

_GONE = Answer(0, error="what it is about is gone")


class Deliverer:
    """The webhook deliveries of one process: at most `MOST_AT_ONCE` at a time, each with its own time-out."""

    def __init__(
        self,
        engine: db.Engine,
        queue: Queue,
        client: aiohttp.ClientSession,
        *,
        webhooks: Webhooks,
        signers: Signers,
        timeout: float,
    ) -> None:
        self._engine = engine
        self._queue = queue
        self._rates = Rates(queue.redis)
        self._client = client
        self._webhooks = webhooks
        self._signers = signers
        self._timeout = timeout
        self._rng = random.Random()
        self._bulkheads = Bulkheads(most=MOST_AT_ONCE)
        self._recording: GroupCommit[Try, None] = GroupCommit(self._record)
        self._tasks: set[asyncio.Task[None]] = set()
        self._since = datetime.now(UTC) - _OVERLAP
        self._look_at = self._everywhere_at = 0.0
        self._stirred = asyncio.Event()
        """It is to look again, or a lane that has something due may have room."""

    async def run(self) -> None:
        """Deliver until cancelled; what is being sent then is sent again by another."""
        listening = asyncio.create_task(self._listen())
        try:
            while True:
                heed()
                self._stirred.clear()
                try:
                    patience = await self._round()
                except Unavailable as error:
                    log.warning("deliveries.waited", error=str(error))
                    await asyncio.sleep(_AWAY_SECONDS)
                    continue
                with suppress(TimeoutError):
                    async with asyncio.timeout(patience):
                        await self._stirred.wait()
        finally:
            listening.cancel()
            for task in self._tasks:
                task.cancel()

    async def _listen(self) -> None:
        while True:
            try:
                await self._queue.woken(DELIVER_WAKE, seconds=_SAFETY_SECONDS)
            except RedisAway as error:
                log.warning("deliveries.not_woken", error=str(error))
                await asyncio.sleep(_AWAY_SECONDS)
            self._look_again()

    def _look_again(self) -> None:
        self._look_at = 0.0
        self._stirred.set()

    async def _round(self) -> float:
        """Claim what is due and may be sent, and begin to send it; return the seconds in which there may be more."""
        if self._look_at <= time.monotonic():
            await self._look()
        while self._bulkheads.running < MOST_AT_ONCE:
            rooms = self._bulkheads.rooms(time.monotonic(), most=MOST_LANES)
            if not rooms:
                break
            await self._claim(rooms, min(MOST_CLAIMED, MOST_AT_ONCE - self._bulkheads.running))
        now = time.monotonic()
        return self._bulkheads.patience(now, most=max(self._look_at - now, 0.0))

    async def _look(self) -> None:
        now = time.monotonic()
        async with db.transaction(self._engine) as connection:
            if self._everywhere_at <= now:
                self._bulkheads.due(await deliveries.look_everywhere(connection))
                self._everywhere_at = now + _EVERYWHERE_SECONDS
            self._look_at = now + _SAFETY_SECONDS
            found = await deliveries.look(connection, self._since)
        self._bulkheads.due(found.lanes)
        self._since = found.at - _OVERLAP
        if found.seconds is not None:
            self._look_at = min(self._look_at, now + max(found.seconds, _LOOK_REST))

    async def _claim(self, rooms: Sequence[deliveries.Room], limit: int) -> None:
        async with db.transaction(self._engine) as connection:
            claimed = await deliveries.claim(connection, rooms, limit=limit, lease=self._timeout * 2 + 10)
            about: dict[UUID, Any] = dict(await deliveries.jobs_of(connection, claimed, most=MOST_RESULT_BYTES))
            of_batches = [(row.tenant_id, row.batch_id) for row in claimed if row.batch_id is not None]
            about |= await batches.of_ids(connection, of_batches)
        self._bulkheads.taken(rooms, claimed, limit=limit)
        for row in claimed:
            task = asyncio.create_task(self._deliver(row, about.get(row.job_id or row.batch_id)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _deliver(self, row: Any, about: Any) -> None:
        size = (about is not None and row.job_id and len(about.result or b"")) or 0
        self._bulkheads.hold(row.tenant_id, size // BYTES_A_PLACE)
        try:
            tried, rest, good = await self._tried(row, about)
        except Exception:
            log.exception("delivery.crashed", delivery=ids.show("delivery", row.id))
            failed = Answer(0, error="the event could not be made")
            tried, rest, good = self._outcome(row, failed, at=datetime.now(UTC), theirs=False), 0.0, None
        self._bulkheads.hold(row.tenant_id, -(size // BYTES_A_PLACE))
        self._bulkheads.ended(row.lane, good=good, now=time.monotonic(), rest=rest)
        self._stirred.set()
        try:
            await self._recording.add(tried)
        except (Unavailable, Full) as error:
            log.warning("delivery.not_recorded", delivery=ids.show("delivery", row.id), error=str(error))
        except Exception:
            log.exception("delivery.not_recorded", delivery=ids.show("delivery", row.id))
        if row.ordered or not tried.sent:  # what came after it may go now, or it is due as before
            self._bulkheads.due([row.lane])
            self._stirred.set()

    async def _tried(self, row: Any, about: Any) -> tuple[Try, float, bool | None]:
        """Send a delivery; return what became of it, for how long its lane rests, and whether its receiver works."""
        at = datetime.now(UTC)
        if not row.enabled:
            return _not_sent(row, "disabled", at=at), 0.0, None
        if row.rpm is not None and (wait := await self._wait(row)):
            return _not_sent(row, "pending", at=at, due=row.due_at), wait, None
        if row.body is None and about is None:
            return self._outcome(row, _GONE, at=at, theirs=False), 0.0, None
        allowed = self._webhooks.allow_private_networks
        if wrong := fault(row.url, allow_http=self._webhooks.allow_http, allowed=allowed):
            return self._outcome(row, Answer(0, error=wrong), at=at), 0.0, False
        if not host_allowed(row.url, row.webhook_hosts):
            return self._outcome(row, Answer(0, error=f"the URL {NOT_A_HOST}"), at=at), 0.0, False
        body = event(row, about)
        try:
            headers = await self._headers(row, body, at)
        except Unavailable:
            return _not_sent(row, "pending", at=at, due=row.due_at), _NOT_SENT_REST, None
        except SealedError as error:
            return self._outcome(row, Answer(0, error=f"it cannot be signed: {error}"), at=at, theirs=False), 0.0, None
        answer = await post(self._client, row.url, body, headers, timeout=self._timeout)
        if answer.ours:
            log.warning("delivery.not_sent", delivery=ids.show("delivery", row.id), error=answer.error)
            return _not_sent(row, "pending", at=at, due=row.due_at), _NOT_SENT_REST, None
        # The delivery waits as long as it is asked to; its lane not so long that a repair would go unseen.
        rest = min(answer.asked or (_SLOWER_REST if answer.status in _SLOWER else 0.0), _LONGEST_REST)
        return self._outcome(row, answer, at=at), 0.0 if answer.good else rest, answer.good

    async def _wait(self, row: Any) -> float:
        """Return the seconds until an endpoint may be sent one more, 0 where it is counted now."""
        try:
            [standing] = await self._rates.ask([Asked(f"endpoint:{row.lane}", row.rpm, 0, 1, 0)])
        except Unavailable:
            return _NOT_SENT_REST
        return standing.wait_ms / 1000

    async def _headers(self, row: Any, body: bytes, at: datetime) -> dict[str, str]:
        own: dict[str, str] = {}
        if row.headers:
            own = webhook_endpoints.own_headers(self._signers.keys(), row.tenant_id, row.endpoint_id, row.headers)
        secrets = await self._signers.of(row.tenant_id, row.endpoint_id, row.changed_at)
        signed = signing.headers(*secrets, event_id=ids.show("evt", row.event_id), timestamp=at, body=body)
        return own | signed | {"content-type": "application/json"}

    def _outcome(self, row: Any, answer: Answer, *, at: datetime, theirs: bool = True) -> Try:
        """Return what follows an answer; where it is not `theirs`, it says nothing of the endpoint."""
        status, wait = ("exhausted", None) if answer is _GONE else after_try(row.tries, answer, self._rng)
        log.info(
            "delivery.tried",
            delivery=ids.show("delivery", row.id),
            tenant=row.tenant_id,
            endpoint=row.endpoint_id and ids.show("webhook", row.endpoint_id),
            tries=row.tries,
            status=status,
            answer=answer.status,
            error=answer.error and answer.error[:_LOGGED_CHARACTERS],
        )
        return Try(
            id=row.id,
            tries=row.tries,
            tenant_id=row.tenant_id,
            endpoint_id=row.endpoint_id if theirs else None,
            status=status,
            next_at=None if wait is None else datetime.now(UTC) + timedelta(seconds=wait),
            sent=True,
            at=at,
            ms=answer.ms,
            answer=answer.status,
            error=answer.error,
            excerpt=answer.excerpt,
        )

    async def _record(self, tries: Sequence[Try]) -> list[None]:
        async def work(connection: db.Connection) -> None:
            failed = await deliveries.record(connection, tries)
            gone = {one.endpoint_id for one in tries if one.answer == 410 and one.endpoint_id is not None}
            for endpoint in gone:
                await deliveries.disable(connection, endpoint, "it answered 410 Gone")
            for endpoint in set(failed) - gone:
                await deliveries.disable(connection, endpoint, f"it failed for {deliveries.FAILING_DAYS} days")
            found.update(gone, failed)

        found: set[UUID] = set()
        await db.run(self._engine, work)
        if found:  # other endpoints may be told
            self._look_again()
        return [None] * len(tries)


def _not_sent(row: Any, status: Status, *, at: datetime, due: datetime | None = None) -> Try:
    return Try(
        id=row.id,
        tries=row.tries,
        tenant_id=row.tenant_id,
        endpoint_id=None,
        status=status,
        next_at=due,
        sent=False,
        at=at,
    )


def after_try(tries: int, answer: Answer, rng: random.Random) -> tuple[Status, float | None]:
    """Decide what follows try number `tries`: the delivery's status, and the seconds to its next try, if any.

    2xx is success; 410 ends it; anything else is tried again on `SCHEDULE`, with jitter, later where the receiver asks.
    """
    if answer.good:
        return "delivered", None
    if answer.status == 410:
        return "disabled", None
    if tries > len(SCHEDULE):
        return "exhausted", None
    wait = SCHEDULE[tries - 1] * rng.uniform(1 - JITTER, 1 + JITTER)
    if answer.status in _SLOWER:
        wait *= 2
    return "pending", max(wait, answer.asked or 0.0)
