"""The outbox: who is told of what, in one transaction with it; and how it is emptied, each receiver for itself."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from shared import ids
from shared.db import alerts, batches, deliveries, delivery_history, transitions
from shared.db import engine as db
from shared.db.alerts import NewAlert
from shared.db.deliveries import Room, Try
from shared.db.transitions import ended_queued
from tests.db.conftest import TENANT, apply, claimed, end, row, stored

NOW = datetime.now(UTC)
BEFORE = NOW - timedelta(hours=1)
RESPONSES = "/v1/responses"

_ENDPOINT = text("""
INSERT INTO webhook_endpoints (id, tenant_id, url, name, event_types, ordered, concurrency, enabled, created_at)
VALUES (:id, :tenant, 'https://hook/x', 'n', CAST(:types AS text[]), :ordered, :concurrency, :enabled,
    CAST(:created AS timestamptz))
""")
_ADD = text("""
INSERT INTO deliveries (id, event_id, tenant_id, endpoint_id, lane, type, job_id, body, url, next_at)
VALUES (:id, :id, 'default', :endpoint, :lane, 'job.completed', :job, CAST(:body AS jsonb), :url,
    now() + make_interval(secs => :later))
""")


async def endpoint(engine: db.Engine, *types: str, tenant: str = TENANT, **fields: Any) -> UUID:
    id_ = ids.new_id()
    values = {"ordered": False, "concurrency": 10, "enabled": True, "created": NOW} | fields
    async with db.transaction(engine) as connection:
        await connection.execute(_ENDPOINT, values | {"id": id_, "tenant": tenant, "types": list(types)})
    return id_


async def add(engine: db.Engine, lane: str | UUID, *, later: float = -1, job: UUID | None = None) -> UUID:
    id_ = ids.new_id()
    of = lane if isinstance(lane, UUID) else None
    name, body, url = str(lane).replace("-", ""), None if job else "{}", None if of else "https://x/"
    async with db.transaction(engine) as connection:
        values = {"id": id_, "endpoint": of, "lane": name, "job": job, "body": body, "url": url, "later": later}
        await connection.execute(_ADD, values)
    return id_


async def all_of(engine: db.Engine, condition: str = "true") -> list[Any]:
    async with db.transaction(engine) as connection:
        return list(await connection.execute(text(f"SELECT * FROM deliveries WHERE {condition} ORDER BY id")))


async def claim(engine: db.Engine, *rooms: Room, limit: int = 200) -> list[Any]:
    async with db.transaction(engine) as connection:
        return list(await deliveries.claim(connection, rooms, limit=limit, lease=60))


async def record(engine: db.Engine, *tries: Try) -> list[UUID]:
    async with db.transaction(engine) as connection:
        return list(await deliveries.record(connection, tries))


def tried(one: Any, status: str, **fields: Any) -> Try:
    return Try(
        id=one.id,
        tries=one.tries,
        tenant_id=one.tenant_id,
        endpoint_id=one.endpoint_id,
        status=status,  # type: ignore[arg-type]
        **{"next_at": None, "sent": True, "at": NOW, "ms": 3, "answer": 200} | fields,
    )


# ------------------------------------------------------------------ who is told


async def test_a_jobs_end_is_one_event_to_its_own_address_and_to_every_endpoint_that_asked(engine: db.Engine) -> None:
    asked = [await endpoint(engine, "job.completed", "job.failed") for _ in range(2)]
    await endpoint(engine, "job.failed")
    await endpoint(engine, "job.completed", enabled=False)
    async with db.transaction(engine) as connection:
        await connection.execute(text("INSERT INTO tenants (id, name) VALUES ('other', 'other')"))
    await endpoint(engine, "job.completed", tenant="other")
    [job] = await stored(engine, 1, webhook={"url": "https://own:8/x", "include_result": True})
    _, [held] = await claimed(engine, [job.id])
    [applied] = await db.run(engine, lambda connection: transitions.apply(connection, [end(held)]))
    assert applied.has_delivery
    found = await all_of(engine)
    assert {one.endpoint_id for one in found} == {None, *asked}
    assert {one.lane for one in found} == {"default/own:8", *(id_.hex for id_ in asked)}
    assert {(one.event_id, one.type, one.job_id, one.tenant_id) for one in found} == {
        (found[0].event_id, "job.completed", job.id, TENANT)
    }


async def test_a_retry_is_no_event(engine: db.Engine) -> None:
    await endpoint(engine, "job.completed", "job.failed")
    [job] = await stored(engine, 1)
    _, [held] = await claimed(engine, [job.id])
    [applied] = await db.run(engine, lambda connection: transitions.apply(connection, [end(held, "queued")]))
    assert not applied.has_delivery
    assert await all_of(engine) == []


@pytest.mark.parametrize(
    ("status", "result", "types"),
    [
        ("completed", b'{"status":"completed"}', {"job.completed", "response.completed"}),
        ("completed", b'{"output":[{"status":"incomplete"}],"status" : "incomplete"}',
         {"job.completed", "response.incomplete"}),
        ("completed", b'{"text":"\\"status\\":\\"incomplete\\"","status":"completed"}',
         {"job.completed", "response.completed"}),
        ("failed", None, {"job.failed", "response.failed"}),
        ("cancelled", None, {"job.cancelled", "response.cancelled"}),
    ],
)  # fmt: skip
async def test_a_response_has_an_event_of_its_own(
    engine: db.Engine, status: str, result: bytes | None, types: set[str]
) -> None:
    every = [f"{noun}.{how}" for noun in ("job", "response") for how in ("completed", "failed", "cancelled")]
    for _ in range(2):
        await endpoint(engine, *every, "response.incomplete")
    [job, beside] = await stored(engine, 2, url=RESPONSES)
    _, [held] = await claimed(engine, [job.id])
    await apply(engine, end(held, status, result=result))
    await apply(engine, ended_queued(await row(engine, beside), "expired"))
    found = await all_of(engine, f"job_id = '{job.id}'")
    assert {one.type for one in found} == types
    assert len({one.event_id for one in found}) == 2
    assert len(found) == 4
    assert {one.type for one in await all_of(engine, f"job_id = '{beside.id}'")} == {"response.failed"}


async def test_a_batchs_end_is_one_event(engine: db.Engine) -> None:
    await endpoint(engine, "batch.completed", "batch.cancelled")
    await endpoint(engine, "batch.completed", "batch.cancelled")
    [job] = await stored(engine, 1, in_batch=True)
    _, [held] = await claimed(engine, [job.id])
    [applied] = await db.run(engine, lambda connection: transitions.apply(connection, [end(held)]))
    assert applied.has_delivery
    found = await all_of(engine)
    assert [(one.type, one.batch_id) for one in found] == [("batch.completed", job.batch_id)] * 2
    assert len({one.event_id for one in found}) == 1

    new = batches.NewBatch(id=ids.new_id(), tenant_id=TENANT, endpoint="/v1/chat/completions", status="validating")
    async with db.transaction(engine) as connection:
        await batches.insert(connection, new)
        _, has_delivery = await batches.ask_cancel(connection, TENANT, new.id)
    assert has_delivery
    assert [one.type for one in await all_of(engine, f"batch_id = '{new.id}'")] == ["batch.cancelled"] * 2


async def test_a_tenants_alert_goes_to_who_asked_once(engine: db.Engine) -> None:
    asked = await endpoint(engine, "budget.exhausted")
    alert = NewAlert("budget.exhausted", "b/1", "It is spent.", {"budget": "budget_1"}, TENANT)
    operators = replace(alert, subject="b/2", tenant_id=None)
    async with db.transaction(engine) as connection:
        await alerts.add(connection, [alert, operators])
        await alerts.add(connection, [alert])
    [one] = await all_of(engine)
    assert (one.endpoint_id, one.type) == (asked, "budget.exhausted")
    assert one.body | {"id": ""} == {"id": "", "object": "alert", "message": "It is spent.", "budget": "budget_1"}


# ------------------------------------------------------------------ how it is emptied


async def test_no_lane_gives_more_than_it_has_room_for(engine: db.Engine) -> None:
    for number in range(60):
        await add(engine, "default/hangs:1", later=-100 + number)
    good = await add(engine, "default/good")
    narrow = await endpoint(engine, "job.completed", concurrency=2)
    for _ in range(3):
        await add(engine, narrow)
    lanes = ("default/hangs:1", "default/good", narrow.hex)
    first = await claim(engine, *(Room(lane, 1_000, 0) for lane in lanes))
    given = [one.lane for one in first]
    assert [given.count(lane) for lane in lanes] == [10, 1, 2]
    assert {one.room for one in first if one.lane == narrow.hex} == {2}
    assert await claim(engine, Room("default/hangs:1", 10, 10), Room("default/good", 10, 1)) == []
    assert len(await claim(engine, Room("default/hangs:1", 3, 1))) == 2
    assert (await all_of(engine, f"id = '{good}'"))[0].tries == 1


async def test_lanes_are_found_by_what_fell_due(engine: db.Engine) -> None:
    await add(engine, "default/a", later=-60)
    await add(engine, "default/b")
    await add(engine, "default/c", later=50)
    async with db.transaction(engine) as connection:
        found = await deliveries.look(connection, datetime.now(UTC) - timedelta(seconds=30))
        assert found.lanes == ["default/b"]
        assert found.seconds is not None
        assert 40 < found.seconds < 51
        assert sorted(await deliveries.look_everywhere(connection)) == ["default/a", "default/b"]


async def test_an_ordered_endpoint_is_told_of_a_job_in_turn(engine: db.Engine) -> None:
    ordered = await endpoint(engine, "job.completed", ordered=True)
    first_job, second_job = ids.new_id(), ids.new_id()
    first, after, beside = [await add(engine, ordered, job=job) for job in (first_job, first_job, second_job)]
    room = Room(ordered.hex, 1_000, 0)
    taken = await claim(engine, room)
    assert {one.id for one in taken} == {first, beside}
    assert await claim(engine, room) == []
    await record(engine, *(tried(one, "pending", next_at=NOW + timedelta(hours=1)) for one in taken))
    assert await claim(engine, room) == []  # it is still to come
    async with db.transaction(engine) as connection:
        await connection.execute(text("UPDATE deliveries SET next_at = now()"))
    [again] = [one for one in await claim(engine, room) if one.id == first]
    await record(engine, tried(again, "exhausted"))
    assert [one.id for one in await claim(engine, room)] == [after]


async def test_what_became_of_a_try_is_written_once(engine: db.Engine) -> None:
    id_ = await add(engine, "default/a")
    [one] = await claim(engine, Room("default/a", 10, 0))
    await record(engine, tried(one, "pending", next_at=NOW, answer=500, excerpt="oh"))
    await record(engine, tried(one, "pending", next_at=NOW, answer=503))  # it says it again
    [again] = await claim(engine, Room("default/a", 10, 0))
    await record(engine, tried(one, "delivered"))  # a late one, whose lease had run out
    assert (await all_of(engine))[0].status == "pending"
    await record(engine, tried(again, "delivered", answer=204))
    async with db.transaction(engine) as connection:
        found = await delivery_history.attempts_of(connection, TENANT, id_)
    assert [(try_.number, try_.status, try_.excerpt) for try_ in found] == [(1, 500, "oh"), (2, 204, None)]
    assert [(now.status, now.tries, now.answer_status) for now in await all_of(engine)] == [("delivered", 2, 204)]


async def test_what_was_not_sent_costs_no_try_and_is_due_as_before(engine: db.Engine) -> None:
    await add(engine, "default/a", later=-30)
    [one] = await claim(engine, Room("default/a", 10, 0))
    await record(engine, tried(one, "pending", sent=False, next_at=one.due_at))
    [again] = await claim(engine, Room("default/a", 10, 0))
    assert (again.tries, again.due_at) == (1, one.due_at)


async def test_an_endpoint_that_fails_for_days_is_disabled_and_others_are_told(engine: db.Engine) -> None:
    failing, told = await endpoint(engine, "job.completed"), await endpoint(engine, "webhook_endpoint.disabled")
    lane = Room(failing.hex, 10, 0)

    async def since() -> Any:
        async with db.transaction(engine) as connection:
            query = text("SELECT failing_since, enabled, disabled_reason FROM webhook_endpoints WHERE id = :id")
            return (await connection.execute(query, {"id": failing})).one()

    async def one_more(status: str, answer: int | None) -> list[UUID]:
        await add(engine, failing)
        [one] = await claim(engine, lane)
        return await record(engine, tried(one, status, answer=answer, next_at=NOW + timedelta(days=1)))

    assert await one_more("pending", 500) == []
    begun = (await since()).failing_since
    assert begun is not None
    await one_more("pending", None)
    assert (await since()).failing_since == begun
    await one_more("delivered", 200)
    assert (await since()).failing_since is None
    await one_more("pending", 500)
    async with db.transaction(engine) as connection:
        await connection.execute(text("UPDATE webhook_endpoints SET failing_since = now() - interval '121 hours'"))
    assert await one_more("pending", 500) == [failing]
    async with db.transaction(engine) as connection:
        await deliveries.disable(connection, failing, "it failed")
        await deliveries.disable(connection, failing, "it failed again")
    assert ((await since()).enabled, (await since()).disabled_reason) == (False, "it failed")
    [event] = await all_of(engine, "type = 'webhook_endpoint.disabled'")
    assert (event.endpoint_id, event.body["endpoint"]) == (told, ids.show("webhook", failing))
    await add(engine, failing)
    assert [one.enabled for one in await claim(engine, Room(failing.hex, 1, 1))] == [False]  # taken to be ended


# ------------------------------------------------------------------ again


async def replayed(engine: db.Engine, id_: UUID, **fields: Any) -> tuple[int, UUID | None]:
    wanted = {"since": BEFORE, "until": datetime.now(UTC) + timedelta(hours=1), "types": None, "status": None} | fields
    async with db.transaction(engine) as connection:
        return await delivery_history.replay(connection, TENANT, id_, **wanted)


async def test_events_come_again_with_their_ids_the_oldest_first(engine: db.Engine) -> None:
    here = await endpoint(engine, "job.completed")
    made = [await add(engine, here) for _ in range(4)]
    taken = sorted(await claim(engine, Room(here.hex, 10, 0)), key=lambda one: one.id)
    await record(
        engine, *(tried(one, how) for one, how in zip(taken, ("delivered", "exhausted", "disabled"), strict=False))
    )
    assert await replayed(engine, here, status="exhausted") == (1, None)
    assert await replayed(engine, here, types=["job.failed"]) == (0, None)
    assert await replayed(engine, here, most=1) == (1, made[2])  # the second is pending again
    assert await replayed(engine, here) == (1, None)
    again = sorted(await all_of(engine, "tries = 0"), key=lambda one: one.next_at)
    assert [one.event_id for one in again] == [made[1], made[0], made[2]]
    assert {one.id for one in again}.isdisjoint(made)


async def test_ends_from_before_an_endpoint_was_made_come_as_the_events_that_others_had(engine: db.Engine) -> None:
    first = await endpoint(engine, "job.completed")
    told, _ = jobs_ = await stored(engine, 2)
    _, held = await claimed(engine, [one.id for one in jobs_])
    await apply(engine, *(end(one) for one in held))
    async with db.transaction(engine) as connection:
        await connection.execute(text("DELETE FROM deliveries WHERE job_id <> :id"), {"id": told.id})
    second = await endpoint(engine, "job.completed", created=datetime.now(UTC))
    assert await replayed(engine, second) == (2, None)
    assert await replayed(engine, second) == (0, None)  # they are pending
    assert await replayed(engine, first) == (1, None)  # what it was not told of
    events = {one.job_id: one.event_id for one in await all_of(engine, f"endpoint_id = '{first}'")}
    again = {one.job_id: one.event_id for one in await all_of(engine, f"endpoint_id = '{second}'")}
    assert (len(again), again) == (2, events)


async def test_what_ended_while_an_endpoint_was_disabled_comes_page_by_page(engine: db.Engine) -> None:
    here, other = await endpoint(engine, "job.completed"), await endpoint(engine, "job.completed")
    async with db.transaction(engine) as connection:
        await connection.execute(text("UPDATE webhook_endpoints SET enabled = id <> :id"), {"id": here})
    made = await stored(engine, 12)
    _, held = await claimed(engine, [one.id for one in made])
    for one in reversed(held):  # they end in another order than they came in
        await apply(engine, end(one))
    async with db.transaction(engine) as connection:
        await connection.execute(text("UPDATE webhook_endpoints SET enabled = true"))
    number, after = await replayed(engine, here, most=5)
    while after is not None:
        since = datetime.fromtimestamp((after.int >> 80) / 1000, UTC)
        more, after = await replayed(engine, here, most=5, since=since)
        number += more
    assert number == 12
    events, again = [
        {one.job_id: one.event_id for one in await all_of(engine, f"endpoint_id = '{id_}'")} for id_ in (other, here)
    ]
    assert again == events


async def test_an_address_of_any_length_and_its_paths_are_one_lane(engine: db.Engine) -> None:
    odd = [f"https://Example.com{rest}" for rest in ("?" + "漢" * 2_000, "/a/b", "#c", ":443")]
    made = [(await stored(engine, 1, webhook={"url": url}))[0] for url in odd]
    _, held = await claimed(engine, [one.id for one in made])
    assert await apply(engine, *(end(one) for one in held)) == ["completed"] * 4
    lanes = {one.lane for one in await all_of(engine, "job_id IS NOT NULL")}
    assert lanes == {f"{TENANT}/example.com", f"{TENANT}/example.com:443"}
    [far] = await stored(engine, 1, webhook={"url": f"https://{'漢' * 2_000}/"})
    _, held = await claimed(engine, [far.id])
    assert await apply(engine, end(held[0])) == ["completed"]
