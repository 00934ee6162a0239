"""The outbox is emptied fairly: a host that hangs holds up only itself."""

from sqlalchemy import text

from shared import ids
from shared.db import deliveries
from shared.db import engine as db

_ADD = text("""
INSERT INTO deliveries (id, tenant_id, job_id, type, url, include_result, next_at)
VALUES (:id, 'default', :id, 'job.completed', :url, false, now() - make_interval(secs => :age))
""")


async def test_no_host_takes_more_than_its_share(engine: db.Engine) -> None:
    async with db.transaction(engine) as connection:
        for number in range(60):
            await connection.execute(_ADD, {"id": ids.new_id(), "url": f"https://hangs:1/{number}", "age": 100})
        await connection.execute(_ADD, {"id": ids.new_id(), "url": "https://good/x", "age": 1})
    async with db.transaction(engine) as connection:
        first = await deliveries.claim(connection, limit=50, per_host=20, busy={}, lease=60)
    hosts = [deliveries.host(one.url) for one in first]
    assert (hosts.count("hangs:1"), hosts.count("good")) == (20, 1)
    async with db.transaction(engine) as connection:
        assert await deliveries.claim(connection, limit=50, per_host=20, busy={"hangs:1": 20}, lease=60) == []
        assert len(await deliveries.claim(connection, limit=50, per_host=20, busy={"hangs:1": 15}, lease=60)) == 5


async def test_a_tenants_secret_is_made_once(engine: db.Engine) -> None:
    async with db.transaction(engine) as connection:
        first = await deliveries.signing_secret(connection, "a")
        assert await deliveries.signing_secret(connection, "a") == first
        assert await deliveries.signing_secret(connection, "b") != first
