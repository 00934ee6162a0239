"""Raising an alert takes no time, fails never, and stores each once, also where Postgres is away for a while."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from urllib.parse import urlsplit

import asyncpg
import pytest
from structlog.testing import capture_logs

from shared.db import alerts
from shared.db import engine as db
from shared.db.alerts import NewAlert
from shared.providers import Usage
from tests.gateway import until
from workers import raising
from workers.news import tell_unpriced
from workers.raising import MOST_A_MINUTE, Raiser
from workers.usage import Used


@pytest.fixture
async def engine(database: str) -> AsyncIterator[db.Engine]:
    made = db.create(database, pool_size=4, name="test")
    yield made
    await made.dispose()


async def subjects(engine: db.Engine) -> list[str]:
    async with db.transaction(engine) as connection:
        return [row.subject for row in await alerts.page(connection, None, after=None, limit=1_000)]


def new(number: int = 0, kind: str = "key.refused") -> NewAlert:
    return NewAlert(kind, str(number), "m")


async def test_each_is_stored_once(engine: db.Engine) -> None:
    first, second = Raiser(engine), Raiser(engine)
    for number in (0, 0, 1):
        first.alert(new(number))
        second.alert(new(number))
    await first.end()
    await second.end()
    assert sorted(await subjects(engine)) == ["0", "1"]


async def test_more_than_a_few_of_a_kind_are_dropped(engine: db.Engine) -> None:
    raiser = Raiser(engine)
    with capture_logs() as logged:
        for _ in range(10 * MOST_A_MINUTE):  # one that is known takes nobody's place
            raiser.alert(new(0, "circuit.opened"))
        raiser.alert(new(1, "circuit.opened"))
        for number in range(10 * MOST_A_MINUTE):
            raiser.alert(new(number, "model.unpriced"))
        raiser.alert(new(0, "key.refused"))
    await raiser.end()
    assert len(await subjects(engine)) == MOST_A_MINUTE + 3
    assert [one["kind"] for one in logged if one["event"] == "alerts.dropped"] == ["model.unpriced"]


async def test_what_cannot_be_stored_holds_up_nobody_and_may_be_raised_again(engine: db.Engine, database: str) -> None:
    server = await asyncpg.connect(database, timeout=10)
    await server.execute("ALTER TABLE alerts RENAME TO alerts_away")
    raiser = Raiser(engine)
    with capture_logs() as logged:
        raiser.alert(new())
        await asyncio.wait_for(raiser.end(), 5)
    assert [one["event"] for one in logged] == ["alerts.not_stored"]
    await server.execute("ALTER TABLE alerts_away RENAME TO alerts")
    await server.close()
    for number in (1, 0):
        raiser.alert(new(number))
    await raiser.end()
    assert sorted(await subjects(engine)) == ["0", "1"]


@asynccontextmanager
async def shut(database_url: str, database: str) -> AsyncIterator[None]:
    """Have Postgres refuse every connection to a database, and end those it has."""
    name = urlsplit(database).path.removeprefix("/")
    server = await asyncpg.connect(database_url, timeout=10)
    try:
        await server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        await server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        yield
    finally:
        await server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        await server.close()


async def test_while_postgres_is_away_they_wait_and_nobody_with_them(
    engine: db.Engine, database_url: str, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raising, "_AWAY_SECONDS", 0.1)
    raiser = Raiser(engine)
    with capture_logs() as logged:
        async with shut(database_url, database):
            for number in (0, 1, 0):
                raiser.alert(new(number))

            async def delayed() -> int:
                return len(logged)

            await until(delayed, lambda number: number > 1, seconds=5)
        await raiser.end()
    assert {one["event"] for one in logged} == {"alerts.delayed"}
    assert sorted(await subjects(engine)) == ["0", "1"]


async def test_who_ends_does_not_wait_for_a_postgres_that_is_away(
    engine: db.Engine, database_url: str, database: str
) -> None:
    async with shut(database_url, database):
        raiser = Raiser(engine)
        raiser.alert(new())
        await asyncio.wait_for(raiser.end(), raising._END_SECONDS + 1)


async def test_a_usage_without_a_price_is_raised_once_a_day(engine: db.Engine) -> None:
    raised: list[NewAlert] = []
    claim = SimpleNamespace(provider="p", upstream_model="m")
    for used in (Used(), Used(Usage(1, 1), 5), Used(Usage(1, 1), 0)):
        tell_unpriced(claim, used, alert=raised.append)  # type: ignore[arg-type]
    assert raised == []
    tell_unpriced(claim, Used(Usage(1, 1), None), alert=raised.append)  # type: ignore[arg-type]
    [alert] = raised
    assert alert.kind == "model.unpriced"
    assert alert.subject.startswith("p/m 20")
