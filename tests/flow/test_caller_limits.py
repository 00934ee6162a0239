"""Limits of the caller where answers are streamed and where jobs are run."""

from itertools import pairwise
from typing import Any

from redis.asyncio import Redis

from shared.queue import CAPS
from tests.events import streamed
from tests.gateway import Gateway, line, until


async def key(sluice: Gateway, **limits: int) -> dict[str, str]:
    """Make a key with limits; return the header that shows it."""
    status, made, _ = await sluice.ask("POST", "/v1/admin/keys", {"name": "k", "limits": limits})
    assert status == 200, made
    return {"Authorization": f"Bearer {made['key']}"}


async def test_a_streamed_answer_says_how_its_key_stands(sluice: Gateway) -> None:
    header = await key(sluice, rpm=1, tpm=1_000_000)
    body = streamed()["body"]
    async with sluice.client.post(sluice.url + "/v1/chat/completions", json=body, headers=header) as answer:
        assert answer.status == 200
        assert answer.content_type == "text/event-stream"
        assert (answer.headers["x-ratelimit-limit-requests"], answer.headers["x-ratelimit-remaining-requests"]) == (
            "1",
            "0",
        )
        assert 0 < int(answer.headers["x-ratelimit-remaining-tokens"]) < 1_000_000
        await answer.read()
    async with sluice.client.post(sluice.url + "/v1/chat/completions", json=body, headers=header) as answer:
        assert (answer.status, answer.content_type) == (429, "application/json")
        assert answer.headers["x-ratelimit-remaining-requests"] == "0"


async def test_a_keys_jobs_run_so_many_at_a_time_and_wait_meanwhile(sluice: Gateway) -> None:
    header = await key(sluice, in_flight=1)
    redis = Redis.from_url(sluice.env["SLUICE_REDIS_URL"])
    await until(lambda: redis.hlen(CAPS), what="the queue was told")
    await redis.aclose()
    made = []
    for _ in range(4):
        status, job, _ = await sluice.ask("POST", "/v1/jobs", line(simulate={"latency_ms": 300}), headers=header)
        assert status == 202
        made.append(job["id"])
    runs: list[tuple[Any, Any]] = []
    for id_ in made:
        assert (await sluice.ended(id_))["status"] == "completed"
        [attempt] = await sluice.attempts(id_)
        runs.append((attempt["started_at"], attempt["ended_at"]))
    runs.sort()
    assert all(ended <= begun for (_, ended), (begun, _) in pairwise(runs))
