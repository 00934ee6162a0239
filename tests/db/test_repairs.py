"""An answer that is to be repaired is kept for the next claim, and is nobody's result."""

from dataclasses import replace

import orjson

from shared.db import engine as db
from shared.db import jobs
from shared.db.claims import Claim
from shared.db.jobs import NewJob
from tests.db.conftest import TENANT, apply, claimed, end, row, stored

BAD = b'{"answer": "bad", "words": "no"}'


async def again(engine: db.Engine, job: NewJob) -> Claim:
    _, [claim] = await claimed(engine, [job.id])
    return claim


async def test_the_next_claim_has_the_answer_and_what_is_wrong_until_one_fits(engine: db.Engine) -> None:
    [job] = await stored(engine, 1)
    first = await again(engine, job)
    assert (first.repairs, first.repair) == (0, None)
    assert await apply(engine, replace(end(first, "queued"), result=BAD)) == ["queued"]
    assert (await row(engine, job)).result is None
    second = await again(engine, job)
    assert (second.repairs, second.repair, (await row(engine, job)).result) == (1, BAD, None)
    # An attempt that went wrong otherwise leaves what is to be repaired as it is.
    assert await apply(engine, end(second, "queued")) == ["queued"]
    third = await again(engine, job)
    assert (third.repairs, third.repair) == (1, BAD)
    assert await apply(engine, replace(end(third, "queued"), result=BAD + b" ")) == ["queued"]
    fourth = await again(engine, job)
    assert (fourth.repairs, fourth.repair) == (2, BAD + b" ")
    assert await apply(engine, end(fourth)) == ["completed"]
    assert orjson.loads((await row(engine, job)).result) == {"answer": 1}


async def test_a_job_that_failed_shows_no_answer_and_begins_anew_when_asked(engine: db.Engine) -> None:
    [job] = await stored(engine, 1)
    await apply(engine, replace(end(await again(engine, job), "queued"), result=BAD))
    assert await apply(engine, end(await again(engine, job), "failed")) == ["failed"]
    assert (await row(engine, job)).result is None
    async with db.transaction(engine) as connection:
        assert len(await jobs.restart(connection, TENANT, [job.id])) == 1
    claim = await again(engine, job)
    assert (claim.repairs, claim.repair) == (0, None)


async def test_what_is_cancelled_meanwhile_keeps_nothing(engine: db.Engine) -> None:
    [job] = await stored(engine, 1)
    claim = await again(engine, job)
    async with db.transaction(engine) as connection:
        await jobs.ask_cancel(connection, TENANT, job.id)
    assert await apply(engine, replace(end(claim, "queued"), result=BAD)) == ["cancelled"]
    seen = await row(engine, job)
    assert (seen.result, seen.repairs) == (None, 0)
