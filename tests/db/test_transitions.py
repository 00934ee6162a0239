"""What one fenced statement promises."""

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from shared.db import batch_lines, batches, jobs
from shared.db import engine as db
from shared.db.jobs import JobFilter
from tests.db.conftest import TENANT, apply, claimed, end, row, stored


async def test_job_result_attempt_and_cost_are_written_together(engine: db.Engine) -> None:
    [job] = await stored(engine, 1)
    _, [claim] = await claimed(engine, [job.id])
    assert await apply(engine, end(claim)) == ["completed"]
    seen = await row(engine, job)
    assert (seen.status, seen.result, seen.cost_nanos, seen.input_tokens) == ("completed", b'{"answer":1}', 1_000, 4)
    assert seen.lease_id is None
    async with db.transaction(engine) as connection:
        [attempt] = await jobs.attempts_of(connection, TENANT, job.id)
    assert (attempt.number, attempt.status, attempt.cost_nanos) == (1, "completed", 1_000)


async def test_terminal_is_final(engine: db.Engine) -> None:
    [job] = await stored(engine, 1, webhook={"url": "https://x", "include_result": False})
    _, [claim] = await claimed(engine, [job.id])
    assert await apply(engine, end(claim)) == ["completed"]
    for later in (end(claim), end(claim, "failed"), end(claim, "queued"), replace(end(claim), was="queued")):
        assert await apply(engine, later) == [None]
    assert (await row(engine, job)).status == "completed"
    async with db.transaction(engine) as connection:
        assert (await connection.execute(text("SELECT count(*) FROM deliveries"))).scalar_one() == 1


async def test_a_stale_fence_changes_no_job_but_books_what_its_attempt_used(engine: db.Engine) -> None:
    [job] = await stored(engine, 1, in_batch=True)
    _, [first] = await claimed(engine, [job.id])
    lost = end(first, "queued")
    unknown = replace(
        lost.attempt_end, status="lost", input_tokens=None, cached_tokens=None, output_tokens=None,
        reasoning_tokens=None, cost_nanos=None,
    )  # fmt: skip
    assert await apply(engine, replace(lost, attempt_end=unknown)) == ["queued"]
    _, [second] = await claimed(engine, [job.id])
    assert second.attempt == 2

    assert await apply(engine, end(first)) == [None]

    seen = await row(engine, job)
    assert (seen.status, seen.result) == ("in_progress", None)
    async with db.transaction(engine) as connection:
        [attempt] = await jobs.attempts_of(connection, TENANT, job.id)
        counted = await batches.get(connection, TENANT, job.batch_id)  # type: ignore[arg-type]
    assert (attempt.status, attempt.cost_nanos, attempt.input_tokens) == ("lost", 1_000, 4)
    assert counted is not None
    assert counted.completed == 0
    assert await apply(engine, end(second)) == ["completed"]


async def test_another_tenants_fence_does_not_match(engine: db.Engine) -> None:
    [job] = await stored(engine, 1)
    _, [claim] = await claimed(engine, [job.id])
    assert await apply(engine, replace(end(claim), tenant_id="other")) == [None]


async def test_a_retry_of_a_job_that_was_asked_to_stop_is_cancelled(engine: db.Engine) -> None:
    [job] = await stored(engine, 1)
    _, [claim] = await claimed(engine, [job.id])
    async with db.transaction(engine) as connection:
        await jobs.ask_cancel(connection, TENANT, job.id)
    assert await apply(engine, end(claim, "queued")) == ["cancelled"]
    assert (await row(engine, job)).finished_at is not None


async def test_the_cost_of_every_attempt_counts_and_an_unknown_price_is_null(engine: db.Engine) -> None:
    [job, unpriced] = await stored(engine, 2, in_batch=True)
    _, [claim] = await claimed(engine, [job.id])
    await apply(engine, end(claim, "queued"))
    _, [again] = await claimed(engine, [job.id])
    await apply(engine, end(again))
    assert (await row(engine, job)).cost_nanos == 2_000
    _, [other] = await claimed(engine, [unpriced.id])
    change = end(other)
    assert change.attempt_end is not None
    await apply(engine, replace(change, attempt_end=replace(change.attempt_end, cost_nanos=None)))
    assert (await row(engine, unpriced)).cost_nanos is None
    async with db.transaction(engine) as connection:
        batch = await batches.get(connection, TENANT, job.batch_id)  # type: ignore[arg-type]
    assert batch is not None
    assert (batch.status, batch.cost_nanos, batch.unpriced, batch.output_tokens) == ("completed", 2_000, 1, 18)


async def test_batches_are_counted_and_numbered_under_concurrent_groups(engine: db.Engine) -> None:
    first = await stored(engine, 80, in_batch=True)
    second = await stored(engine, 80, in_batch=True)
    mixed = [job for pair in zip(first, reversed(second), strict=True) for job in pair]
    _, held = await claimed(engine, [job.id for job in mixed])
    by_id = {claim.id: claim for claim in held}
    status = ["completed", "failed", "cancelled", "completed"]
    changes = [end(by_id[job.id], status[at % 4]) for at, job in enumerate(mixed)]
    groups = [changes[start::8] for start in range(8)]
    await asyncio.gather(*(apply(engine, *group) for group in groups))
    for jobs_of in (first, second):
        async with db.transaction(engine) as connection:
            batch = await batches.get(connection, TENANT, jobs_of[0].batch_id)  # type: ignore[arg-type]
            assert batch is not None
            ended = await batch_lines.ended(connection, TENANT, batch.id, after=0, limit=1_000)
        numbers = [one.batch_sequence for one in ended]
        assert len(ended) == len(set(numbers)) == 80
        assert batch.sequence == max(numbers)
        assert batch.status == "completed"
        assert batch.completed + batch.failed + batch.cancelled == 80
        assert batch.completed == sum(one.status == "completed" for one in ended)


async def test_a_restart_takes_a_failed_job_out_of_the_counts(engine: db.Engine) -> None:
    made = await stored(engine, 2, in_batch=True)
    _, held = await claimed(engine, [job.id for job in made])
    await apply(engine, end(held[0], "failed"), end(held[1]))
    async with db.transaction(engine) as connection:
        assert await jobs.restartable(connection, "other", JobFilter(), limit=10) == []
        assert await jobs.restart(connection, "other", [held[0].id]) == []
        assert await jobs.restartable(connection, TENANT, JobFilter(), limit=10) == [held[0].id]
        again = await jobs.restart(connection, TENANT, [job.id for job in made])
        batch = await batches.get(connection, TENANT, made[0].batch_id)  # type: ignore[arg-type]
    assert [one.id for one in again] == [held[0].id]
    assert batch is not None
    assert (batch.status, batch.completed, batch.failed, batch.finished_at) == ("in_progress", 1, 0, None)
    _, [third] = await claimed(engine, [held[0].id])
    assert (third.attempt, third.charged) == (2, 0)
    assert await apply(engine, end(third)) == ["completed"]


@pytest.mark.parametrize(
    "breach",
    [
        "UPDATE jobs SET status = 'completed'",
        "UPDATE jobs SET status = 'in_progress'",
        "UPDATE jobs SET finished_at = now()",
        "UPDATE jobs SET charged = attempt + 1",
        "UPDATE jobs SET status = 'paused'",
    ],
)
async def test_the_checks_hold_whoever_writes(engine: db.Engine, breach: str) -> None:
    await stored(engine, 1)
    with pytest.raises(IntegrityError):
        async with engine.begin() as connection:
            await connection.execute(text(breach))


async def test_an_unknown_cost_stays_unknown(engine: db.Engine) -> None:
    [job] = await stored(engine, 1)
    _, [first] = await claimed(engine, [job.id])
    timed_out = end(first, "queued")
    assert timed_out.attempt_end is not None
    await apply(engine, replace(timed_out, attempt_end=replace(timed_out.attempt_end, cost_nanos=None)))
    _, [second] = await claimed(engine, [job.id])
    assert second.attempt == 2
    cancelled = end(second, "cancelled")
    assert cancelled.attempt_end is not None
    free = replace(cancelled.attempt_end, input_tokens=None, cost_nanos=None)
    await apply(engine, replace(cancelled, attempt_end=free))
    assert (await row(engine, job)).cost_nanos is None


async def events(engine: db.Engine) -> list[tuple[object, str, str, bool, str]]:
    async with db.transaction(engine) as connection:
        found = await connection.execute(
            text("SELECT job_id, type, url, include_result, status FROM deliveries ORDER BY job_id")
        )
        return [tuple(one) for one in found]


async def test_of_twins_in_one_group_the_first_takes_effect(engine: db.Engine) -> None:
    twice, beside = await stored(engine, 2, in_batch=True, webhook={"url": "https://x", "include_result": True})
    _, held = await claimed(engine, [twice.id, beside.id])
    claim, other = sorted(held, key=lambda one: one.id != twice.id)
    assert await apply(engine, end(claim), end(other), end(claim, "failed")) == ["completed", "completed", None]
    assert (await row(engine, twice)).status == "completed"
    async with db.transaction(engine) as connection:
        batch = await batches.get(connection, TENANT, twice.batch_id)  # type: ignore[arg-type]
        [attempt] = await jobs.attempts_of(connection, TENANT, twice.id)
    assert batch is not None
    assert (batch.status, batch.completed, batch.failed, batch.cost_nanos) == ("completed", 2, 0, 2_000)
    assert attempt.status == "completed"
    assert len(await events(engine)) == 2


async def test_the_transition_whose_fence_matches_is_not_held_back_by_another_of_its_attempt(engine: db.Engine) -> None:
    [job] = await stored(engine, 1)
    _, [claim] = await claimed(engine, [job.id])
    cancelled = replace(end(claim, "cancelled"), was="queued", attempt_end=None)
    assert await apply(engine, cancelled, end(claim)) == [None, "completed"]


async def test_an_end_is_delivered_once_and_only_where_someone_asked(engine: db.Engine) -> None:
    hook = {"url": "https://x/y", "include_result": True}
    [quiet] = await stored(engine, 1)
    told = await stored(engine, 3, webhook=hook)
    [stopped] = await stored(engine, 1, webhook={"url": "https://z"})
    _, held = await claimed(engine, [job.id for job in (quiet, *told)])
    by_id = {claim.id: claim for claim in held}
    group = [
        end(by_id[quiet.id]),
        end(by_id[told[0].id]),
        end(by_id[told[1].id], "failed"),
        end(by_id[told[2].id], "queued"),
        replace(end(by_id[quiet.id], "cancelled"), id=stopped.id, was="queued", attempt=0, attempt_end=None),
    ]
    assert await apply(engine, *group) == ["completed", "completed", "failed", "queued", "cancelled"]
    expected = [
        (told[0].id, "job.completed", "https://x/y", True, "pending"),
        (told[1].id, "job.failed", "https://x/y", True, "pending"),
        (stopped.id, "job.cancelled", "https://z", False, "pending"),
    ]
    assert await events(engine) == sorted(expected)
    await apply(engine, *group)
    assert await events(engine) == sorted(expected)


async def test_sequence_numbers_are_never_seen_out_of_order(engine: db.Engine) -> None:
    made = await stored(engine, 120, in_batch=True)
    batch = made[0].batch_id
    assert batch is not None
    _, held = await claimed(engine, [job.id for job in made])
    seen: list[int] = []

    async def read() -> None:
        while len(seen) < len(made):
            async with db.transaction(engine) as connection:
                ended = await batch_lines.ended(connection, TENANT, batch, after=max(seen, default=0), limit=1_000)
            seen.extend(one.batch_sequence for one in ended)
            await asyncio.sleep(0)

    async def write(group: list[object]) -> None:
        for start in range(0, len(group), 3):
            await apply(engine, *(end(claim) for claim in group[start : start + 3]))  # type: ignore[arg-type]

    # A reader that follows the cursor misses none, whatever the order of the four writers' commits.
    async with asyncio.timeout(30):
        await asyncio.gather(read(), *(write(list(held[start::4])) for start in range(4)))
    assert seen == sorted(set(seen))
