"""Delivers webhooks from the outbox: claim, sign, POST, record. A receiver that hangs holds up nothing but itself.

The schedule is data. Every try of an event carries the same `webhook-id`, so a receiver can drop repeats.
"""

import asyncio
import random
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import aiohttp
import orjson
import structlog

from shared import ids, public, retry, signing
from shared.cancellation import heed
from shared.config import Webhooks
from shared.db import deliveries, jobs
from shared.db import engine as db
from shared.errors import Unavailable
from shared.queue import DELIVER_WAKE, Queue, RedisAway
from shared.webhook_url import fault

log = structlog.get_logger(__name__)

# Seconds from one try to the next (Standard Webhooks' schedule): the event is exhausted after the last.
SCHEDULE = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
JITTER = 0.1
MOST_AT_ONCE = 200
MOST_PER_HOST = 20
_SLOWER = frozenset({429, 502, 504})
_SAFETY_SECONDS = 5.0
_BUSY_SECONDS = 0.2
_AWAY_SECONDS = 1.0


class Deliverer:
    """The webhook deliveries of one process: at most `MOST_AT_ONCE` at a time, each with its own time-out."""

    def __init__(
        self, engine: db.Engine, queue: Queue, client: aiohttp.ClientSession, *, webhooks: Webhooks, timeout: float
    ) -> None:
        self._engine = engine
        self._queue = queue
        self._client = client
        self._webhooks = webhooks
        self._timeout = timeout
        self._rng = random.Random()
        self._running: dict[asyncio.Task[None], str] = {}

    async def run(self) -> None:
        """Deliver until cancelled; what is being sent then is sent again by another."""
        try:
            while True:
                heed()
                try:
                    await self._round()
                except (Unavailable, *RedisAway) as error:
                    log.warning("deliveries.waited", error=str(error))
                    await asyncio.sleep(_AWAY_SECONDS)
        finally:
            for task in self._running:
                task.cancel()

    async def _round(self) -> None:
        room = MOST_AT_ONCE - len(self._running)
        if room <= 0:
            await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            return
        async with db.transaction(self._engine) as connection:
            due = await deliveries.claim(
                connection,
                limit=room,
                per_host=MOST_PER_HOST,
                busy=Counter(self._running.values()),
                lease=self._timeout * 2 + 10,
            )
            next_due = None if due else await deliveries.seconds_to_next(connection)
        for delivery in due:
            task = asyncio.create_task(self._deliver(delivery))
            self._running[task] = deliveries.host(delivery.url)
            task.add_done_callback(self._running.pop)
        if self._running and next_due is not None and next_due <= 0:
            # What is due goes to hosts that are being sent to.
            await asyncio.wait(self._running, timeout=_BUSY_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        elif not due:
            patience = _SAFETY_SECONDS if next_due is None else min(max(next_due, 0.01), _SAFETY_SECONDS)
            await self._queue.woken(DELIVER_WAKE, seconds=patience)

    async def _deliver(self, delivery: Any) -> None:
        try:
            async with db.transaction(self._engine) as connection:
                job = await jobs.get(connection, delivery.tenant_id, delivery.job_id)
                secret = await deliveries.signing_secret(connection, delivery.tenant_id)
            if job is None:
                answer: tuple[int | None, str | None, float | None] = (None, "the job is gone", None)
            else:
                answer = await self._post(delivery, event(delivery, job), secret)
            await self._record(delivery, *answer)
        except Unavailable as error:
            log.warning("delivery.not_recorded", delivery=ids.show("evt", delivery.id), error=str(error))
        except Exception:
            log.exception("delivery.crashed", delivery=ids.show("evt", delivery.id))
            with suppress(Unavailable):
                await self._record(delivery, None, "the event could not be made", None)

    async def _post(self, delivery: Any, body: bytes, secret: str) -> tuple[int | None, str | None, float | None]:
        """Send one try; return the answer's status, an error in words, and the seconds the receiver asks to wait."""
        allowed = self._webhooks.allow_private_networks
        if wrong := fault(delivery.url, allow_http=self._webhooks.allow_http, allowed=allowed):
            return None, wrong, None
        event_id = ids.show("evt", delivery.id)
        headers = signing.headers(secret, event_id=event_id, timestamp=datetime.now(UTC), body=body)
        headers["content-type"] = "application/json"
        try:
            async with self._client.post(
                delivery.url,
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=self._timeout),
            ) as response:
                asked = retry.retry_after({name.lower(): value for name, value in response.headers.items()})
                return response.status, None, asked
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return None, f"{type(error).__name__}: {error}"[:500], None

    async def _record(self, delivery: Any, status: int | None, error: str | None, asked: float | None) -> None:
        verdict, wait = after_try(delivery.tries, status, asked, self._rng)
        async with db.transaction(self._engine) as connection:
            await deliveries.record(
                connection,
                delivery.id,
                tries=delivery.tries,
                status=verdict,
                next_at=None if wait is None else datetime.now(UTC) + timedelta(seconds=wait),
                answer_status=status,
                answer_error=error,
            )
        log.info(
            "delivery.tried", delivery=ids.show("evt", delivery.id), tries=delivery.tries, status=verdict, answer=status
        )


def after_try(
    tries: int, status: int | None, asked: float | None, rng: random.Random
) -> tuple[Literal["pending", "delivered", "exhausted", "disabled"], float | None]:
    """Decide what follows try number `tries`: the delivery's status, and the seconds to its next try, if any.

    2xx is success; 410 ends it; anything else is tried again on `SCHEDULE`, with jitter, later where the receiver asks.
    """
    if status is not None and 200 <= status < 300:
        return "delivered", None
    if status == 410:
        return "disabled", None
    if tries > len(SCHEDULE):
        return "exhausted", None
    wait = SCHEDULE[tries - 1] * rng.uniform(1 - JITTER, 1 + JITTER)
    if status in _SLOWER:
        wait *= 2
    return "pending", max(wait, asked or 0.0)


def event(delivery: Any, job: jobs.JobRow) -> bytes:
    """Return an event's body: `{"id", "object": "event", "type", "created_at", "data"}`, the job with or without its
    result."""
    return orjson.dumps(
        {
            "id": ids.show("evt", delivery.id),
            "object": "event",
            "type": delivery.type,
            "created_at": int(delivery.created_at.timestamp()),
            "data": public.job(job, job.result if delivery.include_result else None),
        }
    )
