"""What a front door keeps of budgets: one look for all who ask, once a second, for so many tenants."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest
from sqlalchemy import event
from sqlalchemy.util import await_only

from gateway_api import funds
from gateway_api.access import BOOTSTRAP
from gateway_api.funds import Funds
from gateway_api.lanes import Lanes
from gateway_api.reading import new_job
from gateway_api.router import Router
from gateway_api.submit import Submitter
from shared import config, queue
from shared.db import budgets
from shared.db import engine as db
from shared.db.budgets import NewBudget
from shared.db.jobs import NewJob
from shared.errors import ApiError, Unavailable
from shared.queue import Queue
from tests.gateway import line, until


@dataclass
class Door:
    """The funds of a front door on a database of its own, what it asked of that, and whether answers come through."""

    engine: db.Engine
    router: Router
    funds: Funds
    looks: list[str] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)

    def job(self, **fields: Any) -> NewJob:
        made = new_job(line(**fields), self.router, caller=BOOTSTRAP)
        assert isinstance(made, NewJob)
        return made

    async def budget(self, limit: int) -> UUID:
        async with db.transaction(self.engine) as connection:
            return await budgets.insert(connection, NewBudget(tenant_id="default", limit_nanos=limit, period="day"))

    async def cover(self, new: Sequence[NewJob]) -> list[NewJob]:
        return await self.funds.cover(new, None)


@pytest.fixture
async def door(tmp_path: Path, database: str, redis: str) -> AsyncIterator[Door]:
    (tmp_path / "sluice.yaml").write_text(
        "providers: {simulated: {kind: simulated, base_url: 'http://127.0.0.1:9/v1'}}"
    )
    found = config.load(tmp_path / "sluice.yaml", {})
    engine, connected = db.create(database, pool_size=4, name="test"), queue.connect(redis)
    line_ = Queue(connected)
    router = Router(found, Lanes(line_, found))
    made = Door(engine, router, Funds(engine, router, Submitter(engine, line_)))

    def looked(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "FROM budgets b LEFT JOIN" in statement:
            made.looks.append(statement)
            await_only(made.open.wait())

    made.open.set()
    event.listen(engine.sync_engine, "after_cursor_execute", looked)
    yield made
    await connected.aclose(close_connection_pool=True)
    await engine.dispose()


async def test_all_who_ask_share_one_look_a_second(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(funds, "_SECONDS", 3600.0)
    job = door.job()
    door.open.clear()
    asking = [asyncio.create_task(door.cover([job])) for _ in range(250)]
    await until(lambda: _length(door.looks), what="a look")
    asking += [asyncio.create_task(door.cover([job])) for _ in range(250)]
    await asyncio.sleep(0)
    door.open.set()
    assert await asyncio.gather(*asking) == [[job]] * 500
    assert len(door.looks) == 1
    monkeypatch.setattr(funds, "_SECONDS", 0.0)
    await door.cover([job])
    assert len(door.looks) == 2


async def test_what_is_changed_during_a_look_is_looked_at_again(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(funds, "_SECONDS", 3600.0)
    job = door.job()
    door.open.clear()
    early = asyncio.create_task(door.cover([job]))
    await until(lambda: _length(door.looks), what="a look")
    await door.budget(0)
    door.funds.forget("default")
    slow, door.open = door.open, asyncio.Event()
    door.open.set()
    with pytest.raises(ApiError, match="exhausted"):
        await door.cover([job])
    slow.set()
    assert await early == [job]
    with pytest.raises(ApiError, match="exhausted"):  # the early look has not taken the place of the later
        await door.cover([job])


async def _length(of: Sequence[object]) -> int:
    return len(of)


async def test_so_many_tenants_are_kept(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(funds, "_MOST_KEPT", 3)
    for number in range(10):
        job = door.job()
        await door.funds.cover([_of_tenant(job, f"t{number}")], None)
    assert list(door.funds._kept) == ["t7", "t8", "t9"]
    assert not door.funds._looking


def _of_tenant(job: NewJob, tenant: str) -> NewJob:
    return NewJob(**{name: getattr(job, name) for name in NewJob.__slots__} | {"tenant_id": tenant})


async def test_a_look_that_takes_too_long_is_503(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(funds, "_PATIENCE", 0.2)
    door.open.clear()
    for _ in range(2):
        with pytest.raises(Unavailable):
            await door.cover([door.job()])
    assert len(door.looks) == 1
    door.open.set()  # and when it has come to its end after all, everything goes on
    job = door.job()

    async def covered() -> list[NewJob]:
        try:
            return await door.cover([job])
        except Unavailable:
            return []

    await until(covered, what="the look's end")


async def test_jobs_of_one_batch_are_each_counted(door: Door) -> None:
    await door.budget(10**9)
    new = [door.job(text="x" * number) for number in range(0, 1_000, 2)]
    covered = await door.cover(new)
    assert [job.id for job in covered] == [job.id for job in new]
    bounds = [job.input_bound or 0 for job in covered]
    assert bounds == sorted(bounds)
    assert bounds[-1] - bounds[0] == 499  # two letters are a token


async def test_what_goes_on_from_a_response_has_its_earlier_turns_in_it(door: Door) -> None:
    await door.budget(10**9)
    job = door.job()
    going_on = replace(job, body=orjson.dumps({**orjson.loads(job.body), "previous_response_id": "resp_1"}))
    assert len(await door.cover([going_on])) == 1


@pytest.mark.parametrize("name", ["cachedContent", "file_id", "file_url"])
async def test_what_a_request_refers_to_is_refused_under_a_budget(door: Door, name: str) -> None:
    job = door.job(text=f'a text that says "{name}": "x"')
    referring = replace(job, body=orjson.dumps({**orjson.loads(job.body), "more": [{name: "x"}]}))
    assert await door.cover([referring]) == [referring]
    await door.budget(10**9)
    door.funds.forget("default")
    assert len(await door.cover([job])) == 1
    with pytest.raises(ApiError) as refused:
        await door.cover([referring])
    assert (refused.value.status, refused.value.code) == (400, "unbounded_input")
