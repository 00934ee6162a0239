"""Limits of the caller at the door: who is bound by them, what a refusal says, and that it leaves nothing behind."""

import asyncio
import os
import re
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from shared.embedded.server import Server
from tests.api.conftest import Key, Tenant, fetch_row, new_key
from tests.api.test_unavailable import own_servers
from tests.gateway import Gateway, gateway, until


def body(tokens: int = 0, **fields: Any) -> dict[str, Any]:
    """Return a chat request that allows so many tokens of output, at the model of these tests."""
    shape = {"model": "simulated/small", "messages": [{"role": "user", "content": "hello"}], **fields}
    return shape | ({"max_tokens": tokens} if tokens else {})


def job(tokens: int = 0, **fields: Any) -> dict[str, Any]:
    return {"body": body(tokens, **fields)}


async def submit(key: Key | Tenant, asked: Any = None, **headers: Any) -> tuple[int, Any, Mapping[str, str]]:
    return await key.ask("POST", "/v1/jobs", asked or job(), **headers)


async def statuses(key: Key | Tenant, number: int, asked: Any = None, **headers: Any) -> list[int]:
    return [(await submit(key, asked, **headers))[0] for _ in range(number)]


async def limit(tenant: Tenant, **fields: Any) -> str:
    """Limit a tenant, or a part of it; return the limit's id."""
    status, made, _ = await tenant.ask("POST", "/v1/admin/limits", {"tenant_id": tenant.id, **fields})
    assert status == 200, made
    return str(made["id"])


async def stored(tenant: Tenant) -> int:
    return int((await fetch_row(tenant.api, "SELECT count(*) FROM jobs WHERE tenant_id = $1", tenant.id))[0])


def refused(answer: tuple[int, Any, Mapping[str, str]], *said: str) -> None:
    """Check that an answer is the refusal of a limit, in OpenAI's envelope, and says these things."""
    status, shape, headers = answer
    assert status == 429, shape
    error = shape["error"]
    assert (error["type"], error["code"], error["param"]) == ("rate_limit_error", "rate_limit_exceeded", None)
    assert 1 <= int(headers["Retry-After"]) <= 60
    for one in said:
        assert one in error["message"], (one, error["message"])


def shown(headers: Mapping[str, str], kind: str = "requests") -> tuple[int, int, float]:
    """Return the limit, what remains of it, and the seconds until all of it does, as an answer's headers have it."""
    match = re.fullmatch(r"(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?", headers[f"x-ratelimit-reset-{kind}"])
    assert match is not None
    minutes, seconds, ms = (float(part or 0) for part in match.groups())
    most, left = (int(headers[f"x-ratelimit-{name}-{kind}"]) for name in ("limit", "remaining"))
    return most, left, minutes * 60 + seconds + ms / 1000


# ------------------------------------------------------------------ what a key may ask for


async def test_a_key_is_refused_beyond_its_requests_and_told_how_it_stands(tenant: Tenant) -> None:
    key, other = await new_key(tenant, limits={"rpm": 3}), await new_key(tenant)
    for left in (2, 1, 0):
        status, _, headers = await submit(key)
        assert (status, shown(headers)[:2]) == (202, (3, left))
        assert 55 < shown(headers)[2] <= 60
        assert "x-ratelimit-limit-tokens" not in headers
    answer = await submit(key)
    refused(answer, "this key", "3 requests a minute", "3 are used", "asks for 1")
    assert shown(answer[2])[:2] == (3, 0)
    assert 50 <= int(answer[2]["Retry-After"]) <= 60
    assert await stored(tenant) == 3
    # What only reads is not limited, nor is another key; and nobody is told of limits that do not bind it.
    assert [(await key.ask("GET", "/v1/jobs"))[0] for _ in range(5)] == [200] * 5
    status, _, headers = await submit(other)
    assert (status, [name for name in headers if name.lower().startswith("x-ratelimit")]) == (202, [])


async def test_tokens_are_counted_as_the_job_is_estimated(tenant: Tenant) -> None:
    key = await new_key(tenant, limits={"tpm": 1_000, "rpm": 100})
    _, _, headers = await submit(key, job(400))
    most, left, _ = shown(headers, "tokens")
    size = most - left
    assert 400 < size < 450
    assert shown(headers)[:2] == (100, 99)
    assert (await submit(key, job(400)))[0] == 202
    refused(await submit(key, job(400)), "1,000 tokens a minute", f"{2 * size} are used", f"asks for {size}")
    assert (await submit(key, job(50)))[0] == 202  # what fits, fits
    # Larger than all there is: it goes when nothing else counts.
    large = await new_key(tenant, limits={"tpm": 1_000})
    assert (await submit(large, job(5_000)))[0] == 202
    refused(await submit(large, job(5_000)), "1,000 are used")


async def test_openais_routes_show_and_keep_to_the_same_limits(tenant: Tenant) -> None:
    key = await new_key(tenant, limits={"rpm": 3, "tpm": 10_000})
    routes = {
        "/v1/chat/completions": body(),
        "/v1/embeddings": {"model": "simulated/small", "input": "x"},
        "/v1/responses": {"model": "simulated/small", "input": "x"},
    }
    for left, (path, asked) in zip((2, 1, 0), routes.items(), strict=True):
        status, _, headers = await key.ask("POST", path, asked, Prefer="respond-async")
        assert (status, shown(headers)[:2], shown(headers, "tokens")[0]) == (202, (3, left), 10_000), path
    for path, asked in routes.items():
        refused(await key.ask("POST", path, asked))
    assert await stored(tenant) == 3


async def test_never_more_whichever_front_door_admits(tmp_path: Path, api: Gateway, tenant: Tenant) -> None:
    async with second_door(tmp_path, api) as other:
        for number in (1, 20, 37):
            before, key = await stored(tenant), await new_key(tenant, limits={"rpm": number})
            begun = time.monotonic()
            answers = await asyncio.gather(
                *(submit(key, door=door) for _ in range(100) for door in (api, other)), return_exceptions=False
            )
            assert time.monotonic() - begun < 50
            assert Counter(status for status, _, _ in answers) == {202: number, 429: 200 - number}
            assert await stored(tenant) == before + number
            left = sorted(shown(headers)[1] for status, _, headers in answers if status == 202)
            assert left == list(range(number))  # one count: each of them found another number


async def test_a_change_holds_everywhere_within_a_second(tmp_path: Path, api: Gateway, tenant: Tenant) -> None:
    async with second_door(tmp_path, api) as other:
        key = await new_key(tenant)
        for door in (api, other):
            assert await statuses(key, 3, door=door) == [202] * 3

        async def soon(expected: int) -> None:
            since = time.monotonic()
            for door in (api, other):
                await until(lambda door=door: submit(key, door=door), lambda answer: answer[0] == expected, seconds=5)
            assert time.monotonic() - since < 1

        path = f"/v1/admin/keys/{key.id}"
        assert (await tenant.ask("PATCH", path, {"limits": {"rpm": 1}}))[0] == 200
        await soon(429)
        assert (await tenant.ask("PATCH", path, {"limits": {"rpm": 1_000}}))[0] == 200
        await soon(202)
        id_ = await limit(tenant, rpm=1)
        await soon(429)
        assert (await tenant.ask("PATCH", f"/v1/admin/limits/{id_}", {"rpm": 1_000}))[0] == 200
        await soon(202)
        assert (await tenant.ask("PATCH", f"/v1/admin/limits/{id_}", {"rpm": 2}))[0] == 200
        await soon(429)
        assert (await tenant.ask("DELETE", f"/v1/admin/limits/{id_}"))[0] == 200
        await soon(202)


@asynccontextmanager
async def second_door(directory: Path, api: Gateway) -> AsyncIterator[Gateway]:
    servers = api.env["SLUICE_DATABASE_URL"], api.env["SLUICE_REDIS_URL"]
    async with gateway(directory, *servers, parts=("api",)) as other:
        yield other


# ------------------------------------------------------------------ teams, tenants, end users


async def test_a_team_a_tenant_and_its_end_users_are_each_bound(tenant: Tenant, neighbour: Tenant) -> None:
    _, team, _ = await tenant.ask("POST", "/v1/admin/teams", {"name": "t", "tenant_id": tenant.id})
    mates = [await new_key(tenant, team_id=team["id"]) for _ in range(2)]
    alone, stranger = await new_key(tenant), await new_key(neighbour)

    await limit(tenant, team_id=team["id"], rpm=2)
    assert [await statuses(mate, 1) for mate in mates] == [[202], [202]]
    for mate in mates:
        refused(await submit(mate), "this key's team", "2 requests")
    assert await statuses(alone, 3) == [202] * 3

    await limit(tenant, end_user="*", rpm=2)
    await limit(tenant, end_user="ada", rpm=3)
    for name, most in (("bob", 2), ("ada", 3), ("bob@example.com", 2)):
        assert await statuses(alone, most, job(user=name)) == [202] * most
        refused(await submit(alone, job(user=name)), f"the end user '{name}'", f"{most} requests")
    assert await statuses(alone, 3) == [202] * 3  # for nobody in particular

    await limit(tenant, rpm=5)  # counted from when there is a limit
    assert await statuses(tenant, 2) == [202] * 2  # the bootstrap key acts in the tenant too
    assert await statuses(alone, 3) == [202] * 3
    refused(await submit(alone), "this tenant", "5 requests")
    refused(await submit(tenant), "this tenant")

    # None of it is another tenant's, whose end users may have the same names.
    await limit(neighbour, end_user="*", rpm=8)
    assert await statuses(stranger, 9, job(user="bob")) == [202] * 8 + [429]


async def test_what_one_limit_refuses_no_other_counts(tenant: Tenant) -> None:
    key, other = await new_key(tenant, limits={"rpm": 10}), await new_key(tenant)
    await limit(tenant, end_user="ada", tpm=1_000)
    assert (await submit(other, job(800, user="ada")))[0] == 202
    for _ in range(3):
        answer = await submit(key, job(800, user="ada"))
        refused(answer, "'ada'", "1,000 tokens")
        assert shown(answer[2])[:2] == (10, 10)
    assert shown((await submit(key))[2])[:2] == (10, 9)


# ------------------------------------------------------------------ batches, repeats, faults


async def test_a_batch_counts_its_lines(tenant: Tenant) -> None:
    key = await new_key(tenant, limits={"rpm": 10})
    await limit(tenant, end_user="*", rpm=4)

    async def batch(number: int, user: str = "") -> tuple[int, Any, Mapping[str, str]]:
        fields = {"user": user} if user else {}
        return await key.ask("POST", "/v1/batches", {"requests": [job(**fields)] * number})

    status, _, headers = await batch(4)
    assert (status, shown(headers)[:2]) == (202, (10, 6))
    refused(await batch(7), "this key", "10 requests", "4 are used", "asks for 7")
    assert await stored(tenant) == 4
    assert (await batch(3, "ada"))[0] == 202
    refused(await batch(2, "ada"), "'ada'", "3 are used", "asks for 2")
    assert (await batch(1, "ada"))[0] == 202
    assert await stored(tenant) == 8


async def test_a_batch_larger_than_the_limit_goes_when_nothing_counts_and_is_owed(tenant: Tenant) -> None:
    key = await new_key(tenant, limits={"rpm": 10})
    large = {"requests": [job()] * 25}
    status, _, headers = await key.ask("POST", "/v1/batches", large)
    assert (status, shown(headers)) == (202, (10, 0, 150.0))
    answer = await submit(key)
    refused(answer, "10 are used", "Try again in 150 s")
    assert answer[2]["Retry-After"] == "60"
    used = await new_key(tenant, limits={"rpm": 10})
    assert (await submit(used))[0] == 202
    refused(await used.ask("POST", "/v1/batches", large), "asks for 25")
    assert await stored(tenant) == 26


async def test_too_many_limited_end_users_in_one_batch(tenant: Tenant) -> None:
    many = {"requests": [job(user=f"u{number}") for number in range(1_001)]}
    assert (await tenant.ask("POST", "/v1/batches", many))[0] == 202
    await limit(tenant, end_user="*", rpm=4)
    status, shape, _ = await tenant.ask("POST", "/v1/batches", many)
    assert (status, shape["error"]["code"]) == (400, "too_many_end_users")


async def test_a_repeat_of_what_was_accepted_is_not_refused(tenant: Tenant) -> None:
    key = await new_key(tenant, limits={"rpm": 2})
    batch = {"requests": [job()]}
    routes: list[tuple[str, Any]] = [("/v1/jobs", job()), ("/v1/batches", batch)]
    first = [(await key.ask("POST", path, asked, Idempotency_Key=f"k{path}"))[1] for path, asked in routes]
    for (path, asked), made in zip(routes, first, strict=True):
        for _ in range(2):
            status, again, headers = await key.ask("POST", path, asked, Idempotency_Key=f"k{path}")
            assert (status, again["id"], headers["Idempotent-Replayed"]) == (202, made["id"], "true")
        status, shape, _ = await key.ask("POST", path, asked | {"metadata": {"k": "v"}}, Idempotency_Key=f"k{path}")
        assert (status, shape["error"]["code"]) == (422, "idempotency_key_reused")
        refused(await key.ask("POST", path, asked, Idempotency_Key="another"))
    assert await stored(tenant) == 2


async def test_what_is_malformed_costs_nothing(tenant: Tenant) -> None:
    key = await new_key(tenant, limits={"rpm": 2}, models=["simulated/small"])
    wrong: list[tuple[str, Any]] = [
        ("/v1/jobs", {"body": {"model": "simulated/small"}}),
        ("/v1/jobs", job() | {"priority": "now"}),
        ("/v1/jobs", job(model="simulated/other")),
        ("/v1/chat/completions", {"messages": []}),
        ("/v1/batches", {"requests": [job(), {"body": {}}]}),
        ("/v1/batches", {"requests": []}),
    ]
    for path, asked in wrong:
        assert 400 <= (await key.ask("POST", path, asked))[0] < 429, path
    assert await statuses(key, 3) == [202, 202, 429]


async def test_running_again_counts_requests(tenant: Tenant) -> None:
    key = await new_key(tenant, limits={"rpm": 2})
    made = [(await submit(await new_key(tenant)))[1]["id"] for _ in range(4)]
    await fetch_row(
        tenant.api,
        "UPDATE jobs SET status = 'failed', finished_at = now(), error = '{\"code\": \"x\"}' WHERE tenant_id = $1",
        tenant.id,
    )
    assert (await key.ask("POST", f"/v1/jobs/{made[0]}/retry"))[0] == 202
    refused(await key.ask("POST", "/v1/jobs/retry", {"status": "failed"}), "asks for 3")
    assert (await key.ask("POST", f"/v1/jobs/{made[1]}/retry"))[0] == 202
    refused(await key.ask("POST", f"/v1/jobs/{made[2]}/retry"))
    _, listed, _ = await key.ask("GET", "/v1/jobs?status=failed")
    assert len(listed["data"]) == 2


# ------------------------------------------------------------------ jobs that wait


async def test_a_tenant_and_a_key_have_so_many_jobs_waiting(tenant: Tenant, neighbour: Tenant) -> None:
    key, other = await new_key(tenant, limits={"queued": 2}), await new_key(tenant)
    assert await statuses(key, 2) == [202] * 2
    status, shape, headers = await submit(key)
    assert (status, shape["error"]["code"], shape["error"]["type"]) == (429, "queue_full", "rate_limit_error")
    assert "of this key" in shape["error"]["message"]
    assert 1 <= int(headers["Retry-After"]) <= 60
    id_ = await limit(tenant, queued=3)
    assert await statuses(other, 2) == [202, 429]
    assert (await tenant.ask("PATCH", f"/v1/admin/limits/{id_}", {"queued": 5, "rpm": 1}))[0] == 200
    # What the rate refuses takes no room: one is let in, many are refused, and there is room for another still.
    assert await statuses(other, 6) == [202, *[429] * 5]
    assert (await tenant.ask("PATCH", f"/v1/admin/limits/{id_}", {"rpm": None}))[0] == 200
    assert await statuses(other, 2) == [202, 429]
    assert await statuses(neighbour, 6) == [202] * 6


# ------------------------------------------------------------------ Redis away


async def test_without_redis_it_is_503_soon_and_then_as_before(tmp_path: Path) -> None:
    async with own_servers(tmp_path) as (api, _, redis):
        home = Tenant(api, "default", "default")
        key = await new_key(home, limits={"rpm": 100_000, "queued": 100_000})
        assert (await submit(key))[0] == 202
        await redis.child.kill()
        await away(key)
        await redis.child.start()
        await until(lambda: submit(key), lambda answer: answer[0] == 202)
        await hung(redis, key)
        await until(lambda: submit(key), lambda answer: answer[0] == 202)


async def away(key: Key) -> None:
    begun = time.monotonic()
    for status, shape, headers in await asyncio.gather(*(submit(key) for _ in range(20))):
        assert (status, shape["error"]["code"]) == (503, "unavailable")
        assert 0 < int(headers["Retry-After"]) <= 60
    assert time.monotonic() - begun < 8


async def hung(redis: Server, key: Key) -> None:
    """Redis takes what is sent and does not answer."""
    assert redis.child.pid is not None

    os.kill(redis.child.pid, signal.SIGSTOP)
    try:
        await away(key)
    finally:
        os.kill(redis.child.pid, signal.SIGCONT)
