"""An engine on a fresh database, and jobs to try things on."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from shared import ids
from shared.db import batches, claims, jobs, leases, transitions
from shared.db import engine as db
from shared.db.batches import NewBatch
from shared.db.claims import Claim
from shared.db.jobs import NewJob
from shared.db.transitions import AttemptEnd, Transition
from shared.routing import Target

TENANT = "default"


@pytest.fixture
async def engine(database: str) -> AsyncIterator[db.Engine]:
    made = db.create(database, pool_size=8, name="test")
    yield made
    await made.dispose()


def new(**changes: object) -> NewJob:
    now = datetime.now(UTC)
    job = NewJob(
        id=ids.new_id(),
        tenant_id=TENANT,
        batch_id=None,
        custom_id=None,
        url="/v1/chat/completions",
        model="m",
        provider="p",
        upstream_model="m",
        priority="standard",
        created_at=now,
        run_at=now,
        deadline=None,
        metadata={},
        webhook=None,
        body=b'{"model":"m"}',
    )
    return replace(job, **changes)  # type: ignore[arg-type]


async def stored(engine: db.Engine, count: int, *, in_batch: bool = False, **changes: object) -> list[NewJob]:
    """Store jobs, in a batch of their own if asked."""
    batch = ids.new_id() if in_batch else None
    made = [new(batch_id=batch, **changes) for _ in range(count)]
    async with db.transaction(engine) as connection:
        if batch is not None:
            await batches.insert(connection, NewBatch(id=batch, tenant_id=TENANT, endpoint=made[0].url, total=count))
        await jobs.insert(connection, made)
    return made


async def claimed(engine: db.Engine, wanted: list[UUID], *, seconds: float = 60) -> tuple[UUID, list[Claim]]:
    """Claim jobs under a new lease."""
    lease = ids.new_id()
    async with db.transaction(engine) as connection:
        await leases.open_(connection, lease, worker="w", provider="p", seconds=seconds)
        return lease, await claims.claim(connection, lease, "p", dict.fromkeys(wanted, "m"))


def end(claim: Claim, status: str = "completed", **changes: object) -> Transition:
    """Return the transition of a claim, whose attempt used ten tokens for 1,000 nano-dollars."""
    now = datetime.now(UTC)
    ended = {"completed": "completed", "queued": "failed", "failed": "failed", "cancelled": "cancelled"}[status]
    change = Transition(
        id=claim.id,
        tenant_id=claim.tenant_id,
        batch_id=claim.batch_id,
        target=Target("p", "m"),
        attempt=claim.attempt,
        was="in_progress",
        status=status,  # type: ignore[arg-type]
        at=now,
        result=b'{"answer":1}' if status == "completed" else None,
        error=None if status == "completed" else '{"code":"x","message":"y"}',
        attempt_end=AttemptEnd(
            status=ended,  # type: ignore[arg-type]
            charged=True,
            started_at=claim.claimed_at,
            ended_at=now,
            provider="p",
            input_tokens=4,
            cached_tokens=1,
            output_tokens=6,
            reasoning_tokens=0,
            cost_nanos=1_000,
        ),
    )
    return replace(change, **changes)  # type: ignore[arg-type]


async def row(engine: db.Engine, job: NewJob) -> jobs.JobRow:
    """Return a job as it is stored."""
    async with db.transaction(engine) as connection:
        found = await jobs.get(connection, TENANT, job.id)
    assert found is not None
    return found


async def apply(engine: db.Engine, *changes: Transition) -> list[str | None]:
    """Apply transitions as one group; return the status each led to, None where its fence did not match."""
    applied = await db.run(engine, lambda connection: transitions.apply(connection, changes))
    return [one.status for one in applied]
