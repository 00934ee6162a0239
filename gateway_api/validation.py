"""Validating batches whose lines are in a file: each line is read and stored, and all of it commits at once.

So a batch has all of its jobs or none. One that nobody reads, because its front door died, is taken over by the next
that looks; what had been stored of it was never committed.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import structlog

from gateway_api.access import Caller
from gateway_api.batch_file import Read, chunks
from gateway_api.batch_lines import Lines
from gateway_api.funds import beyond
from gateway_api.state import State
from shared import ids
from shared.cancellation import heed
from shared.db import batches, dependencies, jobs
from shared.db import engine as db
from shared.db.batches import BatchRow
from shared.db.jobs import NewJob
from shared.errors import ApiError, Fault, Unavailable
from shared.pricing import NANOS
from shared.queue import DELIVER_WAKE, RedisAway
from shared.queue.entries import Entry
from shared.schemas import MOST_FAULTS

log = structlog.get_logger(__name__)

AT_ONCE = 2
MOST_TRIES = 10
LOOK_SECONDS = 2.0
_AWAY_SECONDS = 1.0


def submitter(caller: Caller, *, strict: bool) -> dict[str, Any]:
    """Return whose lines they are, as it is stored while they are read; `strict` as in `Lines`."""
    return {
        "key_id": None if caller.key_id is None else caller.key_id.hex,
        "team_id": None if caller.team_id is None else caller.team_id.hex,
        "models": None if caller.models is None else sorted(caller.models),
        "webhook_hosts": caller.webhook_hosts,
        "strict": strict,
    }


def _caller(tenant: str, stored: Mapping[str, Any]) -> Caller:
    key, team, models = (stored[name] for name in ("key_id", "team_id", "models"))
    hosts = stored.get("webhook_hosts")
    return Caller(
        tenant,
        tenant,
        key_id=None if key is None else UUID(hex=key),
        team_id=None if team is None else UUID(hex=team),
        models=None if models is None else frozenset(models),
        webhook_hosts=None if hosts is None else tuple(hosts),
    )


async def run(state: State) -> None:
    """Validate batches, `AT_ONCE` at a time in this process, until cancelled."""
    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(_one_after_another(state))


async def _one_after_another(state: State) -> None:
    while True:
        heed()
        pause = LOOK_SECONDS
        try:
            if await validate_next(state):
                continue
        except (Unavailable, *RedisAway) as error:
            log.warning("validation.waited", error=str(error))
            pause = _AWAY_SECONDS
        except Exception:
            log.exception("validation.crashed")
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await state.unvalidated.wait()
        state.unvalidated.clear()


async def validate_next(state: State) -> bool:
    """Validate one batch that nobody has taken; return whether there was any."""
    lease = state.settings.lease
    batch = await db.run(state.engine, lambda connection: batches.take_unvalidated(connection, lease=lease), alone=True)
    if batch is None:
        return False
    held = _Held(state.engine, batch.id, batch.validating_until, lease)
    began, name = time.monotonic(), ids.show("batch", batch.id)
    async with held.kept(every=state.settings.renewal):
        try:
            _check(batch)
            entries = await _store(state, batch, held)
        except Unavailable:
            async with held.lock:  # this was none of its tries
                await db.run(state.engine, lambda connection: batches.put_off(connection, batch.id, held.until))
            raise
        except _Lost:
            log.info("batch.validation_lost", batch=name)
        except _Refused as refused:
            async with held.lock, db.transaction(state.engine) as connection:
                has_delivery = await batches.refuse(connection, batch.id, held.until, refused.errors)
            log.info("batch.refused", batch=name, errors=len(refused.errors))
            if has_delivery:
                await state.queue.wake(DELIVER_WAKE)
        else:
            await state.submitter.enqueue(entries)
            seconds = round(time.monotonic() - began, 3)
            log.info("batch.validated", batch=name, jobs=len(entries), seconds=seconds)
    return True


def _check(batch: BatchRow) -> None:
    """Raise _Refused for a batch that is too late, or that front doors die of."""
    if batch.expires_at is not None and batch.expires_at <= datetime.now(UTC):
        raise _Refused([_error(Fault("", "The window closed before the file was validated.", "batch_expired"))])
    if batch.validations > MOST_TRIES:
        raise _Refused([_error(Fault("", "The file could not be validated.", "internal"))])


class _Refused(Exception):
    """The lines have faults: none of them is stored."""

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        super().__init__(len(errors))
        self.errors = errors


class _Lost(Exception):
    """The batch was cancelled, or another took it over."""


@dataclass(slots=True)
class _Held:
    """Our hold on a batch, prolonged while we read. Who compares `until` has the lock, so that it stays as it is."""

    engine: db.Engine
    id: UUID
    until: datetime
    lease: float
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    lost: bool = False

    @asynccontextmanager
    async def kept(self, *, every: float) -> AsyncIterator[None]:
        """Prolong it every so many seconds during the block."""
        renewing = asyncio.create_task(self._renew(every))
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.wait([renewing])

    async def _renew(self, every: float) -> None:
        while not self.lost:
            await asyncio.sleep(every)
            with suppress(Unavailable):
                async with self.lock:
                    async with db.transaction(self.engine) as connection:
                        until = await batches.renew_validation(connection, self.id, self.until, lease=self.lease)
                    self.lost, self.until = until is None, until or self.until


async def _store(state: State, batch: BatchRow, held: _Held) -> list[Entry]:
    """Store a batch's jobs and put it in progress; return those that wait for no others. Raises _Refused, _Lost."""
    reader = Lines(
        batch.id,
        state.router,
        _caller(batch.tenant_id, batch.submitter),
        defaults=batch.defaults,
        endpoint=batch.endpoint if batch.submitter["strict"] else None,
        strict=True,
        expires_at=batch.expires_at,
        most_bytes=2 * state.settings.max_file_bytes,
    )
    entries: list[Entry] = []
    errors: list[dict[str, Any]] = []
    whole = None if batch.max_cost_nanos is None else Decimal(batch.max_cost_nanos) / NANOS
    total = together = 0
    async with db.transaction(state.engine) as connection:
        async with aclosing(chunks(state, batch, reader)) as found:
            async for new, faults in found:
                if held.lost:
                    raise _Lost
                covered, least, more = await _weighed(state, new, bounded=whole is not None)
                errors += [_error(one) for one in (*faults, *more)]
                if len(errors) >= MOST_FAULTS:
                    break
                if covered and not errors:  # what has faults is rolled back: no more need be stored
                    await jobs.insert(connection, covered)
                    entries += [Entry.of(job) for job in covered if job.waits_for is None]
                    total, together = total + len(covered), together + least
        if not errors:
            needs, faults = await asyncio.to_thread(reader.dependencies)
            if whole is not None and (fault := beyond(whole, together)):
                faults.append(fault)
            errors = [_error(one) for one in faults]
            if needs and not errors:
                await dependencies.insert(connection, needs)
        if not errors and not total:
            errors = [_error(Fault("", "The file has no lines.", "empty_file"))]
        if errors:
            raise _Refused(errors[:MOST_FAULTS])
        async with held.lock:
            if not await batches.begin(connection, batch.id, held.until, total=total):
                raise _Lost
    return entries


async def _weighed(state: State, new: Read, *, bounded: bool) -> tuple[list[NewJob], int, list[Fault]]:
    """Return what `Funds.weigh` does; a budget that has no room is a fault too."""
    if not new:
        return [], 0, []
    try:
        return await state.funds.weigh([job for _, job in new], [f"{at}." for at, _ in new], bounded=bounded)
    except Unavailable:
        raise
    except ApiError as error:
        return [], 0, [Fault(error.param or "", error.message, error.code or "invalid_request")]


def _error(fault: Fault) -> dict[str, Any]:
    """Return a fault as OpenAI shows a batch's errors: with its line, where it is one's."""
    line, _, param = fault.param.partition(".")
    of_line = line.isdigit()
    return {
        "code": fault.code,
        "line": int(line) if of_line else None,
        "message": fault.message,
        "param": (param if of_line else fault.param) or None,
    }
