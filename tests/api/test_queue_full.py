"""A tenant's cap on waiting jobs."""

from pathlib import Path

from tests.gateway import CONFIG, gateway, line, until

CAPPED = CONFIG + "tenants: {defaults: {queued: 5}}\n"


async def test_a_full_queue_refuses_more_until_there_is_room(tmp_path: Path, database: str, redis: str) -> None:
    async with gateway(tmp_path, database, redis, parts=("upstream", "api"), config=CAPPED) as sluice:
        status, refused, headers = await sluice.ask("POST", "/v1/batches", {"requests": [line()] * 6})
        assert (status, refused["error"]["code"]) == (429, "queue_full")
        assert "5" in refused["error"]["message"]
        assert int(headers["Retry-After"]) <= 60
        assert (await sluice.ask("POST", "/v1/batches", {"requests": [line()] * 4}))[0] == 202
        last = await sluice.submit()
        status, refused, _ = await sluice.ask("POST", "/v1/jobs", line())
        assert (status, refused["error"]["code"]) == (429, "queue_full")
        _, listed, _ = await sluice.ask("GET", "/v1/jobs")
        assert len(listed["data"]) == 5  # what was refused left nothing behind
        assert (await sluice.ask("POST", f"/v1/jobs/{last}/cancel"))[0] == 200

        async def submitted() -> int:
            return (await sluice.ask("POST", "/v1/jobs", line()))[0]

        await until(submitted, lambda status: status == 202, what="room again")
