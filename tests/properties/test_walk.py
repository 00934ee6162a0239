"""A long random walk over the real tables: all that changes a job, in any order, late and twice, against a model.

The model is the contract in a few lines: who may change what, by the fence alone. After every step each row must be
what the model says, the counters what the rows say, and every ended job with a webhook has its delivery.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from redis.asyncio import Redis
from sqlalchemy import text

from shared import ids, queue
from shared.commit import commit
from shared.db import batches, claims, jobs, leases
from shared.db import engine as db
from shared.db.batches import NewBatch
from shared.db.claims import Claim
from shared.db.jobs import NewJob
from shared.db.transitions import ended_queued
from shared.errors import ErrorKind, ProviderError
from shared.lifecycle import Complete, Fail, Invalid, Outcome, Release, Retry, Stop, after_attempt
from shared.lifecycle import JobState as State
from shared.providers import Completion, Usage
from shared.queue import Queue
from workers.finish import transition
from workers.maintain import Maintenance

TENANT = "default"
# The answer that was to be repaired, of a job that did not complete after all, is shown to nobody.
_RESULTS = "SELECT job_id FROM results JOIN jobs ON jobs.id = job_id WHERE jobs.status = 'completed'"
MOST_ATTEMPTS = 4
STEPS = 250
TERMINAL = {"completed", "failed", "cancelled", "expired"}
LEGAL = {
    ("queued", "in_progress"),
    ("queued", "cancelled"),
    ("queued", "expired"),
    ("in_progress", "queued"),
    *(("in_progress", status) for status in TERMINAL),
    ("failed", "queued"),
    ("expired", "queued"),
}
OUTCOMES: list[Outcome] = [
    Completion(b'{"a": 1}', Usage(input=3, output=2), "m"),
    Completion(b'{"a": 1}', Usage(input=3, output=2), "m"),
    ProviderError(ErrorKind.RATE_LIMITED, "slow down"),
    ProviderError(ErrorKind.SERVER_ERROR, "oops"),
    ProviderError(ErrorKind.SERVER_ERROR, "oops"),
    ProviderError(ErrorKind.INVALID_REQUEST, "no"),
    Invalid(Completion(b'{"a": 2}', Usage(input=3, output=2), "m"), "it does not fit", "2"),
    Stop.SHUTDOWN,
    Stop.CANCEL_ASKED,
    Stop.DEADLINE,
]


@dataclass(slots=True)
class Known:
    """A job as the model has it."""

    webhook: bool
    batch: UUID | None
    status: str = "queued"
    attempt: int = 0
    charged: int = 0
    lease: UUID | None = None
    cancel_asked: bool = False
    overdue: bool = False
    events: int = 0

    def end(self, status: str) -> None:
        self.status, self.lease = status, None
        self.events += self.webhook


class Walk:
    def __init__(self, engine: db.Engine, line: Queue, seed: int) -> None:
        self.engine, self.line = engine, line
        self.rng = random.Random(seed)
        self.known: dict[UUID, Known] = {}
        self.batches: set[UUID] = set()
        self.leases: set[UUID] = set()
        self.claims: list[Claim] = []
        self.booked: dict[tuple[UUID, int], tuple[str, int | None]] = {}
        self.seen: dict[UUID, tuple[str, int]] = {}
        self.maintenance = Maintenance(engine, line, max_attempts=MOST_ATTEMPTS)

    def some(self, most: int) -> list[UUID]:
        return self.rng.sample(sorted(self.known), min(len(self.known), self.rng.randint(1, most)))

    # ------------------------------------------------------------------ steps

    async def submit(self) -> None:
        batch = ids.new_id() if self.rng.random() < 0.5 else None
        now = datetime.now(UTC)
        new = [
            NewJob(
                id=ids.new_id(), tenant_id=TENANT, batch_id=batch, custom_id=None, url="/v1/chat/completions",
                model="m", provider="p", upstream_model="m", priority="standard", created_at=now, run_at=now,
                deadline=None, metadata={}, body=b"{}",
                webhook={"url": "https://example.com/", "include_result": False} if self.rng.random() < 0.5 else None,
            )
            for _ in range(self.rng.randint(1, 4))
        ]  # fmt: skip
        async with db.transaction(self.engine) as connection:
            if batch is not None:
                await batches.insert(
                    connection, NewBatch(id=batch, tenant_id=TENANT, endpoint=new[0].url, total=len(new))
                )
                self.batches.add(batch)
            for _ in range(2):  # repeated after a lost connection
                await jobs.insert(connection, new)
        self.known |= {job.id: Known(job.webhook is not None, batch) for job in new}

    async def claim(self) -> None:
        lease = self.rng.choice(sorted(self.leases)) if self.leases and self.rng.random() < 0.7 else ids.new_id()
        asked = self.some(6)
        if lease not in self.leases:
            async with db.transaction(self.engine) as connection:
                await leases.open_(connection, lease, worker="w", provider="p", seconds=60)
            self.leases.add(lease)
        lanes = dict.fromkeys(asked, "m")
        taken = await db.run(self.engine, lambda connection: claims.claim(connection, lease, "p", lanes), alone=True)
        expected = set()
        for id_ in asked:
            job = self.known[id_]
            free = job.status == "queued" or (job.status == "in_progress" and job.lease == lease)
            if free and not job.cancel_asked and not job.overdue:
                job.status, job.lease, job.attempt = "in_progress", lease, job.attempt + 1
                expected.add((id_, job.attempt, job.charged))
        assert {(one.id, one.attempt, one.charged) for one in taken} == expected
        self.claims += taken

    async def finish(self) -> None:
        if not self.claims:
            return
        # Mostly claims of now, sometimes ones that were lost long ago, and some finish twice.
        chosen = [self.rng.choice(self.claims[-8:] if self.rng.random() < 0.7 else self.claims) for _ in range(3)]
        chosen = list({(one.id, one.attempt): one for one in chosen}.values())
        changes, expected = [], []
        for one in chosen:
            job, outcome = self.known[one.id], self.rng.choice(OUTCOMES)
            now = datetime.now(UTC)
            state = State(one.charged, MOST_ATTEMPTS, one.deadline, repairs=1 - one.repairs)
            verdict = after_attempt(state, outcome, now, self.rng)
            if isinstance(verdict, Retry):
                verdict = replace(verdict, at=now)
            usage = outcome.usage if isinstance(outcome, Completion) else None
            changes.append(transition(one, verdict, usage=usage, cost_nanos=7 if usage else None))
            # An attempt is written down once; one that was lost or given back yet learns what its call used.
            tokens = usage.input if usage else None
            status, _ = self.booked.get((one.id, one.attempt), (changes[-1].attempt_end.status, None))
            if status in ("lost", "released") or (one.id, one.attempt) not in self.booked:
                self.booked[one.id, one.attempt] = (status, tokens)
            if job.status != "in_progress" or job.attempt != one.attempt:
                expected.append(None)
                continue
            job.charged += not isinstance(verdict, Release) and (not isinstance(verdict, Retry) or verdict.charge)
            if isinstance(verdict, Retry | Release):
                if job.cancel_asked:
                    job.end("cancelled")
                else:
                    job.status, job.lease = "queued", None
            elif isinstance(verdict, Complete):
                job.end("completed")
            else:
                job.end(
                    "failed"
                    if isinstance(verdict, Fail)
                    else "cancelled"
                    if outcome is Stop.CANCEL_ASKED
                    else "expired"
                )
            expected.append(job.status)
        applied = await commit(self.engine, self.line, changes)
        assert [one.status for one in applied] == expected

    async def lose_lease(self) -> None:
        if not self.leases:
            return
        lease = self.rng.choice(sorted(self.leases))
        self.leases.discard(lease)
        async with db.transaction(self.engine) as connection:
            await connection.execute(
                text("UPDATE leases SET expires_at = now() - interval '1 s' WHERE id = :id"), {"id": lease}
            )
        held = [job for job in self.known.values() if job.lease == lease]
        self.booked |= {(id_, job.attempt): ("lost", None) for id_, job in self.known.items() if job.lease == lease}
        assert await self.maintenance.give_back_lost() == len(held)
        async with db.transaction(self.engine) as connection:
            assert await leases.renew(connection, lease, seconds=60, held=[]) is None
        for job in held:
            job.charged += 1
            if job.charged >= MOST_ATTEMPTS:
                job.end("failed")
            elif job.cancel_asked:
                job.end("cancelled")
            else:
                job.status, job.lease = "queued", None

    async def cancel(self) -> None:
        for id_ in self.some(2):
            job = self.known[id_]
            async with db.transaction(self.engine) as connection:
                row = await jobs.ask_cancel(connection, TENANT, id_)
            assert row is not None
            assert row.status == job.status
            if job.status == "queued":
                await commit(self.engine, self.line, [ended_queued(row, "cancelled")])
                job.end("cancelled")
            elif job.status == "in_progress":
                job.cancel_asked = True

    async def retry(self) -> None:
        asked = self.some(6)
        restarted = await db.run(self.engine, lambda connection: jobs.restart(connection, TENANT, asked))
        expected = {id_ for id_ in asked if self.known[id_].status in ("failed", "expired")}
        assert {row.id for row in restarted} == expected
        for id_ in expected:
            job = self.known[id_]
            job.status, job.charged, job.cancel_asked, job.overdue = "queued", 0, False, False

    async def expire(self) -> None:
        asked = [id_ for id_ in self.some(3) if self.known[id_].status == "queued"]
        async with db.transaction(self.engine) as connection:
            await connection.execute(
                text("UPDATE jobs SET deadline = now() - interval '1 s' WHERE id = ANY(:ids)"), {"ids": asked}
            )
        for id_ in asked:
            self.known[id_].overdue = True
        if self.rng.random() < 0.3:
            await self.claim()  # what is overdue is not claimed any more
        assert await self.maintenance.expire_overdue() == len(asked)
        for id_ in asked:
            self.known[id_].end("expired")

    # ------------------------------------------------------------------ what holds after every step

    async def check(self) -> None:
        async with db.transaction(self.engine) as connection:
            rows = (await connection.execute(text("SELECT * FROM jobs"))).all()
            sums = (await connection.execute(text("SELECT * FROM batches"))).all()
            events = (await connection.execute(text("SELECT job_id, type FROM deliveries"))).all()
            held = set((await connection.execute(text(_RESULTS))).scalars())
            booked = (await connection.execute(text("SELECT job_id, number, status, input_tokens FROM attempts"))).all()
        assert {row.id for row in rows} == self.known.keys()
        for row in rows:
            job = self.known[row.id]
            now = (row.status, row.attempt, row.charged, row.lease_id)
            assert now == (job.status, job.attempt, job.charged, job.lease), row.id
            assert job.charged <= MOST_ATTEMPTS
            was, attempt = self.seen.get(row.id, ("queued", 0))
            assert row.status == was or (was, row.status) in LEGAL | {("queued", "queued")}, (was, row.status)
            assert row.attempt >= attempt
            self.seen[row.id] = (row.status, row.attempt)
        assert held == {id_ for id_, job in self.known.items() if job.status == "completed"}
        assert Counter(row.job_id for row in events) == Counter(
            {k: j.events for k, j in self.known.items() if j.events}
        )
        assert all(row.type.removeprefix("job.") in TERMINAL for row in events)
        self.check_batches(rows, sums)
        assert {(row.job_id, row.number): (row.status, row.input_tokens) for row in booked} == self.booked

    def check_batches(self, rows: Sequence[Any], sums: Sequence[Any]) -> None:
        for batch in sums:
            own = [row for row in rows if row.batch_id == batch.id]
            ended = Counter(row.status for row in own if row.status in TERMINAL)
            assert {status: getattr(batch, status) for status in TERMINAL} == {one: ended[one] for one in TERMINAL}
            assert (batch.status, batch.finished_at is not None) == (
                ("completed", True) if ended.total() == batch.total else ("in_progress", False)
            )
            numbers = [row.batch_sequence for row in own if row.status in TERMINAL]
            assert len(set(numbers)) == len(numbers)
            assert all(0 < number <= batch.sequence for number in numbers)
            assert all(row.batch_sequence is None for row in own if row.status not in TERMINAL)


@pytest.mark.parametrize("seed", [1, 3, 5])
async def test_any_order_of_events_keeps_every_promise(database: str, redis: str, seed: int) -> None:
    engine = db.create(database, pool_size=2, name="test")
    client: Redis = queue.connect(redis)
    try:
        walk = Walk(engine, Queue(client), seed)
        steps = {"claim": 8, "finish": 9, "lose_lease": 2, "cancel": 1, "retry": 2, "expire": 1}
        await walk.submit()
        for _ in range(STEPS):
            name = walk.rng.choices(list(steps), weights=list(steps.values()))[0]
            if len(walk.known) < 60 and walk.rng.random() < 0.12:
                name = "submit"
            await getattr(walk, name)()
            await walk.check()
        assert {job.status for job in walk.known.values()} == TERMINAL | {"queued", "in_progress"}
    finally:
        await client.aclose(close_connection_pool=True)
        await engine.dispose()
