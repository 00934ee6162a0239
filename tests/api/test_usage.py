"""`GET /v1/usage` over rows that are written straight to the roll-ups."""

import csv
import io
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import quote
from uuid import UUID

import asyncpg
import pytest
from aiohttp.test_utils import make_mocked_request

from gateway_api import usage_query
from gateway_api.access import BOOTSTRAP
from shared import ids
from shared.db.usage import NOBODY, SUMS
from shared.errors import ApiError
from tests.api.conftest import Key, Tenant, new_key
from tests.gateway import Gateway

TEAM, OTHER_TEAM, KEY = ids.new_id(), ids.new_id(), ids.new_id()
RANGE = "start=2026-03-01&end=2026-04-01"
_COLUMNS = ("tenant_id", "hour", "team_id", "key_id", "model", "provider", "label", "bucket", *SUMS)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


async def used(tenant: Tenant, hour: str = "2026-03-10T12:00", **values: Any) -> None:
    """Write a row of the roll-ups: one job of 1,000 ms, of nobody in particular, unless told otherwise."""
    row = {
        "tenant_id": tenant.id, "hour": at(hour), "team_id": NOBODY, "key_id": NOBODY, "model": "fast",
        "provider": "simulated", "label": "", "bucket": 30, **dict.fromkeys(SUMS, 0), "jobs": 1, **values,
    }  # fmt: skip
    connection = await asyncpg.connect(tenant.api.env["SLUICE_DATABASE_URL"], timeout=10, command_timeout=20)
    try:
        places = ", ".join(f"${number}" for number in range(1, len(_COLUMNS) + 1))
        await connection.execute(
            f"INSERT INTO usage_hours ({', '.join(_COLUMNS)}) VALUES ({places})", *(row[name] for name in _COLUMNS)
        )
    finally:
        await connection.close(timeout=10)


async def read(tenant: Tenant | Key, query: str = "", *, within: str = RANGE) -> list[Any]:
    status, page, _ = await tenant.ask("GET", f"/v1/usage?{within}&{query}")
    assert status == 200, page
    assert not page["has_more"]
    return list(page["data"])


async def faults(tenant: Tenant, query: str) -> list[str]:
    status, page, _ = await tenant.ask("GET", f"/v1/usage?{query}")
    assert status == 400, page
    return [f"{fault['param']}: {fault['message']}" for fault in page["error"]["faults"]]


def of(rows: Sequence[Any], *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in names) for row in rows]


async def test_a_row_says_all_of_it(tenant: Tenant) -> None:
    tokens = {
        "input_tokens": 900, "cached_tokens": 300, "cache_write_tokens": 20, "output_tokens": 250,
        "reasoning_tokens": 50, "cost_nanos": 1_234_567, "saved_nanos": 5,
    }  # fmt: skip
    await used(tenant, jobs=97, errors=3, **tokens)
    await used(tenant, jobs=3, bucket=50, unpriced=2)
    await used(tenant, jobs=0, bucket=-1, cost_nanos=1_000_000_000, output_tokens=7)
    assert await read(tenant) == [
        {
            "start": "2026-03-10T00:00:00Z", "jobs": 100, "errors": 3, "input_tokens": 900, "cached_tokens": 300,
            "cache_write_tokens": 20, "output_tokens": 257, "reasoning_tokens": 50, "cost_usd": "1.001234567",
            "unpriced": 2, "saved_usd": "0.000000005", "latency_ms": {"p50": 903.1, "p95": 903.1, "p99": 78330.0},
        }
    ]  # fmt: skip


async def test_without_jobs_there_is_no_latency(tenant: Tenant) -> None:
    assert await read(tenant) == []
    await used(tenant, jobs=0, bucket=-1, input_tokens=5)
    (row,) = await read(tenant)
    assert (row["jobs"], row["input_tokens"]) == (0, 5)
    assert row["latency_ms"] == {"p50": None, "p95": None, "p99": None}


async def test_each_interval(tenant: Tenant) -> None:
    for hour in ("2026-03-01T00:00", "2026-03-01T23:00", "2026-03-02T00:00", "2026-03-31T23:00", "2026-04-01T00:00"):
        await used(tenant, hour)
    begun = {
        "hour": [("2026-03-01T00:00:00Z", 1), ("2026-03-01T23:00:00Z", 1), ("2026-03-02T00:00:00Z", 1)],
        "day": [("2026-03-01T00:00:00Z", 2), ("2026-03-02T00:00:00Z", 1)],
        "week": [("2026-02-23T00:00:00Z", 2), ("2026-03-02T00:00:00Z", 1)],
        "month": [("2026-03-01T00:00:00Z", 4)],
        "all": [("2026-03-01T00:00:00Z", 4)],
    }
    ends = {"hour": "2026-03-31T23:00:00Z", "day": "2026-03-31T00:00:00Z", "week": "2026-03-30T00:00:00Z"}
    for interval, expected in begun.items():
        rows = of(await read(tenant, f"interval={interval}"), "start", "jobs")
        assert rows == [*expected, *([(ends[interval], 1)] if interval in ends else [])]


async def test_a_day_is_a_day_of_the_time_zone_also_when_clocks_are_changed(tenant: Tenant) -> None:
    # In Berlin 29 March 2026 begins at 23:00 UTC and has 23 hours.
    for hour in ("2026-03-28T22:00", "2026-03-28T23:00", "2026-03-29T21:00", "2026-03-29T22:00"):
        await used(tenant, hour)
    within = "start=2026-03-28&end=2026-03-31&timezone=Europe/Berlin"
    assert of(await read(tenant, within=within), "start", "jobs") == [
        ("2026-03-27T23:00:00Z", 1),
        ("2026-03-28T23:00:00Z", 2),
        ("2026-03-29T22:00:00Z", 1),
    ]
    within = "start=2026-03-29&end=2026-03-30&timezone=Europe/Berlin"
    assert of(await read(tenant, within=within), "start", "jobs") == [("2026-03-28T23:00:00Z", 2)]
    assert of(await read(tenant, "interval=month&timezone=Asia/Kolkata"), "start") == [("2026-02-28T18:30:00Z",)]


async def test_each_group(tenant: Tenant) -> None:
    await used(tenant, team_id=TEAM, key_id=KEY, model="fast", provider="simulated")
    await used(tenant, model="strong", provider="", jobs=2)
    for label in ("user:ann", "user:bob=c:d", "tag:team=search", "tag:feature=x=y"):
        await used(tenant, label=label, jobs=5)
    key, team = ids.show("key", KEY), ids.show("team", TEAM)
    expected: dict[str, list[tuple[Any, ...]]] = {
        "tenant": [(tenant.id, 3)],
        "team": [(None, 2), (team, 1)],
        "key": [(None, 2), (key, 1)],
        "model": [("fast", 1), ("strong", 2)],
        "provider": [(None, 2), ("simulated", 1)],
        "user": [("ann", 5), ("bob=c:d", 5)],
        "tag": [("feature=x=y", 5), ("team=search", 5)],
    }
    names = {"tenant": "tenant_id", "team": "team_id", "key": "key_id"}
    for group, rows in expected.items():
        assert of(await read(tenant, f"group_by={group}"), names.get(group, group), "jobs") == rows
    both = await read(tenant, "group_by=model,team")
    assert list(both[0])[:3] == ["model", "team_id", "start"]
    assert of(both, "model", "team_id", "jobs") == [("fast", team, 1), ("strong", None, 2)]
    assert both == await read(tenant, "group_by=model&group_by=team")


async def test_rows_are_in_order_of_start_then_groups(tenant: Tenant) -> None:
    for hour in ("2026-03-11T00:00", "2026-03-10T00:00"):
        for model in ("b", "a"):
            await used(tenant, hour, model=model)
    rows = of(await read(tenant, "group_by=model"), "start", "model")
    assert [(start[8:10], model) for start, model in rows] == [("10", "a"), ("10", "b"), ("11", "a"), ("11", "b")]


async def test_each_filter(tenant: Tenant) -> None:
    await used(tenant, team_id=TEAM, key_id=KEY, model="fast", jobs=1)
    await used(tenant, team_id=OTHER_TEAM, model="strong", provider="other", jobs=10)
    for number, label in enumerate(("user:ann", "user:anna", "tag:team=a", "tag:team=ab", "tag:feature=a")):
        await used(tenant, label=label, jobs=100 * 10**number)
    for query, jobs in {
        "": 11,
        f"team_id={ids.show('team', OTHER_TEAM)}": 10,
        f"key_id={ids.show('key', KEY)}": 1,
        "model=strong": 10,
        "provider=simulated": 1,
        "model=fast&provider=other": None,
        "user=ann": 100,
        "user=ann&group_by=user": 100,
        "user=ann&model=fast": 100,
        "tag=team%3Da": 10_000,
        "tag=team": 110_000,
        "tag=team%3Da&group_by=tag": 10_000,
        "user=%25": None,
    }.items():
        rows = await read(tenant, f"interval=all&{query}")
        assert (query, [row["jobs"] for row in rows]) == (query, [] if jobs is None else [jobs])
    assert of(await read(tenant, "tag=team&group_by=tag"), "tag") == [("team=a",), ("team=ab",)]


async def test_a_week_is_shown_where_no_time_is_named(tenant: Tenant) -> None:
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    for days in (0, 6, 7):
        await used(tenant, (midnight - timedelta(days=days)).isoformat()[:16], model=f"m{days}")
    status, page, _ = await tenant.ask("GET", "/v1/usage?group_by=model")
    assert (status, [row["model"] for row in page["data"]]) == (200, ["m6", "m0"])


async def test_pages_have_neither_gap_nor_repeat(tenant: Tenant) -> None:
    for day in ("10", "11"):
        for hour in ("00", "01"):
            for model, key in (("a", KEY), ("a", NOBODY), ("b", KEY)):
                await used(tenant, f"2026-03-{day}T{hour}:00", model=model, key_id=key)
    for interval in ("hour", "day", "all"):
        query = f"/v1/usage?{RANGE}&interval={interval}&group_by=model,key&limit="
        _, whole, headers = await tenant.ask("GET", query + "100")
        assert "Link" not in headers
        seen: list[Any] = []
        link = query + "2"
        while link:
            _, page, headers = await tenant.ask("GET", link)
            assert len(page["data"]) <= 2
            assert page["has_more"] == ("Link" in headers)
            seen += page["data"]
            link = headers.get("Link", "").partition(">")[0][1:]
        assert len(seen) == {"hour": 12, "day": 6, "all": 3}[interval]
        assert seen == whole["data"]


# ------------------------------------------------------------------ CSV


async def test_csv_has_the_same_columns_and_no_formulas(tenant: Tenant) -> None:
    users = ("=1+1", "+1", "-1", "@x", "\tx", 'a "b", c', "plain")
    for user in users:
        await used(tenant, label=f"user:{user}", cost_nanos=1_500_000_000)
    json = await read(tenant, "group_by=user")
    for query, headers in (("&format=csv", {}), ("", {"Accept": "text/csv"})):
        url = f"{tenant.api.url}/v1/usage?{RANGE}&group_by=user{query}"
        async with tenant.api.client.get(url, headers={"X-Sluice-Tenant": tenant.name, **headers}) as answer:
            assert (answer.status, answer.content_type) == (200, "text/csv")
            assert "attachment" in answer.headers["Content-Disposition"]
            names, *rows = csv.reader(io.StringIO(await answer.text(), newline=""))
        latencies = ["latency_p50_ms", "latency_p95_ms", "latency_p99_ms"]
        assert names == [*(name for name in json[0] if name != "latency_ms"), *latencies]
        assert len(rows) == len(json) == len(users)
        for row, shown in zip(rows, json, strict=True):
            assert row[0] == (shown["user"] if shown["user"] in ('a "b", c', "plain") else f"'{shown['user']}")
            assert row[1:] == [str(shown[name]) for name in names[1:-3]] + [str(shown["latency_ms"]["p50"])] * 3


# ------------------------------------------------------------------ who


async def test_nobody_sees_another_tenants_usage(api: Gateway, tenant: Tenant, neighbour: Tenant) -> None:
    for one, jobs in ((tenant, 1), (neighbour, 10)):
        for label in ("", "user:ann", "tag:team=a"):
            await used(one, label=label, jobs=jobs)
    key = await new_key(neighbour, scopes=["read"])
    for query in ("", "group_by=tenant", "group_by=user", "group_by=tag", "user=ann", "tag=team", "tag=team%3Da"):
        assert (query, of(await read(tenant, query), "jobs")) == (query, [(1,)])
        assert (query, of(await read(key, query), "jobs")) == (query, [(10,)])
    # The bootstrap key that names no tenant is in `default`, unless it asks for tenants.
    _, page, _ = await api.ask("GET", f"/v1/usage?{RANGE}&interval=all")
    assert sum(row["jobs"] for row in page["data"]) == 0
    _, page, _ = await api.ask("GET", f"/v1/usage?{RANGE}&interval=all&group_by=tenant")
    assert {(tenant.id, 1), (neighbour.id, 10)} <= set(of(page["data"], "tenant_id", "jobs"))


# ------------------------------------------------------------------ faults


async def test_every_fault_is_named_at_once(tenant: Tenant) -> None:
    found = await faults(
        tenant,
        "group_by=model,colour&interval=minute&start=yesterday&end=2026-03-01T00:00:00&timezone=Mars/Base&team_id=x"
        "&key_id=team_1&tag=colour%3Dred&format=xml&limit=0&after=!&groupby=model&model=a&model=b",
    )
    assert [one.partition(":")[0] for one in found] == [
        "groupby", "model", "group_by", "interval", "timezone", "start", "end", "tag", "team_id", "key_id", "format",
        "after", "limit",
    ]  # fmt: skip
    assert "group_by: 'colour' is not one of tenant, team, key, user, model, provider, tag" in found
    assert "tag: must be k=v or k, where k is one of team, feature" in found


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("group_by=user,tag", "group_by: usage is kept by end user and by tag, not by both at once"),
        ("user=ann&group_by=tag", "group_by: usage is kept by end user and by tag"),
        ("tag=team%3Da&group_by=user", "group_by: usage is kept by end user and by tag"),
        ("user=ann&tag=team%3Da", "group_by: usage is kept by end user and by tag"),
        ("start=2026-03-02&end=2026-03-01", "start: must be before `end`"),
        ("start=2026-03-01&end=2026-03-01", "start: must be before `end`"),
        ("interval=hour&start=2026-01-01&end=2026-03-01", "start: must be at most 31 days before `end`"),
        ("start=1980-01-01&end=2026-03-01", "start: must be at most 3660 days before `end`"),
        ("start=0001-01-01", "start: must be a date, or"),
        ("end=9999-12-31T23:59:59-12:00", "end: must be a date, or"),
        ("start=2026-03-01%00", "start: must be at most 600 characters, none of them NUL"),
        ("limit=10001", "limit: must be a whole number from 1 to 10000"),
        ("after=WyJ4Il0", "after: is not the last_id of such a list"),
        ("timezone=Europe", "timezone: is not a time zone"),
        ("timezone=../../etc/passwd", "timezone: is not a time zone"),
    ],
)
async def test_a_fault_alone(tenant: Tenant, query: str, fault: str) -> None:
    found = await faults(tenant, query)
    assert found[0].startswith(fault)


def test_without_tags_in_the_configuration_nothing_is_kept_by_tag() -> None:
    for query in ("group_by=tag", "tag=team"):
        with pytest.raises(ApiError) as refused:
            usage_query.read(make_mocked_request("GET", f"/v1/usage?{query}"), BOOTSTRAP, ())
        assert "usage.tags" in refused.value.message


# ------------------------------------------------------------------ by upstream model


async def attempted(
    tenant: Tenant, ended: str, *, made: str = "", deployment: str | None = "p/m", **fields: Any
) -> UUID:
    moment = at(ended)
    id_ = UUID(int=ids.lowest_id_at(round(at(made or ended).timestamp() * 1000)).int + ids.new_id().int % 2**62)
    row = {
        "job_id": id_, "number": 1, "tenant_id": tenant.id, "provider": "p", "deployment": deployment,
        "status": "completed", "charged": True, "started_at": moment, "ended_at": moment, "input_tokens": 10,
        "output_tokens": 5, "cost_nanos": 1_000, **fields,
    }  # fmt: skip
    connection = await asyncpg.connect(tenant.api.env["SLUICE_DATABASE_URL"], timeout=10, command_timeout=20)
    try:
        places = ", ".join(f"${number}" for number in range(1, len(row) + 1))
        await connection.execute(f"INSERT INTO attempts ({', '.join(row)}) VALUES ({places})", *row.values())
    finally:
        await connection.close(timeout=10)
    return id_


async def test_upstream_usage_is_by_day_provider_and_the_vendors_model(tenant: Tenant, neighbour: Tenant) -> None:
    await attempted(tenant, "2026-03-10T00:00", cached_tokens=4)
    await attempted(tenant, "2026-03-10T23:59", made="2026-03-08T00:00", estimated=True)
    await attempted(tenant, "2026-03-10T12:00", deployment="p/with/slash", cost_nanos=None)
    await attempted(tenant, "2026-03-11T00:00", provider="simulated", deployment="simulated/m")
    await attempted(tenant, "2026-03-10T12:00", input_tokens=None)
    await attempted(tenant, "2026-03-12T00:00")
    await attempted(neighbour, "2026-03-10T12:00")
    path = f"/v1/admin/usage/upstream?start=2026-03-10&end=2026-03-11&tenant_id={quote(tenant.id)}"
    status, page, _ = await tenant.api.ask("GET", path)
    assert status == 200, page
    names = ("date", "provider", "kind", "model", "attempts", "input_tokens", "cost_usd", "unpriced", "estimated")
    assert of(page["data"], *names) == [
        ("2026-03-10", "p", None, "m", 2, 20, "0.000002", 0, 1),
        ("2026-03-10", "p", None, "with/slash", 1, 10, "0.00", 1, 0),
        ("2026-03-11", "simulated", "simulated", "m", 1, 10, "0.000001", 0, 0),
    ]
    assert Decimal(page["data"][0]["cost_usd"]) * 10**9 == 2_000
    _, page, _ = await tenant.ask("GET", "/v1/admin/usage/upstream?start=2026-03-10&end=2026-03-10")
    assert of(page["data"], "model", "attempts") == [("m", 2), ("with/slash", 1)]


@pytest.mark.parametrize(
    ("query", "params"),
    [
        ("", ["start", "end"]),
        ("start=2026-03-10&end=soon", ["end"]),
        ("start=2026-03-10&end=2026-03-09", ["end"]),
        ("start=2026-03-10&end=2026-04-10", ["end"]),
        ("start=0001-01-01&end=0001-01-01", ["start"]),
    ],
)
async def test_upstream_usage_names_its_faults(tenant: Tenant, query: str, params: list[str]) -> None:
    status, page, _ = await tenant.ask("GET", f"/v1/admin/usage/upstream?{query}")
    assert (status, [fault["param"] for fault in page["error"]["faults"]]) == (400, params)
