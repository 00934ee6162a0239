"""Partitions are made before they are needed; a day without one costs nothing but pruning."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import text

from shared import ids
from shared.db import deliveries, jobs, partitions
from shared.db import engine as db
from tests.db.conftest import TENANT, apply, claimed, end, new, stored

_NAMES = text("SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r'")
TODAY = datetime(2031, 5, 17, 13, 37, tzinfo=UTC)


async def where(engine: db.Engine) -> dict[str, list[str]]:
    """Return the partitions that each table's rows are in."""
    async with db.transaction(engine) as connection:
        return {
            table: list(
                (await connection.execute(text(f"SELECT tableoid::regclass::text FROM {table} ORDER BY 1"))).scalars()
            )
            for table in partitions.KEYS
        }


def id_at(moment: datetime) -> object:
    return ids.lowest_id_at((moment - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1))


async def test_they_are_made_once_from_yesterday_to_some_days_ahead(engine: db.Engine) -> None:
    async with db.transaction(engine) as connection:
        before = set((await connection.execute(_NAMES)).scalars())
        assert await partitions.ensure(connection, today=TODAY, days=2) == 7 * 4
        assert await partitions.ensure(connection, today=TODAY, days=2) == 0
        assert await partitions.ensure(connection, today=TODAY + timedelta(days=1), days=2) == 7
        made = set((await connection.execute(_NAMES)).scalars()) - before
    days = ("20310516", "20310517", "20310518", "20310519", "20310520")
    assert made == {f"{table}_{day}" for table in partitions.KEYS for day in days}


async def test_everything_of_a_job_lands_in_the_partitions_of_its_day(engine: db.Engine) -> None:
    [job] = await stored(engine, 1, webhook={"url": "https://x/"})
    _, [claim] = await claimed(engine, [job.id])
    assert await apply(engine, end(claim)) == ["completed"]
    async with db.transaction(engine) as connection:
        [one] = await deliveries.claim(connection, [deliveries.Room(f"{TENANT}/x", 1, 0)], limit=1, lease=60)
        tried = deliveries.Try(
            id=one.id, tries=1, tenant_id=TENANT, endpoint_id=None, status="delivered", next_at=None, sent=True,
            at=one.due_at,
        )  # fmt: skip
        await deliveries.record(connection, [tried])
    day = datetime.fromtimestamp((job.id.int >> 80) / 1000, UTC)
    assert await where(engine) == {table: [f"{table}_{day:%Y%m%d}"] for table in partitions.KEYS}


async def test_a_partition_is_a_day_of_utc_to_the_millisecond(engine: db.Engine) -> None:
    async with db.transaction(engine) as connection:
        await partitions.ensure(connection, today=TODAY, days=1)
    midnight = TODAY.replace(hour=0, minute=0)
    instants = [midnight - timedelta(milliseconds=1), midnight, midnight + timedelta(days=1, milliseconds=-1)]
    for moment in instants:
        await stored(engine, 1, id=id_at(moment))
    assert (await where(engine))["jobs"] == ["jobs_20310516", "jobs_20310517", "jobs_20310517"]


async def test_a_day_without_one_is_served_by_the_default_and_left_there(engine: db.Engine) -> None:
    job = new(id=id_at(TODAY))
    async with db.transaction(engine) as connection:
        await jobs.insert(connection, [job])
        # Its day cannot be made any more; the days beside it can.
        made = await partitions.ensure(connection, today=TODAY, days=1)
        assert made == 3 * 7 - 2
    assert (await where(engine))["jobs"] == ["jobs_default"]
    _, [claim] = await claimed(engine, [job.id])
    assert await apply(engine, end(claim)) == ["completed"]
    async with db.transaction(engine) as connection:
        found = await jobs.get(connection, TENANT, job.id)
    assert found is not None
    assert found.result == b'{"answer":1}'


async def test_a_look_up_by_id_reads_one_partition(engine: db.Engine) -> None:
    [job] = await stored(engine, 1)
    async with db.transaction(engine) as connection:
        plan = (
            await connection.execute(text(f"EXPLAIN SELECT * FROM jobs WHERE id = '{job.id}' AND tenant_id = 'x'"))
        ).scalars()
        scanned = [one for one in plan if "Scan" in one and " on " in one]
    assert len(scanned) == 1
    assert f"jobs_{job.created_at:%Y%m%d}" in scanned[0]
